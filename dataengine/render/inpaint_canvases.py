"""Labelled images that get new objects in addition to their own."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from dataengine import geometry
from dataengine.data.images import read_picture
from dataengine.data.layout import Dataset, Layout, Sample
from dataengine.errors import UserError
from dataengine.layouts.constraints import FULLY_VISIBLE, apart
from dataengine.layouts.sampler import Sampler
from dataengine.layouts.windows import cut
from dataengine.render.canvas import Canvas
from dataengine.render.dataset_canvases import ImageShadows, acquisition_distance, provenance_of
from dataengine.render.inpaint import MARGIN_PX, MARGIN_SHARE
from dataengine.seeds import Stream, generator

IMAGES_COMPARED = 12  # of these, the one with room for most of the new objects in a window is used
FILLING_SEED, N_FILLING_DRAWS = 0, 40  # layouts sampled to learn how many objects they hold
MAX_CELL_OVERLAP = 0.02  # of objects of two layouts side by side; more, and the second is left out


class InpaintCanvases:
    """Labelled images that get new objects in addition to their own: in a window of each, or all over it."""

    def __init__(self, dataset: Dataset, size: tuple[int, int], shadows: bool = False, filling: Filling | None = None):
        """filling: where further layouts come from, for images that are larger than one; without it a window of `size`
        gets objects. shadows: look where shadows lie. Raises UserError when no image is as large as the window."""
        self.shadows = ImageShadows() if shadows else None
        self.samples = [s for s in dataset if min(np.array(s.layout.size) - size) >= 0 and s.image.exists()]
        self.size, self.filling = size, filling
        if not self.samples:
            raise UserError(
                f"none of the {len(dataset)} images of --into has at least {size[0]}x{size[1]} pixels; give a "
                "smaller --size, or larger images."
            )

    def draw(self, layouts: Sequence[Layout], seeds: Sequence[int]) -> list[Canvas]:
        """One canvas for each layout, with those of its objects that have room; canvas i depends on layouts[i] and
        seeds[i] alone."""
        return [
            self._draw(layout, generator(seed, Stream.INPAINT_WINDOW))
            for layout, seed in zip(layouts, seeds, strict=True)
        ]

    def _draw(self, layout: Layout, rng: np.random.Generator) -> Canvas:
        chosen = [self.samples[i] for i in rng.permutation(len(self.samples))[:IMAGES_COMPARED]]
        unreadable: list[str] = []
        for sample, corner, asked, new in (self._all_over if self.filling else self._windows)(chosen, layout, rng):
            image = read_picture(sample)
            if image is not None:
                provenance = provenance_of(sample, unreadable, corner)
                new = replace(new, acquisition=sample.layout.acquisition)
                shadow = self.shadows.of(sample) if self.shadows else math.nan
                left_out, complete = asked - len(new), self.filling is not None
                return Canvas(image, sample.layout, new, provenance, corner, left_out, shadow=shadow, complete=complete)
            unreadable.append(sample.name)
        raise UserError(f"none of {len(unreadable)} images can be read, such as {unreadable[0]}; fix or replace them.")

    def _windows(self, samples: list[Sample], layout: Layout, rng: np.random.Generator) -> list[_Place]:
        """A window in each image, first those with room for most of the layout's objects."""
        places = []
        for sample in samples:
            free = np.array(sample.layout.size) - self.size
            left, top = (int(rng.integers(0, slack + 1)) for slack in free)
            new = layout.select(room_for(layout, cut(sample.layout, left, top, self.size, min_visible=0)))
            places.append((sample, (left, top), len(layout), new))
        return sorted(
            places, key=lambda p: acquisition_distance(layout.acquisition, p[0].layout.acquisition) - len(p[3])
        )

    def _all_over(self, samples: list[Sample], layout: Layout, rng: np.random.Generator) -> Iterator[_Place]:
        """Each image with layouts side by side, first those acquired most like the layout."""
        samples = sorted(samples, key=lambda s: acquisition_distance(layout.acquisition, s.layout.acquisition))
        for sample in samples:
            filled = self.filling.fill(layout, sample.layout.size, rng)
            yield sample, (0, 0), len(filled), filled.select(room_for(filled, sample.layout))


# image, corner of the window, number of objects that were asked for, those with room
_Place = tuple[Sample, tuple[int, int], int, Layout]


@dataclass(frozen=True)
class Filling:
    """Layouts that fill an image larger than one of them, as densely as the data.

    sampler: gives them. share: of the cells of a layout's size that get one.
    """

    sampler: Sampler
    share: float

    def fill(self, first: Layout, size: tuple[int, int], rng: np.random.Generator) -> Layout:
        """Layouts in a grid over an image of `size` (width, height): `first` in a random cell, and others in this share
        of the rest. Where objects touch those of the next cell, or are cut by the image's border, they are left out.
        """
        (width, height), parts = first.size, [replace(first.select([]), size=size, ignored=None)]
        corners = [(x, y) for y in range(0, size[1], height) for x in range(0, size[0], width)]
        # cells that the image cuts get a layout as often as their part of a cell
        inside = [min(1, (size[0] - x) / width) * min(1, (size[1] - y) / height) for x, y in corners]
        start = rng.choice(len(corners), p=np.array(inside) / sum(inside))
        for k, (x, y) in enumerate(corners):
            if k != start and rng.random() >= self.share:
                continue
            part = _uncut(first if k == start else self.sampler.sample(rng))
            parts.append(replace(part, boxes=part.boxes + np.float32([x, y, 0, 0, 0]), size=size, ignored=None))
        joined = parts[0]
        for part in parts[1:]:
            joined = replace(joined.joined(part), origins=tuple(dict.fromkeys((*joined.origins, *part.origins))))
        joined = joined.select(geometry.visible_fraction(joined.boxes, size) >= FULLY_VISIBLE)
        return joined.select(apart(joined.boxes, MAX_CELL_OVERLAP)) if len(joined) > 1 else joined


def _uncut(layout: Layout) -> Layout:
    """Its whole objects, without outlines: an object that the edge of a cell cuts would stand cut in the image."""
    return replace(layout, silhouettes=None).select(layout.visible >= FULLY_VISIBLE)


def filling_of(sampler: Sampler, layouts: Sequence[Layout]) -> Filling:
    """As dense as these layouts, those without objects included: objects by area."""
    density = sum(map(len, layouts)) / sum(float(np.prod(layout.size)) for layout in layouts)
    drawn = [sampler.sample(np.random.default_rng((FILLING_SEED, i))) for i in range(N_FILLING_DRAWS)]
    each = np.mean([len(_uncut(layout)) for layout in drawn])
    return Filling(sampler, float(min(1, density * np.prod(sampler.size) / max(each, 1e-9))))


def room_for(new: Layout, existing: Layout) -> np.ndarray:
    """Bool (N,): whole objects that, with their margin, touch nothing labelled and lie inside the window."""
    grown = new.boxes.copy()
    grown[:, 2:4] += 2 * (MARGIN_SHARE * new.boxes[:, 2:3] + MARGIN_PX)
    labelled = np.concatenate([existing.boxes, existing.ignored])
    free = ~(geometry.intersection(grown, labelled) > 0).any(1) if len(labelled) else np.ones(len(new), bool)
    inside = geometry.visible_fraction(grown, new.size) >= FULLY_VISIBLE if len(new) else np.ones(0, bool)
    return free & inside & (new.visible >= FULLY_VISIBLE)
