"""Average precision against curves by hand, pycocotools and mmrotate's own evaluation."""

import contextlib
import io

import numpy as np
import pytest

from dataengine.data.layout import Layout
from dataengine.evaluate.average_precision import average_precision
from dataengine.judge.detector import Detections

CLASSES = ("car", "ship")


def found(boxes, scores, labels=None) -> Detections:
    boxes = np.asarray(boxes, np.float32).reshape(-1, 5)
    labels = np.zeros(len(boxes), np.int64) if labels is None else np.asarray(labels, np.int64)
    return Detections(boxes, np.asarray(scores, np.float32), labels)


def layout(boxes, labels=None, **more) -> Layout:
    boxes = np.asarray(boxes, np.float32).reshape(-1, 5)
    return Layout(boxes, np.zeros(len(boxes)) if labels is None else labels, CLASSES, (200, 200), **more)


def random_images(rng: np.random.Generator, n: int, kind: str, difficult_share: float = 0.2):
    """Objects on a grid, so that which detection belongs to which object is beyond doubt, detected with errors."""
    detections, layouts = [], []
    for _ in range(n):
        cells = rng.permutation(16)[: rng.integers(1, 9)]
        centre = np.stack([cells % 4, cells // 4], 1) * 50 + 25 + rng.uniform(-4, 4, (len(cells), 2))
        angle = np.zeros(len(cells)) if kind == "hbb" else rng.uniform(-np.pi / 2, np.pi / 2, len(cells))
        boxes = np.column_stack([centre, rng.uniform(20, 30, len(cells)), rng.uniform(8, 20, len(cells)), angle])
        labels = rng.integers(0, 2, len(cells))
        difficult = rng.random(len(cells)) < difficult_share
        difficult[0] = False  # mmrotate forgets the difficult objects of an image that shows no others
        layouts.append(layout(boxes, labels, kind=kind, difficult=difficult))
        seen = rng.random(len(cells)) < 0.8
        noise = rng.normal(0, 1, (len(cells), 5)) * [1, 1, 1, 0.5, 0.05 if kind == "obb" else 0]
        empty = np.setdiff1d(np.arange(16), cells)[:3]
        wrong = np.column_stack([empty % 4 * 50 + 25, empty // 4 * 50 + 25, *np.full((2, len(empty)), 15), 0 * empty])
        every = np.concatenate([(boxes + noise)[seen], wrong])
        every_labels = np.concatenate([labels[seen], rng.integers(0, 2, len(wrong))])
        scores = np.concatenate([rng.uniform(0.2, 1, seen.sum()), rng.uniform(0, 0.7, len(wrong))])
        detections.append(found(every, scores, every_labels))
    return detections, layouts


def test_area_of_a_curve_drawn_by_hand():
    """Two objects; right, wrong, right: precision 1 up to recall 1/2, then 2/3."""
    truth = layout([[50, 50, 20, 10, 0], [150, 50, 20, 10, 0]])
    seen = found([[50, 50, 20, 10, 0], [100, 150, 20, 10, 0], [150, 50, 20, 10, 0]], [0.9, 0.8, 0.7])
    assert average_precision([seen], [truth], CLASSES, (0.5,)).at(0.5) == {"car": pytest.approx(0.5 + 0.5 * 2 / 3)}


def test_second_detection_of_an_object_is_wrong():
    truth = layout([[50, 50, 20, 10, 0], [150, 50, 20, 10, 0]])
    boxes = [[50, 50, 20, 10, 0], [51, 50, 20, 10, 0], [150, 50, 20, 10, 0]]
    result = average_precision([found(boxes, [0.9, 0.8, 0.7])], [truth], CLASSES, (0.5,))
    assert result.mean() == pytest.approx(0.5 + 0.5 * 2 / 3)


def test_score_order_counts_over_images_not_within_one():
    """A sure mistake in one image comes before a hesitant hit in another."""
    truth = [layout([[50, 50, 20, 10, 0]]), layout([])]
    seen = [found([[50, 50, 20, 10, 0]], [0.4]), found([[50, 50, 20, 10, 0]], [0.9])]
    assert average_precision(seen, truth, CLASSES, (0.5,)).mean() == pytest.approx(0.5)


@pytest.mark.parametrize("what", ["difficult", "ignored", "neither"])
def test_detection_of_a_difficult_object_or_in_an_ignored_region_counts_neither_way(what):
    sure, other = [50, 50, 20, 10, 0.3], [150, 50, 20, 10, 0.3]
    truth = {
        "difficult": layout([sure, other], difficult=[True, False]),
        "ignored": layout([other], ignored=[[50, 50, 60, 60, 0]]),
        "neither": layout([other]),
    }[what]
    result = average_precision([found([sure, other], [0.9, 0.8])], [truth], CLASSES, (0.5,))
    assert result.objects.tolist() == [1, 0]
    assert result.mean() == pytest.approx(0.5 if what == "neither" else 1.0)


def test_class_without_objects_has_no_average_and_missed_class_has_zero():
    truth = layout([[50, 50, 20, 10, 0]], [1])
    result = average_precision([found([[50, 50, 20, 10, 0]], [0.9], [0])], [truth], CLASSES, (0.5,))
    assert result.at(0.5) == {"ship": 0.0}
    assert np.isnan(average_precision([found([], [])], [layout([])], CLASSES).mean())


def test_classes_are_matched_by_name():
    truth = layout([[50, 50, 20, 10, 0]], [1])
    seen = found([[50, 50, 20, 10, 0]], [0.9], [0])
    assert average_precision([seen], [truth], ("Ship", "plane")).mean() == 1.0
    assert average_precision([seen], [truth], ("plane", "ship")).mean() == 0.0


def test_angle_counts_for_rotated_boxes_and_not_for_horizontal_ones():
    turned = found([[50, 50, 40, 8, np.pi / 2 - 0.001]], [0.9])
    assert average_precision([turned], [layout([[50, 50, 40, 8, 0]])], CLASSES, (0.5,)).mean() == 0.0
    tilted = found([[50, 50, 28.28, 28.28, np.pi / 4]], [0.9])  # its upright hull is the square of side 40
    square = [[50, 50, 40, 40, 0]]
    assert average_precision([tilted], [layout(square, kind="hbb")], CLASSES, (0.95,)).mean() == 1.0
    assert average_precision([tilted], [layout(square)], CLASSES, (0.6,)).mean() == 0.0


def test_recall_and_counts_of_a_case_by_hand():
    """Two objects, one found; one detection of a difficult object does not count, a wrong one does."""
    truth = layout([[50, 50, 20, 10, 0], [150, 50, 20, 10, 0], [50, 150, 20, 10, 0]], difficult=[False, False, True])
    boxes = [[50, 50, 20, 10, 0], [100, 100, 20, 10, 0], [50, 150, 20, 10, 0]]
    result = average_precision([found(boxes, [0.9, 0.8, 0.7])], [truth], CLASSES, (0.5,))
    assert result.recalls[0, 0] == 0.5
    assert np.isnan(result.recalls[0, 1])
    assert result.objects.tolist() == [2, 0]
    assert result.detections.tolist() == [[2, 0]]


def test_sizes_outside_the_range_count_neither_way():
    small, large, stray = [50, 50, 10, 10, 0.2], [150, 50, 40, 30, 0.2], [100, 150, 40, 30, 0]
    seen, truth = found([stray, large, small], [0.9, 0.8, 0.7]), layout([small, large])
    assert average_precision([seen], [truth], CLASSES, (0.5,), areas=(0, 200)).mean() == 1.0
    assert average_precision([seen], [truth], CLASSES, (0.5,), areas=(200, np.inf)).mean() == pytest.approx(0.5)
    assert average_precision([seen], [truth], CLASSES, (0.5,)).mean() == pytest.approx(2 / 3)


@pytest.mark.parametrize("areas", [(0.0, np.inf), (0.0, 350.0), (350.0, np.inf)])
def test_agrees_with_pycocotools_on_horizontal_boxes(areas):
    coco, cocoeval = pytest.importorskip("pycocotools.coco"), pytest.importorskip("pycocotools.cocoeval")
    detections, layouts = random_images(np.random.default_rng(0), 60, "hbb", difficult_share=0)
    truth = {"images": [], "annotations": [], "categories": [{"id": c + 1, "name": n} for c, n in enumerate(CLASSES)]}
    results = []
    for i, (seen, real) in enumerate(zip(detections, layouts, strict=True)):
        truth["images"].append({"id": i, "width": 200, "height": 200})
        for box, label in zip(real.boxes, real.labels, strict=True):
            x, y, w, h = map(float, (box[0] - box[2] / 2, box[1] - box[3] / 2, box[2], box[3]))
            truth["annotations"].append(
                {"id": len(truth["annotations"]) + 1, "image_id": i, "category_id": int(label) + 1, "area": w * h,
                 "bbox": [x, y, w, h], "iscrowd": 0}
            )  # fmt: skip
        for box, label, score in zip(seen.boxes, seen.labels, seen.scores, strict=True):
            x, y, w, h = map(float, (box[0] - box[2] / 2, box[1] - box[3] / 2, box[2], box[3]))
            entry = {"image_id": i, "category_id": int(label) + 1, "bbox": [x, y, w, h], "score": float(score)}
            results.append(entry)
    with contextlib.redirect_stdout(io.StringIO()):
        reference = coco.COCO()
        reference.dataset = truth
        reference.createIndex()
        evaluation = cocoeval.COCOeval(reference, reference.loadRes(results), "bbox")
        evaluation.params.recThrs = np.linspace(0, 1, 20001)  # so fine that its sum is the area
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[areas[0], min(areas[1], 1e10)]], ["these"]
        evaluation.evaluate()
        evaluation.accumulate()
    expected = evaluation.eval["precision"][:, :, :, 0, -1].mean(1)  # (T, C)
    result = average_precision(detections, layouts, CLASSES, areas=areas)
    assert 0.2 < result.mean() < 0.8, "the sample must exercise both hits and misses"
    np.testing.assert_allclose(result.values, expected, atol=1e-3)
    np.testing.assert_allclose(result.recalls, evaluation.eval["recall"][:, :, 0, -1], atol=1e-9)


@pytest.mark.mmrotate
def test_agrees_with_mmrotate_on_rotated_boxes():
    from mmrotate.evaluation import functional as core

    detections, layouts = random_images(np.random.default_rng(1), 40, "obb")
    dets = [
        [np.column_stack([d.boxes, d.scores])[d.labels == c].astype(np.float32) for c in range(2)] for d in detections
    ]
    annotations = [
        {
            "bboxes": real.boxes[~real.difficult], "labels": real.labels[~real.difficult],
            "bboxes_ignore": real.boxes[real.difficult], "labels_ignore": real.labels[real.difficult],
        }
        for real in layouts
    ]  # fmt: skip
    for threshold in (0.5, 0.75):
        _, expected = core.eval_rbbox_map(
            dets, annotations, iou_thr=threshold, use_07_metric=False, dataset=CLASSES, logger="silent", nproc=1
        )
        result = average_precision(detections, layouts, CLASSES, (threshold,))
        assert 0.05 < result.mean() < 0.9
        np.testing.assert_allclose(result.values[0], [e["ap"] for e in expected], atol=1e-4)
