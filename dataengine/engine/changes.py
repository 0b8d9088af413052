"""Change labels of sequences: which objects appeared and disappeared from one date to the next.

changes/changes.json    for each pair of accepted pictures of neighbouring dates: the boxes that appeared, disappeared,
                        stayed, and those of which a picture does not say it, since its filter did not find them
changes/label/*.png     the same as pixels: 255 where something appeared or disappeared, 128 where uncertain, else 0
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from dataengine import geometry
from dataengine.data.layout import Layout
from dataengine.engine.record import Record
from dataengine.files import create_folder, write_whole

CHANGED, UNCERTAIN = 255, 128
KINDS = ("appeared", "disappeared", "stayed", "uncertain")


def changes(before: Layout, after: Layout) -> dict[str, list[tuple[str, list[float]]]]:
    """What differs between two dates of one layout: {kind: [(class, box)]}, each object once.

    An object has the same class and box at every date. One that is difficult at a date where it is there was not found
    by the filter, so that nothing can be said of its change.

    >>> a = Layout([[5, 5, 4, 2, 0], [9, 3, 2, 2, 0]], [0, 0], ("car",), (16, 16))
    >>> b = a.select([1]).joined(Layout([[12, 12, 4, 2, 0]], [0], ("car",), (16, 16)))
    >>> {kind: len(objects) for kind, objects in changes(a, b).items()}
    {'appeared': 1, 'disappeared': 1, 'stayed': 1, 'uncertain': 0}
    """
    there = [_objects(layout) for layout in (before, after)]
    found: dict[str, list] = {kind: [] for kind in KINDS}
    for key in dict.fromkeys([*there[0], *there[1]]):
        doubtful = any(objects.get(key, False) for objects in there)
        kind = "uncertain" if doubtful else "stayed"
        if not doubtful and key not in there[0]:
            kind = "appeared"
        elif not doubtful and key not in there[1]:
            kind = "disappeared"
        found[kind].append((key[0], list(key[1:])))
    return found


def _objects(layout: Layout) -> dict[tuple, bool]:
    """{(class, box): whether it is difficult}."""
    boxes = layout.boxes.astype(np.float64).round(3).tolist()
    return {(n, *box): bool(d) for n, box, d in zip(layout.names(), boxes, layout.difficult, strict=True)}


def mask_of(found: dict[str, list[tuple[str, list[float]]]], size: tuple[int, int]) -> np.ndarray:
    """The change as pixels, uint8 (H, W)."""
    mask = np.zeros(size[::-1], np.uint8)
    for kind, value in (("appeared", CHANGED), ("disappeared", CHANGED), ("uncertain", UNCERTAIN)):
        for _, box in found[kind]:
            corners = geometry.to_corners(np.float32([box]))[0]
            cv2.fillPoly(mask, [np.rint(corners - 0.5).astype(np.int32)], value)
    return mask


def write_changes(records: Iterable[Record], dates: int, out: Path) -> None:
    """Write the change labels of a run of sequences of so many dates. Pairs with a dropped picture are left out."""
    entries, before = [], None
    create_folder(out / "label")
    for record in records:
        follows = before is not None and before.index + 1 == record.index and record.index % dates
        if follows and before.accepted and record.accepted:
            found, name = changes(before.labels, record.labels), f"{before.name}-{record.name}.png"
            content = io.BytesIO()
            Image.fromarray(mask_of(found, record.labels.size)).save(content, "PNG")
            write_whole(out / "label" / name, content.getvalue())
            objects = {
                kind: [{"class": label, "box": box} for label, box in members] for kind, members in found.items()
            }
            entries.append({"before": before.name, "after": record.name, "label": f"label/{name}", **objects})
        before = record
    write_whole(out / "changes.json", json.dumps(entries, indent=1) + "\n")
