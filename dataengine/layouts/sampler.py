"""The interface of layout samplers, and AeroGen's enhancement and label filter as wrappers around any of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from dataengine.data.layout import Kind, Layout
from dataengine.errors import UserError
from dataengine.layouts.reuse import ReuseSampler, limits_of

MIN_OBJECTS = 8  # a class with fewer real objects has no statistics, and all its boxes are accepted
MAX_TRIALS = 50  # layouts sampled before `FilteredSampler` gives up


class Sampler(Protocol):
    """Samples layouts of one size. `sample` depends only on the generator that is passed in."""

    classes: tuple[str, ...]
    kind: Kind
    size: tuple[int, int]

    def sample(self, rng: np.random.Generator) -> Layout:
        """One layout, with at least one object unless the sampler documents otherwise."""
        ...


class EnhancedSampler:
    """Layouts of another sampler, scaled, shifted, turned and flipped (AeroGen's enhancement) as `ReuseSampler` does.

    real: layouts whose range of altitudes, ground sample distances and object lengths limits the scale."""

    def __init__(self, sampler: Sampler, real: Sequence[Layout]):
        self.sampler, self.limits = sampler, limits_of(real)
        self.classes, self.kind, self.size = sampler.classes, sampler.kind, sampler.size

    def sample(self, rng: np.random.Generator) -> Layout:
        """One layout with at least one object."""
        source = [self.sampler.sample(rng)]
        return ReuseSampler(source, self.size, merge=0.0, max_overlap=1.0, limits=self.limits).sample(rng)


def attributes(layout: Layout) -> np.ndarray:
    """(N, 4) float64: log area, log aspect ratio, and the centre divided by the image size.

    >>> layout = Layout([[50, 25, 20, 5, 0]], [0], ("car",), (100, 100))
    >>> attributes(layout).round(2).tolist()
    [[4.61, 1.39, 0.5, 0.25]]
    """
    boxes = layout.boxes.astype(np.float64)
    area = np.log(np.maximum(boxes[:, 2] * boxes[:, 3], 1e-6))
    aspect = np.log(np.maximum(boxes[:, 2] / np.maximum(boxes[:, 3], 1e-6), 1))
    return np.column_stack([area, aspect, boxes[:, :2] / np.float64(layout.size)])


class NormalFilter:
    """AeroGen's label filter (section Pipeline): every attribute of a box lies within `epsilon` standard deviations of
    the mean of the real boxes of its class."""

    def __init__(self, real: Sequence[Layout], epsilon: float):
        """real: layouts of one class list. epsilon: largest distance from the mean, in standard deviations."""
        values = np.concatenate([attributes(layout) for layout in real])
        labels = np.concatenate([layout.labels for layout in real])
        self.epsilon, self.moments = epsilon, {}
        for label in np.unique(labels):
            of_class = values[labels == label]
            if len(of_class) >= MIN_OBJECTS:
                self.moments[int(label)] = of_class.mean(0), np.maximum(of_class.std(0), 1e-3)

    def accepts(self, layout: Layout) -> np.ndarray:
        """Bool (N,): boxes whose attributes are all within `epsilon` standard deviations."""
        values, accepted = attributes(layout), np.ones(len(layout), bool)
        for label, (mean, std) in self.moments.items():
            of_class = layout.labels == label
            accepted[of_class] = (np.abs(values[of_class] - mean) <= self.epsilon * std).all(1)
        return accepted


class FilteredSampler:
    """A sampler whose layouts all pass a `NormalFilter`; a layout that fails is sampled again."""

    def __init__(self, sampler: Sampler, label_filter: NormalFilter):
        self.sampler, self.label_filter = sampler, label_filter
        self.classes, self.kind, self.size = sampler.classes, sampler.kind, sampler.size

    def sample(self, rng: np.random.Generator) -> Layout:
        """One layout. Raises UserError when none of `MAX_TRIALS` layouts passes."""
        for _ in range(MAX_TRIALS):
            layout = self.sampler.sample(rng)
            if self.label_filter.accepts(layout).all():
                return layout
        raise UserError(
            f"none of {MAX_TRIALS} sampled layouts has all boxes within {self.label_filter.epsilon} standard "
            "deviations of the real ones; give a larger --label-filter."
        )
