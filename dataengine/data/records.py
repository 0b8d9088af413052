"""From what a file says to a `Dataset`: class names become indices, and what is broken becomes a `Problem`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from dataengine.data import images
from dataengine.data.layout import UNKNOWN, Acquisition, Dataset, Kind, Layout, Problem, Sample, class_key
from dataengine.errors import UserError, first_fault
from dataengine.files import read_text

FARTHEST = 1_000_000  # pixels; what lies beyond is a slip of the file, not an object


@dataclass
class Record:
    """One annotated image as its file gives it. `names`, `difficult`, `lines`, `visible`, rows of `boxes` are parallel.

    boxes:   float (N, 5), le90 or any w/h order already regularised by `geometry`.
    outlines: float (K, 2) in pixels of each object, (0, 2) where unknown; None where the format has none.
    lines:   line in `annotation` of each object, None where the format has no lines.
    size:    (width, height) as the annotation states it, None where it does not; the image file decides.
    """

    name: str
    image: Path
    annotation: Path
    names: list[str] = field(default_factory=list)
    boxes: np.ndarray | Sequence = ()
    difficult: Sequence[bool] | np.ndarray | None = None
    lines: Sequence[int | None] | None = None
    visible: Sequence[float] | np.ndarray | None = None
    ignored: np.ndarray | Sequence = ()
    outlines: Sequence[np.ndarray] | None = None
    acquisition: Acquisition = UNKNOWN
    size: tuple[int, int] | None = None
    split: str = ""
    source: str = ""
    license: str = ""


def class_lookup(classes: Iterable[str]) -> dict[str, int]:
    """Index of each class by its `class_key`; `UserError` when two classes of the list are the same word."""
    lookup: dict[str, int] = {}
    for index, name in enumerate(classes):
        if lookup.setdefault(class_key(name), index) != index:
            raise UserError(f"the class list has {name!r} twice (case, blanks and underscores do not count); keep one")
    return lookup


def choose_classes(found: Iterable[str], classes: Sequence[str] | None, known: Sequence[Sequence[str]]) -> tuple:
    """The class list: what the caller gave, else the first of `known` that holds every found name, else sorted names.

    Raises `UserError` when the caller's list shares no name with the data.
    """
    spelling: dict[str, str] = {}
    for name in found:
        spelling.setdefault(class_key(name), name.strip())
    if classes is not None:
        if spelling and not spelling.keys() & class_lookup(classes).keys():
            raise UserError(
                f"the class list ({', '.join(classes)}) shares no name with the data set, "
                f"which has {', '.join(sorted(spelling.values()))}; name the classes as the data set does"
            )
        return tuple(classes)
    for candidate in known:
        if spelling.keys() <= class_lookup(candidate).keys():
            return tuple(candidate)
    return tuple(spelling[key] for key in sorted(spelling))


def assemble(
    records: Sequence[Record],
    path: Path,
    *,
    format: str,
    kind: Kind,
    classes: Sequence[str] | None = None,
    known: Sequence[Sequence[str]] = (),
    problems: Sequence[Problem] = (),
) -> Dataset:
    """Make the data set. Broken images, boxes and unknown classes are left out and named in `Dataset.problems`.

    Raises `UserError` when nothing is left, or when `classes` has no name in common with the data.
    """
    problems = list(problems)
    class_list = choose_classes((name for r in records for name in dict.fromkeys(r.names)), classes, known)
    lookup = class_lookup(class_list)
    repeated = {name for name, n in Counter(record.name for record in records).items() if n > 1}
    samples: list[Sample] = []
    taken: set[str] = set()
    for record in records:
        name = f"{record.split}/{record.name}" if record.split and record.name in repeated else record.name
        if name in taken:
            problems.append(Problem(record.annotation, None, f"image {name!r} is listed twice; the second is left out"))
            continue
        try:
            size = images.measure(record.image)
        except ValueError as error:
            problems.append(Problem(record.image, None, f"{error}; its {len(record.names)} objects are left out"))
            continue
        taken.add(name)
        if record.size is not None and tuple(record.size) != size:
            stated = "x".join(map(str, record.size))
            message = f"image is {size[0]}x{size[1]} but its annotation says {stated}; the image's own size is used"
            problems.append(Problem(record.annotation, None, f"{record.image.name}: {message}"))
        layout = _layout(record, class_list, lookup, size, kind, problems)
        samples.append(Sample(name, record.image, layout, record.source, record.license))
    if not samples:
        first = f"; the first of {len(problems)} problems: {problems[0]}" if problems else ""
        raise UserError(f"{path}: no usable labelled image in {format} format was found{first}")
    return Dataset(class_list, samples, kind, path.resolve().name, format, problems)


def _layout(record: Record, classes: tuple, lookup: dict, size: tuple[int, int], kind: Kind, problems: list) -> Layout:
    boxes = np.asarray(record.boxes, np.float32).reshape(-1, 5)
    index = {name: lookup.get(class_key(name), -1) for name in set(record.names)}
    labels = np.array([index[name] for name in record.names], np.int64)
    difficult = np.zeros(len(boxes), bool) if record.difficult is None else np.asarray(record.difficult, bool)
    near = (np.abs(boxes[:, :4]) <= FARTHEST).all(axis=1)
    sound = np.isfinite(boxes).all(axis=1) & (boxes[:, 2:4] > 0).all(axis=1) & near
    for i in np.flatnonzero((labels < 0) | ~sound):
        line = record.lines[i] if record.lines is not None else None
        where = "" if line is not None else f"{record.name}, object {i + 1}: "
        if labels[i] < 0:
            what = f"unknown class {record.names[i]!r}; the class list has {', '.join(classes)}"
        else:
            what = f"box {boxes[i].tolist()} has no area, or reaches farther than {FARTHEST:,} pixels"
        problems.append(Problem(record.annotation, line, f"{where}{what}; the object is left out"))
    keep = (labels >= 0) & sound
    ignored = np.asarray(record.ignored, np.float32).reshape(-1, 5)
    layout = Layout(boxes, labels, classes, size, kind, difficult, record.visible, ignored, record.acquisition)
    sound_ones = layout if keep.all() else layout.select(keep)
    if record.outlines is None:
        return sound_ones
    return sound_ones.with_outlines(points for points, kept in zip(record.outlines, keep, strict=True) if kept)


def listed_classes(root: Path) -> tuple[str, ...] | None:
    """The class list in `classes.txt` at a data set's root, one name a line, None where there is none."""
    file = root / "classes.txt"
    if not file.is_file():
        return None
    return tuple(line.strip() for line in read_text(file).splitlines() if line.strip())


def unknown_acquisition(path: Path, image: str, error: ValueError) -> Problem:
    """The problem of metadata that cannot be used: the image is kept, and how it was taken is unknown."""
    message = first_fault(error, Acquisition.model_fields) if isinstance(error, ValidationError) else str(error)
    return Problem(path, None, f"{image}: {message}; how the image was taken is kept as unknown")
