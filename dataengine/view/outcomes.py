"""Detections in many images, in the background: what is found, confused with another class, missed, or not there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from dataengine import geometry
from dataengine.data.layout import Layout
from dataengine.judge.verdict import EXCUSED_OVERLAP, class_map, overlaps
from dataengine.view.background import BackgroundWork
from dataengine.view.detections import LazyDetector
from dataengine.view.gallery import Gallery
from dataengine.view.images import NotServedError
from dataengine.view.objects import pixels_of

MATCH_IOU = 0.5
MIN_SCORE = 0.05  # of a detection that is kept; the page's threshold is higher
MAX_IMAGES = 1000  # chosen at random
KINDS = ("true", "confused", "false", "missed")


@dataclass(frozen=True)
class Detected:
    """Detections of one image by descending score. labels int64 (D,): class numbers of the page, -1 for a class that
    the labels do not have. objects int64 (D,): the label that each takes, -1 for none. excused bool (D,): in an ignored
    region. of: class numbers of the labels; counted: not difficult."""

    i: int
    scores: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    objects: np.ndarray
    excused: np.ndarray
    of: np.ndarray
    counted: np.ndarray


def take(boxes: np.ndarray, classes: np.ndarray, layout: Layout, of: np.ndarray) -> np.ndarray:
    """The label int64 (D,) that each detection takes, -1 for none: in order, the free label of its class with the
    largest IoU from MATCH_IOU on, or else that of any class. So the result for the first few does not depend on the
    others, and holds for every threshold of scores.

    >>> layout = Layout([[50, 50, 20, 10, 0], [80, 20, 20, 10, 0]], [0, 1], ("car", "van"), (100, 100))
    >>> take(np.float32([[50, 50, 20, 10, 0], [80, 20, 20, 10, 0], [9, 9, 9, 9, 0]]), np.array([0, 0, 1]), layout,
    ...      layout.labels).tolist()
    [0, 1, -1]
    """
    iou = overlaps(layout, boxes) if len(layout) and len(boxes) else np.zeros((len(layout), len(boxes)))
    taken, free = np.full(len(boxes), -1, np.int64), np.ones(len(layout), bool)
    for j in range(len(boxes)):
        fits = free & (iou[:, j] >= MATCH_IOU)
        if not fits.any():
            continue
        alike = fits & (of == classes[j])
        chosen = np.where(alike if alike.any() else fits, iou[:, j], -1).argmax()
        taken[j], free[chosen] = chosen, False
    return taken


class Outcomes(BackgroundWork):
    """done of total images; starts with the first request. classes: of the labels and the detector."""

    def __init__(self, gallery: Gallery, detector: LazyDetector):
        super().__init__()
        self.gallery, self.detector = gallery, detector
        self.ids: list[int] = []
        self.found: list[Detected] = []
        self.classes: list[str] = list(gallery.index.classes)
        self.done = 0

    def _prepare(self) -> None:
        n = len(self.gallery.index)
        self.ids = np.random.default_rng(0).permutation(n)[:MAX_IMAGES].tolist()

    def _work(self) -> None:
        for i in self.ids:
            if self._stopped.is_set():
                return
            if (one := self._detected(i)) is not None:
                self.found.append(one)
            self.done += 1

    def _detected(self, i: int) -> Detected | None:
        try:
            pixels = pixels_of(self.gallery, i)
        except (NotServedError, IndexError):
            return None
        entry = self.gallery.index.entry(i)
        detections, names = self.detector.raw(pixels)
        detections = detections.select(detections.scores >= MIN_SCORE)
        classes, layout = class_map(self.classes, names), entry.labels
        labels = classes[detections.labels] if len(detections) else np.zeros(0, np.int64)
        of = np.array([self.classes.index(name) for name in layout.names()], np.int64)
        excused = np.zeros(len(detections), bool)
        if len(layout.ignored) and len(detections):
            excused = (geometry.containment(detections.boxes, layout.ignored) > EXCUSED_OVERLAP).any(1)
        return Detected(
            i, detections.scores, detections.boxes, labels, take(detections.boxes, labels, layout, of), excused, of,
            ~layout.difficult,
        )  # fmt: skip

    def counts(self, least: float, keep: np.ndarray) -> np.ndarray:
        """Confusion matrix int64 (C + 1, C + 1) of detections from a score on. keep: bool (N,), images that count.

        The last row holds detections without a label, the last column labels without a detection.
        """
        n = len(self.classes)
        matrix = np.zeros((n + 1, n + 1), np.int64)
        for row in self._rows(least, keep):
            matrix[row["true"], row["seen"]] += 1
        return matrix

    def rows(self, kind: str, least: float, keep: np.ndarray, true: int | None, seen: int | None) -> list[dict]:
        """Outcomes of a kind, or of one cell of the matrix, highest scores first, missed ones in order of images."""
        rows = [
            row
            for row in self._rows(least, keep)
            if (kind == "all" or row["kind"] == kind)
            and (true is None or row["true"] == true)
            and (seen is None or row["seen"] == seen)
        ]
        return sorted(rows, key=lambda row: (-row["score"], row["i"]))

    def _rows(self, least: float, keep: np.ndarray) -> Iterator[dict]:
        """A row for each counted label and each detection that takes none."""
        n = len(self.classes)
        for one in list(self.found):
            if not keep[one.i]:
                continue
            taken = np.zeros(len(one.of), bool)
            for j in np.flatnonzero(one.scores >= least):
                k, score = int(one.objects[j]), round(float(one.scores[j]), 4)
                box = [round(float(v), 3) for v in one.boxes[j]]
                if k >= 0:
                    taken[k] = True
                    if not one.counted[k]:
                        continue
                    alike = one.of[k] == one.labels[j]
                    if one.labels[j] < 0:  # a class that no label has
                        taken[k] = False
                        continue
                    yield {"kind": "true" if alike else "confused", "i": one.i, "k": k, "true": int(one.of[k]),
                           "seen": int(one.labels[j]), "score": score, "box": box}  # fmt: skip
                elif not one.excused[j] and one.labels[j] >= 0:
                    yield {"kind": "false", "i": one.i, "k": -1, "true": n, "seen": int(one.labels[j]), "score": score,
                           "box": box}  # fmt: skip
            for k in np.flatnonzero(~taken & one.counted):
                yield {"kind": "missed", "i": one.i, "k": int(k), "true": int(one.of[k]), "seen": n, "score": 0.0,
                       "box": None}  # fmt: skip
