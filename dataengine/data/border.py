"""What the border of an image cuts off: one rule for every writer, release and shard (docs/data.md).

A label covers the part of its object that is inside the image. A horizontal box is clipped. A rotated one becomes the
minimum-area box of the visible part, which keeps its angle unless an upright box is smaller; its corners can then
extend beyond the image a little. A box that is inside, or already is such a minimum-area box, stays as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from dataengine import geometry
from dataengine.data.layout import Layout

ROUNDING_PX = 1e-3  # how far a box may extend beyond the image and count as inside: files have four decimals
MIN_PART_PX = 1.0  # shortest side of a visible part that is an object; loaders of mmdet drop smaller boxes
MIN_SHRINK = 1e-3  # share of its area by which a rotated box has to shrink, or it is a minimum-area box already
UNCUT_VISIBLE = 0.999  # visible fraction from which an object counts as uncut


def inside_image(layout: Layout) -> tuple[Layout, np.ndarray]:
    """The layout as it is written, and the indices of objects that are not in it, since less than a pixel of them is
    inside the image, int64 (K,).

    `visible` becomes the visible fraction where that is less. Ignored regions follow the same rule; those outside the
    image are dropped.

    >>> layout = Layout([[0, 20, 8, 4, 0], [30, 30, 8, 4, 0.5], [-9, 20, 8, 4, 0]], [0, 0, 0], ("car",), (64, 64))
    >>> written, outside = inside_image(layout)
    >>> written.boxes.tolist(), written.visible.tolist(), outside.tolist()
    ([[2.0, 20.0, 4.0, 4.0, 0.0], [30.0, 30.0, 8.0, 4.0, 0.5]], [0.5, 1.0], [2])
    """
    boxes, visible, inside = _cut(layout.boxes, layout)
    ignored, _, shown = _cut(layout.ignored, layout)
    visible = np.where(visible > UNCUT_VISIBLE, layout.visible, np.minimum(visible, layout.visible))
    written = replace(layout, boxes=boxes, visible=visible, ignored=ignored[shown])
    if not inside.all():
        written = written.select(inside)
    if layout.silhouettes is not None and (boxes != layout.boxes).any():  # which are relative to the boxes
        outlines = layout.outlines()
        written = written.with_outlines(outlines[i] for i in np.flatnonzero(inside))
    return written, np.flatnonzero(~inside)


def _cut(boxes: np.ndarray, layout: Layout) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes (N, 5) cut at the border of a layout, their visible fractions (N,), and whether they are inside, (N,)."""
    out, visible, inside = boxes.copy(), np.ones(len(boxes), np.float32), np.ones(len(boxes), bool)
    beyond = np.flatnonzero(_beyond(boxes, layout.size, ROUNDING_PX))
    if not len(beyond):
        return out, visible, inside
    old = boxes[beyond]
    new = geometry.clip_aabb(old, layout.size) if layout.kind == "hbb" else geometry.clip(old, layout.size)
    areas = geometry.area(new), geometry.area(old)
    shrunk = np.full(len(old), True) if layout.kind == "hbb" else areas[0] < areas[1] * (1 - MIN_SHRINK)
    out[beyond] = np.where(shrunk[:, None], new, old)
    visible[beyond] = geometry.visible_fraction(old, layout.size)
    # an object that is thinner than a pixel by itself is one, whatever is left of its length
    inside[beyond] = new[:, 3] >= np.minimum(MIN_PART_PX, 0.99 * old[:, 3])
    return out, visible, inside


def _beyond(boxes: np.ndarray, size: tuple[int, int], tolerance: float) -> np.ndarray:
    """bool (N,): boxes of which a corner lies outside the image by more than `tolerance` pixels."""
    around = geometry.to_aabb(boxes)
    return (around[:, :2] < -tolerance).any(1) | (around[:, 2:] > np.float32(size) + tolerance).any(1)


def visible_polygons(boxes: np.ndarray, size: tuple[int, int]) -> list[np.ndarray]:
    """The part of each box (N, 5) inside an image of size (width, height), as points in pixels, float64 (K, 2); (0, 2)
    for a box outside.

    >>> sorted(visible_polygons([[0, 20, 8, 4, 0]], (64, 64))[0].tolist())
    [[0.0, 18.0], [0.0, 22.0], [4.0, 18.0], [4.0, 22.0]]
    """
    import shapely

    parts = shapely.intersection(shapely.polygons(geometry.to_corners(boxes)), shapely.box(0, 0, *size))
    return [shapely.get_coordinates(part)[:-1] if shapely.area(part) > 0 else np.zeros((0, 2)) for part in parts]


def visible_hulls(boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Axis-aligned boxes `x1, y1, x2, y2` around the parts of boxes (N, 5) inside an image of size (width, height), in
    pixels, float64 (N, 4). They never leave the image.

    >>> visible_hulls([[0, 20, 8, 4, 0]], (64, 64)).tolist()
    [[0.0, 18.0, 4.0, 22.0]]
    """
    corners = geometry.to_corners(boxes).astype(np.float64)  # (N, 4, 2)
    hulls = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
    for i in np.flatnonzero(_beyond(boxes, size, 0)):
        points = visible_polygons(np.asarray(boxes)[i : i + 1], size)[0]
        if len(points):
            hulls[i] = [*points.min(axis=0), *points.max(axis=0)]
    limits: Sequence[float] = (*size, *size)
    return hulls.clip(0, limits)
