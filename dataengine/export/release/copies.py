"""The check of a release for near copies of training images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from dataengine.data.layout import Dataset
from dataengine.errors import UserError
from dataengine.evaluate.copies import undetected
from dataengine.evaluate.features import load_features
from dataengine.evaluate.memorisation import COPY_PERCENTILE, FEATURES
from dataengine.evaluate.report import copied_parts_of_training, copies_of_training
from dataengine.evaluate.results import Result
from dataengine.evaluate.windows import common_size, cut_windows, read_generated, read_real

Bar = Callable[[Sequence, str], Sequence]
WINDOWS_PER_IMAGE = 4  # of training and held-out images


def near_copies(
    run: Path,
    training: Path,
    held_out: Path,
    bar: Bar,
    seed: int = 0,
    formats: tuple[str | None, str | None] = (None, None),
) -> tuple[list[Result], list[str]]:
    """The tables of `dataengine evaluate memorisation` for a run, and the names of its near copies: accepted images
    that are nearer to a training image than 99 % of the held-out images, or show a part of one.

    formats: of training and held-out images; None recognises them. The second table is not used where it does not find
    planted copies, as on images without detail; `undetected` says so.

    Raises UserError where a data set cannot be read or has no images, and where the check does not find noisy copies.
    """
    generated, training_images = _all_of(read_generated(run)), _all_of(read_real(training, None, formats[0]))
    size = common_size(generated)
    windows = cut_windows(generated, size, of_each=1, seed=seed)
    real, trained = (
        cut_windows(images, size, of_each=WINDOWS_PER_IMAGE, seed=seed)
        for images in (_all_of(read_real(held_out, None, formats[1])), training_images)
    )
    if not real or not trained:
        raise UserError(f"{training if real else held_out}: no image to compare with; choose another folder.")
    whole, neighbours = copies_of_training(windows, real, trained, load_features(FEATURES), seed, bar)
    if failed := whole.failed_controls():
        raise UserError(f"--training: the check fails on these images ({failed[0]}); choose other --held-out images.")
    limit = np.percentile(neighbours.distances["real, held out"], COPY_PERCENTILE)
    parts, copied = copied_parts_of_training(windows, real, training_images, seed, bar)
    near = neighbours.distances["generated"] < limit
    if not undetected(parts):
        near = near | copied
    return [whole, parts], [window.name for window, is_near in zip(windows, near, strict=True) if is_near]


def _all_of(dataset: Dataset) -> Dataset:
    """The data set without labels: images without objects can be copies, too, and `cut_windows` would skip them."""
    nothing = np.zeros(0, int)
    return replace(dataset, samples=[replace(s, layout=s.layout.select(nothing)) for s in dataset])
