"""The objects of a world over a map: each cell holds what stands on its part of the map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np
import torch

from dataengine import geometry
from dataengine.data.layout import Layout, model_key
from dataengine.layouts.map_ground import tile_ground
from dataengine.layouts.map_sampler import MapSampler
from dataengine.layouts.map_table import map_objects
from dataengine.render.control import Control
from dataengine.render.frame import FrameSpec
from dataengine.seeds import Stream
from dataengine.world.fields import cell_generator
from dataengine.world.layouts import MAX_CELLS, STEPS_PER_PIXEL, WorldLayouts, WorldObjects, colour, hulls_of, joined
from dataengine.world.noise import Rect
from dataengine.world.scene import PlacedControl

MAX_RECTS = 128  # kept; the condition of one has 0.4 MB


class MapLayouts(WorldLayouts):
    """The objects of a world of size x size pixels whose middle is that of a map. What is in a cell depends on seed,
    map, prior and place alone: cells are filled in the order of their colours, next to their neighbours. Beyond the map
    there are none.

    sampler: of the map, whose size is that of a cell; its mapped classes, which may be of any size, are left out.
    """

    def __init__(self, sampler: MapSampler, seed: int, spec: FrameSpec, size: int):
        prior, (cell, _) = sampler.prior.prior, sampler.size
        rng = cell_generator(seed, Stream.WORLD_ACQUISITION, 0, 0)
        taken = sampler._acquisition(rng, sampler.prior._scene(rng, None))
        super().__init__(prior, seed, spec, taken, cell)
        west, south, east, north = sampler.map.extent
        middle = (west + east) / 2, (south + north) / 2
        self.sampler, self.gsd_m, self.prior_gsd_m = sampler, float(sampler.gsd_m or taken.gsd_m), taken.gsd_m
        self.corner_m = middle[0] - size / 2 * self.gsd_m, middle[1] + size / 2 * self.gsd_m
        lon, lat = sampler.map.grid(*middle, self.gsd_m, (size, size)).centre
        self.acquisition = taken.model_copy(
            update={"gsd_m": self.gsd_m, "longitude_deg": round(lon, 7), "latitude_deg": round(lat, 7)}
        )
        self._kept = lru_cache(MAX_CELLS)(self._filled)

    def cell(self, column: int, row: int) -> WorldObjects:
        """The objects of one cell."""
        return self._kept(column, row)

    def _filled(self, column: int, row: int) -> WorldObjects:
        around = [(column + dx, row + dy) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
        before = joined([self.cell(*place) for place in around if colour(*place) < colour(column, row)])
        rng = cell_generator(self.seed, Stream.WORLD_LAYOUT, column, row)
        prior, side_m = self.sampler.prior, self.cell_px * self.gsd_m
        counts = prior._class_counts(rng, prior._scene(rng, None), None, 1.0).astype(float)
        if self.prior_gsd_m is not None:  # another ground sample distance shows another area
            counts = counts * (self.gsd_m / self.prior_gsd_m) ** 2
        standing = map_objects().standing
        wanted = [
            (int(counts[label] + rng.random()), label, standing[key])
            for label, name in enumerate(self.classes)
            if (key := model_key(name)) in standing
        ]
        corner = np.array([column, row]) * self.cell_px
        to_px = np.array([self.gsd_m] * 4 + [1.0])
        placed = (before.boxes - [*corner, 0, 0, 0]) * to_px
        x, y = self.corner_m[0] + (column + 0.5) * side_m, self.corner_m[1] - (row + 0.5) * side_m
        tile = tile_ground(self.sampler.map, x, y, (side_m, side_m), self.sampler.ground)

        def fits(boxes: np.ndarray) -> np.ndarray:
            inside = ((boxes[:, :2] >= 0) & (boxes[:, :2] < side_m)).all(1)
            return inside & self.grower._reaches(boxes / to_px)

        boxes, labels, _ = self.sampler.stand(tile, wanted, (side_m, side_m), placed, rng, fits)
        boxes = self._on_raster(boxes / to_px) + np.array([*corner, 0, 0, 0])
        ids = np.column_stack([np.tile([column, row], (len(boxes), 1)), np.arange(len(boxes))]).astype(np.int64)
        return WorldObjects(boxes, np.array(labels, np.int64), ids)

    def _on_raster(self, boxes: np.ndarray) -> np.ndarray:
        """Boxes (N, 5) of the layouts' kind, on the raster of positions."""
        if self.kind == "hbb":
            hulls = hulls_of(boxes)
            boxes = np.column_stack([(hulls[:, :2] + hulls[:, 2:]) / 2, hulls[:, 2:] - hulls[:, :2], 0 * boxes[:, 4]])
        boxes[:, :4] = np.rint(boxes[:, :4] * STEPS_PER_PIXEL) / STEPS_PER_PIXEL
        return geometry.regularize(boxes.astype(np.float32)).astype(np.float64) if self.kind == "obb" else boxes


class MapGround:
    """What the ground of a world of size x size pixels follows, at each level. Rectangles asked for last are kept: each
    step of the sampler asks for the same."""

    def __init__(self, control: PlacedControl, layouts: MapLayouts, size: int):
        self.control, self.layouts, self.size = control, layouts, size
        self._kept = lru_cache(MAX_RECTS)(self._one)

    def at(self, rects: Sequence[Rect], level: int = 0) -> Control:
        """The control of rectangles in pixels of a level."""
        found = [self._kept(rect, level) for rect in rects]
        return replace(found[0], condition=torch.cat([each.condition for each in found]))

    def _one(self, rect: Rect, level: int) -> Control:
        acquisition = self.layouts.acquisition
        scaled = acquisition.model_copy(update={"gsd_m": acquisition.gsd_m * 2**level})
        side = self.size >> level
        whole = Layout(np.zeros((0, 5)), [], self.layouts.classes, (side, side), acquisition=scaled)
        return self.control.within(whole, [rect])
