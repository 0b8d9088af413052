"""The commands of docs/mmrotate.md, run as they stand there, with a small detector and a short training."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from dataengine.judge.detector import OnnxDetector, load_detector

pytestmark = pytest.mark.mmrotate
PAGE = Path(__file__).parents[2] / "docs" / "mmrotate.md"
SHORT = (
    "--cfg-options model.backbone.init_cfg=None train_cfg.max_epochs=12 train_cfg.val_interval=12 "
    + " ".join(f"{name}_dataloader.num_workers=0" for name in ("train", "val", "test"))
    + " "
    + " ".join(f"{name}_dataloader.persistent_workers=False" for name in ("train", "val", "test"))
)


def commands(section: str) -> str:
    """The first block of commands below a heading of the page."""
    found = re.search(rf"## {section}\n.*?```bash\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert found, f"{PAGE.name} has no commands below {section}"
    return found[1]


def run_lines(text: str, folder: Path) -> str:
    """Run lines of bash in a folder, with this Python first in PATH; gives what they printed."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euc", text],
        cwd=folder,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


def test_exported_trained_measured_and_used_as_filter_by_the_pages_commands(make_run, real, tmp_path):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "first").symlink_to(make_run())
    (tmp_path / "path" / "to").mkdir(parents=True)
    (tmp_path / "path" / "to" / "dataset").symlink_to(real)
    made = run_lines(commands("Export").replace("oriented-rcnn", "rtmdet-r --cpu"), tmp_path)
    assert "4 real and 3 synthetic" in made.replace("\n", " ")
    train = commands("Train").replace("oriented-rcnn", "rtmdet-r")
    lines = [line + " " + SHORT if "$tools" in line else line for line in train.splitlines()]
    assert sum("$tools" in line for line in lines) == 2
    measured = run_lines("\n".join(lines), tmp_path)
    assert "dota/mAP" in measured
    folder = tmp_path / "work" / "rtmdet-r"
    assert load_detector(folder).classes == ("car", "van")
    export_line = next(line for line in PAGE.read_text().splitlines() if "filter export-detector" in line)
    run_lines(export_line.replace("rotated-fcos", "rtmdet-r"), tmp_path)
    assert isinstance(load_detector(tmp_path / "work" / "detector"), OnnxDetector)
