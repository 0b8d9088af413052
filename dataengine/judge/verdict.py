"""Keep, drop, mark or repair: what becomes of an image once a detector has looked at it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from dataengine import geometry
from dataengine.data.layout import Layout
from dataengine.judge.calibration import Calibration, at_class
from dataengine.judge.detector import Detections
from dataengine.judge.matching import Match, class_map, match, overlaps

Mode = Literal["drop", "difficult", "repair", "erase"]
STRAYED_IOU = 0.1  # an object that was not found may have been drawn beside its box, if it still overlaps it this much


@dataclass(frozen=True)
class Repair:
    """One change of a label: "moved" or "erased" (index into the layout's objects), or "added" (into the result's)."""

    action: Literal["moved", "added", "erased"]
    index: int
    before: list[float] | None
    after: list[float] | None
    score: float


def repair(action: str, index: int, before: np.ndarray | None, after: np.ndarray | None, score: float) -> Repair:
    """A repair with boxes (5,) and score to four decimals."""
    boxes = [None if box is None else [round(float(value), 4) for value in box] for box in (before, after)]
    return Repair(action, int(index), *boxes, round(float(score), 4))


@dataclass(frozen=True)
class Verdict:
    """kept; reason: one phrase when dropped, else ""; scores: recall score of each object of the judged layout;
    missed, extra: class names of objects not found and of detections nobody asked for; repairs made."""

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
    """Judge one image by its detections and give back its layout, changed where the mode allows.

    drop: the layout stays as it is; images that miss too much or show too much else are dropped.
    difficult: the same, and objects that were not found in a kept image are marked `difficult`.
    repair: first, boxes that fit worse than real ones do are moved to sure detections, and sure extra detections become
    objects; the image is then judged by what is still missing, and that is marked `difficult`.
    erase: as difficult, for the pictures that nothing was taken out of: that is its caller's part, who has the pixels.
    A dropped image keeps its layout in every mode.
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
    """The mended layout, its objects' scores, the extra detections that are left, and what was done.

    labels (D,): of the detections, in the layout's classes. Objects that the border cuts are left alone, for a
    detector sees less of them than the label says.
    """
    named = [layout.classes[i] if i >= 0 else "" for i in labels]
    sure = detections.scores >= at_class(calibration.repair_scores, named)
    boxes, scores, repairs = layout.boxes.copy(), found.scores.copy(), []
    shown = geometry.hulls(detections.boxes) if layout.kind == "hbb" else detections.boxes
    usual = at_class(calibration.repair_ious, layout.names())
    whole = (layout.visible > 0.999) & ~layout.difficult
    free = [j for j in extra if sure[j]]
    iou = overlaps(layout, detections.boxes)
    for i in np.flatnonzero(whole):
        j = found.detections[i]
        if j < 0:
            strayed = [k for k in free if labels[k] == layout.labels[i] and iou[i, k] >= STRAYED_IOU]
            if not strayed:
                continue
            j = max(strayed, key=lambda k: iou[i, k])
            free.remove(j)
            scores[i] = detections.scores[j]
        elif not sure[j] or found.ious[i] >= usual[i]:
            continue
        repairs.append(repair("moved", i, boxes[i], shown[j], detections.scores[j]))
        boxes[i] = shown[j]
    for k, j in enumerate(free):
        repairs.append(repair("added", len(layout) + k, None, shown[j], detections.scores[j]))
    result = replace(
        layout,
        boxes=np.concatenate([boxes, shown[free]]),
        labels=np.concatenate([layout.labels, labels[free]]),
        difficult=np.concatenate([layout.difficult, np.zeros(len(free), bool)]),
        visible=np.concatenate([layout.visible, np.ones(len(free), np.float32)]),
    )
    return result, scores, extra[~sure[extra]], repairs
