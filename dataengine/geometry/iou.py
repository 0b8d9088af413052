"""Exact intersection and IoU of oriented boxes, vectorised over pairs.

In the frame of a box, clamping a point to the box is a continuous map whose Jacobian is 1 inside and 0 outside. By
Stokes' theorem, the intersection of the box with another polygon therefore has the area of the integral of
clamp(x) d clamp(y) along the edges of the polygon. The integral along an edge has a closed form that is continuous in
the corners: shared edges, touching corners and parallel sides need no special cases, and rounding errors stay small.

Boxes are (N, 5), `cx, cy, w, h, theta` with w, h >= 0. They need not be le90.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

CHUNK_PAIRS = 1 << 13  # pairs computed at once, so that temporary arrays stay in the cache
BLOCK_CELLS = 1 << 18  # cells of the N x M table searched for overlaps at once
ROUNDING_BOUND = 32 * np.finfo(np.float64).eps  # of the sum of about thirty roundings, relative to a coordinate


def _as_boxes(boxes: np.ndarray) -> np.ndarray:
    return np.asarray(boxes, np.float64).reshape(-1, 5)


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
    """Integral of clamp(x) d clamp(y) along the edge middle + t step, t from -1 to 1, (P,). `per_y` is 1 / step y."""
    (x, y), (dx, dy) = middle, step
    rise = _clamp(y + dy, -y_limit, y_limit) - _clamp(y - dy, -y_limit, y_limit)
    # x at the two ends of the part of the edge with |y| < y_limit, in either order
    first = x + dx * _clamp((-y_limit - y) * per_y, -1.0, 1.0)
    second = x + dx * _clamp((y_limit - y) * per_y, -1.0, 1.0)
    # mean of clamp(x) over that part, which is constant, linear, constant, with breaks at x = -x_limit and x_limit
    per_x = _reciprocal(second - first)
    breaks = _clamp((-x_limit - first) * per_x, 0.0, 1.0) + _clamp((x_limit - first) * per_x, 0.0, 1.0)
    first, second = _clamp(first, -x_limit, x_limit), _clamp(second, -x_limit, x_limit)
    return rise * (second + 0.5 * breaks * (first - second))


def _intersection_of_rows(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection areas of pairs of boxes in the form of `_rows`, both (6, P), float64 (P,)."""
    # in the frame of the smaller box, every clamped value is as small as the answer, and so is its rounding error
    swap = a[2] * a[3] < b[2] * b[3]
    large, small = np.where(swap, b, a), np.where(swap, a, b)
    x_limit, y_limit = small[2], small[3]
    dx, dy = large[0] - small[0], large[1] - small[1]
    x, y = dx * small[4] + dy * small[5], dy * small[4] - dx * small[5]
    cos, sin = large[4] * small[4] + large[5] * small[5], large[5] * small[4] - large[4] * small[5]
    wide, high = (large[2] * cos, large[2] * sin), (-large[3] * sin, large[3] * cos)  # half sides of the larger box
    per_wide, per_high = _reciprocal(wide[1]), _reciprocal(high[1])
    limits = x_limit, y_limit
    # around the larger box: top, right, and the two opposite sides, which run backwards
    area = _edge_integral((x - high[0], y - high[1]), wide, per_wide, *limits)
    area += _edge_integral((x + wide[0], y + wide[1]), high, per_high, *limits)
    area -= _edge_integral((x + high[0], y + high[1]), wide, per_wide, *limits)
    area -= _edge_integral((x - wide[0], y - wide[1]), high, per_high, *limits)
    # exactly 0, not a rounding error, for boxes that are apart
    around = x_limit + y_limit
    noise = ROUNDING_BOUND * around * (np.abs(x) + np.abs(y) + large[2] + large[3] + around)
    return np.where(area > noise, np.minimum(area, 4 * x_limit * y_limit), 0.0)


