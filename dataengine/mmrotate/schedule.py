"""Learning rates over a training of any length, as shares of the full rate."""

from __future__ import annotations

import math
from dataclasses import dataclass

WARMUP_SHARE = 0.1  # of the steps, at most


@dataclass(frozen=True)
class Schedule:
    """A linear warm-up from `start` over `warmup` steps, at most a tenth of all; then the full rate, which is
    multiplied by `drop` at each share of the training in `drops`, or falls along a cosine from the share `fall` to
    `end`."""

    start: float
    warmup: int
    drops: tuple[float, ...] = ()
    fall: float | None = None
    end: float = 1.0
    drop: float = 0.1

    def warmup_steps(self, steps: int) -> int:
        """The warm-up of a training of so many steps.

        >>> SCHEDULES["1x"].warmup_steps(100_000), SCHEDULES["1x"].warmup_steps(300)
        (500, 30)
        """
        return max(1, min(self.warmup, round(WARMUP_SHARE * steps)))

    def at(self, step: int, steps: int) -> float:
        """The share of the full learning rate at a step, from 0, of a training of `steps`.

        >>> [round(SCHEDULES["1x"].at(step, 12_000), 3) for step in (0, 250, 500, 7_999, 8_000, 11_000)]
        [0.333, 0.667, 1.0, 1.0, 0.1, 0.01]
        """
        warmup = self.warmup_steps(steps)
        if step < warmup:
            return self.start + (1 - self.start) * step / warmup
        if self.fall is None:
            return self.drop ** sum(step >= share * steps for share in self.drops)
        begin = max(warmup, round(self.fall * steps))
        progress = min(1.0, max(0, step - begin) / max(1, steps - begin))
        return self.end + (1 - self.end) * (1 + math.cos(math.pi * progress)) / 2


SCHEDULES = {
    "cosine": Schedule(0.01, 10**9, fall=0.0, end=0.02),  # of short trainings
    "1x": Schedule(1 / 3, 500, drops=(8 / 12, 11 / 12)),  # of mmrotate, 12 epochs
    "3x": Schedule(1e-5, 1000, fall=0.5, end=0.05),  # of mmrotate's RTMDet-R, 36 epochs
}
