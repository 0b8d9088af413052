"""Oriented boxes: the internal le90 form, corners, and the conventions of other tools, all vectorised.

le90: `cx, cy, w, h, theta`, w >= h, theta in [-pi/2, pi/2), y down, clockwise positive, as mmrotate has it.
"""

from __future__ import annotations

import numpy as np


def _as_boxes(boxes: np.ndarray) -> np.ndarray:
    return np.array(boxes, np.float64).reshape(-1, 5)


def _wrap(theta: np.ndarray, start: float) -> np.ndarray:
    """theta modulo pi into [start, start + pi), safe against the upper end appearing by rounding to float32."""
    wrapped = (theta - start) % np.pi + start
    rounded = wrapped.astype(np.float32)
    return np.where(rounded >= np.float32(start + np.pi), np.float32(start), rounded)


def _long_side_first(boxes: np.ndarray, start: float) -> np.ndarray:
    out = _as_boxes(boxes)
    swap = out[:, 3] > out[:, 2]
    out[swap, 2:4] = out[swap, 3:1:-1]
    out[swap, 4] += np.pi / 2
    result = out.astype(np.float32)
    result[:, 4] = _wrap(out[:, 4], start)
    return result


def regularize(boxes: np.ndarray) -> np.ndarray:
    """Boxes (N, 5) in any w/h order and with any theta (radians) -> the same boxes in le90, float32 (N, 5)."""
    return _long_side_first(boxes, -np.pi / 2)


def to_le135(boxes: np.ndarray) -> np.ndarray:
    """le90 -> le135: w >= h, theta in [-pi/4, 3 pi/4), float32 (N, 5)."""
    return _long_side_first(boxes, -np.pi / 4)


def from_le135(boxes: np.ndarray) -> np.ndarray:
    """le135 -> le90, float32 (N, 5)."""
    return regularize(boxes)


def to_opencv(boxes: np.ndarray) -> np.ndarray:
    """le90 -> OpenCV >= 4.5.1 (`minAreaRect`): theta in degrees in (0, 90], w along theta, float32 (N, 5)."""
    out = _as_boxes(boxes)
    degrees = np.rad2deg(out[:, 4]) % 180.0  # [0, 180)
    swap = (degrees > 90) | (degrees == 0)
    out[swap, 2:4] = out[swap, 3:1:-1]
    out[:, 4] = np.where(degrees > 90, degrees - 90, np.where(degrees == 0, 90, degrees))
    return out.astype(np.float32)


def from_opencv(boxes: np.ndarray) -> np.ndarray:
    """OpenCV's `cx, cy, w, h, degrees` of any version -> le90, float32 (N, 5)."""
    out = _as_boxes(boxes)
    out[:, 4] = np.deg2rad(out[:, 4])
    return regularize(out)


def to_corners(boxes: np.ndarray) -> np.ndarray:
    """Boxes (N, 5) -> corners float32 (N, 4, 2): of the unturned box left-top, right-top, right-bottom, left-bottom,
    each turned by theta."""
    out = _as_boxes(boxes)
    cos, sin = np.cos(out[:, 4]), np.sin(out[:, 4])
    x = out[:, 2, None] / 2 * np.array([-1, 1, 1, -1])  # (N, 4)
    y = out[:, 3, None] / 2 * np.array([-1, -1, 1, 1])
    corners = np.stack([x * cos[:, None] - y * sin[:, None], x * sin[:, None] + y * cos[:, None]], -1)
    return (corners + out[:, None, :2]).astype(np.float32)


