"""Columns of a source's records, read once and cached, so that 100,000 images are filtered in milliseconds."""

from __future__ import annotations

import io
import json
import math
import os
import re
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from dataengine.engine.records import painted
from dataengine.errors import UserError
from dataengine.view.source import Source, store

VERSION = 1
Progress = Callable[[int, int], None]  # (bytes read, bytes in all)


@dataclass(frozen=True)
class Columns:
    """Parallel arrays of N images and, below, of the M objects that their labels hold.

    offset int64, length int32: of the record in the file. kept int8: 1, 0, or -1 where nobody judged. reason int32:
    index into the reasons. score float32: the lowest of its objects, nan where none has one. altitude (metres), gsd
    (metres a pixel), camera_angle (degrees; 90 looks straight down) float32: nan where unknown. night int8: -1 unknown.

    image int32: image of the object. label int32: index into the classes. box_w, box_h float32 in pixels, theta in
    radians, le90. object_score float32: what the filter's detector gave it, nan where it was not judged. own: the
    object was in the scene before. asked_for int32 (N,): how many of an image's objects the layout asked for.
    """

    offset: np.ndarray
    length: np.ndarray
    width: np.ndarray
    height: np.ndarray
    kept: np.ndarray
    reason: np.ndarray
    score: np.ndarray
    objects: np.ndarray
    asked_for: np.ndarray
    altitude: np.ndarray
    gsd: np.ndarray
    camera_angle: np.ndarray
    night: np.ndarray
    image: np.ndarray
    label: np.ndarray
    box_w: np.ndarray
    box_h: np.ndarray
    theta: np.ndarray
    object_score: np.ndarray
    own: np.ndarray


_TYPES = {
    "offset": np.int64, "length": np.int32, "width": np.int32, "height": np.int32, "kept": np.int8,
    "reason": np.int32, "objects": np.int32, "asked_for": np.int32, "night": np.int8, "image": np.int32,
    "label": np.int32, "own": np.bool_,
}  # fmt: skip


class Index:
    """The columns, the texts beside them, and the open file of records.

    classes, reasons: what the columns' numbers mean. names: of the images. texts: what a search looks at, in small
    letters: name, scene and seed. The file stays open, so that a run that is written anew meanwhile does not matter.
    """

    def __init__(self, source: Source, columns: Columns, classes, reasons, names, texts):
        self.source, self.columns = source, columns
        self.classes, self.reasons, self.names, self.texts = tuple(classes), tuple(reasons), names, texts
        self._file = os.open(source.records, os.O_RDONLY)

    def __len__(self) -> int:
        return len(self.columns.offset)

    def record(self, i: int) -> dict:
        """The record of image i. Raises IndexError for an image that is not there."""
        if not 0 <= i < len(self):
            raise IndexError(i)
        return json.loads(os.pread(self._file, int(self.columns.length[i]), int(self.columns.offset[i])))


def load_index(source: Source, progress: Progress = lambda done, total: None) -> Index:
    """The index of a source: the cached one, or read now. Raises UserError that names the line of a damaged record."""
    cached = source.cache / f"index{VERSION}-{source.fingerprint}.npz"
    if cached.exists():
        try:
            return _unpacked(source, cached.read_bytes())
        except (ValueError, KeyError, OSError, zipfile.BadZipFile):
            pass  # a damaged cache is no loss: it is made again
    index = _read(source, progress)
    store(source.cache, f"index{VERSION}", source.fingerprint, ".npz", _packed(index))
    return index


def _packed(index: Index) -> bytes:
    texts = {"classes": index.classes, "reasons": index.reasons, "names": index.names, "texts": index.texts}
    buffer = io.BytesIO()
    np.savez(buffer, __texts=np.frombuffer(json.dumps(texts).encode(), np.uint8), **vars(index.columns))
    return buffer.getvalue()


def _unpacked(source: Source, content: bytes) -> Index:
    with np.load(io.BytesIO(content), allow_pickle=False) as file:
        columns = Columns(**{field.name: file[field.name] for field in fields(Columns)})
        texts = json.loads(file["__texts"].tobytes())
    return Index(source, columns, **texts)


