"""The objects of a world: cells that are filled one after another from a prior, each next to those filled before it.

Cells have four colours, by the parity of column and row. One of colour k sees its neighbours of colours below k, which
in turn see theirs, so it depends on cells at most three away, whatever the order they are asked for. Objects stand next
to those of other cells as to their own: rows and distances hold across borders. Each object belongs to the cell that
its centre is in.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from dataengine import geometry
from dataengine.data.layout import Acquisition, Layout
from dataengine.layouts.constraints import MIN_VISIBLE, apart, overlap
from dataengine.layouts.prior import Prior, SceneType, at
from dataengine.layouts.prior_sampler import PriorSampler, _Grown, _shares
from dataengine.render.frame import FrameSpec, hole_reach
from dataengine.seeds import Stream
from dataengine.world.fields import cell_generator, field
from dataengine.world.noise import Rect

STEPS_PER_PIXEL = 64  # of positions and sizes: exact in float32 up to 262,144 pixels from a rectangle's corner
MAX_CELLS = 4096  # kept; a cell is a few kilobytes
LEAST_VISIBLE = 1e-6  # share of an object in a rectangle below which rounding alone may put it there


@dataclass(frozen=True)
class WorldObjects:
    """Objects of a world, whole. boxes: float64 (N, 5), le90, in pixels of the world. labels: int64 (N,). ids: int64
    (N, 3), column and row of each one's cell and its number there, which no other object has."""

    boxes: np.ndarray
    labels: np.ndarray
    ids: np.ndarray

    def __len__(self) -> int:
        return len(self.boxes)

    def select(self, keep: np.ndarray) -> WorldObjects:
        """Those of a bool mask or of indices."""
        return WorldObjects(self.boxes[keep], self.labels[keep], self.ids[keep])


NO_OBJECTS = WorldObjects(np.zeros((0, 5)), np.zeros(0, np.int64), np.zeros((0, 3), np.int64))


def joined(parts: list[WorldObjects]) -> WorldObjects:
    """All objects of the parts, in order."""
    parts = [NO_OBJECTS, *parts]
    return WorldObjects(*(np.concatenate([getattr(p, name) for p in parts]) for name in ("boxes", "labels", "ids")))


def hulls_of(boxes: np.ndarray) -> np.ndarray:
    """Left, top, right, bottom (N, 4) of boxes (N, 5), float64."""
    cos, sin = np.abs(np.cos(boxes[:, 4])), np.abs(np.sin(boxes[:, 4]))
    half = np.column_stack([boxes[:, 2] * cos + boxes[:, 3] * sin, boxes[:, 2] * sin + boxes[:, 3] * cos]) / 2
    return np.concatenate([boxes[:, :2] - half, boxes[:, :2] + half], 1)


