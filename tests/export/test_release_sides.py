"""No layout and no scene lies on both sides of a split."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataengine.errors import UserError
from dataengine.export.release.sides import divide, leaks, sources_of
from dataengine.render.canvas import Provenance


def shared(sources, sides) -> frozenset[str]:
    """Sources on both sides, counted here in the plainest way."""
    train, val = (
        {s for own, x in zip(sources, sides, strict=True) if x == side for s in own} for side in ("train", "val")
    )
    return frozenset(train & val)


def drawn(n: int, layouts: int, scenes: int, seed: int = 0) -> list[frozenset[str]]:
    """n images, each of one or (a fifth of them) two layouts and one scene, all drawn at random."""
    rng = np.random.default_rng(seed)
    merged = rng.random(n) < 0.2
    return [
        frozenset(
            [f"layout {x}" for x in rng.integers(layouts, size=1 + merged[i])]
            + ([f"scene {rng.integers(scenes)}"] if scenes else [f"generated:{i}"])
        )
        for i in range(n)
    ]


@given(
    st.lists(st.frozensets(st.sampled_from("abcdefghijklmnop"), min_size=1, max_size=3), min_size=2, max_size=40),
    st.floats(0.05, 0.5),
    st.integers(0, 3),
)
def test_whatever_images_were_made_from_nothing_lies_on_both_sides(sources, share, seed):
    try:
        sides = divide(sources, share, seed)
    except UserError:
        return
    assert not shared(sources, sides)
    assert {"train", "val"} <= set(sides), "each side has an image, or there would be no split"


def test_a_split_at_random_would_leak_and_leaks_are_found():
    """Control: without looking at sources nearly every layout is on both sides."""
    sources = drawn(600, 100, 0)
    sides = np.where(np.random.default_rng(0).random(600) < 0.1, "val", "train")
    at_random = shared(sources, sides)
    assert len(at_random) > 30
    train, val = ([s for s, x in zip(sources, sides, strict=True) if x == side] for side in ("train", "val"))
    assert leaks(train, val) == at_random


@pytest.mark.parametrize("share", [0.1, 0.3])
def test_with_generated_scenes_nearly_no_image_is_lost_and_the_share_is_met(share):
    sides = divide(drawn(2000, 2000, 0), share)
    assert sides.count(None) < 40
    assert sides.count("val") / (len(sides) - sides.count(None)) == pytest.approx(share, abs=0.05)


def test_where_everything_hangs_together_images_between_the_sides_are_left_out_and_the_share_is_met():
    sources = drawn(2000, 100, 100)
    sides = divide(sources, 0.1)
    assert 0 < sides.count(None) < 1200
    assert sides.count("val") / (len(sides) - sides.count(None)) == pytest.approx(0.1, abs=0.03)
    assert not shared(sources, sides)


def test_the_split_depends_on_sources_and_seed_only():
    sources = drawn(300, 200, 0)
    again = [frozenset(sorted(own, reverse=True)) for own in sources]
    assert divide(sources, 0.2) == divide(again, 0.2)
    assert divide(sources, 0.2) != divide(sources, 0.2, seed=1)


def test_nothing_is_validated_when_nothing_is_asked_for():
    assert divide([frozenset("a")], 0) == ["train"]


def test_images_of_one_layout_cannot_be_divided_and_that_is_said():
    with pytest.raises(UserError, match=r"--val 0\.1: all images are connected"):
        divide([frozenset("a"), frozenset("a")], 0.1)


LAYOUT, FRAME = ["train/1_60_30_0_00004"], Provenance("window", "train/1_60_30_0_00009", 12, 80)


def test_a_scene_is_its_image_wherever_the_window_lies():
    assert sources_of(LAYOUT, FRAME, 7) == {"train/1_60_30_0_00004", "train/1_60_30_0_00009"}
    assert sources_of(LAYOUT, Provenance("generated", seed=7), 7) == {"train/1_60_30_0_00004", "generated:7"}
    assert sources_of([], Provenance("window", "a@b.c", 3, 4), 7) == {"a@b.c"}


def test_an_image_made_from_nothing_real_stands_alone():
    assert sources_of([], Provenance(), 7) == {"seed:7"}


def test_frames_of_one_film_can_be_kept_together():
    assert sources_of(LAYOUT, FRAME, 7, r"^.*_(?=\d+$)") == {"train/1_60_30_0_"}
