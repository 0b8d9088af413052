"""DOTA text, versions 1.0, 1.5 and 2.0: one line an object, `x1 y1 x2 y2 x3 y3 x4 y4 class difficult`.

Corners are continuous pixels without half-pixel shift, as in DOTA's own tools and mmrotate.
Read: `images/` next to `labelTxt/` (or `labelTxt-v1.5/`, `annfiles/`, Ultralytics' `labels/`), at the root or in a
folder of each split, or label files next to their images; header lines `imagesource:` and `gsd:` (metres per pixel,
"null" is unknown), also from DOTA's `meta/` folder. Folders of horizontal boxes (`*_hbb`, `*reclabelTxt`) are used only
if there are no others. Fields are separated by blanks or commas. The last field is `difficult` if it is 0, 1, 2 or more
than 100, or true or false; a number belongs to the name if the class list has it so. Names may have blanks, and any
quadrilateral becomes its minimum-area box.
Written: `<split>/images/*.png`, `<split>/labelTxt/*.txt` without header and with all ten fields, since mmrotate's
`DOTADataset` fails at a header or a missing field and appends `.png`. Blanks in class names become hyphens, since it
splits at blanks. Ground sample distance and date go to `<split>/meta/`, the class list to `classes.txt`.
An ignored region is written as an entry of each class with the difficulty 101, and difficulties above 100 are read as
ignored regions: `DOTADataset` marks entries above `diff_thr`, 100 unless set, as ignored, and its metric leaves out
detections there. Training leaves them out only where the assigners of a config have an `ignore_iof_thr`, which those of
mmrotate have not; `dataengine export mmrotate` fills the regions for that.
"""

from __future__ import annotations

import datetime
import re
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np

from dataengine import geometry
from dataengine.data.file_index import FileIndex, matched, safe_name
from dataengine.data.label_files import (
    MAX_LINE_CHARACTERS,
    columns,
    head_of,
    images_without_labels,
    label_file,
    of_split,
    split_names,
)
from dataengine.data.layout import UNKNOWN, Acquisition, Dataset, Layout, Problem, class_key
from dataengine.data.parse import MAX_NUMBER, is_number, line_count, number, numbered_lines
from dataengine.data.records import NOTHING_READ, Record, assemble, listed_classes, unknown_acquisition
from dataengine.data.staging import Place, Progress, decimal, placed, staged, write_classes
from dataengine.errors import UserError
from dataengine.files import MAX_TEXT_BYTES, read_text, read_yaml

NAME = "dota"
HOLDS = frozenset({"angles", "difficult", "ignored", "gsd_m", "date"})
IGNORED_DIFFICULTY = 101  # above the default `diff_thr` of mmrotate's DOTADataset, 100
CLASSES_V10 = (
    "plane", "baseball-diamond", "bridge", "ground-track-field", "small-vehicle", "large-vehicle", "ship",
    "tennis-court", "basketball-court", "storage-tank", "soccer-ball-field", "roundabout", "harbor", "swimming-pool",
    "helicopter",
)  # fmt: skip
CLASSES_V15 = (*CLASSES_V10, "container-crane")
DIFFICULT_LEVELS = (0, 1, 2, IGNORED_DIFFICULTY)  # of the last field; other numbers belong to the name of the class
CLASSES_V20 = (*CLASSES_V15, "airport", "helipad")
_LABEL_FOLDER = re.compile(r"labeltxt.*|annfiles|.*reclabeltxt|.*_hbb", re.IGNORECASE)
_HORIZONTAL = re.compile(r"(^|/)[^/]*(_hbb|reclabeltxt)(/|$)", re.IGNORECASE)
_QUOTES = "'\""
_HEADER = re.compile(r"\s*[a-z][a-z ]*:", re.IGNORECASE)  # such as "imagesource:" and "gsd:"


def recognizes(file: Path, head: str) -> bool:
    """Whether a file is a label file of DOTA. head: its first characters."""
    if file.suffix.lower() != ".txt":
        return False
    lines = [line for line in head.splitlines() if line.strip()]
    if lines and re.match(r"\s*(imagesource|gsd)\s*:", lines[0], re.IGNORECASE):
        return True
    rows = [columns(line) for line in lines[:20]]
    return bool(rows) and all(
        len(row) >= 9 and all(map(is_number, row[:8])) and not all(map(is_number, row)) for row in rows[:1]
    )


