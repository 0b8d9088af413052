"""CSV with an upright box on each line: the forms of RetinaNet, TensorFlow, DeepForest and Roboflow.

With a header, columns are known by their names, in any order: the image (`filename`, `image`, `image_path` ...), the
class (`class`, `label` ...), `xmin, ymin, xmax, ymax` (or `x1, y1, x2, y2`), and perhaps `width` and `height` of the
image. Without a header, RetinaNet's order holds: `image,x1,y1,x2,y2,class`. Coordinates are continuous pixels without
shift, as keras-retinanet and TensorFlow's object detection use them. A line with an image and no box says that the
image has no objects. Separators are commas, semicolons or tabs.
Read: any CSV file with such lines; images anywhere below, by name. `train.csv`, `val_labels.csv` and
`train/_annotations.csv` name the splits. `classes.csv` of RetinaNet (`name,number`) lists the classes.
Written: `<split>.csv` in TensorFlow's form, and `images/<split>/`. Rotated boxes become the upright ones around them.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from dataengine import geometry
from dataengine.data.border import visible_hulls
from dataengine.data.file_index import IMAGE_SUFFIXES, FileIndex
from dataengine.data.label_files import (
    LabelFile,
    find_label_files,
    head_of,
    image_root,
    images_without_labels,
    of_split,
    place_record,
    split_names,
    split_word,
)
from dataengine.data.layout import Dataset, Problem
from dataengine.data.objects import NO_OUTLINE, Objects
from dataengine.data.parse import csv_rows, is_number, line_count, number, stated_size
from dataengine.data.records import assemble
from dataengine.data.staging import Progress, decimal, placed, staged
from dataengine.errors import UserError
from dataengine.files import MAX_TEXT_BYTES, read_text

NAME = "csv"
HOLDS = frozenset({"hbb"})
COLUMNS = {
    "image": ("filename", "file_name", "file", "image", "image_path", "image_name", "image_file", "image_id", "path"),
    "class": ("class", "class_name", "label", "label_name", "category", "name"),
    "x1": ("xmin", "x1", "x_min", "left"),
    "y1": ("ymin", "y1", "y_min", "top"),
    "x2": ("xmax", "x2", "x_max", "right"),
    "y2": ("ymax", "y2", "y_max", "bottom"),
    "width": ("width", "image_width", "img_width"),
    "height": ("height", "image_height", "img_height"),
}
RETINANET = ("image", "x1", "y1", "x2", "y2", "class")
NEEDED = frozenset(RETINANET)
SIDES = ("x1", "y1", "x2", "y2")
WRITTEN = ("filename", "width", "height", "class", "xmin", "ymin", "xmax", "ymax")
CLASS_LISTS = ("classes.csv", "_classes.csv", "class_list.csv")


def recognizes(file: Path, head: str) -> bool:
    """Whether a file has boxes of this format. head: its first characters."""
    return file.suffix.lower() == ".csv" and _columns(head) is not None


def _separator(line: str) -> str:
    return max(",;\t", key=line.count)


def _fields(text: str) -> list[str]:
    """The first line of a file in its parts; none where it is no CSV."""
    line = text.lstrip("\ufeff").split("\n", 1)[0]
    try:
        return [field.strip() for field in next(csv.reader([line], delimiter=_separator(line)), [])]
    except csv.Error:
        return []


def _columns(text: str) -> dict[str, int] | None:
    """{column: its place} by the first line of a file, None if that is of another format."""
    names = [name.lower() for name in _fields(text)]
    found = {
        column: names.index(name) for column, known in COLUMNS.items() for name in known[::-1] if name in names
    }  # the first of the known names that is there
    if found.keys() >= NEEDED:
        return found
    is_image = bool(names) and names[0].endswith(IMAGE_SUFFIXES)
    if len(names) == len(RETINANET) and is_image and (all(map(is_number, names[1:5])) or not any(names[1:])):
        return {column: i for i, column in enumerate(RETINANET)}
    return None


def _has_header(text: str) -> bool:
    columns = _columns(text)
    return columns is not None and _fields(text)[columns["image"]].lower() in COLUMNS["image"]


def splits(path: Path) -> tuple[str, ...]:
    """Names of the splits of a data set, given its root."""
    return split_names(_files(path))


def _files(path: Path) -> list[LabelFile]:
    """The files with boxes; the name of the file says its split where its folder does not."""
    files = find_label_files(path, (".csv",))
    if path.is_dir():
        files = [file for file in files if recognizes(file.path, head_of(file.path))]
    return [file if file.split else replace(file, split=split_word(file.path.stem)) for file in files]


def read(path: str | Path, *, split: str | None = None, classes: Sequence[str] | None = None) -> Dataset:
    """Read a data set from its root or one CSV file. `split=None` reads all splits.

    Raises UserError if the path or the split is missing, if coordinates are fractions, or if no image is usable.
    Smaller faults are listed in `Dataset.problems`.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path} does not exist; give the folder with the CSV files and the images")
    files = _files(path)
    if not files:
        raise UserError(f"{path} has no CSV file with boxes; a line has an image, xmin, ymin, xmax, ymax and a class")
    index = FileIndex(image_root(path))
    problems: list[Problem] = []
    records = []
    for file in of_split(files, split, path):
        for name, (objects, size) in _objects(file.path, problems).items():
            records.append(place_record(objects.record(file.path, size=size), file, index, name))
    if split is None and path.is_dir():
        problems += images_without_labels(index, records, path)
    known = (names,) if path.is_dir() and (names := _listed(path)) else ()
    return assemble(records, path, format=NAME, kind="hbb", classes=classes, known=known, problems=problems)


