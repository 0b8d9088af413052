"""The filter's hardest control: pictures in which every object is a blot of the right colour in the right place."""

from __future__ import annotations

import numpy as np

from dataengine import geometry
from dataengine.data.layout import Layout

BLUR = 0.3  # standard deviation, of the box's short side: no part of an object is told from another
MARGIN = 1.1  # of the box: its outline goes too


def smudge(image: np.ndarray, layout: Layout) -> np.ndarray:
    """A copy of an image (H, W, 3) uint8 in which each object, difficult ones too, is blurred within its box."""
    import cv2

    out = image.astype(np.float32)
    for box in layout.boxes:
        sigma = max(1.0, BLUR * float(box[3]))
        grown = box * np.float32([1, 1, MARGIN, MARGIN, 1])
        corners = geometry.to_corners(grown[None])[0] - 0.5
        reach = int(np.ceil(3 * sigma))
        x1, y1 = np.maximum(np.floor(corners.min(0)).astype(int) - reach, 0)
        x2, y2 = np.minimum(np.ceil(corners.max(0)).astype(int) + reach + 1, (image.shape[1], image.shape[0]))
        if x2 <= x1 or y2 <= y1:
            continue
        part = out[y1:y2, x1:x2]
        mask = np.zeros(part.shape[:2], np.float32)
        cv2.fillConvexPoly(mask, np.rint(corners - (x1, y1)).astype(np.int32), 1.0)
        mask = cv2.GaussianBlur(mask, (0, 0), 1.0)[..., None]  # no hard edge, which would look like an object's
        part += mask * (cv2.GaussianBlur(part, (0, 0), sigma) - part)
    return np.clip(np.rint(out), 0, 255).astype(np.uint8)
