"""Diffusion over a plane without an edge, in overlapping windows, each from a bounded part of the plane before it.

MultiDiffusion (Bar-Tal et al. 2023) denoises a picture larger than its model in overlapping windows and averages them
after each step. InfiniteDiffusion (Goslin 2026, arXiv 2512.08309) asks for the average in the other direction: a
region of a step needs the windows that meet it, and each of them a region of the step before. Here, a phase is one or
more steps that windows take by themselves before they are averaged, and windows of a phase lie across the borders of
those of the phase before: content passes from one to the next, and a region needs half a window around it, not a whole
one. The windows of a phase are computed in squares of fixed place, for the rounding of a sum depends on what is
computed together; they are kept, and added in one order. So a region is the same to the last bit alone, in a larger
one, in any order and in another process.
"""

from __future__ import annotations

import hashlib
import io
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from dataengine.files import ensure_folder, read_bytes, write_whole
from dataengine.world.noise import Rect, hull

CHECKSUM_BYTES = 16  # at the head of a stored array
Denoise = Callable[[np.ndarray, int, Sequence[Rect]], np.ndarray]  # (noisy (B, C, W, W), step, places) -> clean
Noise = Callable[[int, Rect], np.ndarray]  # (step, place) -> (C, H, W)
Advance = Callable[[np.ndarray, np.ndarray, Callable[[], np.ndarray]], np.ndarray]  # (noisy, clean, new noise) -> next


class BoundedCache:
    """Arrays that cost time to make, by column and row: the latest used of them in memory, below `max_bytes` together
    (but at least one), and all of them in a folder, if one is set, which processes may share."""

    def __init__(self, max_bytes: int):
        self.max_bytes, self.bytes, self.made = max_bytes, 0, 0
        self.folder: Path | None = None
        self._arrays: OrderedDict[tuple[int, int], np.ndarray] = OrderedDict()

    def get(self, key: tuple[int, int], make: Callable[[], np.ndarray]) -> np.ndarray:
        """The array of this key, made if it is not there. It is shared: do not write into it. Raises UserError where
        it cannot be stored in the folder."""
        if key in self._arrays:
            self._arrays.move_to_end(key)
            return self._arrays[key]
        array = self._stored(key)
        if array is None:
            array = make()
            self.put(key, array)
        else:
            self._remember(key, array)
        return array

    def __contains__(self, key: tuple[int, int]) -> bool:
        return key in self._arrays or (self.folder is not None and self._file(key).exists())

    def put(self, key: tuple[int, int], array: np.ndarray) -> None:
        """Keep an array that was just made."""
        self.made += 1
        self._store(key, array)
        self._remember(key, array)

    def _remember(self, key: tuple[int, int], array: np.ndarray) -> None:
        self._arrays[key] = array
        self.bytes += array.nbytes
        while self.bytes > self.max_bytes and len(self._arrays) > 1:
            self.bytes -= self._arrays.popitem(last=False)[1].nbytes

    def _file(self, key: tuple[int, int]) -> Path:
        return self.folder / f"{key[0]}_{key[1]}.array"

    def _stored(self, key: tuple[int, int]) -> np.ndarray | None:
        if self.folder is None:
            return None
        try:
            data = read_bytes(self._file(key))
        except OSError:  # not there, or no file
            return None
        checksum, content = data[:CHECKSUM_BYTES], data[CHECKSUM_BYTES:]
        if _checksum(content) != checksum:  # damaged by a crash of the machine
            return None
        return np.load(io.BytesIO(content), allow_pickle=False)

    def _store(self, key: tuple[int, int], array: np.ndarray) -> None:
        if self.folder is None:
            return
        ensure_folder(self.folder)
        buffer = io.BytesIO()
        np.save(buffer, array)
        content = buffer.getvalue()
        write_whole(self._file(key), _checksum(content) + content)


def _checksum(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=CHECKSUM_BYTES).digest()


