"""New objects in real, already labelled pictures: where there is room for them, and the picture put together again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from dataengine import geometry
from dataengine.data.images import read_picture
from dataengine.data.layout import Dataset, Layout
from dataengine.errors import UserError
from dataengine.layouts.constraints import WHOLE
from dataengine.layouts.windows import cut
from dataengine.render.inpaint import MARGIN, MARGIN_PIXELS
from dataengine.render.scene import Scene, acquisition_distance

PICTURES_COMPARED = 12  # of these, the one with room for most of the new objects is taken


@dataclass(frozen=True)
class Target:
    """A picture to paint into: the whole of it with its labels, and the window in which the new objects fit.

    new: objects in the window's coordinates, none of which touches a labelled one or the window's border.
    """

    image: np.ndarray
    layout: Layout
    left: int
    top: int
    new: Layout
    name: str
    license: str = ""
    unreadable: tuple[str, ...] = ()
    source: str = ""

    @property
    def window(self) -> Scene:
        """The window as a scene, with what is labelled in it."""
        width, height = self.new.size
        part = self.image[self.top : self.top + height, self.left : self.left + width]
        return Scene(part, cut(self.layout, self.left, self.top, self.new.size, min_visible=0), self.name, self.license)

    def put_back(self, painted: np.ndarray) -> tuple[np.ndarray, Layout]:
        """The whole picture with the painted window, and its labels: the new objects first, then those it had."""
        image = self.image.copy()
        height, width = painted.shape[:2]
        image[self.top : self.top + height, self.left : self.left + width] = painted
        boxes = self.new.boxes + np.float32([self.left, self.top, 0, 0, 0])
        new = replace(self.new, boxes=boxes, size=self.layout.size, ignored=None)
        return image, new.joined(self.layout.in_kind(new.kind))


class IntoDataset:
    """Finds a picture of a labelled data set, and a window in it, for each layout."""

    def __init__(self, dataset: Dataset, size: tuple[int, int]):
        """Raises UserError when no picture is as large as the window."""
        self.samples = [s for s in dataset if min(np.array(s.layout.size) - size) >= 0 and s.image.exists()]
        self.size = size
        if not self.samples:
            raise UserError(
                f"none of the {len(dataset)} pictures of --into has at least {size[0]}x{size[1]} pixels; give a "
                "smaller --size, or larger pictures."
            )

    def draw(self, layouts: Sequence[Layout], seeds: Sequence[int]) -> list[Target]:
        """One target for each layout; target i depends on layouts[i] and seeds[i] alone. Its `new` may be empty."""
        return [self._draw(layout, np.random.default_rng((s, 0x147))) for layout, s in zip(layouts, seeds, strict=True)]

    def _draw(self, layout: Layout, rng: np.random.Generator) -> Target:
        chosen = rng.permutation(len(self.samples))[:PICTURES_COMPARED]
        places = []
        for i in chosen:
            free = np.array(self.samples[i].layout.size) - self.size
            left, top = (int(rng.integers(0, slack + 1)) for slack in free)
            new = layout.select(room_for(layout, cut(self.samples[i].layout, left, top, self.size, min_visible=0)))
            far = acquisition_distance(layout.acquisition, self.samples[i].layout.acquisition)
            places.append((len(new) - far, self.samples[i], left, top, new))
        unreadable: list[str] = []
        for _, sample, left, top, new in sorted(places, key=lambda place: -place[0]):
            image = read_picture(sample)
            if image is not None:
                new = replace(new, acquisition=sample.layout.acquisition)
                name = f"{sample.name}@{left},{top}"
                told = (sample.license, tuple(unreadable), sample.source)
                return Target(image, sample.layout, left, top, new, name, *told)
            unreadable.append(sample.name)
        raise UserError(
            f"none of {len(unreadable)} pictures can be read, such as {unreadable[0]}; mend or replace them."
        )


def room_for(new: Layout, existing: Layout) -> np.ndarray:
    """bool (N,): whole objects that, with their margin, touch nothing labelled and lie inside the window."""
    grown = new.boxes.copy()
    grown[:, 2:4] += 2 * (MARGIN * new.boxes[:, 2:3] + MARGIN_PIXELS)
    taken = np.concatenate([existing.boxes, existing.ignored])
    free = ~(geometry.intersection(grown, taken) > 0).any(1) if len(taken) else np.ones(len(new), bool)
    inside = geometry.visible_fraction(grown, new.size) >= WHOLE if len(new) else np.ones(0, bool)
    return free & inside & (new.visible >= WHOLE)
