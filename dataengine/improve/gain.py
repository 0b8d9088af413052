"""Do no harm: what more training data brings on the validation part, with its interval, and whether it is kept."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dataengine.evaluate.average_precision import Matched
from dataengine.evaluate.lift import difference
from dataengine.evaluate.results import Figure, bootstrap

N_RESAMPLES = 400


@dataclass(frozen=True)
class Gain:
    """Differences of AP50 with their 95 % intervals. mean: of the mean over classes. by_class: of each class that the
    images show."""

    mean: Figure
    by_class: dict[str, Figure]

    @property
    def harmed(self) -> tuple[str, ...]:
        """Classes whose interval lies below 0."""
        return tuple(name for name, figure in self.by_class.items() if figure.high < 0)


def gain(candidate: Sequence[Matched], base: Sequence[Matched]) -> Gain:
    """What the candidate's trainings gain over the base's on the same images.

    Both have one IoU threshold. Intervals are Welch's over the trainings, which share no more than first weights where
    they share a seed: in 121 pairs of docs/lift-outcomes.json the AP50 of one says nothing of that of the other
    (correlation 0.02). Of a single training each, a bootstrap over images, the same images for both.
    """
    found, before = (np.array([_values(one) for one in each]) for each in (candidate, base))  # (S, C)
    if len(found) == len(before) == 1:
        return _resampled(candidate[0], base[0], found[0] - before[0])
    by_class = {
        name: difference(found[:, c], before[:, c])
        for c, name in enumerate(candidate[0].classes)
        if not math.isnan(found[0, c])
    }
    return Gain(difference(np.nanmean(found, 1), np.nanmean(before, 1)), by_class)


def _values(found: Matched, chosen: np.ndarray | None = None) -> np.ndarray:
    return found.average_precision(chosen).values[0]


def _resampled(candidate: Matched, base: Matched, difference: np.ndarray) -> Gain:
    """The gain of a single seed. A class that a resample lacks counts there as in the whole set, so that the mean is
    always over the same classes."""
    rng, n = np.random.default_rng(0), len(candidate.objects)
    draws = [rng.integers(0, n, n) for _ in range(N_RESAMPLES)]
    resampled = np.array([_values(candidate, draw) - _values(base, draw) for draw in draws])  # (R, C)
    present = ~np.isnan(difference)
    filled = np.where(np.isnan(resampled), difference, resampled)[:, present]
    names = np.array(candidate.classes)[present].tolist()
    by_class = {
        name: bootstrap(float(value), column)
        for name, value, column in zip(names, difference[present], filled.T, strict=True)
    }
    return Gain(bootstrap(float(difference[present].mean()), filled.mean(1)), by_class)


def is_kept(over_best: Gain, over_real: Gain) -> tuple[bool, str]:
    """Whether a round is kept, and why. It is kept if the interval of its gain over the best so far lies above 0, and
    that of no class lies below 0, compared with real images alone.

    >>> rise, fall = Figure(0.1, 0.05, 0.15), Figure(-0.1, -0.15, -0.05)
    >>> is_kept(Gain(rise, {}), Gain(rise, {"car": rise}))
    (True, 'the interval of its gain lies above 0')
    >>> is_kept(Gain(rise, {}), Gain(rise, {"car": rise, "van": fall}))
    (False, 'van loses 10.0 points [5.0, 15.0] to real images alone')
    """
    if over_real.harmed:
        losses = [f"{name} loses {points(_negative(over_real.by_class[name]))}" for name in over_real.harmed]
        return False, f"{' and '.join(losses)} to real images alone"
    if over_best.mean.low > 0:
        return True, "the interval of its gain lies above 0"
    side = "lies below" if over_best.mean.high < 0 else "holds"
    return False, f"the interval of its gain {side} 0"


def points(figure: Figure) -> str:
    """A difference in points of AP50 with its interval.

    >>> points(Figure(0.1, 0.05, 0.15))
    '10.0 points [5.0, 15.0]'
    """
    limits = "" if math.isnan(figure.low) else f" [{100 * figure.low:.1f}, {100 * figure.high:.1f}]"
    return f"{100 * figure.value:.1f} points{limits}"


def _negative(figure: Figure) -> Figure:
    return Figure(-figure.value, -figure.high, -figure.low)
