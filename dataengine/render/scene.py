"""Scenes: pictures that objects are painted into."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import numpy as np

from dataengine import geometry
from dataengine.data import images
from dataengine.data.images import read_picture
from dataengine.data.layout import UNKNOWN, Acquisition, Dataset, Kind, Layout, Sample, class_key
from dataengine.errors import UserError
from dataengine.layouts.windows import cut
from dataengine.render.augment import augmented_window, turned_freely, window_scales

WINDOWS_COMPARED = 8  # of these, the one is taken in which the least has to make room for the new objects
AUGMENTED_COMPARED = 8  # where each has to be read and turned: the first of so many with room
ENOUGH_ROOM = 0.5  # for this share of the new objects beside its own
GENERATED = "generated:"  # begins the names of scenes that were drawn, not taken
ROOM = 0.15  # of an object's long side, that it keeps free around it
NEAREST_SHARE = 0.1  # a scene is drawn among this share of all, those taken most like the layout asks
SAME_SCALE = 1.6  # largest ratio of lengths of a class's objects, layout's to scene's, where nothing else tells scale


@dataclass(frozen=True)
class Scene:
    """image uint8 (H, W, 3); layout: the labelled objects that are in it already; name, licence and source (the data
    set) for provenance; unreadable: images that were drawn before this one and could not be decoded."""

    image: np.ndarray
    layout: Layout
    name: str
    license: str = ""
    unreadable: tuple[str, ...] = ()
    source: str = ""

    def __post_init__(self) -> None:
        assert self.image.shape[1::-1] == self.layout.size, "boxes of another size than their picture are wrong"

    @property
    def generated(self) -> bool:
        """Whether it was drawn for its layout, perhaps with rough forms of the objects in their places."""
        return self.name.startswith(GENERATED)


class Scenes(Protocol):
    """Gives one scene for each layout, of the layout's size; scene i depends on layouts[i] and seeds[i] alone."""

    def draw(self, layouts: Sequence[Layout], seeds: Sequence[int]) -> list[Scene]: ...


def acquisition_distance(a: Acquisition, b: Acquisition) -> float:
    """How differently two pictures were taken: 0 for the same; unknown fields do not count; day is far from night."""
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


