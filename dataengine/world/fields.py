"""Slow random fields over the world: what makes one part of it dense and another empty."""

from __future__ import annotations

from math import erf

import numpy as np

from dataengine.seeds import Stream, generator

SPACING = 8  # cells between independent values of a field
LOCAL = 0.6  # standard deviation of what a cell has for itself, of 1 in all
_OFFSET = 1 << 40  # seeds are not negative, columns and rows may be


def cell_generator(seed: int, stream: Stream, column: int, row: int) -> np.random.Generator:
    """Random numbers of one cell of the world, for one purpose."""
    return generator(seed, stream, column + _OFFSET, row + _OFFSET)


def field(seed: int, n: int, column: int, row: int) -> np.ndarray:
    """n independent fields at a cell, (n,) float64, each uniform in (0, 1) over all worlds, and alike at cells that are
    near each other: normal numbers on a coarse lattice, interpolated, scaled to the same spread everywhere, with a
    share for each cell by itself.

    >>> a, b, far = (field(0, 200, column, 0) for column in (0, 1, 100))
    >>> bool(np.corrcoef(a, b)[0, 1] > 0.4 > np.corrcoef(a, far)[0, 1])
    True
    """
    (left, x), (top, y) = (divmod(place, SPACING) for place in (column, row))
    x, y = (np.sin((place + 0.5) / SPACING * np.pi / 2) ** 2 for place in (x, y))
    total, power = np.zeros(n), 0.0
    for dx, wx in ((0, 1 - x), (1, x)):
        for dy, wy in ((0, 1 - y), (1, y)):
            corner = cell_generator(seed, Stream.WORLD_FIELD, left + dx, top + dy)
            total += wx * wy * corner.standard_normal(n)
            power += (wx * wy) ** 2
    own = cell_generator(seed, Stream.WORLD_CELL, column, row).standard_normal(n)
    normal = np.sqrt(1 - LOCAL**2) * total / np.sqrt(power) + LOCAL * own
    return np.array([0.5 * (1 + erf(value / np.sqrt(2))) for value in normal])
