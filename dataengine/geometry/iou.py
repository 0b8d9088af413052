"""Exact intersection and IoU of oriented boxes, vectorised over pairs.

In the frame of one box of half sizes X, Y, clamping a point to the box is a continuous map whose Jacobian is 1 inside
and 0 outside. So, by Stokes' theorem, the area that another polygon shares with the box is the integral of
clamp(x) d clamp(y) along the polygon's edges. Each edge gives a closed form that is continuous in the corners: shared
edges, touching corners and parallel sides need no case of their own, and rounding moves the area only by rounding.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

CHUNK = 1 << 13  # pairs at a time: the temporaries then stay in the cache
BLOCK = 1 << 18  # cells of the N x M table that are searched for overlaps at a time
ROUNDING = 32 * np.finfo(np.float64).eps  # bound on the sum of some thirty roundings, each relative to a coordinate


def _as_boxes(boxes: np.ndarray) -> np.ndarray:
    return np.asarray(boxes, np.float64).reshape(-1, 5)


def _area(boxes: np.ndarray) -> np.ndarray:
    return boxes[:, 2] * boxes[:, 3]


def _rows(boxes: np.ndarray) -> np.ndarray:
    """Boxes (N, 5) -> float64 (6, N): centre x, y, half width, half height, cos and sin of theta."""
    cx, cy, w, h, theta = boxes.T
    return np.stack([cx, cy, w / 2, h / 2, np.cos(theta), np.sin(theta)])


def _reciprocal(x: np.ndarray) -> np.ndarray:
    """1 / x, and 1 where x is 0."""
    return 1.0 / np.where(x == 0, 1.0, x)


def _clamp(x: np.ndarray, low: np.ndarray | float, high: np.ndarray | float) -> np.ndarray:
    return np.minimum(np.maximum(x, low), high)


def _edge_integral(
    middle: tuple[np.ndarray, np.ndarray],
    step: tuple[np.ndarray, np.ndarray],
    per_y: np.ndarray,
    x_limit: np.ndarray,
    y_limit: np.ndarray,
) -> np.ndarray:
    """Integral of clamp(x) d clamp(y) along the edge middle + t step, t from -1 to 1; `per_y` is 1 / step y; (P,)."""
    (x, y), (dx, dy) = middle, step
    rise = _clamp(y + dy, -y_limit, y_limit) - _clamp(y - dy, -y_limit, y_limit)
    # only the part of the edge with |y| < y_limit counts; its two ends, in either order
    first = x + dx * _clamp((-y_limit - y) * per_y, -1.0, 1.0)
    second = x + dx * _clamp((y_limit - y) * per_y, -1.0, 1.0)
    # mean of clamp(x) over that part: constant, linear, constant, with breaks where x crosses -x_limit and x_limit
    per_x = _reciprocal(second - first)
    breaks = _clamp((-x_limit - first) * per_x, 0.0, 1.0) + _clamp((x_limit - first) * per_x, 0.0, 1.0)
    first, second = _clamp(first, -x_limit, x_limit), _clamp(second, -x_limit, x_limit)
    return rise * (second + 0.5 * breaks * (first - second))


def _intersection_of_rows(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection area of the pairs of rows a, b (6, P), float64 (P,)."""
    # the frame is the smaller box: every clamped value is then as small as the answer, and so is its rounding
    swap = a[2] * a[3] < b[2] * b[3]
    large, small = np.where(swap, b, a), np.where(swap, a, b)
    x_limit, y_limit = small[2], small[3]
    dx, dy = large[0] - small[0], large[1] - small[1]
    x, y = dx * small[4] + dy * small[5], dy * small[4] - dx * small[5]
    cos, sin = large[4] * small[4] + large[5] * small[5], large[5] * small[4] - large[4] * small[5]
    wide, high = (large[2] * cos, large[2] * sin), (-large[3] * sin, large[3] * cos)  # half sides of the larger box
    per_wide, per_high = _reciprocal(wide[1]), _reciprocal(high[1])
    limits = x_limit, y_limit
    # once round: top, right, and the two opposite sides, which run backwards
    area = _edge_integral((x - high[0], y - high[1]), wide, per_wide, *limits)
    area += _edge_integral((x + wide[0], y + wide[1]), high, per_high, *limits)
    area -= _edge_integral((x + high[0], y + high[1]), wide, per_wide, *limits)
    area -= _edge_integral((x - wide[0], y - wide[1]), high, per_high, *limits)
    # boxes that are apart must share exactly nothing, not a rounding error
    around = x_limit + y_limit
    noise = ROUNDING * around * (np.abs(x) + np.abs(y) + large[2] + large[3] + around)
    return np.where(area > noise, np.minimum(area, 4 * x_limit * y_limit), 0.0)


