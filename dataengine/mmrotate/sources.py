"""The data that a detector is trained and tested on: real ones, and the images of a run, with the same classes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from dataengine.data import formats
from dataengine.data.layout import Dataset, class_key, restrict
from dataengine.data.records import class_lookup
from dataengine.errors import UserError
from dataengine.files import parse_json, read_text


def real_data(
    path: Path,
    format: str | None,
    train_splits: Sequence[str],
    test: str | None,
    classes: Sequence[str] | None,
    tested: bool,
) -> tuple[Dataset, Dataset | None]:
    """The real data to train on and, if `tested`, to evaluate on, with one class list.

    A class that only the test split shows cannot be learned: its objects become problems of that data set."""
    splits = formats.splits(path, format)
    chosen = _training_splits(splits, train_splits)
    test_split = test or next((name for name in ("val", "test") if name in splits and name not in chosen), None)
    elsewhere = test_split is not None and test_split not in splits and Path(test_split).exists()
    if tested and (test_split is None or not (chosen or (elsewhere and not splits))):
        has = f"it has {', '.join(splits)}" if splits else "it has none"
        raise UserError(
            f"{path}: a detector needs a split to train on and another to evaluate on; {has}. Give them as --train "
            "and --test, which may also be the folder of another labelled data set."
        )
    if tested and test_split in chosen:
        raise UserError(f"--test {test_split}: the split is also trained on; choose another one.")
    train = training_data(path, format, train_splits, classes)
    if not tested:
        return train, None
    if elsewhere:
        return train, formats.read(test_split, classes=train.classes)
    return train, formats.read(path, format, split=test_split, classes=train.classes)


def _training_splits(splits: Sequence[str], asked: Sequence[str]) -> list[str]:
    """Those asked for, or else "trainval" or "train"; none of a data set without them."""
    return list(asked) or [name for name in ("trainval", "train") if name in splits][:1]


def training_data(
    path: Path, format: str | None = None, train_splits: Sequence[str] = (), classes: Sequence[str] | None = None
) -> Dataset:
    """The images of a labelled data set to train on: of the splits, or else of "trainval" or "train", or else all.

    classes: None for those of these splits. Raises UserError for splits of which none is named like training."""
    splits = formats.splits(path, format)
    chosen = _training_splits(splits, train_splits)
    if len(splits) > 1 and not chosen:
        raise UserError(f"{path} has the splits {', '.join(splits)}; name those to train on.")
    names = (
        classes
        or tuple(dict.fromkeys(n for name in chosen for n in formats.read(path, format, split=name).classes))
        or None
    )
    parts = [formats.read(path, format, split=name, classes=names) for name in chosen or [None]]
    train = parts[0]
    if len(parts) > 1:
        samples = [replace(s, name=f"{n}/{s.name}") for n, part in zip(chosen, parts, strict=True) for s in part]
        train = replace(train, samples=samples, problems=[problem for part in parts for problem in part.problems])
    return train


def synthetic_data(
    run: Path, format: str | None, train: Dataset, classes: Sequence[str] | None, most: int | None, real: str | Path
) -> tuple[Dataset, float]:
    """The first `most` images of a run, with the classes of the real data, and the number of their pixels for each real
    pixel. Raises UserError for a class that the real data do not have, unless `classes` says which are trained."""
    synthetic, scale = _accepted(run, format)
    synthetic = replace(synthetic, samples=synthetic.samples[:most])
    unknown = [n for n in synthetic.classes if class_key(n) not in class_lookup(train.classes) and _shows(synthetic, n)]
    if unknown and classes is None:
        raise UserError(
            f"{run} shows {', '.join(unknown)}, which {real} does not have; it has {', '.join(train.classes)}. Give "
            "the classes to train as --classes; objects of other classes are left out."
        )
    return _renamed(synthetic, train.classes), scale


def _accepted(run: Path, format: str | None) -> tuple[Dataset, float]:
    """The accepted images of a run, and the number of their pixels for each real pixel."""
    recipe = run / "recipe.json"
    if not recipe.exists():
        return formats.read(run, format), 1.0
    if not (run / "coco").is_dir():
        raise UserError(f"{run}: the run is not finished; continue it with the same dataengine synth command.")
    try:
        scale = float(json.loads(read_text(recipe))["recipe"].get("layout_scale", 1.0))
    except (ValueError, KeyError, AttributeError):
        raise UserError(f"{recipe}: damaged; make the run again.") from None
    _check_decided(run)
    return formats.read(run / "coco", "coco"), scale


def _check_decided(run: Path) -> None:
    """Raises UserError if the run's data sets lack changes that a person made. `engine.update` writes them again."""
    decisions, report = run / "decisions.jsonl", run / "report.json"
    if not decisions.exists() or not report.exists():
        return
    try:
        contained = parse_json(read_text(report)).get("by_hand", {}).get("changes", 0)
    except (ValueError, AttributeError):
        contained = 0
    if read_text(decisions).count("\n") != contained:
        raise UserError(f"{decisions} has changes that {run / 'coco'} lacks; write it again: dataengine run update.")


def _shows(dataset: Dataset, name: str) -> bool:
    return any(name in sample.layout.names() for sample in dataset)


def _renamed(dataset: Dataset, classes: tuple[str, ...]) -> Dataset:
    """The data set with these classes, matched by name as in the readers; objects of other classes are left out, as
    they are in the real data."""
    lookup = class_lookup(classes)
    matched = tuple(classes[i] if (i := lookup.get(class_key(name))) is not None else name for name in dataset.classes)
    usable = np.array([name in classes for name in matched], bool)
    samples = [
        replace(sample, layout=replace(sample.layout, classes=matched).select(usable[sample.layout.labels]))
        for sample in dataset
    ]
    return restrict(replace(dataset, classes=matched, samples=samples), classes)
