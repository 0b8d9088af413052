"""A source as the page requests it: filtered images, one image, statistics, image files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path

import numpy as np

from dataengine.data import draw
from dataengine.data.layout import Layout, class_key, layout_to_json
from dataengine.data.pixel_range import PixelRange
from dataengine.judge.calibration import Calibration
from dataengine.view.address import PAGE_PARAMETERS
from dataengine.view.choices import Choices
from dataengine.view.filters import Filter, matching_images, read_filter
from dataengine.view.images import inside
from dataengine.view.index import Columns, Index
from dataengine.view.statistics import statistics

MAX_PAGE_SIZE = 200  # tiles per request
RANGE_COLUMNS = ("altitude", "gsd", "camera_angle", "score", "objects")


def class_colour(k: int) -> str:
    """CSS colour of class k, the same as on contact sheets."""
    return "#{:02x}{:02x}{:02x}".format(*draw.class_colour(k))


class Gallery:
    """An index with cached filter results, since a page repeats the same filter while it is scrolled."""

    def __init__(self, index: Index):
        self.index = index
        decidable = index.source.kind == "run" and not index.source.by_hand
        self.choices = Choices(index) if decidable else None
        self._matches = lru_cache(maxsize=16)(lambda query, _: matching_images(index, query, self.choices))
        self._statistics = lru_cache(maxsize=16)(lambda query, _: statistics(index, query, self.choices))

    @property
    def version(self) -> int:
        """Rises with every decision, of other programs too. Raises UserError where the decisions are damaged."""
        if self.choices is None:
            return 0
        self.choices.refresh()
        return self.choices.version

    def matches(self, query: Filter) -> np.ndarray:
        """Indices int64 (K,) of the images that match, in the filter's order."""
        return self._matches(query, self.version)

    def statistics(self, query: Filter) -> dict:
        """Counts for the plots, see `statistics.statistics`."""
        return self._statistics(query, self.version)

    def summary(self, other_classes: Sequence[str] = ()) -> dict:
        """Constant properties: title, classes with colours, available filters, settings and report of a run.

        other_classes: classes of the other side of the page; classes of the same name get the same colour."""
        order = {class_key(name): k for k, name in enumerate(other_classes)}
        for name in self.index.classes:
            order.setdefault(class_key(name), len(order))
        index, source = self.index, self.index.source
        columns, limits = index.columns, {}
        for name in RANGE_COLUMNS:
            known = getattr(columns, name)[~np.isnan(getattr(columns, name).astype(np.float64))]
            if len(known):
                limits[name] = [round(float(known.min()), 4), round(float(known.max()), 4)]
        counts = np.bincount(columns.label, minlength=len(index.classes))
        return {
            "title": source.title,
            "kind": source.kind,
            "fingerprint": source.fingerprint,
            "pictures": len(index),
            "kept": int((columns.kept == 1).sum()),
            "judged": bool((columns.kept >= 0).any()),
            "classes": [
                {"name": name, "colour": class_colour(order[class_key(name)]), "objects": int(counts[k])}
                for k, name in enumerate(index.classes)
            ],
            "reasons": [reason for reason in index.reasons if reason],
            "limits": limits,
            "taken": sorted({("day", "night")[v] for v in np.unique(columns.night) if v >= 0}),
            "recipe": source.settings,
            "parts": source.parts,
            "notes": [
                *index.skipped,
                *source.report.get("notes", ()),
                *source.problems[:20],
                *(self.choices.notes() if self.choices else ()),
            ],
            "finished": source.kind != "run" or bool(source.report),
            "crop": usual_side(columns),
            "decisions": None if self.choices is None else self.choices.summary(),
        }

    def page(self, query: Filter, start: int, n: int) -> dict:
        """`total`, and `items`: the tiles of at most n images from position `start` on."""
        ids = self.matches(query)
        shown = ids[max(0, start) : max(0, start) + min(n, MAX_PAGE_SIZE)]
        return {"total": len(ids), "start": start, "items": [self.tile(int(i)) for i in shown]}

    def tile(self, i: int) -> dict:
        """What the grid shows of image i."""
        entry, columns = self.index.entry(i), self.index.columns
        labels, record = entry.labels, entry.record
        tile = {"id": i, "name": entry.name, "labels": _boxes(labels), "size": labels.size, "classes": labels.classes}
        if record is not None:
            tile |= {"asked": _boxes(record.asked), "asked_classes": record.asked.classes}
            tile |= {"kept": record.accepted, "reason": record.verdict.reason}
        if self.choices is not None and (decided := self.choices.of(i)) is not None:
            tile["decision"] = decided
        if not np.isnan(columns.score[i]):
            tile["score"] = round(float(columns.score[i]), 4)
        return tile

    def one(self, i: int, query: Filter) -> dict:
        """Everything about image i, and its place among the matches: `position` (null where it does not match),
        `total`, `previous` and `next` image; in a filtered run also `thresholds`, the score that each label needs (null
        where none suffices). Raises IndexError where there is none."""
        entry = self.index.entry(i)
        details = {
            "id": i, "name": entry.name, "image": entry.image, "labels": layout_to_json(entry.labels),
            "source": entry.source, "license": entry.license,
        }  # fmt: skip
        if (record := entry.record) is not None:
            details |= {
                "seed": str(record.seed),  # JavaScript's integers end at 2^53
                "scene": record.provenance.label,
                "layout_from": record.layout_from,
                "sha256": record.sha256,
                "asked": layout_to_json(record.asked),
                "verdict": asdict(record.verdict),
                "filter": entry.filter,
            }
            if record.by_hand is not None:
                details["by_hand"] = asdict(record.by_hand)
                details["decision"] = self.choices.of(i)
        calibration = self.index.source.run.calibration
        if calibration.exists():
            thresholds = Calibration.load(calibration).limits(entry.labels)
            details["thresholds"] = [round(float(t), 4) if np.isfinite(t) else None for t in thresholds]
        ids = self.matches(query)
        places = np.flatnonzero(ids == i)
        place = int(places[0]) if len(places) else None
        neighbours = {"previous": None, "next": None} if place is None else {
            "previous": int(ids[place - 1]) if place else None,
            "next": int(ids[place + 1]) if place + 1 < len(ids) else None,
        }  # fmt: skip
        return {**details, "position": place, "total": len(ids), **neighbours}

    def file(self, i: int) -> Path:
        """The image file. Raises IndexError and NotServedError."""
        return inside(self.index.source.root, self.index.entry(i).image)

    def pixel_range(self, i: int) -> PixelRange | None:
        """The range that scales the image to 8 bits. Raises IndexError."""
        return self.index.entry(i).pixel_range


