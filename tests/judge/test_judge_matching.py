import numpy as np
import pytest
import shapely
from shapely import affinity

from dataengine.data.layout import Layout
from dataengine.judge.verdict import match

CLASSES = ("car", "ship")
BOX = [50, 50, 20, 10, 0.3]


def layout(boxes, labels=None, **more) -> Layout:
    boxes = np.asarray(boxes, np.float32).reshape(-1, 5)
    return Layout(boxes, np.zeros(len(boxes)) if labels is None else labels, CLASSES, (200, 200), **more)


def test_the_highest_score_matches_the_object_and_a_duplicate_is_not_extra(found):
    result = match(found([BOX, BOX], [0.6, 0.9]), layout([BOX]), CLASSES)
    assert result.scores.tolist() == [np.float32(0.9)]
    assert result.detections.tolist() == [1]
    assert result.ious[0] == pytest.approx(1)
    assert not len(result.extra)


def test_two_objects_under_one_detection_are_not_both_found(found):
    result = match(found([BOX], [0.9]), layout([BOX, BOX]), CLASSES)
    assert sorted(result.scores.tolist()) == [0, np.float32(0.9)]


def test_object_of_another_class_is_missed_and_its_detection_is_extra(found):
    result = match(found([BOX], [0.9], [1]), layout([BOX], [0]), CLASSES)
    assert result.scores.tolist() == [0]
    assert result.extra.tolist() == [0]
    assert not len(match(found([BOX], [0.9], [1]), layout([BOX], [1]), CLASSES).extra)


def test_classes_are_mapped_by_name_and_foreign_ones_left_out(found):
    result = match(found([BOX, BOX], [0.9, 0.8], [0, 1]), layout([BOX], [1]), ("tree", "Ship"))
    assert result.detections.tolist() == [1]
    assert not len(result.extra)


@pytest.mark.parametrize(
    ("more", "extra"),
    [
        ({}, 1),
        ({"ignored": [[150, 150, 60, 60, 0]]}, 0),
        ({"ignored": [[30, 30, 20, 20, 0]]}, 1),
        ({"difficult": [False, True]}, 0),
    ],
)
def test_a_detection_in_an_ignored_or_difficult_region_is_not_extra(found, more, extra):
    boxes = [BOX, [150, 150, 80, 80, 0]] if "difficult" in more else [BOX]
    result = match(found([BOX, [150, 150, 20, 10, 1]], [0.9, 0.8]), layout(boxes, **more), CLASSES)
    assert len(result.extra) == extra


def test_horizontal_layouts_compare_upright_hulls(found):
    tilted, square = [[50, 50, 28.28, 28.28, np.pi / 4]], [[50, 50, 40, 40, 0]]
    assert match(found(tilted, [0.9]), layout(square, kind="hbb"), CLASSES, 0.9).scores[0] > 0
    assert match(found(tilted, [0.9]), layout(square, kind="obb"), CLASSES, 0.9).scores[0] == 0


def polygon(box):
    cx, cy, w, h, theta = map(float, box)
    turned = affinity.rotate(shapely.box(-w / 2, -h / 2, w / 2, h / 2), theta, origin=(0, 0), use_radians=True)
    return affinity.translate(turned, cx, cy)


def test_agrees_with_a_plain_loop_over_shapely_polygons(found):
    rng = np.random.default_rng(0)
    n_matched = n_extra = 0
    for _ in range(30):
        n, d = rng.integers(0, 8, 2)
        boxes = np.column_stack([rng.uniform(0, 60, (n, 2)), rng.uniform(15, 30, (n, 2)), rng.uniform(-1.5, 1.5, n)])
        picks = rng.integers(0, max(n, 1), d if n else 0)
        near = boxes[picks] + rng.normal(0, 3, (len(picks), 5)) * [1, 1, 1, 1, 0.02]
        labels, guessed = rng.integers(0, 2, n), rng.integers(0, 2, len(picks))
        scores = rng.permutation(np.linspace(0.1, 0.9, len(picks)))
        detections, truth = found(near, scores, guessed), layout(boxes, labels)
        taken, extra = {}, []
        for j in sorted(range(len(picks)), key=lambda j: -scores[j]):
            ious = {}
            for i in range(n):
                a, b = polygon(truth.boxes[i]), polygon(detections.boxes[j])
                if labels[i] == guessed[j]:
                    ious[i] = a.intersection(b).area / a.union(b).area
            good = {i: iou for i, iou in ious.items() if iou >= 0.4}
            free = {i: iou for i, iou in good.items() if i not in taken}
            if free:
                taken[max(free, key=free.get)] = j
            elif not good:
                extra.append(j)
        result = match(detections, truth, CLASSES)
        assert {i: j for i, j in enumerate(result.detections) if j >= 0} == taken
        assert result.extra.tolist() == extra
        n_matched, n_extra = n_matched + len(taken), n_extra + len(extra)
    assert n_matched > 20
    assert n_extra > 20
