"""A world over a map: objects where the map has room for them, ground that follows it, regions equal to the bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from toy_map import write_geojson
from toy_scenes import random_layout
from toy_world import CELL, WhiteBoxes, toy_ground

pytest.importorskip("pyogrio")
pytest.importorskip("rasterio")
from diffusers import FlowMatchEulerDiscreteScheduler

from dataengine.engine.map_parts import MapControl
from dataengine.layouts.constraints import overlap
from dataengine.layouts.map_sampler import MapSampler
from dataengine.layouts.prior_fit import fit
from dataengine.layouts.prior_sampler import PriorSampler
from dataengine.maps.ground import load_ground
from dataengine.maps.read import read_map
from dataengine.render.control import ControlInput, condition_side
from dataengine.render.in_scene_pipeline import InScenePipeline
from dataengine.world.map_layouts import MapGround, MapLayouts
from dataengine.world.noise import Rect
from dataengine.world.world import World

SIZE, GSD_M = 512, 0.5
GROUPS = {"paved": ("road", "parking"), "water": ("water",)}
LARGE, TILE = Rect(60, 30, 90, 60), Rect(70, 36, 60, 40)


@pytest.fixture(scope="module")
def toy_map(tmp_path_factory) -> Path:
    return write_geojson(tmp_path_factory.mktemp("map") / "toy.geojson")


@pytest.fixture(scope="module")
def ground():
    return toy_ground()


def over(file: Path, ground, led: bool = True) -> World:
    """The world in the middle of a map, and ground that a map leads (`toy_world.QuickUNet`)."""
    rng, the_map, table = np.random.default_rng(0), read_map(file), load_ground()
    prior = fit([random_layout(rng) for _ in range(40)], (96, 96))
    torch.manual_seed(1)
    model = WhiteBoxes(["car", "van"], frame_size=48, block_out_channels=(16, 32))
    painter = InScenePipeline(model, FlowMatchEulerDiscreteScheduler(), few_steps=1)
    layouts = MapLayouts(MapSampler(the_map, table, PriorSampler(prior, (CELL, CELL)), GSD_M), 0, model.spec, SIZE)
    names = tuple(name for group in GROUPS.values() for name in group)
    given = ControlInput(classes=names, gsd_m=(GSD_M, GSD_M), groups=GROUPS)
    control = MapControl(the_map, table, torch.nn.Identity(), given, condition_side(ground.unet), 1.0, "toy")
    ground_map = MapGround(control, layouts, SIZE) if led else None
    return World(0, ground, painter, prior, "toy", cell=CELL, layouts=layouts, ground_map=ground_map)


@pytest.fixture(scope="module")
def large(toy_map, ground):
    return over(toy_map, ground).region(LARGE.left, LARGE.top, LARGE.width, LARGE.height)


def test_a_region_alone_has_the_pixels_and_objects_of_a_larger_one(toy_map, ground, large):
    alone = over(toy_map, ground).region(TILE.left, TILE.top, TILE.width, TILE.height)
    assert np.array_equal(large.image[6:46, 10:70], alone.image)
    inside = {tuple(key): box.tolist() for key, box in zip(large.objects.ids, large.objects.boxes, strict=True)}
    assert len(alone.objects)
    assert all(inside[tuple(k)] == b.tolist() for k, b in zip(alone.objects.ids, alone.objects.boxes, strict=True))


def test_the_ground_follows_the_map_and_without_the_control_it_does_not(toy_map, ground, large):
    free = over(toy_map, ground, led=False).region(LARGE.left, LARGE.top, LARGE.width, LARGE.height)
    assert np.array_equal(free.objects.boxes, large.objects.boxes)
    raster = over(toy_map, ground).ground_map.at([LARGE]).condition
    assert raster[:, 0].any()
    assert np.abs(free.image.astype(int) - large.image).mean() > 2


def test_vehicles_stand_on_road_or_car_park_and_apart(toy_map, ground):
    world = over(toy_map, ground)
    found = world.layouts.objects(Rect(0, 0, SIZE, SIZE))
    assert len(found) > 10
    shared = overlap(found.boxes, found.boxes) - np.eye(len(found))
    assert shared.max() < 0.05
    raster = world.ground_map.control.raster(_whole(world), Rect(0, 0, SIZE, SIZE))
    inside = ((found.boxes[:, :2] >= 0) & (found.boxes[:, :2] < SIZE)).all(1)
    x, y = found.boxes[inside, :2].astype(int).T
    on = [raster.names[number] for number in raster.classes[y, x]]
    assert {*on} <= {"road", "parking", "bridge"}


def test_beyond_the_map_there_are_no_objects_and_no_ground_to_follow(toy_map, ground):
    world = over(toy_map, ground)
    assert not len(world.layouts.objects(Rect(9000, 9000, 500, 500)))
    assert not world.ground_map.at([Rect(9000, 9000, 128, 128)]).condition.any()


def test_a_coarser_level_follows_the_same_places(toy_map, ground):
    at = over(toy_map, ground).ground_map.at
    levels = ((Rect(0, 0, 256, 256), 0), (Rect(0, 0, 128, 128), 1))
    fine, coarse = (at([rect], level).condition[0, :2] for rect, level in levels)
    assert fine.any()
    assert (fine != coarse).float().mean() < 0.02


def _whole(world: World):
    from dataengine.data.layout import Layout

    layouts = world.layouts
    return Layout(np.zeros((0, 5)), [], layouts.classes, (SIZE, SIZE), acquisition=layouts.acquisition)
