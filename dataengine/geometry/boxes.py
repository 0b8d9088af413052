"""Oriented boxes: the internal le90 form, corners, and the conventions of other tools, all vectorised.

le90: `cx, cy, w, h, theta`, w >= h, theta in [-pi/2, pi/2), y down, clockwise positive, as mmrotate has it.
"""

from __future__ import annotations

import numpy as np

from dataengine.geometry.iou import containment


def _as_boxes(boxes: np.ndarray) -> np.ndarray:
    return np.array(boxes, np.float64).reshape(-1, 5)


def _wrap(theta: np.ndarray, start: float) -> np.ndarray:
    """theta modulo pi into [start, start + pi) as float32 has these ends: -pi/2 rounds to a little less than -pi/2."""
    low, high = np.float32(start), np.float32(start + np.pi)
    given, wrapped = theta.astype(np.float32), ((theta - start) % np.pi + start).astype(np.float32)
    return np.where((given >= low) & (given < high), given, np.where(wrapped >= high, low, wrapped))


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
    # rounded to float32 here, so that no angle becomes 0 afterwards; [0, 180]
    degrees = (np.rad2deg(out[:, 4]) % 180.0).astype(np.float32)
    swap = (degrees > 90) | (degrees == 0)
    out[swap, 2:4] = out[swap, 3:1:-1]
    out[:, 4] = np.where(degrees > 90, degrees - 90, np.where(degrees == 0, 90, degrees))
    return out.astype(np.float32)


def from_opencv(boxes: np.ndarray) -> np.ndarray:
    """OpenCV's `cx, cy, w, h, degrees` of any version -> le90, float32 (N, 5)."""
    out = _as_boxes(boxes)
    out[:, 4] = np.deg2rad(out[:, 4])
    return regularize(out)


def _corners(boxes: np.ndarray) -> np.ndarray:
    boxes = _as_boxes(boxes)
    cos, sin = np.cos(boxes[:, 4, None]), np.sin(boxes[:, 4, None])
    x = boxes[:, 2, None] / 2 * np.array([-1, 1, 1, -1])  # (N, 4)
    y = boxes[:, 3, None] / 2 * np.array([-1, -1, 1, 1])
    return np.stack([x * cos - y * sin, x * sin + y * cos], -1) + boxes[:, None, :2]  # (N, 4, 2)


def to_corners(boxes: np.ndarray) -> np.ndarray:
    """Boxes (N, 5) -> corners float32 (N, 4, 2): of the unturned box left-top, right-top, right-bottom, left-bottom,
    each turned by theta."""
    return _corners(boxes).astype(np.float32)


def from_frame(points: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Points (K, 2) in a box's own frame, -1 to 1 along its sides, -> pixels, float32 (K, 2)."""
    cx, cy, w, h, theta = np.asarray(box, np.float64)
    turn = np.array([[np.cos(theta), np.sin(theta)], [-np.sin(theta), np.cos(theta)]])
    return (points * np.array([w / 2, h / 2]) @ turn + (cx, cy)).astype(np.float32)


def to_frame(points: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Points (K, 2) in pixels -> in a box's own frame, float32 (K, 2); `from_frame` undoes it."""
    cx, cy, w, h, theta = np.asarray(box, np.float64)
    turn = np.array([[np.cos(theta), -np.sin(theta)], [np.sin(theta), np.cos(theta)]])
    return ((points - np.array([cx, cy])) @ turn / np.array([w / 2, h / 2])).astype(np.float32)


def from_corners(corners: np.ndarray) -> np.ndarray:
    """Corners (N, 4, 2) in either turning sense -> le90 float32 (N, 5).

    A rectangle comes back as it is, to the rounding of float32 corners; any other four points as their minimum-area
    rectangle.
    """
    points = np.asarray(corners, np.float64).reshape(-1, 4, 2)
    centre = points.mean(1)
    local = points - centre[:, None]
    # the rectangle whose sides are the means of opposite sides
    first = (local[:, 1] - local[:, 0] + local[:, 2] - local[:, 3]) / 2
    second = (local[:, 2] - local[:, 1] + local[:, 3] - local[:, 0]) / 2
    w, h = np.hypot(*first.T), np.hypot(*second.T)
    along = np.where((w >= h)[:, None], first, second)
    theta = np.arctan2(along[:, 1], along[:, 0])
    fitted = np.column_stack([np.zeros_like(centre), np.maximum(w, h), np.minimum(w, h), theta])
    distance = np.linalg.norm(_corners(fitted)[:, :, None] - local[:, None], axis=-1)  # (N, fitted 4, given 4)
    miss = distance.min(2).max(1)
    rounding = 4 * np.finfo(np.float32).eps * np.abs(points).max((1, 2), initial=0)
    other = miss > rounding + 1e-4 * np.minimum(w, h)
    fitted[other] = _minimum_area(local[other])
    fitted[:, :2] += centre
    return regularize(fitted)


def _minimum_area(points: np.ndarray) -> np.ndarray:
    """Minimum-area rectangles, in any w/h order, of sets of four points (N, 4, 2), float64 (N, 5).

    One side of such a rectangle lies on an edge of the convex hull (Freeman and Shapira, 1975), and a hull's edges
    are among the six lines through two of the points; the lines that are not edges only give larger rectangles.
    """
    i, j = np.triu_indices(4, 1)
    edges = points[:, j] - points[:, i]  # (N, 6, 2)
    theta = np.arctan2(edges[..., 1], edges[..., 0])
    axes = np.stack([np.cos(theta), np.sin(theta)], -1)  # (N, 6, 2)
    axes = np.stack([axes, axes[..., ::-1] * [-1, 1]], 2)  # along and across, (N, 6, 2, 2)
    spans = np.einsum("neax,nkx->neak", axes, points)
    low, high = spans.min(-1), spans.max(-1)  # (N, 6, 2)
    # of equal areas (points on one line) the shortest outline
    size = high - low
    best = np.lexsort((size.sum(-1), size.prod(-1)), axis=-1)[:, 0]
    rows = np.arange(len(points))
    centre = np.einsum("na,nax->nx", (low + high)[rows, best] / 2, axes[rows, best])
    return np.column_stack([centre, size[rows, best], theta[rows, best]])


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


def hulls(boxes: np.ndarray) -> np.ndarray:
    """Enclosing upright boxes of boxes (N, 5), le90 float32 (N, 5)."""
    return from_aabb(to_aabb(boxes))


def area(boxes: np.ndarray) -> np.ndarray:
    """Area in square pixels, float32 (N,)."""
    boxes = np.asarray(boxes, np.float32).reshape(-1, 5)
    return boxes[:, 2] * boxes[:, 3]


def transform(boxes: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Boxes (N, 5) through an affine map (2, 3) or (3, 3) -> le90 float32 (N, 5).

    Exact for similarities; otherwise the minimum-area rectangle of the mapped corners.
    """
    matrix = np.asarray(matrix, np.float64)[:2]
    return from_corners(_corners(boxes) @ matrix[:, :2].T + matrix[:, 2])


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
