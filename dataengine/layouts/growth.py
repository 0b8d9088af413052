"""Layouts as chains of steps from one object to a neighbour.

A step from object p to object c is given in the frame of p: u and v are the distances of the centres along and across
p, divided by the mean extent of both objects in that direction (so that parallel boxes touch at 1), and turn is the
change of heading. Mirrored and reversed steps are the same step.
"""

from __future__ import annotations

import numpy as np

_STANCE_TOLERANCE_RAD = np.pi / 8  # a box is lying or standing when its heading is within this of an axis


def grow_order(boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Prim's order: (N,) box indices such that each box is the nearest to those before it, and (N,) its neighbour.

    The second array holds positions in the first; the first box is its own neighbour.

    >>> grow_order(np.array([[0, 0, 4, 2, 0], [50, 0, 4, 2, 0], [10, 0, 4, 2, 0]]))
    (array([0, 2, 1]), array([0, 0, 1]))
    """
    n = len(boxes)
    distance = np.hypot(boxes[:, None, 0] - boxes[None, :, 0], boxes[:, None, 1] - boxes[None, :, 1])
    order, joined = np.zeros(n, int), np.zeros(n, int)
    free = np.ones(n, bool)
    free[0] = False
    nearest, joins = distance[0].copy(), np.zeros(n, int)
    for k in range(1, n):
        chosen = int(np.argmin(np.where(free, nearest, np.inf)))
        order[k], joined[k], free[chosen] = chosen, joins[chosen], False
        closer = distance[chosen] < nearest
        joins[closer], nearest[closer] = k, distance[chosen][closer]
    return order, joined


def wrapped(theta: np.ndarray) -> np.ndarray:
    """Headings of boxes in radians, which repeat after half a turn, in [-pi/2, pi/2).

    >>> wrapped(np.array([np.pi, 0.5])).round(6).tolist()
    [0.0, 0.5]
    """
    return (theta + np.pi / 2) % np.pi - np.pi / 2


def is_upright(theta: np.ndarray) -> np.ndarray:
    """Whether boxes are at exactly 0 or 90 degrees, to the precision of float32."""
    return np.abs(np.sin(2 * theta)) < 1e-4


def stance(theta: np.ndarray) -> np.ndarray:
    """0 for boxes lying in the image, 1 for standing ones, 2 for slanting ones; theta in radians.

    >>> stance(np.array([0.0, -1.5, 0.8])).tolist()
    [0, 1, 2]
    """
    tilt = np.abs(theta)
    return np.where(tilt < _STANCE_TOLERANCE_RAD, 0, np.where(tilt > np.pi / 2 - _STANCE_TOLERANCE_RAD, 1, 2))


def extents(boxes: np.ndarray, frame: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Extents of boxes (N, 5) along and across the headings `frame` (N,), two arrays (N,)."""
    cos, sin = np.abs(np.cos(boxes[:, 4] - frame)), np.abs(np.sin(boxes[:, 4] - frame))
    return boxes[:, 2] * cos + boxes[:, 3] * sin, boxes[:, 2] * sin + boxes[:, 3] * cos


def steps(parents: np.ndarray, children: np.ndarray) -> np.ndarray:
    """(N, 3): u >= 0, v >= 0 and turn in [-pi/2, pi/2) of the step from each parent (N, 5) to its child (N, 5).

    >>> steps(np.array([[0.0, 0, 4, 2, 0]]), np.array([[0.0, 2, 4, 2, 0]])).tolist()
    [[0.0, 1.0, 0.0]]
    """
    frame = parents[:, 4]
    dx, dy = children[:, 0] - parents[:, 0], children[:, 1] - parents[:, 1]
    along = dx * np.cos(frame) + dy * np.sin(frame)
    across = dy * np.cos(frame) - dx * np.sin(frame)
    length, breadth = extents(children, frame)
    mirror = np.where(along * across < 0, -1, 1)
    turn = wrapped(mirror * (children[:, 4] - frame))
    u = 2 * np.abs(along) / (parents[:, 2] + length)
    v = 2 * np.abs(across) / (parents[:, 3] + breadth)
    return np.column_stack([u, v, turn])


def stepped(parents: np.ndarray, children: np.ndarray, step: np.ndarray, signs: np.ndarray) -> np.ndarray:
    """Centres (N, 2) of children of known heading and sides, a step (N, 2: u, v) from parents; signs (N, 2) are +-1."""
    frame = parents[:, 4]
    length, breadth = extents(children, frame)
    along = signs[:, 0] * step[:, 0] * (parents[:, 2] + length) / 2
    across = signs[:, 1] * step[:, 1] * (parents[:, 3] + breadth) / 2
    cos, sin = np.cos(frame), np.sin(frame)
    return parents[:, :2] + np.column_stack([along * cos - across * sin, along * sin + across * cos])
