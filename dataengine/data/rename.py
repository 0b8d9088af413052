"""Other names for the classes of a data set: `--rename small-vehicle=Car,plane=airplane`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from dataengine.data.layout import Dataset, class_key
from dataengine.errors import UserError, listed


def parse_pairs(text: str, option: str) -> dict[str, str]:
    """{old: new} of a text such as "car=windmill,van=boat". Raises UserError, with the option, for anything else.

    >>> parse_pairs("small-vehicle=Car, plane=airplane", "--rename")
    {'small-vehicle': 'Car', 'plane': 'airplane'}
    """
    pairs = [[name.strip() for name in part.partition("=")[::2]] for part in text.split(",")]
    for old, new in pairs:
        if not old or not new:
            raise UserError(f"{option} {old}: give two names, such as {option} car=windmill.")
    if len({class_key(old) for old, _ in pairs}) < len(pairs):
        raise UserError(f"{option} {text}: one class is given two new names; give each class once.")
    return dict(pairs)


def renamed_list(classes: Sequence[str], names: Mapping[str, str]) -> tuple[str, ...]:
    """The class list with these new names; classes that get the same name become one. names: {old: new}.

    >>> renamed_list(("car", "van", "ship"), {"van": "Car"})
    ('Car', 'ship')
    """
    new = {class_key(old): name for old, name in names.items()}
    spelling = {class_key(name): name for name in names.values()}
    called = [new.get(class_key(name), spelling.get(class_key(name), name)) for name in classes]
    return tuple(dict.fromkeys(called))


def check_names(classes: Sequence[str], names: Mapping[str, str], where: str) -> None:
    """Raises UserError for a class to be renamed that is not in the class list. where: the data set, for people."""
    known = {*map(class_key, classes)}
    missing = [old for old in names if class_key(old) not in known]
    if missing:
        raise UserError(f"--rename {missing[0]}={names[missing[0]]}: {where} has no class {missing[0]}; it has "
                        f"{listed(classes)}.")  # fmt: skip


def rename_classes(dataset: Dataset, names: Mapping[str, str]) -> Dataset:
    """The data set with new class names, compared by `class_key`, and a note with the objects of each. names: {old:
    new}; those that are not there have no effect (`check_names`).

    >>> from dataengine.data.layout import Layout, Sample
    >>> layout = Layout([[5, 5, 4, 2, 0], [9, 3, 2, 2, 0]], [0, 1], ("van", "car"), (16, 16))
    >>> after = rename_classes(Dataset(("van", "car"), [Sample("a", "a.png", layout)]), {"van": "car"})
    >>> after.classes, after.samples[0].layout.names(), after.notes
    (('car',), ['car', 'car'], ['renamed: van to car (1 object)'])
    """
    new = {class_key(old): name for old, name in names.items()}
    classes = renamed_list(dataset.classes, names)
    number = {class_key(name): i for i, name in enumerate(classes)}
    places = [number[class_key(new.get(class_key(name), name))] for name in dataset.classes]
    counts = Counter(name for sample in dataset for name in sample.layout.names())
    samples = [
        replace(s, layout=replace(s.layout, classes=classes, labels=np.array(places, np.int64)[s.layout.labels]))
        for s in dataset
    ]
    told = [
        f"{name} to {new[class_key(name)]} ({counts[name]} object{'s' * (counts[name] != 1)})"
        for name in dataset.classes
        if class_key(name) in new
    ]
    notes = [*dataset.notes, f"renamed: {', '.join(told)}"] if told else dataset.notes
    return replace(dataset, classes=classes, samples=samples, notes=notes)


def names_before(classes: Sequence[str], names: Mapping[str, str], there: Sequence[str]) -> list[str]:
    """The classes of a data set that have these names after the renaming, in their order. there: its class list.

    >>> names_before(["Car", "ship"], {"small-vehicle": "Car"}, ["small-vehicle", "plane", "ship"])
    ['small-vehicle', 'ship']
    """
    new = {class_key(old): class_key(name) for old, name in names.items()}
    found = []
    for name in classes:
        same = [old for old in there if new.get(class_key(old), class_key(old)) == class_key(name)]
        found += same or [name]
    return found
