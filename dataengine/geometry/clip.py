"""Boxes at the border of the image."""

from __future__ import annotations

import numpy as np

from dataengine.geometry.boxes import from_aabb, regularize, to_aabb, to_corners
from dataengine.geometry.iou import containment


def visible_fraction(boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Share of each box's area inside an image of size (width, height), float64 (N,) in [0, 1].

    0 for a box without area.
    """
    width, height = size
    # not in le90: upright with theta 0 is exact, a tall image turned by float32 pi/2 is not
    return containment(boxes, np.array([[width / 2, height / 2, width, height, 0.0]]))[:, 0]


def clip(boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Minimum-area rectangle of the part of each box inside an image of size (width, height), le90 float32 (N, 5).

    Boxes wholly inside come back as they are; one of which nothing is inside keeps its place, without width and height.
    """
    import shapely

    out = np.array(boxes, np.float32).reshape(-1, 5)
    around = to_aabb(out)
    cut = np.flatnonzero((around[:, :2] < 0).any(1) | (around[:, 2:] > np.float32(size)).any(1))
    parts = shapely.intersection(shapely.polygons(to_corners(out[cut])), shapely.box(0, 0, *size))
    seen = shapely.area(parts) > 0
    out[cut[~seen], 2:4] = 0
    cut, parts = cut[seen], parts[seen]
    if len(cut):
        out[cut] = _minimum_area_of_parts(out[cut], parts)
    return out


def _minimum_area_of_parts(boxes: np.ndarray, parts: np.ndarray) -> np.ndarray:
    """Minimum-area rectangles of `parts` (shapely polygons) of boxes (N, 5) cut by an upright window, le90 (N, 5).

    A side of such a rectangle lies on an edge of the part, so on a side of the box or of the window: there are two
    candidates, one in the box's frame and one upright.
    """
    import shapely

    points, owner = shapely.get_coordinates(parts, return_index=True)
    starts = np.searchsorted(owner, np.arange(len(parts)))
    centres = boxes[:, :2].astype(np.float64)
    points = points - centres[owner]

    def enclosing(theta: np.ndarray) -> np.ndarray:
        cos, sin = np.cos(theta), np.sin(theta)
        turned = np.stack([cos[owner], sin[owner]], 1), np.stack([-sin[owner], cos[owner]], 1)
        spans = np.stack([(points * axis).sum(1) for axis in turned], 1)
        low, high = np.minimum.reduceat(spans, starts), np.maximum.reduceat(spans, starts)
        x, y = ((low + high) / 2).T
        middle = np.column_stack([x * cos - y * sin, x * sin + y * cos])
        return np.column_stack([centres + middle, high - low, theta])

    own, upright = enclosing(boxes[:, 4].astype(np.float64)), enclosing(np.zeros(len(boxes)))
    # of equal areas the box's own angle
    smaller = upright[:, 2] * upright[:, 3] < own[:, 2] * own[:, 3] * (1 - 1e-6)
    return regularize(np.where(smaller[:, None], upright, own))


def clip_aabb(boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Upright boxes (N, 5) cut at the border of an image of size (width, height), le90 float32 (N, 5).

    A box that is not upright is replaced by its enclosing upright box; one wholly outside gets no area.
    """
    upright = to_aabb(boxes)
    limit = np.array([*size, *size], np.float32)
    return from_aabb(np.clip(upright, 0, limit))
