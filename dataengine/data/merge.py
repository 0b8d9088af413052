"""Several data sets as one."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import replace

from dataengine.data.layout import Dataset, Problem, Sample, class_key, restrict
from dataengine.errors import UserError


def merge(datasets: Sequence[Dataset]) -> Dataset:
    """The images of all data sets, in this order, with the class list of the first; each keeps its source and licence.
    Where one has horizontal boxes, all get them; a name that was there before gets a number; a picture that was there
    before, byte for byte, becomes a problem and stays.

    Raises UserError where they have other classes, for images of one would show objects of the other's without a label.
    """
    first, *others = datasets
    classes = {class_key(name): name for name in first.classes}
    for other in others:
        others_classes = {class_key(name): name for name in other.classes}
        missing = [(classes | others_classes)[key] for key in classes.keys() ^ others_classes.keys()]
        if missing:
            raise UserError(
                f"{first.name} and {other.name} label other classes: only one has {', '.join(sorted(missing))}, which "
                "may be in the other's images without a label; name those that both have with --classes."
            )
    samples = [sample for dataset in datasets for sample in restrict(dataset, first.classes)]
    kind = "hbb" if any(dataset.kind == "hbb" for dataset in datasets) else "obb"
    samples = [replace(sample, layout=sample.layout.in_kind(kind)) for sample in samples]
    taken: set[str] = set()
    for i, sample in enumerate(samples):
        again = (f"{sample.name}-{number}" for number in itertools.count(2))
        name = next(name for name in itertools.chain([sample.name], again) if name not in taken)
        taken.add(name)
        samples[i] = replace(sample, name=name)
    problems = [problem for dataset in datasets for problem in dataset.problems] + _repeated(samples)
    name = " and ".join(dataset.name for dataset in datasets)
    return replace(first, samples=samples, kind=kind, problems=problems, name=name)


def _repeated(samples: Sequence[Sample]) -> list[Problem]:
    """Files that are the same as one before: in two parts of a split, such a picture leaks from one into the other."""
    first: dict[bytes, Sample] = {}
    problems = []
    for sample in samples:
        if not sample.image.is_file():
            continue
        with open(sample.image, "rb") as file:
            content = hashlib.file_digest(file, "sha256").digest()
        before = first.setdefault(content, sample)
        if before is not sample:
            problems.append(
                Problem(sample.image, None, f"is the same picture as {before.image}; both are in the result")
            )
    return problems
