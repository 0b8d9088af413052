"""AeroGen's label filter: every attribute of every box within some standard deviations of the real ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dataengine.data.layout import Layout
from dataengine.errors import UserError
from dataengine.layouts.sampler import Sampler

FEWEST = 8  # real objects of a class, below which nothing is known of it and nothing refused
TRIES = 50


def attributes(layout: Layout) -> np.ndarray:
    """(N, 4) float64: log area, log aspect, and the centre over the image size."""
    boxes = layout.boxes.astype(np.float64)
    area = np.log(np.maximum(boxes[:, 2] * boxes[:, 3], 1e-6))
    aspect = np.log(np.maximum(boxes[:, 2] / np.maximum(boxes[:, 3], 1e-6), 1))
    return np.column_stack([area, aspect, boxes[:, :2] / np.float64(layout.size)])


class NormalFilter:
    """Mean and standard deviation of the attributes of each class (AeroGen, section Pipeline, label filter)."""

    def __init__(self, real: Sequence[Layout], epsilon: float):
        """epsilon: standard deviations that a box may be away from the mean of its class."""
        every = np.concatenate([attributes(layout) for layout in real])
        labels = np.concatenate([layout.labels for layout in real])
        self.epsilon, self.moments = epsilon, {}
        for label in np.unique(labels):
            own = every[labels == label]
            if len(own) >= FEWEST:
                self.moments[int(label)] = own.mean(0), np.maximum(own.std(0), 1e-3)

    def accepts(self, layout: Layout) -> np.ndarray:
        """bool (N,): boxes that look like real ones of their class."""
        values, good = attributes(layout), np.ones(len(layout), bool)
        for label, (mean, spread) in self.moments.items():
            own = layout.labels == label
            good[own] = (np.abs(values[own] - mean) <= self.epsilon * spread).all(1)
        return good


class FilteredSampler:
    """A sampler whose layouts all pass a `NormalFilter`; those that do not are drawn again."""

    def __init__(self, sampler: Sampler, label_filter: NormalFilter):
        self.sampler, self.label_filter = sampler, label_filter
        self.classes, self.kind, self.size = sampler.classes, sampler.kind, sampler.size

    def sample(self, rng: np.random.Generator) -> Layout:
        """One layout. Raises UserError when the sampler draws none that passes."""
        for _ in range(TRIES):
            layout = self.sampler.sample(rng)
            if self.label_filter.accepts(layout).all():
                return layout
        raise UserError(
            f"of {TRIES} layouts none lies within {self.label_filter.epsilon} standard deviations of the real ones in "
            "every box; give a larger --label-filter."
        )
