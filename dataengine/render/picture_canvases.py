"""Canvases of a data set's own pictures, whole and in order: for re-rendering, sequences and super-resolution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from dataengine import geometry
from dataengine.data.images import read_picture
from dataengine.data.layout import Acquisition, Layout, Sample
from dataengine.layouts.windows import scaled
from dataengine.render.canvas import Canvas, Provenance
from dataengine.render.placement import empty_layout
from dataengine.seeds import Stream, generator

WHOLE = 0.99  # visible share from which an object is not cut by the border
APART_SHARE, APART_PX = 0.15, 4.0  # of an object's long side and in pixels: free around an object that may vanish


def under(own: Acquisition, target: Acquisition) -> Acquisition:
    """An acquisition with what the target states in place of its own values.

    >>> under(Acquisition(altitude_m=60, night=False), Acquisition(night=True)).model_dump(exclude_none=True)
    {'altitude_m': 60.0, 'night': True}
    """
    return own.model_copy(update=target.model_dump(exclude_none=True))


def removable(layout: Layout) -> np.ndarray:
    """Bool (N,): whole objects that stand apart from all others and from ignored regions, so that one can vanish
    without a trace on another.

    >>> boxes = [[20, 20, 8, 4, 0], [27, 20, 8, 4, 0], [50, 50, 8, 4, 0]]
    >>> removable(Layout(boxes, [0, 0, 0], ("car",), (64, 64))).tolist()
    [False, False, True]
    """
    if not len(layout):
        return np.zeros(0, bool)
    grown = layout.boxes.copy()
    grown[:, 2:4] += 2 * (APART_SHARE * grown[:, 2:3] + APART_PX)
    touches = geometry.intersection(grown, layout.boxes) > 0
    np.fill_diagonal(touches, False)
    touches = touches.any(1)
    if len(layout.ignored):
        touches |= geometry.intersection(grown, layout.ignored).any(1)
    inside = (geometry.visible_fraction(grown, layout.size) > WHOLE) & (layout.visible > WHOLE)
    return inside & ~touches & ~layout.difficult


@dataclass(frozen=True)
class PictureCanvases:
    """Whole pictures of a data set. Canvas i shows picture i // k at the date i % k of k.

    samples: the pictures. targets: for each date what is known of its acquisition. present: share of the removable
    objects that are there at each date. factor: of super-resolution, for which each pixel is repeated so many times. A
    target's ground sample distance shrinks the picture, and its boxes with it.
    """

    samples: Sequence[Sample]
    targets: tuple[Acquisition, ...] = (Acquisition(),)
    present: float = 1.0
    factor: int = 1

    def numbered(self, indices: Sequence[int], seeds: Sequence[int]) -> list[Canvas]:
        """The canvases of these numbers: `new` are the objects that are there, under the acquisition of the date, and
        `existing` those that are not, under the picture's own. seeds: of the picture's sequence, each."""
        return [self._canvas(*divmod(i, len(self.targets)), seed) for i, seed in zip(indices, seeds, strict=True)]

    def _canvas(self, number: int, date: int, seed: int) -> Canvas:
        sample, target = self.samples[number], self.targets[date]
        layout = replace(sample.layout, origins=(sample.name,))
        picture = read_picture(sample)
        origin = Provenance("window", sample.name, license=sample.license, source=sample.source)
        if picture is None:
            black = np.zeros((*layout.size[::-1], 3), np.uint8)
            nothing = empty_layout(layout)
            return Canvas(black, nothing, nothing, replace(origin, unreadable=(sample.name,)), left_out=len(layout))
        if self.factor > 1:
            picture = picture.repeat(self.factor, 0).repeat(self.factor, 1)
            layout = scaled(layout, self.factor)
        if target.gsd_m is not None and layout.acquisition.gsd_m is not None:
            shrunk = scaled(layout, layout.acquisition.gsd_m / target.gsd_m)
            picture = cv2.resize(picture, shrunk.size, interpolation=cv2.INTER_AREA)
            layout = shrunk
        there = np.ones(len(layout), bool)
        if self.present < 1:
            drawn = generator(seed, Stream.SEQUENCE).random((len(self.targets), len(layout))) < self.present
            there = drawn[date] | ~removable(layout)
        new = replace(layout.select(there), acquisition=under(layout.acquisition, target))
        gone = replace(layout.select(~there), ignored=None, acquisition=sample.layout.acquisition)
        return Canvas(picture, gone, new, origin)
