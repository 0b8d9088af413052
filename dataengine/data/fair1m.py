"""FAIR1M XML: rotated boxes of 37 fine classes as `points` in `objects/object`, the first corner repeated at the end.

Each `point` is "x,y" in continuous pixels without shift, as JDet and torchgeo read them; the minimum-area box around
them is the object. The class is `possibleresult/name`; "other-ship", "other-vehicle" and "other-airplane" are classes.
Objects whose `coordinate` is not "pixel", and those with several different names, are reported.
Read: `labelXml/` or `labelXmls/` next to `images/`, in `train/part1/`, `validation/` or any other folder; the image is
the one that `source/filename` names. The format is read, not written.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from xml.etree.ElementTree import Element

import numpy as np

from dataengine.data.file_index import FileIndex
from dataengine.data.label_files import (
    count_of,
    find_label_files,
    image_root,
    images_without_labels,
    of_split,
    place_record,
    recognised_splits,
)
from dataengine.data.layout import Dataset, Problem
from dataengine.data.objects import Objects, polygon_box
from dataengine.data.parse import element_text, load_xml, number, stated_size
from dataengine.data.records import Record, assemble
from dataengine.errors import UserError

NAME = "fair1m"
CLASSES = (
    "Passenger Ship", "Motorboat", "Fishing Boat", "Tugboat", "other-ship", "Engineering Ship", "Liquid Cargo Ship",
    "Dry Cargo Ship", "Warship", "Small Car", "Bus", "Cargo Truck", "Dump Truck", "other-vehicle", "Van", "Trailer",
    "Tractor", "Excavator", "Truck Tractor", "Boeing737", "Boeing747", "Boeing777", "Boeing787", "ARJ21", "C919",
    "A220", "A321", "A330", "A350", "other-airplane", "Baseball Field", "Basketball Court", "Football Field",
    "Tennis Court", "Roundabout", "Intersection", "Bridge",
)  # fmt: skip


def recognizes(file: Path, head: str) -> bool:
    """Whether a file, of which `head` are the first 100,000 characters, has labels of this format."""
    return file.suffix.lower() == ".xml" and bool(re.search(r"<annotation[\s>].*<objects\s*/?>", head, re.DOTALL))


def splits(path: Path) -> tuple[str, ...]:
    """Names of the splits of a data set, given its root."""
    return recognised_splits(find_label_files(path, (".xml",)), recognizes)


def read(path: str | Path, *, split: str | None = None, classes: Sequence[str] | None = None) -> Dataset:
    """Read a data set from its root or one XML file. `split=None` reads all splits.

    Raises UserError if the path or the split is missing or no image is usable. Smaller faults are listed in
    `Dataset.problems`.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path} does not exist; give the FAIR1M folder with images/ and labelXml/")
    index = FileIndex(image_root(path))
    problems: list[Problem] = []
    records: list[Record] = []
    for file in of_split(find_label_files(path, (".xml",)), split, path):
        try:
            root = load_xml(file.path)
        except ValueError as error:
            n = count_of(file.path, "<object>")
            problems.append(Problem(file.path, None, f"{error}; the file and its image are left out", n))
            continue
        record = _objects(file.path, root, problems).record(file.path, size=_size(root))
        stated = (root.findtext("source/filename") or "").strip() or file.path.stem
        records.append(place_record(record, file, index, stated))
    if split is None and path.is_dir():
        problems += images_without_labels(index, records, path)
    return assemble(records, path, format=NAME, kind="obb", classes=classes, known=(CLASSES,), problems=problems)


def _size(root: Element) -> tuple[int, int] | None:
    return stated_size(root.findtext("size/width"), root.findtext("size/height"))


def _objects(file: Path, root: Element, problems: list[Problem]) -> Objects:
    objects = Objects()
    for i, element in enumerate(root.iter("object"), 1):
        try:
            objects.add(_name(element), _box(element), flags={child.tag: child.text for child in element})
        except ValueError as error:
            objects.skip(file, None, f"object {i}: {error}")
    problems += objects.problems
    return objects


def _name(element: Element) -> str:
    names = {element_text(result, "name") for result in element.findall("possibleresult")}
    if len(names) != 1:
        raise ValueError(f"it has the names {', '.join(sorted(names))}" if names else "it has no name")
    return names.pop()


def _box(element: Element) -> np.ndarray:
    unit = (element.findtext("coordinate") or "pixel").strip()
    if unit.lower() != "pixel":
        raise ValueError(f"its coordinates are in {unit!r}, not in pixels")
    points = []
    for point in element.findall("points/point"):
        numbers = (point.text or "").split(",")
        if len(numbers) != 2:
            raise ValueError(f"<point> is {point.text!r}, not x,y")
        points.append([number(value, "<point>") for value in numbers])
    return polygon_box(np.array(points, np.float64).reshape(-1, 2))
