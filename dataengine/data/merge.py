"""Merging data sets."""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Sequence
from dataclasses import replace

from dataengine.data.layout import Dataset, Problem, Sample, class_key, restrict
from dataengine.data.pixel_range import range_of
from dataengine.errors import UserError
from dataengine.files import open_regular

SPLIT_FOLDER = re.compile(r"^(train|val|valid|validation|test)/")


def merge(datasets: Sequence[Dataset]) -> Dataset:
    """The images of all data sets in this order, with the class list of the first. Samples keep source and licence.

    If one data set has horizontal boxes, all boxes become horizontal. Repeated names get a number. Images that are
    byte-equal to an earlier one are kept and become problems.

    Raises UserError if the data sets label different classes: images of one could have unlabelled objects of another.
    Raises it for different pixel ranges, too.
    """
    first, *others = datasets
    classes = {class_key(name): name for name in first.classes}
    for other in others:
        others_classes = {class_key(name): name for name in other.classes}
        missing = [(classes | others_classes)[key] for key in classes.keys() ^ others_classes.keys()]
        if missing:
            raise UserError(
                f"{first.name} and {other.name} label different classes: only one has {', '.join(sorted(missing))}, "
                "which may be unlabelled in the images of the other; list the common classes with --classes."
            )
    ranges = {str(found): dataset.name for dataset in datasets if (found := range_of(dataset)) is not None}
    if len(ranges) > 1:
        stated = ", ".join(f"{text} in {name}" for text, name in ranges.items())
        raise UserError(
            f"the data sets have different pixel ranges ({stated}), so equal values would get different greys; give "
            f"one for all, such as --pixel-range {next(iter(ranges))}."
        )
    samples = [sample for dataset in datasets for sample in restrict(dataset, first.classes)]
    kind = "hbb" if any(dataset.kind == "hbb" for dataset in datasets) else "obb"
    samples = [replace(sample, layout=sample.layout.in_kind(kind)) for sample in samples]
    used: set[str] = set()
    for i, sample in enumerate(samples):
        # of a folder train/ below images/train, readers cannot tell which of the two a name means
        own = SPLIT_FOLDER.sub(r"\1-", sample.name)
        numbered = (f"{own}-{number}" for number in itertools.count(2))
        name = next(name for name in itertools.chain([own], numbered) if name not in used)
        used.add(name)
        samples[i] = replace(sample, name=name)
    problems = [problem for dataset in datasets for problem in dataset.problems] + _duplicates(samples)
    name = " and ".join(dataset.name for dataset in datasets)
    return replace(first, samples=samples, kind=kind, problems=problems, name=name)


def _duplicates(samples: Sequence[Sample]) -> list[Problem]:
    """Problems of images that are byte-equal to an earlier one: in two parts of a split, they leak from one into the
    other."""
    first: dict[bytes, Sample] = {}
    problems = []
    for sample in samples:
        if not sample.image.is_file():
            continue
        with open_regular(sample.image) as file:
            content = hashlib.file_digest(file, "sha256").digest()
        before = first.setdefault(content, sample)
        if before is not sample:
            problems.append(Problem(sample.image, None, f"is the same image as {before.image}; both are in the result"))
    return problems
