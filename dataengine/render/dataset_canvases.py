"""Canvases from labelled data sets: windows to paint objects into."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property

import numpy as np

from dataengine.data import images
from dataengine.data.images import read_picture
from dataengine.data.layout import UNKNOWN, Acquisition, Dataset, Kind, Layout, Sample, class_key
from dataengine.errors import UserError
from dataengine.layouts.windows import cut
from dataengine.render.augment import turned_freely, turned_window, window_scales
from dataengine.render.canvas import Canvas, Provenance
from dataengine.render.placement import ROOM_SHARE, free_of
from dataengine.render.shadows import shadow_direction, turned_direction
from dataengine.seeds import Stream, generator

WINDOWS_COMPARED = 8  # of these, the one in which the fewest objects have to make room for the new ones is used
AUGMENTED_COMPARED = 8  # the first of so many with room, since each has to be read and turned
ENOUGH_ROOM_SHARE = 0.5  # of the new objects, that an augmented window has room for next to its own
NEAREST_SHARE = 0.1  # a scene is drawn among this share of all, those acquired most like the layout
MAX_SCALE_RATIO = 1.6  # of lengths of a class's objects, layout's to scene's, where nothing else gives the scale


def acquisition_distance(a: Acquisition, b: Acquisition) -> float:
    """How differently two images were acquired: 0 for the same; unknown fields do not count; day is far from night."""
    distance = 0.0
    if a.altitude_m is not None and b.altitude_m is not None:
        distance += abs(np.log2(a.altitude_m / b.altitude_m))
    if a.gsd_m is not None and b.gsd_m is not None:
        distance += abs(np.log2(a.gsd_m / b.gsd_m))
    if a.camera_angle_deg is not None and b.camera_angle_deg is not None:
        distance += abs(a.camera_angle_deg - b.camera_angle_deg) / 30
    if a.night is not None and b.night is not None and a.night != b.night:
        distance += 10
    return float(distance)


def _lit_alike(a: Acquisition, b: Acquisition) -> bool:
    return a.night is None or b.night is None or a.night == b.night


class ImageShadows:
    """Directions of the shadows in whole images, each measured once."""

    def __init__(self) -> None:
        self._known: dict[str, float] = {}

    def of(self, sample: Sample) -> float:
        """`shadow_direction` of the sample's image; `nan` for one that cannot be read."""
        if sample.name not in self._known:
            picture = read_picture(sample)
            self._known[sample.name] = math.nan if picture is None else shadow_direction(picture, sample.layout)
        return self._known[sample.name]


