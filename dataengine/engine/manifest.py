"""The manifest of a run, read line by line, and the accepted images in it as samples that are made when asked for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from dataengine.data.images import named_file
from dataengine.data.layout import Dataset, Sample, layout_from_json
from dataengine.engine.recipe import stored_recipe
from dataengine.errors import UserError

MANIFEST = "manifest.jsonl"
UNFINISHED = f".{MANIFEST}"  # while the run goes on


def read_manifest(path: Path) -> Iterator[dict]:
    """The records in a manifest, in order. Raises UserError with the line of one that is damaged."""
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            with _told(f"{path}:{number}"):
                record = json.loads(line)
                if not isinstance(record["verdict"]["kept"], bool):
                    raise ValueError("nobody has judged it")
            yield record


@contextmanager
def _told(where: str) -> Iterator[None]:
    """Whatever a record that is none trips, as one sentence."""
    try:
        yield
    except (ValueError, TypeError, LookupError, AttributeError, AssertionError, OverflowError, RecursionError) as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise UserError(
            f"{where}: no record of an image ({reason}); the same dataengine synth command writes it again."
        ) from None


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
        for number, record in enumerate(read_manifest(self.manifest), 1):
            if record["verdict"]["kept"]:
                with _told(f"{self.manifest}:{number}"):
                    image = named_file(self.out, [self.out], record["image"])
                    layout, license = layout_from_json(record["labels"]), record.get("scene_license", "")
                    sample = Sample(f"{record['index']:08d}", image, layout, "dataengine", license)
                    sample = with_classes(sample, self.classes)
                yield sample


def accepted_images(out: Path) -> Dataset:
    """The accepted images of a finished run as a data set. Raises UserError for a run that is not finished, and for
    one that is damaged, also while its samples are gone through."""
    if not (out / MANIFEST).exists():
        raise UserError(f"{out}: the run is not finished; continue it with the same dataengine synth command.")
    stored = stored_recipe(out)
    with _told(f"{out / 'recipe.json'}"):
        classes, kind, count = dict.fromkeys(stored["classes"]), "obb", 0
        name = Path(stored["recipe"]["dataset"] or stored["recipe"]["data"]).stem
    for number, record in enumerate(read_manifest(out / MANIFEST), 1):
        if record["verdict"]["kept"]:
            with _told(f"{out / MANIFEST}:{number}"):
                classes.update(dict.fromkeys(record["labels"]["classes"]))
                kind, count = record["labels"]["kind"], count + 1
    samples = AcceptedSamples(out, out / MANIFEST, tuple(classes), count)
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