def pairs_of(made: Gallery, other: Gallery, query: Filter, start: int, n: int) -> dict:
    """Pairs of images with the same name, of those of `made` that match: `total`, `alone` (matches without a partner),
    and `items`, each with the tiles `made` and `other`."""
    numbers = {name: i for i, name in enumerate(other.index.names)}
    ids = made.matches(query)
    pairs = [(int(i), numbers[name]) for i in ids if (name := made.index.names[i]) in numbers]
    shown = pairs[max(0, start) : max(0, start) + min(n, MAX_PAGE_SIZE)]
    items = [{"id": i, "made": made.tile(i), "other": other.tile(j)} for i, j in shown]
    return {"total": len(pairs), "alone": len(ids) - len(pairs), "start": start, "items": items}


def usual_side(columns: Columns) -> int:
    """Side in pixels of a crop that shows nearly all objects: 1.5 times the longer side that 90 % of them have."""
    sides = np.maximum(columns.box_w, columns.box_h)
    if not len(sides):
        return 64
    sample = sides[:: 1 + len(sides) // 50_000]
    return int(np.clip(round(1.5 * float(np.percentile(sample, 90))), 16, 512))


def query_of(values: Mapping[str, list[str]]) -> Filter:
    """The filter in an address, without the parameters of the page's position."""
    return read_filter({k: v for k, v in values.items() if k not in PAGE_PARAMETERS})


def _boxes(layout: Layout) -> list[list]:
    """[label, cx, cy, w, h, theta, difficult] of each object; pixels and radians."""
    return [
        [label, *(round(value, 4) for value in box), difficult]
        for label, box, difficult in zip(
            layout.labels.tolist(), layout.boxes.tolist(), layout.difficult.tolist(), strict=True
        )
    ]