def intersection_pairs(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection area in square pixels of a[i] with b[i], both (N, 5), float64 (N,)."""
    rows_a, rows_b = _rows(_as_boxes(a)), _rows(_as_boxes(b))
    assert rows_a.shape == rows_b.shape, "pairs need as many boxes on either side"
    out = np.empty(rows_a.shape[1])
    for i in range(0, len(out), CHUNK):
        out[i : i + CHUNK] = _intersection_of_rows(rows_a[:, i : i + CHUNK], rows_b[:, i : i + CHUNK])
    return out


def _aabb(rows: np.ndarray) -> np.ndarray:
    """Enclosing upright boxes `x1, y1, x2, y2` of rows (6, N), float64 (4, N): float32 would drop thin overlaps."""
    cos, sin = np.abs(rows[4]), np.abs(rows[5])
    half_x, half_y = rows[2] * cos + rows[3] * sin, rows[2] * sin + rows[3] * cos
    return np.stack([rows[0] - half_x, rows[1] - half_y, rows[0] + half_x, rows[1] + half_y])


def _overlapping(a: np.ndarray, b: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Indices of the pairs of upright boxes a (4, N), b (4, M) that overlap, some rows of a at a time."""
    height = max(1, BLOCK // max(1, b.shape[1]))
    for top in range(0, a.shape[1], height):
        x1, y1, x2, y2 = a[:, top : top + height, None]
        i, j = np.nonzero((x1 < b[2]) & (b[0] < x2) & (y1 < b[3]) & (b[1] < y2))
        yield i + top, j


def _shared(a: np.ndarray, b: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Indices i, j and intersection areas of the pairs that may overlap, boxes a (N, 5) and b (M, 5), in pieces."""
    rows_a, rows_b = _rows(a), _rows(b)
    for every_i, every_j in _overlapping(_aabb(rows_a), _aabb(rows_b)):
        for at in range(0, len(every_i), CHUNK):
            i, j = every_i[at : at + CHUNK], every_j[at : at + CHUNK]
            yield i, j, _intersection_of_rows(rows_a[:, i], rows_b[:, j])


def intersection(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection areas in square pixels of boxes a (N, 5) and b (M, 5), float64 (N, M).

    Boxes need not be le90, only w, h >= 0. Boxes that are apart, and boxes without area, give exactly 0.
    """
    a, b = _as_boxes(a), _as_boxes(b)
    out = np.zeros((len(a), len(b)))
    for i, j, shared in _shared(a, b):
        out[i, j] = shared
    return out


def _ratio(shared: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(shared, whole, out=np.zeros_like(shared), where=whole > 0)


def iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Rotated IoU of boxes a (N, 5) and b (M, 5), float64 (N, M) in [0, 1]; 0 where both have no area."""
    a, b = _as_boxes(a), _as_boxes(b)
    area_a, area_b = _area(a), _area(b)
    out = np.zeros((len(a), len(b)))
    for i, j, shared in _shared(a, b):
        out[i, j] = _ratio(shared, area_a[i] + area_b[j] - shared)
    return out


def iou_pairs(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Rotated IoU of a[i] with b[i], both (N, 5), float64 (N,) in [0, 1]; 0 where both have no area."""
    a, b = _as_boxes(a), _as_boxes(b)
    shared = intersection_pairs(a, b)
    return _ratio(shared, _area(a) + _area(b) - shared)


def containment(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Share of each box a (N, 5) that lies inside each box b (M, 5), float64 (N, M) in [0, 1]; 0 for a without area."""
    a = _as_boxes(a)
    shared = intersection(a, b)
    return _ratio(shared, np.broadcast_to(_area(a)[:, None], shared.shape))
