"""The distance between the distributions of sampled and real layouts.

Each property of a layout (its terms, below) is compared as a distribution:

- numbers by the first Wasserstein distance divided by the real standard deviation (0 = the same distribution,
  1 = on average a standard deviation away);
- headings by the energy distance on the circle of the doubled angle, whose period is half a turn (Székely & Rizzo
  2013), as a share of its largest possible value;
- shares (classes, sets of classes) by the total variation distance, 0 to 1.

The score is the mean over the terms: 0 is a perfect fit. Compare it with `floor`, the score of one half of the real
layouts against the other half, and with the score of `UniformSampler`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dataengine import geometry
from dataengine.data.layout import Kind, Layout
from dataengine.layouts.constraints import FULLY_VISIBLE, cut_by_border, overlap

# {term: description}, in the order of the report
TERMS = {
    "count": "log of the number of objects in a layout",
    "classes": "share of each class",
    "together": "share of each set of classes that occurs in a layout",
    "side": "log of the square root of the area, within each class",
    "aspect": "log of long over short side, within each class",
    "heading": "angle of the boxes, within each class",
    "place": "centre across and down the image",
    "border": "share of objects that the border cuts",
    "distance": "log of the distance to the nearest neighbour, over the mean of both sides",
    "neighbour_angle": "angle between neighbours, 0 to 90 degrees",
    "neighbour_side": "log ratio of the sides of neighbours of one class",
    "overlap": "largest share of a box that another box covers, relative to the smaller of the two",
    "acquisition": "log side within each class after the altitude or GSD: log side + log of either",
}


@dataclass(frozen=True)
class FitScore:
    """`score` is the mean of `terms`; lower is better."""

    score: float
    terms: dict[str, float]


def fit_score(sampled: Sequence[Layout], real: Sequence[Layout]) -> FitScore:
    """Compare layouts of one class list. Both sides need objects; a term that has no values on one side is omitted.

    >>> layouts = [Layout([[50, 25, 20, 5, 0]], [0], ("car",), (100, 100))] * 4
    >>> fit_score(layouts, layouts).score
    0.0
    """
    from scipy.stats import wasserstein_distance

    a, b = _Traits(sampled), _Traits(real)
    assert min(len(a.label), len(b.label)) > 0, "both sides need objects"
    assert a.classes == b.classes, "layouts of two class lists cannot be compared"

    def number(first: np.ndarray, second: np.ndarray) -> float:
        return float(wasserstein_distance(first, second) / max(np.std(second), 1e-3))

    def by_class(distance, name: str) -> float:
        """Mean over the classes, weighted by their number of real objects."""
        first, second = getattr(a, name), getattr(b, name)
        found, weights = [], []
        for label in np.unique(b.label):
            one, other = first[a.label == label], second[b.label == label]
            one, other = one[np.isfinite(one)], other[np.isfinite(other)]
            if len(one) and len(other):
                found.append(distance(one, other))
                weights.append(len(other))
        return float(np.average(found, weights=weights)) if found else np.nan

    def whole(name: str) -> float:
        first, second = getattr(a, name), getattr(b, name)
        first, second = first[np.isfinite(first)], second[np.isfinite(second)]
        return number(first, second) if len(first) and len(second) else np.nan

    terms = {
        "count": whole("count"),
        "classes": _total_variation(Counter(a.label.tolist()), Counter(b.label.tolist())),
        "together": _total_variation(Counter(a.together), Counter(b.together)),
        "side": by_class(number, "side"),
        "aspect": by_class(number, "aspect"),
        "heading": by_class(_circular_energy, "heading"),
        "place": (whole("across") + whole("down")) / 2,
        "border": abs(float(a.cut.mean() - b.cut.mean())),
        "distance": whole("distance"),
        "neighbour_angle": whole("neighbour_angle"),
        "neighbour_side": whole("neighbour_side"),
        "overlap": whole("overlap"),
        "acquisition": by_class(number, "side_in_metres"),
    }
    assert terms.keys() == TERMS.keys()
    terms = {name: round(value, 4) for name, value in terms.items() if np.isfinite(value)}
    return FitScore(round(float(np.mean(list(terms.values()))), 4), terms)


def floor(real: Sequence[Layout], rng: np.random.Generator) -> FitScore:
    """The score of a random half of the real layouts against the other half: the lowest score to expect."""
    order = rng.permutation(len(real))
    half = len(real) // 2
    return fit_score([real[i] for i in order[:half]], [real[i] for i in order[half:]])


class _Traits:
    """The compared properties, one array for each term; `nan` where a layout has no value."""

    def __init__(self, layouts: Sequence[Layout]):
        layouts = [layout for layout in layouts if len(layout)]
        self.classes = layouts[0].classes if layouts else ()
        self.count = np.log([len(layout) for layout in layouts])
        self.together = [tuple(np.unique(layout.labels)) for layout in layouts]
        self.label = np.concatenate([layout.labels for layout in layouts])
        boxes = np.concatenate([layout.boxes for layout in layouts]).astype(float)
        repeats = [len(layout) for layout in layouts]
        size = np.repeat([layout.size for layout in layouts], repeats, axis=0)
        self.side = np.log(boxes[:, 2] * boxes[:, 3]) / 2
        self.aspect = np.log(np.maximum(boxes[:, 2] / boxes[:, 3], 1))
        self.heading = boxes[:, 4]
        self.across, self.down = (boxes[:, :2] / size).T
        aabb = geometry.to_aabb(boxes.astype(np.float32))
        visible = np.concatenate([layout.visible for layout in layouts])
        self.cut = (visible < FULLY_VISIBLE) | (aabb[:, :2] <= 1).any(1) | (aabb[:, 2:] >= size - 1).any(1)
        self.side_in_metres = self.side + np.repeat([_log_metres(layout) for layout in layouts], repeats)
        # The shape of a cut box is not that of the object.
        self.aspect[self.cut] = self.heading[self.cut] = self.side_in_metres[self.cut] = np.nan
        pairs = [_neighbours(layout) for layout in layouts if len(layout) > 1]
        together = np.concatenate(pairs) if pairs else np.zeros((0, 4))
        self.distance, self.neighbour_angle, self.neighbour_side, self.overlap = together.T


def _log_metres(layout: Layout) -> float:
    """Log of the metres for each pixel, up to a constant of the camera; `nan` where unknown."""
    metres = layout.acquisition.gsd_m or layout.acquisition.altitude_m
    return float(np.log(metres)) if metres else np.nan


def _neighbours(layout: Layout) -> np.ndarray:
    """(N, 4): distance to the nearest neighbour, angle and log ratio of sides to it, largest overlap with any."""
    boxes = layout.boxes.astype(float)
    apart = np.hypot(boxes[:, None, 0] - boxes[None, :, 0], boxes[:, None, 1] - boxes[None, :, 1])
    np.fill_diagonal(apart, np.inf)
    nearest = apart.argmin(1)
    side = np.sqrt(boxes[:, 2] * boxes[:, 3])
    distance = np.log(apart.min(1) / ((side + side[nearest]) / 2) + 1e-2)
    difference = np.abs(boxes[:, 4] - boxes[nearest, 4])
    angle = np.degrees(np.minimum(difference, np.pi - difference))
    ratio = np.where(layout.labels == layout.labels[nearest], np.abs(np.log(side / side[nearest])), np.nan)
    shares = overlap(layout.boxes, layout.boxes)
    np.fill_diagonal(shares, 0)
    return np.column_stack([distance, angle, ratio, shares.max(1)])


def _total_variation(first: Counter, second: Counter) -> float:
    keys = [*{**first, **second}]
    a, b = (np.array([counts[key] for key in keys], float) for counts in (first, second))
    return float(np.abs(a / a.sum() - b / b.sum()).sum() / 2)


def _circular_energy(first: np.ndarray, second: np.ndarray, bins: int = 180) -> float:
    """Energy distance of two samples of headings on the unit circle of the doubled angle, divided by its maximum, 4."""
    edges = np.linspace(-np.pi / 2, np.pi / 2, bins + 1) - np.pi / bins / 2  # 0 and -pi/2 are bin centres
    shares = []
    for theta in (first, second):
        wrapped = (theta - edges[0]) % np.pi + edges[0]
        shares.append(np.histogram(wrapped, edges)[0] / len(theta))
    centre = 2 * (edges[:-1] + edges[1:]) / 2
    chord = 2 * np.abs(np.sin((centre[:, None] - centre[None]) / 2))
    difference = shares[0] - shares[1]
    return float(np.sqrt(max(-difference @ chord @ difference, 0) / 4))


class UniformSampler:
    """1 to `max_objects` boxes with uniform classes, places, sides (in pixels) and headings, which may overlap: the
    control that a fitted sampler has to beat."""

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
