"""A source as the page asks for it: chosen images, one image, figures, image bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from dataengine.data.draw import COLOURS
from dataengine.data.layout import class_key
from dataengine.data.layout_json import layout_from_json
from dataengine.judge.calibration import Calibration
from dataengine.view.filters import Filter, chosen, read_filter
from dataengine.view.images import inside
from dataengine.view.index import Index
from dataengine.view.statistics import statistics

MOST_AT_ONCE = 200
SHARED_SCALE = ("altitude", "gsd", "camera_angle", "score", "objects")


def class_colour(k: int) -> str:
    """Colour of class k, as contact sheets have it, for CSS."""
    return "#{:02x}{:02x}{:02x}".format(*COLOURS[k % len(COLOURS)])


class Gallery:
    """An index with the last choices kept, since a page asks for the same choice again and again as it is scrolled."""

    def __init__(self, index: Index):
        self.index = index
        self.choice = lru_cache(maxsize=16)(lambda wanted: chosen(index, wanted))
        self.figures = lru_cache(maxsize=16)(lambda wanted: statistics(index, wanted))

    def summary(self, beside: Sequence[str] = ()) -> dict:
        """What does not change: title, classes with colours, which filters make sense, settings and report of a run.

        beside: classes of the images that these are beside of; those of the same name get the same colour."""
        order = {class_key(name): k for k, name in enumerate(beside)}
        for name in self.index.classes:
            order.setdefault(class_key(name), len(order))
        index, source = self.index, self.index.source
        columns, limits = index.columns, {}
        for name in SHARED_SCALE:
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
            "parts": source.recipe.get("parts", {}),
            "notes": [*source.report.get("notes", ()), *source.problems[:20]],
            "finished": source.kind != "run" or bool(source.report),
        }

    def page(self, wanted: Filter, start: int, n: int) -> dict:
        """`total`, and `items` from position `start` on: what a tile shows of each."""
        ids = self.choice(wanted)
        some = ids[max(0, start) : max(0, start) + min(n, MOST_AT_ONCE)]
        return {"total": len(ids), "start": start, "items": [self._tile(int(i)) for i in some]}

    def _tile(self, i: int) -> dict:
        record, columns = self.index.record(i), self.index.columns
        tile = {"id": i, "name": self.index.names[i], "labels": _boxes(record["labels"])}
        tile |= {"size": record["labels"]["size"], "classes": record["labels"]["classes"]}
        if "asked" in record:
            tile |= {"asked": _boxes(record["asked"]), "asked_classes": record["asked"]["classes"]}
        if columns.kept[i] >= 0:
            tile |= {"kept": bool(columns.kept[i]), "reason": record["verdict"]["reason"]}
        if not np.isnan(columns.score[i]):
            tile["score"] = round(float(columns.score[i]), 4)
        return tile

    def one(self, i: int, wanted: Filter) -> dict:
        """Everything about image i, and its place among the chosen: `position` (null where it is not), `total`,
        `previous` and `next` image; of a filtered run, `thresholds`, what the filter asks of each label (null where
        nothing passes). Raises IndexError where there is none."""
        found = {"id": i, "name": self.index.names[i] if 0 <= i < len(self.index) else "", **self.index.record(i)}
        if "seed" in found:
            found["seed"] = str(found["seed"])  # JavaScript's numbers end at 2^53
        calibration = self.index.source.root / "calibration.json"
        if calibration.exists():
            least = Calibration.load(calibration).limits(layout_from_json(found["labels"]))
            found["thresholds"] = [round(float(t), 4) if np.isfinite(t) else None for t in least]
        ids = self.choice(wanted)
        places = np.flatnonzero(ids == i)
        place = int(places[0]) if len(places) else None
        around = {"previous": None, "next": None} if place is None else {
            "previous": int(ids[place - 1]) if place else None,
            "next": int(ids[place + 1]) if place + 1 < len(ids) else None,
        }  # fmt: skip
        return {**found, "position": place, "total": len(ids), **around}

    def file(self, i: int) -> Path:
        """The image file. Raises IndexError and NotServedError."""
        return inside(self.index.source.root, self.index.record(i)["image"])


def wanted_of(values: Mapping[str, list[str]]) -> Filter:
    """The filter of an address, less the parameters that place things on the page."""
    return read_filter({k: v for k, v in values.items() if k not in ("start", "n", "v", "side")})


def _boxes(layout: dict) -> list[list]:
    """[label, cx, cy, w, h, theta, difficult] of each object."""
    rows = zip(layout["labels"], layout["boxes"], layout["difficult"], strict=True)
    return [[label, *box, difficult] for label, box, difficult in rows]
