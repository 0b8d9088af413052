from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import shapely
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from toy_world import CELL, toy_ground, toy_world

from dataengine import geometry
from dataengine.data.tile import crop_layout, windows
from dataengine.layouts.constraints import overlap
from dataengine.render import in_scene_pipeline
from dataengine.render.frame import covered, frame_sides
from dataengine.render.in_scene import InSceneUNet
from dataengine.render.in_scene_pipeline import InScenePipeline
from dataengine.world.layouts import colour
from dataengine.world.noise import Rect
from dataengine.world.objects import FRAMES
from dataengine.world.scene import Scene
from dataengine.world.world import World

LARGE = (-60, 20, 160, 110)
TILE = (-50, 30, 140, 90)


@pytest.fixture(scope="module")
def world() -> World:
    return toy_world()


@pytest.fixture(scope="module")
def large(world):
    return world.region(*LARGE)


def test_a_region_alone_has_the_pixels_and_objects_of_a_larger_one(large):
    alone = toy_world().region(*TILE)
    assert np.array_equal(large.image[10:100, 10:150], alone.image)
    inside = {tuple(key): box.tolist() for key, box in zip(large.objects.ids, large.objects.boxes, strict=True)}
    assert len(alone.objects) > 3
    assert all(
        inside[tuple(key)] == box.tolist() for key, box in zip(alone.objects.ids, alone.objects.boxes, strict=True)
    )


def test_tiles_backwards_and_in_another_process_are_the_same(large):
    code = (
        "import hashlib; from toy_world import toy_world; world = toy_world();"
        "tiles = [(x, y, 60, 50) for y in (80, 20) for x in (40, -60)];"
        "print(*[hashlib.sha256(world.region(*tile).image.tobytes()).hexdigest() for tile in tiles])"
    )
    tests = str(Path(__file__).parents[1])
    run = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {tests!r}); {code}"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    tiles = [(x, y) for y in (80, 20) for x in (40, -60)]
    expected = [
        hashlib.sha256(np.ascontiguousarray(large.image[y - 20 : y + 30, x + 60 : x + 120]).tobytes()).hexdigest()
        for x, y in tiles
    ]
    assert run.stdout.split() == expected


def test_another_seed_is_another_world(world, large):
    other = toy_world(1).region(*TILE)
    assert np.abs(other.image.astype(int) - large.image[10:100, 10:150]).mean() > 5


def test_objects_are_painted_where_their_labels_are_also_across_borders_of_cells(world):
    region = world.region(0, 0, 4 * CELL, 4 * CELL)
    bright = region.image.min(2) > 200
    crossing = 0
    for box in region.objects.boxes:
        x1, y1, x2, y2 = geometry.to_aabb(box[None].astype(np.float32))[0]
        if min(x1, y1) < 4 or max(x2, y2) > 4 * CELL - 4:
            continue
        crossing += x1 // CELL != x2 // CELL or y1 // CELL != y2 // CELL
        inner = box.copy()
        inner[2:4] -= 4
        corners = geometry.to_corners(inner[None].astype(np.float32))[0]
        rows, columns = np.nonzero(
            shapely.contains_xy(shapely.Polygon(corners), *np.meshgrid(np.arange(256) + 0.5, np.arange(256) + 0.5))
        )
        assert bright[rows, columns].mean() > 0.9, box
    assert crossing >= 3, "some objects lie in two cells"


def test_a_region_without_an_area_is_refused(world):
    with pytest.raises(ValueError, match="0 x 5 pixels: give at least 1 x 1"):
        world.region(0, 0, 0, 5)


