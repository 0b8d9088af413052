"""Figures of a run, counted as its records come in, so that no record is kept."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from dataengine.data.layout import layout_from_json
from dataengine.engine.records import erased, painted
from dataengine.judge.calibration import Calibration


@dataclass(frozen=True)
class ClassRow:
    """asked: objects in the layouts of all attempts; found: those the filter's detector found; kept: objects in
    accepted images, of which `difficult` are marked so; erased: taken out of accepted images again."""

    name: str
    asked: int
    found: int
    erased: int
    kept: int
    difficult: int


@dataclass
class Tally:
    """calibration: None without a filter; classes: of the run. The rest is counted by `add`: images tried and accepted,
    reasons of rejection, classes and kind of the accepted images' labels, scenes that could not be read,
    objects that were left out."""

    calibration: Calibration | None
    classes: tuple[str, ...]
    tried: int = 0
    accepted: int = 0
    kind: str | None = None
    dropped_for: Counter = field(default_factory=Counter)
    left_out: int = 0
    unreadable_scenes: set[str] = field(default_factory=set)
    asked: Counter = field(default_factory=Counter)
    found: Counter = field(default_factory=Counter)
    erased: Counter = field(default_factory=Counter)
    kept: Counter = field(default_factory=Counter)
    difficult: Counter = field(default_factory=Counter)
    label_classes: dict[str, None] = field(default_factory=dict)

    def add(self, record: dict) -> None:
        """Count one more record; call it in order of attempt."""
        labels, verdict = record["labels"], record["verdict"]
        self.tried += 1
        self.left_out += record["left_out"]
        self.unreadable_scenes.update(record["unreadable_scenes"])
        names = [labels["classes"][i] for i in labels["labels"]]
        asked = [record["asked"]["classes"][i] for i in record["asked"]["labels"]]
        self.asked.update(asked)
        self.erased.update(asked[k] for k in erased(record))
        if self.calibration is not None:
            # painted objects come first; those that the scene held before, and repaired ones, follow
            judged, scores = layout_from_json(labels), np.array(verdict["scores"], np.float32)
            judged = judged.select(np.arange(min(painted(record), len(scores))))
            scores = scores[: len(judged)]
            found = self.calibration.found(judged, scores) & (scores > 0)
            self.found.update(judged.select(found).names())
        if not verdict["kept"]:
            self.dropped_for[" ".join(verdict["reason"].split()[-3:])] += 1
            return
        self.accepted += 1
        self.kind = self.kind or labels["kind"]
        self.kept.update(names)
        self.difficult.update(name for name, d in zip(names, labels["difficult"], strict=True) if d)
        self.label_classes.update(dict.fromkeys(labels["classes"]))

    @property
    def all_classes(self) -> tuple[str, ...]:
        """The run's classes, then those that scenes brought along."""
        return tuple(dict.fromkeys((*self.classes, *self.label_classes)))

    def class_table(self) -> list[ClassRow]:
        """Acceptance per class, in class order; a class that was never asked for has zeros."""
        every = dict.fromkeys((*self.classes, *self.asked))
        counters = self.asked, self.found, self.erased, self.kept, self.difficult
        return [ClassRow(n, *(counted[n] for counted in counters)) for n in every]
