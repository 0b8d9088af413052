"""The filter over a world: each object is looked for where it is whole, and what is not found is marked or removed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from dataengine.judge.calibration import Calibration
from dataengine.judge.detector import Detector
from dataengine.judge.verdict import match
from dataengine.render.erase import erase, painted_boxes
from dataengine.world.layouts import MAX_CELLS, WorldObjects, hulls_of
from dataengine.world.noise import Rect
from dataengine.world.windowed import BoundedCache
from dataengine.world.world import Region, World

CONTEXT_PX = 32  # that a detector sees around the objects of a cell, at least
TILE_PX = 256  # of a side at least, which detectors are used to
CACHE_BYTES = 32 << 20


@dataclass(frozen=True)
class Verdicts:
    """For each object the score of the detection that matches it, 0 for none, and whether that counts as found."""

    scores: np.ndarray
    found: np.ndarray


class JudgedWorld:
    """A world and what the filter makes of it. Verdicts, too, depend on the place alone: an object is judged in the
    tile of its own cell's objects, which shows them whole.

    mode: "difficult" marks objects that are not found as difficult; "erase" removes them: empty ground takes their
    place.
    """

    def __init__(self, world: World, detector: Detector, calibration: Calibration, mode: str):
        calibration.check(detector)
        self.world, self.detector, self.calibration, self.mode = world, detector, calibration, mode
        self._kept = lru_cache(MAX_CELLS)(self._judged)
        self._erased = BoundedCache(CACHE_BYTES)

    def keep_in(self, folder: Path) -> None:
        """`World.keep_in`."""
        self.world.keep_in(folder)

    def prepare(self, rects: Sequence[Rect]) -> None:
        """`World.prepare` of all that the filter looks at for regions."""
        cells = {(c, r) for rect in rects for c, r, _ in self.world.layouts.objects(rect).ids.tolist()}
        self.world.prepare([*rects, *(self._tile(self.world.layouts.cell(*place)) for place in cells)])

    def region(self, left: int, top: int, width: int, height: int) -> Region:
        """The picture and the labels of a rectangle, after the filter."""
        region = self.world.region(left, top, width, height)
        found = self.found(region.objects)
        if self.mode == "erase":
            shown, labels = region.objects.select(found), region.labels.select(found)
            return Region(region.rect, self._without_missed(region), shown, labels, region.objects.select(~found))
        return replace(region, labels=replace(region.labels, difficult=~found))

    def found(self, objects: WorldObjects) -> np.ndarray:
        """Whether each object is found, bool (N,)."""
        return np.array([self.cell(c, r).found[k] for c, r, k in objects.ids.tolist()], bool)

    def cell(self, column: int, row: int) -> Verdicts:
        """The verdicts on the objects of one cell, in their order."""
        return self._kept(column, row)

    def _judged(self, column: int, row: int) -> Verdicts:
        own = self.world.layouts.cell(column, row)
        if not len(own):
            return Verdicts(np.zeros(0, np.float32), np.zeros(0, bool))
        tile = self._tile(own)
        shown = self.world.region(tile.left, tile.top, tile.width, tile.height)
        [detections] = self.detector.detect([shown.image])
        is_own = (shown.objects.ids[:, :2] == (column, row)).all(1)
        labels = replace(shown.labels, difficult=~is_own)
        scores = match(detections, labels, self.detector.classes).scores
        found = self.calibration.found(labels, scores)
        assert is_own.sum() == len(own), "a tile shows every object of its cell"
        return Verdicts(scores[is_own], found[is_own])

    def _tile(self, own: WorldObjects) -> Rect:
        """Where the objects of a cell are looked for."""
        return tile_of(own, min(TILE_PX, self.world.layouts.cell_px))

    def _without_missed(self, region: Region) -> np.ndarray:
        image = region.image.copy()
        for place in self.world.painted.cells_painting(region.rect):
            if self.cell(*place).found.all():
                continue
            patch = self._erased.get(place, lambda place=place: self._restored(*place))
            if (common := region.rect.common(self.world.painted.area(*place))) is not None:
                part, ground = image[common[0]], patch[common[1]]
                part[:] = np.where(ground[..., 3:] > 0, ground[..., :3], part)
        return image

    def _restored(self, column: int, row: int) -> np.ndarray:
        """The empty ground of a cell's painted area, and where it comes back (0 or 1), uint8 (H, W, 4)."""
        area, spec = self.world.painted.area(column, row), self.world.layouts.spec
        objects = self.world.layouts.objects(area)
        missed = (objects.ids[:, :2] == (column, row)).all(1)
        missed[missed] = ~self.cell(column, row).found
        going, hulls = hulls_of(painted_boxes(objects.boxes[missed], spec)), hulls_of(objects.boxes)
        near = (hulls[:, None, :2] < going[None, :, 2:]) & (hulls[:, None, 2:] > going[None, :, :2])
        beside = near.all(2).any(1) & ~missed
        found = self.found(objects.select(beside))
        staying, removed = beside.copy(), missed.copy()  # what other cells remove hides nothing, and must not come back
        staying[beside], removed[beside] = found, ~found
        counted = missed | staying
        layout = self.world.layouts.layout(objects.select(counted), area)
        nothing, all_of_it = (np.full((area.height, area.width, 1), value, np.uint8) for value in (0, 1))
        mask = erase(nothing, all_of_it, layout, missed[counted], spec)
        return np.concatenate([self.world.painted.emptied(column, row, objects.select(removed)), mask], 2)


def tile_of(objects: WorldObjects, least: int) -> Rect:
    """Where the objects of a cell are looked for: all of them whole with some ground around them, and at least so many
    pixels on a side.

    >>> tile_of(WorldObjects(np.array([[100.0, 50.0, 30.0, 10.0, 0.0]]), np.zeros(1, int), np.zeros((1, 3), int)), 256)
    Rect(left=-28, top=-78, width=256, height=256)
    """
    hulls = hulls_of(objects.boxes)
    first, last = np.floor(hulls[:, :2].min(0)) - CONTEXT_PX, np.ceil(hulls[:, 2:].max(0)) + CONTEXT_PX
    side = np.maximum(np.ceil((last - first) / 8) * 8, least)
    (left, top), (width, height) = np.floor((first + last - side) / 2).astype(int).tolist(), side.astype(int).tolist()
    return Rect(left, top, width, height)