def test_tiles_merged_by_id_give_the_objects_back_once(world):
    rect = Rect(0, 0, 400, 300)
    objects, _ = world.labels(world.layouts.objects(rect), rect)
    parts: dict[tuple, list] = {}
    for x, y, width, height in windows((400, 300), CELL, 0):  # objects across their borders are of other cells, too
        tile = Rect(x, y, width, height)
        own, _ = world.labels(world.layouts.objects(tile), tile)
        for key, corners in zip(own.ids, geometry.to_corners(own.boxes.astype(np.float32)), strict=True):
            part = shapely.Polygon(corners).intersection(shapely.box(x, y, x + width, y + height))
            parts.setdefault(tuple(key), []).append(part)
    assert parts.keys() == {tuple(key) for key in objects.ids}, "none lost, none invented"
    cut = 0
    for key, corners in zip(objects.ids, geometry.to_corners(objects.boxes.astype(np.float32)), strict=True):
        whole = shapely.Polygon(corners).intersection(shapely.box(0, 0, 400, 300))
        merged = shapely.union_all(parts[tuple(key)])
        assert merged.intersection(whole).area / merged.union(whole).area > 0.99
        cut += len(parts[tuple(key)]) > 1
    assert cut > 5


def test_visible_shares_of_disjoint_tiles_sum_to_one(world):
    rect = Rect(0, 0, 400, 300)
    objects, layout = world.labels(world.layouts.objects(rect), rect)
    whole = world.layouts.layout(objects, rect)
    area = np.zeros(len(objects))
    for window in windows((400, 300), 100, 0):
        for k in range(len(objects)):
            tile = crop_layout(whole.select([k]), window, 1e-6)
            area[k] += tile.visible.sum()
    assert np.allclose(area, layout.visible, atol=0.02)


