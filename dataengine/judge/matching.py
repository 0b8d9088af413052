"""Detections against a layout: which object was found, which was not, and what was found that nobody asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dataengine import geometry
from dataengine.data.layout import Layout, class_key
from dataengine.judge.detector import Detections

MATCH_IOU = 0.4  # looser than evaluation's 0.5: tiny boxes lose that much to a single pixel
EXCUSED_OVERLAP = 0.3  # a detection of which this share lies in an ignored region or on a difficult object


@dataclass(frozen=True)
class Match:
    """scores float32 (N,): score of the detection that matched each object, 0 where none did; the recall score.
    detections int64 (N,): its index, -1 where none. ious float32 (N,): its IoU with the object, 0 where none.
    extra int64 (K,): detections that match no object and lie in no ignored region, by falling score.
    """

    scores: np.ndarray
    detections: np.ndarray
    ious: np.ndarray
    extra: np.ndarray


def overlaps(layout: Layout, boxes: np.ndarray) -> np.ndarray:
    """IoU of the layout's objects (N) with boxes (M, 5), float64 (N, M); of upright hulls for horizontal layouts."""
    return geometry.iou(layout.boxes, geometry.hulls(boxes) if layout.kind == "hbb" else boxes)


def class_map(layout_classes: Sequence[str], detector_classes: Sequence[str]) -> np.ndarray:
    """Label in the layout's classes for each of the detector's, -1 where the layout has none; by name, not by case."""
    names = {class_key(name): i for i, name in enumerate(layout_classes)}
    return np.array([names.get(class_key(name), -1) for name in detector_classes], np.int64)


def match(
    detections: Detections, layout: Layout, detector_classes: Sequence[str], iou_threshold: float = MATCH_IOU
) -> Match:
    """Greedy by falling score: a detection takes the free object of its class that it overlaps most, from
    `iou_threshold` on. Detections of classes that the layout's data set does not have are left out."""
    labels = class_map(layout.classes, detector_classes)[detections.labels]
    iou = overlaps(layout, detections.boxes)
    fits = (layout.labels[:, None] == labels[None]) & (iou >= iou_threshold)  # (N, D)
    taken = np.full(len(layout), -1, np.int64)
    extra = []
    regions = np.concatenate([layout.ignored, layout.boxes[layout.difficult]])
    excused = (geometry.containment(detections.boxes, regions) > EXCUSED_OVERLAP).any(1)
    for j in np.argsort(-detections.scores, kind="stable"):
        if labels[j] < 0:
            continue
        free = fits[:, j] & (taken < 0)
        if free.any():
            taken[np.where(free, iou[:, j], -1).argmax()] = j
        elif not excused[j] and not fits[:, j].any():
            # a second detection of an object that is already matched is a duplicate, not another object
            extra.append(j)
    matched = taken >= 0
    scores, ious = np.zeros((2, len(layout)), np.float32)
    scores[matched] = detections.scores[taken[matched]]
    ious[matched] = iou[matched, taken[matched]]
    return Match(scores, taken, ious, np.asarray(extra, np.int64))