class DatasetScenes:
    """Windows of a data set's own images. Its labelled objects stay in the scene's layout."""

    def __init__(self, dataset: Dataset, size: tuple[int, int], augmented: bool = False):
        """augmented: windows are flipped, turned, scaled and re-lit, and their objects with them, as in training
        (`augment`), so that few images make many scenes; `size` is then square.
        Raises UserError when no image is as large as `size`."""
        self.samples = [
            s for s in dataset if s.layout.size[0] >= size[0] and s.layout.size[1] >= size[1] and s.image.exists()
        ]
        self.size, self.augmented = size, augmented
        if not self.samples:
            raise UserError(
                f"none of the {len(dataset)} scenes is an image of at least {size[0]}x{size[1]} pixels; "
                "give larger images (--scenes or --data), or a smaller --size."
            )

    @cached_property
    def lengths(self) -> list[dict[str, float]]:
        """`usual_lengths` of each sample; where altitude or ground sample distance is known nobody asks."""
        return [usual_lengths(sample.layout) for sample in self.samples]

    def draw(self, layouts: Sequence[Layout], seeds: Sequence[int]) -> list[Scene]:
        """One window for each layout, from an image taken much like the layout's own acquisition; where altitude and
        ground sample distance are unknown, one whose objects are about as large as the layout's of the same class."""
        return [
            self._draw(layout, np.random.default_rng((seed, 0x5CE)))
            for layout, seed in zip(layouts, seeds, strict=True)
        ]

    def _draw(self, layout: Layout, rng: np.random.Generator) -> Scene:
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
                with images.load(sample.image) as file:
                    window = np.asarray(file.convert("RGB").crop((left, top, left + self.size[0], top + self.size[1])))
            except ValueError:  # truncated or damaged
                unreadable.append(sample.name)
                continue
            inside = cut(sample.layout, left, top, self.size, min_visible=0)
            name = f"{sample.name}@{left},{top}"
            return Scene(window, inside, name, sample.license, tuple(unreadable), sample.source)
        raise _none_readable(unreadable)

    def _of_one_scale(self, likely: np.ndarray, lengths: dict[str, float], kind: Kind) -> np.ndarray:
        """Those of the scenes with objects as large as the layout's, once they are scaled, or with none of its classes;
        the nearest if there is no such scene."""
        far = np.zeros(len(likely))
        for n, i in enumerate(likely):
            octaves = _octaves(lengths, self.lengths[i])
            far[n] = np.abs(octaves - np.log2(self._scale(i, octaves, kind))).mean() if len(octaves) else 0
        return likely[far <= max(np.log2(SAME_SCALE), far.min())]

    def _scale(self, i: int, octaves: np.ndarray, kind: Kind) -> float:
        """How many times as large scene i is to come for objects that are longer than its own by so many `_octaves`."""
        if not self.augmented or not len(octaves):
            return 1.0
        layout = self.samples[i].layout
        turned = kind == "obb" and turned_freely(layout)
        return float(np.clip(2 ** octaves.mean(), *window_scales(layout.size, self.size[0], turned)))

    def _augmented(
        self, order: np.ndarray, layout: Layout, lengths: dict[str, float], rng: np.random.Generator
    ) -> Scene:
        """The first augmented window, of the images in this order, that shows no ignored region and has room for half
        of the new objects beside its own; of a few, that with the most. Were the emptiest taken, few would hold objects
        in their surroundings."""
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
            image, inside = augmented_window(picture, labels, self.size[0], rng, scale=scale, min_visible=0)
            room = free_of(layout, inside.boxes, ROOM).mean() if len(layout) else 1.0
            known = not len(inside.ignored)
            found.append((known, min(ENOUGH_ROOM, room), -len(found), image, inside, sample))
            if (known and room >= ENOUGH_ROOM) or len(found) == AUGMENTED_COMPARED:
                break
        if not found:
            raise _none_readable(unreadable)
        *_, image, inside, sample = max(found, key=lambda window: window[:3])
        return Scene(image, inside, f"{sample.name}@augmented", sample.license, tuple(unreadable), sample.source)

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
    lost = inside.boxes[~free_of(inside, layout.boxes, ROOM)]
    return float((lost[:, 2] * lost[:, 3]).sum())


def usual_lengths(layout: Layout) -> dict[str, float]:
    """Median log2 of the long sides, in pixels, of each class's objects, by its name in lower case."""
    long = np.log2(np.maximum(layout.boxes[:, 2], 1))
    return {class_key(layout.classes[i]): float(np.median(long[layout.labels == i])) for i in np.unique(layout.labels)}


def _octaves(a: dict[str, float], b: dict[str, float]) -> np.ndarray:
    """(K,): by how many doublings the objects of one picture are longer than another's, of the K classes of both."""
    return np.array([a[name] - b[name] for name in sorted(a.keys() & b.keys())])


def _none_readable(names: Sequence[str]) -> UserError:
    return UserError(f"none of {len(names)} scenes can be read, such as {names[0]}; mend or replace them.")


def empty_layout(layout: Layout) -> Layout:
    """The same picture with nothing in it."""
    return replace(
        layout, boxes=np.zeros((0, 5)), labels=np.zeros(0), difficult=None, visible=None, ignored=np.zeros((0, 5))
    )


def free_of(layout: Layout, taken: np.ndarray, margin: float) -> np.ndarray:
    """Bool (N,): objects whose box, grown by `margin` of its long side, touches none of the boxes `taken` (M, 5)."""
    grown = layout.boxes.copy()
    grown[:, 2:4] += 2 * margin * layout.boxes[:, 2:3]
    return ~(geometry.intersection(grown, taken) > 0).any(1)
