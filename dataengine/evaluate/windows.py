"""Images of a run, a data set or a plain folder, cut or scaled to one size so that they can be compared."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np

from dataengine.data import formats, images
from dataengine.data.formats import labelled_or_plain
from dataengine.data.layout import Dataset, Layout, Sample
from dataengine.data.pixel_range import PixelRange
from dataengine.data.split import flight_key
from dataengine.engine.run_folder import RunFolder
from dataengine.errors import UserError
from dataengine.layouts.windows import cut, scaled

Fit = Literal["window", "resize"]
Group = Literal["image", "flight"]
N_DRAWS = 10  # random halves of the real images
MIN_IMAGES = 8


@dataclass(frozen=True)
class Window:
    """A window of an image, or the whole image; pixels are read on demand.

    layout: of the window. scaled_size: (width, height) that the file is resized to before the window is cut at corner
    (left, top). group: key of similar images, which are never split between two halves. pixel_range: of the image's
    data set.
    """

    name: str
    file: Path
    layout: Layout
    scaled_size: tuple[int, int]
    corner: tuple[int, int]
    group: Hashable
    pixel_range: PixelRange | None = None

    def pixels(self) -> np.ndarray:
        """Pixels uint8 (H, W, 3), of the layout's size. Raises UserError where the file cannot be decoded."""
        (left, top), (width, height) = self.corner, self.layout.size
        return _decoded(self.file, self.scaled_size, self.pixel_range)[top : top + height, left : left + width].copy()


@lru_cache(maxsize=1)  # windows of one file follow each other
def _decoded(file: Path, size: tuple[int, int], pixel_range: PixelRange | None) -> np.ndarray:
    import cv2

    try:
        pixels = images.rgb(file, pixel_range)
    except ValueError as error:
        raise UserError(f"{file}: {error}; fix it or remove it from the data set.") from None
    if pixels.shape[1::-1] == size:
        return pixels
    shrinks = size[0] < pixels.shape[1]
    return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)


def read_generated(
    path: Path, split: str | None = None, all_attempts: bool = False, format: str | None = None
) -> Dataset:
    """Images of a run folder (accepted ones, or with `all_attempts` also dropped ones), a labelled data set in any
    known format, or a plain folder of images.

    In a run, objects that a scene had before painting are difficult, so only painted objects count; its samples are
    read again at each iteration, so memory does not grow with the run. Raises UserError for an unfinished run, a run
    without accepted images, and every error of reading a data set.
    """
    run = RunFolder(path)
    if not run.manifest.exists() and not run.recipe.exists():
        if all_attempts:
            raise UserError(f"{path}: --all-attempts needs a run folder of dataengine synth with a manifest.")
        return read_real(path, split, format)
    classes: dict[str, None] = {}
    kind, n = "obb", 0
    for record in run.decided():
        if all_attempts or record.accepted:
            classes.update(dict.fromkeys(record.labels.classes))
            kind, n = record.labels.kind if n == 0 else kind, n + 1
    if not n:
        raise UserError(f"{path}: no image of this run was accepted; --all-attempts includes dropped images.")
    return Dataset(tuple(classes), GeneratedSamples(run, all_attempts, n), kind, path.resolve().name, "run")


@dataclass(frozen=True)
class GeneratedSamples:
    """Images of a run with their labels, read from the manifest at each iteration. n: how many there are."""

    run: RunFolder
    all_attempts: bool
    n: int

    def __len__(self) -> int:
        return self.n

    def __iter__(self) -> Iterator[Sample]:
        for record in self.run.decided():
            if self.all_attempts or record.accepted:
                try:
                    image = self.run.image(record)
                except ValueError as error:
                    raise UserError(f"{self.run.manifest}: image {record.index}: {error}.") from None
                yield Sample(record.name, image, painted_only(record.labels, record.n_painted))


def read_real(path: Path, split: str | None = None, format: str | None = None) -> Dataset:
    """A labelled data set in any known format, or a plain folder of images."""
    if not path.exists():
        raise UserError(f"{path} does not exist; check the spelling.")
    return formats.read(path, format, split=split) if split is not None else labelled_or_plain(path, format)


def painted_only(layout: Layout, first: int) -> Layout:
    """The layout with all objects after the first `first`, which belong to the scene, marked difficult."""
    return replace(layout, difficult=layout.difficult | (np.arange(len(layout)) >= first))


