"""Average precision of detections on rotated or horizontal boxes, counted as DOTA's evaluation counts it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from dataengine import geometry
from dataengine.data.layout import Layout
from dataengine.judge.detector import Detections
from dataengine.judge.matching import class_map, overlaps

COCO_THRESHOLDS = tuple(np.round(np.arange(0.5, 1.0, 0.05), 2).tolist())
IGNORED_OVERLAP = 0.5  # share of a detection inside an ignored region from which on it does not count


@dataclass(frozen=True)
class AveragePrecision:
    """values float64 (T, C): area under precision over recall at each IoU threshold for each class, NaN for a class
    without objects. recalls float64 (T, C): share of objects that any detection reached, NaN as above.
    objects int64 (C,): those counted. detections int64 (T, C): those counted, right or wrong."""

    classes: tuple[str, ...]
    thresholds: tuple[float, ...]
    values: np.ndarray
    recalls: np.ndarray
    objects: np.ndarray
    detections: np.ndarray

    def at(self, threshold: float) -> dict[str, float]:
        """{class: average precision at this IoU threshold} of the classes that have objects."""
        row = self.values[self.thresholds.index(threshold)]
        return {name: float(value) for name, value in zip(self.classes, row, strict=True) if not np.isnan(value)}

    def mean(self, threshold: float | None = None) -> float:
        """Mean over classes, at one IoU threshold or over all of them; NaN when nothing was counted."""
        rows = self.values if threshold is None else self.values[[self.thresholds.index(threshold)]]
        return float(np.nanmean(rows)) if not np.isnan(rows).all() else float("nan")


def average_precision(
    detections: Sequence[Detections],
    layouts: Sequence[Layout],
    detector_classes: Sequence[str],
    thresholds: Sequence[float] = COCO_THRESHOLDS,
    areas: tuple[float, float] = (0.0, float("inf")),
) -> AveragePrecision:
    """AP of the detections of each image against its layout; all layouts share one class list.

    As in DOTA's evaluation, after PASCAL VOC: detections of one class, by falling score over all images, each look at
    the object of their class that they overlap most. From the threshold on, the first to reach an object is right and
    later ones are wrong; those whose object is difficult count neither way, and so do detections that miss and lie in
    an ignored region. IoU is that of rotated boxes, or of upright hulls in layouts of kind "hbb". The area under the
    curve is exact, with precision made monotone.

    areas: (least, most) area in square pixels of the objects to count; the others are treated as difficult, and a
    detection of another area that reaches none counts neither way, as in COCO's figures for small and large objects.
    """
    assert len(detections) == len(layouts), f"{len(detections)} detections of {len(layouts)} layouts"
    classes = layouts[0].classes if layouts else tuple(detector_classes)
    assert all(layout.classes == classes for layout in layouts), "the layouts differ in their classes"
    thresholds = tuple(float(t) for t in thresholds)
    to_layout = class_map(classes, detector_classes)
    scores: list[list[np.ndarray]] = [[] for _ in classes]
    outcomes: list[list[np.ndarray]] = [[] for _ in classes]
    objects = np.zeros(len(classes), np.int64)
    least, most = areas
    for found, layout in zip(detections, layouts, strict=True):
        layout = replace(layout, difficult=layout.difficult | _outside(layout.boxes, least, most))
        labels = to_layout[found.labels]
        objects += np.bincount(layout.labels[~layout.difficult], minlength=len(classes))
        shown = geometry.hulls(found.boxes) if layout.kind == "hbb" else found.boxes
        excused = (geometry.containment(shown, layout.ignored) > IGNORED_OVERLAP).any(1)
        excused |= _outside(shown, least, most)
        for c in np.unique(labels[labels >= 0]):
            mine = np.flatnonzero(labels == c)
            mine = mine[np.argsort(-found.scores[mine], kind="stable")]
            theirs = layout.select(layout.labels == c)
            iou = overlaps(theirs, found.boxes[mine])
            scores[c].append(found.scores[mine])
            outcomes[c].append(_outcomes(iou, theirs.difficult, excused[mine], thresholds))
    values, recalls = np.full((2, len(thresholds), len(classes)), np.nan)
    counted = np.zeros((len(thresholds), len(classes)), np.int64)
    for c in range(len(classes)):
        order = np.argsort(-np.concatenate([[], *scores[c]]), kind="stable")
        outcome = np.concatenate([np.zeros((0, len(thresholds)), np.int8), *outcomes[c]])[order]  # (D, T)
        counted[:, c] = (outcome != 0).sum(0)
        if objects[c]:
            values[:, c] = [_area(column[column != 0] > 0, objects[c]) for column in outcome.T]
            recalls[:, c] = (outcome > 0).sum(0) / objects[c]
    return AveragePrecision(tuple(classes), thresholds, values, recalls, objects, counted)


def _outside(boxes: np.ndarray, least: float, most: float) -> np.ndarray:
    """Bool (N,): boxes whose area is not in [least, most)."""
    area = geometry.area(boxes)
    return (area < least) | (area >= most)


def _outcomes(iou: np.ndarray, difficult: np.ndarray, excused: np.ndarray, thresholds: Sequence[float]) -> np.ndarray:
    """int8 (D, T): 1 right, -1 wrong, 0 not counted. iou (N, D), its columns by falling score."""
    n, d = iou.shape
    nearest = iou.argmax(0) if n else np.zeros(d, np.int64)
    highest = iou.max(0) if n else np.zeros(d)
    out = np.where(excused, 0, -1).astype(np.int8)[:, None].repeat(len(thresholds), 1)
    for t, threshold in enumerate(thresholds):
        taken = np.zeros(n, bool)
        for j in np.flatnonzero(highest >= threshold) if n else ():
            i = nearest[j]
            out[j, t] = 0 if difficult[i] else (-1 if taken[i] else 1)
            taken[i] = True
    return out


def _area(right: np.ndarray, n_objects: int) -> float:
    """Area under precision over recall. right: bool (D,) by falling score."""
    if not len(right):
        return 0.0
    hits = np.cumsum(right)
    precision = hits / np.arange(1, len(right) + 1)
    monotone = np.maximum.accumulate(precision[::-1])[::-1]
    return float((monotone * right).sum() / n_objects)
