"""From annotations to a `Dataset`: class names become indices, and faults become `Problem`s."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import AfterValidator, Field, StringConstraints, TypeAdapter, ValidationError

from dataengine.data import images
from dataengine.data.layout import UNKNOWN, Acquisition, Dataset, Kind, Layout, Problem, Sample, class_key
from dataengine.data.orientation import Orientations, turn_boxes, turn_points
from dataengine.data.pixel_range import find_range
from dataengine.data.staging import written_splits
from dataengine.errors import UserError, first_fault, listed, printable, shown
from dataengine.files import read_text

MAX_CLASSES = 10_000  # of a data set; LVIS has 1,203
MAX_CLASS_NAME = 200  # characters
MAX_CLASS_LIST_BYTES = 8 * 2**20  # of classes.txt: MAX_CLASSES names of MAX_CLASS_NAME characters
NOTHING_READ = "none of its objects can be read"  # such an image would pass for empty ground
IGNORED_CLASSES = frozenset(
    ("ignore", "ignored", "ignoreregion", "ignoreregions", "ignoredregion", "ignoredregions", "dontcare", "don'tcare")
)  # keys of class names that mark regions with unknown content
MAX_COORDINATE = 1_000_000  # pixels; boxes beyond it are errors of the file
_LEAST_SIDE = np.finfo(np.float32).smallest_subnormal
_LEAST_VALUES = np.array([-MAX_COORDINATE, -MAX_COORDINATE, _LEAST_SIDE, _LEAST_SIDE, -MAX_COORDINATE], np.float32)


def _without_control_characters(name: str) -> str:
    if not name.isprintable():
        raise ValueError(f"has the class name {shown(name)}, with characters that a terminal obeys")
    return name


ClassName = Annotated[str, StringConstraints(max_length=MAX_CLASS_NAME), AfterValidator(_without_control_characters)]

CLASSES = TypeAdapter(Annotated[tuple[ClassName, ...], Field(max_length=MAX_CLASSES)])


@dataclass
class Record:
    """The annotation of one image. `names`, `boxes`, `difficult`, `visible`, `lines` and `outlines` are parallel.

    boxes:    float (N, 5), le90.
    outlines: of each object, float (K, 2) in pixels, (0, 2) where unknown; None if the format has none.
    lines:    of each object in `annotation`; None if the format has no lines.
    image:    None if it cannot be found; `fault` says why.
    size:     (width, height) by the annotation, None if it has none. The size of the image file takes precedence, but
              it says in which picture boxes lie if the image has an EXIF orientation.
    """

    name: str
    image: Path | None
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
    fault: str = ""

    @property
    def objects(self) -> int:
        """Number of objects and ignored regions."""
        return len(self.names) + len(self.ignored)


def _perhaps(path: Path) -> str:
    """A guess at which folder below was meant: one of the parts that `data split` wrote, or the only one, since
    archives often unpack into one."""
    inner = sorted(entry for entry in path.iterdir() if entry.is_dir()) if path.is_dir() else []
    if parts := [entry for entry in inner if written_splits(entry)]:
        return f", one of its parts: {', '.join(map(str, parts))}"
    return f", perhaps {inner[0]}" if len(inner) == 1 else ""


class NothingUsable(UserError):
    """No image of a data set is usable; `problems` say why."""

    def __init__(self, message: str, problems: Sequence[Problem]):
        super().__init__(message)
        self.problems = list(problems)


def class_lookup(classes: Iterable[str]) -> dict[str, int]:
    """Index of each class by its `class_key`. Raises UserError if two classes have the same key.

    >>> class_lookup(["plane", "Large Vehicle"])
    {'plane': 0, 'largevehicle': 1}
    """
    lookup: dict[str, int] = {}
    for index, name in enumerate(classes):
        if lookup.setdefault(class_key(name), index) != index:
            raise UserError(
                f"the class list has {shown(name)} twice (case, blanks, underscores and hyphens do not matter); keep "
                "one"
            )
    return lookup


def choose_classes(found: Iterable[str], classes: Sequence[str] | None, known: Sequence[Sequence[str]]) -> tuple:
    """The class list: `classes` if given, else the first of `known` with every found name, else the sorted names.
    Names longer than `MAX_CLASS_NAME` are in no list.

    Raises UserError if `classes` shares no name with the data, or for more than `MAX_CLASSES`.
    """
    spelling: dict[str, str] = {}
    for name in found:
        if len(name) <= MAX_CLASS_NAME:
            spelling.setdefault(class_key(name), name.strip())
    if classes is None:
        known = [[name for name in names if len(name) <= MAX_CLASS_NAME] for names in known]
        n = max([len(spelling), *map(len, known)])
        if n > MAX_CLASSES:
            raise UserError(
                f"the data set has {n:,} classes, more than {MAX_CLASSES:,}; choose some with --classes, or see if "
                "its names hold numbers of objects"
            )
    if classes is not None:
        if spelling and not spelling.keys() & class_lookup(classes).keys():
            raise UserError(
                f"the class list ({listed(classes)}) shares no name with the data set, "
                f"which has {listed(sorted(spelling.values()))}; name the classes as the data set does"
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
    notes: Sequence[str] = (),
) -> Dataset:
    """The data set of these records. Broken images and boxes and unknown classes are skipped; `Dataset.problems`
    lists them.

    Raises NothingUsable, a UserError, if no image is left, and UserError if `classes` shares no name with the data.
    """
    problems = list(problems)
    records, ignored = _without_ignored_classes(records, {class_key(name) for name in classes or ()})
    known = [[name for name in names if class_key(name) not in ignored] for names in known]
    names = dict.fromkeys(chain.from_iterable(record.names for record in records))
    class_list = choose_classes(names, classes, known)
    lookup = class_lookup(class_list)
    class_list = tuple(map(printable, class_list))  # also where a script prints it
    repeated = {name for name, n in Counter(record.name for record in records).items() if n > 1}
    owners: dict[str, Record] = {}
    usable: list[tuple[int, str, Record, tuple[int, int]]] = []
    found: list[tuple[int, Problem]] = []  # with the number of their record
    used: set[str] = set()
    orientations, deep, located = Orientations(), [], 0
    for number, record in enumerate(records):
        if record.image is None:
            found.append((number, skipped(record, record.fault)))
            continue
        if owners.setdefault(str(record.image), record) is not record:
            found.append((number, skipped(record, f"image {record.image.name} is listed twice")))
            continue
        name = f"{record.split}/{record.name}" if record.split and record.name in repeated else record.name
        if name in used:  # the same name with another suffix
            name = f"{name}_{record.image.suffix[1:]}"
        if name in used:
            found.append((number, skipped(record, f"image {shown(name)} is listed twice")))
            continue
        try:
            header = images.read_header(record.image)
        except ValueError as error:
            found.append((number, replace(skipped(record, str(error)), path=record.image)))
            continue
        used.add(name)
        size = header.size
        if orientations.stored(header, record.size, format):
            record = _turned(record, header)
        if header.deep:
            deep.append(record.image)
        if header.gsd_m is not None and record.acquisition.gsd_m is None:
            located += 1
            acquisition = record.acquisition.model_copy(update={"gsd_m": header.gsd_m})
            record = replace(record, acquisition=acquisition)
        if record.size is not None and record.size != size:
            stated = "x".join(map(str, record.size))
            message = f"image is {size[0]}x{size[1]} but its annotation says {stated}; the size of the image is used"
            found.append((number, Problem(record.annotation, None, f"{record.image.name}: {message}")))
        usable.append((number, name, record, size))
    layouts = _layouts([(record, size) for _, _, record, size in usable], class_list, lookup, kind)
    samples: list[Sample] = []
    for (number, name, record, _), (layout, faults) in zip(usable, layouts, strict=True):
        found += [(number, problem) for problem in faults]
        texts = map(printable, (record.source, record.license))
        samples.append(Sample(name, record.image, layout, *texts))
    problems += [problem for _, problem in sorted(found, key=itemgetter(0))]
    if not samples:
        first = (
            f"; the first of {len(problems)} problems: {problems[0]}"
            if problems
            else f"; give the folder that has both images and labels{_perhaps(Path(path))}"
        )
        raise NothingUsable(f"{path}: no usable labelled image in {format} format{first}", problems)
    notes = [*notes, *orientations.notes(format)]
    notes += [f"the {n} objects of class {shown(name)} are ignored regions" for name, n in ignored.values()]
    if located:
        whose = f"{located} images comes from their" if located > 1 else "1 image comes from its"
        notes.append(f"the GSD of {whose} GeoTIFF tags")
    if deep:
        pixel_range, note = find_range(path, deep)
        samples = [replace(sample, pixel_range=pixel_range) for sample in samples]
        notes.append(note)
        if len(deep) < len(samples):
            n = len(samples) - len(deep)
            notes.append(f"{n} image{'s of 8 bits are' if n > 1 else ' of 8 bits is'} not scaled")
    return Dataset(class_list, samples, kind, printable(path.resolve().name), format, problems, notes)


def _without_ignored_classes(
    records: Sequence[Record], classes: Collection[str]
) -> tuple[list[Record], dict[str, tuple[str, int]]]:
    """Records in which objects of classes such as "ignore" are ignored regions, and {class key: (name, objects)} of
    these. classes: keys of the classes that the user asked for, which stay objects."""
    words = IGNORED_CLASSES - set(classes)
    found: dict[str, tuple[str, int]] = {}
    names = set(chain.from_iterable(record.names for record in records))
    ignored = {name for name in names if class_key(name) in words}
    if not ignored:
        return list(records), found
    result = []
    for record in records:
        marks = [name in ignored for name in record.names]
        if any(marks):
            for name in (name for name, mark in zip(record.names, marks, strict=True) if mark):
                first, n = found.get(class_key(name), (name, 0))
                found[class_key(name)] = first, n + 1
            record = _with_ignored(record, np.array(marks))
        result.append(record)
    return result, found


def _with_ignored(record: Record, marks: np.ndarray) -> Record:
    """The record with the marked objects as ignored regions."""
    boxes = np.asarray(record.boxes, np.float32).reshape(-1, 5)
    regions = [np.asarray(record.ignored, np.float32).reshape(-1, 5), boxes[marks]]
    parallel = {
        name: [value for value, mark in zip(values, marks, strict=True) if not mark]
        for name in ("names", "difficult", "lines", "visible", "outlines")
        if (values := getattr(record, name)) is not None
    }
    return replace(record, boxes=boxes[~marks], ignored=np.concatenate(regions), **parallel)


def skipped(record: Record, reason: str) -> Problem:
    """The problem of an image that is skipped with all its objects."""
    return Problem(record.annotation, None, f"{reason}; its {record.objects} objects are skipped", record.objects)


def _turned(record: Record, header: images.Header) -> Record:
    """The record of a stored picture as that of the upright one."""
    outlines = record.outlines and [turn_points(points, header).astype(np.float32) for points in record.outlines]
    size = record.size and (record.size[::-1] if header.orientation > 4 else record.size)
    boxes, ignored = (turn_boxes(boxes, header) for boxes in (record.boxes, record.ignored))
    return replace(record, boxes=boxes, ignored=ignored, outlines=outlines, size=size)


def with_classes_left_out(dataset: Dataset) -> Dataset:
    """The data set that was read with a class list of the user's: objects of other classes are left out on purpose, so
    they are a note with their counts, and no problems."""
    left_out = Counter(problem.unknown_class for problem in dataset.problems if problem.unknown_class)
    if not left_out:
        return dataset
    counts = listed([f"{n} {name}" for name, n in left_out.most_common()])
    note = f"objects of other classes than {listed(dataset.classes)} are left out: {counts}"
    problems = [problem for problem in dataset.problems if not problem.unknown_class]
    return replace(dataset, problems=problems, notes=[*dataset.notes, note])


def _layouts(
    records: Sequence[tuple[Record, tuple[int, int]]], classes: tuple, lookup: dict, kind: Kind
) -> Iterator[tuple[Layout, list[Problem]]]:
    """For each record with the size of its image, its layout and the problems of the objects that are left out."""
    if not records:
        return
    names = list(chain.from_iterable(record.names for record, _ in records))
    labels_of = {name: lookup.get(class_key(name), -1) for name in set(names)}
    labels = np.array([labels_of[name] for name in names], np.int64)
    boxes = np.concatenate([np.asarray(record.boxes, np.float32).reshape(-1, 5) for record, _ in records])
    # not NaN, within the limits, and with an area
    valid = ((boxes <= MAX_COORDINATE) & (boxes >= _LEAST_VALUES)).all(axis=1)
    keep = valid & (labels >= 0)
    ends = np.cumsum([len(record.names) for record, _ in records])
    left_out = np.diff(np.concatenate([[0], np.cumsum(~keep)])[np.concatenate([[0], ends])])
    start = 0
    for (record, size), end, any_left_out in zip(records, ends.tolist(), left_out.tolist(), strict=True):
        own, start = slice(start, end), end
        layout = Layout(
            boxes[own], labels[own], classes, size, kind, record.difficult, record.visible, record.ignored,
            record.acquisition,
        )  # fmt: skip
        if any_left_out:
            yield _valid_part(record, layout, keep[own])
        else:
            yield layout if record.outlines is None else layout.with_outlines(record.outlines), []


def _valid_part(record: Record, layout: Layout, keep: np.ndarray) -> tuple[Layout, list[Problem]]:
    """The layout with the objects that `keep` marks, and the problems of the others."""
    problems = []
    for i in np.flatnonzero(~keep):
        line = record.lines[i] if record.lines is not None else None
        where = "" if line is not None else f"{record.name}, object {i + 1}: "
        unknown = printable(record.names[i])[:MAX_CLASS_NAME] if layout.labels[i] < 0 else ""
        if len(record.names[i]) > MAX_CLASS_NAME:
            what = f"its class name has {len(record.names[i]):,} characters, more than {MAX_CLASS_NAME}"
        elif unknown:
            what = f"unknown class {shown(record.names[i])}; the class list has {listed(layout.classes)}"
        else:
            what = f"box {layout.boxes[i].tolist()} has no area, or extends beyond {MAX_COORDINATE:,} pixels"
        problems.append(Problem(record.annotation, line, f"{where}{what}; the object is skipped", 1, unknown))
    layout = layout.select(keep)
    if record.outlines is not None:
        layout = layout.with_outlines(points for points, kept in zip(record.outlines, keep, strict=True) if kept)
    return layout, problems


def listed_classes(root: Path) -> tuple[str, ...] | None:
    """The class list in `classes.txt` at the root of a data set, one name a line; None without that file."""
    file = root / "classes.txt"
    if not file.is_file():
        return None
    text = read_text(file, MAX_CLASS_LIST_BYTES)
    names = tuple(line.strip() for line in text.splitlines() if line.strip())
    for number, name in enumerate(names, 1):
        if len(name) > MAX_CLASS_NAME:
            raise UserError(
                f"{file}: class {number} has {len(name)} characters, more than {MAX_CLASS_NAME}; write one name a line."
            )
    return names


def unknown_acquisition(path: Path, image: str, error: ValueError) -> Problem:
    """The problem of invalid metadata: the image is kept, and its acquisition is unknown."""
    message = first_fault(error, Acquisition.model_fields) if isinstance(error, ValidationError) else str(error)
    return Problem(path, None, f"{image}: {message}; the acquisition of the image is unknown")
