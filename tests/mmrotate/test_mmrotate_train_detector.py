"""Detectors are trained by mmrotate, in steps that a kill does not change; needs mmrotate."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dataengine.data import coco, formats
from dataengine.data.layout import Dataset
from dataengine.errors import UserError
from dataengine.judge.detector import load_detector
from dataengine.mmrotate import training
from dataengine.train.detector import train_detector

pytestmark = pytest.mark.mmrotate
STEPS = 6
SMALL = {"preset": "tiny", "steps": STEPS, "batch_size": 2, "tile_size": 96}
# a job that writes a checkpoint after every step, and says each step
EVERY_STEP = (
    "import sys; from dataengine.mmrotate import job, training; training.CHECKPOINT_SECONDS = job.REPORT_SECONDS = 0; "
    "job.main(sys.argv[1])"
)


@pytest.fixture(scope="module")
def data(toy_dataset, tmp_path_factory) -> Path:
    dataset, root = formats.read(toy_dataset), tmp_path_factory.mktemp("train-detector")
    for name, part in (("real", slice(0, 6)), ("extra", slice(6, 10))):
        coco.write(Dataset(dataset.classes, dataset.samples[part], "obb", name="toy"), root / name, split="train")
    return root


@pytest.fixture(scope="module")
def uninterrupted(data, tmp_path_factory) -> Path:
    return train_detector(data / "real", tmp_path_factory.mktemp("whole") / "out", extra=data / "extra", **SMALL)


def test_a_killed_training_continues_to_the_same_bytes(uninterrupted, data, tmp_path):
    """The process is killed after its third step, and the same call continues."""
    run = subprocess.Popen
    killed: list[int] = []

    class Killed(run):
        def __init__(self, command, **settings):
            if not killed and "dataengine.mmrotate.job" in command:
                command = [sys.executable, "-c", EVERY_STEP, command[-1]]
            super().__init__(command, **settings)

    def kill(step: int, steps: int, loss: float) -> None:
        if step == STEPS // 2:
            killed.append(step)
            raise ConnectionError  # `_follow` ends the process with this call

    out = tmp_path / "out"
    arguments = {"extra": data / "extra", **SMALL}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subprocess, "Popen", Killed)
        patch.setattr(Killed, "terminate", run.kill)
        with pytest.raises(ConnectionError):
            train_detector(data / "real", out, progress=kill, **arguments)
    reached = json.loads((out / "training" / training.STATE_FILE).read_text())["step"]
    assert 0 < reached < STEPS
    assert not (out / "detector").exists()
    shown: list[int] = []
    result = train_detector(data / "real", out, progress=lambda step, *_: shown.append(step), **arguments)
    assert shown[0] > reached, "it does not begin again"
    for name in ("model.onnx", "config.json"):
        assert (result / name).read_bytes() == (uninterrupted / name).read_bytes()
    other = train_detector(data / "real", tmp_path / "other", seed=1, **arguments)
    assert (other / "model.onnx").read_bytes() != (uninterrupted / "model.onnx").read_bytes(), (
        "control: the seed matters"
    )


def test_the_result_serves_the_filter_and_its_work_folder_is_a_detector_too(uninterrupted):
    from dataengine.data.images import rgb

    work = uninterrupted.parent / "training"
    assert load_detector(uninterrupted).classes == load_detector(work).classes == ("car", "van")
    assert (
        load_detector(uninterrupted).detect([rgb(next((work.parent / "export").rglob("*.png")))])[0].boxes.shape[1] == 5
    )


def test_a_finished_training_is_lengthened_and_other_settings_are_refused(data, tmp_path):
    out = tmp_path / "out"
    first = (train_detector(data / "real", out, **SMALL) / "model.onnx").read_bytes()
    shown: list[int] = []
    longer = SMALL | {"steps": STEPS + 2}
    result = train_detector(data / "real", out, progress=lambda step, *_: shown.append(step), **longer)
    assert shown[-1] == STEPS + 2
    assert min(shown) > STEPS, "it continues"
    assert (result / "model.onnx").read_bytes() != first
    with pytest.raises(UserError, match=f"trained for {STEPS + 2} steps already"):
        train_detector(data / "real", out, **SMALL)
    with pytest.raises(UserError, match=r"other settings .*seed was 0, is 1"):
        train_detector(data / "real", out, seed=1, **longer)


def test_a_training_that_ends_early_leaves_a_detector(data, tmp_path):
    said: list[str] = []
    result = train_detector(data / "real", tmp_path / "out", minutes=1e-6, report=said.append, **SMALL)
    assert f"at step 1 of {STEPS}" in said[-1]
    assert load_detector(result)
    assert [file.name for file in (tmp_path / "out" / "training").glob("*.pth")] == ["checkpoint.pth"]


def test_a_second_training_in_the_same_folder_is_refused_while_one_is_at_work(data, tmp_path):
    from dataengine.files import lock

    work = tmp_path / "out" / "training"
    work.mkdir(parents=True)
    with lock(work / ".lock"), pytest.raises(UserError, match="another process trains there"):
        train_detector(data / "real", tmp_path / "out", **SMALL)


def test_mistakes_in_options_are_one_sentence(data, tmp_path):
    for options, said in (
        ({"model.bbox_head.loss_cls": {"type": "os.system"}}, "is no class"),
        ({"custom_hooks": [{"type": "CheckpointHook"}]}, "only an EMAHook has an effect"),
        ({"optim_wrapper.optimizer.lr": 1e30}, "loss is (nan|inf).*lower the learning rate"),
    ):
        with pytest.raises(UserError, match=said):
            train_detector(data / "real", tmp_path / str(len(said)), options=options, **SMALL)


def test_a_two_stage_detector_is_trained_and_serves_the_filter(data, tmp_path):
    """Oriented R-CNN, narrow and without ImageNet weights."""
    narrow = {
        "model.backbone.init_cfg": None, "model.backbone.depth": 18, "model.backbone.base_channels": 16,
        "model.backbone.frozen_stages": -1, "model.backbone.norm_eval": False,
        "model.neck.in_channels": [16, 32, 64, 128],
    }  # fmt: skip
    settings = SMALL | {"preset": "oriented-rcnn", "steps": 2, "options": narrow}
    result = train_detector(data / "real", tmp_path / "out", **settings)
    assert result == tmp_path / "out" / "training"
    assert load_detector(result).classes == ("car", "van")


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch):
    monkeypatch.setitem(os.environ, "OMP_NUM_THREADS", "1")
