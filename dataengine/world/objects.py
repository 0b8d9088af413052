"""Objects painted into the ground of a world, where they are, whatever borders they cross.

Cells are painted in the order of their colours (`layouts.colour`): one shows its neighbours of lower colours painted
already, and the ground elsewhere. Only what the frames of its objects show has to be there for that, so what an object
looks like depends on those near it alone. No two cells of one colour reach the same pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from dataengine.data.layout import Layout
from dataengine.render.canvas import Canvas, Provenance
from dataengine.render.erase import painted_boxes
from dataengine.render.frame import covered, frame_angles, frame_sides
from dataengine.render.in_scene_pipeline import InScenePipeline
from dataengine.render.placement import empty_layout
from dataengine.seeds import Stream
from dataengine.world.fields import cell_generator
from dataengine.world.layouts import MAX_CELLS, WorldLayouts, WorldObjects, colour, hulls_of
from dataengine.world.noise import Rect, hull
from dataengine.world.scene import Scene
from dataengine.world.windowed import BoundedCache

CACHE_BYTES = 64 << 20  # of painted cells
COLOURS = 4
FRAMES = 4  # that are denoised at a time
CELLS = 16  # that are painted together at most: their surroundings are in memory
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

    def prepare(self, rects: Sequence[Rect]) -> None:
        """Paint what rectangles show of objects, many cells at a time, which is faster than to paint them as they are
        asked for. Their pixels stay the same."""
        cells = {place for rect in rects for place in self.cells_painting(rect)}
        for now in reversed(range(1, COLOURS)):
            for place in [place for place in cells if colour(*place) == now and place not in self.cache]:
                cells |= self._before_cell(*place)
        for now in range(COLOURS):
            self._paint(sorted(place for place in cells if colour(*place) == now))

    def emptied(self, column: int, row: int, objects: WorldObjects) -> np.ndarray:
        """The ground of a cell's painted area, uint8 (H, W, 3), with nothing in place of some objects that reach it.

        The ground is made to suit the objects and shows something like them: without a label, that must not stay.
        """
        area = self.area(column, row)
        frames = objects.boxes.copy()
        frames[:, 2] = frames[:, 3] = frame_sides(objects.boxes, self.layouts.spec)
        frames[:, 4] = frame_angles(objects.boxes, self.layouts.kind)
        shown, whole = _shown(frames, area)
        removed = self.layouts.layout(objects, whole)
        ground = self._before(0, whole, [*shown, area])
        cleared = self.renderer.clear(ground, empty_layout(removed), removed, self._seed(column, row))
        return cleared[whole.common(area)[0]]

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
            painting = [place for place in reached if colour(*place) == now and self._reaches(place, needed)]
            self._paint(painting)
            for place in painting:
                painted = self.cache.get(place, lambda place=place: self._painted([place])[0])
                if (common := rect.common(self.area(*place))) is not None:
                    part, own = image[common[0]], painted[common[1]]
                    part[:] = np.where(own[..., 3:] > 0, own[..., :3], part)
        return image

    def _paint(self, places: Sequence[tuple[int, int]]) -> None:
        """Paint those cells of one colour that are not painted yet, many together."""
        missing = [place for place in places if place not in self.cache]
        for start in range(0, len(missing), CELLS):
            together = missing[start : start + CELLS]
            for place, painted in zip(together, self._painted(together), strict=True):
                self.cache.put(place, painted)

    def _reaches(self, place: tuple[int, int], needed: Sequence[Rect]) -> bool:
        """Whether a cell's objects change a pixel of one of the rectangles."""
        areas = self._areas(*place)
        return any(area.common(rect) is not None for rect in needed for area in areas)

    def _painted_areas(self, column: int, row: int) -> list[Rect]:
        """For each object of a cell the rectangle that painting it changes."""
        boxes = painted_boxes(self.layouts.cell(column, row).boxes, self.layouts.spec)
        return [_around(edges) for edges in hulls_of(boxes)]

    def _painted(self, places: Sequence[tuple[int, int]]) -> list[np.ndarray]:
        """The painted areas of cells of one colour with their objects, and which pixels they change (0 or 1), uint8
        (H, W, 4). None depends on the others."""
        cells, own = [self._seen(*place) for place in places], colour(*places[0])
        canvases = [
            Canvas(self._before(own, whole, shown), empty_layout(new), new, Provenance("generated", seed=self.seed))
            for shown, whole, new in cells
        ]
        seeds = [self._seed(*place) for place in places]
        painted = self.renderer(canvases, seeds, num_inference_steps=self.steps, batch=FRAMES)
        results = []
        for place, one, (_, whole, new) in zip(places, painted, cells, strict=True):
            changed = covered(painted_boxes(new.boxes, self.layouts.spec), one.image.shape).astype(np.uint8)[..., None]
            results.append(np.concatenate([one.image, changed], 2)[whole.common(self.area(*place))[0]])
        return results

    def _before_cell(self, column: int, row: int) -> set[tuple[int, int]]:
        """Cells of lower colours whose objects a cell's frames show."""
        shown, whole, _ = self._seen(column, row)
        near = whole.grown(self.layouts.cell_px // 2).cells(self.layouts.cell_px)
        return {place for place in near if colour(*place) < colour(column, row) and self._reaches(place, shown)}

    def _seen(self, column: int, row: int) -> tuple[list[Rect], Rect, Layout]:
        """What the frames of a cell's objects show; a rectangle that holds them and all that is painted; the objects
        there."""
        objects, area = self.layouts.cell(column, row), self.area(column, row)
        frames = self.renderer.frames(self.layouts.layout(objects, area), self._seed(column, row))
        frames[:, :2] += (area.left, area.top)
        shown, whole = _shown(frames, area)
        return shown, whole, self.layouts.layout(objects, whole)

    def _seed(self, column: int, row: int) -> int:
        """Of the noise and the headings of a cell's objects."""
        return int(cell_generator(self.seed, Stream.WORLD_OBJECT, column, row).integers(1 << 62))


def _shown(frames: np.ndarray, area: Rect) -> tuple[list[Rect], Rect]:
    """What frames, as boxes (N, 5), show, and a rectangle that holds that and an area."""
    shown = [_around(edges).grown(FRAME_BORDER_PX) for edges in hulls_of(frames)]
    return shown, hull([*shown, area])


def _around(edges: np.ndarray) -> Rect:
    """The rectangle of whole pixels around left, top, right, bottom (4,)."""
    (left, top), (right, bottom) = np.floor(edges[:2]).astype(int).tolist(), np.ceil(edges[2:]).astype(int).tolist()
    return Rect(left, top, right - left, bottom - top)
