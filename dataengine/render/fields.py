"""The continuous conditions of one object in its frame."""

from __future__ import annotations

import numpy as np

from dataengine.data.layout import Layout, acquisition_values
from dataengine.render.frame import FrameSpec, frame_angles, frame_sides

# Order of the columns; `nan` is "unknown" and takes the field's learned null (contract 7).
FIELDS = ("aspect", "scale", "angle_sin", "angle_cos", "altitude", "camera_angle", "night", "gsd")


def object_fields(layout: Layout, spec: FrameSpec, context: float | None = None) -> np.ndarray:
    """(N, len(FIELDS)) float32, each column of order one.

    aspect and scale are log2 of w/h and of image pixels per frame pixel; the frame's angle goes as sine and cosine,
    because light and slant have a direction in the image that the upright frame no longer shows.
    """
    n = len(layout)
    out = np.full((n, len(FIELDS)), np.nan, np.float32)
    angle = frame_angles(layout.boxes, layout.kind)
    out[:, 0] = np.log2(np.maximum(layout.boxes[:, 2], 1) / np.maximum(layout.boxes[:, 3], 1))
    out[:, 1] = np.log2(frame_sides(layout.boxes, spec, context) / spec.size)
    out[:, 2], out[:, 3] = np.sin(angle), np.cos(angle)
    out[:, 4:] = acquisition_values(layout.acquisition, FIELDS[4:])
    return out
