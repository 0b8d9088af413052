"""The pictures that are compared: of a run, a data set or a plain folder, all brought to one size in the same way."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np

from dataengine.data import formats, images
from dataengine.data.formats import labelled_or_plain
from dataengine.data.images import named_file
from dataengine.data.layout import Dataset, Layout, Sample, layout_from_json
from dataengine.data.split import flight_key
from dataengine.engine.records import painted
from dataengine.errors import UserError
from dataengine.files import parse_json, read_text
from dataengine.layouts.windows import cut, scaled

Fit = Literal["window", "resize"]
Group = Literal["image", "flight"]
DRAWS = 10  # random halves of the real pictures
LEAST = 8


@dataclass(frozen=True)
class Picture:
    """A picture, or the window of it that is compared; pixels are read when they are asked for.

    layout: of the window. scaled_size: (width, height) that the file is brought to before the window is cut at corner
    (left, top). group: what is never divided between two halves, since its pictures are alike.
    """

    name: str
    file: Path
    layout: Layout
    scaled_size: tuple[int, int]
    corner: tuple[int, int]
    group: Hashable

    def pixels(self) -> np.ndarray:
        """uint8 (H, W, 3), of the layout's size. Raises UserError where the file cannot be decoded."""
        (left, top), (width, height) = self.corner, self.layout.size
        return _decoded(self.file, self.scaled_size)[top : top + height, left : left + width].copy()


@lru_cache(maxsize=1)  # windows of one file follow each other
def _decoded(file: Path, size: tuple[int, int]) -> np.ndarray:
    import cv2

    try:
        pixels = np.asarray(images.load(file).convert("RGB"))
    except ValueError as error:
        raise UserError(f"{file}: {error}; mend it or take it out of the data set.") from None
    if pixels.shape[1::-1] == size:
        return pixels
    shrinks = size[0] < pixels.shape[1]
    return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)


def read_made(path: Path, split: str | None = None, all_attempts: bool = False) -> Dataset:
    """The accepted images of a run folder (of all attempts, dropped ones too, if asked for), or those of any labelled
    data set or plain folder of images.

    In a run only painted objects count: those that a scene held before are difficult. Raises UserError for a run that
    is not finished, one without accepted images, and all that reading a data set raises.
    """
    manifest = path / "manifest.jsonl"
    if not manifest.exists():
        if (path / "recipe.json").exists():
            raise UserError(f"{path}: this run is not finished; the command that began it continues it.")
        if all_attempts:
            raise UserError(f"{path}: --all-attempts is for run folders of dataengine synth, which have a manifest.")
        return read_real(path, split)
    samples = []
    for line, text in enumerate(read_text(manifest).splitlines(), 1):
        try:
            record = parse_json(text)
            if all_attempts or record["verdict"]["kept"]:
                name, image = f"{record['index']:08d}", named_file(path, [path], record["image"])
                labels = painted_only(layout_from_json(record["labels"]), painted(record))
                samples.append(Sample(name, image, labels))
        except (ValueError, TypeError, KeyError, IndexError, AttributeError, AssertionError, OverflowError) as error:
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            raise UserError(
                f"{manifest}:{line}: no record of an image ({reason}); dataengine run verify "
                "says what is wrong, and the same dataengine synth command writes it again."
            ) from None
    if not samples:
        raise UserError(f"{path}: no image of this run was accepted; --all-attempts takes the dropped ones.")
    classes = tuple(dict.fromkeys(name for sample in samples for name in sample.layout.classes))
    return Dataset(classes, samples, samples[0].layout.kind, path.resolve().name, "run")


def read_real(path: Path, split: str | None = None) -> Dataset:
    """A labelled data set in any known format, or a plain folder of images."""
    if not path.exists():
        raise UserError(f"{path} does not exist; check the spelling.")
    return formats.read(path, split=split) if split is not None else labelled_or_plain(path)


def painted_only(layout: Layout, first: int) -> Layout:
    """The layout whose objects after the first `first`, which are the scene's own, are difficult."""
    return replace(layout, difficult=layout.difficult | (np.arange(len(layout)) >= first))


