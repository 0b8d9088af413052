"""What a machine without any data does with the packaged weights."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from dataengine import weights
from dataengine.engine.attempt import attempt
from dataengine.engine.parts import load_parts
from dataengine.engine.recipe import Recipe
from dataengine.engine.run import synth
from dataengine.errors import UserError
from dataengine.seeds import image_seed

LARGEST_TOTAL, LARGEST_FILE = 100_000_000, 16 * 2**20


@pytest.fixture
def no_data(tmp_path, monkeypatch) -> Path:
    """A machine on which no data set lies in any of the places that presets name."""
    monkeypatch.delenv("DATAENGINE_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_packaged_weights_are_small_and_hold_no_pickle():
    files = [file for file in weights.FOLDER.rglob("*") if file.is_file() and "__pycache__" not in file.parts]
    assert sum(file.stat().st_size for file in files) < LARGEST_TOTAL
    assert max(file.stat().st_size for file in files) < LARGEST_FILE
    assert {file.suffix for file in files} <= {".safetensors", ".json", ".onnx", ".npz", ".md", ".py"}
    for file in weights.FOLDER.rglob("*.npz"):
        np.load(file, allow_pickle=False)


@pytest.mark.parametrize(
    "name", ["../engine", str(weights.FOLDER.parent / "engine"), "no\nsuch", "in-scene/../../engine"]
)
def test_what_is_not_packaged_is_refused_in_one_line_wherever_its_name_leads(name):
    assert weights.has("in-scene"), "control"
    with pytest.raises(UserError, match="no packaged") as error:
        weights.packaged(name)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("dataset", "kind"), [("hit-uav", "obb"), ("hrplanes", "hbb")])
def test_a_machine_without_images_makes_a_data_set(no_data, dataset, kind):
    result = synth(Recipe(dataset=dataset, n=2, shard_size=4), no_data / "run")
    assert result.accepted == 2
    records = [json.loads(line) for line in (result.out / "manifest.jsonl").read_text().splitlines()]
    assert {r["asked"]["kind"] for r in records} == {kind}
    assert all(r["scene"].startswith("generated:") for r in records)
    [annotations] = sorted((result.out / "coco" / "annotations").glob("*.json"))
    coco = COCO(str(annotations))
    assert len(coco.getImgIds()) == 2
    assert coco.getAnnIds()


def test_an_object_is_painted_in_its_box_and_nowhere_else(no_data):
    """Control: the same scene and noise with the boxes taken away has the same ground and no object."""
    parts = load_parts(Recipe(dataset="hit-uav", n=2))
    recipe = Recipe(dataset="hit-uav", n=2)
    made = [painted for painted, _ in attempt(parts, recipe, range(2))]
    canvases = parts.canvases.draw([one.canvas.new for one in made], [image_seed(recipe.seed, i) for i in range(2)])
    for one, canvas in zip(made, canvases, strict=True):
        changed = np.abs(one.image.astype(int) - canvas.image).max(2)
        boxes = np.zeros(changed.shape, bool)
        for cx, cy, w, _, _ in one.canvas.new.boxes:  # a circle around each box holds its hole whatever its angle
            y, x = np.mgrid[: changed.shape[0], : changed.shape[1]] + 0.5
            boxes |= np.hypot(x - cx, y - cy) < 0.71 * max(1.3 * w + 8, 28)
        assert changed[~boxes].max() == 0
        assert changed[boxes].mean() > 2


def test_thermal_scenes_have_one_channel_and_satellite_scenes_have_colour(no_data):
    for dataset, coloured in (("hit-uav", False), ("hrplanes", True)):
        parts = load_parts(Recipe(dataset=dataset, n=2))
        layouts = [parts.sampler.sample(np.random.default_rng(i)) for i in range(2)]
        spread = [np.ptp(canvas.image.astype(int), axis=2).mean() for canvas in parts.canvases.draw(layouts, [1, 2])]
        assert (min(spread) > 1) == coloured, f"{dataset}: mean spread of the channels {spread}"
        assert all(Image.fromarray(c.image).size == (256, 256) for c in parts.canvases.draw(layouts, [1, 2]))
