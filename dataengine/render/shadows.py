"""On which side of an image's objects their shadows lie, so that an object from another image can be turned to fit.

A shadow is a strip next to the object that is darker than the ground beyond it and than the ground all around. A dark
hedge further away is no such strip, and neither is a dark object, which is dark on all sides.
"""

from __future__ import annotations

import numpy as np

from dataengine.data.layout import Layout
from dataengine.layouts.constraints import whole
from dataengine.render.frame import covered

DIRECTIONS = 48  # around each object
# Distances from the box at which the strip and the ground beyond it are looked at, in short sides of the box.
STRIP_DISTANCES, GROUND_DISTANCES = (0.04, 0.12, 0.2), (0.5, 0.7, 0.9)
MIN_LEVELS, MAX_LEVELS = 4.0, 44.0  # of lightness (255), by which a strip is darker; more counts as much
# Rayleigh's test (Mardia & Jupp 2000, 6.3.1): n R^2 above -ln(0.01), if directions of n objects are uniform, in 1 % of
# images. Few objects are never enough: with 5, all of them must agree.
MIN_RAYLEIGH = float(-np.log(0.01))


def shadow_direction(image: np.ndarray, layout: Layout) -> float:
    """Direction from the objects to their shadows in radians, clockwise from the right (y points down); `nan` where
    the objects do not agree on one.

    image: uint8 (H, W, 3). Objects that the border cuts are not looked at.

    >>> boxes = [[20 + 40 * (i % 3), 20 + 40 * (i // 3), 16, 8, 0] for i in range(9)]
    >>> layout = Layout(boxes, [0] * 9, ("car",), (120, 120))
    >>> image = np.full((120, 120, 3), 120, np.uint8)
    >>> for x, y, *_ in layout.boxes.astype(int):
    ...     image[y - 4 : y + 4, x + 8 : x + 12] = 40
    >>> abs(shadow_direction(image, layout)) < 0.2
    True
    """
    import cv2

    chosen = np.flatnonzero(whole(layout))
    if not len(chosen):
        return float("nan")
    lightness = cv2.cvtColor(image, cv2.COLOR_RGB2LAB)[..., 0].astype(np.float32)
    lightness = cv2.GaussianBlur(lightness, (0, 0), 1.0)
    lightness[covered(np.concatenate([layout.boxes, layout.ignored]), image.shape)] = np.nan
    vectors = np.array([_darker_side(lightness, box) for box in layout.boxes[chosen]])
    lengths = np.abs(vectors)
    unit = vectors[lengths > 0] / lengths[lengths > 0]
    if not len(unit) or abs(unit.sum()) ** 2 / len(unit) < MIN_RAYLEIGH:
        return float("nan")
    return float(np.angle(unit.sum()))


def _darker_side(lightness: np.ndarray, box: np.ndarray) -> complex:
    """Mean direction of the strips that are darker than the ground; 0 where there is none.

    lightness: float32 (H, W), `nan` on labelled objects.
    """
    angles = np.linspace(0, 2 * np.pi, DIRECTIONS, endpoint=False)
    outward = np.column_stack([np.cos(angles), np.sin(angles)])
    cos, sin = np.cos(box[4]), np.sin(box[4])

    def ring(distance: float) -> np.ndarray:
        sides = box[2:4] / 2 + distance * box[3] + 1
        ends = outward / (np.abs(outward) / sides).max(1, keepdims=True)
        x = np.floor(box[0] + cos * ends[:, 0] - sin * ends[:, 1]).astype(int)
        y = np.floor(box[1] + sin * ends[:, 0] + cos * ends[:, 1]).astype(int)
        height, width = lightness.shape
        inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
        return np.where(inside, lightness[np.clip(y, 0, height - 1), np.clip(x, 0, width - 1)], np.nan)

    strip, ground = np.stack([ring(d) for d in STRIP_DISTANCES]), np.stack([ring(d) for d in GROUND_DISTANCES])
    if np.isnan(ground).all():
        return 0j
    darkest = np.where(np.isnan(strip), np.inf, strip).min(0)
    known = ~np.isnan(ground)
    beyond = np.where(known, ground, 0).sum(0) / np.maximum(known.sum(0), 1)
    difference = np.minimum(np.where(known.any(0), beyond, -np.inf), np.nanmedian(ground)) - darkest
    darker = np.clip(difference - MIN_LEVELS, 0, MAX_LEVELS - MIN_LEVELS)
    return complex((darker * np.exp(1j * (angles + box[4]))).sum())


def turned_direction(direction: float, linear: np.ndarray) -> float:
    """A direction in radians after a linear map (2, 2) of the image.

    >>> round(turned_direction(0.0, np.array([[0, -1], [1, 0]])), 4)
    1.5708
    """
    x, y = linear @ np.array([np.cos(direction), np.sin(direction)])
    return float(np.arctan2(y, x))


def angle_between(a: np.ndarray | float, b: np.ndarray | float) -> np.ndarray | float:
    """Absolute angle between two directions in radians, in [0, pi].

    >>> round(float(angle_between(3.0, -3.0)), 2)
    0.28
    """
    return np.abs((np.asarray(a) - b + np.pi) % (2 * np.pi) - np.pi)[()]
