"""Accepted images that are as near to a training picture as real ones hardly ever are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from dataengine.data.layout import Dataset
from dataengine.errors import UserError
from dataengine.evaluate.features import load_features
from dataengine.evaluate.memorisation import FEATURES, FIRST_PERCENT
from dataengine.evaluate.pictures import common_size, read_made, read_real, windows
from dataengine.evaluate.report import copies_of_training
from dataengine.evaluate.results import Result

Bar = Callable[[Sequence, str], Sequence]
WINDOWS = 4  # of each training picture


def near_copies(run: Path, training: Path, held_out: Path, bar: Bar, seed: int = 0) -> tuple[Result, list[str]]:
    """`dataengine evaluate memorisation` of a run: its table, and the names of accepted images nearer to a training
    picture than 99 % of held-out ones are.

    Raises UserError where the data sets cannot be read, are too few, or where even noisy copies would not be found.
    """
    made = _all_of(read_made(run))
    size = common_size(made)
    pictures = windows(made, size, of_each=1, seed=seed)
    real, trained = (
        windows(_all_of(read_real(path)), size, of_each=WINDOWS, seed=seed) for path in (held_out, training)
    )
    if not real or not trained:
        raise UserError(f"{training if real else held_out}: no picture to compare with; give another folder.")
    result, neighbours = copies_of_training(pictures, real, trained, load_features(FEATURES), seed, bar)
    if result.unmoved():
        raise UserError(
            f"--training: on these pictures the check is blind ({result.unmoved()[0]}); give other --held-out pictures."
        )
    limit = np.percentile(neighbours.distances["real, held out"], FIRST_PERCENT)
    near = neighbours.distances["generated"] < limit
    return result, [picture.name for picture, copied in zip(pictures, near, strict=True) if copied]


def _all_of(dataset: Dataset) -> Dataset:
    """The data set without labels: pictures and windows that show nothing may be copies, too, and `windows` would leave
    them out."""
    nothing = np.zeros(0, int)
    return replace(dataset, samples=[replace(s, layout=s.layout.select(nothing)) for s in dataset])
