"""Average precision of upright boxes as COCO computes it, by faster-coco-eval."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dataengine import geometry
from dataengine.data.layout import Layout
from dataengine.judge.detector import Detections
from dataengine.judge.verdict import class_map

FIGURES = ("AP", "AP50", "AP75", "AP small", "AP medium", "AP large")


def coco_average_precision(
    detections: Sequence[Detections], layouts: Sequence[Layout], detector_classes: Sequence[str]
) -> dict[str, float]:
    """COCO's AP (mean over IoU 0.5 to 0.95 and classes), AP50, AP75 and AP by size (areas up to 32^2, up to 96^2 and
    larger), in [0, 1], NaN where there is no such object. All layouts share one class list.

    Rotated boxes are replaced by their upright hulls. As in COCO, at most 100 detections per image are counted.
    Difficult objects and ignored regions become crowd annotations, which are not counted.
    """
    from faster_coco_eval import COCO, COCOeval_faster

    classes = layouts[0].classes
    truth = {
        "images": [{"id": i, "width": x.size[0], "height": x.size[1]} for i, x in enumerate(layouts, 1)],
        "categories": [{"id": c, "name": name} for c, name in enumerate(classes, 1)],
        "annotations": [],
    }
    for image, layout in enumerate(layouts, 1):
        for box, label, crowd in zip(_upright(layout.boxes), layout.labels, layout.difficult, strict=True):
            truth["annotations"].append(_annotation(image, label, box, iscrowd=int(crowd)))
        for box in _upright(layout.ignored):
            truth["annotations"] += [_annotation(image, label, box, iscrowd=1) for label in range(len(classes))]
    for number, annotation in enumerate(truth["annotations"], 1):
        annotation["id"] = number
    to_layout, annotations = class_map(classes, detector_classes), []
    for image, detected in enumerate(detections, 1):
        labels = to_layout[detected.labels]
        for box, label, score in zip(_upright(detected.boxes), labels, detected.scores, strict=True):
            if label >= 0:
                annotations.append(_annotation(image, label, box, score=float(score)))
    coco = COCO(truth)
    evaluation = COCOeval_faster(coco, coco.loadRes(annotations), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return {name: float("nan") if v < 0 else float(v) for name, v in zip(FIGURES, evaluation.stats, strict=False)}


def _annotation(image: int, label: int, box: np.ndarray, **more) -> dict:
    """box: x, y, width, height."""
    area = float(box[2] * box[3])
    return {"image_id": image, "category_id": int(label) + 1, "bbox": box.tolist(), "area": area, **more}


def _upright(boxes: np.ndarray) -> np.ndarray:
    """Hulls of boxes (N, 5) as x, y, width, height, float64 (N, 4)."""
    corners = geometry.to_aabb(boxes).astype(np.float64).reshape(-1, 4)
    return np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], 1)