def _listed(root: Path) -> tuple[str, ...]:
    """The names in RetinaNet's list of classes, by their numbers; () without such a list."""
    for file in (root / name for name in CLASS_LISTS):
        if file.is_file():
            try:
                rows = [row for row in csv.reader(read_text(file, MAX_TEXT_BYTES).splitlines()) if row]
            except csv.Error:
                continue
            if all(len(row) == 2 and re.fullmatch(r"\s*[0-9]{1,9}\s*", row[1]) for row in rows):
                return tuple(row[0].strip() for row in sorted(rows, key=lambda row: int(row[1])))
    return ()


def _objects(file: Path, problems: list[Problem]) -> dict[str, tuple[Objects, tuple[int, int] | None]]:
    """{image: (its objects, its size where that is stated)} of a CSV file."""
    try:
        text = read_text(file, MAX_TEXT_BYTES)
    except UserError as error:
        objects = line_count(file) - _has_header(head_of(file))
        problems.append(Problem(file, None, f"{error}; the file is skipped", objects))
        return {}
    columns = _columns(text)
    if columns is None:
        raise UserError(
            f"{file}: its first line has no columns for an image, xmin, ymin, xmax, ymax and a class; name them so"
        )
    found: dict[str, tuple[Objects, tuple[int, int] | None]] = {}
    for line, row in _rows(file, text, columns, problems):
        name = row["image"]
        if not name:
            problems.append(Problem(file, line, "the line has no image; the object is skipped", 1))
            continue
        objects, _ = found.setdefault(name, (Objects(), stated_size(row.get("width"), row.get("height"))))
        if not any(row[side] for side in SIDES) and not row["class"]:
            continue  # an image without objects
        try:
            _add(objects, row, line)
        except ValueError as error:
            objects.skip(file, line, str(error))
    problems += [problem for objects, _ in found.values() for problem in objects.problems]
    if max((value for objects, _ in found.values() for box in objects.boxes for value in box), default=2) <= 1:
        raise UserError(
            f"{file}: no coordinate is above 1, so they are fractions of the image; multiply them by its width and "
            "height"
        )
    for objects, _ in found.values():  # at once: a call for each box takes most of the time
        objects.boxes = geometry.from_aabb(np.array(objects.boxes, np.float32).reshape(-1, 4))
    return found


def _add(objects: Objects, row: dict[str, str], line: int) -> None:
    """Add the object of a line, with its four sides as box for now."""
    x1, y1, x2, y2 = (number(row[side], side) for side in SIDES)
    if x2 < x1 or y2 < y1:
        raise ValueError(f"its box ends before it begins: {x1:g}, {y1:g}, {x2:g}, {y2:g}")
    if x2 == x1 or y2 == y1:
        raise ValueError(f"its box is {x2 - x1:g} wide and {y2 - y1:g} high, so it has no area")
    if not row["class"]:
        raise ValueError("it has no class name")
    objects.names.append(row["class"])
    objects.boxes.append((x1, y1, x2, y2))
    objects.difficult.append(False)
    objects.lines.append(line)
    objects.outlines.append(NO_OUTLINE)


def _rows(
    file: Path, text: str, columns: dict[str, int], problems: list[Problem]
) -> Iterator[tuple[int, dict[str, str]]]:
    """(number of the line, {column: text}) of each line with an object."""
    reader = csv.reader(io.StringIO(text), delimiter=_separator(text.split("\n", 1)[0]), skipinitialspace=True)
    if _has_header(text):
        next(reader)
    wanted = max(columns[name] for name in NEEDED) + 1
    for line, row in csv_rows(file, text, reader, problems):
        if not any(map(str.strip, row)):
            continue
        if len(row) < wanted:
            what = f"the line has {len(row)} columns, not {wanted}; the object is skipped"
            problems.append(Problem(file, line, what, 1))
        else:
            yield line, {name: row[i].strip() for name, i in columns.items() if i < len(row)}


def write(
    dataset: Dataset, path: str | Path, *, split: str = "train", progress: Progress | None = None
) -> list[Problem]:
    """Write one split in TensorFlow's form. Returns problems: what was skipped.

    Raises UserError unless `path` is new, empty or a CSV set of the same classes written by dataengine.
    """
    path = Path(path)
    problems: list[Problem] = []
    with staged(path, NAME, split, dataset.classes) as work:
        (work / "classes.csv").write_text(_text((name, i) for i, name in enumerate(dataset.classes)), "utf-8")
        rows = [WRITTEN]
        images = work / "images" / split
        for sample, name in placed(dataset, images, problems, fill_ignored=True, progress=progress):
            layout = sample.layout
            image = (name + sample.image.suffix, *layout.size)
            hulls = visible_hulls(layout.boxes, layout.size)
            for word, hull in zip(layout.names(), hulls, strict=True):
                rows.append((*image, word, *map(decimal, hull)))
            if not len(layout):
                rows.append((*image, "", "", "", "", ""))
        (work / f"{split}.csv").write_text(_text(rows), "utf-8")
    return problems


def _text(rows: Iterable[Sequence]) -> str:
    content = io.StringIO()
    csv.writer(content, lineterminator="\n").writerows(rows)
    return content.getvalue()
