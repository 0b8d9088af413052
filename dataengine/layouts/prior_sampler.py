"""Samples layouts from a `Prior`, object by object."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from dataengine import geometry
from dataengine.data.layout import Acquisition, Layout
from dataengine.errors import UserError
from dataengine.layouts import balance as balancing
from dataengine.layouts.constraints import FULLY_VISIBLE, MIN_VISIBLE, Border, apart, cut_by_border, overlap
from dataengine.layouts.growth import stance, stepped, wrapped
from dataengine.layouts.prior import STANCES, ObjectPrior, Prior, SceneType, at

_N_CANDIDATES = 16  # boxes sampled at once for an object
_PARENT_TRIALS = 4  # neighbours tried for an object
_FREE_TRIALS = 3  # trials without a neighbour after that, before the object is omitted
_LOG_DENSITY_OUTSIDE = -20.0  # of values outside the quantiles of a class


@dataclass
class _Grown:
    """The objects placed so far."""

    boxes: np.ndarray  # (N, 5) float64
    labels: list[int]
    upright: list[bool]
    parent: list[int]  # the neighbour each was placed next to, its own index for none
    in_row: list[bool]  # whether its step repeats the previous one


class PriorSampler:
    """Samples layouts from a fitted `Prior`: a scene type, an acquisition, then object by object.

    size:        (width, height) in pixels, by default the prior's; the number of objects is proportional to the area.
    balance:     minimum share of all objects for every class (0.2) or for some ({"OtherVehicle": 0.1}).
    max_overlap: upper limit of the overlap, as a share of the smaller box; each object's own limit is sampled from the
                 overlaps of its class. None for no further limit.
    border:      "clip" or "keep" boxes that the border cuts (see `constraints.cut_by_border`).

    Raises UserError for a `balance` that cannot be met.
    """

    def __init__(
        self,
        prior: Prior,
        size: tuple[int, int] | None = None,
        balance: float | Mapping[str, float] | None = None,
        max_overlap: float | None = None,
        *,
        border: Border = "clip",
    ):
        self.prior, self.classes, self.kind = prior, prior.classes, prior.kind
        self.size = size or prior.size
        self.max_overlap = 1.0 if max_overlap is None else max_overlap
        self.border = border
        largest = [prior.objects[name].overlap[-1] if name in prior.objects else 0.0 for name in self.classes]
        self._largest_overlap = np.clip(largest, 0.01, self.max_overlap)
        self._area = self.size[0] * self.size[1] / (prior.size[0] * prior.size[1])
        self._steps = {(prior.classes.index(s.of), prior.classes.index(s.to)): s for s in prior.steps}
        self._tables = {pair: np.array([kind.numbers() for kind in s.kinds]) for pair, s in self._steps.items()}
        self._kind_weights = {pair: _shares([kind.weight for kind in s.kinds]) for pair, s in self._steps.items()}
        self._scene_weights = _shares([scene.weight for scene in prior.scenes])
        self._affinity = np.full(
            (len(self.classes),) * 2, 1e-3
        )  # how often an object of one class is followed by another class
        for (of, to), s in self._steps.items():
            self._affinity[of, to] += s.share
        shares = balancing.shares_of(balance, self.classes)
        for label in np.flatnonzero(shares):
            if not any(self.classes[label] in scene.counts for scene in prior.scenes):
                raise UserError(f"--balance: the prior has no scene with {self.classes[label]!r}; leave it out.")
        self.plan = balancing.plan(shares, self._counts, n_samples=2000)

    def sample(self, rng: np.random.Generator) -> Layout:
        """One layout with at least one object."""
        anchor = self.plan.anchor(rng)
        return self._grow(rng, anchor, self.plan.keep if anchor is not None else 1.0)

    def _counts(self, rng: np.random.Generator, anchor: int | None) -> np.ndarray:
        return self._class_counts(rng, self._scene(rng, anchor), anchor, 1.0)

    def _grow(self, rng: np.random.Generator, anchor: int | None, keep: float) -> Layout:
        scene = self._scene(rng, anchor)
        indices, weights = list(scene.taken), _shares(list(scene.taken.values()))
        acquisition = self.prior.acquisitions[indices[rng.choice(len(indices), p=weights)]]
        scale = float(at(scene.scale, rng.random()))
        grown = _Grown(np.zeros((0, 5)), [], [], [], [])
        for label in self._labels_in_order(rng, self._class_counts(rng, scene, anchor, keep)):
            self._add(rng, grown, label, acquisition, scale)
        layout = Layout(grown.boxes, grown.labels, self.classes, self.size, self.kind, acquisition=acquisition)
        layout = cut_by_border(layout, self.border)
        # The rectangle around the visible part of a cut box may overlap a neighbour.
        layout = layout.select(apart(layout.boxes, self._largest_overlap[layout.labels]))
        if self.kind == "hbb":
            return layout
        return replace(layout, boxes=geometry.regularize(layout.boxes))

    def _scene(self, rng: np.random.Generator, anchor: int | None) -> SceneType:
        weights = self._scene_weights
        if anchor is not None:
            weights = weights * [self.classes[anchor] in scene.counts for scene in self.prior.scenes]
        return self.prior.scenes[rng.choice(len(weights), p=weights / weights.sum())]

    def _class_counts(self, rng: np.random.Generator, scene: SceneType, anchor: int | None, keep: float) -> np.ndarray:
        """Number of objects of each class, (C,)."""
        counts = np.zeros(len(self.classes), int)
        for name, quantiles in scene.counts.items():
            label = self.classes.index(name)
            exact = max(float(at(quantiles, rng.random())) * self._area, 1.0 if label == anchor else 0.0)
            counts[label] = int(exact + rng.random())
            if label != anchor and anchor is not None:
                counts[label] = rng.binomial(counts[label], keep)
        if not counts.any():
            counts[anchor if anchor is not None else self.classes.index(next(iter(scene.counts)))] = 1
        return counts

    def _labels_in_order(self, rng: np.random.Generator, counts: np.ndarray) -> list[int]:
        """The class of each object in the order of placement; classes that often follow one another come together."""
        left, order = counts.astype(float), []
        weights = left
        for _ in range(int(counts.sum())):
            order.append(int(rng.choice(len(left), p=_shares(weights))))
            left[order[-1]] -= 1
            weights = left * self._affinity[order[-1]]
        return order

    def _add(self, rng: np.random.Generator, grown: _Grown, label: int, acquisition: Acquisition, scale: float) -> None:
        described = self.prior.objects[self.classes[label]]
        side = self._typical_side(described, acquisition, scale)
        cut = bool(rng.random() < described.cut)
        max_overlap = min(float(at(described.overlap, rng.random())), self.max_overlap)
        for attempt in range(_PARENT_TRIALS + _FREE_TRIALS):
            parent = self._parent(rng, grown, label) if attempt < _PARENT_TRIALS else None
            # The last trial does not ask for a cut object: an uncut one is better than none.
            cut = cut and attempt < _PARENT_TRIALS + _FREE_TRIALS - 1
            if parent is None or (grown.labels[parent], label) not in self._steps:
                boxes, upright = self._anywhere(rng, described, side, cut)
                in_row = np.zeros(_N_CANDIDATES, bool)
            else:
                boxes, upright, in_row = self._next_to(rng, grown, label, described, side, parent)
            chosen = self._first_fitting(boxes, grown, cut, max_overlap)
            if chosen is not None:
                break
        else:
            if grown.labels:
                return
            chosen = 0  # the first object is never omitted: one that fits nowhere is cut by the border
            boxes[0, :2] = np.clip(boxes[0, :2], 0, self.size)
        grown.boxes = np.concatenate([grown.boxes, boxes[chosen : chosen + 1]])
        grown.labels.append(label)
        grown.upright.append(bool(upright[chosen]))
        grown.in_row.append(bool(in_row[chosen]))
        grown.parent.append(len(grown.labels) - 1 if parent is None else parent)

    def _typical_side(self, described: ObjectPrior, acquisition: Acquisition, scale: float) -> float:
        """Log side in pixels of a class at an acquisition."""
        model, log_side = described.size, described.size.log_side + scale
        if acquisition.altitude_m is not None:
            log_side += model.per_log_altitude * (np.log(acquisition.altitude_m) - self.prior.mean_log_altitude)
        if acquisition.camera_angle_deg is not None:
            cosine = np.cos(np.radians(acquisition.camera_angle_deg))
            log_side += model.per_cos_angle * (cosine - self.prior.mean_cos_angle)
        return log_side - (np.log(acquisition.gsd_m) if acquisition.gsd_m is not None else 0.0)

    def _parent(self, rng: np.random.Generator, grown: _Grown, label: int) -> int | None:
        """The neighbour to place an object next to: often the last, else one by the affinity of classes."""
        n = len(grown.labels)
        if not n:
            return None
        if (grown.labels[-1], label) in self._steps and rng.random() < self.prior.follows:
            return n - 1
        return int(rng.choice(n, p=_shares(self._affinity[grown.labels, label])))

    def _anywhere(
        self, rng: np.random.Generator, described: ObjectPrior, side: float, cut: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        """Candidates (T, 5) that do not depend on other objects, and whether each is upright (T,)."""
        upright = rng.random(_N_CANDIDATES) < described.upright
        axis = np.where(rng.random(_N_CANDIDATES) < described.standing, -np.pi / 2, 0)
        boxes = np.zeros((_N_CANDIDATES, 5))
        boxes[:, 4] = np.where(upright, axis, wrapped(at(described.heading, rng.random(_N_CANDIDATES))))
        _set_sides(boxes, *_independent_shape(rng, described, side, boxes[:, 4]))
        boxes[:, :2] = self._free_places(rng, described, boxes, cut)
        return boxes, upright

    def _next_to(
        self, rng: np.random.Generator, grown: _Grown, label: int, described: ObjectPrior, side: float, parent: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Candidates (T, 5) a step away from the parent, whether each is upright (T,) and continues a row (T,)."""
        pair = (grown.labels[parent], label)
        steps, first = self._steps[pair], grown.boxes[parent]
        numbers = _between(
            self._tables[pair], rng.choice(len(steps.kinds), _N_CANDIDATES, p=self._kind_weights[pair]), rng
        )
        mirrored = rng.choice([-1.0, 1.0], (_N_CANDIDATES, 2))
        turn, larger, longer = numbers[:, 2] * mirrored.prod(1), numbers[:, 3], numbers[:, 4]
        before, row = grown.parent[parent], steps.row
        in_row = np.zeros(_N_CANDIDATES, bool)
        if row is not None and before != parent and grown.labels[before] == label:
            in_row = rng.random(_N_CANDIDATES) < row.share[int(grown.in_row[parent])]
            chance = rng.random((3, _N_CANDIDATES))
            turn = np.where(in_row, at(row.turn, chance[0]) * mirrored[:, 0], turn)
            larger = np.where(in_row, at(row.larger, chance[1]), larger)
            longer = np.where(in_row, at(row.longer, chance[2]), longer)
        boxes = np.zeros((_N_CANDIDATES, 5))
        upright = rng.random(_N_CANDIDATES) < steps.upright_after[int(grown.upright[parent])]
        theta = wrapped(first[4] + turn)
        boxes[:, 4] = np.where(upright, np.where(np.abs(theta) > np.pi / 4, -np.pi / 2, 0.0), theta)
        if pair[0] == label:
            log_side = np.log(first[2] * first[3]) / 2 + larger
            aspect = np.abs(np.log(first[2] / first[3]) + longer)
            ratio = _log_likelihood(described, side, boxes[:, 4], log_side, aspect)
            own = np.log(first[2:3] / first[3])
            ratio -= _log_likelihood(described, side, first[4:], log_side[:1] - larger[:1], own)
            # Metropolis: neighbours are similar, while sizes and shapes keep the distribution of their class.
            accepted = np.log(rng.random(_N_CANDIDATES)) < ratio
        else:
            log_side, aspect = _independent_shape(rng, described, side, boxes[:, 4])
            accepted = np.ones(_N_CANDIDATES, bool)
        _set_sides(boxes, log_side, aspect)
        boxes[:, :2] = stepped(np.repeat(first[None], _N_CANDIDATES, 0), boxes, np.expm1(numbers[:, :2]), mirrored)
        if in_row.any():
            last = first[:2] - grown.boxes[before, :2]
            wobble = at(row.wobble, rng.random((_N_CANDIDATES, 2)))
            moved = first[:2] + last + wobble[:, :1] * last + wobble[:, 1:] * np.array([-last[1], last[0]])
            boxes[in_row, :2] = moved[in_row]
        return boxes[accepted], upright[accepted], in_row[accepted]

    def _free_places(
        self, rng: np.random.Generator, described: ObjectPrior, boxes: np.ndarray, cut: bool
    ) -> np.ndarray:
        """Centres sampled from the grid of positions; for a cut object, moved along one axis to the border."""
        grid = np.array(described.places)
        cell = rng.choice(grid.size, _N_CANDIDATES, p=_shares(grid.ravel()))
        place = np.column_stack([cell % grid.shape[1], cell // grid.shape[1]]) + rng.random((_N_CANDIDATES, 2))
        centres = place / grid.shape[::-1] * self.size
        if cut:
            aabb = geometry.to_aabb(boxes.astype(np.float32))
            half = np.column_stack([aabb[:, 2] - aabb[:, 0], aabb[:, 3] - aabb[:, 1]]) / 2
            axis = rng.integers(0, 2, _N_CANDIDATES)
            rows = np.arange(_N_CANDIDATES)
            inside = rng.uniform(-0.5, 0.9, _N_CANDIDATES) * half[rows, axis]
            far = rng.random(_N_CANDIDATES) < 0.5
            centres[rows, axis] = np.where(far, np.array(self.size)[axis] - inside, inside)
        return centres

    def _first_fitting(self, boxes: np.ndarray, grown: _Grown, cut: bool, max_overlap: float) -> int | None:
        """The first candidate that is cut by the border as requested and overlaps no object by more than the limit."""
        aabb = geometry.to_aabb(boxes.astype(np.float32))
        fits = (aabb[:, :2] >= 0).all(1) & (aabb[:, 2:] <= self.size).all(1)
        if cut:
            fits = ~fits & (aabb[:, 2:] > 0).all(1) & (aabb[:, :2] < self.size).all(1)
            rows = np.flatnonzero(fits)
            visible = geometry.visible_fraction(boxes[rows].astype(np.float32), self.size) if len(rows) else rows
            fits[rows] = (visible >= MIN_VISIBLE) & (visible < FULLY_VISIBLE)
        rows = np.flatnonzero(fits)
        if len(rows) and len(grown.labels):
            rows = rows[overlap(boxes[rows], grown.boxes).max(1) <= max_overlap]
        return int(rows[0]) if len(rows) else None


def _shares(weights: np.ndarray | list[float]) -> np.ndarray:
    """Weights scaled to a sum of 1."""
    weights = np.asarray(weights, float)
    return weights / weights.sum()


def _between(table: np.ndarray, kind: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Random numbers (T, 5) from the quantiles (K, 5, Q) of the given kinds (T,)."""
    exact = rng.random((len(kind), 5)) * (table.shape[2] - 1)
    low = exact.astype(int)
    rows, columns = kind[:, None], np.arange(5)[None]
    lower, upper = table[rows, columns, low], table[rows, columns, low + 1]
    return lower + (upper - lower) * (exact - low)


def _independent_shape(
    rng: np.random.Generator, described: ObjectPrior, side: float, theta: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Log side and log aspect (T,) of objects at headings `theta`, from the distributions of their class."""
    chance = rng.random((2, len(theta)))
    aspect = np.choose(stance(theta), [at(described.aspect[name], chance[0]) for name in STANCES])
    return side + at(described.size.residual, chance[1]), aspect


def _log_likelihood(
    described: ObjectPrior, side: float, theta: np.ndarray, log_side: np.ndarray, aspect: np.ndarray
) -> np.ndarray:
    """Log density (T,) of size and shape in their class, taken as independent, up to a constant."""
    shape = np.choose(stance(theta), [_log_density(described.aspect[name], aspect) for name in STANCES])
    return _log_density(described.size.residual, log_side - side) + shape


def _log_density(quantiles: tuple[float, ...], values: np.ndarray) -> np.ndarray:
    """Log density between quantiles, one over their distance; very low for values outside of them."""
    knots = np.array(quantiles)
    widths = np.maximum(np.diff(knots), 1e-3)
    interval = np.clip(np.searchsorted(knots, values, side="right") - 1, 0, len(widths) - 1)
    return np.where((values >= knots[0]) & (values <= knots[-1]), -np.log(widths[interval]), _LOG_DENSITY_OUTSIDE)


def _set_sides(boxes: np.ndarray, log_side: np.ndarray, log_aspect: np.ndarray) -> None:
    boxes[:, 2] = np.exp(log_side + log_aspect / 2)
    boxes[:, 3] = np.exp(log_side - log_aspect / 2)
