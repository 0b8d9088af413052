"""The shape that every layout sampler has."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from dataengine.data.layout import Kind, Layout


class Sampler(Protocol):
    """Draws layouts of one size. `sample` depends on nothing but the generator it is given (contract 4)."""

    classes: tuple[str, ...]
    kind: Kind
    size: tuple[int, int]

    def sample(self, rng: np.random.Generator) -> Layout:
        """One layout, with at least one object unless the sampler says otherwise."""
        ...
