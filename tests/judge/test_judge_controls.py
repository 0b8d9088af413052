"""Painted controls stand in the boxes of objects, and nowhere else."""

from __future__ import annotations

import numpy as np
import pytest

from dataengine import geometry
from dataengine.data.layout import Layout
from dataengine.judge import controls
from dataengine.judge.controls import paint_controls


@pytest.mark.parametrize("pattern", ["_noise", "_chequers", "_blob"])
def test_each_pattern_replaces_the_object_and_leaves_the_rest(monkeypatch, pattern):
    for name in ("_noise", "_chequers", "_blob"):
        monkeypatch.setattr(controls, name, getattr(controls, pattern))
    image = np.full((120, 120, 3), (90, 100, 110), np.uint8)
    layout = Layout([[40, 40, 30, 14, 0.5], [90, 90, 20, 20, 0]], [0, 0], ("car",), (120, 120))
    for x, y in ((40, 40), (90, 90)):
        image[y - 3 : y + 4, x - 3 : x + 4] = (230, 40, 40)
    painted = paint_controls(image, layout, np.random.default_rng(0))
    red = (painted[..., 0].astype(int) - painted[..., 1]) > 100
    assert not red.any(), "nothing of the object is left"
    grown = layout.boxes + np.float32([0, 0, 3, 3, 0])
    y, x = np.mgrid[:120, :120] + 0.5
    points = np.column_stack([x.ravel(), y.ravel(), *np.full((3, x.size), 0.01)]).astype(np.float32)
    near = (geometry.intersection(points, grown) > 0).any(1).reshape(120, 120)
    assert (painted[~near] == image[~near]).all()
    assert (painted[near] != image[near]).any(1).mean() > 0.3


def test_boxes_that_are_thin_or_outside_do_no_harm():
    image = np.full((40, 40, 3), 90, np.uint8)
    layout = Layout([[20, 20, 0.4, 0.2, 0.3], [-30, 10, 8, 8, 0], [39, 39, 20, 10, 0.7]], [0] * 3, ("car",), (40, 40))
    for seed in range(6):
        assert paint_controls(image, layout, np.random.default_rng(seed)).shape == image.shape
