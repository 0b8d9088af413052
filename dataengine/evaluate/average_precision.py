"""Average precision of detections on rotated or horizontal boxes, as DOTA's evaluation computes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from dataengine import geometry
from dataengine.data.layout import Layout
from dataengine.judge.detector import Detections
from dataengine.judge.verdict import class_map, overlaps

COCO_THRESHOLDS = tuple(np.round(np.arange(0.5, 1.0, 0.05), 2).tolist())
MIN_IGNORED_SHARE = 0.5  # share of a detection inside an ignored region above which it is not counted


@dataclass(frozen=True)
class AveragePrecision:
    """values float64 (T, C): area under precision over recall at each IoU threshold for each class, NaN for a class
    without objects. recalls float64 (T, C): share of objects that a detection matches, NaN as above.
    objects int64 (C,): number of counted objects. detections int64 (T, C): number of true and false positives."""

    classes: tuple[str, ...]
    thresholds: tuple[float, ...]
    values: np.ndarray
    recalls: np.ndarray
    objects: np.ndarray
    detections: np.ndarray

    def at(self, threshold: float) -> dict[str, float]:
        """{class: average precision at this IoU threshold} for the classes that have objects."""
        row = self.values[self.thresholds.index(threshold)]
        return {name: float(value) for name, value in zip(self.classes, row, strict=True) if not np.isnan(value)}

    def mean(self, threshold: float | None = None) -> float:
        """Mean over classes, at one IoU threshold or over all of them; NaN when no class has objects."""
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

    The rules are those of DOTA's evaluation, which follows PASCAL VOC. The detections of a class are sorted by
    descending score over all images, and each is compared with the object of its class that it overlaps most. At or
    above the IoU threshold, the first detection of an object is a true positive and later ones are false positives.
    Not counted are detections of difficult objects, and unmatched ones inside an ignored region. IoU is that of
    rotated boxes, or of upright hulls in layouts of kind "hbb". The area under the curve is exact, with monotone
    precision.

    areas: (min, max) area in square pixels of the objects to count. Other objects are treated as difficult, and
    unmatched detections of another area are not counted, as in COCO's figures for small and large objects.

    >>> layout = Layout([[10, 10, 8, 4, 0], [30, 10, 8, 4, 0]], [0, 0], ("car",), (40, 20))
    >>> first = Detections(layout.boxes[:1], np.float32([0.9]), np.int64([0]))
    >>> average_precision([first], [layout], ["car"]).at(0.5)
    {'car': 0.5}
    """
    return matched(detections, layouts, detector_classes, thresholds, areas).average_precision()


