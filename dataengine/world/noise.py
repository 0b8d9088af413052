"""Noise as a function of the position in the world.

The plane is divided into cells of CELL x CELL positions, and each cell has a counter-based generator of its own (Salmon
et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"), keyed by seed, stage and step, whose counter begins at the
cell. So any rectangle can be drawn by itself, in memory of its own size, and two that overlap agree where they do
(MetaEarth's noise sampling, Yu et al. 2024, section 3.3, for rectangles of any place and size).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

CELL = 64  # positions of a side
_WORD = 1 << 64


@dataclass(frozen=True)
class Rect:
    """A rectangle of whole positions in the world; coordinates may be negative.

    >>> Rect(3, 4, 10, 5).right, Rect(3, 4, 10, 5).bottom
    (13, 9)
    """

    left: int
    top: int
    width: int
    height: int

    @property
    def right(self) -> int:
        return self.left + self.width

    @property
    def bottom(self) -> int:
        return self.top + self.height

    def grown(self, by: int) -> Rect:
        """The rectangle with a margin on all sides.

        >>> Rect(0, 0, 2, 2).grown(1)
        Rect(left=-1, top=-1, width=4, height=4)
        """
        return Rect(self.left - by, self.top - by, self.width + 2 * by, self.height + 2 * by)

    def scaled(self, factor: int) -> Rect:
        """The rectangle in positions that are `factor` times finer."""
        return Rect(self.left * factor, self.top * factor, self.width * factor, self.height * factor)

    def around(self, factor: int) -> Rect:
        """The least rectangle, in positions that are `factor` times coarser, that covers this one.

        >>> Rect(-1, 7, 10, 2).around(8)
        Rect(left=-1, top=0, width=3, height=2)
        """
        left, top = self.left // factor, self.top // factor
        return Rect(left, top, -(-self.right // factor) - left, -(-self.bottom // factor) - top)

    def cells(self, size: int) -> list[tuple[int, int]]:
        """(column, row) of all cells of size x size positions that the rectangle touches, row by row."""
        columns = range(self.left // size, -(-self.right // size))
        return [(column, row) for row in range(self.top // size, -(-self.bottom // size)) for column in columns]

    def common(self, other: Rect) -> tuple[tuple[slice, slice], tuple[slice, slice]] | None:
        """Rows and columns of the common part in arrays of this rectangle and of the other; None if there is none."""
        left, right = max(self.left, other.left), min(self.right, other.right)
        top, bottom = max(self.top, other.top), min(self.bottom, other.bottom)
        if left >= right or top >= bottom:
            return None
        own, theirs = (
            (slice(top - r.top, bottom - r.top), slice(left - r.left, right - r.left)) for r in (self, other)
        )
        return own, theirs


def hull(rects: Sequence[Rect]) -> Rect:
    """The least rectangle that holds all of them.

    >>> hull([Rect(0, 0, 2, 2), Rect(5, -1, 1, 1)])
    Rect(left=0, top=-1, width=6, height=3)
    """
    left, top = min(rect.left for rect in rects), min(rect.top for rect in rects)
    return Rect(left, top, max(rect.right for rect in rects) - left, max(rect.bottom for rect in rects) - top)


def position_noise(seed: int, stage: str, step: int, channels: int, rect: Rect) -> np.ndarray:
    """Independent standard normal numbers at the positions of a rectangle, (channels, height, width) float32.

    A number depends on seed, stage, step, channel and position only.

    >>> whole = position_noise(0, "pixels", 0, 1, Rect(-100, 0, 200, 80))
    >>> bool((position_noise(0, "pixels", 0, 1, Rect(50, 60, 30, 20)) == whole[:, 60:80, 150:180]).all())
    True
    """
    digest = hashlib.sha256(f"dataengine world {seed} {stage} {step}".encode()).digest()
    key = np.frombuffer(digest[:16], np.uint64)
    out = np.empty((channels, rect.height, rect.width), np.float32)
    for column, row in rect.cells(CELL):
        cell = Rect(column * CELL, row * CELL, CELL, CELL)
        counter = np.array([0, 0, column % _WORD, row % _WORD], np.uint64)  # each cell counts in the first two
        numbers = np.random.Generator(np.random.Philox(key=key, counter=counter))
        values = numbers.standard_normal((channels, CELL, CELL), np.float32)
        (rows, columns), (own_rows, own_columns) = rect.common(cell)
        out[:, rows, columns] = values[:, own_rows, own_columns]
    return out
