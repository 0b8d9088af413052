"""Uniformly random boxes: the control that a fitted sampler has to beat."""

from __future__ import annotations

import numpy as np

from dataengine.data.layout import Kind, Layout
from dataengine.layouts.constraints import cut_by_border


class UniformSampler:
    """Draws 1 to `max_objects` boxes with uniform classes, places, sides (in pixels) and headings, overlaps and all."""

    def __init__(
        self,
        classes: tuple[str, ...],
        size: tuple[int, int],
        kind: Kind = "obb",
        sides: tuple[float, float] = (6.0, 80.0),
        max_objects: int = 12,
    ):
        self.classes, self.size, self.kind, self.sides, self.max_objects = classes, size, kind, sides, max_objects

    def sample(self, rng: np.random.Generator) -> Layout:
        """One layout."""
        n = int(rng.integers(1, self.max_objects + 1))
        sides = np.sort(rng.uniform(*self.sides, (n, 2)), axis=1)
        theta = rng.uniform(-np.pi / 2, np.pi / 2, n)
        if self.kind == "hbb":
            theta = np.where(theta < 0, -np.pi / 2, 0)
        boxes = np.column_stack([rng.uniform(0, 1, (n, 2)) * self.size, sides[:, 1], sides[:, 0], theta])
        return cut_by_border(Layout(boxes, rng.integers(len(self.classes), size=n), self.classes, self.size, self.kind))
