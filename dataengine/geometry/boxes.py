"""Oriented boxes: the internal le90 form, the conventions of other tools, and clipping, all vectorised.

le90, as in mmrotate: `cx, cy, w, h, theta` with w >= h in pixels and theta in [-pi/2, pi/2) radians, positive clockwise
on screen (y points down). Functions take boxes of shape (N, 5), or one box of shape (5,) as N = 1, and return float32
unless stated otherwise.
"""

from __future__ import annotations

import cmath
import math

import numpy as np

from dataengine.geometry.iou import containment

MAX_AT_ONCE = 4096  # boxes of a step whose intermediate results stay in the processor's cache

PAIRS_OF_FOUR = np.triu_indices(4, 1)
FLOAT32_EPS = float(np.finfo(np.float32).eps)
NEAR_END_RAD = 1e-6


def _as_boxes(boxes: np.ndarray) -> np.ndarray:
    return np.array(boxes, np.float64).reshape(-1, 5)


def _long_side_first(boxes: np.ndarray, start: float) -> np.ndarray:
    """Boxes with w >= h and theta in [start, start + pi), float32 (N, 5).

    The interval has the ends of float32: -pi/2 rounds to a little less than -pi/2.
    """
    out = _as_boxes(boxes)
    swap = out[:, 3] > out[:, 2]
    out[swap, 2:4] = out[swap, 3:1:-1]
    out[swap, 4] += np.pi / 2
    result = out.astype(np.float32)
    low, high = np.float32(start), np.float32(start + np.pi)
    theta, wrapped = result[:, 4], ((out[:, 4] - start) % np.pi + start).astype(np.float32)
    in_range = (theta >= low) & (theta < high)
    result[:, 4] = np.where(in_range, theta, np.where(wrapped >= high, low, wrapped))
    return result


def regularize(boxes: np.ndarray) -> np.ndarray:
    """Boxes (N, 5) with w and h in any order and any theta in radians -> le90, float32 (N, 5).

    >>> print(regularize([10, 20, 4, 8, 0]).round(4))
    [[10.     20.      8.      4.     -1.5708]]
    """
    return _long_side_first(boxes, -np.pi / 2)


def to_le135(boxes: np.ndarray) -> np.ndarray:
    """le90 -> le135: w >= h, theta in [-pi/4, 3 pi/4), float32 (N, 5).

    >>> print(to_le135([10, 20, 8, 4, -1.5]).round(4))
    [[10.     20.      8.      4.      1.6416]]
    """
    return _long_side_first(boxes, -np.pi / 4)


def from_le135(boxes: np.ndarray) -> np.ndarray:
    """le135 -> le90, float32 (N, 5).

    >>> from_le135([10, 20, 8, 4, 1.6416]).round(2).tolist()
    [[10.0, 20.0, 8.0, 4.0, -1.5]]
    """
    return regularize(boxes)


def to_opencv(boxes: np.ndarray) -> np.ndarray:
    """le90 -> OpenCV >= 4.5.1 (`minAreaRect`): theta in degrees in (0, 90], w along theta, float32 (N, 5).

    >>> to_opencv([10, 20, 8, 4, 0]).tolist()
    [[10.0, 20.0, 4.0, 8.0, 90.0]]
    """
    out = _as_boxes(boxes)
    # rounded to float32 here, so that no angle rounds to 0 later; [0, 180]
    degrees = (np.rad2deg(out[:, 4]) % 180.0).astype(np.float32)
    swap = (degrees > 90) | (degrees == 0)
    out[swap, 2:4] = out[swap, 3:1:-1]
    out[:, 4] = np.where(degrees > 90, degrees - 90, np.where(degrees == 0, 90, degrees))
    return out.astype(np.float32)


def from_opencv(boxes: np.ndarray) -> np.ndarray:
    """OpenCV's `cx, cy, w, h, degrees` of any version -> le90, float32 (N, 5).

    >>> from_opencv([10, 20, 4, 8, 90]).tolist()
    [[10.0, 20.0, 8.0, 4.0, 0.0]]
    """
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
    """Boxes (N, 5) -> corners, float32 (N, 4, 2): left-top, right-top, right-bottom and left-bottom of the box at
    theta 0, each rotated by theta.

    >>> to_corners([10, 20, 8, 4, 0]).tolist()
    [[[6.0, 18.0], [14.0, 18.0], [14.0, 22.0], [6.0, 22.0]]]
    """
    return _corners(boxes).astype(np.float32)


