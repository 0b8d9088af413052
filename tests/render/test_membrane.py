"""What joins a part of one picture to another: a box whose object cannot be cut out comes without a pane."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from dataengine.data.layout import Dataset, Layout, Sample
from dataengine.render import cutout as membranes
from dataengine.render import real_objects
from dataengine.render.cutout import membrane
from dataengine.render.frame import FrameSpec, masks
from dataengine.render.real_objects import collect_objects

SPEC = FrameSpec()
BOX = [48, 48, 40, 20, 0]
PART = np.zeros((40, 40), bool)
PART[10:30, 8:32] = True


def test_the_part_takes_up_what_differs_along_its_edge():
    """A ramp from 0 to 80 levels is met at both ends; one shift for all would be 40 everywhere. Control: a constant."""
    ramp = np.tile(np.linspace(0, 80, 40)[None, :, None], (40, 1, 3))
    added = membrane(ramp, PART)
    assert added[20, 8:12] == pytest.approx(ramp[20, 8:12], abs=8)
    assert added[20, 28:32] == pytest.approx(ramp[20, 28:32], abs=8)
    assert np.ptp(added[PART]) > 40
    assert membrane(np.full((40, 40, 3), 7.0), PART) == pytest.approx(np.full((40, 40, 3), 7.0), abs=1e-4)


def test_what_crosses_the_edge_is_not_carried_into_the_part(monkeypatch):
    """A neighbour, 120 levels darker, touches a fifth of the edge. Mutation: it counts like all else."""
    difference = np.random.default_rng(0).normal(0, 2, (40, 40, 3))
    difference[28:, 8:24] += 120
    assert np.abs(membrane(difference, PART)[PART]).max() < 10
    monkeypatch.setattr(membranes, "CROSSING", np.inf)
    assert np.abs(membrane(difference, PART)[PART]).max() > 60


def bands(folder, told: int, of: int) -> Dataset:
    """Pictures of a dark car on a ground that grows lighter to the right; all but `told` of them end in the
    middle of their box, so that nobody can tell what the label means."""
    samples = []
    for i in range(of):
        picture = np.tile(np.linspace(60, 180, 96)[None, :, None], (96, 1, 3)) + np.random.default_rng(i).normal(
            0, 2, (96, 96, 3)
        )
        picture[42:54, 30 : 66 if i < told else 50] = (25, 20, 20)
        file = folder / f"{i}.png"
        Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8)).save(file)
        samples.append(Sample(file.stem, file, Layout([BOX], [0], ("car",), (96, 96))))
    return Dataset(("car",), samples)


@pytest.mark.parametrize("told", [6, 12])
def test_a_class_of_which_few_can_be_cut_out_comes_with_its_boxes(tmp_path, told):
    objects = collect_objects(bands(tmp_path, told, 16), ("car",), SPEC, 0.3)
    alone = [replace(objects, told={0: True}).cutout(i) is not None for i in range(16)]
    assert alone == [True] * told + [False] * (16 - told), "each for itself"
    assert [objects.cutout(i) is not None for i in range(16)] == (alone if told == 12 else [False] * 16)


def test_a_box_joins_the_ground_that_it_comes_to(tmp_path, monkeypatch):
    """Largest mean step across the left and the right side of the box, on even ground. Mutation: one shift for all of
    the box, by which it is a pane, darker on the left and lighter on the right."""
    objects = collect_objects(bands(tmp_path, 0, 4), ("car",), SPEC, 0.3)
    one, even = Layout([BOX], [0], ("car",), (96, 96)), np.full((SPEC.size, SPEC.size, 3), 120, np.float32)
    box = masks(one.boxes[0], one.kind, SPEC)[1] > 0.5
    rows, columns = np.flatnonzero(box.any(1)), np.flatnonzero(box.any(0))

    def step() -> float:
        frame, surely = objects.draw(one, 0, even, SPEC, np.random.default_rng(0))
        assert not surely.any(), "it was not cut out"
        frame = frame[:: len(frame) // SPEC.size, :: len(frame) // SPEC.size]
        above = frame[rows[1] : rows[len(rows) // 6]]  # between the car and the box's edge
        return max(abs(above[:, at].mean() - 120) for at in (columns[2], columns[-3]))

    assert step() < 6
    monkeypatch.setattr(real_objects, "membrane", lambda difference, part: difference * 0 + np.median(difference[part]))
    assert step() > 12
