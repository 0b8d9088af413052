"""Detections in a single image. A manifest stores scores only, so the detector runs on demand."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dataengine import weights
from dataengine.data.images import rgb
from dataengine.data.layout import Layout
from dataengine.data.pixel_range import PixelRange
from dataengine.errors import UserError

if TYPE_CHECKING:
    from dataengine.judge.detector import Detections


class LazyDetector:
    """A detector that is loaded at its first image, and processes one image at a time."""

    def __init__(self, folder: Path | None):
        """folder: of a detector, None for the packaged one."""
        self.folder, self.name = folder, "packaged detector" if folder is None else folder.name
        self._lock, self._detector = threading.Lock(), None

    def raw(self, pixels: np.ndarray) -> tuple[Detections, tuple[str, ...]]:
        """Detections in an image uint8 (H, W, 3), and the detector's classes. Raises UserError where it cannot be
        loaded."""
        from dataengine.judge.detector import load_detector  # slow import, needed for detections only

        with self._lock:
            if self._detector is None:
                self._detector = load_detector(self.folder or weights.packaged("detector"), threads=1)
            return self._detector.detect([pixels])[0], self._detector.classes

    def detect(self, file: Path, labels: Layout, pixel_range: PixelRange | None = None) -> dict:
        """Detections in an image file, matched with its labels as the filter does.

        Keys: `detector` (its name), `classes`, and `detections`, a row each with `label`, `score`, `box` (cx, cy, w, h,
        theta) and `object` (index of the matched label, or null). Raises UserError where the detector cannot be loaded
        or the image cannot be decoded.
        """
        from dataengine.judge.verdict import match

        try:
            detected, classes = self.raw(rgb(file, pixel_range))
        except ValueError as error:
            raise UserError(f"{file.name}: {error}.") from None
        matched = match(detected, labels, classes)
        of_object = {int(j): i for i, j in enumerate(matched.detections) if j >= 0}
        rows = [
            {
                "label": int(detected.labels[j]),
                "score": round(float(detected.scores[j]), 4),
                "box": [round(float(v), 4) for v in detected.boxes[j]],
                "object": of_object.get(j),
            }
            for j in range(len(detected))
        ]
        return {"detector": self.name, "classes": list(classes), "detections": rows}