def common_size(dataset: Dataset) -> tuple[int, int]:
    """Minimum (width, height) over the images of the data set."""
    width, height = zip(*(sample.layout.size for sample in dataset), strict=True)
    return min(width), min(height)


def cut_windows(
    dataset: Dataset,
    size: tuple[int, int],
    fit: Fit = "window",
    of_each: int = 2,
    group: Group = "image",
    seed: int = 0,
) -> list[Window]:
    """Windows of `size` (width, height) of a data set's images, in order; smaller images are used whole.

    fit: "window" cuts `of_each` random windows at native resolution; "resize" scales each image to just cover `size`
    and crops its centre. group: whether similar images are those of one image or of one HIT-UAV flight. Windows
    without a counted object are skipped, unless the data set has no such object at all.
    """
    return list(_iter_windows(dataset, size, fit, of_each, group, seed))


def random_windows(
    dataset: Dataset,
    n: int,
    size: tuple[int, int],
    fit: Fit = "window",
    of_each: int = 2,
    group: Group = "image",
    seed: int = 0,
) -> list[Window]:
    """At most n random windows of those that `cut_windows` makes, in order; only these are held in memory."""
    arguments = dataset, size, fit, of_each, group, seed
    total = sum(1 for _ in _iter_windows(*arguments))
    keep = set(np.random.default_rng(seed).permutation(total)[:n].tolist())
    return [window for i, window in enumerate(_iter_windows(*arguments)) if i in keep]


def _iter_windows(
    dataset: Dataset, size: tuple[int, int], fit: Fit, of_each: int, group: Group, seed: int
) -> Iterator[Window]:
    rng = np.random.default_rng(seed)
    key: Callable[[Sample], Hashable] = (lambda sample: sample.image) if group == "image" else flight_key(dataset)
    labelled = any((~sample.layout.difficult).any() for sample in dataset)
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
                yield Window(sample.name, sample.image, part, layout.size, corner, key(sample), sample.pixel_range)


def random_subset(windows: list[Window], n: int, seed: int = 0) -> list[Window]:
    """At most n random images, in their original order."""
    keep = np.random.default_rng(seed).permutation(len(windows))[:n]
    return [windows[i] for i in np.sort(keep)]


def random_halves(groups: Sequence[Hashable], rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Indices of two random halves without a common group, in random order and of nearly equal size.

    Raises UserError for fewer than two groups.

    >>> sorted(sorted(half.tolist()) for half in random_halves("aabb", np.random.default_rng(0)))
    [[0, 1], [2, 3]]
    """
    members: dict[Hashable, list[int]] = {}
    for i, group in enumerate(groups):
        members.setdefault(group, []).append(i)
    if len(members) < 2:
        raise UserError("the real images come from one image or flight; two halves need at least two (--real).")
    parts: tuple[list[int], list[int]] = [], []
    for i in rng.permutation(len(members)):
        min(parts, key=len).extend(list(members.values())[i])
    return rng.permutation(parts[0]), rng.permutation(parts[1])


def equal_draws(
    groups: Sequence[Hashable], n_generated: int, seed: int = 0, draws: int = N_DRAWS
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Indices (n,) of one half of the real images, of the other half, and of generated images, for each of `draws`
    random splits.

    n is the same everywhere, since distances between sets depend on their size. Raises UserError for n < 8.
    """
    rng = np.random.default_rng(seed)
    parts = [(*random_halves(groups, rng), rng.permutation(n_generated)) for _ in range(draws)]
    n = min(len(part) for draw in parts for part in draw)
    if n < MIN_IMAGES:
        raise UserError(
            f"only {n} images per side can be compared ({n_generated} generated, {len(groups)} real from "
            f"{len(set(groups))} images or flights); the minimum is {MIN_IMAGES}, some hundreds are better."
        )
    return [tuple(part[:n] for part in draw) for draw in parts]


def remove_detail(image: np.ndarray) -> np.ndarray:
    """The image uint8 (H, W, 3) downscaled to an eighth and upscaled again: the control of realism, without detail."""
    import cv2

    small = cv2.resize(image, None, fx=1 / 8, fy=1 / 8, interpolation=cv2.INTER_AREA)
    return cv2.resize(small, image.shape[1::-1])


def add_noise(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The image uint8 (H, W, 3) with Gaussian noise of four grey levels: a near copy."""
    return np.clip(image + rng.normal(0, 4, image.shape), 0, 255).astype(np.uint8)
