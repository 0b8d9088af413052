"""Rotated IoU against shapely (exact) and mmcv, and cases in which implementations fail."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from dataengine import geometry


def polygons(boxes: np.ndarray) -> np.ndarray:
    """Corners in float64 by complex numbers, unlike the code under test."""
    cx, cy, w, h, theta = np.asarray(boxes, np.float64).T
    ends = np.stack([w + 1j * h, -w + 1j * h, -w - 1j * h, w - 1j * h], 1) / 2
    points = (cx + 1j * cy)[:, None] + ends * np.exp(1j * theta)[:, None]
    return shapely.polygons(np.stack([points.real, points.imag], -1))


def shapely_areas(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Intersection area and IoU of all pairs, (N, M) each."""
    first, second = polygons(a)[:, None], polygons(b)[None]
    shared = shapely.area(shapely.intersection(first, second))
    return shared, shared / (shapely.area(first) + shapely.area(second) - shared)


def random_boxes(rng: np.random.Generator, n: int, span: float, low: float, high: float) -> np.ndarray:
    centre, size = rng.uniform(0, span, (n, 2)), np.exp(rng.uniform(np.log(low), np.log(high), (n, 2)))
    return np.column_stack([centre, size, rng.uniform(-np.pi, np.pi, n)]).astype(np.float32)


@pytest.mark.parametrize(
    ("span", "low", "high"), [(60, 4, 40), (10, 5, 50), (300, 0.5, 400), (1e-3, 1e-4, 1e-3), (1e6, 1e4, 1e6)]
)
def test_iou_agrees_with_shapely(span, low, high):
    rng = np.random.default_rng(1)
    a, b = random_boxes(rng, 150, span, low, high), random_boxes(rng, 170, span, low, high)
    shared, ratio = shapely_areas(a, b)
    assert (ratio > 0.01).sum() > 300  # enough overlaps to mean something
    np.testing.assert_allclose(geometry.iou(a, b), ratio, rtol=0, atol=1e-9)
    smaller = np.minimum(shapely.area(polygons(a))[:, None], shapely.area(polygons(b)))
    np.testing.assert_allclose(geometry.intersection(a, b) / smaller, shared / smaller, rtol=0, atol=1e-9)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_iou_of_any_two_boxes_agrees_with_shapely(data):
    # coarse values: shared edges, shared corners and parallel sides are then common
    number = st.one_of(st.integers(-6, 6), st.floats(-6, 6, width=32))
    side = st.one_of(st.integers(1, 8), st.floats(0.125, 100, width=32))
    theta = st.one_of(st.sampled_from(np.arange(-4, 5) * np.pi / 4), st.floats(-4, 4, width=32))
    a, b = (np.array([data.draw(st.tuples(number, number, side, side, theta))], np.float32) for _ in range(2))
    shared, ratio = shapely_areas(a, b)
    np.testing.assert_allclose(geometry.iou(a, b), ratio, rtol=0, atol=1e-6)
    np.testing.assert_allclose(geometry.iou(b, a), ratio.T, rtol=0, atol=1e-6)
    np.testing.assert_allclose(geometry.containment(a, b), shared / shapely.area(polygons(a))[:, None], atol=1e-6)


def test_edges_that_coincide_up_to_rounding_give_the_exact_area():
    rng = np.random.default_rng(2)
    n = 5000
    large = np.tile([[500, 500, 1000, 1000, 0.0]], (n, 1))
    small = np.column_stack([rng.integers(0, 1000, n), rng.choice([-1, 1, 999, 1001], n), np.full((n, 2), 2.0)])
    theta = rng.choice([0, -np.pi / 2], n) + rng.choice([0, 1e-8, 4e-8, 1e-7, -1e-7, 1e-6], n)
    small = np.column_stack([small, theta])
    expected = shapely.area(shapely.intersection(polygons(large), polygons(small)))
    np.testing.assert_allclose(geometry.intersection_pairs(large, small), expected, atol=1e-9)
    np.testing.assert_allclose(geometry.intersection_pairs(small, large), expected, atol=1e-9)


def test_iou_agrees_with_mmcv():
    torch = pytest.importorskip("torch", reason="mmcv needs torch")
    ops = pytest.importorskip("mmcv.ops", reason="mmcv with compiled operators is not installed", exc_type=ImportError)
    rng = np.random.default_rng(3)
    a, b = random_boxes(rng, 200, 100, 4, 60), random_boxes(rng, 210, 100, 4, 60)
    theirs = ops.box_iou_rotated(torch.from_numpy(a), torch.from_numpy(b), clockwise=True).numpy()
    assert (theirs > 0.05).sum() > 500
    np.testing.assert_allclose(geometry.iou(a, b), theirs, atol=1e-5)


def test_a_box_has_iou_1_with_itself_in_any_notation():
    box = np.array([[100, 50, 30, 10, 0.4]], np.float32)
    same = np.array([[100, 50, 10, 30, 0.4 + np.pi / 2], [100, 50, 30, 10, 0.4 - np.pi], [100, 50, 30, 10, 0.4]])
    np.testing.assert_allclose(geometry.iou(box, same), 1, atol=1e-6)
    assert (geometry.iou(same, same) <= 1).all()


