"""The lift with real trainings, of a few steps; needs mmrotate."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dataengine.data import coco, formats
from dataengine.data.layout import Dataset

pytestmark = pytest.mark.mmrotate
OPTIONS = Path(__file__).resolve().parents[2] / "configs" / "detectors" / "small-rtmdet-r.yaml"


def test_every_arm_is_trained_and_judged_by_one_command_which_continues(toy_dataset, tmp_path):
    from dataengine.cli import app

    dataset = formats.read(toy_dataset)
    for name, part in (("real", slice(0, 6)), ("test", slice(6, 10)), ("run", slice(10, 18))):
        samples = dataset.samples[part]
        coco.write(Dataset(dataset.classes, samples, "obb", name="toy"), tmp_path / name, split="train")
    words = ["evaluate", "lift", tmp_path / "run", "--real", tmp_path / "real", "--test", tmp_path / "test", "--out"]
    words += [tmp_path / "lift", "--images", 4, "--steps", 3, "--batch-size", 2, "--seeds", 1, "--cpu", "--json"]
    words += ["--options", OPTIONS]
    first = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert first.exit_code == 0, first.output
    outcomes = {file.parts[-3]: json.loads(file.read_text()) for file in (tmp_path / "lift").glob("*/*/outcome.json")}
    assert set(outcomes) == {"real", "copy-paste", "synthetic-4"}
    assert all(0 <= outcome["AP50"] <= 1 for outcome in outcomes.values())
    assert (tmp_path / "lift/real/seed-0/iter_3.pth").exists()
    before = (tmp_path / "lift/real/seed-0/iter_3.pth").stat().st_mtime_ns
    (tmp_path / "lift/real/seed-0/outcome.json").unlink()
    again = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert again.exit_code == 0, again.output
    assert json.loads((tmp_path / "lift/real/seed-0/outcome.json").read_text()) == outcomes["real"]
    assert (tmp_path / "lift/real/seed-0/iter_3.pth").stat().st_mtime_ns == before, "what is trained stays"
