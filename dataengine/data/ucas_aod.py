"""UCAS-AOD text: cars and airplanes, each line with four corners, an angle, and an upright box.

`x1 y1 x2 y2 x3 y3 x4 y4 theta x y width height`, separated by tabs or blanks, in continuous pixels without shift. The
corners are the object; theta (degrees) and the upright box say the same again, more roughly, and are not used.
Read: label files next to their images in `CAR/` and `PLANE/`, which name the classes ("car", "airplane"), and the
pictures of `Neg/`, which the data set states to have no objects; or, as UCAS-AOD-benchmark arranges them, `AllImages/`
and `labelTxt/` with the class name before the numbers, and splits in `ImageSets/*.txt`. The format is read, not
written.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from dataengine import geometry
from dataengine.data.file_index import FileIndex
from dataengine.data.label_files import LabelFile, columns, head_of, images_without_labels
from dataengine.data.layout import Dataset, Problem
from dataengine.data.objects import Objects, polygon_box, record_of_lines
from dataengine.data.parse import MAX_NUMBER, number
from dataengine.data.records import Record, assemble
from dataengine.data.xml_records import image_lists
from dataengine.errors import UserError
from dataengine.files import MAX_TEXT_BYTES, read_text

NAME = "ucas-aod"
CLASSES = ("car", "airplane")
CLASS_FOLDERS = {"car": "car", "plane": "airplane"}
EMPTY_FOLDER = "neg"
NUMBERS = 13  # of a line, without a class name


def recognizes(file: Path, head: str) -> bool:
    """Whether a file, of which `head` are the first 100,000 characters, has labels of this format."""
    if file.suffix.lower() != ".txt":
        return False
    lines = [columns(line) for line in head.splitlines()[:-1] or head.splitlines() if line.strip()]
    return bool(lines) and all(_numbers(line) is not None for line in lines[:20])


def _numbers(fields: list[str]) -> list[float] | None:
    """The 13 numbers of a line, None if it has others."""
    if len(fields) not in (NUMBERS, NUMBERS + 1):
        return None
    try:
        return [number(value, "field") for value in fields[-NUMBERS:]]
    except ValueError:
        return None


def splits(path: Path) -> tuple[str, ...]:
    """Names of the splits of a data set, given its root."""
    return tuple(image_lists(path))


def read(path: str | Path, *, split: str | None = None, classes: Sequence[str] | None = None) -> Dataset:
    """Read a data set from its root. `split=None` reads all images.

    Raises UserError if the path or the split is missing or no image is usable. Smaller faults are listed in
    `Dataset.problems`.
    """
    path = Path(path)
    if not path.is_dir():
        raise UserError(f"{path} is not a folder; give the UCAS-AOD folder with CAR/ and PLANE/")
    index = FileIndex(path)
    lists = image_lists(path)
    if split is not None and split not in lists:
        raise UserError(f"{path} has no split {split!r}; it has {', '.join(lists) or 'none'}")
    chosen = None if split is None else {line.strip() for line in read_text(lists[split], MAX_TEXT_BYTES).splitlines()}
    listing = set(lists.values())
    problems: list[Problem] = []
    records: list[Record] = []
    for file in FileIndex(path, (".txt",)).files:
        folders = file.relative_to(path).parts[:-1]
        if file in listing or (chosen is not None and file.stem not in chosen):
            continue
        if not folders and not recognizes(file, head_of(file)):
            continue  # a readme
        records += record_of_lines(LabelFile(file, "", _folder(folders)), index, problems, partial(_adder, file))
    if chosen is not None:
        missing = chosen - {record.annotation.stem for record in records} - {""}
        problems += [Problem(lists[split], None, f"image {name!r} has no label file", 0) for name in sorted(missing)]
        return _assembled(records, path, classes, problems)
    for image in index.files:
        folders = image.relative_to(path).parts[:-1]
        if folders and folders[-1].lower() == EMPTY_FOLDER:
            records.append(Record(_folder(folders) + image.stem, image, image))
    return _assembled(records, path, classes, problems + images_without_labels(index, records, path))


def _folder(folders: Sequence[str]) -> str:
    named = [folder for folder in folders if folder.lower() in (*CLASS_FOLDERS, EMPTY_FOLDER)]
    return "".join(f"{folder}/" for folder in named)


def _assembled(records: list[Record], path: Path, classes: Sequence[str] | None, problems: list[Problem]) -> Dataset:
    return assemble(records, path, format=NAME, kind="obb", classes=classes, known=(CLASSES,), problems=problems)


def _adder(file: Path, lines: list[tuple[int, str]]) -> Callable[[Objects, list[str], int], None]:
    folder_class, boxes = CLASS_FOLDERS.get(file.resolve().parent.name.lower()), _boxes(lines)

    def add(objects: Objects, fields: list[str], line: int) -> None:
        name, corners = _class_name(folder_class, fields), _corners(fields)
        objects.add(name, boxes[line] if line in boxes else polygon_box(corners), line=line)

    return add


def _class_name(folder_class: str | None, fields: list[str]) -> str:
    if len(fields) == NUMBERS + 1:
        return fields[0]
    if folder_class is None:
        raise ValueError("the line has no class name, and the folder is not CAR or PLANE")
    return folder_class


def _boxes(lines: list[tuple[int, str]]) -> dict[int, np.ndarray]:
    """Boxes (5,) by line, all converted at once; without those of lines that `polygon_box` sees otherwise."""
    numbers, corners = [], []
    for line, row in lines:
        try:
            values = list(map(float, columns(row)[-NUMBERS:][:8]))
        except ValueError:
            continue
        if len(values) == 8 and max(map(abs, values)) <= MAX_NUMBER and values[:2] != values[6:]:
            numbers.append(line)
            corners.append(values)
    return dict(zip(numbers, geometry.from_corners(np.reshape(corners, (-1, 4, 2))), strict=True))


def _corners(fields: list[str]) -> np.ndarray:
    """The corners (4, 2) of a line."""
    if len(fields) not in (NUMBERS, NUMBERS + 1):
        raise ValueError(f"the line has {len(fields)} columns, not {NUMBERS} numbers, with or without a class name")
    values = [number(value, "coordinate") for value in fields[-NUMBERS:]]
    return np.array(values[:8]).reshape(4, 2)
