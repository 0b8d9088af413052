"""Overlap and border rules, with shapely as the reference."""

import numpy as np
import pytest
import shapely
from shapely import affinity

from dataengine.data.layout import Layout
from dataengine.layouts.constraints import apart, cut_by_border, overlap
from dataengine.layouts.windows import cut, random_windows


def polygon(box):
    cx, cy, w, h, theta = (float(value) for value in box)
    return affinity.rotate(shapely.box(cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2), theta, use_radians=True)


def random_boxes(rng, n, extent=100):
    sides = np.sort(rng.uniform(5, 40, (n, 2)), axis=1)[:, ::-1]
    return np.column_stack([rng.uniform(0, extent, (n, 2)), sides, rng.uniform(-np.pi / 2, np.pi / 2, n)])


def test_overlap_is_the_covered_share_of_the_smaller_box():
    rng = np.random.default_rng(0)
    a, b = random_boxes(rng, 30), random_boxes(rng, 20)
    expected = [
        [polygon(x).intersection(polygon(y)).area / min(polygon(x).area, polygon(y).area) for y in b] for x in a
    ]
    assert np.count_nonzero(expected) > 50
    np.testing.assert_allclose(overlap(a, b), expected, atol=1e-4)


def test_apart_keeps_the_earlier_of_two_overlapping_boxes():
    boxes = np.array([[10, 10, 10, 10, 0], [12, 10, 10, 10, 0], [40, 10, 10, 10, 0], [21, 10, 10, 10, 0]])
    assert apart(boxes, 0.2).tolist() == [True, False, True, True]
    assert apart(boxes, 1.0).all()
    assert apart(boxes, 0.2, placed=boxes[2:3]).tolist() == [True, False, False, True]


def test_apart_leaves_no_pair_above_the_limit():
    boxes = random_boxes(np.random.default_rng(1), 80)
    left = boxes[apart(boxes, 0.1)]
    shares = overlap(left, left)
    np.fill_diagonal(shares, 0)
    assert shares.max() <= 0.1
    assert 5 < len(left) < 80


@pytest.mark.parametrize("kind", ["obb", "hbb"])
def test_a_cut_box_is_clipped_and_its_visible_share_recorded(kind):
    boxes = [[0, 50, 20, 10, 0], [50, 50, 20, 10, 0], [-6, 20, 20, 10, 0], [98, 98, 8, 8, 0]]
    layout = Layout(boxes, [0, 1, 0, 1], ("a", "b"), (100, 100), kind)
    seen = cut_by_border(layout, min_visible=0.3)
    np.testing.assert_allclose(seen.visible, [0.5, 1, (6 / 8) ** 2], atol=1e-5)  # the third shows 20 % and is dropped
    np.testing.assert_allclose(seen.boxes[1], boxes[1])
    for box, inside in zip(seen.boxes, [shapely.box(0, 45, 10, 55), None, shapely.box(94, 94, 100, 100)], strict=True):
        if inside is not None:
            assert polygon(box).symmetric_difference(inside).area < 1e-3


def test_border_keep_does_not_clip_the_box():
    layout = Layout([[0, 50, 20, 10, 0.2]], [0], ("a",), (100, 100))
    seen = cut_by_border(layout, "keep")
    np.testing.assert_array_equal(seen.boxes, layout.boxes)
    assert seen.visible[0] == pytest.approx(0.5, abs=1e-4)


def test_visible_shares_multiply_over_two_cuts():
    layout = Layout([[50, 50, 40, 10, 0]], [0], ("a",), (100, 100), visible=[0.8])
    assert cut(layout, 40, 0, (60, 100)).visible[0] == pytest.approx(0.8 * 0.75, abs=1e-5)


def test_a_window_moves_boxes_and_ignored_regions_by_its_corner():
    layout = Layout([[50, 60, 10, 6, 0.4]], [0], ("a",), (200, 200), ignored=[[60, 70, 4, 4, 0], [190, 190, 9, 9, 0]])
    seen = cut(layout, 30, 20, (100, 100))
    np.testing.assert_allclose(seen.boxes, [[20, 40, 10, 6, 0.4]], atol=1e-5)
    assert len(seen.ignored) == 1
    np.testing.assert_allclose(seen.ignored[0, :2], [30, 50], atol=1e-5)


def test_random_windows_have_the_size_and_empty_ones_are_omitted(lots):
    windows = random_windows(lots, (256, 256), np.random.default_rng(0), n=3)
    assert 100 < len(windows) < 360
    assert all(window.size == (256, 256) and len(window) for window in windows)


def test_an_image_smaller_than_the_window_yields_itself():
    layout = Layout([[50, 60, 10, 6, 0.4]], [0], ("a",), (200, 100))
    (window,) = random_windows([layout], (256, 256), np.random.default_rng(0))
    assert window.size == (200, 100)
    np.testing.assert_array_equal(window.boxes, layout.boxes)
