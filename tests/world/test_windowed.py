from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from dataengine.errors import UserError
from dataengine.render.flow import few_sigmas
from dataengine.world.noise import Rect, position_noise
from dataengine.world.windowed import Lattice, WindowedSampler, euler_advance, few_step_advance, phases_of

WINDOW, LENGTH = 16, 4.0
SIGMAS = {"euler": [1 - k / 5 for k in range(5)], "few": few_sigmas(4)}
LATTICE = Lattice(WINDOW, 12, 1)


def exact_denoiser(sigmas):
    """The best denoiser of windows of a smooth Gaussian field: the posterior mean, a matrix for each noise level."""
    places = np.stack(np.meshgrid(range(WINDOW), range(WINDOW)), -1).reshape(-1, 2)
    distance = ((places[:, None] - places[None]) ** 2).sum(-1)
    covariance = np.exp(-distance / (2 * LENGTH**2))
    matrices = []
    for sigma in sigmas:
        clean = (1 - sigma) * covariance
        matrices.append(clean @ np.linalg.inv((1 - sigma) * clean + sigma**2 * np.eye(len(places))))

    def denoise(x, step, places):
        return np.stack([matrices[step] @ window.ravel() for window in x]).reshape(x.shape).astype(np.float32)

    return denoise


def sampler(kind: str = "euler", lattice: Lattice = LATTICE, noise=None, max_bytes: int = 1 << 26, group=1, phases=4):
    def keyed(step, rect):
        return position_noise(0, "field", step, 1, rect)

    advance = (euler_advance if kind == "euler" else few_step_advance)(SIGMAS[kind])
    return WindowedSampler(
        exact_denoiser(SIGMAS[kind]), noise or keyed, advance, phases_of(len(advance), lattice, phases), group=group,
        batch=3, max_bytes=max_bytes,
    )  # fmt: skip


def seam_ratio(picture: np.ndarray, lattice: Lattice) -> float:
    """Mean gradient across the lines in the middle of what windows share, over that elsewhere."""
    step = np.abs(np.diff(picture, axis=1)).mean(0)
    at_line = np.arange(1, picture.shape[1]) % lattice.stride == (lattice.window - lattice.stride) // 2
    return float(step[at_line].mean() / step[~at_line].mean())


@pytest.mark.parametrize("group", [1, 2])
@pytest.mark.parametrize(("kind", "phases"), [("euler", 3), ("few", 4), ("few", 1)])
def test_a_region_alone_equals_the_same_region_of_a_larger_one(kind, phases, group):
    large, alone = (
        sampler(kind, group=group, phases=phases).region(r) for r in (Rect(-30, -20, 90, 70), Rect(3, 5, 21, 17))
    )
    assert np.array_equal(large[:, 25:42, 33:54], alone)


def test_windows_kept_in_a_folder_are_not_made_again_and_are_the_same(tmp_path):
    rect = Rect(0, 0, 40, 40)
    plain, first, second = sampler("few"), sampler("few", max_bytes=1), sampler("few", max_bytes=1)
    first.keep_in(tmp_path), second.keep_in(tmp_path)
    expected = plain.region(rect)
    assert np.array_equal(first.region(rect), expected)
    assert first.made == plain.made == len(list(tmp_path.glob("*/*"))), "each once, though memory holds one"
    assert np.array_equal(second.region(rect), expected)
    assert second.made == 0


def _zeroed(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-64:] = bytes(64)
    file.write_bytes(content)


def _a_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def _a_pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


@pytest.mark.parametrize(
    "damage",
    [
        lambda file: file.write_bytes(file.read_bytes()[:-9]), lambda file: file.write_bytes(b""), _zeroed, _a_pipe,
        lambda file: np.savez(file.open("wb"), a=np.zeros(3)), lambda file: np.save(file.open("wb"), np.zeros(1)),
    ],
    ids=["cut off", "empty", "zeroed", "a pipe", "another file", "another array"],
)  # fmt: skip
def test_a_kept_window_that_is_damaged_is_made_again(damage, tmp_path):
    rect, first, again = Rect(0, 0, 40, 40), sampler("few"), sampler("few")
    first.keep_in(tmp_path), again.keep_in(tmp_path)
    expected = first.region(rect)
    damage(next((tmp_path / "3 1x1").iterdir()))
    assert np.array_equal(again.region(rect), expected)
    assert again.made == 1, "that of the damaged file"


def test_a_folder_in_the_way_of_kept_windows_is_told(tmp_path):
    rect, first, again = Rect(0, 0, 40, 40), sampler("few"), sampler("few")
    first.keep_in(tmp_path), again.keep_in(tmp_path)
    first.region(rect)
    _a_folder(next((tmp_path / "3 1x1").iterdir()))
    with pytest.raises(UserError, match="could not be written"):
        again.region(rect)
    (tmp_path / "file").write_text("")
    again.keep_in(tmp_path / "file")
    with pytest.raises(UserError, match="remove what is in the way"):
        again.region(rect)


