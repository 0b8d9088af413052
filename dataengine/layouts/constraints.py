"""Rules for layouts: how much boxes may overlap, and how much of an object the image border may cut off."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np

from dataengine import geometry
from dataengine.data.layout import Layout

Border = Literal["clip", "keep"]  # a cut box is reduced to the part inside, or extends beyond the image

MIN_VISIBLE = 0.3  # an object with a smaller visible share is removed from the layout
BORDER_PX = 2.0  # a box that ends this near to the image's border counts as cut by it
FULLY_VISIBLE = 0.999  # an object with at least this visible share counts as uncut, whatever float32 rounds


def overlap(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Intersection over the area of the smaller box of each pair: (N, 5), (M, 5) -> (N, M) float64 in [0, 1].

    Exact for rotated boxes; the intersection is computed only for pairs whose circumscribed circles meet.

    >>> overlap(np.array([[10, 10, 10, 10, 0]]), np.array([[15, 10, 10, 10, 0], [50, 10, 10, 10, 0]])).tolist()
    [[0.5, 0.0]]
    """
    boxes, others = np.asarray(boxes, np.float32).reshape(-1, 5), np.asarray(others, np.float32).reshape(-1, 5)
    shares = np.zeros((len(boxes), len(others)))
    if not shares.size:
        return shares
    distance = np.hypot(boxes[:, None, 0] - others[None, :, 0], boxes[:, None, 1] - others[None, :, 1])
    reach = np.hypot(boxes[:, 2], boxes[:, 3])[:, None] + np.hypot(others[:, 2], others[:, 3])[None]
    near = distance < reach / 2
    rows, columns = np.flatnonzero(near.any(1)), np.flatnonzero(near.any(0))
    if len(rows):
        covered = geometry.intersection(boxes[rows], others[columns])
        smaller = np.minimum(geometry.area(boxes[rows])[:, None], geometry.area(others[columns])[None])
        shares[np.ix_(rows, columns)] = covered / np.maximum(smaller, 1e-9)
    return np.clip(shares, 0, 1)


def apart(boxes: np.ndarray, max_overlap: float | np.ndarray, placed: np.ndarray | None = None) -> np.ndarray:
    """Bool (N,): boxes to keep so that no two of them, nor one of them and a `placed` box, overlap by more than
    `max_overlap` (share of the smaller box; one value or (N,)). Greedy in the given order: the earlier box stays.

    >>> apart(np.array([[10, 10, 10, 10, 0], [12, 10, 10, 10, 0], [40, 10, 10, 10, 0]]), 0.2).tolist()
    [True, False, True]
    """
    limits = np.broadcast_to(np.asarray(max_overlap, float), (len(boxes),))
    keep = np.ones(len(boxes), bool)
    if placed is not None and len(placed):
        keep &= overlap(boxes, placed).max(1) <= limits
    shares = overlap(boxes, boxes)
    np.fill_diagonal(shares, 0)
    for i in np.flatnonzero((shares > limits[:, None]).any(1)):
        keep[i] &= not (shares[i, :i][keep[:i]] > limits[i]).any()
    return keep


def cut_by_border(layout: Layout, border: Border = "clip", min_visible: float = MIN_VISIBLE) -> Layout:
    """The layout without objects that are mostly outside the image, with cut boxes clipped and `visible` updated.

    `visible` is multiplied by the share of each box inside the image, so it remains a share of the whole object.
    border: "clip" reduces a cut box to the part inside; "keep" leaves it whole, for a renderer that paints beyond the
    image. min_visible: objects with a smaller visible share are removed.
    """
    inside = geometry.visible_fraction(layout.boxes, layout.size) if len(layout) else np.ones(0)
    visible = (layout.visible * np.where(inside >= FULLY_VISIBLE, 1, inside)).astype(np.float32)
    keep = (visible >= min_visible) & (inside > 0)
    ignored = layout.ignored
    if len(ignored):
        ignored = ignored[geometry.visible_fraction(ignored, layout.size) > 0]
    boxes = layout.boxes.copy()
    if border == "clip":
        clip = geometry.clip if layout.kind == "obb" else geometry.clip_aabb
        cut = keep & (inside < FULLY_VISIBLE)
        if cut.any():
            boxes[cut] = clip(boxes[cut], layout.size)
            if layout.silhouettes is not None:  # an outline is relative to its box, so clipping the box voids it
                outlines = [
                    np.zeros((0, 2)) if c else points for points, c in zip(layout.silhouettes, cut, strict=True)
                ]
                layout = replace(layout, silhouettes=tuple(outlines))
        if len(ignored):
            ignored = clip(ignored, layout.size)
    return replace(layout, boxes=boxes, visible=visible, ignored=ignored).select(keep)


def whole(layout: Layout) -> np.ndarray:
    """Bool (N,): objects that no border cuts and that are not difficult.

    A box that ends at the border covers only the visible part of its object.

    >>> layout = Layout([[50, 50, 20, 10, 0], [5, 50, 10, 10, 0]], [0, 0], ("car",), (100, 100))
    >>> whole(layout).tolist()
    [True, False]
    """
    corners = geometry.to_corners(layout.boxes)
    inside = ((corners >= BORDER_PX) & (corners <= np.array(layout.size) - BORDER_PX)).all((1, 2))
    return inside & ~layout.difficult & (layout.visible > 0.99)
