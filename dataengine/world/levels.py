"""Coarser levels of a world: the ground as it was generated at their own scale, the objects as the finest level has
them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dataengine.data.layout import Layout
from dataengine.render.erase import painted_boxes
from dataengine.render.frame import covered
from dataengine.world.blocks import BlockFolder
from dataengine.world.layouts import NO_OBJECTS, joined
from dataengine.world.noise import Rect
from dataengine.world.world import Region, World


class CoarserLevel:
    """A level of a world (`blocks.Regions`) of 1 / 2^number of its resolution. finer: the finished blocks of the level
    below. Objects and what is painted around them come from there; the ground is that which finer levels were made to
    agree with."""

    def __init__(self, world: World, number: int, finer: BlockFolder):
        self.world, self.number, self.finer = world, number, finer

    def prepare(self, rects: Sequence[Rect]) -> None:
        """Nothing: the objects are there."""

    def region(self, left: int, top: int, width: int, height: int) -> Region:
        """The picture of a rectangle in pixels of this level; its labels are those of the finest level, scaled."""
        rect, scale = Rect(left, top, width, height), 2**self.number
        image = self.world.scenes[self.number].region(rect)
        finest = rect.scaled(scale)
        cells = self.world.painted.cells_painting(finest)
        boxes = painted_boxes(
            joined([self.world.layouts.cell(*place) for place in cells]).boxes, self.world.layouts.spec
        )
        if len(boxes):
            boxes[:, :4] = (boxes[:, :4] - (finest.left, finest.top, 0, 0)) / scale
            mask = covered(boxes, image.shape)
            image[mask] = halved(self.finer.region(*(2 * n for n in (left, top, width, height))))[mask]
        return Region(rect, image, NO_OBJECTS, Layout(np.zeros((0, 5)), [], (), (width, height)))


def halved(image: np.ndarray) -> np.ndarray:
    """Means over squares of two pixels, uint8 (2 H, 2 W, C) -> (H, W, C).

    >>> halved(np.arange(4, dtype=np.uint8).reshape(2, 2, 1)).tolist()
    [[[2]]]
    """
    height, width, channels = image.shape
    return np.rint(image.reshape(height // 2, 2, width // 2, 2, channels).mean((1, 3))).astype(np.uint8)
