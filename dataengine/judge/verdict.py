"""Keep, drop, mark or repair: what becomes of an image once a detector has looked at it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from dataengine.data.layout import Layout
from dataengine.judge.calibration import Calibration
from dataengine.judge.detector import Detections
from dataengine.judge.matching import class_map, match

Mode = Literal["drop", "difficult", "repair"]
REPAIR_SCORE = 0.5  # a box is only moved to, or added for, a detection that is at least this sure


@dataclass(frozen=True)
class Repair:
    """One change of a label: "moved" (index into the layout's objects) or "added" (index into the result's)."""

    action: Literal["moved", "added"]
    index: int
    before: list[float] | None
    after: list[float]
    score: float


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
    repair: first, boxes are moved to sure detections that match them and sure extra detections become objects; the
    image is then judged by what is still missing, and that is marked `difficult`.
    """
    found = match(detections, layout, detector_classes)
    extra = found.extra[detections.scores[found.extra] >= calibration.extra_score]
    labels = class_map(layout.classes, detector_classes)
    repairs: list[Repair] = []
    result = layout
    if mode == "repair":
        boxes = layout.boxes.copy()
        for i, j in enumerate(found.detections):
            if j >= 0 and detections.scores[j] >= REPAIR_SCORE and layout.visible[i] > 0.999:
                repairs.append(
                    Repair("moved", i, _numbers(boxes[i]), _numbers(detections.boxes[j]), float(detections.scores[j]))
                )
                boxes[i] = detections.boxes[j]
        sure = extra[detections.scores[extra] >= REPAIR_SCORE]
        for k, j in enumerate(sure):
            score = float(detections.scores[j])
            repairs.append(Repair("added", len(layout) + k, None, _numbers(detections.boxes[j]), score))
        result = replace(
            layout,
            boxes=np.concatenate([boxes, detections.boxes[sure]]),
            labels=np.concatenate([layout.labels, labels[detections.labels[sure]]]),
            difficult=np.concatenate([layout.difficult, np.zeros(len(sure), bool)]),
            visible=np.concatenate([layout.visible, np.ones(len(sure), np.float32)]),
        )
        extra = np.setdiff1d(extra, sure)
    counted = ~layout.difficult
    missed = counted & ~calibration.found(layout, found.scores)
    n = int(counted.sum())
    reason = ""
    if missed.sum() > calibration.allowed_missed(n):
        reason = f"{int(missed.sum())} of {n} objects not found"
    elif len(extra) > calibration.allowed_extra(n):
        reason = f"{len(extra)} objects found that were not asked for"
    if not reason and mode != "drop":
        result = replace(result, difficult=result.difficult | np.pad(missed, (0, len(result) - len(layout))))
    verdict = Verdict(
        kept=not reason,
        reason=reason,
        scores=[round(float(s), 4) for s in found.scores],
        missed=[name for name, m in zip(layout.names(), missed, strict=True) if m],
        extra=[layout.classes[labels[detections.labels[j]]] for j in extra],
        repairs=repairs,
    )
    return result, verdict


def _numbers(box: np.ndarray) -> list[float]:
    return [round(float(value), 3) for value in box]
