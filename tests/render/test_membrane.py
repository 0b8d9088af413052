"""An image part joins another image without a seam, even where its object cannot be cut out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from toy_scenes import canvas

from dataengine.data.layout import Dataset, Layout, Sample
from dataengine.render import cutout, real_objects
from dataengine.render.cutout import membrane
from dataengine.render.frame import FrameSpec, masks
from dataengine.render.real_objects import collect_objects

SPEC = FrameSpec()
BOX = [48, 48, 40, 20, 0]
PART = np.zeros((40, 40), bool)
PART[10:30, 8:32] = True


def test_the_part_follows_the_difference_along_its_edge():
    """A ramp from 0 to 80 levels is met at both ends; a single shift would be 40 everywhere. Control: a constant."""
    ramp = np.tile(np.linspace(0, 80, 40)[None, :, None], (40, 1, 3))
    added = membrane(ramp, PART)
    assert added[20, 8:12] == pytest.approx(ramp[20, 8:12], abs=8)
    assert added[20, 28:32] == pytest.approx(ramp[20, 28:32], abs=8)
    assert np.ptp(added[PART]) > 40
    assert membrane(np.full((40, 40, 3), 7.0), PART) == pytest.approx(np.full((40, 40, 3), 7.0), abs=1e-4)


def test_outliers_along_the_edge_are_not_spread_into_the_part(monkeypatch):
    """A neighbour, 120 levels darker, touches a fifth of the edge. Mutation: no clipping."""
    difference = np.random.default_rng(0).normal(0, 2, (40, 40, 3))
    difference[28:, 8:24] += 120
    assert np.abs(membrane(difference, PART)[PART]).max() < 10
    monkeypatch.setattr(cutout, "MAX_EDGE_DEVIATIONS", np.inf)
    assert np.abs(membrane(difference, PART)[PART]).max() > 60


def gradients(folder, separable: int, n: int) -> Dataset:
    """Images of a dark car on ground that brightens to the right; all but `separable` of the cars end in the middle
    of their box, so that they cannot be cut out."""
    samples = []
    for i in range(n):
        picture = np.tile(np.linspace(60, 180, 96)[None, :, None], (96, 1, 3)) + np.random.default_rng(i).normal(
            0, 2, (96, 96, 3)
        )
        picture[42:54, 30 : 66 if i < separable else 50] = (25, 20, 20)
        file = folder / f"{i}.png"
        Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8)).save(file)
        samples.append(Sample(file.stem, file, Layout([BOX], [0], ("car",), (96, 96))))
    return Dataset(("car",), samples)


@pytest.mark.parametrize("separable", [6, 12])
def test_a_class_of_which_few_can_be_cut_out_is_pasted_with_its_boxes(tmp_path, separable):
    objects = collect_objects(gradients(tmp_path, separable, 16), ("car",), SPEC, 0.3)
    alone = [replace(objects, separable={0: True}).cutout(i) is not None for i in range(16)]
    assert alone == [True] * separable + [False] * (16 - separable), "each on its own"
    assert [objects.cutout(i) is not None for i in range(16)] == (alone if separable == 12 else [False] * 16)


def test_a_pasted_box_meets_its_new_ground(tmp_path, monkeypatch):
    """Largest mean step across the left and the right side of the box, on uniform ground. Mutation: a single shift for
    the whole box, which leaves it darker on the left and lighter on the right."""
    objects = collect_objects(gradients(tmp_path, 0, 4), ("car",), SPEC, 0.3)
    one, uniform = Layout([BOX], [0], ("car",), (96, 96)), np.full((SPEC.size, SPEC.size, 3), 120, np.float32)
    [start] = objects.fitted(canvas(np.full((96, 96, 3), 120, np.uint8), one), np.zeros(1, int), SPEC, 0).starts
    box = masks(one.boxes[0], one.kind, SPEC)[1] > 0.5
    rows, columns = np.flatnonzero(box.any(1)), np.flatnonzero(box.any(0))

    def step() -> float:
        frame, surely = objects.draw(start, one.kind, uniform, SPEC)
        assert not surely.any(), "it was not cut out"
        frame = frame[:: len(frame) // SPEC.size, :: len(frame) // SPEC.size]
        above = frame[rows[1] : rows[len(rows) // 6]]  # between the car and the box's edge
        return max(abs(above[:, at].mean() - 120) for at in (columns[2], columns[-3]))

    assert step() < 6
    monkeypatch.setattr(real_objects, "membrane", lambda difference, part: difference * 0 + np.median(difference[part]))
    assert step() > 12
