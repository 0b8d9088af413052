"""Detections compared with a layout: which objects are found, and whether the image is kept, dropped or repaired."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from dataengine import geometry
from dataengine.data.layout import Layout, class_key, model_key
from dataengine.judge.calibration import Calibration, at_class
from dataengine.judge.detector import Detections

Mode = Literal["drop", "difficult", "repair", "erase"]
MATCH_IOU = 0.4  # below the 0.5 of evaluation: a shift of one pixel costs a tiny box that much
EXCUSED_OVERLAP = 0.3  # a detection with a larger share in an ignored region or on a difficult object is not extra
MIN_DISPLACED_IOU = 0.1  # of a missed object and an extra detection that may be that object, displaced


@dataclass(frozen=True)
class Match:
    """scores float32 (N,): score of the detection matched with each object, 0 for none (the recall score).
    detections int64 (N,): its index, -1 for none. ious float32 (N,): its IoU with the object, 0 for none.
    extra int64 (K,): detections that match no object and are in no ignored region, by descending score.
    """

    scores: np.ndarray
    detections: np.ndarray
    ious: np.ndarray
    extra: np.ndarray


def overlaps(layout: Layout, boxes: np.ndarray) -> np.ndarray:
    """IoU of the layout's objects with boxes (M, 5), float64 (N, M); horizontal layouts use the hulls of the boxes."""
    return geometry.iou(layout.boxes, geometry.hulls(boxes) if layout.kind == "hbb" else boxes)


def class_map(layout_classes: Sequence[str], detector_classes: Sequence[str]) -> np.ndarray:
    """Index in the layout's classes of each of the detector's classes, -1 for none; names are compared by `model_key`.

    >>> class_map(("plane", "ship"), ("Ship", "airplane", "car")).tolist()
    [1, 0, -1]
    """
    names = {model_key(name): i for i, name in enumerate(layout_classes)}
    names |= {class_key(name): i for i, name in enumerate(layout_classes)}  # of "plane" and "airplane", the same word
    return np.array([names.get(class_key(name), names.get(model_key(name), -1)) for name in detector_classes], np.int64)


def match(
    detections: Detections, layout: Layout, detector_classes: Sequence[str], iou_threshold: float = MATCH_IOU
) -> Match:
    """Match greedily by descending score: a detection takes the unmatched object of its class with the largest IoU, if
    that is at least `iou_threshold`. Detections of classes that the layout does not have are ignored.

    >>> layout = Layout([[50, 50, 20, 10, 0], [20, 20, 20, 10, 0]], [0, 0], ("car",), (100, 100))
    >>> seen = np.float32([[51, 50, 20, 10, 0], [80, 80, 20, 10, 0]])
    >>> found = match(Detections(seen, np.float32([0.9, 0.5]), np.array([0, 0])), layout, ("car",))
    >>> found.detections.tolist(), found.extra.tolist()
    ([0, -1], [1])
    """
    labels = class_map(layout.classes, detector_classes)[detections.labels]
    iou = overlaps(layout, detections.boxes)
    fits = (layout.labels[:, None] == labels[None]) & (iou >= iou_threshold)  # (N, D)
    matches = np.full(len(layout), -1, np.int64)
    extra = []
    regions = np.concatenate([layout.ignored, layout.boxes[layout.difficult]])
    excused = (geometry.containment(detections.boxes, regions) > EXCUSED_OVERLAP).any(1)
    for j in np.argsort(-detections.scores, kind="stable"):
        if labels[j] < 0:
            continue
        free = fits[:, j] & (matches < 0)
        if free.any():
            matches[np.where(free, iou[:, j], -1).argmax()] = j
        elif not excused[j] and not fits[:, j].any():
            # a second detection of a matched object is a duplicate, not another object
            extra.append(j)
    matched = matches >= 0
    scores, ious = np.zeros((2, len(layout)), np.float32)
    scores[matched] = detections.scores[matches[matched]]
    ious[matched] = iou[matched, matches[matched]]
    return Match(scores, matches, ious, np.asarray(extra, np.int64))


@dataclass(frozen=True)
class Repair:
    """One change of a label: "moved" or "erased" (index: of the object in the judged layout), or "added" (index: in the
    resulting layout)."""

    action: Literal["moved", "added", "erased"]
    index: int
    before: list[float] | None
    after: list[float] | None
    score: float


def repair(action: str, index: int, before: np.ndarray | None, after: np.ndarray | None, score: float) -> Repair:
    """A repair with boxes (5,) and score rounded to four decimals; None for no box."""
    boxes = [None if box is None else [round(float(value), 4) for value in box] for box in (before, after)]
    return Repair(action, int(index), *boxes, round(float(score), 4))


@dataclass(frozen=True)
class Verdict:
    """The result for one image.

    kept, reason: whether it passes, and a phrase why not, else "". scores: recall score of each object of the judged
    layout. missed, extra: class names of the objects that are not found and of the detections without an object.
    repairs: changes of the labels.
    """

    kept: bool
    reason: str
    scores: list[float]
    missed: list[str]
    extra: list[str]
    repairs: list[Repair] = field(default_factory=list)


