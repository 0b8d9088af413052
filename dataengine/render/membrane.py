"""How much lighter or darker a part of one picture must become to join another (Pérez et al. 2003, Poisson editing)."""

from __future__ import annotations

import numpy as np

CROSSING = 2.0  # times the usual difference from the edge's median: beyond, something crosses the edge


def membrane(difference: np.ndarray, part: np.ndarray) -> np.ndarray:
    """What is to be added within a part, so that it ends as its surroundings begin.

    difference: float (F, F, C), of the surroundings from the part. part: bool (F, F), not all of it. Returns float32
    (F, F, C): in the part the mean of the difference along its edge, weighted by the inverse square of the distance,
    much as the harmonic function that Poisson editing solves for; elsewhere the edge's median. What crosses the edge,
    such as the next of a row, counts no more than what is usual there: OpenCV's `seamlessClone` would carry its
    colour into the object.
    """
    import cv2

    edge = (cv2.dilate(part.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0) & ~part
    along = difference[edge]
    middle = np.median(along, 0)
    usual = CROSSING * np.median(np.abs(along - middle), 0)
    along = np.clip(along, middle - usual, middle + usual)
    apart = np.argwhere(part)[:, None] - np.argwhere(edge)
    weights = 1 / (apart**2).sum(2)
    result = np.broadcast_to(middle, difference.shape).astype(np.float32)
    result[part] = weights @ along / weights.sum(1, keepdims=True)
    return result
