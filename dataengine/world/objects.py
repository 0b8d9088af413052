"""Objects painted into the ground of a world, where they are, whatever borders they cross.

Cells are painted in the order of their colours (`layouts.colour`): one shows its neighbours of lower colours painted
already, and the ground elsewhere. Only what the frames of its objects show has to be there for that, so what an object
looks like depends on those near it alone. No two cells of one colour reach the same pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from dataengine.render.canvas import Canvas, Provenance
from dataengine.render.erase import painted_boxes
from dataengine.render.frame import covered
from dataengine.render.in_scene_pipeline import InScenePipeline
from dataengine.render.placement import empty_layout
from dataengine.seeds import Stream
from dataengine.world.fields import cell_generator
from dataengine.world.layouts import MAX_CELLS, WorldLayouts, colour, hulls_of
from dataengine.world.noise import Rect, hull
from dataengine.world.scene import Scene
from dataengine.world.windowed import BoundedCache

CACHE_BYTES = 64 << 20  # of painted cells
COLOURS = 4
FRAME_BORDER_PX = 4  # around a frame: interpolation and blur read a little more


class PaintedWorld:
    """The ground of a world with its objects. `region` depends on the seed and the place alone."""

    def __init__(self, scene: Scene, layouts: WorldLayouts, renderer: InScenePipeline, seed: int,
                 steps: int | None = None):  # fmt: skip
        self.scene, self.layouts, self.renderer, self.seed, self.steps = scene, layouts, renderer, seed, steps
        self.cache = BoundedCache(CACHE_BYTES)
        self._areas = lru_cache(MAX_CELLS)(self._painted_areas)

    def region(self, rect: Rect) -> np.ndarray:
        """The picture of a rectangle, uint8 (height, width, 3)."""
        return self._before(COLOURS, rect, [rect])

    def area(self, column: int, row: int) -> Rect:
        """A rectangle that holds all pixels which painting a cell's objects changes."""
        return hull(self._areas(column, row))

    def cells_painting(self, rect: Rect) -> list[tuple[int, int]]:
        """Column and row of the cells whose objects change a pixel of a rectangle."""
        near = rect.grown(self.layouts.cell_px // 2).cells(self.layouts.cell_px)
        return [place for place in near if self._reaches(place, [rect])]

    def _before(self, number: int, rect: Rect, needed: Sequence[Rect]) -> np.ndarray:
        """The picture of a rectangle when the cells of the first `number` colours are painted, right in the parts of it
        that are needed: elsewhere ground and objects may be missing."""
        image = np.zeros((rect.height, rect.width, 3), np.uint8)
        for part in needed:
            (rows, columns), _ = rect.common(part)
            image[rows, columns] = self.scene.region(part)
        reached = rect.grown(self.layouts.cell_px // 2).cells(self.layouts.cell_px)
        for now in range(number):
            for place in reached:
                if colour(*place) != now or not self._reaches(place, needed):
                    continue
                painted = self.cache.get(place, lambda place=place: self._painted(*place))
                if (common := rect.common(self.area(*place))) is not None:
                    part, own = image[common[0]], painted[common[1]]
                    part[:] = np.where(own[..., 3:] > 0, own[..., :3], part)
        return image

    def _reaches(self, place: tuple[int, int], needed: Sequence[Rect]) -> bool:
        """Whether a cell's objects change a pixel of one of the rectangles."""
        areas = self._areas(*place)
        return any(area.common(rect) is not None for rect in needed for area in areas)

    def _painted_areas(self, column: int, row: int) -> list[Rect]:
        """For each object of a cell the rectangle that painting it changes."""
        boxes = painted_boxes(self.layouts.cell(column, row).boxes, self.layouts.spec)
        return [_around(edges) for edges in hulls_of(boxes)]

    def _painted(self, column: int, row: int) -> np.ndarray:
        """The painted area of a cell with its objects, and which pixels they change (0 or 1), uint8 (H, W, 4)."""
        objects, spec, area = self.layouts.cell(column, row), self.layouts.spec, self.area(column, row)
        own = int(cell_generator(self.seed, Stream.WORLD_OBJECT, column, row).integers(1 << 62))
        frames = self.renderer.frames(self.layouts.layout(objects, area), own)
        frames[:, :2] += (area.left, area.top)
        shown = [_around(edges).grown(FRAME_BORDER_PX) for edges in hulls_of(frames)]
        whole = hull([*shown, area])
        new = self.layouts.layout(objects, whole)
        canvas = Canvas(self._before(colour(column, row), whole, shown), empty_layout(new), new,
                        Provenance("generated", seed=self.seed))  # fmt: skip
        [painted] = self.renderer([canvas], [own], num_inference_steps=self.steps)
        changed = covered(painted_boxes(new.boxes, spec), painted.image.shape).astype(np.uint8)[..., None]
        return np.concatenate([painted.image, changed], 2)[whole.common(area)[0]]


def _around(edges: np.ndarray) -> Rect:
    """The rectangle of whole pixels around left, top, right, bottom (4,)."""
    (left, top), (right, bottom) = np.floor(edges[:2]).astype(int).tolist(), np.ceil(edges[2:]).astype(int).tolist()
    return Rect(left, top, right - left, bottom - top)
