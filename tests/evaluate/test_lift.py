"""The lift: the benefit of synthetic images for a detector, over real images alone and copy-paste."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats

from dataengine.data import coco, formats
from dataengine.errors import UserError
from dataengine.evaluate import lift
from dataengine.evaluate.lift import Protocol, interval, run_lift, tables
from dataengine.judge.detector import Detections
from dataengine.mmrotate import training
from dataengine.mmrotate.cpu_speed import accelerate_on_cpu
from dataengine.render.precision import has_native_bf16


@pytest.fixture
def protocol(toy_dataset, tmp_path) -> Protocol:
    dataset = formats.read(toy_dataset)
    for name, part in (("real", slice(0, 6)), ("test", slice(6, 12)), ("run", slice(12, 24))):
        coco.write(replace(dataset, samples=dataset.samples[part]), tmp_path / name, split="train")
    return Protocol(
        tmp_path / "real", tmp_path / "test", (tmp_path / "run",), (4, 12), "rtmdet-r", {}, 10, 2, 2, 0.5, 12, cpu=True
    )


class Half:
    """A detector that finds the first half of the objects of each arm's share: fewer without synthetic images."""

    classes = ("car", "van")
    identity = "half"

    def __init__(self, share: float, test: Path):
        self.share, self.layouts = share, iter([s.layout for s in formats.read(test)])

    def detect(self, images) -> list[Detections]:
        layout = next(self.layouts)
        n = round(self.share * len(layout))
        return [Detections(layout.boxes[:n], np.full(n, 0.9, np.float32), layout.labels[:n])]


@pytest.fixture
def trained(protocol, monkeypatch) -> list[dict]:
    """Settings of each training, which is skipped."""
    asked: list[dict] = []

    def train(config: Path, out: Path, **settings):
        out.mkdir(parents=True, exist_ok=True)
        config_text = config.read_text()
        asked.append(settings | {"arm": config.parent.name, "config": config_text, "data": config.parent / "data"})
        return training.Trained(config, out, 10, 10)

    monkeypatch.setattr(lift, "train_exported", train)
    monkeypatch.setattr(
        lift, "MmrotateDetector",
        lambda config, _: Half(1.0 if config.parent.name.startswith("run") else 0.34, protocol.test),
    )  # fmt: skip
    return asked


def test_every_arm_takes_equally_many_steps_and_sees_the_same_real_images(protocol, trained, tmp_path):
    run_lift(protocol, tmp_path / "lift", report=lambda text: None)
    assert [a["arm"] for a in trained[:4]] == ["real", "copy-paste", "run-4", "run-12"]
    assert {(a["steps"], a["batch_size"]) for a in trained} == {(10, 2)}
    assert [a["seed"] for a in trained] == [0] * 4 + [1] * 4
    assert {len(list((a["data"] / "real/train/images").iterdir())) for a in trained} == {6}
    others = [len(list((a["data"] / "synthetic/train/images").iterdir())) for a in trained[1:4]]
    assert others == [12, 4, 12]
    assert "synthetic" not in trained[0]["config"].split("train_dataloader")[1]


def test_without_mmrotate_the_command_runs_in_its_environment(protocol, tmp_path, monkeypatch):
    from typer.testing import CliRunner

    from dataengine.cli import app
    from dataengine.mmrotate import environment

    words = ["evaluate", "lift", protocol.runs[0], "--real", protocol.real, "--test", protocol.test, "--out", "lift"]
    words = list(map(str, words))
    there = [sys.executable, "-c", "import sys; open(sys.argv[1], 'w').write(' '.join(sys.argv[2:])); sys.exit(7)"]
    monkeypatch.setattr(environment, "is_here", lambda: False)
    monkeypatch.setattr(environment, "command", lambda *given: [*there, str(tmp_path / "asked"), *given])
    monkeypatch.setattr(sys, "argv", ["dataengine", *words])
    assert CliRunner().invoke(app, words).exit_code == 7
    assert (tmp_path / "asked").read_text() == " ".join(["dataengine", *words])


def test_more_labels_are_an_arm_of_their_own(protocol, trained, tmp_path):
    more = replace(protocol, more_real=protocol.test, seeds=1)
    outcomes = run_lift(more, tmp_path / "lift", report=lambda text: None)
    assert trained[-1]["arm"] == "more-real"
    shown, expected = (
        {Image.open(file).tobytes() for file in (trained[-1]["data"] / part).iterdir()}
        for part in ("synthetic/train/images", "real/test/images")
    )
    assert len(shown) == 6
    assert shown == expected
    whole, *_ = tables(outcomes, "rtmdet-r")
    assert {row.name: row.role for row in whole.rows}["more real"] == "reference"


