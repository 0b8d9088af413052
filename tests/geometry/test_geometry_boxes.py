"""Conversions of boxes give the same rectangle in every convention; shapely and OpenCV are the references."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from dataengine import geometry

CENTRE = st.floats(-4000, 4000, width=32)
SIDE = st.floats(0.5, 2000, width=32)
ANGLES_AT_THE_ENDS = [k * np.pi / 4 + e for k in range(-4, 5) for e in (0.0, 1e-7, -1e-7, 1e-30)]
THETA = st.one_of(st.floats(-10, 10, width=32), st.sampled_from(ANGLES_AT_THE_ENDS))
BOXES = st.lists(st.tuples(CENTRE, CENTRE, SIDE, SIDE, THETA), min_size=1, max_size=8).map(
    lambda rows: np.array(rows, np.float32)
)


def polygons(boxes: np.ndarray) -> np.ndarray:
    """shapely polygons of boxes (N, 5): a rectangle scaled, rotated and translated by shapely itself."""
    unit = shapely.box(-0.5, -0.5, 0.5, 0.5)
    return np.array(
        [
            shapely.affinity.translate(
                shapely.affinity.rotate(
                    shapely.affinity.scale(unit, w, h, origin=(0, 0)), theta, origin=(0, 0), use_radians=True
                ),
                cx,
                cy,
            )
            for cx, cy, w, h, theta in np.asarray(boxes, np.float64)
        ]
    )


def rounding(boxes: np.ndarray) -> np.ndarray:
    """Maximum rounding error of the corners of each box in float32, in pixels."""
    reach = np.abs(boxes[:, :2]).max(1) + boxes[:, 2:4].sum(1)
    return 16 * np.finfo(np.float32).eps * np.float64(reach)


def assert_same_rectangles(got: np.ndarray, boxes: np.ndarray) -> None:
    assert got.dtype == np.float32
    distance = shapely.hausdorff_distance(polygons(got), polygons(boxes))
    assert (distance <= rounding(boxes)).all(), (distance, got, boxes)


def assert_le90(boxes: np.ndarray) -> None:
    assert (boxes[:, 2] >= boxes[:, 3]).all()
    assert (boxes[:, 4] >= np.float32(-np.pi / 2)).all()
    assert (boxes[:, 4] < np.float32(np.pi / 2)).all()


@given(BOXES)
def test_regularized_boxes_are_le90_and_the_same_rectangles(boxes):
    got = geometry.regularize(boxes)
    assert_le90(got)
    assert_same_rectangles(got, boxes)
    np.testing.assert_array_equal(geometry.regularize(got), got)


@given(BOXES)
def test_le135_round_trip(boxes):
    middle = geometry.to_le135(boxes)
    assert (middle[:, 2] >= middle[:, 3]).all()
    assert (middle[:, 4] >= np.float32(-np.pi / 4)).all()
    assert (middle[:, 4] < np.float32(3 * np.pi / 4)).all()
    assert_same_rectangles(middle, boxes)
    back = geometry.from_le135(middle)
    assert_le90(back)
    assert_same_rectangles(back, boxes)


@given(BOXES)
def test_opencv_round_trip(boxes):
    middle = geometry.to_opencv(boxes)
    assert ((middle[:, 4] > 0) & (middle[:, 4] <= 90)).all()
    in_radians = np.column_stack([middle[:, :4], np.deg2rad(middle[:, 4])]).astype(np.float32)
    assert_same_rectangles(in_radians, boxes)
    back = geometry.from_opencv(middle)
    assert_le90(back)
    assert_same_rectangles(back, boxes)


@given(BOXES)
def test_eight_point_polygon_round_trip(boxes):
    corners = geometry.to_corners(boxes)
    assert corners.shape == (len(boxes), 4, 2)
    assert corners.dtype == np.float32
    np.testing.assert_array_less(
        shapely.hausdorff_distance(shapely.polygons(corners), polygons(boxes)), rounding(boxes) + 1e-12
    )
    back = geometry.from_corners(corners)
    assert_le90(back)
    assert_same_rectangles(back, boxes)


@given(BOXES, st.integers(0, 3), st.booleans())
def test_corners_may_start_anywhere_and_run_either_way(boxes, start, backwards):
    corners = np.roll(geometry.to_corners(boxes), start, axis=1)
    assert_same_rectangles(geometry.from_corners(corners[:, ::-1] if backwards else corners), boxes)


@given(BOXES)
def test_every_convention_converts_to_every_other(boxes):
    through = geometry.from_le135(geometry.to_le135(geometry.from_opencv(geometry.to_opencv(boxes))))
    assert_same_rectangles(geometry.from_corners(geometry.to_corners(through)), boxes)


def test_corners_are_left_top_right_top_right_bottom_left_bottom_and_rotate_clockwise_on_screen():
    upright, turned = geometry.to_corners(np.array([[10, 20, 8, 4, 0], [10, 20, 8, 4, np.pi / 2]]))
    np.testing.assert_allclose(upright, [(6, 18), (14, 18), (14, 22), (6, 22)], atol=1e-5)
    # y is down: the left-top corner goes to the right-top, clockwise as one sees it
    np.testing.assert_allclose(turned, [(12, 16), (12, 24), (8, 24), (8, 16)], atol=1e-5)


def test_a_tall_box_gets_its_long_side_first():
    got = geometry.regularize(np.array([[5, 6, 2, 10, 0.0], [5, 6, 2, 10, 0.3], [5, 6, 10, 2, np.pi / 2]]))
    np.testing.assert_allclose(got[:, 2:4], [[10, 2]] * 3)
    np.testing.assert_allclose(got[:, 4], [-np.pi / 2, 0.3 - np.pi / 2, -np.pi / 2], atol=1e-6)


@pytest.mark.parametrize("degrees", [0, 15, 45, 60, 89, 90, 120, 170])
def test_opencv_reads_our_opencv_boxes_as_the_same_rectangle(degrees):
    box = np.array([[100, 50, 40, 12, np.deg2rad(degrees)]])
    cx, cy, w, h, angle = geometry.to_opencv(box)[0].tolist()
    drawn = cv2.boxPoints(((cx, cy), (w, h), angle))
    assert shapely.hausdorff_distance(shapely.Polygon(drawn), polygons(box)[0]) < 1e-3


@settings(max_examples=50)
@given(BOXES)
def test_results_of_min_area_rect_are_read_as_the_same_rectangle(boxes):
    for box in boxes:
        centre, size, angle = cv2.minAreaRect(geometry.to_corners(box[None])[0])
        got = geometry.from_opencv(np.array([[*centre, *size, angle]]))
        assert_le90(got)
        # OpenCV computes in float32
        tolerance = 1e-5 * (np.abs(box[:2]).max() + box[2:4].sum()) + 1e-3
        assert shapely.hausdorff_distance(polygons(got)[0], polygons(box[None])[0]) < tolerance


POINT = st.tuples(st.integers(-50, 50), st.integers(-50, 50))


@given(st.lists(POINT, min_size=4, max_size=4))
def test_other_quadrilaterals_become_their_minimum_area_rectangle(points):
    got = geometry.from_corners(np.array([points], np.float32))
    assert_le90(got)
    hull = shapely.MultiPoint(points).convex_hull
    best = shapely.oriented_envelope(hull).area
    assert geometry.area(got)[0] == pytest.approx(best, rel=1e-4, abs=1e-3)
    assert polygons(got)[0].buffer(1e-3).covers(hull)


def test_a_long_thin_parallelogram_does_not_count_as_a_rectangle():
    points = np.array([[(0, 0), (100, 0), (101, 1), (1, 1)]], np.float32)
    got = geometry.from_corners(points)
    assert polygons(got)[0].buffer(1e-3).covers(shapely.Polygon(points[0]))


def test_coincident_corners_give_a_box_without_area():
    np.testing.assert_array_equal(geometry.from_corners(np.full((1, 4, 2), 7.0))[0, :4], [7, 7, 0, 0])
    line = geometry.from_corners(np.array([[(0, 0), (10, 0), (10, 0), (0, 0)], [(0, 0), (2, 2), (4, 4), (6, 6)]]))
    np.testing.assert_allclose(line[:, 2:4], [(10, 0), (np.hypot(6, 6), 0)], atol=1e-4)


@given(BOXES)
def test_axis_aligned_boxes_around_boxes_agree_with_shapely(boxes):
    got = geometry.to_aabb(boxes)
    assert (np.abs(got - shapely.bounds(polygons(boxes))) <= rounding(boxes)[:, None]).all()


@given(st.lists(st.tuples(CENTRE, CENTRE, SIDE, SIDE), min_size=1, max_size=8))
def test_upright_boxes_round_trip(rows):
    x, y, w, h = np.array(rows, np.float64).T
    upright = np.column_stack([x, y, x + w, y + h])
    boxes = geometry.from_aabb(upright)
    assert_le90(boxes)
    assert (np.abs(geometry.to_aabb(boxes) - upright) <= rounding(boxes)[:, None]).all()


@given(BOXES, st.floats(-4, 4), st.floats(0.1, 5), st.booleans(), CENTRE)
def test_similarities_transform_boxes_exactly(boxes, angle, scale, mirrored, shift):
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    flip = -1 if mirrored else 1
    matrix = np.array([[cos, -sin * flip, shift], [sin, cos * flip, -shift]])
    got = geometry.transform(boxes, matrix)
    assert_le90(got)
    expected = [shapely.affinity.affine_transform(p, [*matrix[:, :2].ravel(), *matrix[:, 2]]) for p in polygons(boxes)]
    reach = np.abs(boxes[:, :2]).sum(1) + boxes[:, 2:4].sum(1) + abs(shift)
    tolerance = 32 * np.finfo(np.float32).eps * reach * (1 + scale)
    assert (shapely.hausdorff_distance(polygons(got), np.array(expected)) <= tolerance).all()
    np.testing.assert_array_equal(geometry.transform(boxes, np.vstack([matrix, [0, 0, 1]])), got)


def test_a_shear_gives_the_minimum_area_rectangle_of_the_sheared_corners():
    box = np.array([[10, 10, 20, 8, 0.4]], np.float32)
    matrix = np.array([[1, 0.7, 3], [0, 1, -2.0]])
    sheared = shapely.affinity.affine_transform(polygons(box)[0], [1, 0.7, 0, 1, 3, -2])
    got = geometry.transform(box, matrix)
    assert geometry.area(got)[0] == pytest.approx(shapely.oriented_envelope(sheared).area, rel=1e-5)
    assert polygons(got)[0].buffer(1e-3).covers(sheared)


def test_area_agrees_with_shapely():
    boxes = np.array([[0, 0, 3, 2, 0.3], [9, 9, 5, 0, 1]], np.float32)
    np.testing.assert_allclose(geometry.area(boxes), [6, 0])


@pytest.mark.parametrize(
    "function",
    [geometry.regularize, geometry.to_le135, geometry.to_opencv, geometry.from_opencv, geometry.to_aabb, geometry.area],
)
def test_no_boxes_give_no_boxes(function):
    assert len(function(np.zeros((0, 5), np.float32))) == 0


def test_no_corners_give_no_boxes():
    assert geometry.from_corners(np.zeros((0, 4, 2))).shape == (0, 5)
    assert geometry.to_corners(np.zeros((0, 5))).shape == (0, 4, 2)
    assert geometry.transform(np.zeros((0, 5)), np.eye(3)).shape == (0, 5)


def test_one_box_is_what_many_at_once_are():
    """Rectangles, such with rounded corners, and other quadrilaterals, from any corner, in both directions."""
    rng = np.random.default_rng(0)
    n = 2000
    boxes = np.column_stack([rng.uniform(-50, 4000, (n, 2)), rng.uniform(0.5, 300, (n, 2)), rng.uniform(-9, 9, n)])
    corners = geometry.to_corners(boxes)
    corners[::5] += rng.normal(0, 3, corners[::5].shape)
    corners[1::7] = np.round(corners[1::7])
    corners[::2] = np.roll(corners[::2, ::-1], 1, axis=1)
    one_by_one = np.stack([geometry.from_points(points) for points in corners])
    np.testing.assert_array_equal(one_by_one, geometry.from_corners(corners))
