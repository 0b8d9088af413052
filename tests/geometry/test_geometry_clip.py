"""Boxes at the border of the image; shapely is the reference."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from dataengine import geometry

BOXES = st.lists(
    st.tuples(st.floats(-30, 130), st.floats(-30, 90), st.floats(1, 90), st.floats(1, 90), st.floats(-2, 2)),
    min_size=1,
    max_size=8,
).map(lambda rows: geometry.regularize(np.array(rows)))
SIZE = (100, 60)
WINDOW = shapely.box(0, 0, *SIZE)


def polygons(boxes: np.ndarray) -> np.ndarray:
    return shapely.polygons(geometry.to_corners(boxes).astype(np.float64))


@given(BOXES)
def test_visible_fraction_agrees_with_shapely(boxes):
    whole = polygons(boxes)
    expected = shapely.area(shapely.intersection(whole, WINDOW)) / shapely.area(whole)
    np.testing.assert_allclose(geometry.visible_fraction(boxes, SIZE), expected, atol=2e-5)


@given(BOXES)
def test_clipped_boxes_are_the_minimum_area_rectangles_of_the_parts_inside(boxes):
    got = geometry.clip(boxes, SIZE)
    assert got.dtype == np.float32
    assert (got[:, 2] >= got[:, 3]).all()
    parts = shapely.intersection(polygons(boxes), WINDOW)
    for box, polygon, part in zip(got, polygons(got), parts, strict=True):
        if part.area < 1e-3:
            assert box[2] * box[3] < 1e-2
            continue
        assert polygon.buffer(1e-3).covers(part)
        assert polygon.area == pytest.approx(shapely.oriented_envelope(part).area, rel=1e-3, abs=1e-2)


def test_boxes_inside_are_unchanged_to_the_bit():
    boxes = np.array([[50, 30, 40, 10, 0.3], [20, 20, 10, 4, -1.2]], np.float32)
    np.testing.assert_array_equal(geometry.clip(boxes, SIZE), boxes)
    np.testing.assert_array_equal(geometry.visible_fraction(boxes, SIZE), pytest.approx(1))


def test_boxes_outside_have_area_and_visible_fraction_0():
    boxes = np.array([[-50, 30, 40, 10, 0], [150, 20, 10, 4, 1.2], [-20, 30, 40, 10, 0]], np.float32)
    np.testing.assert_array_equal(geometry.area(geometry.clip(boxes, SIZE)), 0)
    np.testing.assert_array_equal(geometry.area(geometry.clip_aabb(boxes, SIZE)), 0)
    np.testing.assert_array_equal(geometry.visible_fraction(boxes, SIZE), 0)


def test_an_axis_aligned_box_is_cut_at_the_border_as_computed_by_hand():
    boxes = np.array([[0, 30, 20, 10, 0], [95, 60, 20, 8, 0]], np.float32)
    expected = [(0, 25, 10, 35), (85, 56, 100, 60)]
    for cut in (geometry.clip, geometry.clip_aabb):
        np.testing.assert_allclose(geometry.to_aabb(cut(boxes, SIZE)), expected, atol=1e-4)
    np.testing.assert_allclose(geometry.visible_fraction(boxes, SIZE), [0.5, 15 * 4 / 160], atol=1e-6)


def test_a_box_larger_than_the_image_is_cut_to_the_image():
    got = geometry.clip(np.array([[50, 30, 900, 900, 0.4]], np.float32), SIZE)
    np.testing.assert_allclose(got, [[50, 30, 100, 60, 0]], atol=1e-3)


def test_clipping_an_oriented_box_keeps_its_angle_if_that_gives_the_smaller_box():
    got = geometry.clip(np.array([[5, 30, 60, 6, 0.5]], np.float32), SIZE)[0]
    assert got[4] == pytest.approx(0.5, abs=1e-6)
    assert 30 < got[2] < 60
    assert got[3] == pytest.approx(6, abs=1e-3)


@pytest.mark.parametrize("height", [100.0, 10_000.0])
def test_a_box_flush_with_the_border_of_a_tall_image_is_completely_visible(height):
    upright = [[0, 0, 10, 4], [90, height - 8, 100, height], [0, height - 1, 1, height]]
    visible = geometry.visible_fraction(geometry.from_aabb(np.array(upright)), (100, height))
    np.testing.assert_allclose(visible, 1, atol=1e-6)


def test_no_boxes_give_no_boxes():
    none = np.zeros((0, 5), np.float32)
    assert geometry.clip(none, SIZE).shape == geometry.clip_aabb(none, SIZE).shape == (0, 5)
    assert geometry.visible_fraction(none, SIZE).shape == (0,)
