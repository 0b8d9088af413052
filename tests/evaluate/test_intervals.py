"""Intervals of AP50 by resampling images: they cover the true value as often as they say, with rare classes too."""

from __future__ import annotations

import numpy as np
import pytest

from dataengine.data.layout import Layout
from dataengine.evaluate.average_precision import Matched, average_precision, matched
from dataengine.evaluate.layout_score import rare_classes
from dataengine.evaluate.results import bias_corrected, bootstrap
from dataengine.judge.detector import Detections

CLASSES = ("car", "ship", "bus")
SHARES = np.array([0.9, 0.4, 0.08])  # of the images, that show an object of the class
FOUND = np.array([0.8, 0.5, 0.2])  # of the objects


def images(n: int, rng: np.random.Generator) -> Matched:
    """n images of up to two objects a class; found ones score higher than false ones, which are everywhere."""
    objects = (rng.random((n, 3)) < SHARES) * rng.integers(1, 3, (n, 3))
    numbers, scores, outcomes = [], [], []
    for c in range(3):
        right, wrong = rng.binomial(objects[:, c], FOUND[c]), rng.binomial(1, 0.3, n)
        number = np.concatenate([np.repeat(np.arange(n), right), np.repeat(np.arange(n), wrong)])
        positive = np.arange(len(number)) < right.sum()
        numbers.append(number)
        scores.append(rng.normal(np.where(positive, 1.0, 0.0), 1.0))
        outcomes.append(np.where(positive, 1, -1).astype(np.int8)[:, None])
    return Matched(CLASSES, (0.5,), objects, numbers, scores, outcomes)


def coverage(interval, n: int = 60, times: int = 120) -> tuple[float, float]:
    """Share of intervals that hold the value of 100,000 images, and their mean width."""
    truth = images(100_000, np.random.default_rng(0)).average_precision().mean(0.5)
    held, width = [], []
    for seed in range(1, times + 1):
        rng = np.random.default_rng(seed)
        one = images(n, rng)
        if (one.objects.sum(0) == 0).any():
            continue  # an image set without buses says nothing about them, as its table does
        figure = interval(one.average_precision().mean(0.5), one.resampled_means(80, rng))
        held.append(figure.low <= truth <= figure.high)
        width.append(figure.high - figure.low)
    return float(np.mean(held)), float(np.mean(width))


def dropping(one: Matched, rng: np.random.Generator) -> np.ndarray:
    """As it was: the mean over the classes that the resample has."""
    n = len(one.objects)
    return np.array([one.average_precision(rng.integers(0, n, n)).mean() for _ in range(100)])


def test_an_interval_of_95_percent_covers_the_true_value_about_that_often():
    """Mutation: the plain percentiles, which lie too high since average precision rises when it is resampled."""
    held, width = coverage(bias_corrected)
    assert 0.9 <= held <= 0.99
    assert width < 0.25, "control: an interval of everything would cover it too"
    assert coverage(bootstrap)[0] < 0.89


def rare_and_never_found(n: int = 60) -> Matched:
    """Cars found in half of all images without a false one, and a bus that is never found in two of 60."""
    objects = np.zeros((n, 2), np.int64)
    objects[:, 0], objects[:2, 1] = 1, 1
    found = np.arange(0, n, 2)
    outcomes = [np.ones((len(found), 1), np.int8), np.zeros((0, 1), np.int8)]
    return Matched(
        ("car", "bus"), (0.5,), objects, [found, np.zeros(0, int)], [np.ones(len(found)), np.zeros(0)], outcomes
    )


def test_a_class_that_a_resample_lacks_is_not_dropped_from_the_mean():
    """Mutation: dropping it doubles the upper end, as issue 31 saw (0.253 [0.205, 0.499])."""
    one = rare_and_never_found()
    value = one.average_precision().mean(0.5)
    assert value == pytest.approx(0.25)
    figure = bias_corrected(value, one.resampled_means(300, np.random.default_rng(0)))
    assert figure.high < 0.34
    assert figure.low > 0.16
    assert bootstrap(value, dropping(one, np.random.default_rng(0))).high > 0.45


def test_precision_of_chosen_images_is_that_of_these_images_alone():
    """Independent: the images are copied, and evaluated as a set of their own."""
    rng, classes = np.random.default_rng(3), ("car", "ship")
    layouts, found = [], []
    for _ in range(12):
        boxes = np.column_stack([rng.uniform(20, 180, (6, 2)), np.full((6, 2), (20, 10)), rng.uniform(-1, 1, 6)])
        layouts.append(Layout(boxes[:4], rng.integers(0, 2, 4), classes, (200, 200)))
        found.append(Detections(np.float32(boxes[1:]), np.float32(rng.random(5)), rng.integers(0, 2, 5)))
    one = matched(found, layouts, classes)
    chosen = rng.integers(0, 12, 12)
    expected = average_precision([found[i] for i in chosen], [layouts[i] for i in chosen], classes)
    assert one.average_precision(chosen).values == pytest.approx(expected.values, nan_ok=True)
    assert one.average_precision(chosen).detections.tolist() == expected.detections.tolist()


def test_a_class_of_two_objects_in_700_images_is_flagged_and_one_of_many_is_not():
    car = Layout([[9, 9, 8, 4, 0]], [0], ("car", "bus"), (99, 99))
    bus = Layout([[9, 9, 8, 4, 0]], [1], ("car", "bus"), (99, 99))
    [note] = rare_classes([bus] * 2 + [car] * 698, "generated")
    assert "bus has 2 objects in 2 of 700 generated images" in note
    assert rare_classes([bus] * 20 + [car] * 680, "generated") == []
