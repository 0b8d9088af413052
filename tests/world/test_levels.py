from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from toy_world import toy_ground, toy_world

from dataengine import geometry
from dataengine.data.layout import Acquisition, Layout
from dataengine.world import scene as scene_module
from dataengine.world.blocks import BlockFolder
from dataengine.world.export import SMALLEST_PX, Placement, labels_of, too_small, write_geotiff
from dataengine.world.levels import CoarserLevel, halved
from dataengine.world.noise import Rect
from dataengine.world.scene import Scene

RECT = Rect(-20, 10, 120, 80)  # of the coarser level
SIZE, BLOCK = 128, 32


def nothing(rect: Rect) -> Layout:
    return Layout(np.zeros((0, 5)), [], (), (rect.width, rect.height))


def scenes(seed: int = 0) -> tuple[Scene, Scene, Scene]:
    """A scene, the one above it, and one of the same level and noise that knows nothing of that."""
    coarser = Scene(toy_ground(), seed, nothing, "toy", level=1)
    return (
        Scene(toy_ground(), seed, nothing, "toy", coarser=coarser), coarser, Scene(toy_ground(), seed, nothing, "toy")
    )  # fmt: skip


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a.ravel().astype(float), b.ravel().astype(float))[0, 1])


def fine_energy(image: np.ndarray) -> float:
    """Variance of what is lost when the resolution is halved."""
    means = halved(image).repeat(2, 0).repeat(2, 1)
    return float(((image.astype(float) - means) ** 2).mean())


@pytest.fixture(scope="module")
def made():
    fine, coarse, alone = scenes()
    return fine.region(RECT.scaled(2)), coarse.region(RECT), alone.region(RECT.scaled(2))


def test_a_finer_level_agrees_with_the_coarser_and_adds_detail(made):
    fine, coarse, alone = made
    height, width = coarse.shape[:2]
    enlarged = np.asarray(Image.fromarray(coarse).resize((2 * width, 2 * height), Image.BICUBIC))
    assert correlation(halved(fine), coarse) > 0.95
    assert abs(correlation(halved(alone), coarse)) < 0.3, "control: a scene of the same noise that does not know it"
    assert fine_energy(fine) > 2 * fine_energy(enlarged)


def test_without_the_projection_levels_do_not_agree(monkeypatch):
    monkeypatch.setattr(scene_module, "AGREEING_ROUNDS", 0)
    fine, coarse, _ = scenes()
    assert correlation(halved(fine.region(RECT.scaled(2))), coarse.region(RECT)) < 0.95


def test_a_region_of_a_finer_level_alone_is_that_of_a_larger_one(made):
    alone = scenes()[0].region(Rect(31, 57, 40, 21))
    assert np.array_equal(made[0][37:58, 71:111], alone)


@pytest.fixture(scope="module")
def levels(tmp_path_factory):
    """The blocks of two levels of a world."""
    folder = tmp_path_factory.mktemp("levels")
    world = toy_world(levels=2)
    fine, coarse = BlockFolder(folder / "0", SIZE, BLOCK), BlockFolder(folder / "1", SIZE // 2, BLOCK)
    fine.make(world)
    coarse.make(CoarserLevel(world, 1, fine))
    return fine, coarse


def test_coarser_pictures_show_the_objects_where_the_finest_level_has_them(levels):
    fine, coarse = (blocks.region(0, 0, blocks.size, blocks.size) for blocks in levels)
    assert correlation(halved(fine), coarse) > 0.95
    seen = 0
    for entry in levels[0].objects():
        x, y = np.floor(np.array(entry["box"][:2]) / 2).astype(int)
        if 2 <= x < SIZE // 2 - 2 and 2 <= y < SIZE // 2 - 2 and entry["box"][3] > 6:
            assert coarse[y, x].min() > 180, "objects are white"
            seen += 1
    assert seen > 3


def test_labels_of_coarser_levels_are_scaled_and_none_is_left_out(levels):
    objects = [*levels[0].objects(), {"id": [0, 0, 99], "class": "car", "box": [64, 64, 40, 20, 0], "difficult": False}]
    each = [labels_of(objects, ("car", "van"), "obb", Acquisition(), SIZE, level) for level in (0, 1, 2)]
    assert [layout.size[0] for layout in each] == [128, 64, 32]
    assert len(each[0]) == len(each[1]) == len(each[2]) == len(objects) > 5
    centres = [geometry.to_corners(layout.boxes).mean(1) * 2**level for level, layout in enumerate(each)]
    assert np.allclose(centres[0], centres[2], atol=1e-3)
    small = each[2].boxes[:, 2] < SMALLEST_PX
    assert 0 < small.sum() < len(small)
    assert np.array_equal(too_small(each[2]), small)
    assert np.array_equal(each[2].difficult, small | (each[2].visible < 0.3))


def test_overviews_of_the_geotiff_are_the_levels(levels, tmp_path):
    rasterio = pytest.importorskip("rasterio")
    fine, coarse = levels
    write_geotiff(coarse, tmp_path / "1.tif", Placement(gsd_m=1.0))
    write_geotiff(fine, tmp_path / "0.tif", Placement(gsd_m=0.5), [tmp_path / "1.tif"])
    with rasterio.open(tmp_path / "0.tif") as file:
        assert file.overviews(1)[0] == 2
        assert np.array_equal(file.read().transpose(1, 2, 0), fine.region(0, 0, SIZE, SIZE))
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
    with rasterio.open(tmp_path / "0.tif", overview_level=0) as file:
        overview = file.read().transpose(1, 2, 0)
    expected = coarse.region(0, 0, SIZE // 2, SIZE // 2)
    assert np.array_equal(overview, expected)
    assert not np.array_equal(halved(fine.region(0, 0, SIZE, SIZE)), expected), "an average would differ"
