from __future__ import annotations

import hashlib
import subprocess
import sys

import numpy as np

from dataengine.world.noise import CELL, Rect, position_noise

PLACE = Rect(-70, 30, 150, 90)  # over borders of cells and over the origin


def test_overlapping_windows_agree_in_their_overlap_in_any_order():
    late = position_noise(3, "pixels", 1, 2, Rect(-20, 60, 80, 40))
    whole = position_noise(3, "pixels", 1, 2, PLACE)
    assert np.array_equal(whole[:, 30:70, 50:130], late)


def test_another_process_draws_the_same_noise():
    code = (
        "import hashlib; from dataengine.world.noise import Rect, position_noise;"
        "print(hashlib.sha256(position_noise(3, 'pixels', 1, 2, Rect(-70, 30, 150, 90)).tobytes()).hexdigest())"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert other == hashlib.sha256(position_noise(3, "pixels", 1, 2, PLACE).tobytes()).hexdigest()


def test_seed_stage_and_step_give_other_noise():
    draws = [position_noise(*key, 1, Rect(0, 0, 64, 64)).ravel()
             for key in ((0, "a", 0), (1, "a", 0), (0, "b", 0), (0, "a", 1))]  # fmt: skip
    correlation = np.corrcoef(draws)
    assert np.abs(correlation - np.eye(4)).max() < 0.06


def test_noise_is_standard_normal_and_independent_across_borders_of_cells():
    noise = position_noise(0, "pixels", 0, 1, Rect(-5 * CELL, 0, 8 * CELL, 4 * CELL))[0]
    assert abs(noise.mean()) < 0.02
    assert abs(noise.var() - 1) < 0.02
    borders = np.arange(CELL, 8 * CELL, CELL)
    for lag in (1, 2):
        left, right = noise[:, borders - lag], noise[:, borders]
        assert abs(np.corrcoef(left.ravel(), right.ravel())[0, 1]) < 0.08, "1,800 pairs: four standard errors"
    assert abs(np.corrcoef(noise[:, :-1].ravel(), noise[:, 1:].ravel())[0, 1]) < 0.02


def test_distant_cells_differ():
    places = [Rect(x * CELL, y * CELL, CELL, CELL) for x in (-(10**9), -1, 0, 1, 10**9) for y in (-(10**9), 0, 7)]
    drawn = np.array([position_noise(0, "pixels", 0, 1, place).ravel() for place in places])
    assert np.abs(np.corrcoef(drawn) - np.eye(len(places))).max() < 0.08
