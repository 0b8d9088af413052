"""Detections against a layout: which object was found, which was not, and what was found that nobody asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dataengine import geometry
from dataengine.data.layout import Layout
from dataengine.judge.detector import Detections

MATCH_IOU = 0.4  # looser than evaluation's 0.5: tiny boxes lose that much to a single pixel
EXCUSED_OVERLAP = 0.3  # a detection of which this share lies in an ignored or difficult region, or on an object


@dataclass(frozen=True)
class Match:
    """scores float32 (N,): score of the detection that matched each object, 0 where none did.
    detections int64 (N,): its index, -1 where none. extra int64 (K,): detections that match no object and lie in no
    ignored region, by falling score.
    """

    scores: np.ndarray
    detections: np.ndarray
    extra: np.ndarray


def overlaps(layout: Layout, boxes: np.ndarray) -> np.ndarray:
    """IoU of the layout's objects (N) with boxes (M, 5), float64 (N, M); of upright hulls for horizontal layouts."""
    if layout.kind == "hbb":
        boxes = geometry.from_aabb(geometry.to_aabb(boxes))
    return geometry.iou(layout.boxes, boxes)


def class_map(layout_classes: Sequence[str], detector_classes: Sequence[str]) -> np.ndarray:
    """Label in the layout's classes for each of the detector's, -1 where the layout has none; by name, not by case."""
    names = {name.lower(): i for i, name in enumerate(layout_classes)}
    return np.array([names.get(name.lower(), -1) for name in detector_classes], np.int64)


def match(
    detections: Detections, layout: Layout, detector_classes: Sequence[str], iou_threshold: float = MATCH_IOU
) -> Match:
    """Greedy by falling score: a detection takes the free object of its class that it overlaps most, from
    `iou_threshold` on. Detections of classes that the layout's data set does not have are left out."""
    labels = class_map(layout.classes, detector_classes)[detections.labels]
    iou = overlaps(layout, detections.boxes)
    same = layout.labels[:, None] == labels[None]
    scores = np.zeros(len(layout), np.float32)
    taken = np.full(len(layout), -1, np.int64)
    extra = []
    regions = np.concatenate([layout.ignored, layout.boxes[layout.difficult]])
    excused = (geometry.containment(detections.boxes, regions) > EXCUSED_OVERLAP).any(1)
    for j in range(len(detections)):
        if labels[j] < 0:
            continue
        candidates = np.where(same[:, j] & (taken < 0), iou[:, j], 0.0)
        best = int(candidates.argmax()) if len(candidates) else -1
        if best >= 0 and candidates[best] >= iou_threshold:
            taken[best], scores[best] = j, detections.scores[j]
        elif not excused[j] and not (same[:, j] & (iou[:, j] >= iou_threshold)).any():
            # a second detection of an object that is already matched is a duplicate, not another object
            extra.append(j)
    return Match(scores, taken, np.asarray(extra, np.int64))
