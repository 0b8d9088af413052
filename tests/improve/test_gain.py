"""What a round gains, and the rule that does no harm."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from dataengine.data.layout import Layout
from dataengine.evaluate.average_precision import Matched, matched
from dataengine.evaluate.lift import difference
from dataengine.evaluate.results import Figure
from dataengine.improve.gain import Gain, gain, is_kept
from dataengine.judge.detector import Detections

CLASSES = ("car", "van")


def found(shares: tuple[float, float], n_images: int = 40, seed: int = 0) -> Matched:
    """A detector that finds these shares of the cars and of the vans, which come one of each in an image."""
    rng = np.random.default_rng(seed)
    layout = Layout([[20, 20, 10, 10, 0], [60, 20, 10, 10, 0]], [0, 1], CLASSES, (96, 96))
    detections = []
    for _ in range(n_images):
        keep = rng.random(2) < shares
        detections.append(Detections(layout.boxes[keep], np.full(keep.sum(), 0.9, np.float32), layout.labels[keep]))
    return matched(detections, [layout] * n_images, CLASSES, (0.5,))


def ap(one: Matched) -> np.ndarray:
    return one.average_precision().values[0]


def test_the_interval_over_seeds_is_welchs():
    """By the formula of Welch (1947), with the degrees of freedom of Satterthwaite."""
    base = [found((0.5, 0.5), seed=seed) for seed in range(3)]
    better = [found((0.9, 0.9), seed=seed) for seed in range(4)]
    high, low = (np.array([ap(one).mean() for one in each]) for each in (better, base))
    parts = high.var(ddof=1) / 4, low.var(ddof=1) / 3
    freedom = sum(parts) ** 2 / (parts[0] ** 2 / 3 + parts[1] ** 2 / 2)
    half = stats.t.ppf(0.975, freedom) * np.sqrt(sum(parts))
    measured = gain(better, base)
    assert measured.mean.value == pytest.approx(high.mean() - low.mean())
    assert (measured.mean.low, measured.mean.high) == pytest.approx(
        (measured.mean.value - half, measured.mean.value + half)
    )
    crossed = gain(better, base[1:] + base[:1])
    assert crossed.mean.high == pytest.approx(measured.mean.high), "seeds are no pairs"


def test_of_equal_detectors_few_rounds_are_kept():
    """Trainings with nothing but chance between them: the interval lies above 0 in at most some 2.5 %."""
    rng, kept = np.random.default_rng(0), 0
    for _ in range(1000):
        kept += difference(rng.normal(0.6, 0.02, 3), rng.normal(0.6, 0.02, 3)).low > 0
    assert kept < 35
    helped = sum(difference(rng.normal(0.7, 0.02, 3), rng.normal(0.6, 0.02, 3)).low > 0 for _ in range(100))
    assert helped > 90, "the control: a gain of five standard deviations is"


def test_a_single_seed_has_an_interval_over_images_that_few_images_widen():
    many = gain([found((0.7, 0.7), 160)], [found((0.5, 0.5), 160)])
    few = gain([found((0.7, 0.7), 16)], [found((0.5, 0.5), 16)])
    assert many.mean.low < many.mean.value < many.mean.high
    assert few.mean.high - few.mean.low > 2 * (many.mean.high - many.mean.low)
    same = gain([found((0.5, 0.5))], [found((0.5, 0.5))])
    assert (same.mean.low, same.mean.value, same.mean.high) == (0, 0, 0), "the same images are drawn for both"


def test_images_without_a_class_do_not_change_the_classes_of_the_mean():
    base, better = found((0.5, 0.0)), found((0.5, 1.0))
    objects = base.objects.copy()
    objects[1:, 1] = 0  # one van in all images
    of_first = [replace(one, objects=objects, images=[one.images[0], one.images[1][:1] * 0],
                        scores=[one.scores[0], one.scores[1][:1]], outcomes=[one.outcomes[0], one.outcomes[1][:1]])
                for one in (better, base)]  # fmt: skip
    measured = gain(of_first[:1], of_first[1:])
    assert measured.mean.value == pytest.approx(0.5)
    assert measured.by_class["van"].low >= 0.99


@pytest.mark.parametrize(
    ("shares", "kept", "why"),
    [
        ((0.9, 0.9), True, "lies above 0"),
        ((0.5, 0.5), False, "holds 0"),
        ((0.2, 0.2), False, "car loses"),
        ((1.0, 0.2), False, "van loses"),  # although the mean rises
    ],
)
def test_only_what_helps_and_harms_no_class_is_kept(shares, kept, why):
    base = [found((0.5, 0.5), 200, seed) for seed in range(3)]
    candidate = [found(shares, 200, seed + (10 if shares == (0.5, 0.5) else 0)) for seed in range(3)]
    measured = gain(candidate, base)
    verdict, reason = is_kept(measured, measured)
    assert (verdict, why in reason) == (kept, True), reason


def test_a_gain_over_the_best_so_far_is_refused_if_it_loses_to_real_images():
    up, down = Figure(0.05, 0.01, 0.09), Figure(-0.2, -0.3, -0.1)
    assert is_kept(Gain(up, {"car": up}), Gain(up, {"car": up}))[0]
    kept, why = is_kept(Gain(up, {"car": up}), Gain(up, {"car": down}))
    assert not kept
    assert why == "car loses 20.0 points [10.0, 30.0] to real images alone"