def from_frame(points: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Points (K, 2) in the frame of a box (5,), -1 to 1 along its sides -> pixels, float32 (K, 2).

    >>> from_frame(np.array([[1, 1]]), np.array([10, 20, 8, 4, 0])).tolist()
    [[14.0, 22.0]]
    """
    cx, cy, w, h, theta = np.asarray(box, np.float64)
    rotation = np.array([[np.cos(theta), np.sin(theta)], [-np.sin(theta), np.cos(theta)]])
    return (points * np.array([w / 2, h / 2]) @ rotation + (cx, cy)).astype(np.float32)


def to_frame(points: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Points (K, 2) in pixels -> the frame of a box (5,), float32 (K, 2); the inverse of `from_frame`.

    >>> to_frame(np.array([[14, 22]]), np.array([10, 20, 8, 4, 0])).tolist()
    [[1.0, 1.0]]
    """
    cx, cy, w, h, theta = np.asarray(box, np.float64)
    rotation = np.array([[np.cos(theta), -np.sin(theta)], [np.sin(theta), np.cos(theta)]])
    return ((points - np.array([cx, cy])) @ rotation / np.array([w / 2, h / 2])).astype(np.float32)


def from_corners(corners: np.ndarray) -> np.ndarray:
    """Corners (N, 4, 2), clockwise or counter-clockwise from any corner -> le90, float32 (N, 5).

    A rectangle is recovered up to the float32 rounding of its corners. Any other four points become their minimum-area
    rectangle.

    >>> from_corners([[[6, 18], [14, 18], [14, 22], [6, 22]]]).tolist()
    [[10.0, 20.0, 8.0, 4.0, 0.0]]
    """
    points = np.asarray(corners).reshape(-1, 4, 2)
    if len(points) > MAX_AT_ONCE:
        parts = range(0, len(points), MAX_AT_ONCE)
        return np.concatenate([from_corners(points[i : i + MAX_AT_ONCE]) for i in parts])
    points = points.astype(np.float64)
    centre = points.mean(1)
    local = points - centre[:, None]
    # the rectangle whose sides are the means of opposite sides
    first = (local[:, 1] - local[:, 0] + local[:, 2] - local[:, 3]) / 2
    second = (local[:, 2] - local[:, 1] + local[:, 3] - local[:, 0]) / 2
    w, h = np.hypot(*first.T), np.hypot(*second.T)
    along = np.where((w >= h)[:, None], first, second)
    theta = np.arctan2(along[:, 1], along[:, 0])
    fitted = np.column_stack([np.zeros_like(centre), np.maximum(w, h), np.minimum(w, h), theta])
    x, y = (
        _corners(fitted).T[:, :, None] - local.T[:, None]
    )  # each (fitted 4, given 4, N): the long axis last is faster
    miss = np.sqrt(x * x + y * y).min(1).max(0)
    rounding = 4 * np.finfo(np.float32).eps * np.abs(points).max((1, 2), initial=0)
    no_rectangle = miss > rounding + 1e-4 * np.minimum(w, h)
    if no_rectangle.any():
        i, j = PAIRS_OF_FOUR  # the edges of the convex hull are among the six lines through two of the points
        others = local[no_rectangle]
        fitted[no_rectangle] = _minimum_area(others, others[:, j] - others[:, i])
    fitted[:, :2] += centre
    return regularize(fitted)


def _rectangle(points: list[list[float]]) -> list[float] | None:
    """What `from_corners` makes of four points, as complex numbers, which for a single box is three times as fast. None
    for points that are no rectangle, and near the ends of theta's interval, where float32 decides."""
    corners = [complex(x, y) for x, y in points]
    centre = sum(corners) / 4
    a, b, c, d = local = [corner - centre for corner in corners]
    short, long = sorted(((c - b + d - a) / 2, (b - a + c - d) / 2), key=abs)
    w, h = abs(long), abs(short)
    theta = cmath.phase(long)
    theta -= math.pi * round(theta / math.pi)
    if not h > 0 or abs(abs(theta) - math.pi / 2) < NEAR_END_RAD:
        return None
    along, across = long / 2, 1j * long / w * h / 2
    fitted = along + across, along - across, across - along, -along - across
    miss = max(min(abs(corner - point) for point in local) for corner in fitted)
    rounding = 4 * FLOAT32_EPS * max(abs(value) for point in points for value in point)
    if not miss <= rounding + 1e-4 * h:
        return None
    return [centre.real, centre.imag, w, h, theta]


def from_points(points: np.ndarray) -> np.ndarray:
    """The minimum-area box around points (K, 2), K > 0, le90, float32 (5,). Points on a line give a side of 0.

    >>> from_points([[0, 0], [4, 0], [4, 2], [2, 2], [0, 2], [0, 0]]).tolist()
    [2.0, 1.0, 4.0, 2.0, 0.0]
    """
    import shapely

    points = np.asarray(points, np.float64).reshape(-1, 2)
    if len(points) == 4:
        fitted = _rectangle(points.tolist())
        return from_corners(points)[0] if fitted is None else np.array(fitted, np.float32)
    centre = points.mean(0)
    hull = shapely.get_coordinates(shapely.convex_hull(shapely.multipoints(points - centre)))
    edges = np.diff(hull, axis=0) if len(hull) > 1 else np.array([[1.0, 0.0]])
    fitted = _minimum_area((points - centre)[None], edges[None])
    fitted[:, :2] += centre
    return regularize(fitted)[0]


def _minimum_area(points: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Minimum-area rectangles of sets of points (N, K, 2), float64 (N, 5) with w and h in any order.

    One side of such a rectangle lies on an edge of the convex hull (Freeman and Shapira, 1975).
    edges: (N, E, 2), directions among which those of the hull's edges are; others only give larger rectangles.
    """
    theta = np.arctan2(edges[..., 1], edges[..., 0])
    axes = np.stack([np.cos(theta), np.sin(theta)], -1)  # (N, E, 2)
    axes = np.stack([axes, axes[..., ::-1] * [-1, 1]], 2)  # along and across, (N, E, 2, 2)
    # (K, N, E, 2); einsum would be slower
    spans = points.transpose(1, 0, 2)[:, :, None, None, 0] * axes[..., 0]
    spans += points.transpose(1, 0, 2)[:, :, None, None, 1] * axes[..., 1]
    low, high = spans.min(0), spans.max(0)  # (N, E, 2)
    # of equal areas (points on one line), the shortest perimeter
    size = high - low
    best = np.lexsort((size.sum(-1), size.prod(-1)), axis=-1)[:, 0]
    rows = np.arange(len(points))
    centre = np.einsum("na,nax->nx", (low + high)[rows, best] / 2, axes[rows, best])
    return np.column_stack([centre, size[rows, best], theta[rows, best]])


def to_aabb(boxes: np.ndarray) -> np.ndarray:
    """Boxes (N, 5) -> axis-aligned boxes around them, `x1, y1, x2, y2`, float32 (N, 4).

    >>> to_aabb([10, 20, 8, 4, -np.pi / 2]).tolist()
    [[8.0, 16.0, 12.0, 24.0]]
    """
    out = _as_boxes(boxes)
    cos, sin = np.abs(np.cos(out[:, 4])), np.abs(np.sin(out[:, 4]))
    half = np.column_stack([out[:, 2] * cos + out[:, 3] * sin, out[:, 2] * sin + out[:, 3] * cos]) / 2
    return np.concatenate([out[:, :2] - half, out[:, :2] + half], 1).astype(np.float32)


def from_aabb(boxes: np.ndarray) -> np.ndarray:
    """Axis-aligned boxes `x1, y1, x2, y2` (N, 4) -> le90, float32 (N, 5).

    >>> from_aabb([6, 18, 14, 22]).tolist()
    [[10.0, 20.0, 8.0, 4.0, 0.0]]
    """
    corners = np.asarray(boxes, np.float64).reshape(-1, 4)
    size = corners[:, 2:] - corners[:, :2]
    centre = (corners[:, 2:] + corners[:, :2]) / 2
    return regularize(np.column_stack([centre, size, np.zeros(len(corners))]))


def hulls(boxes: np.ndarray) -> np.ndarray:
    """Axis-aligned boxes around boxes (N, 5), le90, float32 (N, 5).

    >>> print(hulls([10, 20, 8, 4, np.pi / 6]).round(4))
    [[10.     20.      8.9282  7.4641  0.    ]]
    """
    return from_aabb(to_aabb(boxes))


def area(boxes: np.ndarray) -> np.ndarray:
    """Area of boxes (N, 5) in square pixels, float32 (N,).

    >>> area([[10, 20, 8, 4, 0.3]]).tolist()
    [32.0]
    """
    boxes = np.asarray(boxes, np.float32).reshape(-1, 5)
    return boxes[:, 2] * boxes[:, 3]


def transform(boxes: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Boxes (N, 5) under an affine map (2, 3) or (3, 3) -> le90, float32 (N, 5).

    Exact for similarities, else the minimum-area rectangles of the mapped corners.

    >>> transform([10, 20, 8, 4, 0], [[2, 0, 1], [0, 2, 0]]).tolist()
    [[21.0, 40.0, 16.0, 8.0, 0.0]]
    """
    matrix = np.asarray(matrix, np.float64)[:2]
    return from_corners(_corners(boxes) @ matrix[:, :2].T + matrix[:, 2])


def visible_fraction(boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Fraction of the area of boxes (N, 5) inside an image of size (width, height), float64 (N,) in [0, 1].

    0 for a box without area.

    >>> visible_fraction([0, 20, 8, 4, 0], (64, 64)).tolist()
    [0.5]
    """
    width, height = size
    # the image is not in le90: at theta 0 it is exact, as a tall box rotated by float32 pi/2 it is not
    return containment(boxes, np.array([[width / 2, height / 2, width, height, 0.0]]))[:, 0]


def clip(boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Minimum-area rectangles of the parts of boxes (N, 5) inside an image of size (width, height), le90,
    float32 (N, 5).

    Boxes inside the image are unchanged. A box outside keeps its centre and gets width and height 0.

    >>> clip([0, 20, 8, 4, 0], (64, 64)).tolist()
    [[2.0, 20.0, 4.0, 4.0, 0.0]]
    """
    import shapely

    out = np.array(boxes, np.float32).reshape(-1, 5)
    around = to_aabb(out)
    cut = np.flatnonzero((around[:, :2] < 0).any(1) | (around[:, 2:] > np.float32(size)).any(1))
    parts = shapely.intersection(shapely.polygons(to_corners(out[cut])), shapely.box(0, 0, *size))
    visible = shapely.area(parts) > 0
    out[cut[~visible], 2:4] = 0
    cut, parts = cut[visible], parts[visible]
    if len(cut):
        out[cut] = _minimum_area_of_parts(out[cut], parts)
    return out


def _minimum_area_of_parts(boxes: np.ndarray, parts: np.ndarray) -> np.ndarray:
    """Minimum-area rectangles of `parts` (shapely polygons) of boxes (N, 5) cut by an axis-aligned window, le90 (N, 5).

    A side of such a rectangle lies on an edge of the part, so on a side of the box or of the window. There are two
    candidates: one at the angle of the box and one axis-aligned.
    """
    import shapely

    points, owner = shapely.get_coordinates(parts, return_index=True)
    starts = np.searchsorted(owner, np.arange(len(parts)))
    centres = boxes[:, :2].astype(np.float64)
    points = points - centres[owner]

    def enclosing(theta: np.ndarray) -> np.ndarray:
        cos, sin = np.cos(theta), np.sin(theta)
        along, across = np.stack([cos[owner], sin[owner]], 1), np.stack([-sin[owner], cos[owner]], 1)
        spans = np.stack([(points * along).sum(1), (points * across).sum(1)], 1)
        low, high = np.minimum.reduceat(spans, starts), np.maximum.reduceat(spans, starts)
        x, y = ((low + high) / 2).T
        middle = np.column_stack([x * cos - y * sin, x * sin + y * cos])
        return np.column_stack([centres + middle, high - low, theta])

    rotated, upright = enclosing(boxes[:, 4].astype(np.float64)), enclosing(np.zeros(len(boxes)))
    # of equal areas, the angle of the box
    smaller = upright[:, 2] * upright[:, 3] < rotated[:, 2] * rotated[:, 3] * (1 - 1e-6)
    return regularize(np.where(smaller[:, None], upright, rotated))


def clip_aabb(boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Axis-aligned boxes around boxes (N, 5), cut at the border of an image of size (width, height), le90,
    float32 (N, 5). A box outside gets area 0.

    >>> clip_aabb([0, 20, 8, 4, 0], (64, 64)).tolist()
    [[2.0, 20.0, 4.0, 4.0, 0.0]]
    """
    upright = to_aabb(boxes)
    limit = np.array([*size, *size], np.float32)
    return from_aabb(np.clip(upright, 0, limit))
