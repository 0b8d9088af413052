"""Headings of objects whose labels are horizontal boxes: such an object is painted along a heading, inside its box.

A horizontal box says nothing of where an airplane's nose points. A model that knows its frames only as they lie in the
image must learn every heading, and paints the mean of several: a cross. Frames along the heading all show the nose to
the right.
"""

from __future__ import annotations

import numpy as np

from dataengine import geometry
from dataengine.seeds import Stream, generator

COMMON_SHARE = 0.75  # of the objects of an image that stand in its common direction, as parked airplanes do
COMMON_SPREAD_RAD = np.radians(6)
LENGTH_TO_WIDTH = 1.05  # median of airplanes


def along_heading(boxes: np.ndarray, headings: np.ndarray) -> np.ndarray:
    """Boxes (N, 5) float32 along `headings` (N,), in radians, of objects whose hulls are the horizontal boxes (N, 5).

    The object is taken as a cross whose arms, along its length and its width, reach the sides of the horizontal box:
    an airplane's nose, tail and wing tips. The first side lies along the heading and may be the shorter one.

    >>> along_heading(np.float32([[50, 40, 30, 20, 0]]), np.array([np.pi])).round(2).tolist()
    [[50.0, 40.0, 30.0, 20.0, 3.140000104904175]]
    >>> along_heading(np.float32([[50, 40, 30, 20, 0]]), np.array([np.pi / 2])).round(2).tolist()
    [[50.0, 40.0, 20.0, 30.0, 1.5700000524520874]]
    """
    hulls = geometry.to_aabb(boxes).astype(np.float64)
    width, height = hulls[:, 2] - hulls[:, 0], hulls[:, 3] - hulls[:, 1]
    cos, sin = np.abs(np.cos(headings)), np.abs(np.sin(headings))
    flat = cos >= sin
    reach = np.where(flat, cos, sin)
    length, span = np.where(flat, width, height) / reach, np.where(flat, height, width) / reach
    return np.column_stack([boxes[:, :2], length, span, headings]).astype(np.float32)


def draw_headings(boxes: np.ndarray, seed: int, numbers: list[int]) -> np.ndarray:
    """A heading in radians for each horizontal box (N, 5), float64 (N,); from the seed, the box and its number.

    Most objects of an image stand in a common direction. Of a heading and the one a quarter turn away, it is the one in
    which the object's length fits its width better.
    """
    common = generator(seed, Stream.HEADING).uniform(-np.pi, np.pi)
    headings = np.zeros(len(boxes))
    for i, number in enumerate(numbers):
        rng = generator(seed, Stream.HEADING, number)
        follows, own = rng.random() < COMMON_SHARE, rng.uniform(-np.pi, np.pi)
        headings[i] = rng.normal(common, COMMON_SPREAD_RAD) if follows else own
    turned = headings + np.pi / 2
    fits, fits_turned = (np.abs(np.log(_ratio(along_heading(boxes, h)) / LENGTH_TO_WIDTH)) for h in (headings, turned))
    return np.where(fits <= fits_turned, headings, turned)


def _ratio(boxes: np.ndarray) -> np.ndarray:
    return np.maximum(boxes[:, 2], 1e-3) / np.maximum(boxes[:, 3], 1e-3)
