"""Exact intersection and IoU of oriented boxes, vectorised over pairs.

By Green's theorem the area of the intersection of two convex polygons is half the sum, over the pieces of each
polygon's edges that lie inside the other, of the cross product of the piece's ends. In the other box's own frame
"inside" is two slabs, so each edge is clipped as in Liang and Barsky (1984): no vertex lists, no sorting.
"""

from __future__ import annotations

import numpy as np

from dataengine.geometry.boxes import to_aabb

CHUNK = 1 << 14  # pairs at a time: the temporaries then fit into the cache
ON_EDGE = 1e-9  # of the box's size: nearer than this to the border counts as on it


def _corners_in_frame(boxes: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """Corners of boxes (P, 5) in the upright frame centred at frames (P, 5), float64 (2, 4, P)."""
    turn, frame = boxes[:, 4], frames[:, 4]
    dx, dy = boxes[:, 0] - frames[:, 0], boxes[:, 1] - frames[:, 1]
    cos, sin = np.cos(frame), np.sin(frame)
    cx, cy = dx * cos + dy * sin, dy * cos - dx * sin
    cos, sin = np.cos(turn - frame), np.sin(turn - frame)
    wx, wy = boxes[:, 2] / 2 * cos, boxes[:, 2] / 2 * sin
    hx, hy = -boxes[:, 3] / 2 * sin, boxes[:, 3] / 2 * cos
    x = np.stack([cx - wx - hx, cx + wx - hx, cx + wx + hx, cx - wx + hx])
    y = np.stack([cy - wy - hy, cy + wy - hy, cy + wy + hy, cy - wy + hy])
    return np.stack([x, y])


def _inside_pieces(
    corners: np.ndarray, half: np.ndarray, tolerance: np.ndarray, counts_shared: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Clip the four edges of each polygon (2, 4, P) to the upright box of half sizes (2, P).

    Returns start and end of each piece as shares of its edge, (4, P) each, end <= start where nothing is inside.
    An edge that runs along the box's border is counted when `counts_shared` and both run the same way round.
    """
    step = np.roll(corners, -1, axis=1) - corners
    start, end = np.zeros(step.shape[1:]), np.ones(step.shape[1:])
    for axis in (0, 1):
        bound, from_, along, cross = half[axis], corners[axis], step[axis], step[1 - axis]
        flat = np.abs(along) <= tolerance
        safe = np.where(flat, 1.0, along)
        first, second = (-bound - from_) / safe, (bound - from_) / safe
        enter, leave = np.minimum(first, second), np.maximum(first, second)
        if counts_shared:
            # going round left-top, right-top, right-bottom, left-bottom: on the side at +x one walks to +y, and at
            # -x to -y; on the side at +y to -x, and at -y to +x
            side = np.where(from_ > 0, 1.0, -1.0) * (1.0 if axis == 0 else -1.0)
            within = np.where(cross * side > 0, np.abs(from_) <= bound + tolerance, np.abs(from_) < bound - tolerance)
        else:
            within = np.abs(from_) < bound - tolerance
        start = np.maximum(start, np.where(flat, np.where(within, 0.0, 2.0), enter))
        end = np.minimum(end, np.where(flat, 1.0, leave))
    return start, end


def _edge_sum(corners: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Sum over pieces of the cross product of their ends, (P,)."""
    step = np.roll(corners, -1, axis=1) - corners
    # cross(p + s d, p + e d) = (e - s) cross(p, d)
    cross = corners[0] * step[1] - corners[1] * step[0]
    return (np.maximum(end - start, 0) * cross).sum(0)


def _intersection_of_pairs(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Exact intersection area of a[i] and b[i], float64 (P,)."""
    # one tolerance for both passes: an edge within it must be counted in exactly one of them
    tolerance = ON_EDGE * (a[:, 2:4].sum(1) + b[:, 2:4].sum(1))
    inside_b = _corners_in_frame(a, b)
    total = _edge_sum(inside_b, *_inside_pieces(inside_b, b[:, 2:4].T / 2, tolerance, counts_shared=True))
    inside_a = _corners_in_frame(b, a)
    start, end = _inside_pieces(inside_a, a[:, 2:4].T / 2, tolerance, counts_shared=False)
    own = _corners_in_frame(b, b)  # both sums must be taken about one origin: b's centre
    total += _edge_sum(own, start, end)
    smaller = np.minimum(a[:, 2] * a[:, 3], b[:, 2] * b[:, 3])
    return np.clip(total / 2, 0, smaller)


def intersection_pairs(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection area in square pixels of a[i] with b[i], float64 (P,)."""
    a, b = (np.asarray(x, np.float64).reshape(-1, 5) for x in (a, b))
    out = np.zeros(len(a))
    for i in range(0, len(a), CHUNK):
        out[i : i + CHUNK] = _intersection_of_pairs(a[i : i + CHUNK], b[i : i + CHUNK])
    return out


def _touching(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the pairs whose enclosing upright boxes and circles overlap."""
    box_a, box_b = to_aabb(a).astype(np.float64), to_aabb(b).astype(np.float64)
    radius_a, radius_b = np.hypot(a[:, 2], a[:, 3]) / 2, np.hypot(b[:, 2], b[:, 3]) / 2
    near = (box_a[:, None, 0] < box_b[None, :, 2]) & (box_b[None, :, 0] < box_a[:, None, 2])
    near &= (box_a[:, None, 1] < box_b[None, :, 3]) & (box_b[None, :, 1] < box_a[:, None, 3])
    i, j = np.nonzero(near)
    apart = np.hypot(a[i, 0] - b[j, 0], a[i, 1] - b[j, 1]) >= radius_a[i] + radius_b[j]
    return i[~apart], j[~apart]


def intersection(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection areas in square pixels of boxes a (N, 5) and b (M, 5), float64 (N, M)."""
    a, b = (np.asarray(x, np.float64).reshape(-1, 5) for x in (a, b))
    out = np.zeros((len(a), len(b)))
    i, j = _touching(a, b)
    out[i, j] = intersection_pairs(a[i], b[j])
    return out


def _ratio(shared: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(shared, whole, out=np.zeros_like(shared), where=whole > 0)


def iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Rotated IoU of boxes a (N, 5) and b (M, 5), float64 (N, M) in [0, 1]; 0 where both have no area."""
    a, b = (np.asarray(x, np.float64).reshape(-1, 5) for x in (a, b))
    shared = intersection(a, b)
    return _ratio(shared, (a[:, 2] * a[:, 3])[:, None] + (b[:, 2] * b[:, 3])[None] - shared)


def iou_pairs(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Rotated IoU of a[i] with b[i], float64 (N,) in [0, 1]."""
    a, b = (np.asarray(x, np.float64).reshape(-1, 5) for x in (a, b))
    shared = intersection_pairs(a, b)
    return _ratio(shared, a[:, 2] * a[:, 3] + b[:, 2] * b[:, 3] - shared)


def containment(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Share of each box a (N, 5) that lies inside each box b (M, 5), float64 (N, M) in [0, 1]."""
    a = np.asarray(a, np.float64).reshape(-1, 5)
    shared = intersection(a, b)
    return _ratio(shared, np.broadcast_to((a[:, 2] * a[:, 3])[:, None], shared.shape))
