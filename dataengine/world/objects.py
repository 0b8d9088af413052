"""Objects painted into the ground of a world, where they are, whatever borders they cross.

Cells are painted in the order of their colours (`layouts.colour`): one shows its neighbours of lower colours painted
already, and the ground elsewhere, in a square of fixed place around the cell. So what a cell's objects look like
depends on cells at most three away, and no two cells of one colour reach the same pixel.
"""

from __future__ import annotations

import numpy as np

from dataengine.render.canvas import Canvas, Provenance
from dataengine.render.in_scene_pipeline import InScenePipeline
from dataengine.render.placement import empty_layout
from dataengine.seeds import Stream
from dataengine.world.fields import cell_generator
from dataengine.world.layouts import WorldLayouts, colour
from dataengine.world.noise import Rect
from dataengine.world.scene import Scene
from dataengine.world.windowed import BoundedCache

CACHE_BYTES = 96 << 20  # of painted squares
COLOURS = 4


class PaintedWorld:
    """The ground of a world with its objects. `region` depends on the seed and the place alone."""

    def __init__(self, scene: Scene, layouts: WorldLayouts, renderer: InScenePipeline, seed: int,
                 steps: int | None = None):  # fmt: skip
        self.scene, self.layouts, self.renderer, self.seed, self.steps = scene, layouts, renderer, seed, steps
        self.cache = BoundedCache(CACHE_BYTES)

    def region(self, rect: Rect) -> np.ndarray:
        """The picture of a rectangle, uint8 (height, width, 3)."""
        return self._before(COLOURS, rect)

    def square(self, column: int, row: int) -> Rect:
        """The place that the objects of a cell are painted in: half a cell more on each side."""
        side = self.layouts.cell_px
        return Rect(column * side, row * side, side, side).grown(side // 2)

    def _before(self, number: int, rect: Rect) -> np.ndarray:
        """The picture of a rectangle when the cells of the first `number` colours are painted."""
        image = self.scene.region(rect)
        reached = rect.grown(self.layouts.cell_px // 2).cells(self.layouts.cell_px)
        for now in range(number):
            for column, row in reached:
                if colour(column, row) != now or not len(self.layouts.cell(column, row)):
                    continue
                common = rect.common(self.square(column, row))
                if common is not None:
                    painted = self.cache.get((column, row), lambda c=column, r=row: self._painted(c, r))
                    image[common[0]] = painted[common[1]]
        return image

    def _painted(self, column: int, row: int) -> np.ndarray:
        """The square of a cell with its objects."""
        square = self.square(column, row)
        new = self.layouts.layout(self.layouts.cell(column, row), square)
        image = self._before(colour(column, row), square)
        canvas = Canvas(image, empty_layout(new), new, Provenance("generated", seed=self.seed))
        own = int(cell_generator(self.seed, Stream.WORLD_OBJECT, column, row).integers(1 << 62))
        [painted] = self.renderer([canvas], [own], num_inference_steps=self.steps)
        return painted.image