@dataclass(frozen=True)
class Lattice:
    """Windows of `window` x `window` positions, one every `stride` positions in both directions, from `first` on.

    halo: positions at each edge of a window that are computed and not used: networks pad there, and so know the edge.
    Between neighbouring windows the weight goes over linearly in the rest of their overlap.
    """

    window: int
    stride: int
    halo: int = 0
    first: int = 0

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

    def beginning(self, position: int) -> Lattice:
        """The same windows, moved so that column and row 0 are the first that a region beginning there needs.

        >>> lattice = Lattice(8, 6, 0).beginning(100)
        >>> lattice.first, lattice.meeting(Rect(100, 100, 4, 4))
        (98, [(0, 0)])
        """
        return replace(self, first=position - (self.window - self.stride - self.halo))

    def place(self, column: int, row: int) -> Rect:
        """The window in this column and row of the lattice."""
        return Rect(self.first + column * self.stride, self.first + row * self.stride, self.window, self.window)

    def meeting(self, rect: Rect) -> list[tuple[int, int]]:
        """(column, row) of the windows whose used part meets the rectangle, row by row."""
        reach = self.window - self.halo

        def numbers(start: int, end: int) -> range:
            start, end = start - self.first, end - self.first
            return range((start - reach) // self.stride + 1, (end - self.halo - 1) // self.stride + 1)

        rows, columns = numbers(rect.top, rect.bottom), numbers(rect.left, rect.right)
        return [(column, row) for row in rows for column in columns]


@dataclass(frozen=True)
class Phase:
    """Numbers of the steps that windows take by themselves, and where these windows lie."""

    steps: Sequence[int]
    lattice: Lattice


def phases_of(steps: int, lattice: Lattice, most: int) -> list[Phase]:
    """Steps in at most this many phases. Windows of the last lie on the lattice; those of each one before lie across
    the borders of the phase after it, and the first of them is where a region at the lattice's beginning needs it.

    >>> [(list(phase.steps), phase.lattice.first) for phase in phases_of(5, Lattice(8, 6, 0, -2), 2)]
    [([0, 1, 2], -5), ([3, 4], -2)]
    """
    parts = np.array_split(np.arange(steps), min(steps, most))
    shift, last = lattice.stride // 2, len(parts) - 1
    if lattice.window == lattice.stride:
        shift = 0  # windows that are to know nothing of one another
    return [
        Phase(part.tolist(), replace(lattice, first=lattice.first - shift * (last - number)))
        for number, part in enumerate(parts)
    ]


def few_step_advance(sigmas: Sequence[float]) -> list[Advance]:
    """Steps of a few-step model (`flow.sample_few`): the clean image with new noise at the following noise level."""

    def to(following: float) -> Advance:
        f = np.float32(following)
        return lambda _, clean, noise: (1 - f) * clean + f * noise() if following else clean

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
    the noisy windows of the following step, from those of this one, their clean estimates, and a function that returns
    the following step's noise; acts on each position alone. phases: all steps, in order. group: windows of the
    last phase are computed in squares of group x group, those of each phase before in squares that are one larger: so
    many windows does such a square depend on. batch: windows that the model is given at a time, at most. max_bytes: of
    the cache of each phase's windows. dtype: of the finished windows.
    """

    def __init__(
        self,
        denoise: Denoise,
        noise: Noise,
        advance: Sequence[Advance],
        phases: Sequence[Phase],
        *,
        group: int = 1,
        batch: int = 16,
        max_bytes: int = 1 << 26,
        dtype: type = np.float32,
    ):
        self.denoise, self.noise, self.advance, self.phases = denoise, noise, advance, phases
        self.group, self.batch, self.dtype = group, batch, dtype
        self.caches = [BoundedCache(max_bytes) for _ in phases]

    @property
    def made(self) -> int:
        """The number of squares that were computed."""
        return sum(cache.made for cache in self.caches)

    def keep_in(self, folder: Path) -> None:
        """Keep the windows of all phases in files of a folder, which processes may share."""
        for number, cache in enumerate(self.caches):
            side = self._side(number)
            cache.folder = folder / f"{number} {side}x{side}"

    def region(self, rect: Rect) -> np.ndarray:
        """The clean image of a rectangle, (C, height, width) float32."""
        return self._after(len(self.phases) - 1, rect)

    def _after(self, number: int, rect: Rect) -> np.ndarray:
        """A rectangle of the plane after a phase, (C, height, width)."""
        lattice = self.phases[number].lattice
        needed = lattice.meeting(rect)
        return blended(rect, ((lattice.place(*where), self._window(number, *where)) for where in needed), lattice)

    def _window(self, number: int, column: int, row: int) -> np.ndarray:
        """A window after a phase, (C, W, W)."""
        side = self._side(number)
        (x, i), (y, j) = divmod(column, side), divmod(row, side)
        return self.caches[number].get((x, y), lambda: self._square(number, x, y))[j * side + i]

    def _side(self, number: int) -> int:
        """Columns and rows of a phase's windows that are computed together."""
        return self.group + len(self.phases) - 1 - number

    def _square(self, number: int, column: int, row: int) -> np.ndarray:
        """The windows of a square after a phase, (B, C, W, W), row by row."""
        phase, side = self.phases[number], self._side(number)
        places = [phase.lattice.place(column * side + i, row * side + j) for j in range(side) for i in range(side)]
        whole, parts = hull(places), np.array_split(np.arange(len(places)), -(-len(places) // self.batch))

        def windows_of(plane: np.ndarray) -> np.ndarray:
            return np.stack([plane[:, *whole.common(place)[0]] for place in places])

        x = windows_of(self._after(number - 1, whole) if number else self.noise(0, whole))
        for step in phase.steps:
            clean = np.concatenate([self.denoise(x[part], step, [places[i] for i in part]) for part in parts])
            x = self.advance[step](x, clean, lambda step=step: windows_of(self.noise(step + 1, whole)))
        return x.astype(self.dtype) if number == len(self.phases) - 1 else x


def blended(rect: Rect, windows: Iterable[tuple[Rect, np.ndarray]], lattice: Lattice) -> np.ndarray:
    """The weighted mean (C, height, width) of all windows (C, W, W) that meet a rectangle (MultiDiffusion, eq. 5).
    windows: place and content of each, in an order of their own."""
    total = None
    for place, window in windows:
        if total is None:
            total = np.zeros((len(window), rect.height, rect.width), np.float32)
        (rows, columns), (y, x) = rect.common(place)
        total[:, rows, columns] += lattice.weights[y, None] * lattice.weights[None, x] * window[:, y, x]
    return total
