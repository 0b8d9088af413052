"""Columns of a source's entries, read once and cached, so that 100,000 images are filtered in milliseconds."""

from __future__ import annotations

import io
import json
import math
import os
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from types import MappingProxyType

import numpy as np

from dataengine.engine.decided import SHA_LENGTH, decide
from dataengine.engine.decisions import Decision
from dataengine.errors import UserError
from dataengine.files import open_regular
from dataengine.judge.verdict import without_counts
from dataengine.view.source import Entry, Source, store

VERSION = 3
MAX_SIDE_PX = 2**31 - 1
MAX_SCORE = 1e30
MAX_SKIPPED = 20  # damaged lines that are named
MAX_REASON = 200  # characters
Progress = Callable[[int, int], None]  # (bytes read, bytes in total)


@dataclass(frozen=True)
class Columns:
    """Parallel arrays of N images and M labelled objects.

    Images (N,): offset int64, length int32: of the entry in the file. width, height: pixels. kept int8: 1, 0, or -1
    without a filter. reason int32: index into the reasons. score float32: lowest score of the painted objects, NaN
    without scores. objects int32: number of objects. asked_for int32: number of painted objects. altitude (metres), gsd
    (metres per pixel), camera_angle (degrees; 90 looks straight down) float32: NaN where unknown. night int8: -1 where
    unknown. number int64: of the attempt, -1 in a data set. sha uint64: the first 16 digits of the file's SHA-256.

    Objects (M,): image int32: index of its image. label int32: index into the classes. box_w, box_h float32 in pixels,
    theta in radians, le90. object_score float32: score of the filter's detector, NaN where not judged. own bool: the
    object was in the scene before painting.
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
    number: np.ndarray
    sha: np.ndarray
    image: np.ndarray
    label: np.ndarray
    box_w: np.ndarray
    box_h: np.ndarray
    theta: np.ndarray
    object_score: np.ndarray
    own: np.ndarray


_TYPES = {
    "offset": np.int64, "length": np.int32, "width": np.int32, "height": np.int32, "kept": np.int8,
    "reason": np.int32, "objects": np.int32, "asked_for": np.int32, "night": np.int8, "number": np.int64,
    "sha": np.uint64, "image": np.int32, "label": np.int32, "own": np.bool_,
}  # fmt: skip


class Index:
    """Columns and texts of a source's entries, and the open file of entries.

    classes, reasons: what the numbers in the columns mean. names: of the images. texts: lower-case text for searches:
    name, scene and seed. skipped: a sentence for each of the first damaged lines, which are left out. The file stays
    open, so rewriting the run meanwhile does no harm. decisions: of a person, by the number of the attempt; labels and
    verdicts of entries follow them.
    """

    decisions: Mapping[int, Decision] = MappingProxyType({})

    def __init__(self, source: Source, columns: Columns, classes, reasons, names, texts, skipped):
        self.source, self.columns, self.skipped = source, columns, skipped
        self.classes, self.reasons, self.names, self.texts = tuple(classes), tuple(reasons), names, texts
        self._file = os.open(source.entries, os.O_RDONLY)

    def __len__(self) -> int:
        return len(self.columns.offset)

    def entry(self, i: int) -> Entry:
        """The entry of image i. Raises IndexError where there is none."""
        entry = self.made(i)
        if entry.record is None or not (decision := self.decisions.get(entry.record.index)):
            return entry
        record = decide(entry.record, decision)
        return replace(entry, record=record, labels=record.labels)

    def made(self, i: int) -> Entry:
        """The entry of image i as its file has it, without decisions. Raises IndexError where there is none."""
        if not 0 <= i < len(self):
            raise IndexError(i)
        return self.source.parse(os.pread(self._file, int(self.columns.length[i]), int(self.columns.offset[i])))


def load_index(source: Source, progress: Progress = lambda done, total: None) -> Index:
    """The index of a source, from the cache or read now. Raises UserError, with its line, where the first of only
    damaged entries is."""
    cached = source.cache / f"index{VERSION}-{source.fingerprint}.npz"
    if cached.exists():
        try:
            return _unpacked(source, cached.read_bytes())
        except (ValueError, KeyError, TypeError, OSError, zipfile.BadZipFile):
            pass  # a damaged cache is rebuilt
    index = _read(source, progress)
    store(source.cache, f"index{VERSION}", source.fingerprint, ".npz", _packed(index))
    return index


def _packed(index: Index) -> bytes:
    texts = {name: getattr(index, name) for name in ("classes", "reasons", "names", "texts", "skipped")}
    buffer = io.BytesIO()
    np.savez(buffer, __texts=np.frombuffer(json.dumps(texts).encode(), np.uint8), **vars(index.columns))
    return buffer.getvalue()


def _unpacked(source: Source, content: bytes) -> Index:
    with np.load(io.BytesIO(content), allow_pickle=False) as file:
        columns = Columns(**{field.name: file[field.name] for field in fields(Columns)})
        texts = json.loads(file["__texts"].tobytes())
    return Index(source, columns, **texts)


def _entries(source: Source, progress: Progress) -> Iterator[tuple[int, int, Entry | str]]:
    """(offset, length, entry) of each line; what is wrong with it in place of a damaged entry."""
    try:
        total, offset = source.entries.stat().st_size, 0
        opened = open_regular(source.entries)
    except OSError as error:
        raise UserError(f"{source.entries} cannot be read ({error.strerror}); write it again.") from None
    with opened as stream:
        for number, line in enumerate(stream, 1):
            if line.strip():
                try:
                    entry = source.parse(line)
                    _check(entry)
                except ValueError as error:
                    reason = f"{source.entries}:{number}: no record of an image ({str(error)[:MAX_REASON]})"
                    entry = str(UserError(f"{reason}; write it again with the same dataengine synth command."))
                yield offset, len(line), entry
            offset += len(line)
            if number % 500 == 0:
                progress(offset, total)
    progress(total, total)


def _check(entry: Entry) -> None:
    """Raises ValueError for values that the columns cannot hold."""
    scores = () if entry.record is None else entry.record.verdict.scores
    if not all(abs(score) <= MAX_SCORE for score in scores):  # NaN is not
        raise ValueError("a score is no number")
    if entry.record is not None and not re.fullmatch(f"[0-9a-f]{{{SHA_LENGTH},}}", entry.record.sha256):
        raise ValueError("its SHA-256 is no checksum")
    if entry.record is not None and entry.record.index >= 2**62:
        raise ValueError("the number of its attempt is too large")
    if max(entry.labels.size) > MAX_SIDE_PX:
        raise ValueError("the image is too large")


def _read(source: Source, progress: Progress) -> Index:
    rows: dict[str, list] = {field.name: [] for field in fields(Columns)}
    classes = {name: i for i, name in enumerate(dict.fromkeys(source.classes))}
    reasons: dict[str, int] = {"": 0}
    names, texts, skipped, n_skipped = [], [], [], 0
    for offset, length, entry in _entries(source, progress):
        if isinstance(entry, str):
            n_skipped += 1
            skipped += [entry] * (n_skipped <= MAX_SKIPPED)
            continue
        _append(rows, len(names), entry, classes, reasons)
        rows["offset"].append(offset), rows["length"].append(length)
        names.append(entry.name)
        record = entry.record
        texts.append(
            (entry.name if record is None else f"{entry.name} {record.provenance.label} {record.seed}").lower()
        )
    if skipped and not names:
        raise UserError(skipped[0])
    if n_skipped > len(skipped):
        skipped.append(f"{n_skipped - len(skipped)} more lines of {source.entries.name} are no records of an image.")
    try:
        columns = Columns(**{name: np.array(values, _TYPES.get(name, np.float32)) for name, values in rows.items()})
    except (TypeError, ValueError, OverflowError) as error:  # a text, or a number out of range
        raise UserError(
            f"{source.entries}: damaged ({type(error).__name__}: {error}); write it again with the same dataengine "
            "synth command."
        ) from None
    return Index(source, columns, classes, reasons, names, texts, skipped)


def _append(rows: dict[str, list], i: int, entry: Entry, classes: dict[str, int], reasons: dict[str, int]) -> None:
    """Append the values of one entry to all columns but its place in the file."""
    labels, record = entry.labels, entry.record
    acquisition, n = labels.acquisition, len(labels)
    n_painted = n if record is None else min(record.n_painted, n)
    scores = [] if record is None else record.verdict.scores[:n_painted]
    scores = [math.nan if score is None else score for score in scores] + [math.nan] * (n - len(scores))
    reason = "" if record is None else without_counts(record.verdict.reason)
    values = {
        "width": labels.size[0], "height": labels.size[1], "kept": -1 if record is None else int(record.accepted),
        "reason": reasons.setdefault(reason, len(reasons)),
        "score": min((score for score in scores if not math.isnan(score)), default=math.nan), "objects": n,
        "asked_for": n_painted, "altitude": _number(acquisition.altitude_m), "gsd": _number(acquisition.gsd_m),
        "camera_angle": _number(acquisition.camera_angle_deg),
        "night": -1 if acquisition.night is None else int(acquisition.night),
        "number": -1 if record is None else record.index, "sha": 0 if record is None else sha_number(record.sha256),
    }  # fmt: skip
    for name, value in values.items():
        rows[name].append(value)
    numbers = [classes.setdefault(name, len(classes)) for name in labels.classes]
    for k, (box, label, score) in enumerate(zip(labels.boxes.tolist(), labels.labels.tolist(), scores, strict=True)):
        rows["image"].append(i), rows["label"].append(numbers[label])
        rows["box_w"].append(box[2]), rows["box_h"].append(box[3]), rows["theta"].append(box[4])
        rows["object_score"].append(score), rows["own"].append(k >= n_painted)


def sha_number(text: str) -> int:
    """The first 16 digits of a SHA-256 as a number."""
    return int(text[:SHA_LENGTH], 16)


def _number(value: float | None) -> float:
    return math.nan if value is None else value