def intersection_pairs(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection areas of a[i] with b[i] in square pixels, both (N, 5), float64 (N,).

    >>> intersection_pairs([[0, 0, 4, 2, 0]], [[1, 0, 4, 2, 0]]).tolist()
    [6.0]
    """
    rows_a, rows_b = _rows(_as_boxes(a)), _rows(_as_boxes(b))
    assert rows_a.shape == rows_b.shape, "a and b have different lengths"
    out = np.empty(rows_a.shape[1])
    for i in range(0, len(out), CHUNK_PAIRS):
        out[i : i + CHUNK_PAIRS] = _intersection_of_rows(rows_a[:, i : i + CHUNK_PAIRS], rows_b[:, i : i + CHUNK_PAIRS])
    return out


def _aabb(rows: np.ndarray) -> np.ndarray:
    """Axis-aligned boxes `x1, y1, x2, y2` around rows (6, N), float64 (4, N): float32 would miss thin overlaps."""
    cos, sin = np.abs(rows[4]), np.abs(rows[5])
    half_x, half_y = rows[2] * cos + rows[3] * sin, rows[2] * sin + rows[3] * cos
    return np.stack([rows[0] - half_x, rows[1] - half_y, rows[0] + half_x, rows[1] + half_y])


def _shared(a: np.ndarray, b: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Indices i, j and intersection areas of the pairs of boxes a (N, 5) and b (M, 5) that may overlap, in chunks."""
    rows_a, rows_b = _rows(a), _rows(b)
    around_a, around_b = _aabb(rows_a), _aabb(rows_b)
    height = max(1, BLOCK_CELLS // max(1, len(b)))
    for top in range(0, len(a), height):
        x1, y1, x2, y2 = around_a[:, top : top + height, None]
        every_i, every_j = np.nonzero((x1 < around_b[2]) & (around_b[0] < x2) & (y1 < around_b[3]) & (around_b[1] < y2))
        for start in range(0, len(every_i), CHUNK_PAIRS):
            i, j = every_i[start : start + CHUNK_PAIRS] + top, every_j[start : start + CHUNK_PAIRS]
            yield i, j, _intersection_of_rows(rows_a[:, i], rows_b[:, j])


def intersection(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection areas of boxes a (N, 5) and b (M, 5) in square pixels, float64 (N, M).

    Exactly 0 for boxes that are apart and for boxes without area.

    >>> intersection([[0, 0, 4, 2, 0]], [[1, 0, 4, 2, 0], [9, 0, 4, 2, 0.5]]).tolist()
    [[6.0, 0.0]]
    """
    a, b = _as_boxes(a), _as_boxes(b)
    out = np.zeros((len(a), len(b)))
    for i, j, shared in _shared(a, b):
        out[i, j] = shared
    return out


def _ratio(shared: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(shared, whole, out=np.zeros_like(shared), where=whole > 0)


def iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Rotated IoU of boxes a (N, 5) and b (M, 5), float64 (N, M) in [0, 1]; 0 where both have area 0.

    >>> iou([[0, 0, 4, 2, 0]], [[1, 0, 4, 2, 0], [9, 0, 4, 2, 0.5]]).tolist()
    [[0.6, 0.0]]
    """
    a, b = _as_boxes(a), _as_boxes(b)
    area_a, area_b = a[:, 2] * a[:, 3], b[:, 2] * b[:, 3]
    out = np.zeros((len(a), len(b)))
    for i, j, shared in _shared(a, b):
        out[i, j] = _ratio(shared, area_a[i] + area_b[j] - shared)
    return out


def iou_pairs(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Rotated IoU of a[i] with b[i], both (N, 5), float64 (N,) in [0, 1]; 0 where both have area 0.

    >>> iou_pairs([[0, 0, 4, 2, 0]], [[1, 0, 4, 2, 0]]).tolist()
    [0.6]
    """
    a, b = _as_boxes(a), _as_boxes(b)
    shared = intersection_pairs(a, b)
    return _ratio(shared, a[:, 2] * a[:, 3] + b[:, 2] * b[:, 3] - shared)


def containment(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Fraction of the area of boxes a (N, 5) inside boxes b (M, 5), float64 (N, M) in [0, 1]; 0 where a has area 0.

    >>> containment([[0, 0, 4, 2, 0]], [[2, 0, 4, 2, 0]]).tolist()
    [[0.5]]
    """
    a = _as_boxes(a)
    shared = intersection(a, b)
    return _ratio(shared, np.broadcast_to((a[:, 2] * a[:, 3])[:, None], shared.shape))