def common_size(dataset: Dataset) -> tuple[int, int]:
    """(width, height) that every image of the data set has or exceeds."""
    return tuple(min(sample.layout.size[i] for sample in dataset) for i in (0, 1))


def windows(
    dataset: Dataset,
    size: tuple[int, int],
    fit: Fit = "window",
    of_each: int = 2,
    group: Group = "image",
    seed: int = 0,
) -> list[Picture]:
    """The data set's images as pictures of `size` (width, height), in order; an image that is smaller stays as it is.

    fit: "window" cuts `of_each` random windows at native resolution; "resize" scales each image until it just covers
    `size`, and takes its middle. group: what halves of the data never divide: an image, or a HIT-UAV flight. Windows
    that show no object that counts are left out, unless no image of the data set has one.
    """
    rng = np.random.default_rng(seed)
    key: Callable[[Sample], Hashable] = (lambda sample: sample.image) if group == "image" else flight_key(dataset)
    labelled = any((~sample.layout.difficult).any() for sample in dataset)
    pictures = []
    for sample in dataset:
        layout = sample.layout
        if fit == "resize":
            layout = scaled(layout, max(size[0] / layout.size[0], size[1] / layout.size[1]))
        shown = min(size[0], layout.size[0]), min(size[1], layout.size[1])
        free = layout.size[0] - shown[0], layout.size[1] - shown[1]
        if fit == "resize" or not any(free):
            corners = [(free[0] // 2, free[1] // 2)]
        else:
            corners = [tuple(int(rng.integers(0, slack + 1)) for slack in free) for _ in range(of_each)]
        for corner in corners:
            part = cut(layout, *corner, shown) if any(free) else layout
            if not labelled or (~part.difficult).any():
                pictures.append(Picture(sample.name, sample.image, part, layout.size, corner, key(sample)))
    return pictures


def chosen(pictures: list[Picture], n: int, seed: int = 0) -> list[Picture]:
    """At most n pictures drawn at random, in their order."""
    keep = np.random.default_rng(seed).permutation(len(pictures))[:n]
    return [pictures[i] for i in np.sort(keep)]


def halves(groups: Sequence[Hashable], rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Indices of two random halves that share no group, in random order, as equal in size as a random order allows.

    Raises UserError for fewer than two groups.
    """
    members: dict[Hashable, list[int]] = {}
    for i, group in enumerate(groups):
        members.setdefault(group, []).append(i)
    if len(members) < 2:
        raise UserError("the real pictures are all of one image or flight; two halves of them need at least two.")
    parts: tuple[list[int], list[int]] = [], []
    for i in rng.permutation(len(members)):
        min(parts, key=len).extend(list(members.values())[i])
    return rng.permutation(parts[0]), rng.permutation(parts[1])


def equal_draws(
    groups: Sequence[Hashable], n_made: int, seed: int = 0, draws: int = DRAWS
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Indices (n,) of one half of the real pictures, of the other half, and of generated ones, for each of `draws`.

    n is the same in all, since distances between sets depend on their size. Raises UserError where it is below 8.
    """
    rng = np.random.default_rng(seed)
    parts = [(*halves(groups, rng), rng.permutation(n_made)) for _ in range(draws)]
    n = min(len(part) for draw in parts for part in draw)
    if n < LEAST:
        raise UserError(
            f"only {n} pictures a side can be compared ({n_made} generated, {len(groups)} real ones of "
            f"{len(set(groups))} images or flights); {LEAST} are the least, some hundreds are wanted."
        )
    return [tuple(part[:n] for part in draw) for draw in parts]


def without_detail(image: np.ndarray) -> np.ndarray:
    """The image (H, W, 3) shrunk to an eighth and enlarged again: the control of realism, which has lost all detail."""
    import cv2

    small = cv2.resize(image, None, fx=1 / 8, fy=1 / 8, interpolation=cv2.INTER_AREA)
    return cv2.resize(small, image.shape[1::-1])


def noisy(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The image under noise of four grey levels: a copy that no checksum would find."""
    return np.clip(image + rng.normal(0, 4, image.shape), 0, 255).astype(np.uint8)
