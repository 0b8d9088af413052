"""Airbus sample data in CSV: one line an object, with `image_id`, `class`, and `bounds` or `geometry`.

`bounds` is "(x1, y1, x2, y2)" (oil storage), `geometry` a closed polygon "[(x, y), ...]" (aircraft), both in continuous
pixels without shift: the tanks at the border of a 2560-pixel image end at 2560. The minimum-area box around a polygon
is the object; if all are upright, the boxes are horizontal. "Truncated_airplane" is a class of its own.
Read: `annotations.csv` with `images/`; `image_id` has a suffix or none. Images without a line (Airbus's `extras/`) are
left out. The format is read, not written.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dataengine.data.file_index import FileIndex
from dataengine.data.label_files import LabelFile, image_root, images_without_labels, place_record
from dataengine.data.layout import Dataset, Problem
from dataengine.data.objects import Objects, is_upright, outline_of, polygon_box, sides, upright_box
from dataengine.data.parse import csv_rows, number
from dataengine.data.records import assemble
from dataengine.errors import UserError, shown
from dataengine.files import MAX_TEXT_BYTES, read_text

NAME = "airbus"
_NUMBER = r"\s*[-+\d.eE]{1,40}\s*"
_BOUNDS = re.compile(rf"\s*[(\[]{_NUMBER},{_NUMBER},{_NUMBER},{_NUMBER}[)\]]\s*")
_POINT = re.compile(rf"[(\[]({_NUMBER}),({_NUMBER})[)\]]")
_POLYGON = re.compile(rf"\s*[(\[](?:\s*[(\[]{_NUMBER},{_NUMBER}[)\]](?:\s*,)?)+\s*[)\]]\s*")


def recognizes(file: Path, head: str) -> bool:
    """Whether a file, of which `head` are the first 100,000 characters, has labels of this format."""
    if file.suffix.lower() != ".csv":
        return False
    columns = {name.strip() for name in head.lstrip("\ufeff").split("\n", 1)[0].split(",")}
    return {"image_id", "class"} <= columns and bool(columns & {"bounds", "geometry"})


def splits(path: Path) -> tuple[str, ...]:
    """Names of the splits of a data set, given its root: there are none."""
    return ()


def read(path: str | Path, *, split: str | None = None, classes: Sequence[str] | None = None) -> Dataset:
    """Read a data set from its root or the CSV file.

    Raises UserError if the path is missing, a split is asked for, or no image is usable. Smaller faults are listed in
    `Dataset.problems`.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path} does not exist; give the folder with annotations.csv and images/")
    if split is not None:
        raise UserError(f"{path} has no split {split!r}; Airbus's sample data have no splits")
    index = FileIndex(image_root(path))
    problems: list[Problem] = []
    records, turned = [], False
    for file in [path] if path.is_file() else FileIndex(path, (".csv",)).files:
        text = read_text(file, MAX_TEXT_BYTES)
        if path.is_dir() and not recognizes(file, text):
            continue
        for name, objects in _objects(file, text, problems).items():
            records.append(place_record(objects.record(file), LabelFile(file, "", ""), index, name))
            turned |= objects.turned
    if path.is_dir():
        problems += images_without_labels(index, records, path)
    kind = "obb" if turned else "hbb"
    return assemble(records, path, format=NAME, kind=kind, classes=classes, problems=problems)


def _objects(file: Path, text: str, problems: list[Problem]) -> dict[str, Objects]:
    """{image_id: its objects} of a CSV file."""
    found: dict[str, Objects] = {}
    reader = csv.reader(io.StringIO(text), skipinitialspace=True)
    names = [name.strip() for name in next(reader)]
    for line, values in csv_rows(file, text, reader, problems):
        row = dict(zip(names, values, strict=False))
        name = row.get("image_id", "").strip()
        try:
            if not name:
                raise ValueError("the line has no image_id")
            objects = found.get(name, Objects())
            _add(objects, row, line)
            found[name] = objects  # not before: an image whose lines cannot be read is not empty
        except ValueError as error:
            problems.append(Problem(file, line, f"{error}; the object is skipped", 1))
    return found


def _add(objects: Objects, row: dict[str, str], line: int) -> None:
    name = str(row.get("class") or "")
    bounds, geometry = row.get("bounds"), row.get("geometry")
    if bounds is not None:
        if not _BOUNDS.fullmatch(bounds):
            raise ValueError(f"bounds is {shown(bounds)}, not (x1, y1, x2, y2)")
        values = [number(value, "bounds") for value in bounds.strip()[1:-1].split(",")]
        objects.add(name, upright_box(*values), line=line)
        return
    if not geometry or not _POLYGON.fullmatch(geometry):
        raise ValueError(f"geometry is {shown(geometry)}, not [(x, y), ...]")
    points = np.array([[number(value, "geometry") for value in pair] for pair in _POINT.findall(geometry)])
    box = polygon_box(points)
    if is_upright(points):
        box = upright_box(*sides(points))
    else:
        objects.turned = True
    objects.add(name, box, line=line, outline=outline_of(points))
