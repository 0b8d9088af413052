"""The lift with real trainings, of a few steps; needs mmrotate."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from dataengine.data import coco, formats
from dataengine.data.layout import Dataset
from dataengine.files import read_yaml
from dataengine.mmrotate.detector import MmrotateDetector
from dataengine.mmrotate.export import export
from dataengine.mmrotate.training import train_exported

pytestmark = pytest.mark.mmrotate
OPTIONS = Path(__file__).resolve().parents[2] / "configs" / "detectors" / "small-rtmdet-r.yaml"


def test_every_arm_is_trained_and_judged_by_one_command_which_continues(toy_dataset, tmp_path):
    from dataengine.cli import app

    dataset = formats.read(toy_dataset)
    for name, part in (("real", slice(0, 6)), ("test", slice(6, 10)), ("run", slice(10, 18))):
        samples = dataset.samples[part]
        coco.write(Dataset(dataset.classes, samples, "obb", name="toy"), tmp_path / name, split="train")
    words = ["evaluate", "lift", tmp_path / "run", "--real", tmp_path / "real", "--test", tmp_path / "test", "--out"]
    words += [
        tmp_path / "lift",
        "--images",
        4,
        "--steps",
        3,
        "--batch-size",
        2,
        "--seeds",
        1,
        "--pasted",
        4,
        "--cpu",
        "--json",
    ]
    words += ["--options", OPTIONS]
    first = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert first.exit_code == 0, first.output
    outcomes = {file.parts[-3]: json.loads(file.read_text()) for file in (tmp_path / "lift").glob("*/*/outcome.json")}
    assert set(outcomes) == {"real", "copy-paste", "run-4"}
    assert all(0 <= outcome["AP50"] <= 1 for outcome in outcomes.values())
    assert (tmp_path / "lift/real/seed-0/checkpoint.pth").exists()
    tables = json.loads(first.stdout)  # nothing but JSON, whatever mmengine logs
    assert [row["name"] for row in tables[0]["rows"]] == ["real", "copy-paste", "run 4"]
    before = (tmp_path / "lift/real/seed-0/checkpoint.pth").stat().st_mtime_ns
    (tmp_path / "lift/real/seed-0/outcome.json").unlink()
    again = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert again.exit_code == 0, again.output
    assert json.loads((tmp_path / "lift/real/seed-0/outcome.json").read_text()) == outcomes["real"]
    assert (tmp_path / "lift/real/seed-0/checkpoint.pth").stat().st_mtime_ns == before, "what is trained stays"


@pytest.mark.parametrize("share", [0.75, 0.25])
def test_real_images_are_their_share_of_every_batch_however_many_tiles_they_were_cut_into(
    toy_dataset, tmp_path, monkeypatch, share
):
    from mmengine.dataset import pseudo_collate

    dataset = formats.read(toy_dataset)
    for name, part in (("real", slice(0, 6)), ("run", slice(10, 12))):
        coco.write(Dataset(dataset.classes, dataset.samples[part], "obb", name="toy"), tmp_path / name, split="train")
    side = min(dataset.samples[0].layout.size)
    exported = export(
        tmp_path / "run", tmp_path / "real", tmp_path / "out", detector="rtmdet-r", test=str(tmp_path / "run"),
        tile_size=side // 2, cpu=True,
    )  # fmt: skip
    assert exported.real > 6, "the real images are cut into tiles"
    shown: list[list[str]] = []

    def watched(samples: list) -> dict:
        shown.append([Path(sample["data_samples"].img_path).parts[-4] for sample in samples])
        return pseudo_collate(samples)

    monkeypatch.setattr("mmengine.dataset.pseudo_collate", watched)
    options = read_yaml(OPTIONS)
    train_exported(
        exported.config, tmp_path / "trained", steps=3, batch_size=4, seed=0, options=options, real_share=share
    )
    assert [batch.count("real") for batch in shown] == [round(4 * share)] * 3
    assert {name for batch in shown for name in batch} == {"real", "synthetic"}


def test_a_detector_on_imagenet_features_learns_and_keeps_their_statistics(toy_dataset, tmp_path):
    """The options that the protocols use: what is trained changes the later blocks, and no batch statistics."""
    import torch

    from dataengine.imagenet import ImageNetFeatures

    dataset = formats.read(toy_dataset)
    coco.write(Dataset(dataset.classes, dataset.samples[:6], "obb", name="toy"), tmp_path / "real", split="train")
    real = tmp_path / "real"
    exported = export(None, real, tmp_path / "out", detector="rtmdet-r", test=str(real), ratio=(1, 0), cpu=True)
    options = read_yaml(OPTIONS.with_name("lite0-rtmdet-r.yaml"))
    done = train_exported(exported.config, tmp_path / "trained", steps=4, batch_size=2, seed=0, options=options)
    trained = torch.load(done.checkpoint, weights_only=True)["state_dict"]
    before = ImageNetFeatures("lite0").state_dict()
    after = {name.removeprefix("backbone.features."): value for name, value in trained.items() if "backbone" in name}
    assert set(after) == set(before)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed, "control: it learns"
    assert all(int(name.split(".")[1]) >= options["model.backbone"]["first"] for name in changed), "later blocks only"
    assert not any("running" in name for name in changed)
    boxes = MmrotateDetector(done.config, done.checkpoint).detect([np.zeros((96, 96, 3), np.uint8)])[0].boxes
    assert boxes.shape[1] == 5