@pytest.mark.parametrize("kind", ["obb", "hbb"])
def test_each_object_belongs_to_the_cell_of_its_centre_and_none_overlap_across_borders(kind):
    layouts = toy_world(2, kind).layouts
    found = layouts.objects(Rect(-5 * CELL, -5 * CELL, 10 * CELL, 10 * CELL))
    assert len(found) > 60
    assert np.array_equal(found.boxes[:, :2] // CELL, found.ids[:, :2])
    assert len({tuple(key) for key in found.ids}) == len(found)
    shares = overlap(found.boxes, found.boxes)
    np.fill_diagonal(shares, 0)
    assert shares.max() <= layouts.grower._largest_overlap.max() + 0.01


def test_layouts_do_not_depend_on_the_order_they_are_asked_for():
    first, second = toy_world(3).layouts, toy_world(3).layouts
    cells = [(c, r) for c in range(-3, 4) for r in range(-3, 4)]
    forward = {place: first.cell(*place) for place in cells}
    backward = {place: second.cell(*place) for place in reversed(cells)}
    assert all(np.array_equal(forward[place].boxes, backward[place].boxes) for place in cells)


@pytest.mark.parametrize("few", [True, False])
def test_ground_of_real_networks_is_a_function_of_the_place(world, few):
    def scene() -> Scene:
        return Scene(toy_ground(few, quick=False), 0, world.ground_layout, "toy", steps=None if few else 2)

    whole, alone = scene().region(Rect(0, 0, 110, 40)), scene().region(Rect(37, 10, 50, 20))
    assert np.array_equal(whole[10:30, 37:87], alone)


@pytest.mark.slow
def test_a_cell_is_painted_next_to_the_objects_of_cells_before_it():
    """In what a cell's renderer is given, its frames show the ground, and objects of cells of lower colours."""
    painted = toy_world().painted
    renderer, seen, checked = painted.renderer, [], 0

    def watched(canvases, seeds, **options):
        seen.append(canvases[0].window())
        return renderer(canvases, seeds, **options)

    watched.frames, painted.renderer = renderer.frames, watched
    for place in [(column, row) for row in range(-5, 7, 2) for column in range(-30, 31)]:
        own = painted.layouts.cell(*place)
        points = _shown_of_cells_before(painted.layouts, place)
        if not len(points):
            continue
        painted._painted([place])
        corner = np.rint(own.boxes[0, :2] - seen[-1].new.boxes[0, :2])
        for x, y in np.floor(points - corner).astype(int):
            assert seen[-1].image[y, x].min() > 200, "objects are white"
            checked += 1
        for box, side in zip(own.boxes, frame_sides(own.boxes, painted.layouts.spec), strict=True):
            frame = np.array([*(box[:2] - corner), side - 2, side - 2, box[4]], np.float32)
            there = covered(frame[None], seen[-1].image.shape)
            assert seen[-1].image[there].max(1).min() > 0, "what is not made is black"
        if checked > 3:
            return
    pytest.fail("too few objects near those of other cells")


def test_frames_along_headings_show_no_place_that_was_not_made():
    """They lie askew to the label, whose upright frame does not hold their corners."""
    painted = toy_world(kind="hbb", headed=("car", "van")).painted
    renderer, corners = painted.renderer, 0
    places = [(column, row) for row in range(3) for column in range(12) if len(painted.layouts.cell(column, row))]

    def watched(canvases, seeds, **options):
        nonlocal corners
        [window] = [canvas.window() for canvas in canvases]
        for frame in renderer.frames(window.new, seeds[0]):
            there = covered(np.float32([frame - [0, 0, 2, 2, 0]]), window.image.shape)
            assert window.image[there].max(1).min() > 0, "what is not made is black"
            points = geometry.to_corners(np.float32([frame]))[0]
            beyond = (points < 0) | (points > window.new.size)
            assert not beyond.any(), "beyond the image its border is repeated"
            corners += int(np.abs(np.sin(2 * frame[4])) > 0.5)
        return renderer(canvases, seeds, **options)

    watched.frames, painted.renderer = renderer.frames, watched
    for place in places[:6]:
        painted._painted([place])
    assert corners > 3, "some frames lie askew"


def _shown_of_cells_before(layouts, place: tuple[int, int]) -> np.ndarray:
    """Points (N, 2) on objects of cells of lower colours, in a frame of an object of a cell."""
    own, points = layouts.cell(*place), [np.zeros((0, 2))]
    radius = frame_sides(own.boxes, layouts.spec) / 2 if len(own) else np.zeros(0)
    for column, row in [(place[0] + i, place[1] + j) for i in (-1, 0, 1) for j in (-1, 0, 1)]:
        if colour(column, row) >= colour(*place):
            continue
        for box in layouts.cell(column, row).boxes:
            along = box[:2] + np.linspace(-0.4, 0.4, 9)[:, None] * box[2] * np.array([np.cos(box[4]), np.sin(box[4])])
            away = np.hypot(*(own.boxes[:, None, :2] - along[None]).transpose(2, 0, 1))
            points.append(along[(away < radius[:, None]).any(0)])
    return np.concatenate(points)


def test_cells_painted_together_have_the_bits_of_cells_painted_alone():
    """With a real network: rounding depends on how many frames are denoised at a time, which is always the same."""
    torch.manual_seed(2)
    model = InSceneUNet(["car", "van"], frame_size=48, block_out_channels=(16, 32))
    for parameter in model.parameters():  # outputs of a new network are zero
        parameter.data += torch.randn_like(parameter) * 0.05
    together, alone = toy_world().painted, toy_world().painted
    for painted in (together, alone):
        painted.renderer = InScenePipeline(model, FlowMatchEulerDiscreteScheduler(), few_steps=2)
    sizes = []
    sample = in_scene_pipeline.sample_frames
    places = [
        place for place in ((2 * i, 2 * j) for i in range(4) for j in range(3)) if len(together.layouts.cell(*place))
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(in_scene_pipeline, "sample_frames", lambda *a, **k: sizes.append(len(a[4])) or sample(*a, **k))
        made = together._painted(places)
    assert len(places) > 4
    assert set(sizes) == {FRAMES}
    for place, painted in zip(places, made, strict=True):
        assert np.array_equal(alone._painted([place])[0], painted)
    assert np.ptp(made[0][made[0][..., 3] > 0][:, :3].astype(int), axis=0).min() > 10, "the control: not all alike"
