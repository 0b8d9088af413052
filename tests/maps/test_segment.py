"""The automatic segmentation: painted scenes whose groups are known."""

from __future__ import annotations

import numpy as np
import pytest

from dataengine.maps.segment import BARE, BUILDING, GROUPS, PAVED, UNKNOWN, VEGETATION, WATER, filled, segment

SIDE = 128
GRASS, ASPHALT, LAKE, ROOF, SOIL = (70, 130, 60), (120, 120, 122), (30, 45, 80), (235, 235, 235), (190, 160, 110)


def scene() -> tuple[np.ndarray, np.ndarray]:
    """Grass with a road, a lake, a roof and a field of soil, and its groups."""
    image, groups = np.empty((SIDE, SIDE, 3)), np.full((SIDE, SIDE), VEGETATION)
    image[:] = GRASS
    for colour, group, rows, columns in (
        (ASPHALT, PAVED, slice(56, 72), slice(None)),
        (LAKE, WATER, slice(8, 48), slice(8, 50)),
        (ROOF, BUILDING, slice(84, 108), slice(20, 52)),
        (SOIL, BARE, slice(82, 122), slice(74, 120)),
    ):
        image[rows, columns], groups[rows, columns] = colour, group
    noise = np.random.default_rng(0).normal(0, 2, (SIDE, SIDE, 1))
    return np.clip(image + noise, 0, 255).astype(np.uint8), groups


def test_each_group_is_found_where_it_is():
    image, groups = scene()
    found = segment(image, 1.0)
    for number, name in enumerate(GROUPS, 1):
        common, either = ((found == number) & (groups == number)).sum(), ((found == number) | (groups == number)).sum()
        assert common / either > 0.8, name


def test_without_its_colours_ground_is_not_told_apart():
    """The control: the same scene in one colour."""
    image, groups = scene()
    found = segment(np.full_like(image, 120), 1.0)
    assert (found == groups).mean() < 0.2


def test_the_size_of_a_pixel_decides_what_is_a_roof():
    image, groups = scene()
    roof = groups == BUILDING
    assert (segment(image, 1.0)[roof] == BUILDING).mean() > 0.9
    assert (segment(image, 10.0)[roof] == BUILDING).mean() < 0.1, "320 x 240 m"


def thermal() -> tuple[np.ndarray, np.ndarray]:
    """A warm road between cool lawn and the foliage of trees."""
    rng, image, groups = np.random.default_rng(1), np.full((SIDE, SIDE), 90.0), np.full((SIDE, SIDE), VEGETATION)
    image[48:80], groups[48:80] = 170, PAVED
    image[90:] += rng.normal(0, 30, (SIDE - 90, SIDE))
    return np.repeat(np.clip(image + rng.normal(0, 2, image.shape), 0, 255).astype(np.uint8)[..., None], 3, 2), groups


def test_ground_under_vehicles_says_how_warm_paved_ground_is():
    image, groups = thermal()
    stood_on = np.zeros((SIDE, SIDE), bool)
    stood_on[60:66, 20:40] = True
    assert (segment(image, 0.2, True, stood_on) == groups).mean() > 0.9
    elsewhere = np.zeros((SIDE, SIDE), bool)
    elsewhere[10:16, 20:40] = True  # the control: as if vehicles stood on the lawn
    assert (segment(image, 0.2, True, elsewhere) == groups).mean() < 0.7


def test_objects_take_the_group_around_them():
    image, _ = scene()
    image[60:68, 60:76] = (250, 40, 40)
    objects = np.zeros((SIDE, SIDE), bool)
    objects[58:70, 58:78] = True
    assert (segment(image, 1.0, objects=objects)[60:68, 60:76] == PAVED).all()
    assert (segment(image, 1.0)[60:68, 60:76] != PAVED).any(), "control: without saying so"


@pytest.mark.parametrize(("reach", "last"), [(3.0, UNKNOWN), (np.inf, WATER)])
def test_what_is_not_judged_takes_the_nearest_group_within_reach(reach, last):
    groups, judged = np.zeros((4, 8), np.uint8), np.zeros((4, 8), bool)
    groups[:, 0], judged[:, 0] = WATER, True
    found = filled(groups, judged, np.float64(reach))
    assert (found[:, :3] == WATER).all()
    assert (found[:, 7] == last).all()
