"""A painted object taken out of a picture, and what is beside it."""

from __future__ import annotations

import numpy as np

from dataengine.data.layout import Layout
from dataengine.render.erase import erase
from dataengine.render.frame import FrameSpec


def test_what_was_there_before_comes_back_except_in_the_boxes_of_objects_that_stay():
    layout = Layout([[40, 40, 24, 12, 0], [40, 54, 24, 12, 0]], [0, 0], ("car",), (96, 96))  # two pixels apart
    bare, image = np.zeros((96, 96, 3), np.uint8), np.full((96, 96, 3), 200, np.uint8)
    result = erase(image, bare, layout, np.array([True, False]), FrameSpec())
    assert (result[34:46, 28:52] == 0).all(), "its box"
    assert (result[31:34, 25:55] == 0).all(), "and the margin that is painted around it"
    assert (result[48:60, 28:52] == 200).all(), "not its neighbour, though the margin reaches it"
    assert (result[70:] == 200).all()
    assert (image == 200).all(), "the picture given stays as it is"
    both = erase(image, bare, layout, np.array([True, True]), FrameSpec())
    assert (both[48:60, 28:52] == 0).all(), "control: the neighbour can be taken out, too"