def test_the_table_tells_what_synthetic_images_bring_and_that_copy_paste_brings_nothing(protocol, trained, tmp_path):
    whole, by_class, by_size = tables(run_lift(protocol, tmp_path / "lift", report=lambda text: None), "rtmdet-r")
    assert whole.value("run 12", "AP50") == pytest.approx(1.0)
    assert whole.value("run 12", "lift") == pytest.approx(1 - whole.value("real", "AP50"))
    assert whole.value("copy-paste", "lift") == 0
    assert {row.name for row in by_class.rows} == {"car", "van"}
    assert all(", " in row.name for row in by_size.rows)


def test_what_was_judged_is_not_trained_again(protocol, trained, tmp_path):
    first = run_lift(protocol, tmp_path / "lift", report=lambda text: None)
    n = len(trained)
    assert run_lift(protocol, tmp_path / "lift", report=lambda text: None) == first
    assert len(trained) == n
    (tmp_path / "lift/copy-paste/seed-1/outcome.json").unlink()
    run_lift(replace(protocol, seeds=3), tmp_path / "lift", report=lambda text: None)
    assert [(a["arm"], a["seed"]) for a in trained[n:]] == [
        ("copy-paste", 1), ("real", 2), ("copy-paste", 2), ("run-4", 2), ("run-12", 2)
    ]  # fmt: skip


def test_outcomes_of_another_protocol_are_left_alone(protocol, trained, tmp_path):
    run_lift(protocol, tmp_path / "lift", report=lambda text: None)
    before = json.loads((tmp_path / "lift/protocol.json").read_text())
    with pytest.raises(UserError, match="another protocol"):
        run_lift(replace(protocol, steps=20), tmp_path / "lift")
    assert json.loads((tmp_path / "lift/protocol.json").read_text()) == before


def test_more_runs_and_sizes_are_added_and_other_images_under_a_known_name_refused(protocol, trained, tmp_path):
    run_lift(protocol, tmp_path / "lift", report=lambda text: None)
    n = len(trained)
    (tmp_path / "run").rename(tmp_path / "first")
    coco.write(formats.read(tmp_path / "first"), tmp_path / "unfiltered", split="train")
    both = replace(protocol, runs=(tmp_path / "unfiltered",), sizes=(12,), seeds=1)
    outcomes = run_lift(both, tmp_path / "lift", report=lambda text: None)
    assert [a["arm"] for a in trained[n:]] == ["unfiltered-12"]
    assert [o["arm"] for o in outcomes] == ["real", "copy-paste", "unfiltered 12"]
    elsewhere = tmp_path / "elsewhere/unfiltered"
    with pytest.raises(UserError, match="two runs have the folder name unfiltered"):
        run_lift(replace(both, runs=(*both.runs, elsewhere)), tmp_path / "lift")
    with pytest.raises(UserError, match=r"unfiltered-12.*choose another --out"):
        run_lift(replace(both, runs=(elsewhere,)), tmp_path / "lift")
    assert len(trained) == n + 1


def test_a_batch_without_room_for_both_kinds_is_refused_before_anything_is_trained(protocol, trained, tmp_path):
    for share in (0.1, 0.9):
        with pytest.raises(UserError, match="at least one real and one synthetic image"):
            run_lift(replace(protocol, real_share=share), tmp_path / "lift")
    assert not trained
    assert not (tmp_path / "lift").exists()


def test_intervals_are_students(protocol):
    values = [0.5, 0.6, 0.55]
    low, high = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
    found = interval(values)
    assert (found.low, found.high) == pytest.approx((low, high))
    assert np.isnan(interval([0.5]).low)


@pytest.mark.skipif(not has_native_bf16(torch.device("cpu")), reason="this CPU has no bf16: trainings stay in fp32")
def test_networks_compute_in_bf16_and_give_fp32_to_the_losses():
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone = torch.nn.Conv2d(3, 64, 3)
            self.neck = torch.nn.ModuleList([torch.nn.Conv2d(64, 8, 3)])
            self.neck.forward = lambda x: [self.neck[0](x)]

        def forward(self, x):
            return self.neck.forward(self.backbone(x))[0]

    net, x = Net(), torch.randn(2, 3, 32, 32)
    before = net(x)
    accelerate_on_cpu(net)
    after = net(x)
    assert after.dtype == torch.float32
    assert 0 < float((after - before).norm() / before.norm()) < 0.02
    after.sum().backward()
    assert net.backbone.weight.grad.dtype == torch.float32
