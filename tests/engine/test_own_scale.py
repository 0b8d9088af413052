"""Objects keep the size that they have in the data, or a note says which do not and why."""

from __future__ import annotations

import numpy as np
import pytest

from dataengine.data.layout import Layout
from dataengine.engine.recipe import Recipe
from dataengine.engine.samplers import make_sampler, scale_warnings
from dataengine.layouts.reuse import Limits, ReuseSampler


def pictures(length: float, side: int = 640, step: int = 160) -> list[Layout]:
    """Images with a grid of ships of 0.5 to 2 times this length."""
    rng = np.random.default_rng(0)
    middles = np.arange(step // 2, side, step)
    boxes = [[x, y, length * 2 ** rng.uniform(-1, 1), 12, 0.4] for x in middles for y in middles]
    return [Layout(boxes, [0] * len(boxes), ("ship",), (side, side))] * 6


def notes_of(layouts: list[Layout], size: int, sampler=None) -> list[str]:
    recipe = Recipe(data="here", size=size)
    return scale_warnings(recipe, sampler or make_sampler(recipe, layouts, ("ship",)), layouts)


def test_images_that_are_parts_of_the_real_ones_are_a_note():
    [note] = notes_of(pictures(30), 256)
    assert "256x256" in note
    assert "640x640" in note
    assert "--size" in note
    assert notes_of(pictures(30), 640) == [], "control: whole images at their own scale"


def test_objects_that_the_border_would_cut_are_a_note():
    """Control: a size in which they are whole."""
    layouts = pictures(190, side=1200, step=300)
    assert any("cuts most ship" in note and "--size" in note for note in notes_of(layouts, 256))
    assert not any("ship" in note for note in notes_of(layouts, 1200))


@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_a_sampler_that_changes_the_scale_is_noticed(scale):
    layouts = pictures(30)
    limits = Limits({}, {"ship": (1, 1000)})
    [note] = notes_of(layouts, 640, ReuseSampler(layouts, (640, 640), scale=(scale, scale), limits=limits))
    real = np.median(layouts[0].boxes[:, 2])
    assert f"(real: {real:.0f})" in note


@pytest.mark.parametrize(("share", "size", "balance", "said"), [
    (0.1, 256, None, True), (0.8, 256, None, False), (0.1, 640, None, False), (0.1, 256, 0.3, False),
])  # fmt: skip
def test_a_class_that_is_far_rarer_in_parts_of_images_is_a_note(share, size, balance, said):
    """Parts show ships as often as the real images, and the pier in this share of them. Controls: images as large as
    the real ones, and a share that the user sets."""
    boxes = [[x, 60, 30, 12, 0.0] for x in range(40, 640, 80)] + [[320, 350, 190, 170, 0.0]]
    real = Layout(boxes, [0] * 8 + [1], ("ship", "pier"), (640, 640), "hbb")

    class Parts:
        classes = real.classes

        def sample(self, rng: np.random.Generator) -> Layout:
            return real if rng.random() < share else real.select(real.labels == 0)

    notes = scale_warnings(Recipe(data="here", size=size, balance=balance), Parts(), [real] * 12)
    assert any("smaller share" in note and "pier (" in note and "ship (" not in note for note in notes) == said
