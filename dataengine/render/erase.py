"""Painted objects removed from an image again: what was there before comes back."""

from __future__ import annotations

import numpy as np

from dataengine.data.layout import Layout
from dataengine.render.frame import FrameSpec, covered, frame_sides


def erase(image: np.ndarray, bare: np.ndarray, layout: Layout, gone: np.ndarray, spec: FrameSpec) -> np.ndarray:
    """The image without the objects `gone`, bool (N,), of its layout. Label effect: keeps those of all others.

    image, bare: uint8 (H, W, 3), with the painted objects and before they were painted. What the frames of the objects
    may have changed (`frame.masks`) comes back from `bare`, except inside the boxes of objects that stay.
    """
    sides = frame_sides(layout.boxes, spec)
    reach = np.maximum(spec.hole_margin * layout.boxes[:, 2], spec.hole_pixels) + sides / spec.size
    grown = layout.boxes.copy()
    grown[:, 2:4] += 2 * reach[:, None]
    restored = covered(grown[gone], image.shape) & ~covered(layout.boxes[~gone], image.shape)
    return np.where(restored[..., None], bare, image)
