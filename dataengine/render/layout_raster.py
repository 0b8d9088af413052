"""Layouts as pictures: which class lies under each pixel, and where in its box the pixel is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dataengine import geometry
from dataengine.data.layout import Layout, class_key

UNKNOWN, NOTHING = -1, -2  # in the first channel, beside the numbers of classes
SCALE = 127  # of places, from [-1, 1]


def layout_raster(layout: Layout, classes: Sequence[str]) -> np.ndarray:
    """(3, H, W) int8 in the layout's own pixels: the class's number in `classes`, UNKNOWN for a class that is not among
    them, NOTHING where there is no box; then the place in the box along and across it, -127 to 127, 0 without a box.
    Where boxes overlap, the smaller one is on top. At most 128 classes."""
    width, height = layout.size
    raster = np.zeros((3, height, width), np.int8)
    raster[0] = NOTHING
    numbers = {class_key(name): i for i, name in enumerate(classes)}
    corners = geometry.to_corners(layout.boxes)
    names = layout.names()
    for i in np.argsort(-layout.boxes[:, 2] * layout.boxes[:, 3], kind="stable"):
        cx, cy, w, h, theta = layout.boxes[i]
        left, top = np.maximum(np.floor(corners[i].min(0)).astype(int), 0)
        right, bottom = np.minimum(np.ceil(corners[i].max(0)).astype(int), (width, height))
        if right <= left or bottom <= top:
            continue
        x = np.arange(left, right, dtype=np.float32)[None] + 0.5 - cx
        y = np.arange(top, bottom, dtype=np.float32)[:, None] + 0.5 - cy
        along = (x * np.cos(theta) + y * np.sin(theta)) * (2 / w)
        across = (y * np.cos(theta) - x * np.sin(theta)) * (2 / h)
        inside = (np.abs(along) <= 1) & (np.abs(across) <= 1)
        part = raster[:, top:bottom, left:right]
        part[0][inside] = numbers.get(class_key(names[i]), UNKNOWN)
        part[1][inside] = np.rint(along * SCALE)[inside]
        part[2][inside] = np.rint(across * SCALE)[inside]
    return raster


def layout_rasters(layouts: Sequence[Layout], classes: Sequence[str]) -> np.ndarray:
    """(B, 3, H, W) int8, of layouts of one size."""
    return np.stack([layout_raster(layout, classes) for layout in layouts])
