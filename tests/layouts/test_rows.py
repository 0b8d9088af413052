"""Rows of similar objects: spaced as real ones, of one size and heading."""

from __future__ import annotations

import numpy as np
import pytest

from dataengine import geometry
from dataengine.data.layout import Layout
from dataengine.layouts.reuse import ReuseSampler
from dataengine.layouts.rows import neighbours, with_rows

CLASSES = ("car", "van")


def parked(angle: float, gap: float = 0.2, turn: float = 0.0, n: int = 6) -> Layout:
    """Cars of 40 x 20 pixels side by side, `gap` of their width between them, the row turned by an angle; every other
    car is turned by `turn` more."""
    boxes = np.zeros((n, 5), np.float32)
    boxes[:, 1] = (np.arange(n) - n / 2) * 20 * (1 + gap)
    boxes[:, 2:4] = 40, 20
    cos, sin = np.cos(angle), np.sin(angle)
    boxes = geometry.transform(boxes, np.array([[cos, -sin, 150], [sin, cos, 150]]))
    boxes[::2, 4] += turn
    return Layout(geometry.regularize(boxes), [0] * n, CLASSES, (300, 300))


@pytest.mark.parametrize("angle", [0.0, 0.7, 2.0])
def test_the_distance_of_neighbours_is_measured_in_their_own_frame(angle):
    found = neighbours([parked(angle)])
    assert list(found) == ["car"]
    assert np.abs(found["car"]) == pytest.approx(np.tile([0, 2.4], (6, 1)), abs=0.01)


def test_a_distant_object_or_one_with_another_heading_is_no_neighbour():
    assert neighbours([parked(0.7, gap=3.0)]) == {}
    assert neighbours([parked(0.7, gap=1.0, turn=1.0, n=4)] * 3) == {}
    assert neighbours([parked(0.7, n=3)]) == {}, "two or three say nothing of a class"


@pytest.mark.parametrize("angle", [0.0, -1.1])
def test_an_object_becomes_a_row_at_the_spacing_of_real_ones(angle):
    one = Layout([[150, 150, 30, 15, angle]], [0], CLASSES, (300, 300))
    made = [with_rows(one, neighbours([parked(0.7)]), 1.0, np.random.default_rng(seed)) for seed in range(30)]
    assert {len(layout) for layout in made} == {2, 3, 4, 5}
    for layout in made:
        assert (layout.boxes[:, 2:] == one.boxes[0, 2:]).all()
        steps = np.diff(layout.boxes[:, :2], axis=0)
        across = np.array([-np.sin(angle), np.cos(angle)])
        assert np.abs(steps @ across) == pytest.approx(np.full(len(steps), 15 * 1.2), abs=0.1)
    assert len(with_rows(one, {}, 1.0, np.random.default_rng(0))) == 1, "control: of its class no rows are known"


def test_rows_have_the_spacing_of_real_ones():
    """Share of objects with a neighbour so near; control: no rows."""
    lonely = [Layout([[150, 150, 40, 20, 0.7]], [0], CLASSES, (300, 300))] * 20

    def together(rows: float, real: list[Layout]) -> float:
        sampler, rng = ReuseSampler(real, (200, 200), merge=0.0, rows=rows), np.random.default_rng(0)
        drawn = [sampler.sample(rng) for _ in range(60)]
        near = [len(layout) > 1 for layout in drawn for _ in range(len(layout))]
        return float(np.mean(near))

    assert together(1.0, [*lonely, *lonely, parked(0.7)]) > 0.6
    assert together(0.0, [*lonely, *lonely, parked(0.7)]) < 0.3
    assert together(1.0, lonely) == 0, "control: real ones stand alone"
