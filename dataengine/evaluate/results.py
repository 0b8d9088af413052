"""What an evaluation says: rows of figures beside their controls, as values, as JSON and as a table."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Literal

import numpy as np

Role = Literal["measured", "reference", "control"]
ARROWS = {"higher": "↑", "lower": "↓", "reference": "(as real)"}


@dataclass(frozen=True)
class Figure:
    """A value, NaN where it cannot be told, and the interval [low, high] that the result's `interval` explains."""

    value: float
    low: float = math.nan
    high: float = math.nan

    def __str__(self) -> str:
        if math.isnan(self.value):
            return "-"
        text = _digits(self.value)
        return text if math.isnan(self.low) else f"{text}\n[{_digits(self.low)}, {_digits(self.high)}]"


@dataclass(frozen=True)
class Column:
    """title: name of the metric. better: "higher", "lower", or "reference": as near to real pictures' as may be."""

    title: str
    better: Literal["higher", "lower", "reference"]
    meaning: str = ""

    @property
    def heading(self) -> str:
        """Title with an arrow to what is better, or "as real"."""
        return f"{self.title} {ARROWS[self.better]}"


@dataclass(frozen=True)
class Row:
    """role: what is measured, real pictures to compare with, or a control, which must come out worse."""

    name: str
    role: Role
    n: int
    figures: dict[str, Figure]


@dataclass(frozen=True)
class Result:
    """One table. columns: by key. settings: what the figures depend on, such as the features. counted: what `n` of a
    row counts. interval: what the intervals are, in words."""

    name: str
    title: str
    columns: dict[str, Column]
    rows: list[Row]
    settings: dict[str, str] = field(default_factory=dict)
    counted: str = "pictures"
    interval: str = ""
    notes: list[str] = field(default_factory=list)

    def value(self, row: str, column: str) -> float:
        """One figure by the names of its row and column."""
        return next(r for r in self.rows if r.name == row).figures[column].value

    def unmoved(self) -> list[str]:
        """A sentence for each control and metric that does not come out worse than real pictures: where a metric does
        not see what is plainly wrong, its figure says nothing."""
        real = next((row for row in self.rows if row.role == "reference"), None)
        controls = [row for row in self.rows if row.role == "control"] if real else []
        return [
            f"{column.title} says nothing here: its control ({row.name}) comes out no worse than real pictures"
            for row in controls
            for key, column in self.columns.items()
            if column.better != "reference" and not _worse(row.figures[key], real.figures[key], column.better)
        ]

    def as_json(self) -> dict:
        """Plain values; figures that cannot be told are null."""
        values = asdict(self) | {"unmoved": self.unmoved()}
        for row in values["rows"]:
            row["figures"] = {key: _plain(figure) for key, figure in row["figures"].items()}
        return values


def _worse(control: Figure, real: Figure, better: str) -> bool:
    return control.value < real.value if better == "higher" else control.value > real.value


def _digits(value: float) -> str:
    """Three digits after the point, fewer of large numbers, more where there is nothing but zeros."""
    return f"{value:.2g}" if 0 < abs(value) < 0.01 else f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"


def _plain(figure: dict) -> dict:
    return {key: None if math.isnan(value) else float(f"{value:.6g}") for key, value in figure.items()}


def spread(values: Sequence[float]) -> Figure:
    """Mean of the values that several draws gave, with the least and the largest of them."""
    found = np.asarray(values, np.float64)
    found = found[~np.isnan(found)]
    return Figure(float(found.mean()), float(found.min()), float(found.max())) if len(found) else Figure(math.nan)


def bootstrap(value: float, samples: Sequence[float]) -> Figure:
    """A value with the middle 95 % of what resampling gave (percentile bootstrap, Efron & Tibshirani 1993, 13.3)."""
    found = np.asarray(samples, np.float64)
    found = found[~np.isnan(found)]
    return Figure(value, *map(float, np.percentile(found, (2.5, 97.5)))) if len(found) else Figure(value)


def print_results(results: Sequence[Result], as_json: bool) -> None:
    """On standard output, as tables or as one JSON list."""
    if as_json:
        print(json.dumps([result.as_json() for result in results], indent=2))
        return
    for result in results:
        show(result)


def show(result: Result) -> None:
    """Print the table, what its columns mean, and its notes. Where the terminal is too narrow for the table, each row
    comes as lines below each other."""
    from rich.console import Console
    from rich.measure import Measurement
    from rich.table import Table

    console = Console(markup=False)
    settings = "; ".join(f"{key}: {value}" for key, value in result.settings.items())
    headings = [result.counted, *(column.heading for column in result.columns.values())]
    wide = Table("", *headings, title=result.title, caption=settings or None)
    long = Table("", "", "", title=result.title, caption=settings or None, show_header=False)
    for row in result.rows:
        cells = [str(row.n), *(str(row.figures.get(key, Figure(math.nan))) for key in result.columns)]
        name = row.name if row.role != "control" else f"control: {row.name}"
        style = "bold" if row.role == "measured" else None
        wide.add_row(name, *cells, style=style)
        for i, (heading, cell) in enumerate(zip(headings, cells, strict=True)):
            long.add_row(
                "" if i else name, heading, " ".join(cell.split()), style=style, end_section=i == len(cells) - 1
            )
    room = console.options.update(max_width=1000)
    console.print(wide if Measurement.get(console, room, wide).maximum <= console.width else long)
    for column in result.columns.values():
        if column.meaning:
            console.print(f"{column.title}: {column.meaning}")
    for note in ([f"In brackets: {result.interval}"] if result.interval else []) + result.notes:
        console.print(note)
    for warning in result.unmoved():
        console.print(warning, style="red")