def test_order_and_size_of_the_cache_change_nothing():
    tiles = [Rect(x, y, 20, 20) for y in (0, 20, 40) for x in (0, 20, 40)]
    forward, backward, forgetful = sampler("few"), sampler("few"), sampler("few", max_bytes=1)
    there = [forward.region(tile) for tile in tiles]
    back = [backward.region(tile) for tile in reversed(tiles)][::-1]
    again = [forgetful.region(tile) for tile in tiles[:2]]
    assert all(np.array_equal(a, b) for a, b in zip(there, back, strict=True))
    assert all(np.array_equal(a, b) for a, b in zip(there[:2], again, strict=True))
    assert all(len(cache._arrays) == 1 for cache in forgetful.caches), "each holds one square"


def test_windows_see_what_their_neighbours_made_in_earlier_phases():
    """A pixel depends on noise beyond its own window, and on none beyond half a window for each phase that follows."""

    def changed(distance: int):
        def noise(step, rect):
            values = position_noise(0, "field", step, 1, rect)
            if step == 1:
                beyond = np.arange(rect.left, rect.right) < -distance
                values = values + np.where(beyond, np.float32(1), np.float32(0))
            return values

        return noise

    lattice, place = LATTICE.beginning(0), Rect(0, 0, 8, 8)
    plain = sampler("few", lattice).region(place)
    assert not np.array_equal(plain, sampler("few", lattice, changed(6)).region(place))
    reach = -lattice.first + 2 * lattice.stride // 2  # of its own window, and half a window for each phase that follows
    assert np.array_equal(plain, sampler("few", lattice, changed(reach)).region(place))


def test_what_windows_are_computed_with_does_not_depend_on_what_is_asked_for():
    def computed(*rects: Rect) -> set[tuple]:
        """Each call of the model: the step, and the places of its windows."""
        made, calls = sampler("few", group=2), []

        def watched(x, step, places):
            calls.append((step, tuple(places)))
            return exact_denoiser(SIGMAS["few"])(x, step, places)

        made.denoise = watched
        for rect in rects:
            made.region(rect)
        assert len(calls) == len(set(calls)), "nothing is computed twice"
        return set(calls)

    large, alone = computed(Rect(0, 0, 60, 60)), computed(Rect(25, 25, 2, 2))
    assert alone < large
    assert computed(Rect(25, 25, 2, 2), Rect(0, 0, 60, 60)) == large


def test_a_square_alone_and_a_wide_region_cost_little_more_than_their_windows():
    """A square depends on one square of each phase before, and neighbours share what they have in common of these."""
    across, group = 20, 2
    lattice, model = LATTICE.beginning(0), exact_denoiser(SIGMAS["few"])
    for columns, most in ((group, 2**2 + 3**2 + 4**2 + 5**2), (across, 4 * (across + 6) ** 2)):
        made, computed = sampler("few", lattice, group=group), []
        made.denoise = lambda x, step, places, computed=computed: computed.extend(places) or model(x, step, places)
        made.region(Rect(0, 0, columns * LATTICE.stride - 3, columns * LATTICE.stride - 3))
        assert len(computed) <= most


def test_noise_drawn_for_each_window_breaks_it():
    def unkeyed(step, rect):
        return np.random.default_rng().standard_normal((1, rect.height, rect.width)).astype(np.float32)

    large, alone = (sampler("few", noise=unkeyed).region(r) for r in (Rect(-30, -20, 90, 70), Rect(3, 5, 21, 17)))
    assert np.abs(large[:, 25:42, 33:54] - alone).mean() > 0.3


@pytest.mark.parametrize(("kind", "limit"), [("euler", 1.03), ("few", 1.25)])
def test_windows_leave_no_seam_and_independent_ones_do(kind, limit):
    place = Rect(0, 0, 16 * 12, 5 * 12)
    apart = Lattice(WINDOW, WINDOW)
    assert seam_ratio(sampler(kind, apart).region(place)[0], apart) > 2
    assert seam_ratio(sampler(kind, phases=1).region(place)[0], LATTICE) > limit, "blended once, at the end"
    assert seam_ratio(sampler(kind).region(place)[0], LATTICE) < limit


def test_weights_of_all_windows_sum_to_one():
    for lattice in (Lattice(32, 28, 1), Lattice(32, 26, 0), Lattice(256, 224, 8), Lattice(8, 8)):
        total = np.zeros(lattice.stride * 4 + lattice.window)
        for number in range(5):
            total[number * lattice.stride :][: lattice.window] += lattice.weights
        assert np.allclose(total[lattice.window : -lattice.window], 1, atol=1e-6)
        assert not lattice.weights[: lattice.halo].any()


def test_a_far_place_costs_as_much_as_a_near_one():
    near, far = sampler("few"), sampler("few")
    near.region(Rect(0, 0, 20, 20)), far.region(Rect(12 * 10**7, -12 * 10**7, 20, 20))
    assert near.made == far.made < 200