def _label_files(path: Path) -> list[Path]:
    """The label files below a folder: those in folders that have DOTA's names, or else in folders with DOTA text."""
    files = [file for file in FileIndex(path, (".txt",)).files if file.name != "classes.txt"]
    relative = {file: file.relative_to(path).as_posix() for file in files}
    if _LABEL_FOLDER.fullmatch(path.name):
        return files
    named = [file for file in files if any(map(_LABEL_FOLDER.fullmatch, Path(relative[file]).parts[:-1]))]
    if not named:
        others = [file for file in files if file.parent.name != "meta"]
        folders = {file.parent for file in others if recognizes(file, head_of(file))}
        named = [file for file in others if file.parent in folders]
    return [file for file in named if not _HORIZONTAL.search(relative[file])] or named


def label_folders(path: Path) -> list[Path]:
    """Folders that are named as those of DOTA's label files, also if all files in them are empty."""
    found = [*path.glob("[lL]abelTxt*"), *path.glob("*/[lL]abelTxt*"), *path.glob("annfiles"), *path.glob("*/annfiles")]
    return [folder for folder in found if folder.is_dir()]


def splits(path: Path) -> tuple[str, ...]:
    """Names of the splits of a data set, given its root."""
    return split_names(label_file(path, file) for file in _label_files(path))


def read(path: str | Path, *, split: str | None = None, classes: Sequence[str] | None = None) -> Dataset:
    """Read a data set from its root or the folder of one split. `split=None` reads all splits.

    The class list is `classes`, else `classes.txt`, else the first of DOTA 1.0, 1.5 and 2.0 that has all names, else
    the sorted names. Raises UserError if the path or the split is missing or no image is usable. Smaller faults are
    listed in `Dataset.problems`.
    """
    path = Path(path)
    if not path.is_dir():
        raise UserError(f"{path} is not a folder; give the DOTA folder with images/ and labelTxt/")
    index, files = FileIndex(path), _label_files(path)
    if not files:
        raise UserError(
            f"{path} has no label files in DOTA format; they were looked for in labelTxt*/, annfiles/ and labels/ and "
            "next to the images"
        )
    listed = listed_classes(path) or listed_classes(path.parent) or _yaml_classes(path)
    keys = {class_key(name) for name in classes or listed or ()}
    records: list[Record] = []
    unread: list[Record] = []
    problems: list[Problem] = []
    images_of = matched(files, index)
    for label in of_split([label_file(path, file) for file in files], split, path):
        name, image = safe_name(label.folder + label.path.name), images_of[label.path]
        record = _record(label.path, label.split, keys, problems)
        if record is None:
            unread.append(Record(name, None, label.path))
            continue
        record.name = name
        if isinstance(image, str) or not record.fault:
            record.image, record.fault = (image, "") if isinstance(image, Path) else (None, image)
        records.append(record)
    _set_boxes(records)
    if split is None:
        problems += images_without_labels(index, [*records, *unread], path)
    problems += _unclear_names(path, records)
    return assemble(
        records,
        path,
        format=NAME,
        kind="obb",
        classes=classes or listed,
        known=(CLASSES_V10, CLASSES_V15, CLASSES_V20),
        problems=problems,
    )


def _yaml_classes(path: Path) -> tuple[str, ...] | None:
    """The class list of Roboflow's `data.yaml`."""
    if not (path / "data.yaml").is_file():
        return None
    names = read_yaml(path / "data.yaml").get("names")
    return tuple(map(str, names)) if isinstance(names, list) and names else None


def _record(file: Path, split: str, listed: Collection[str], problems: list[Problem]) -> Record | None:
    """The record of a label file, without its image; None if the file cannot be read. listed: see `parse_object`.

    `boxes` are corners (N, 8) and `difficult` the levels (N,) until `_set_boxes` has done its part.
    """
    record = Record(safe_name(file.name), None, file, split=split)
    try:
        numbered = numbered_lines(read_text(file, MAX_TEXT_BYTES))
    except UserError as error:
        message = f"cannot be read as text ({error}); its image is skipped"
        problems.append(Problem(file, None, message, line_count(file)))
        return None
    meta = file.parent.parent / "meta" / file.name
    try:
        header = read_text(meta, MAX_TEXT_BYTES).splitlines() if meta.is_file() else []
    except UserError as error:
        problems.append(Problem(meta, None, f"cannot be read as text ({error}); it is skipped"))
        header = []
    first = 0
    while first < len(numbered) and _HEADER.match(numbered[first][1]):
        first += 1
    record.acquisition, record.source = _header(file, [*header, *(line for _, line in numbered[:first])], problems)
    numbered = numbered[first:]
    long = any(len(line) > MAX_LINE_CHARACTERS for _, line in numbered)
    objects = None if long else _plain_objects([line for _, line in numbered], listed)
    skipped = 0
    if objects is not None:
        corners, names, levels = objects
        numbers = [number_of_line for number_of_line, _ in numbered]
    else:
        corners, names, levels, numbers = [], [], [], []
        for line, text in numbered:
            try:
                row = columns(text)
                if not row:
                    continue
                values, name, level = parse_object(row, listed)
            except ValueError as error:
                skipped += 1
                problems.append(Problem(file, line, f"{error}; the object is skipped", 1))
                continue
            corners.append(values)
            names.append(name)
            levels.append(level)
            numbers.append(line)
    record.boxes, record.names, record.lines = np.array(corners, np.float32).reshape(-1, 8), names, numbers
    record.difficult = np.array(levels, np.float32)
    if skipped and not names:
        record.fault = NOTHING_READ
    return record