@dataclass(frozen=True)
class Matched:
    """Detections compared with objects, before precision is taken, so that it can be taken of resampled images.

    objects: int64 (I, C), counted objects of each image and class. images, scores, outcomes: for each class, of its D
    detections in order of image: its image int64 (D,), score (D,), and int8 (D, T) as `_outcomes` gives it.
    """

    classes: tuple[str, ...]
    thresholds: tuple[float, ...]
    objects: np.ndarray
    images: list[np.ndarray]
    scores: list[np.ndarray]
    outcomes: list[np.ndarray]

    def average_precision(self, chosen: np.ndarray | None = None) -> AveragePrecision:
        """Average precision of all images, or of those `chosen`, int (N,), each as often as it is named."""
        times = np.ones(len(self.objects), np.int64)
        if chosen is not None:
            times = np.bincount(chosen, minlength=len(self.objects))
        objects = times @ self.objects
        values, recalls = np.full((2, len(self.thresholds), len(self.classes)), np.nan)
        counted = np.zeros((len(self.thresholds), len(self.classes)), np.int64)
        for c in range(len(self.classes)):
            order = np.argsort(-self.scores[c], kind="stable")
            outcome = self.outcomes[c][np.repeat(order, times[self.images[c][order]])]  # (D, T)
            counted[:, c] = (outcome != 0).sum(0)
            if objects[c]:
                values[:, c] = [_area(column[column != 0] > 0, objects[c]) for column in outcome.T]
                recalls[:, c] = (outcome > 0).sum(0) / objects[c]
        return AveragePrecision(self.classes, self.thresholds, values, recalls, objects, counted)

    def resampled_means(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """Mean AP over classes, all thresholds together, of `n` resamples of the images with replacement, float64 (n,).

        The mean is always over the same classes. If those that a resample happens to lack were left out, it would jump
        by a class's whole value: 0.25 [0.21, 0.50] for two classes of which the rare one has an AP of 0. Their value
        is that of the next resample that has them.
        """
        present = self.objects.sum(0) > 0
        if not present.any():
            return np.full(n, np.nan)
        size, means = len(self.objects), []
        for _ in range(n):
            values = self.average_precision(rng.integers(0, size, size)).values
            while np.isnan(values[0, present]).any():
                again = self.average_precision(rng.integers(0, size, size)).values
                values = np.where(np.isnan(values), again, values)
            means.append(values[:, present].mean())
        return np.array(means)


def matched(
    detections: Sequence[Detections],
    layouts: Sequence[Layout],
    detector_classes: Sequence[str],
    thresholds: Sequence[float] = COCO_THRESHOLDS,
    areas: tuple[float, float] = (0.0, float("inf")),
) -> Matched:
    """Detections of each image compared with its layout; see `average_precision` for the rules."""
    assert len(detections) == len(layouts), f"{len(detections)} detections of {len(layouts)} layouts"
    classes = layouts[0].classes if layouts else tuple(detector_classes)
    assert all(layout.classes == classes for layout in layouts), "the layouts differ in their classes"
    thresholds = tuple(float(t) for t in thresholds)
    to_layout = class_map(classes, detector_classes)
    images: list[list[np.ndarray]] = [[np.zeros(0, np.int64)] for _ in classes]
    scores: list[list[np.ndarray]] = [[np.zeros(0)] for _ in classes]
    outcomes: list[list[np.ndarray]] = [[np.zeros((0, len(thresholds)), np.int8)] for _ in classes]
    objects = np.zeros((len(layouts), len(classes)), np.int64)
    for i, (detected, layout) in enumerate(zip(detections, layouts, strict=True)):
        layout = replace(layout, difficult=layout.difficult | _outside(layout.boxes, areas))
        labels = to_layout[detected.labels]
        objects[i] = np.bincount(layout.labels[~layout.difficult], minlength=len(classes))
        boxes = geometry.hulls(detected.boxes) if layout.kind == "hbb" else detected.boxes
        ignored = (geometry.containment(boxes, layout.ignored) > MIN_IGNORED_SHARE).any(1) | _outside(boxes, areas)
        for c in np.unique(labels[labels >= 0]):
            of_class = np.flatnonzero(labels == c)
            of_class = of_class[np.argsort(-detected.scores[of_class], kind="stable")]
            truth = layout.select(layout.labels == c)
            iou = overlaps(truth, detected.boxes[of_class])
            images[c].append(np.full(len(of_class), i))
            scores[c].append(detected.scores[of_class])
            outcomes[c].append(_outcomes(iou, truth.difficult, ignored[of_class], thresholds))
    joined = ([np.concatenate(parts) for parts in of_class] for of_class in (images, scores, outcomes))
    return Matched(tuple(classes), thresholds, objects, *joined)


def _outside(boxes: np.ndarray, areas: tuple[float, float]) -> np.ndarray:
    """Bool (N,): boxes whose area is not in [min, max)."""
    area = geometry.area(boxes)
    return (area < areas[0]) | (area >= areas[1])


def _outcomes(iou: np.ndarray, difficult: np.ndarray, ignored: np.ndarray, thresholds: Sequence[float]) -> np.ndarray:
    """int8 (D, T): 1 true positive, -1 false positive, 0 not counted. iou: (N, D), columns by descending score."""
    n, d = iou.shape
    best = iou.argmax(0) if n else np.zeros(d, np.int64)
    best_iou = iou.max(0) if n else np.zeros(d)
    out = np.where(ignored, 0, -1).astype(np.int8)[:, None].repeat(len(thresholds), 1)
    for t, threshold in enumerate(thresholds):
        matched = np.zeros(n, bool)
        for j in np.flatnonzero(best_iou >= threshold) if n else ():
            i = best[j]
            out[j, t] = 0 if difficult[i] else (-1 if matched[i] else 1)
            matched[i] = True
    return out


def _area(positive: np.ndarray, n_objects: int) -> float:
    """Area under the precision-recall curve. positive: bool (D,), true positives by descending score."""
    if not len(positive):
        return 0.0
    precision = np.cumsum(positive) / np.arange(1, len(positive) + 1)
    monotone = np.maximum.accumulate(precision[::-1])[::-1]
    return float((monotone * positive).sum() / n_objects)
