"""A labelled picture without an edge: any rectangle of it, by its place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np

from dataengine import geometry
from dataengine.data.layout import Acquisition, Layout
from dataengine.data.tile import crop_layout
from dataengine.layouts.prior import Prior
from dataengine.render.control import Control
from dataengine.render.in_scene_pipeline import InScenePipeline
from dataengine.render.layout_pipeline import LayoutPipeline
from dataengine.world.layouts import LEAST_VISIBLE, NO_OBJECTS, WorldLayouts, WorldObjects, scaled_down
from dataengine.world.noise import Rect
from dataengine.world.objects import PaintedWorld
from dataengine.world.scene import Scene
from dataengine.world.style import Style


class GroundMap(Protocol):
    """What the ground follows in rectangles, in pixels of a level."""

    def at(self, rects: Sequence[Rect], level: int = 0) -> Control: ...


@dataclass(frozen=True)
class Region:
    """A rectangle of a world.

    image: uint8 (height, width, 3). objects: those that reach into it, whole, in pixels of the world, with ids that
    hold across regions. labels: the same objects in the same order, clipped to the rectangle, in pixels from its
    corner, with their visible shares. erased: objects of the world that a filter removed from it, which reach into the
    rectangle.
    """

    rect: Rect
    image: np.ndarray
    objects: WorldObjects
    labels: Layout
    erased: WorldObjects = NO_OBJECTS


class World:
    """A world of a seed. What is at a place depends on seed, models and prior alone: a region is the same to the last
    bit alone, in a larger one, in any order, and in another process on a machine of the same kind.

    ground: whole-image renderer, for the ground. painter: in-scene renderer, for the objects; it knows all classes of
    the prior. prior: of the layouts. domain: appearance of the ground, one of the renderer's, or None for its null.
    acquisition: one of the prior's; drawn by the seed if None. cell: side in pixels of the cells of the layout. levels:
    of the ground; each is made to agree with the one above, which has half its resolution. style: what the ground looks
    like, place by place; as the renderer knows the domain if None. layouts: in place of those of the prior. ground_map:
    what the ground follows.
    Torch is set to one thread, for the rounding of sums depends on their number.
    """

    def __init__(
        self,
        seed: int,
        ground: LayoutPipeline,
        painter: InScenePipeline,
        prior: Prior,
        domain: str | None = None,
        acquisition: Acquisition | None = None,
        cell: int | None = None,
        levels: int = 1,
        style: Style | None = None,
        layouts: WorldLayouts | None = None,
        ground_map: GroundMap | None = None,
    ):
        import torch

        torch.set_num_threads(1)
        self.seed, self.ground_map = seed, ground_map
        cell = cell or cell_size(prior, painter)
        self.layouts = layouts or WorldLayouts(prior, seed, painter.unet.spec, acquisition, cell)
        self.scenes: list[Scene] = []  # of each level, the finest first
        for level in reversed(range(levels)):
            coarser = self.scenes[0] if self.scenes else None
            layout_of = partial(self.ground_layout, level=level)
            led = None if ground_map is None else partial(ground_map.at, level=level)
            scene = Scene(ground, seed, layout_of, domain, level=level, coarser=coarser, style=style, control_of=led)
            self.scenes.insert(0, scene)
        self.scene = self.scenes[0]
        self.painted = PaintedWorld(self.scene, self.layouts, painter, seed)

    def ground_layout(self, rect: Rect, level: int = 0) -> Layout:
        """What the ground is made to suit: the objects in a rectangle of a level, clipped to it, in its pixels."""
        finest = rect.scaled(2**level)
        return scaled_down(self.labels(self.layouts.objects(finest), finest)[1], level)

    def labels(self, objects: WorldObjects, rect: Rect) -> tuple[WorldObjects, Layout]:
        """Those of the objects that a rectangle shows a part of, and their labels there."""
        layout = self.layouts.layout(objects, rect)
        visible = geometry.visible_fraction(layout.boxes, layout.size) if len(layout) else np.zeros(0)
        seen = visible > 2 * LEAST_VISIBLE
        window = (0, 0, rect.width, rect.height)
        return objects.select(seen), crop_layout(layout.select(seen), window, LEAST_VISIBLE)

    def keep_in(self, folder: Path) -> None:
        """Keep what regions are made from in files of a folder: it is made once for all regions, and for all processes
        that share the folder. All of them have the same world."""
        for scene in self.scenes:
            scene.keep_in(folder)
        self.painted.cache.folder = folder / "objects"

    def prepare(self, rects: Sequence[Rect]) -> None:
        """Make what regions need, faster than they do one by one. It lasts in the folder of `keep_in`, and else as long
        as memory holds it."""
        self.painted.prepare(rects)

    def region(self, left: int, top: int, width: int, height: int) -> Region:
        """The picture and the labels of a rectangle of the world, in pixels; coordinates may be negative. Raises
        ValueError for a rectangle without an area."""
        if width < 1 or height < 1:
            raise ValueError(f"a region of {width} x {height} pixels: give at least 1 x 1")
        rect = Rect(left, top, width, height)
        objects, labels = self.labels(self.layouts.objects(rect), rect)
        return Region(rect, self.painted.region(rect), objects, labels)


def cell_size(prior: Prior, painter: InScenePipeline) -> int:
    """Side of the cells of a layout in pixels: 256, or more where the painted area of the prior's largest objects needs
    it, a multiple of 64."""
    from dataengine.layouts.prior_sampler import PriorSampler

    sampler = PriorSampler(prior)
    longest = 0.0
    for scene in prior.scenes:
        for index in scene.taken:
            for name in scene.counts:
                described = prior.objects[name]
                side = sampler._typical_side(described, prior.acquisitions[index], scene.scale[-2])
                aspect = max(quantiles[-2] for quantiles in described.aspect.values())
                longest = max(longest, float(np.exp(side + described.size.residual[-2] + aspect / 2)))
    painted = longest * (1 + 2 * painter.margin) * np.sqrt(2) + 8
    return max(256, int(-(-painted // 64)) * 64)
