"""The fit score, its floor and its control."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import wasserstein_distance
from test_layout_reuse import draws

from dataengine.layouts.fit_score import TERMS, UniformSampler, _circular_energy, fit_score, floor
from dataengine.layouts.prior_fit import fit
from dataengine.layouts.prior_sampler import PriorSampler
from dataengine.layouts.reuse import ReuseSampler
from dataengine.layouts.windows import random_windows


@pytest.fixture(scope="module")
def real(lots):
    return random_windows(lots, (256, 256), np.random.default_rng(3), n=4)


def test_layouts_fit_themselves_perfectly(real):
    score = fit_score(real, real)
    assert score.score == 0
    assert set(score.terms) == set(TERMS)


def test_counts_are_compared_by_wassersteins_distance(real):
    few = [layout.select(np.arange(1)) for layout in real]
    counts = np.log([len(layout) for layout in real])
    expected = wasserstein_distance(np.zeros(len(few)), counts) / counts.std()
    assert fit_score(few, real).terms["count"] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    ("term", "change"),
    [
        ("side", lambda lot: replace(lot, boxes=lot.boxes * np.float32([1, 1, 1.5, 1.5, 1]))),
        ("aspect", lambda lot: replace(lot, boxes=lot.boxes * np.float32([1, 1, 1.4, 1, 1]))),
        ("heading", lambda lot: replace(lot, boxes=lot.boxes * np.float32([1, 1, 1, 1, 0.2]))),
        ("place", lambda lot: replace(lot, boxes=lot.boxes * np.float32([0.6, 0.6, 1, 1, 1]))),
        ("classes", lambda lot: replace(lot, labels=np.where(lot.labels == 1, 2, lot.labels))),
        ("distance", lambda lot: replace(lot, boxes=lot.boxes * np.float32([1.5, 1.5, 1, 1, 1]))),
        (
            "acquisition",
            lambda lot: replace(
                lot, acquisition=lot.acquisition.model_copy(update={"altitude_m": lot.acquisition.altitude_m * 2})
            ),
        ),
    ],
)
def test_each_term_detects_its_kind_of_error(real, term, change):
    spoilt = fit_score([change(layout) for layout in real], real)
    assert spoilt.terms[term] > 5 * max(floor(real, np.random.default_rng(0)).terms[term], 0.02)


def test_neighbours_that_are_not_parallel_are_detected(real):
    rng = np.random.default_rng(0)
    spoilt = [
        replace(
            layout,
            boxes=np.column_stack([layout.boxes[:, :4], rng.uniform(-np.pi / 2, np.pi / 2, len(layout))]),
        )
        for layout in real
    ]
    assert fit_score(spoilt, real).terms["neighbour_angle"] > 0.5


def test_heading_distance_has_a_period_of_half_a_turn():
    just_below, just_above = np.full(50, np.pi / 2 - 0.01), np.full(50, -np.pi / 2 + 0.01)
    assert _circular_energy(just_below, just_above) < 0.3
    assert _circular_energy(np.zeros(50), np.full(50, -np.pi / 2)) == pytest.approx(1, abs=0.01)


def test_samplers_are_near_the_floor_and_uniform_boxes_are_far_from_it(lots, real):
    lowest = floor(real, np.random.default_rng(0)).score
    reuse = fit_score(draws(ReuseSampler(lots, (256, 256)), 300), real).score
    prior = fit_score(draws(PriorSampler(fit(lots)), 300), real).score
    uniform = fit_score(draws(UniformSampler(lots[0].classes, (256, 256)), 300), real).score
    assert lowest < reuse < uniform / 4
    assert lowest < prior < uniform / 4


@pytest.mark.parametrize("name", ["hit_uav", "hrplanes"])
def test_samplers_fit_held_out_real_layouts(name, request):
    data = request.getfixturevalue(name)
    held_out = random_windows([s.layout for s in data["val"]], (256, 256), np.random.default_rng(0), n=4)
    scores = {
        "reuse": fit_score(draws(ReuseSampler(data["train"], (256, 256)), 500), held_out).score,
        "prior": fit_score(draws(PriorSampler(fit(data["train"], windows=2)), 500), held_out).score,
    }
    control = UniformSampler(data["train"].classes, (256, 256), data["train"].kind)
    uniform = fit_score(draws(control, 500), held_out).score
    assert scores["reuse"] < 0.15
    assert scores["prior"] < 0.22
    assert uniform > 4 * max(scores.values())
