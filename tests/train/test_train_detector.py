"""`dataengine train detector` in a plain installation: a stub stands for the process that has mmrotate."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dataengine.data import coco, formats
from dataengine.errors import UserError
from dataengine.judge.detector import load_detector
from dataengine.mmrotate import environment
from dataengine.render.imagery import read_imagery
from dataengine.train import detector
from dataengine.train.detector import PRESETS, train_detector

STUB = """
import json, pathlib, shutil, sys
job = json.loads(pathlib.Path(sys.argv[1]).read_text())
with open(LOG, "a") as log:
    log.write(json.dumps(job) + "\\n")
steps, work = job["settings"]["steps"], pathlib.Path(job["out"])
print(json.dumps({"step": 1, "steps": steps, "loss": 0.5}), flush=True)
EARLY
work.mkdir(parents=True, exist_ok=True)
if job["onnx"]:
    shutil.copytree(DETECTOR, job["onnx"], dirs_exist_ok=True)
print(json.dumps({"reached": 1 if job["settings"]["minutes"] else steps}))
"""


@pytest.fixture
def data(toy_dataset, tmp_path) -> Path:
    dataset = formats.read(toy_dataset)
    for split, part in (("train", slice(0, 4)), ("val", slice(4, 7))):
        coco.write(replace(dataset, samples=dataset.samples[part]), tmp_path / "data", split=split)
    return tmp_path / "data"


@pytest.fixture
def jobs(tmp_path, toy_detector, monkeypatch):
    """`jobs()`: those that the stub was given. `jobs.early`: a line that it runs before it ends."""

    def given() -> list[dict]:
        log = tmp_path / "jobs"
        return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []

    def command(module, file, report) -> list[str]:
        assert module == "dataengine.mmrotate.job"
        stub = tmp_path / "stub.py"
        named = f"LOG, DETECTOR = {str(tmp_path / 'jobs')!r}, {str(toy_detector)!r}\n"
        stub.write_text(named + STUB.replace("EARLY", given.early))
        return [sys.executable, str(stub), file]

    given.early = ""
    monkeypatch.setattr(environment, "command", command)
    return given


def train(data: Path, out: Path, **settings) -> tuple[Path, list[str]]:
    said: list[str] = []
    return train_detector(data, out, report=said.append, **settings), said


def test_it_returns_what_the_filter_loads_and_continues_nothing_that_is_done(data, jobs, tmp_path):
    shown: list[tuple] = []
    result, _ = train(data, tmp_path / "out", steps=7, seed=3, progress=lambda *values: shown.append(values))
    assert load_detector(result).classes == ("car", "van")
    assert shown == [(1, 7, 0.5)]
    assert read_imagery(result)[0].classes == ("car", "van"), "so that other imagery is refused"
    [job] = jobs()
    assert job["settings"]["steps"] == 7
    assert job["settings"]["seed"] == 3
    assert "model.backbone" in job["settings"]["options"], "those of the preset"
    config = Path(job["exported"]).read_text()
    assert len(formats.read(Path(job["exported"]).parent / "data" / "real", split="train")) == 4, "not those of val"
    assert "synthetic/" not in config
    assert train(data, tmp_path / "out", steps=7, seed=3)[0] == result
    assert len(jobs()) == 1
    train(data, tmp_path / "out", steps=9, seed=3)
    assert [job["settings"]["steps"] for job in jobs()] == [7, 9], "control: more steps lengthen it"


def test_synthetic_images_have_their_share_and_a_preset_its_detector(data, jobs, toy_dataset, tmp_path):
    result, said = train(
        data, tmp_path / "out", extra=toy_dataset, real_share=0.25, batch_size=4, preset="oriented-rcnn"
    )
    [job] = jobs()
    assert result == tmp_path / "out" / "training", "a two-stage detector has no ONNX form"
    assert job["onnx"] is None
    assert job["settings"]["real_share"] == 0.25
    assert job["settings"]["steps"] == 3000, "28 images are few for mmrotate's 12 epochs"
    assert job["settings"]["schedule"] == "1x"
    assert "synthetic/" in Path(job["exported"]).read_text()
    assert any("made for a GPU" in line for line in said)


def test_a_training_that_ends_early_says_where_and_that_its_detector_can_be_tried(data, jobs, tmp_path):
    result, said = train(data, tmp_path / "out", steps=1500, minutes=5)
    assert f"stopped after 5 minutes at step 1 of 1,500; the same command continues from there. {result}" in said[-1]
    assert load_detector(result)
    _, said = train(data, tmp_path / "out", steps=1500)
    assert len(jobs()) == 2, "it continues"
    assert not [line for line in said if "stopped" in line], "control"


@pytest.mark.parametrize(
    ("early", "said"),
    [
        ("print(json.dumps({'error': 'a class is not registered'})); sys.exit(2)", "^a class is not registered$"),
        ("sys.exit('Killed by the sky')", r"status 1 \(Killed by the sky\); the same command continues"),
        ("import os; os.kill(os.getpid(), 9)", r"status -9 \(without a word\)"),
    ],
)
def test_a_failure_of_the_process_is_one_sentence_and_no_detector(early, said, data, jobs, tmp_path):
    jobs.early = early
    with pytest.raises(UserError, match=said):
        train(data, tmp_path / "out", steps=7)
    assert not (tmp_path / "out" / "detector").exists()
    jobs.early = ""
    assert load_detector(train(data, tmp_path / "out", steps=7)[0]), "control"


def test_other_data_and_a_folder_with_other_files_are_refused(data, jobs, toy_dataset, tmp_path):
    train(data, tmp_path / "out", steps=7)
    with pytest.raises(UserError, match="contains other data"):
        train(toy_dataset, tmp_path / "out", steps=7)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").touch()
    with pytest.raises(UserError, match=r"other files than those of a detector's training \(thesis\.txt\)"):
        train(data, tmp_path / "full", steps=7)
    with pytest.raises(UserError, match="no such preset; choose one of tiny"):
        train(data, tmp_path / "new", preset="huge")
    assert len(jobs()) == 1


def test_objects_longer_than_the_tiles_are_reported(data, jobs, tmp_path):
    _, said = train(data, tmp_path / "a", tile_size=16)
    assert any("are longer than half of the tiles of 16 px" in line for line in said)
    advice = next(line for line in said if "--tile-size" in line).split("--tile-size ")[1].split()
    _, said = train(data, tmp_path / "larger", tile_size=int(advice[0]), scale=float(advice[2]))
    assert not any("are longer" in line for line in said), "what is named helps"
    _, said = train(data, tmp_path / "b")
    assert said == [], "control"


def test_the_command_measures_the_detector_on_the_validation_part(data, jobs, tmp_path):
    from dataengine.cli import app

    words = ["train", "detector", data, "--out", tmp_path / "out", "--steps", 7]
    done = CliRunner().invoke(app, list(map(str, words)), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert f"detector: {tmp_path / 'out' / 'detector'}" in done.output
    assert "AP50 on val: " in done.output
    objects = sum(len(sample.layout) for sample in formats.read(data, split="val"))
    assert sum(int(count) for count in re.findall(r"\((\d+) objects?\)", done.output)) == objects
    with pytest.raises(UserError, match="neither a split of"):
        CliRunner().invoke(app, [*map(str, words), "--val", "validation"], catch_exceptions=False)
    with pytest.raises(UserError, match="also trained on"):
        CliRunner().invoke(app, [*map(str, words), "--split", "train,val", "--val", "val"], catch_exceptions=False)


def test_the_names_of_the_command_are_those_of_the_presets():
    from typing import get_args

    from dataengine.evaluate.detector_command import PresetName

    assert get_args(PresetName) == tuple(PRESETS)
    for preset in PRESETS.values():
        file = detector.configs("detectors") / f"{preset.options}.yaml"
        assert preset.options is None or file.is_file()
