"""The commands of docs/release.md, run as they stand there with fewer images, on the packaged models."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from PIL import Image

PAGE = Path(__file__).parents[2] / "docs" / "release.md"


def test_made_released_and_verified_by_the_pages_commands_without_any_data(tmp_path):
    blocks = re.findall(r"```bash\n(.*?)```", PAGE.read_text(), re.DOTALL)
    commands = next(block for block in blocks if "dataengine synth" in block)
    assert "release verify" in commands
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euc", commands.replace("--n 200", "--n 6 --workers 1")],
        cwd=tmp_path, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    folder = tmp_path / "releases" / "thermal-cars"
    content = json.loads((folder / "release.json").read_text())
    assert content["splits"]["val"] >= 1
    assert sum(content["splits"].values()) + content["left_out"]["leaks"] == 6
    assert {source["license"] for source in content["sources"]} == {"cc-by-4.0", "CC BY 4.0"}
    card = " ".join((folder / "README.md").read_text().split())
    assert "all pixels are generated" in card
    assert "**Not checked**: the packaged models come without their training images" in card
    with Image.open(min(folder.glob("images/*/*.png"))) as image:
        description = image.getxmp()["xmpmeta"]["RDF"]["Description"]
    assert description["DigitalSourceType"].endswith("/trainedAlgorithmicMedia")


def test_the_page_names_every_file_of_a_release(released):
    text = PAGE.read_text()
    for file in released.iterdir():
        assert file.name in text, file.name
