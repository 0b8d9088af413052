"""The packaged control: used by itself where it fits, named where it is used, and followed by the pictures."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from toy_map import write_geojson
from toy_world import toy_ground
from typer.testing import CliRunner

pytest.importorskip("pyogrio")
pytest.importorskip("rasterio")
from dataengine import weights
from dataengine.cli import app
from dataengine.data.layout import Layout
from dataengine.engine import map_parts
from dataengine.engine.map_parts import settle_control
from dataengine.engine.recipe import Recipe, folder_hash
from dataengine.engine.run_folder import RunFolder
from dataengine.errors import UserError
from dataengine.maps.segment import GROUPS, PAVED, VEGETATION, segment
from dataengine.render.control import Control, condition_side, grouped_condition, load_control, read_input
from dataengine.render.renderer import load_renderer

MAPPED = {"dataset": "hit-uav", "layouts": "map", "map": "m.pbf", "map_gsd": 0.2}


def test_the_packaged_control_is_for_the_packaged_renderer_and_the_packaged_table():
    from dataengine.maps.ground import load_ground

    given = read_input(weights.packaged("control"))
    assert given.renderer == folder_hash(weights.packaged("whole") / "unet"), "train it again: tools/train_packaged.py"
    assert tuple(given.groups) == GROUPS
    assert {*given.classes} <= {*load_ground().names}


def test_for_another_renderer_the_ground_stays_free_and_the_run_says_so(tmp_path):
    toy_ground(quick=False).save_pretrained(tmp_path)
    notes: list[str] = []
    recipe, control = settle_control(Recipe(**MAPPED), None, tmp_path, None, notes)
    assert (recipe.control, control) == (None, None)
    assert "is for another renderer" in notes[0]
    assert settle_control(Recipe(**MAPPED, control="off"), None, tmp_path, None, notes) == (
        Recipe(**MAPPED, control="off"), None
    )  # fmt: skip
    assert len(notes) == 1


def test_real_scenes_follow_no_map():
    canvases, renderer, notes = SimpleNamespace(), SimpleNamespace(paints_on="scene"), []
    recipe = Recipe(**MAPPED)
    assert map_parts.use_control(recipe, renderer, None, canvases, None, notes) == (recipe, None)
    assert "scenes are real images" in notes[0]
    with pytest.raises(UserError, match="the scenes of this run are real images"):
        map_parts.use_control(Recipe(**MAPPED, control="packaged"), renderer, None, canvases, None, notes)


@pytest.mark.slow
def test_a_run_over_a_map_uses_the_packaged_control_and_names_it(tmp_path, monkeypatch):
    monkeypatch.delenv("DATAENGINE_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    file = write_geojson(tmp_path / "toy.geojson")

    def run(*words) -> str:
        done = CliRunner().invoke(app, [str(word) for word in words])
        assert done.exit_code == 0, done.output + str(done.exception)
        return " ".join(done.output.split())

    words = ["synth", "--dataset", "hit-uav", "--layouts", "map", "--map", file, "--map-gsd", 0.2, "--classes", "Car",
             "--filter", "off", "--n", 2, "--workers", 1]  # fmt: skip
    assert "by the packaged control" in run(*words, "--out", tmp_path / "led")
    run(*words, "--out", tmp_path / "led")  # continues, and finds nothing to do
    run(*words, "--out", tmp_path / "free", "--control", "off")
    stored = {name: RunFolder(tmp_path / name).stored_recipe() for name in ("led", "free")}
    assert (stored["led"].recipe["control"], stored["free"].recipe["control"]) == ("packaged", "off")
    assert stored["led"].parts["control"] == folder_hash(weights.packaged("control"))
    assert "control" not in stored["free"].parts
    records = {name: list(RunFolder(tmp_path / name).records()) for name in ("led", "free")}
    for one, other in zip(records["led"], records["free"], strict=True):
        assert np.array_equal(one.labels.boxes, other.labels.boxes)
        assert one.sha256 != other.sha256
    run("run", "verify", tmp_path / "led")


@pytest.mark.slow
def test_pictures_follow_their_own_map_and_not_another():
    """S1 on the packaged weights: lawn beside asphalt, the border in four directions; at scale 0 they do not."""
    torch.set_num_threads(1)
    pipeline = load_renderer(weights.packaged("whole"), "whole")
    network, _ = load_control(str(weights.packaged("control")))
    side = condition_side(pipeline.unet)
    y, x = np.mgrid[:side, :side]
    maps = [np.where(half, PAVED, VEGETATION).astype(np.uint8) for half in (x < 64, x >= 64, y < 64, y >= 64)] * 2
    condition = torch.from_numpy(np.stack([grouped_condition(each, len(GROUPS), side) for each in maps]))
    layouts = [Layout(np.zeros((0, 5)), [], ("airplane",), (256, 256))] * len(maps)

    def agreement(scale: float, shift: int) -> float:
        control = Control(network, condition, scale)
        pictures = pipeline(layouts, list(range(len(maps))), "hrplanes", control=control)
        found = np.stack([segment(picture[::2, ::2], 1.6) for picture in pictures])
        wanted = np.stack(maps[shift:] + maps[:shift])
        known = found > 0
        return float((found == wanted)[known].mean())

    own, another, free = agreement(1.0, 0), agreement(1.0, 1), agreement(0.0, 0)
    assert own > another + 0.2
    assert own > free + 0.2