def test_boxes_that_touch_or_are_apart_have_intersection_exactly_0():
    box = np.array([[0, 0, 10, 10, 0]], np.float32)
    touching = np.array([[10, 0, 10, 10, 0], [10, 10, 10, 10, 0], [0, -10, 4, 10, 0], [0, 10, 10, 10, 0]])
    np.testing.assert_array_equal(geometry.intersection(box, touching), 0)
    # upright hulls overlap, boxes do not: culling does not decide these
    rng = np.random.default_rng(4)
    a, b = random_boxes(rng, 300, 100, 1, 80), random_boxes(rng, 300, 100, 1, 80)
    apart = shapely.distance(polygons(a)[:, None], polygons(b)[None]) > 1e-6
    hulls = [geometry.to_aabb(x) for x in (a, b)]
    near = (hulls[0][:, None, :2] < hulls[1][None, :, 2:]) & (hulls[1][None, :, :2] < hulls[0][:, None, 2:])
    undecided = apart & near.all(2)
    assert undecided.sum() > 500
    np.testing.assert_array_equal(geometry.intersection(a, b)[undecided], 0)


@pytest.mark.parametrize("flat", [(5, 5, 10, 0, 0.3), (5, 5, 0, 10, 0), (5, 5, 0, 0, 1)])
def test_boxes_without_area_have_iou_zero(flat):
    boxes = np.array([flat, (5, 5, 20, 20, 0.1)], np.float32)
    np.testing.assert_array_equal(geometry.iou(boxes, boxes), [[0, 0], [0, pytest.approx(1)]])
    np.testing.assert_array_equal(geometry.iou_pairs(boxes[:1], boxes[:1]), 0)
    np.testing.assert_array_equal(geometry.containment(boxes[:1], boxes), 0)


@pytest.mark.parametrize("origin", [0, 1e4, 1e6, 1e9, -3e12])
def test_distance_from_the_origin_does_not_matter(origin):
    a = np.array([[0, 0, 4096, 1024, 0.5], [512, 0, 2048, 2048, -1]])
    b = np.array([[256, 128, 2048, 512, 0.7], [0, 0, 4096, 1024, 0.5]])
    near = geometry.iou(a, b)
    shift = np.array([origin, -origin, 0, 0, 0])
    np.testing.assert_allclose(geometry.iou(a + shift, b + shift), near, atol=1e-6 if abs(origin) > 1e9 else 1e-9)


FINITE = st.floats(allow_nan=False, allow_infinity=False, width=32)
SIDES = st.floats(0, allow_infinity=False, width=32)


@settings(max_examples=300)
@given(st.lists(st.tuples(FINITE, FINITE, SIDES, SIDES, FINITE), min_size=1, max_size=6))
def test_finite_boxes_give_values_from_0_to_1(rows):
    boxes = np.array(rows, np.float32)
    with np.errstate(invalid="raise", divide="raise"):
        for value in (geometry.iou(boxes, boxes), geometry.containment(boxes, boxes)):
            assert ((value >= 0) & (value <= 1)).all()


def test_pairs_are_the_diagonal_of_the_table():
    rng = np.random.default_rng(5)
    a, b = random_boxes(rng, 300, 50, 4, 40), random_boxes(rng, 300, 50, 4, 40)
    np.testing.assert_allclose(geometry.iou_pairs(a, b), np.diag(geometry.iou(a, b)), atol=1e-15)


def test_tables_larger_than_one_block_are_complete(monkeypatch):
    import sys

    module = sys.modules["dataengine.geometry.iou"]
    rng = np.random.default_rng(6)
    a, b = random_boxes(rng, 57, 60, 4, 40), random_boxes(rng, 43, 60, 4, 40)
    expected = geometry.iou(a, b)
    monkeypatch.setattr(module, "BLOCK_CELLS", 100)
    monkeypatch.setattr(module, "CHUNK_PAIRS", 7)
    np.testing.assert_array_equal(geometry.iou(a, b), expected)
    np.testing.assert_allclose(geometry.iou_pairs(a[:43], b), np.diag(expected[:43]), atol=1e-15)


def test_the_reference_detects_a_box_rotated_the_wrong_way():
    # mutation: with theta counter-clockwise, as some tools have it, the comparison with shapely must fail
    rng = np.random.default_rng(7)
    a, b = random_boxes(rng, 50, 30, 4, 40), random_boxes(rng, 50, 30, 4, 40)
    rotated = b * np.array([1, 1, 1, 1, -1], np.float32)
    assert np.abs(geometry.iou(a, rotated) - shapely_areas(a, b)[1]).max() > 0.1


@pytest.mark.parametrize(("n", "m"), [(0, 0), (0, 4), (4, 0)])
def test_empty_sides_give_empty_tables(n, m):
    assert geometry.iou(np.ones((n, 5)), np.ones((m, 5))).shape == (n, m)
    assert geometry.intersection(np.ones((n, 5)), np.ones((m, 5))).shape == (n, m)
