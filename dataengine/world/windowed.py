"""Diffusion over a plane without an edge, in overlapping windows, each step from a bounded part of the step before.

MultiDiffusion (Bar-Tal et al. 2023) denoises a picture larger than its model in overlapping windows and averages them
after each step. InfiniteDiffusion (Goslin 2026, arXiv 2512.08309) asks for the average in the other direction: a
region of a step needs the windows that meet it, and each of them a region of the step before. Windows lie on one
lattice of the plane, are computed in groups of fixed place, for the rounding of a sum depends on what is computed
together, and are added in one order. So a region is the same to the last bit alone, in a larger one, in any order and
in another process.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from dataengine.world.noise import Rect

Denoise = Callable[[np.ndarray, int, Sequence[Rect]], np.ndarray]  # (noisy (B, C, W, W), step, places) -> clean
Noise = Callable[[int, Rect], np.ndarray]  # (step, place) -> (C, H, W)
Advance = Callable[[np.ndarray, np.ndarray, np.ndarray | None], np.ndarray]


class BoundedCache:
    """Arrays that cost time to make, the latest used of them, below `max_bytes` together (but at least one)."""

    def __init__(self, max_bytes: int):
        self.max_bytes, self.bytes, self.made = max_bytes, 0, 0
        self._arrays: OrderedDict[Hashable, np.ndarray] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], np.ndarray]) -> np.ndarray:
        """The array of this key, made if it is not there. It is shared: do not write into it."""
        if key in self._arrays:
            self._arrays.move_to_end(key)
            return self._arrays[key]
        array = make()
        self.made += 1
        self._arrays[key] = array
        self.bytes += array.nbytes
        while self.bytes > self.max_bytes and len(self._arrays) > 1:
            self.bytes -= self._arrays.popitem(last=False)[1].nbytes
        return array


@dataclass(frozen=True)
class Lattice:
    """Windows of `window` x `window` positions, one every `stride` positions in both directions.

    halo: positions at each edge of a window that are computed and not used: networks pad there, and so know the edge.
    Between neighbouring windows the weight goes over linearly in the rest of their overlap.
    """

    window: int
    stride: int
    halo: int = 0

    def __post_init__(self) -> None:
        assert self.stride + 2 * self.halo <= self.window <= 2 * self.stride, "at most two windows in each direction"

    @cached_property
    def weights(self) -> np.ndarray:
        """Weight of a window along one side, (window,) float32; those of all windows sum to 1 at each position.

        >>> Lattice(8, 4, 1).weights.tolist()
        [0.0, 0.25, 0.75, 1.0, 1.0, 0.75, 0.25, 0.0]
        """
        overlap = self.window - self.stride
        positions = np.arange(self.window) + 0.5
        rise = (np.minimum(positions, self.window - positions) - self.halo) / max(overlap - 2 * self.halo, 1e-9)
        return np.clip(rise, 0, 1).astype(np.float32)

    def place(self, column: int, row: int) -> Rect:
        """The window in this column and row of the lattice."""
        return Rect(column * self.stride, row * self.stride, self.window, self.window)

    def meeting(self, rect: Rect) -> list[tuple[int, int]]:
        """(column, row) of the windows whose used part meets the rectangle, row by row."""
        reach = self.window - self.halo

        def numbers(start: int, end: int) -> range:
            return range((start - reach) // self.stride + 1, (end - self.halo - 1) // self.stride + 1)

        rows, columns = numbers(rect.top, rect.bottom), numbers(rect.left, rect.right)
        return [(column, row) for row in rows for column in columns]


def few_step_advance(sigmas: Sequence[float]) -> list[Advance]:
    """Steps of a few-step model (`flow.sample_few`): the clean image with new noise at the following noise level."""

    def to(following: float) -> Advance:
        f = np.float32(following)
        return lambda _, clean, noise: (1 - f) * clean + f * noise if following else clean

    return [to(following) for following in [*sigmas[1:], 0.0]]


def euler_advance(sigmas: Sequence[float]) -> list[Advance]:
    """Euler steps of flow matching (`flow.sample`), which need no further noise: x + (following - sigma) velocity."""

    def to(sigma: float, following: float) -> Advance:
        share = np.float32(following / sigma)
        return lambda x, clean, _: clean + share * (x - clean)

    return [to(*pair) for pair in zip(sigmas, [*sigmas[1:], 0.0], strict=True)]


class WindowedSampler:
    """Samples regions of a plane with a model of windows.

    denoise: the model's clean estimates (B, C, window, window) of noisy windows at a step and their places; a pure
    function of the three. noise: standard normal numbers by step and place (`position_noise`). advance: for each step,
    the state (C, H, W) of the following step from the state, the blended clean estimates and the following step's
    noise; acts on each position alone. renews: whether it uses that noise. group: windows are computed in squares of
    group x group. max_bytes: of the cache of windows.
    """

    def __init__(
        self,
        denoise: Denoise,
        noise: Noise,
        advance: Sequence[Advance],
        lattice: Lattice,
        *,
        renews: bool,
        group: int = 1,
        max_bytes: int = 1 << 26,
    ):
        self.denoise, self.noise, self.advance = denoise, noise, advance
        self.lattice, self.renews, self.group, self.cache = lattice, renews, group, BoundedCache(max_bytes)

    def region(self, rect: Rect) -> np.ndarray:
        """The clean image of a rectangle, (C, height, width) float32."""
        last = len(self.advance)
        if self.renews:
            return self._advanced(last, None, rect)
        state = self.noise(0, rect)
        for step in range(1, last + 1):
            state = self._advanced(step, state, rect)
        return state

    def _advanced(self, step: int, before: np.ndarray | None, rect: Rect) -> np.ndarray:
        """What step `step` starts from, or the result after the last. before: what the step before started from."""
        fresh = self.noise(step, rect) if self.renews and step < len(self.advance) else None
        return self.advance[step - 1](before, self._blended(step - 1, rect), fresh)

    def _blended(self, step: int, rect: Rect) -> np.ndarray:
        """The weighted mean of the clean windows that meet a rectangle (MultiDiffusion, eq. 5)."""
        total, weights = None, self.lattice.weights
        for column, row in self.lattice.meeting(rect):
            clean = self._window(step, column, row)[-1]
            if total is None:
                total = np.zeros((len(clean), rect.height, rect.width), np.float32)
            (rows, columns), (y, x) = rect.common(self.lattice.place(column, row))
            weight = weights[y, None] * weights[None, x]
            total[:, rows, columns] += weight * clean[:, y, x]
        return total

    def _window(self, step: int, column: int, row: int) -> np.ndarray:
        """A window's clean estimate, (1, C, W, W), after what it was made from if the next step needs that."""
        (x, i), (y, j) = divmod(column, self.group), divmod(row, self.group)
        return self.cache.get((step, x, y), lambda: self._denoised(step, x, y))[j * self.group + i]

    def _denoised(self, step: int, column: int, row: int) -> np.ndarray:
        """The windows of a group, in one array, row by row."""
        numbers = range(self.group)
        within = [(column * self.group + i, row * self.group + j) for j in numbers for i in numbers]
        places = [self.lattice.place(*window) for window in within]
        noisy = np.stack([self._noisy(step, *pair) for pair in zip(within, places, strict=True)])
        clean = self.denoise(noisy, step, places)
        return clean[:, None] if self.renews else np.stack([noisy, clean], 1)

    def _noisy(self, step: int, window: tuple[int, int], place: Rect) -> np.ndarray:
        if step == 0:
            return self.noise(0, place)
        return self._advanced(step, None if self.renews else self._window(step - 1, *window)[0], place)