def judge(
    detections: Detections,
    layout: Layout,
    detector_classes: tuple[str, ...],
    calibration: Calibration,
    mode: Mode = "difficult",
) -> tuple[Layout, Verdict]:
    """Judge one image by its detections. Returns its layout, changed as the mode allows, and the verdict.

    drop: the layout is unchanged; an image with too many missed objects or extra detections is dropped.
    difficult: as drop, and the missed objects of a kept image are marked `difficult`.
    repair: boxes that fit worse than real ones are moved to confident detections, and confident extra detections become
    objects; then the image is judged as with difficult.
    erase: as difficult; the caller, who has the pixels, removes missed objects from the image beforehand.
    The layout of a dropped image is unchanged in every mode.
    """
    found = match(detections, layout, detector_classes)
    labels = class_map(layout.classes, detector_classes)[detections.labels]
    extra_names = [layout.classes[i] for i in labels[found.extra]]
    extra = found.extra[detections.scores[found.extra] >= at_class(calibration.extra_scores, extra_names)]
    result, scores, repairs = layout, found.scores, []
    if mode == "repair":
        result, scores, extra, repairs = _repair(detections, labels, layout, found, extra, calibration)
    counted = ~layout.difficult
    missed = counted & ~calibration.found(layout, scores)
    reason = calibration.failure(int(counted.sum()), int(missed.sum()), len(extra))
    if reason:
        result, repairs = layout, []
    elif mode != "drop":
        result = replace(result, difficult=result.difficult | np.pad(missed, (0, len(result) - len(layout))))
    verdict = Verdict(
        kept=not reason,
        reason=reason,
        scores=[round(float(s), 4) for s in scores],
        missed=[name for name, m in zip(layout.names(), missed, strict=True) if m],
        extra=[layout.classes[labels[j]] for j in extra],
        repairs=repairs,
    )
    return result, verdict


def _repair(
    detections: Detections,
    labels: np.ndarray,
    layout: Layout,
    found: Match,
    extra: np.ndarray,
    calibration: Calibration,
) -> tuple[Layout, np.ndarray, np.ndarray, list[Repair]]:
    """The repaired layout, the scores of its objects, the remaining extra detections, and the repairs.

    labels (D,): of the detections, in the layout's classes. The boxes of cut objects are not moved, since a detector
    sees less of them than the label covers.
    """
    named = [layout.classes[i] if i >= 0 else "" for i in labels]
    confident = detections.scores >= at_class(calibration.repair_scores, named)
    boxes, scores, repairs = layout.boxes.copy(), found.scores.copy(), []
    detected = geometry.hulls(detections.boxes) if layout.kind == "hbb" else detections.boxes
    min_iou = at_class(calibration.repair_ious, layout.names())
    whole = (layout.visible > 0.999) & ~layout.difficult
    free = [j for j in extra if confident[j]]
    iou = overlaps(layout, detections.boxes)
    for i in np.flatnonzero(whole):
        j = found.detections[i]
        if j < 0:
            displaced = [k for k in free if labels[k] == layout.labels[i] and iou[i, k] >= MIN_DISPLACED_IOU]
            if not displaced:
                continue
            j = max(displaced, key=lambda k: iou[i, k])
            free.remove(j)
            scores[i] = detections.scores[j]
        elif not confident[j] or found.ious[i] >= min_iou[i]:
            continue
        repairs.append(repair("moved", i, boxes[i], detected[j], detections.scores[j]))
        boxes[i] = detected[j]
    for k, j in enumerate(free):
        repairs.append(repair("added", len(layout) + k, None, detected[j], detections.scores[j]))
    result = replace(
        layout,
        boxes=np.concatenate([boxes, detected[free]]),
        labels=np.concatenate([layout.labels, labels[free]]),
        difficult=np.concatenate([layout.difficult, np.zeros(len(free), bool)]),
        visible=np.concatenate([layout.visible, np.ones(len(free), np.float32)]),
    )
    return result, scores, extra[~confident[extra]], repairs


@dataclass(frozen=True)
class ClassAcceptance:
    """Counts of one class. objects: not difficult, in all images; found: of these, by the detector; kept: of these, in
    kept images; extra: detections without an object."""

    name: str
    objects: int
    found: int
    kept: int
    extra: int


@dataclass(frozen=True)
class Acceptance:
    """Counts of images: judged, kept, and dropped for each reason (without its numbers); then each class."""

    images: int
    kept: int
    dropped_for: dict[str, int]
    classes: tuple[ClassAcceptance, ...]


def acceptance(layouts: Sequence[Layout], verdicts: Sequence[Verdict], classes: Sequence[str]) -> Acceptance:
    """Count the verdicts of many images. layouts: as judged, before repairs. A class without objects has zeros."""
    objects, missed, kept, extra, reasons = (Counter() for _ in range(5))
    for layout, verdict in zip(layouts, verdicts, strict=True):
        names = layout.select(~layout.difficult).names()
        objects.update(names)
        missed.update(verdict.missed)
        extra.update(verdict.extra)
        if verdict.kept:
            kept.update(names)
        else:
            reasons[" ".join(word for word in verdict.reason.split() if not word.isdigit() and word != "of")] += 1
    rows = tuple(ClassAcceptance(n, objects[n], objects[n] - missed[n], kept[n], extra[n]) for n in classes)
    return Acceptance(len(verdicts), sum(v.kept for v in verdicts), dict(reasons.most_common()), rows)
