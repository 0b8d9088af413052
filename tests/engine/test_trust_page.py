"""The commands of docs/trust.md run with fewer images, and the tests that it names exist."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "trust.md").read_text()


def test_a_run_is_made_and_verified_by_the_pages_commands(tmp_path):
    commands = re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)[0]
    assert "run verify" in commands
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euc", commands.replace("--n 20", "--n 2 --workers 1")],
        cwd=tmp_path, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "2 of them accepted; unchanged" in done.stdout
    assert '"faults": []' in done.stdout


def test_every_test_and_reader_that_the_page_names_exists():
    for name in re.findall(r"tests/[\w/.]+\.(?:py|json)", PAGE):
        assert (ROOT / name).is_file(), name
    done = subprocess.run(
        [sys.executable, "tools/fuzz.py", "--list"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    table = PAGE[PAGE.index("### Fuzzing") : PAGE.index("## Reproducibility")]
    assert set(done.stdout.split()) == set(re.findall(r"^\| ([a-z0-9-]+) \| [\d,]", table, re.MULTILINE))
