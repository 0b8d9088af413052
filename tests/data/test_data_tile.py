"""Tiles cover every pixel, visible fractions agree with shapely, and no object is lost."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from shapely.geometry import Polygon
from shapely.geometry import box as rectangle

from dataengine.data.layout import Layout
from dataengine.data.tile import crop_layout, tile, windows
from dataengine.errors import UserError


@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 120), st.floats(0, 0.9))
def test_windows_cover_every_pixel_and_stay_inside(width, height, size, share):
    overlap = int(size * share)
    seen = np.zeros((height, width), bool)
    for x, y, w, h in windows((width, height), size, overlap):
        assert (w, h) == (min(size, width), min(size, height))
        assert 0 <= x <= width - w
        assert 0 <= y <= height - h
        seen[y : y + h, x : x + w] = True
    assert seen.all()


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.floats(-20, 220), st.floats(-20, 220), st.floats(6, 80), st.floats(0.2, 1), st.floats(-1.57, 1.57)
        ),
        min_size=1,
        max_size=12,
    ),
    st.floats(0.1, 1),
)
def test_visible_fractions_and_clipped_boxes_agree_with_shapely(true_corners, rows, min_visible):
    boxes = np.array([(cx, cy, w, w * ratio, theta) for cx, cy, w, ratio, theta in rows], np.float32)
    layout = Layout(boxes, np.arange(len(boxes)), tuple(map(str, range(len(boxes)))), (200, 200))
    window = (40, 60, 100, 80)
    part = crop_layout(layout, window, min_visible)
    frame = rectangle(40, 60, 140, 140)
    kept = dict(zip(part.labels.tolist(), zip(part.boxes, part.visible, strict=True), strict=True))
    expected_ignored = 0
    for label, row in enumerate(boxes):
        shape = Polygon(true_corners(row))
        inside = shape.intersection(frame)
        fraction = inside.area / shape.area
        if abs(fraction - min_visible) < 1e-4 or 0 < fraction < 1e-4:
            return  # on the edge of the decision, where float32 may go either way
        assert (label in kept) == (fraction >= min_visible)
        expected_ignored += 0 < fraction < min_visible
        if label in kept:
            box, visible = kept[label]
            assert visible == pytest.approx(fraction, abs=1.5e-3)
            clipped = Polygon(true_corners(box) + np.array([40, 60]))
            assert inside.difference(clipped.buffer(0.05)).area < 1e-3, "the clipped box contains the visible part"
            assert clipped.area <= inside.minimum_rotated_rectangle.area * 1.02 + 0.5, (
                "and is not larger than necessary"
            )
    assert len(part.ignored) == expected_ignored
    assert part.size == (100, 80)


def test_a_horizontal_box_stays_horizontal_when_cut():
    layout = Layout([(50, 50, 40, 20, 0)], [0], ("a",), (100, 100), "hbb")
    part = crop_layout(layout, (0, 0, 60, 100), 0.5)
    np.testing.assert_allclose(part.boxes, [(45, 50, 30, 20, 0)], atol=1e-4)
    np.testing.assert_allclose(part.visible, [0.75], atol=1e-5)


def test_a_box_inside_is_only_shifted():
    layout = Layout([(50, 50, 40, 20, 0.3)], [0], ("a",), (100, 100), visible=[0.5], difficult=[True])
    part = crop_layout(layout, (10, 5, 80, 90), 0.4)
    np.testing.assert_array_equal(part.boxes, np.array([(40, 45, 40, 20, 0.3)], np.float32))
    assert part.visible.tolist() == [0.5], "the part hidden before is still hidden"
    assert part.difficult.tolist() == [True]


def test_objects_below_min_visible_become_ignored_regions_and_ignored_regions_are_kept():
    layout = Layout([(50, 50, 40, 20, 0)], [0], ("a",), (100, 100), "hbb", ignored=[(20, 20, 10, 10, 0)])
    part = crop_layout(layout, (0, 0, 40, 100), 0.5)
    assert len(part) == 0
    np.testing.assert_allclose(part.ignored[:, :4], [(35, 50, 20, 10), (20, 20, 10, 10)], atol=1e-4)


@pytest.mark.parametrize("beyond", [0, 2e-6, -2e-6, 1e-5])
def test_an_object_that_ends_with_the_tile_is_completely_visible(beyond):
    height = 13.315799713134766
    layout = Layout([(184.1018, 512 - height / 2 + beyond, 14.2035, height, 0)], [0], ("a",), (640, 512))
    assert crop_layout(layout, (0, 0, 640, 512), 0.5).visible.tolist() == [1]


def test_tiles_have_the_pixels_of_their_window(make_dataset, tmp_path):
    dataset = make_dataset(tmp_path / "in", [[(60, 70, 40, 12, 0.4)]], size=(250, 130))
    seen = []
    tiles = tile(dataset, tmp_path / "tiles", 100, 20, 0.5, progress=lambda *state: seen.append(state))
    assert seen == [(1, 1)]
    whole = np.asarray(Image.open(dataset.samples[0].image))
    assert [sample.name for sample in tiles] == [f"image_0__100__{x}___{y}" for y in (0, 30) for x in (0, 80, 150)]
    for sample in tiles:
        x, y = map(int, sample.name.split("__100__")[1].split("___"))
        np.testing.assert_array_equal(np.asarray(Image.open(sample.image)), whole[y : y + 100, x : x + 100])
        assert sample.layout.size == (100, 100)
        assert sample.layout.acquisition == dataset.samples[0].layout.acquisition


def test_a_broken_image_is_reported_and_the_others_are_tiled(make_dataset, tmp_path):
    dataset = make_dataset(tmp_path / "in", [[], []])
    dataset.samples[0].image.write_bytes(dataset.samples[0].image.read_bytes()[:500])
    tiles = tile(dataset, tmp_path / "tiles", 100, 0)
    assert len(tiles) == 4
    assert [problem.path for problem in tiles.problems] == [dataset.samples[0].image]


@pytest.mark.parametrize(("size", "overlap", "visible"), [(100, 100, 0.5), (0, 0, 0.5), (100, -1, 0.5), (100, 0, 0)])
def test_invalid_settings_are_rejected(size, overlap, visible, make_dataset, tmp_path):
    with pytest.raises(UserError):
        tile(make_dataset(tmp_path / "in", [[]]), tmp_path / "tiles", size, overlap, visible)
    with pytest.raises(UserError, match="not an empty folder"):
        tile(make_dataset(tmp_path / "in", [[]]), tmp_path / "in", 100, 0)
