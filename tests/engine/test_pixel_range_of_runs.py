"""A run on thermal images of 16 bits: scenes and objects get the greys of the stored pixel range."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dataengine.data import formats, images
from dataengine.engine.recipe import Recipe
from dataengine.engine.run import synth
from dataengine.engine.run_folder import RunFolder
from dataengine.engine.verify import verify
from dataengine.errors import UserError

GROUND, CAR = 7400, 8600  # values of 16 bits
SIDE = 256


@pytest.fixture
def thermal(tmp_path) -> Path:
    """Six images of 16 bits in YOLO format: warm cars on colder ground."""
    rng = np.random.default_rng(0)
    root = tmp_path / "thermal"
    (root / "images").mkdir(parents=True)
    (root / "labels").mkdir()
    (root / "classes.txt").write_text("car")
    for i in range(6):
        array = rng.normal(GROUND, 60, (SIDE, SIDE))
        rows = []
        for k in range(4):
            x, y = 30 + 60 * k, 40 + 45 * ((k + i) % 4)
            array[y - 8 : y + 8, x - 15 : x + 15] = rng.normal(CAR, 40, (16, 30))
            rows.append(f"0 {x / SIDE} {y / SIDE} {30 / SIDE} {16 / SIDE}")
        Image.fromarray(array.astype(np.uint16)).save(root / "images" / f"{i}.png")
        (root / "labels" / f"{i}.txt").write_text("\n".join(rows))
    return root


def recipe(thermal: Path, **more) -> Recipe:
    settings = {"n": 2, "size": 128, "filter": "off", "shard_size": 2, "strength": 0.3, "mix": True}
    return Recipe(data=thermal, augment_scenes=True, **settings | more)


@pytest.mark.slow
def test_a_run_on_16_bits_has_the_greys_of_its_range_and_records_it(thermal, tmp_path):
    run = RunFolder(tmp_path / "run")
    synth(recipe(thermal), run.path)
    content = json.loads(run.recipe.read_text())
    low, high = map(float, content["parts"]["pixel range"].split(":"))
    assert low < GROUND - 150
    assert high > CAR + 50
    assert any("become 0 to 255" in note for note in json.loads(run.report.read_text())["notes"])
    ground, car = ((value - low) / (high - low) * 255 for value in (GROUND, CAR))
    for record in run.records():
        pixels = np.asarray(Image.open(run.image(record)).convert("L")).astype(float)
        assert abs(np.median(pixels) - ground) < 40  # scenes are relit
        for cx, cy, *_ in record.labels.boxes[record.labels.visible > 0.9]:
            patch = pixels[int(cy) - 3 : int(cy) + 4, int(cx) - 3 : int(cx) + 4]
            assert patch.mean() > ground + 0.3 * (car - ground)
    assert verify(run.path).faults == []
    real = [sample for sample in formats.read(run.mixed) if "real" in sample.name]
    assert len(real) == 6
    for sample in real:
        assert not images.read_header(sample.image).deep
        assert abs(np.median(images.rgb(sample.image)) - ground) < 3


@pytest.mark.slow
def test_a_run_is_not_continued_with_another_range(thermal, tmp_path):
    synth(recipe(thermal, mix=False), tmp_path / "run")
    (thermal / "pixel-range.json").write_text('{"low": 0, "high": 65535}')
    with pytest.raises(UserError, match="pixel range changed since this run was begun"):
        synth(recipe(thermal, mix=False), tmp_path / "run")


def test_a_range_that_is_asked_for_is_part_of_the_recipe(tmp_path):
    plain, asked = Recipe(data=tmp_path), Recipe(data=tmp_path, pixel_range="7000:9000")
    assert plain.identity({}) != asked.identity({})
    with pytest.raises(ValueError, match="such as 7000:9000"):
        Recipe(data=tmp_path, pixel_range="9000:7000")


def test_recipes_of_earlier_runs_keep_their_identity(tmp_path):
    import hashlib

    plain = Recipe(data=tmp_path)
    later = {
        "pixel_range",
        "layout",
        "scheduler",
        "eta",
        "rename",
        "map",
        "map_box",
        "map_gsd",
        "control",
        "control_scale",
        "like",
    }
    text = plain.model_dump_json(exclude=later) + "[]"
    assert plain.identity({}) == hashlib.sha256(text.encode()).hexdigest()[:16]