def _set_boxes(records: Sequence[Record]) -> None:
    """Boxes and flags of the records of `_record`. One call for many files is faster than one for each."""
    corners = [np.reshape(record.boxes, (-1, 8)) for record in records]
    ends = np.cumsum([0, *map(len, corners)]).tolist()
    boxes = geometry.from_corners(np.concatenate([np.zeros((0, 8), np.float32), *corners]).reshape(-1, 4, 2))
    for record, start, end in zip(records, ends[:-1], ends[1:], strict=True):
        own, levels = boxes[start:end], np.asarray(record.difficult)
        ignored = levels >= IGNORED_DIFFICULTY
        record.boxes, record.difficult = own, levels > 0
        if ignored.any():
            keep = np.flatnonzero(~ignored)
            record.ignored = np.unique(own[ignored], axis=0)  # `write` repeats them by class
            record.boxes, record.difficult = own[keep], record.difficult[keep]
            record.names, record.lines = [record.names[i] for i in keep], [record.lines[i] for i in keep]


def _unclear_names(path: Path, records: Sequence[Record]) -> list[Problem]:
    """The problem of names such as `type 3` beside `type`, of which the number may be a name's end or a difficulty."""
    counts = Counter(name for record in records for name in record.names)
    bases = {name: words[0] for name in counts if len(words := name.rsplit(" ", 1)) == 2 and words[1].isdigit()}
    unclear = sorted(name for name, base in bases.items() if base in counts)
    if not unclear:
        return []
    base = bases[unclear[0]]
    message = (
        f"class {unclear[0]!r} stands beside {base!r}: a last field of 0, 1 or 2 was read as the difficulty, "
        "other numbers as the end of the name; list the classes in classes.txt to make it clear"
    )
    return [Problem(path, None, message)]


def _is_plain_name(name: str, listed: Collection[str]) -> bool:
    """Whether a field is a whole class name, also before a 0 or 1."""
    if is_number(name) or name[0] in _QUOTES or "," in name:
        return False
    return not (listed and (class_key(f"{name} 0") in listed or class_key(f"{name} 1") in listed))


def _plain_objects(lines: list[str], listed: Collection[str]) -> tuple[np.ndarray, list[str], list[float]] | None:
    """What `parse_object` makes of each line, if all are as in DOTA: ten fields, the last 0 or 1; None for others."""
    rows = list(map(str.split, lines))
    if set(map(len, rows)) != {10}:
        return None
    names = [row[8] for row in rows]
    levels = [row[9] for row in rows]
    if not set(levels) <= {"0", "1"} or not all(_is_plain_name(name, listed) for name in set(names)):
        return None
    values = [field for row in rows for field in row[:8]]
    if "_" in "".join(values):  # which Python reads as a number
        return None
    try:
        corners = np.array(list(map(float, values)))
    except ValueError:
        return None
    if not (np.abs(corners) <= MAX_NUMBER).all():  # False for nan
        return None
    return corners, names, list(map(float, levels))


