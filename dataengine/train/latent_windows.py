"""Augmented windows of several data sets as latents, made once and kept in a folder."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.progress import track

from dataengine.data.images import read_or_fail
from dataengine.data.layout import Dataset, Layout, Sample, layout_from_json, layout_to_json
from dataengine.errors import UserError
from dataengine.files import write_whole
from dataengine.render.augment import augment, augmented_window, random_window, turned_freely, window_scales

OBJECT_SHARE = 0.75  # of windows that are cut around a random object
MAX_SCALE = 0.9  # with the augmentation's own scale, windows are hardly enlarged, which would blur them
CHUNK = 64  # windows that are encoded and stored together

Encode = Callable[[np.ndarray], np.ndarray]  # uint8 (B, H, W, 3) -> latents float (B, C, S, S)


@dataclass(frozen=True)
class Source:
    """A data set to train on. share: of the windows. labelled: False where objects without a label may be seen, so that
    its layouts are unknown, which is not empty."""

    dataset: Dataset
    share: float
    labelled: bool = True


def cut_window(sample: Sample, size: int, rng: np.random.Generator) -> tuple[np.ndarray, Layout]:
    """A random augmented window of a labelled image: pixels uint8 (size, size, 3), and its layout.

    An image with no room for a choice, `size` wide or high, is flipped and turned only.
    """
    image, layout = read_or_fail(sample), sample.layout
    if min(layout.size) == size:
        return random_window(*augment(image, layout.in_kind("hbb"), rng, scale=(1.0, 1.0)), size, rng)
    around = None
    if len(layout) and rng.random() < OBJECT_SHARE:
        around = layout.boxes[rng.integers(len(layout)), :2]
    lowest = min(window_scales(layout.size, size, turned_freely(layout))[0], MAX_SCALE)
    scale = float(np.exp(rng.uniform(np.log(lowest), np.log(MAX_SCALE))))
    return augmented_window(image, layout, size, rng, around, scale)


def planned(sources: Sequence[Source], count: int, seed: int) -> Iterator[tuple[int, Sample]]:
    """(number of the source, image) of `count` windows, without end in the same order for each count: sources by their
    shares, each one's images in random order, every one as often as the others."""
    rng = np.random.default_rng((seed, 0))
    shares = np.array([source.share for source in sources], np.float64)
    orders = [itertools.cycle(rng.permutation(len(source.dataset))) for source in sources]
    for number in rng.choice(len(sources), count, p=shares / shares.sum()):
        yield int(number), sources[number].dataset.samples[next(orders[number])]


class LatentWindows:
    """Windows of the sources as latents float16 (N, C, S, S), layouts, and numbers of their sources int64 (N,).

    They are kept in a folder; windows that are missing there are made first, and window i depends on the seed and i
    alone. Raises UserError when a data set has no image, or the folder holds windows made otherwise (`recipe`).
    """

    def __init__(
        self, folder: Path, sources: Sequence[Source], count: int, size: int, encode: Encode, recipe: str, seed: int = 0
    ):
        for source in sources:
            if not len(source.dataset):
                raise UserError(f"the training data {source.dataset.name} has no images.")
        folder.mkdir(parents=True, exist_ok=True)
        self._check(folder / "recipe.txt", f"{recipe} seed={seed} size={size} count={count}")
        lines = folder / "layouts.jsonl"
        text = lines.read_text() if lines.exists() else ""
        stored = text.split("\n")[:-1]
        if len(stored) < count:  # without what a killed process left unfinished
            stored = stored[: len(stored) // CHUNK * CHUNK]
        write_whole(lines, "".join(f"{line}\n" for line in stored))
        plan = list(planned(sources, count, seed))
        missing = range(len(stored), count, CHUNK)
        for start in track(missing, "encoding windows", disable=not missing):
            windows = [
                cut_window(plan[i][1], size, np.random.default_rng((seed, 1, i)))
                for i in range(start, min(start + CHUNK, count))
            ]
            latents = encode(np.stack([pixels for pixels, _ in windows]))
            array = _open_array(folder / "latents.npy", (count, *latents.shape[1:]))
            array[start : start + len(latents)] = latents
            array.flush()
            added = [json.dumps(layout_to_json(layout)) for _, layout in windows]
            with lines.open("a") as file:
                file.writelines(f"{line}\n" for line in added)
            stored += added
        self.latents = np.load(folder / "latents.npy", mmap_mode="r")
        self.layouts = [layout_from_json(json.loads(line)) for line in stored]
        self.sources = np.array([number for number, _ in plan], np.int64)

    def __len__(self) -> int:
        return len(self.layouts)

    @staticmethod
    def _check(file: Path, recipe: str) -> None:
        if file.exists() and file.read_text() != recipe:
            raise UserError(f"{file.parent}: these windows were made otherwise; use another --out, or delete them.")
        write_whole(file, recipe)

    def statistics(self, windows: int = 2048) -> tuple[list[float], list[float]]:
        """Mean and standard deviation of each latent channel over the first windows."""
        part = self.latents[:windows].astype(np.float32)
        return part.mean((0, 2, 3)).tolist(), part.std((0, 2, 3)).clip(1e-3).tolist()


def _open_array(file: Path, shape: tuple[int, ...]) -> np.memmap:
    if file.exists():
        return np.lib.format.open_memmap(file, "r+")
    return np.lib.format.open_memmap(file, "w+", np.float16, shape)  # zeros, sparse on disk
