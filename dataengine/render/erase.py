"""Painted objects removed from an image again: what was there before comes back."""

from __future__ import annotations

import numpy as np

from dataengine.data.layout import Layout
from dataengine.render.frame import FrameSpec, covered, frame_sides, hole_reach


def erase(image: np.ndarray, bare: np.ndarray, layout: Layout, gone: np.ndarray, spec: FrameSpec) -> np.ndarray:
    """The image without the objects `gone`, bool (N,), of its layout. Label effect: keeps those of all others.

    image, bare: uint8 (H, W, 3), with the painted objects and before they were painted. What the frames of the objects
    may have changed (`frame.masks`) comes back from `bare`, except inside the boxes of objects that stay.
    """
    painted = painted_boxes(layout.boxes[gone], spec)
    restored = covered(painted, image.shape) & ~covered(layout.boxes[~gone], image.shape)
    return np.where(restored[..., None], bare, image)


def painted_boxes(boxes: np.ndarray, spec: FrameSpec) -> np.ndarray:
    """Boxes (N, 5) that hold every pixel which painting an object may change, of the same dtype.

    >>> painted_boxes(np.float32([[50, 50, 40, 10, 0]]), FrameSpec(size=72, hole_margin=0.1)).tolist()
    [[50.0, 50.0, 50.0, 20.0, 0.0]]
    """
    reach = hole_reach(boxes, spec) + frame_sides(boxes, spec) / spec.size
    grown = boxes.copy()
    grown[:, 2:4] += 2 * reach[:, None]
    return grown