def parse_object(row: list[str], listed: Collection[str]) -> tuple[list[float], str, float]:
    """(corners, class name, difficulty) of the fields of a line. Raises ValueError if they are no object.

    listed: keys of the class names that are known; a number at the end belongs to the name if it is listed with it.
    """
    if len(row) == 10 and row[9] in ("0", "1") and "_" not in "".join(row[:8]):  # most lines are like this
        try:
            values = list(map(float, row[:8]))
        except ValueError:
            values = [np.inf]
        is_plain = not is_number(row[8]) and row[8][0] not in _QUOTES and class_key(f"{row[8]} {row[9]}") not in listed
        if max(map(abs, values)) <= MAX_NUMBER and is_plain:
            return values, row[8], float(row[9])
    numeric = next((i for i, field in enumerate(row) if not is_number(field)), len(row))
    if numeric < 8:
        if len(row) < 9 and "nan" not in row:
            points = f"has {numeric // 2} points, not 4 corners" if numeric else "has no coordinates"
            raise ValueError(f"{points}; an object needs 8 coordinates and a class")
        number(row[numeric], f"coordinate {numeric + 1}")
    values = [number(field, f"coordinate {i + 1}") for i, field in enumerate(row[:8])]
    rest = row[8:]
    if not rest:
        raise ValueError("has 8 fields; an object needs 8 coordinates and a class")
    if numeric >= 10 and numeric < len(row):
        raise ValueError(f"has {numeric / 2:g} points before the class, not 4 corners")
    if len(rest) > 1 and rest[-1].lower() in ("true", "false"):
        rest[-1] = str(int(rest[-1].lower() == "true"))
    number_last = len(rest) > 1 and is_number(rest[-1]) and class_key(" ".join(rest)) not in listed
    has_flag = number_last and float(rest[-1]) in DIFFICULT_LEVELS
    if number_last and not has_flag and not rest[-1].isdigit():
        raise ValueError(f"the last field is {rest[-1]}, neither a difficulty (0, 1 or 2) nor the end of a class name")
    name = " ".join(rest[:-1] if has_flag else rest).strip(_QUOTES)
    return values, name, float(rest[-1]) if has_flag else 0.0


def _header(file: Path, lines: list[str], problems: list[Problem]) -> tuple[Acquisition, str]:
    """Acquisition and image source from the header lines `imagesource:`, `gsd:` and `acquisition dates:`."""
    fields = {key.strip().lower(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    acquisition = UNKNOWN
    try:
        gsd, date = fields.get("gsd", ""), fields.get("acquisition dates", "")
        acquisition = Acquisition(
            gsd_m=None if gsd.lower() in ("", "null", "none", "nan") else number(gsd, "gsd"),
            date=None if date.lower() in ("", "null", "none") else datetime.date.fromisoformat(date),
        )
    except ValueError as error:  # pydantic's ValidationError is one too
        problems.append(unknown_acquisition(file, "header", error))
    source = fields.get("imagesource", "")
    return acquisition, "" if source.lower() in ("null", "none") else source


def write(
    dataset: Dataset,
    path: str | Path,
    *,
    split: str = "train",
    progress: Progress | None = None,
    place: Place | None = None,
) -> list[Problem]:
    """Write one split for mmrotate's `DOTADataset`, with PNG images. Returns problems: what was skipped.

    place: in place of copying images (`staging.placed`).

    Raises UserError unless `path` is new, empty or a DOTA set of the same classes written by dataengine.
    """
    path = Path(path)
    problems: list[Problem] = []
    with staged(path, NAME, split, dataset.classes) as work:
        write_classes(work, dataset.classes)
        labels, meta = work / split / "labelTxt", work / split / "meta"
        labels.mkdir(parents=True)
        for sample, name in placed(
            dataset, work / split / "images", problems, suffix=".png", progress=progress, place=place
        ):
            layout = sample.layout
            (labels / f"{name}.txt").write_text(label_text(layout), "utf-8")
            if text := meta_text(layout, sample.source):
                meta.mkdir(exist_ok=True)
                (meta / f"{name}.txt").write_text(text, "utf-8")
    return problems


def names_of(classes: Sequence[str]) -> list[str]:
    """Class names as label files have them, without blanks.

    >>> names_of(["small vehicle"])
    ['small-vehicle']
    """
    return ["-".join(name.split()) for name in classes]


def label_text(layout: Layout) -> str:
    """The label file of an image: a line for each object; ignored regions are objects of every class that are ignored.

    >>> label_text(Layout([[5, 4, 4, 2, 0]], [0], ("car",), (16, 16)))
    '3 3 7 3 7 5 3 5 car 0\\n'
    """
    names = names_of(layout.classes)
    objects = zip(_numbers(layout.boxes), layout.labels, layout.difficult, strict=True)
    lines = [f"{numbers} {names[label]} {int(difficult)}\n" for numbers, label, difficult in objects]
    regions = _numbers(layout.ignored)
    return "".join([*lines, *(f"{numbers} {name} {IGNORED_DIFFICULTY}\n" for numbers in regions for name in names)])


def meta_text(layout: Layout, source: str = "") -> str:
    """What a file in `meta/` says of an image; "" where neither its date nor its ground sample distance is known."""
    date, gsd = layout.acquisition.date, layout.acquisition.gsd_m
    if gsd is None and date is None:
        return ""
    return f"acquisition dates:{date}\nimagesource:{source or None}\ngsd:{gsd}\n".replace("None", "null")


def _numbers(boxes: np.ndarray) -> list[str]:
    """The eight coordinates of each box (N, 5), as text."""
    return [" ".join(map(decimal, row)) for row in geometry.to_corners(boxes).reshape(-1, 8)]