class DatasetCanvases:
    """Windows of a data set's own images, with the labelled objects in them."""

    def __init__(self, dataset: Dataset, size: tuple[int, int], augmented: bool = False, shadows: bool = False):
        """augmented: windows are flipped, turned, scaled and re-lit, and their objects with them, as in training
        (`augment`), so that few images make many scenes; `size` is then square. shadows: look where shadows lie.
        Raises UserError when no image is as large as `size`."""
        self.samples = [
            s for s in dataset if s.layout.size[0] >= size[0] and s.layout.size[1] >= size[1] and s.image.exists()
        ]
        self.size, self.augmented, self.shadows = size, augmented, ImageShadows() if shadows else None
        if not self.samples:
            raise UserError(
                f"none of the {len(dataset)} scenes is an image of at least {size[0]}x{size[1]} pixels; "
                "give larger images (--scenes or --data), or a smaller --size."
            )

    @cached_property
    def lengths(self) -> list[dict[str, float]]:
        """`usual_lengths` of each sample; computed only where neither altitude nor ground sample distance is known."""
        return [usual_lengths(sample.layout) for sample in self.samples]

    @cached_property
    def shown(self) -> list[set[str]]:
        """Classes of each sample's objects, by `class_key`."""
        return [{class_key(name) for name in sample.layout.names()} for sample in self.samples]

    def draw(self, layouts: Sequence[Layout], seeds: Sequence[int]) -> list[Canvas]:
        """One window for each layout, from an image acquired much like the layout says that shows one of its classes,
        or no object; where altitude and ground sample distance are unknown, one whose objects are about as large as the
        layout's of the same class."""
        return [self._draw(layout, generator(seed, Stream.SCENE)) for layout, seed in zip(layouts, seeds, strict=True)]

    def _draw(self, layout: Layout, rng: np.random.Generator) -> Canvas:
        if layout.acquisition == UNKNOWN:
            likely = np.arange(len(self.samples))
        else:
            far = np.array([acquisition_distance(layout.acquisition, s.layout.acquisition) for s in self.samples])
            lit_alike = np.array([_lit_alike(layout.acquisition, s.layout.acquisition) for s in self.samples])
            if lit_alike.any():  # however few they are, day is never painted into night
                far[~lit_alike] = np.inf
            count = min(max(1, round(NEAREST_SHARE * len(far))), int(np.isfinite(far).sum()))
            nearest = np.sort(far)[count - 1]
            likely = np.flatnonzero(far <= nearest)  # with all ties: first images must not be favoured
        likely = self._of_its_classes(likely, layout)
        lengths = {} if layout.acquisition.has_scale else usual_lengths(layout)
        if lengths:
            likely = self._of_one_scale(likely, lengths, layout.kind)
        if self.augmented:
            return self._augmented(rng.permutation(likely), layout, lengths, rng)
        unreadable: list[str] = []
        windows = [(self.samples[i], *self._corner(self.samples[i], rng)) for i in rng.permutation(likely)]
        first = sorted(windows[:WINDOWS_COMPARED], key=lambda window: self._cost(*window, layout))
        for sample, left, top in first + windows[WINDOWS_COMPARED:]:
            try:
                pixels = images.rgb(sample.image, sample.pixel_range)
                window = pixels[top : top + self.size[1], left : left + self.size[0]].copy()
            except ValueError:  # truncated or damaged
                unreadable.append(sample.name)
                continue
            inside = cut(sample.layout, left, top, self.size, min_visible=0)
            shadow = self.shadows.of(sample) if self.shadows else math.nan
            return Canvas(window, inside, layout, provenance_of(sample, unreadable, (left, top)), shadow=shadow)
        raise _none_readable(unreadable)

    def _of_its_classes(self, likely: np.ndarray, layout: Layout) -> np.ndarray:
        """Those of the scenes that show an object of one of the layout's classes, or no object at all; all where none
        shows one. An image of other classes only may show ground on which these never are: cars of a data set of roads
        and lakes would stand on water."""
        wanted = {class_key(name) for name in layout.names()}
        if not any(self.shown[i] & wanted for i in likely):
            return likely
        return likely[[not self.shown[i] or bool(self.shown[i] & wanted) for i in likely]]

    def _of_one_scale(self, likely: np.ndarray, lengths: dict[str, float], kind: Kind) -> np.ndarray:
        """Those of the scenes with objects as large as the layout's, once they are scaled, or with none of its classes;
        the nearest if there is no such scene."""
        far = np.zeros(len(likely))
        for n, i in enumerate(likely):
            octaves = _octaves(lengths, self.lengths[i])
            far[n] = np.abs(octaves - np.log2(self._scale(i, octaves, kind))).mean() if len(octaves) else 0
        return likely[far <= max(np.log2(MAX_SCALE_RATIO), far.min())]

    def _scale(self, i: int, octaves: np.ndarray, kind: Kind) -> float:
        """How many times as large scene i is to come for objects that are longer than its own by so many `_octaves`."""
        if not self.augmented or not len(octaves):
            return 1.0
        layout = self.samples[i].layout
        turned = kind == "obb" and turned_freely(layout)
        return float(np.clip(2 ** octaves.mean(), *window_scales(layout.size, self.size[0], turned)))

    def _augmented(
        self, order: np.ndarray, layout: Layout, lengths: dict[str, float], rng: np.random.Generator
    ) -> Canvas:
        """The first augmented window, of the images in this order, that shows no ignored region and has room for half
        of the new objects next to its own; else, of a few, the one with the most room. If the emptiest were taken, few
        would hold objects in their surroundings."""
        unreadable, found = [], []
        for i in order:
            sample = self.samples[i]
            picture = read_picture(sample)
            if picture is None:
                unreadable.append(sample.name)
                continue
            # before it is turned, for around a box that was turned an upright one is loose
            labels = sample.layout.in_kind(layout.kind)
            octaves = _octaves(lengths, self.lengths[i]) if lengths else np.zeros(0)
            scale = self._scale(i, octaves, layout.kind)
            image, inside, turn = turned_window(picture, labels, self.size[0], rng, scale=scale, min_visible=0)
            room = free_of(layout, inside.boxes, ROOM_SHARE).mean() if len(layout) else 1.0
            known = not len(inside.ignored)
            found.append((known, min(ENOUGH_ROOM_SHARE, room), -len(found), image, inside, turn, sample))
            if (known and room >= ENOUGH_ROOM_SHARE) or len(found) == AUGMENTED_COMPARED:
                break
        if not found:
            raise _none_readable(unreadable)
        *_, image, inside, turn, sample = max(found, key=lambda window: window[:3])
        shadow = turned_direction(self.shadows.of(sample), turn) if self.shadows else math.nan
        provenance = provenance_of(sample, unreadable)
        return Canvas(image, inside, layout, provenance, turn=turn, shadow=shadow)

    def _corner(self, sample: Sample, rng: np.random.Generator) -> tuple[int, int]:
        """Upper left corner of a random window."""
        width, height = sample.layout.size
        return int(rng.integers(0, width - self.size[0] + 1)), int(rng.integers(0, height - self.size[1] + 1))

    def _cost(self, sample: Sample, left: int, top: int, layout: Layout) -> tuple[bool, float]:
        """Whether the window shows an ignored region, in which there may be objects without a label; area of its own
        objects that would have to be painted over to make room for the layout's."""
        inside = cut(sample.layout, left, top, self.size, min_visible=0)
        return len(inside.ignored) > 0, _lost(inside, layout)


def _lost(inside: Layout, layout: Layout) -> float:
    lost = inside.boxes[~free_of(inside, layout.boxes, ROOM_SHARE)]
    return float((lost[:, 2] * lost[:, 3]).sum())


def usual_lengths(layout: Layout) -> dict[str, float]:
    """Median log2 of the long sides, in pixels, of each class's objects, by its name in lower case."""
    long = np.log2(np.maximum(layout.boxes[:, 2], 1))
    return {class_key(layout.classes[i]): float(np.median(long[layout.labels == i])) for i in np.unique(layout.labels)}


def _octaves(a: dict[str, float], b: dict[str, float]) -> np.ndarray:
    """(K,): by how many doublings the objects of one image are longer than another's, of the K classes of both."""
    return np.array([a[name] - b[name] for name in sorted(a.keys() & b.keys())])


def provenance_of(sample: Sample, unreadable: Sequence[str], corner: tuple[int, int] | None = None) -> Provenance:
    """Of a window of the sample's image with its upper left pixel at `corner`, or of an augmented one."""
    left, top = corner or (None, None)
    return Provenance(
        "window" if corner else "augmented", sample.name, left, top, license=sample.license, source=sample.source,
        unreadable=tuple(unreadable),
    )  # fmt: skip


def _none_readable(names: Sequence[str]) -> UserError:
    return UserError(f"none of {len(names)} scenes can be read, such as {names[0]}; fix or replace them.")
