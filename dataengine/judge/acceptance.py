"""How many of many judged images were kept, and what was found of each class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from dataengine.data.layout import Layout
from dataengine.judge.verdict import Verdict


@dataclass(frozen=True)
class ClassAcceptance:
    """objects: those that count (not difficult) in all images; found: of these, by the detector; kept: of these, in
    kept images; extra: detections of this class that no label asked for."""

    name: str
    objects: int
    found: int
    kept: int
    extra: int


@dataclass(frozen=True)
class Acceptance:
    """images: judged; kept: of these; dropped_for: {reason without its numbers: images}; classes: in class order."""

    images: int
    kept: int
    dropped_for: dict[str, int]
    classes: tuple[ClassAcceptance, ...]


def acceptance(layouts: Sequence[Layout], verdicts: Sequence[Verdict], classes: Sequence[str]) -> Acceptance:
    """Count verdicts; layouts: those that were judged, before any repair. A class without objects has zeros."""
    objects, missed, kept, extra, reasons = (Counter() for _ in range(5))
    for layout, verdict in zip(layouts, verdicts, strict=True):
        names = layout.select(~layout.difficult).names()
        objects.update(names)
        missed.update(verdict.missed)
        extra.update(verdict.extra)
        if verdict.kept:
            kept.update(names)
        else:
            reasons[" ".join(word for word in verdict.reason.split() if not word.isdigit() and word != "of")] += 1
    rows = tuple(ClassAcceptance(n, objects[n], objects[n] - missed[n], kept[n], extra[n]) for n in classes)
    return Acceptance(len(verdicts), sum(v.kept for v in verdicts), dict(reasons.most_common()), rows)
