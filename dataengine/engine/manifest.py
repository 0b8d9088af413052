"""The manifest of a run, read line by line, and the accepted images in it as samples that are made when asked for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from dataengine.data.layout import Dataset, Sample
from dataengine.data.layout_json import layout_from_json
from dataengine.engine.recipe import stored_recipe
from dataengine.errors import UserError

MANIFEST = "manifest.jsonl"
UNFINISHED = f".{MANIFEST}"  # while the run goes on


def read_manifest(path: Path) -> Iterator[dict]:
    """The records in a manifest, in order."""
    with open(path, encoding="utf-8") as file:
        yield from map(json.loads, file)


@dataclass(frozen=True)
class AcceptedSamples:
    """Accepted images of a run, with their labels in `classes`; gone through again and again, and never all in memory.

    count: how many there are.
    """

    out: Path
    manifest: Path
    classes: tuple[str, ...]
    count: int

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Sample]:
        for record in read_manifest(self.manifest):
            if record["verdict"]["kept"]:
                layout = layout_from_json(record["labels"])
                sample = Sample(f"{record['index']:08d}", self.out / record["image"], layout, "dataengine", "")
                yield with_classes(sample, self.classes)


def accepted_images(out: Path) -> Dataset:
    """The accepted images of a finished run as a data set. Raises UserError for a run that is not finished."""
    if not (out / MANIFEST).exists():
        raise UserError(f"{out}: the run is not finished; continue it with the same dataengine synth command.")
    stored = stored_recipe(out)
    classes, kind, count = dict.fromkeys(stored["classes"]), "obb", 0
    for record in read_manifest(out / MANIFEST):
        if record["verdict"]["kept"]:
            classes.update(dict.fromkeys(record["labels"]["classes"]))
            kind, count = record["labels"]["kind"], count + 1
    samples = AcceptedSamples(out, out / MANIFEST, tuple(classes), count)
    name = Path(stored["recipe"]["dataset"] or stored["recipe"]["data"]).stem
    return Dataset(samples.classes, samples, kind, name=f"synthetic {name}")


@dataclass(frozen=True)
class JoinedSamples:
    """Samples of one collection after those of another, with a word before each one's name, and labels in `classes`."""

    parts: tuple[tuple[str, object], ...]
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return sum(len(samples) for _, samples in self.parts)

    def __iter__(self) -> Iterator[Sample]:
        for word, samples in self.parts:
            for sample in samples:
                yield replace(with_classes(sample, self.classes), name=f"{word}/{sample.name}")


def with_classes(sample: Sample, classes: tuple[str, ...]) -> Sample:
    """The sample with its labels numbered in `classes`, which holds all of its own."""
    layout = sample.layout
    labels = np.array([classes.index(name) for name in layout.names()], np.int64)
    return replace(sample, layout=replace(layout, labels=labels, classes=classes))
