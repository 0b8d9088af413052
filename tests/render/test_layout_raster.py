from __future__ import annotations

import numpy as np
import pytest

from dataengine.data.layout import Layout
from dataengine.render.layout_batch import NOTHING, PLACE_LEVELS, UNKNOWN, layout_raster


def layout(boxes, labels, classes=("car", "ship")) -> Layout:
    return Layout(np.float32(boxes), labels, classes, (64, 48))


def test_pixels_in_a_rotated_box_have_its_class_and_their_position_in_it():
    raster = layout_raster(layout([[30, 20, 24, 10, 0.5]], [1]), ["car", "ship"])
    assert raster.shape == (3, 48, 64)
    inside = raster[0] == 1
    assert inside.sum() == pytest.approx(24 * 10, rel=0.05)
    assert (raster[0][~inside] == NOTHING).all()
    y, x = np.nonzero(inside)
    along, across = raster[1, y, x] / PLACE_LEVELS * 12, raster[2, y, x] / PLACE_LEVELS * 5
    back = 30 + along * np.cos(0.5) - across * np.sin(0.5), 20 + along * np.sin(0.5) + across * np.cos(0.5)
    assert np.abs(back[0] - x - 0.5).max() < 0.15
    assert np.abs(back[1] - y - 0.5).max() < 0.15


def test_a_box_across_the_border_keeps_the_positions_of_the_whole_object():
    raster = layout_raster(layout([[0, 20, 20, 10, 0]], [0]), ["car", "ship"])
    assert (raster[1, 20, :10] > 0).all(), "only the right half is in the picture"
    assert raster[0, 20, 10] == NOTHING


def test_the_smaller_of_two_boxes_is_on_top_whatever_their_order():
    for order in ([0, 1], [1, 0]):
        boxes = np.float32([[30, 20, 30, 30, 0], [30, 20, 6, 6, 0]])[order]
        raster = layout_raster(layout(boxes, order), ["car", "ship"])
        assert raster[0, 20, 30] == 1
        assert raster[0, 10, 20] == 0


def test_classes_are_matched_by_name_and_others_are_unknown():
    both = layout([[10, 20, 8, 8, 0], [40, 20, 8, 8, 0]], [0, 1])
    raster = layout_raster(both, ["Ship", "plane"])
    assert raster[0, 20, 10] == UNKNOWN
    assert raster[0, 20, 40] == 0
