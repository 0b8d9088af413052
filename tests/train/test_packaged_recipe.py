"""The tool that trains the packaged weights, at a fraction of its steps, on a toy data set."""

from __future__ import annotations

import importlib
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from toy_scenes import canvas, paint, random_layout

from dataengine import weights
from dataengine.data import formats
from dataengine.data.layout import Dataset, Sample
from dataengine.render.layout_unet import LayoutUNet
from dataengine.train.latent_windows import Source
from dataengine.train.thumbnails import collect_windows, make_batch

TOOLS = Path(__file__).resolve().parents[2] / "tools"


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    """`tools/train_packaged.py` with the toy data in place of the sample data and an empty folder of weights."""
    monkeypatch.syspath_prepend(str(TOOLS))
    tool = importlib.import_module("train_packaged")
    rng, samples = np.random.default_rng(0), []
    for i in range(6):
        layout = random_layout(rng, 256)
        Image.fromarray(paint(layout, rng)).save(tmp_path / f"{i}.png")
        samples.append(Sample(str(i), tmp_path / f"{i}.png", layout))
    toy = Dataset(("car", "van"), samples, "obb", name="toy")
    scenes = replace(toy, samples=[replace(s, layout=s.layout.select([])) for s in samples[:2]], name="scenes")
    monkeypatch.setattr(tool, "splits", lambda data: {"toy": {"train": toy}})
    monkeypatch.setattr(tool, "sources", lambda data, part: [Source(toy, 0.5), Source(scenes, 0.5, labelled=False)])
    monkeypatch.setattr(tool, "WHOLE_REPEATS", {"toy": 1, "scenes": 2})
    shutil.copytree(weights.FOLDER / "encoder", tmp_path / "weights" / "encoder")
    monkeypatch.setattr(weights, "FOLDER", tmp_path / "weights")
    return tool


def test_the_data_of_the_packaged_detectors_are_all_training_parts_with_ignored_regions(recipe, tmp_path, monkeypatch):
    toy = recipe.splits(None)["toy"]["train"]
    labels = toy.samples[0].layout
    difficult = np.arange(len(labels)) == 0
    toy.samples[0] = replace(toy.samples[0], layout=replace(labels, difficult=difficult))
    other = replace(toy, classes=("ship", "plane"), name="other", samples=[
        replace(sample, layout=replace(sample.layout, classes=("ship", "plane"))) for sample in toy.samples[1:]
    ])  # fmt: skip
    monkeypatch.setattr(recipe, "splits", lambda data: {"toy": {"train": toy}, "other": {"train": other}})
    recipe.write_detector_data(tmp_path, tmp_path / "work")
    found = formats.read(tmp_path / "work" / "detector-data", split="train")
    assert found.classes == ("car", "van", "ship", "plane")
    assert len(found) == 11
    of = {sample.name: sample.layout for sample in found}
    assert len(of["toy-0"]) == len(labels) - 1
    assert len(of["toy-0"].ignored) == 1
    assert set(of["other-1"].names()) <= {"ship", "plane"}
    assert len(of["other-1"]) == len(toy.samples[1].layout), "control"


def test_layouts_of_unlabelled_scenes_are_unknown_and_those_of_the_others_are_not(recipe):
    toy, scenes = (source.dataset for source in recipe.sources(None, "train"))
    model = LayoutUNet(classes=["car", "van"], domains=["toy", "scenes"], block_out_channels=(32, 32), patch=2)
    windows = collect_windows([toy, scenes], ["car", "van"], 256, 1, np.random.default_rng(0), unlabelled=["scenes"])
    batch = make_batch(windows, model, 64, 0.0)(np.random.default_rng(1))
    named = batch["domains"] < 2
    assert set(batch["domains"][named].tolist()) == {0, 1}
    assert (batch["known"] == (batch["domains"] == 0))[named].all()
    empty = collect_windows([toy, scenes], ["car", "van"], 256, 1, np.random.default_rng(0))
    assert make_batch(empty, model, 64, 0.0)(np.random.default_rng(1))["known"].all(), "control: empty, not unknown"


def test_the_tool_trains_every_model(recipe, tmp_path):
    from dataengine.render.in_scene_pipeline import InScenePipeline
    from dataengine.render.layout_pipeline import LayoutPipeline

    with pytest.raises(SystemExit, match=r"tools/headings\.py"):
        recipe.train_stage("in-scene", tmp_path, tmp_path / "work", 0.0005, None)
    (tmp_path / "work").mkdir(exist_ok=True)
    (tmp_path / "work" / "headings.json").write_text("{}")
    for stage in ("decoder", "thumbnails", "in-scene", "few-step-decoder", "few-step-thumbnails", "few-step-in-scene"):
        recipe.train_stage(stage, tmp_path, tmp_path / "work", 0.0005, None)
    recipe.store_whole(tmp_path, tmp_path / "work")
    recipe.store_layouts(tmp_path)

    layout = random_layout(np.random.default_rng(1), 256)
    whole = LayoutPipeline.from_pretrained(weights.packaged("whole"))
    [image] = whole([layout], [0], "toy", num_inference_steps=whole.steps)
    assert image.shape == (256, 256, 3)
    in_scene = InScenePipeline.from_pretrained(weights.packaged("in-scene"))
    [painted] = in_scene([canvas(image, layout)], [0], num_inference_steps=2)
    assert (painted.image != image).any()
    assert (whole.steps, in_scene.steps) == (4, 4)
    assert weights.has("layouts/toy.npz")
    saved = [file for file in weights.FOLDER.rglob("*") if file.is_file()]
    assert max(file.stat().st_size for file in saved) < 16 * 2**20
    assert not [file for file in saved if file.suffix == ".json" and str(tmp_path) in file.read_text()], (
        "no machine paths"
    )


def test_directions_of_drawn_airplanes_are_found(monkeypatch):
    monkeypatch.syspath_prepend(str(TOOLS))
    tool = importlib.import_module("headings")
    rng, kinds = np.random.default_rng(0), tool.drawn_airplanes()
    truth = rng.uniform(0, 360, 60)
    crops = [
        np.repeat((90 + 120 * tool.turned(kinds[i % 4], turn) + rng.normal(0, 4, (40, 40)))[..., None], 3, 2)
        for i, turn in enumerate(truth)
    ]
    _, found, margin = tool.matched(np.clip(np.stack(crops), 0, 255).astype(np.uint8))
    off = np.abs((found - truth + 180) % 360 - 180)
    assert np.mean(off < 10) > 0.9
    assert (margin > 0).mean() > 0.9
    assert np.mean(np.abs((rng.permutation(found) - truth + 180) % 360 - 180) < 10) < 0.3, "control: of others"


def test_a_model_with_other_classes_keeps_the_known_ones():
    import torch

    from dataengine.render.in_scene import InSceneUNet
    from dataengine.train.in_scene import with_classes

    torch.manual_seed(0)
    model = InSceneUNet(["car", "van"], frame_size=24, patch=3, block_out_channels=(16, 32)).eval()
    other = with_classes(model, ["ship", "Van"]).eval()
    x, ones = torch.randn(1, 3, 24, 24), torch.ones(1, 1, 24, 24)

    def paint(m, label):
        with torch.no_grad():
            return m(x, torch.tensor([500.0]), x, ones, ones, torch.tensor([label]), torch.zeros(1, 8))

    assert torch.equal(paint(model, 1), paint(other, 1)), "a known class, whatever its case"
    assert torch.equal(paint(model, model.null), paint(other, 0)), "a new class starts as an unknown one"
    assert not torch.equal(paint(model, 0), paint(other, 0)), "control: classes are painted differently"
