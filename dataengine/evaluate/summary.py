"""The beginning of a report: one sentence for each kind of figure, with real images and the control beside it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from dataengine.evaluate.results import Column, Figure, Result, Row

if TYPE_CHECKING:
    from dataengine.evaluate.report import Section

# section: (what its figure says, key of the figure)
LINES = {
    "Fidelity": ("Realism", "frechet"),
    "Sharpness": ("Sharpness of the ground", "ground"),
    "Diversity": ("Diversity", "coverage"),
    "Layout score": ("Labels", "AP50"),
    "Memorisation": ("Copies of training images", "nearer"),
}


def summary(found: Sequence[Section]) -> list[str]:
    """Five sentences about a report's sections; one that was left out says why."""
    sections = {section.heading: section for section in found}
    return [_line(words, key, sections[heading]) for heading, (words, key) in LINES.items() if heading in sections]


def _line(words: str, key: str, section: Section) -> str:
    if not section.results:
        return f"{words}: not measured: {section.left_out.rstrip('.')}."
    result = section.results[0]
    key = key if key in result.columns else next(iter(result.columns))
    column = result.columns[key]
    made, real, control = (_row(result, role) for role in ("measured", "reference", "control"))
    if made is None or math.isnan(made.figures[key].value):
        return f"{words}: {column.title} is undefined here."
    beside = [
        f"{name} {_short(row.figures[key])}"
        for name, row in (("real images", real), (f"control ({control.name})" if control else "", control))
        if row is not None
    ]
    judged = _judged(column, *(None if row is None else row.figures[key].value for row in (made, real, control)))
    return f"{words}: {column.title} {_short(made.figures[key])} ({', '.join(beside)}){judged}."


def _row(result: Result, role: str) -> Row | None:
    return next((row for row in result.rows if row.role == role), None)


def _short(figure: Figure) -> str:
    return str(figure).split("\n")[0]


def _judged(column: Column, made: float, real: float | None, control: float | None) -> str:
    """Where the figure lies between real images and the control, as half of a sentence.

    >>> _judged(Column("distance", "lower"), 3.0, 1.0, 5.0), _judged(Column("recall", "higher"), 0.9, 0.8, 0.1)
    (': between real images and the control', ': as good as real images')
    """
    if real is None or control is None or any(map(math.isnan, (real, control))):
        return ""
    if column.better == "reference":
        gap = abs(control - real)
        if not gap:
            return ""
        return ": as real images" if abs(made - real) < gap / 4 else ": unlike real images"
    sign = 1 if column.better == "higher" else -1
    if sign * (real - control) <= 0:
        return ": not meaningful here, since the control is no worse than real images"
    if sign * (made - real) >= 0:
        return ": as good as real images"
    return ": between real images and the control" if sign * (made - control) > 0 else ": no better than the control"