class WorldLayouts:
    """The objects in any rectangle of a world. What is in a cell depends on seed, prior and place alone.

    prior: fitted on real layouts (`prior_fit.fit`). acquisition: of the whole world, one of the prior's; drawn by the
    seed if None. cell: side of a cell in pixels; an object, with what a renderer of these frames (spec) paints around
    it, reaches at most half a cell beyond its own cell.
    """

    def __init__(
        self, prior: Prior, seed: int, spec: FrameSpec, acquisition: Acquisition | None = None, cell: int = 256
    ):
        self.prior, self.seed, self.cell_px, self.spec = prior, seed, cell, spec
        self.classes, self.kind = prior.classes, prior.kind
        self.grower = _CellGrower(prior, cell, spec)
        weights = np.zeros((len(prior.scenes), len(prior.acquisitions)))
        for i, scene in enumerate(prior.scenes):
            weights[i, list(scene.taken)] = scene.weight * _shares(list(scene.taken.values()))
        if acquisition is None:
            number = cell_generator(seed, Stream.WORLD_ACQUISITION, 0, 0).choice(
                len(prior.acquisitions), p=_shares(weights.sum(0))
            )
        else:
            number = prior.acquisitions.index(acquisition)
        self.acquisition = prior.acquisitions[number]
        self.scene_weights = _shares(weights[:, number])
        self._cells = lru_cache(MAX_CELLS)(self._grown)

    def objects(self, rect: Rect) -> WorldObjects:
        """Every object that reaches into a rectangle, whole, ordered by cell and number."""
        reached = rect.grown(self.cell_px // 2).cells(self.cell_px)
        found = joined([self.cell(*place) for place in reached])
        hulls = hulls_of(found.boxes)
        inside = (hulls[:, :2] < (rect.right, rect.bottom)) & (hulls[:, 2:] > (rect.left, rect.top))
        return found.select(inside.all(1))

    def cell(self, column: int, row: int) -> WorldObjects:
        """The objects of one cell."""
        grown, corner = self._cells(column, row), np.array([column, row]) * self.cell_px
        boxes = grown.boxes.copy()
        boxes[:, :2] += corner
        ids = np.column_stack([np.tile([column, row], (len(boxes), 1)), np.arange(len(boxes))]).astype(np.int64)
        return WorldObjects(boxes, np.array(grown.labels, np.int64), ids)

    def layout(self, objects: WorldObjects, rect: Rect) -> Layout:
        """Objects as a layout of a rectangle: whole, in pixels from its corner, perhaps beyond its border."""
        boxes = objects.boxes - np.array([rect.left, rect.top, 0, 0, 0])
        size = (rect.width, rect.height)
        return Layout(boxes, objects.labels, self.classes, size, self.kind, acquisition=self.acquisition)

    def _grown(self, column: int, row: int) -> _Grown:
        own = colour(column, row)
        around = [(column + dx, row + dy) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
        before = [(place, self._cells(*place)) for place in around if colour(*place) < own]
        chances = field(self.seed, len(self.prior.scenes) + 2, column, row)
        # the Gumbel-max trick: each scene type has its own share of all cells, and neighbouring cells are alike
        scene = self.prior.scenes[int(np.argmax(np.log(self.scene_weights + 1e-300) - np.log(-np.log(chances[2:]))))]
        rng = cell_generator(self.seed, Stream.WORLD_LAYOUT, column, row)
        return self.grower.grow(rng, (column, row), before, scene, chances[:2], self.acquisition)


def colour(column: int, row: int) -> int:
    return column % 2 + 2 * (row % 2)


class _CellGrower(PriorSampler):
    """Fills one cell with objects, next to those of other cells. Coordinates are pixels from the cell's corner."""

    def __init__(self, prior: Prior, cell: int, spec: FrameSpec):
        super().__init__(prior, (cell, cell), border="keep")
        self.spec = spec

    def grow(self, rng, place, before, scene: SceneType, chances: np.ndarray, acquisition: Acquisition) -> _Grown:
        """The objects of the cell at `place`; before: [(place, objects)] of its neighbours. chances (2,): quantiles of
        the number of objects and of their scale in the scene type."""
        grown = self._neighbours(place, before)
        first = len(grown.labels)
        scale = float(at(scene.scale, chances[1]))
        for label in self._labels_in_order(rng, self._cell_counts(rng, scene, chances[0], acquisition, scale)):
            self._add(rng, grown, label, acquisition, scale)
        return self._own(grown, first)

    def _cell_counts(self, rng, scene: SceneType, chance: float, acquisition: Acquisition, scale: float) -> np.ndarray:
        """Number of objects of each class with their centre in the cell, (C,)."""
        counts = np.zeros(len(self.classes), int)
        for name, quantiles in scene.counts.items():
            side = np.exp(self._typical_side(self.prior.objects[name], acquisition, scale))
            # the prior's windows count objects of which MIN_VISIBLE is inside, also where the centre is not
            reach = 1 + 2 * (0.5 - MIN_VISIBLE) * side / np.array(self.prior.size)
            exact = float(at(quantiles, chance)) * self._area / reach.prod()
            counts[self.classes.index(name)] = int(exact + rng.random())
        return counts

    def _neighbours(self, place, before) -> _Grown:
        """Objects of other cells that this one's may stand next to or overlap: the nearest to the cell comes last."""
        every = _Grown(np.zeros((0, 5)), [], [], [], [])
        for other, grown in before:
            shift = (np.array(other) - place) * self.size[0]
            start = len(every.labels)
            every.boxes = np.concatenate([every.boxes, grown.boxes + np.array([*shift, 0, 0, 0])])
            every.labels += grown.labels
            every.upright += grown.upright
            every.in_row += grown.in_row
            every.parent += [start + parent for parent in grown.parent]
        beyond = np.maximum(np.maximum(-every.boxes[:, :2], every.boxes[:, :2] - self.size[0]), 0).max(1, initial=0)
        near = np.flatnonzero(beyond <= self.size[0] / 2)
        order = near[np.argsort(-beyond[near], kind="stable")]
        return _taken(every, order)

    def _own(self, grown: _Grown, first: int) -> _Grown:
        """The objects placed in the cell, on the raster of positions, without those that do not fit."""
        grown.boxes[first:, :4] = np.rint(grown.boxes[first:, :4] * STEPS_PER_PIXEL) / STEPS_PER_PIXEL
        if self.kind == "obb":
            grown.boxes[first:] = geometry.regularize(grown.boxes[first:].astype(np.float32))
        boxes = grown.boxes[first:]
        fits = self._reaches(boxes) & ((boxes[:, :2] >= 0) & (boxes[:, :2] < self.size)).all(1)
        limits = self._largest_overlap[np.array(grown.labels[first:], int)]
        fits &= apart(boxes, limits, grown.boxes[:first])
        return _taken(grown, first + np.flatnonzero(fits))

    def _reaches(self, boxes: np.ndarray) -> np.ndarray:
        """Which boxes, with what is painted around them, stay within half a cell of the cell."""
        painted = boxes.copy()
        painted[:, 2:4] += 2 * (hole_reach(boxes, self.spec) + 2)[:, None]
        hulls, half = hulls_of(painted), self.size[0] / 2
        return (hulls[:, :2] >= -half).all(1) & (hulls[:, 2:] <= self.size[0] + half).all(1)

    def _free_places(self, rng, described, boxes: np.ndarray, cut: bool) -> np.ndarray:
        """Anywhere in the cell: the place in a real image says nothing about that in a world."""
        return rng.random((len(boxes), 2)) * self.size

    def _first_fitting(self, boxes: np.ndarray, grown: _Grown, cut: bool, max_overlap: float) -> int | None:
        """The first candidate with its centre in the cell that overlaps no object by more than the limit."""
        inside = ((boxes[:, :2] >= 0) & (boxes[:, :2] < self.size)).all(1)
        rows = np.flatnonzero(inside & self._reaches(boxes))
        if len(rows) and len(grown.labels):
            rows = rows[overlap(boxes[rows], grown.boxes).max(1) <= max_overlap]
        return int(rows[0]) if len(rows) else None


def _taken(grown: _Grown, indices: np.ndarray) -> _Grown:
    """These objects; one whose parent is not among them is its own."""
    position = {int(index): k for k, index in enumerate(indices)}
    return replace(
        grown,
        boxes=grown.boxes[indices],
        labels=[grown.labels[i] for i in indices],
        upright=[grown.upright[i] for i in indices],
        in_row=[grown.in_row[i] for i in indices],
        parent=[position.get(grown.parent[i], k) for k, i in enumerate(indices)],
    )


def scaled_down(layout: Layout, level: int) -> Layout:
    """A layout of an image of 1 / 2^level of the resolution.

    >>> layout = Layout([[8, 8, 8, 4, 0]], [0], ("car",), (16, 16), acquisition=Acquisition(gsd_m=0.5))
    >>> scaled_down(layout, 1).boxes.tolist(), scaled_down(layout, 1).acquisition.gsd_m
    ([[4.0, 4.0, 4.0, 2.0, 0.0]], 1.0)
    """
    if not level:
        return layout
    scale, gsd_m = 2**level, layout.acquisition.gsd_m
    acquisition = layout.acquisition.model_copy(update={"gsd_m": None if gsd_m is None else gsd_m * scale})
    boxes = layout.boxes / np.float32([scale, scale, scale, scale, 1])
    size = (layout.size[0] // scale, layout.size[1] // scale)
    return replace(layout, boxes=boxes, size=size, acquisition=acquisition)
