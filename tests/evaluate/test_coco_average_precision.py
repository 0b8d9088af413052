"""COCO's average precision against pycocotools, with crowds and ignored regions."""

import contextlib
import io

import numpy as np
import pytest
from test_average_precision import CLASSES, found, layout, random_images

from dataengine import geometry
from dataengine.evaluate.coco_average_precision import coco_average_precision


def by_pycocotools(detections, layouts):
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def upright(boxes):
        x1, y1, x2, y2 = geometry.to_aabb(boxes).astype(float).T
        return np.column_stack([x1, y1, x2 - x1, y2 - y1])

    truth, results = [], []
    for i, (seen, real) in enumerate(zip(detections, layouts, strict=True)):
        objects = [(box, c, d) for box, c, d in zip(upright(real.boxes), real.labels, real.difficult, strict=True)]
        objects += [(box, c, True) for box in upright(real.ignored) for c in range(len(CLASSES))]
        truth += [
            {"image_id": i, "category_id": int(c), "bbox": box.tolist(), "area": box[2] * box[3], "iscrowd": int(d)}
            for box, c, d in objects
        ]
        results += [
            {"image_id": i, "category_id": int(c), "bbox": box.tolist(), "score": float(s)}
            for box, c, s in zip(upright(seen.boxes), seen.labels, seen.scores, strict=True)
        ]
    for number, annotation in enumerate(truth, 1):
        annotation["id"] = number
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {
            "images": [{"id": i} for i in range(len(layouts))],
            "categories": [{"id": c, "name": name} for c, name in enumerate(CLASSES)],
            "annotations": truth,
        }
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats[:6]


@pytest.mark.parametrize("kind", ["hbb", "obb"])
def test_agrees_with_pycocotools(kind):
    detections, layouts = random_images(np.random.default_rng(0), 40, kind)
    region = np.array([[100, 100, 60, 60, 0]], np.float32)
    layouts = [layout(x.boxes, x.labels, kind=kind, difficult=x.difficult, ignored=region) for x in layouts]
    values = coco_average_precision(detections, layouts, CLASSES)
    expected = by_pycocotools(detections, layouts)
    assert 0.1 < values["AP"] < 0.9
    for value, other in zip(values.values(), expected, strict=True):
        assert np.isnan(value) if other < 0 else value == pytest.approx(other, abs=1e-6)


def test_labels_of_another_image_score_near_nothing():
    detections, layouts = random_images(np.random.default_rng(0), 40, "hbb")
    own = coco_average_precision(detections, layouts, CLASSES)["AP50"]
    assert coco_average_precision(detections, layouts[1:] + layouts[:1], CLASSES)["AP50"] < 0.2 * own


def test_nothing_found_is_zero_and_other_classes_do_not_count():
    truth = layout([[50, 50, 20, 10, 0]])
    assert coco_average_precision([found([], [])], [truth], CLASSES)["AP50"] == 0.0
    plane = found([[50, 50, 20, 10, 0]], [0.9])
    assert coco_average_precision([plane], [truth], ("plane",))["AP50"] == 0.0
    assert coco_average_precision([plane], [truth], ("Car",))["AP50"] == pytest.approx(1.0)