def from_corners(corners: np.ndarray) -> np.ndarray:
    """Corners (N, 4, 2) in either turning sense -> le90 float32 (N, 5).

    A rectangle comes back exactly; any other quadrilateral as its minimum-area rectangle.
    """
    points = np.asarray(corners, np.float64).reshape(-1, 4, 2)
    if not len(points):
        return np.zeros((0, 5), np.float32)
    centre = points.mean(1)
    local = points - centre[:, None]
    first, second = local[:, 1] - local[:, 0], local[:, 2] - local[:, 1]
    w, h = np.hypot(*first.T), np.hypot(*second.T)
    along = np.where((w >= h)[:, None], first, second)
    out = np.column_stack([centre, np.maximum(w, h), np.minimum(w, h), np.arctan2(along[:, 1], along[:, 0])])
    # a rectangle is a parallelogram (corner sums agree) with a right angle
    size = np.maximum(np.maximum(w, h), 1e-12)
    slack = np.abs(local[:, 0] + local[:, 2] - local[:, 1] - local[:, 3]).max(1) / size
    skew = np.abs((first * second).sum(1)) / size**2
    other = (slack > 1e-4) | (skew > 1e-4)
    out[other] = _minimum_area(local[other])
    out[other, :2] += centre[other]
    return regularize(out)


def _minimum_area(points: np.ndarray) -> np.ndarray:
    """Minimum-area rectangle of four points each, (K, 4, 2) -> (K, 5).

    One side of it lies on an edge of the convex hull (Freeman and Shapira 1975), so among the six directions between
    two of the points is the best one; a direction that is no hull edge only gives a larger rectangle.
    """
    i, j = np.triu_indices(4, 1)
    lines = points[:, j] - points[:, i]  # (K, 6, 2)
    theta = np.arctan2(lines[..., 1], lines[..., 0])
    along = np.stack([np.cos(theta), np.sin(theta)], -1)  # (K, 6, 2)
    across = np.stack([-along[..., 1], along[..., 0]], -1)
    low, high = [], []
    for axis in (along, across):
        projected = np.einsum("kec,kpc->kep", axis, points)
        low.append(projected.min(2)), high.append(projected.max(2))
    low, high = np.stack(low, -1), np.stack(high, -1)  # (K, 6, 2)
    best = (high - low).prod(-1).argmin(1)
    row = np.arange(len(points))
    middle, side = ((low + high) / 2)[row, best], (high - low)[row, best]
    centre = middle[:, :1] * along[row, best] + middle[:, 1:] * across[row, best]
    return np.column_stack([centre, side, theta[row, best]])


def to_aabb(boxes: np.ndarray) -> np.ndarray:
    """Boxes (N, 5) -> enclosing upright boxes `x1, y1, x2, y2`, float32 (N, 4)."""
    out = _as_boxes(boxes)
    cos, sin = np.abs(np.cos(out[:, 4])), np.abs(np.sin(out[:, 4]))
    half = np.column_stack([out[:, 2] * cos + out[:, 3] * sin, out[:, 2] * sin + out[:, 3] * cos]) / 2
    return np.concatenate([out[:, :2] - half, out[:, :2] + half], 1).astype(np.float32)


def from_aabb(boxes: np.ndarray) -> np.ndarray:
    """Upright boxes `x1, y1, x2, y2` (N, 4) -> le90 float32 (N, 5)."""
    corners = np.asarray(boxes, np.float64).reshape(-1, 4)
    size = corners[:, 2:] - corners[:, :2]
    centre = (corners[:, 2:] + corners[:, :2]) / 2
    return regularize(np.column_stack([centre, size, np.zeros(len(corners))]))


def area(boxes: np.ndarray) -> np.ndarray:
    """Area in square pixels, float32 (N,)."""
    boxes = np.asarray(boxes, np.float32).reshape(-1, 5)
    return boxes[:, 2] * boxes[:, 3]


def transform(boxes: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Boxes (N, 5) through an affine map (2, 3) or (3, 3) -> le90 float32 (N, 5).

    Exact for similarities; otherwise the minimum-area rectangle of the mapped corners.
    """
    matrix = np.asarray(matrix, np.float64)[:2]
    return from_corners(to_corners(boxes).astype(np.float64) @ matrix[:, :2].T + matrix[:, 2])