def _lines(file: Path, progress: Progress) -> Iterator[tuple[int, int, dict]]:
    """(offset, length, record) of each line."""
    total, offset = file.stat().st_size, 0
    with open(file, "rb") as stream:
        for number, line in enumerate(stream, 1):
            if line.strip():
                try:
                    record = json.loads(line)
                    record["labels"]["boxes"], record["image"]
                except (ValueError, KeyError, TypeError, RecursionError):
                    raise UserError(
                        f"{file}:{number}: no record of a run; the command that made the run writes it again."
                    ) from None
                yield offset, len(line), record
            offset += len(line)
            if number % 500 == 0:
                progress(offset, total)
    progress(total, total)


def _read(source: Source, progress: Progress) -> Index:
    rows: dict[str, list] = {field.name: [] for field in fields(Columns)}
    classes: dict[str, int] = {}
    reasons: dict[str, int] = {"": 0}
    names, texts = [], []
    for name in source.recipe.get("classes", ()):
        classes.setdefault(name, len(classes))
    for i, (offset, length, record) in enumerate(_lines(source.records, progress)):
        try:
            name = record.get("name") or f"{record['index']:08d}"
            _append(rows, i, record, classes, reasons)
        except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError) as error:
            raise UserError(
                f"{source.records}:{i + 1}: damaged record ({type(error).__name__}: {error}); the command that made "
                "the run writes it again."
            ) from None
        rows["offset"].append(offset), rows["length"].append(length)
        names.append(name)
        texts.append(f"{name} {record.get('scene', '')} {record.get('seed', '')}".lower())
    try:
        columns = Columns(**{name: np.array(values, _TYPES.get(name, np.float32)) for name, values in rows.items()})
    except (TypeError, ValueError, OverflowError) as error:  # a text, or a number that no image has
        raise UserError(
            f"{source.records}: damaged ({type(error).__name__}: {error}); the command that made the run writes it "
            "again."
        ) from None
    return Index(source, columns, classes, reasons, names, texts)


def _append(rows: dict[str, list], i: int, record: dict, classes: dict[str, int], reasons: dict[str, int]) -> None:
    """One record's values at the end of every column but its place in the file."""
    labels, verdict = record["labels"], record.get("verdict") or {}
    taken, n = labels.get("acquisition") or {}, len(labels["boxes"])
    asked = painted(record) if "asked" in record else n
    scores = [*verdict.get("scores", ())][:n]
    scores += [math.nan] * (n - len(scores))
    # objects that the scene held before were not asked for, so that nobody looked for them
    judged = [score for score in scores[:asked] if not math.isnan(score)]
    night = taken.get("night")
    values = {
        "width": labels["size"][0], "height": labels["size"][1], "kept": int(verdict["kept"]) if verdict else -1,
        "reason": reasons.setdefault(_kind_of(verdict.get("reason", "")), len(reasons)),
        "score": min(judged, default=math.nan), "objects": n, "asked_for": min(asked, n),
        "altitude": _number(taken.get("altitude_m")), "gsd": _number(taken.get("gsd_m")),
        "camera_angle": _number(taken.get("camera_angle_deg")), "night": -1 if night is None else int(night),
    }  # fmt: skip
    for name, value in values.items():
        rows[name].append(value)
    numbers = [classes.setdefault(name, len(classes)) for name in labels["classes"]]
    for k, (box, label, score) in enumerate(zip(labels["boxes"], labels["labels"], scores, strict=True)):
        rows["image"].append(i), rows["label"].append(numbers[label])
        rows["box_w"].append(box[2]), rows["box_h"].append(box[3]), rows["theta"].append(box[4])
        rows["object_score"].append(score if k < asked else math.nan), rows["own"].append(k >= asked)


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _kind_of(reason: str) -> str:
    """The reason without its counts, "3 of 5 objects not found" -> "objects not found", so that few are left."""
    return re.sub(r"\d[\d.]*", "...", re.sub(r"^\d+( of \d+)? ", "", reason))
