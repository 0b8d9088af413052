"""What a detector sees in one image. A manifest holds its scores only, so it looks again when asked."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
from PIL import Image

from dataengine import weights
from dataengine.data.layout_json import layout_from_json


class Looker:
    """A detector that is loaded when it is first needed, and looks at one image at a time."""

    def __init__(self, folder: Path | None):
        """folder: of a detector, None for the packaged one."""
        self.folder, self.name = folder, "packaged detector" if folder is None else folder.name
        self._lock, self._detector = threading.Lock(), None

    def look(self, file: Path, labels: dict) -> dict:
        """Detections of an image file beside its labels (a layout as JSON): `classes` of the detector and a row each
        with `label`, `score`, `box` (cx, cy, w, h, theta) and `object`, the index of the label that it matches as the
        filter matches, or null. Raises UserError where the detector cannot be loaded."""
        from dataengine.judge.detector import load_detector  # not before it is needed: a run is shown in a second
        from dataengine.judge.matching import match

        with self._lock:
            if self._detector is None:
                self._detector = load_detector(self.folder or weights.packaged("detector"), threads=1)
            with Image.open(file) as image:
                found = self._detector.detect([np.asarray(image.convert("RGB"))])[0]
        matched = match(found, layout_from_json(labels), self._detector.classes)
        of_object = {int(j): i for i, j in enumerate(matched.detections) if j >= 0}
        rows = [
            {
                "label": int(found.labels[j]),
                "score": round(float(found.scores[j]), 4),
                "box": [round(float(v), 4) for v in found.boxes[j]],
                "object": of_object.get(j),
            }
            for j in range(len(found))
        ]
        return {"detector": self.name, "classes": list(self._detector.classes), "detections": rows}
