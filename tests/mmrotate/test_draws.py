"""The images of each step of a training: fixed shares, all images before any again, and nothing that a kill changes."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest
import torch

from dataengine.mmrotate.draws import Draws
from dataengine.mmrotate.schedule import SCHEDULES


class Noisy:
    """Images whose augmentation draws from the generators that mmdet's transforms use."""

    def __init__(self, name: str, n: int):
        self.name, self.n = name, n

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, i: int) -> tuple:
        return self.name, i, random.random(), float(np.random.rand()), float(torch.rand(()))  # noqa: NPY002


def draws(seed: int = 0) -> Draws:
    return Draws([Noisy("real", 5), Noisy("synthetic", 3)], (3, 1), seed)


def test_any_place_can_be_drawn_alone_and_gives_what_it_gives_in_order():
    in_order = [draws()[place] for place in range(40)]
    alone = draws()
    assert [alone[place] for place in reversed(range(40))] == in_order[::-1]
    assert [draws()[place] for place in range(20, 40)] == in_order[20:], "as a training that continues"
    assert [draws(1)[place] for place in range(40)] != in_order, "control: the seed matters"


def test_batches_have_fixed_shares_and_all_images_are_shown_before_any_again():
    shown = [draws()[place][:2] for place in range(4 * 15)]
    for step in range(15):
        assert Counter(name for name, _ in shown[4 * step : 4 * step + 4]) == {"real": 3, "synthetic": 1}
    for name, n in (("real", 5), ("synthetic", 3)):
        numbers = [i for source, i in shown if source == name]
        passes = [numbers[k : k + n] for k in range(0, len(numbers), n)]
        assert all(sorted(one) == list(range(n)) for one in passes)
        assert len({tuple(one) for one in passes}) > 1, "control: in another order each time"


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("steps", [1, 2, 7, 300, 100_000])
def test_every_schedule_has_a_rate_for_every_step_and_ends_lower_than_its_full_rate(name, steps):
    schedule = SCHEDULES[name]
    rates = [schedule.at(step, steps) for step in sorted({0, steps // 20, steps // 2, steps - 1})]
    assert all(0 < rate <= 1 for rate in rates)
    if steps >= 300:
        assert rates[0] < 0.5
        assert rates[-1] < 0.1
        assert max(rates) > 0.4
    assert schedule.warmup_steps(steps) <= max(1, steps / 10)
