"""SODA-A JSON: small objects in aerial images, one file an image, each object a polygon of eight or more numbers.

`poly = [x1, y1, x2, y2, ...]` in continuous pixels without shift, as SODA-mmrotate and torchgeo read it; the
minimum-area box around it is the object. (SODA-mmrotate passes over polygons of more than four points; here they are
read.) Names come from `categories`, otherwise from SODA-A's own list. The category "ignore", number 9, is an ignored
region. Tiles made by SODA-mmrotate's script have `cat_id` for `category_id`.
Read: `Annotations/<split>/*.json` (or any folders) and `Images/`; the image is `images.file_name`, otherwise the one
with the name of the file. The format is read, not written.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from dataengine.data.file_index import FileIndex
from dataengine.data.label_files import (
    LabelFile,
    count_of,
    find_label_files,
    image_root,
    images_without_labels,
    of_split,
    place_record,
    recognised_splits,
)
from dataengine.data.layout import Dataset, Problem
from dataengine.data.objects import IGNORED, Objects, points_of, polygon_box
from dataengine.data.parse import load_json, number, stated_size
from dataengine.data.records import Record, assemble
from dataengine.errors import UserError, shown

NAME = "soda-a"
CLASSES = (
    "airplane", "helicopter", "small-vehicle", "large-vehicle", "ship", "container", "storage-tank", "swimming-pool",
    "windmill",
)  # fmt: skip
IGNORE = "ignore"


def recognizes(file: Path, head: str) -> bool:
    """Whether a file, of which `head` are the first 100,000 characters, has labels of this format."""
    if file.suffix.lower() != ".json":
        return False
    if re.search(r'"(bbox|segmentation)"\s*:', head):
        return False
    polygon = re.search(r'"poly"\s*:\s*\[', head) and re.search(r'"(category_id|cat_id)"\s*:', head)
    no_objects = re.search(r'"images"\s*:\s*\{', head) and re.search(r'"annotations"\s*:\s*\[', head)
    return bool(polygon or no_objects)


def splits(path: Path) -> tuple[str, ...]:
    """Names of the splits of a data set, given its root."""
    return recognised_splits(find_label_files(path, (".json",)), recognizes)


def read(path: str | Path, *, split: str | None = None, classes: Sequence[str] | None = None) -> Dataset:
    """Read a data set from its root or one JSON file. `split=None` reads all splits.

    Raises UserError if the path or the split is missing or no image is usable. Smaller faults are listed in
    `Dataset.problems`.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path} does not exist; give the SODA-A folder with Images/ and Annotations/")
    index = FileIndex(image_root(path))
    problems: list[Problem] = []
    records: list[Record] = []
    for file in of_split(find_label_files(path, (".json",)), split, path):
        try:
            records.append(_record(file, load_json(file.path), index, problems))
        except ValueError as error:
            n = count_of(file.path, '"poly"')
            problems.append(Problem(file.path, None, f"{error}; the file and its image are left out", n))
    if split is None and path.is_dir():
        problems += images_without_labels(index, records, path)
    return assemble(records, path, format=NAME, kind="obb", classes=classes, known=(CLASSES,), problems=problems)


def _record(file: LabelFile, content: dict, index: FileIndex, problems: list[Problem]) -> Record:
    """Raises ValueError if the file has no annotations of this format."""
    annotations, picture = content.get("annotations"), content.get("images")
    if not isinstance(annotations, list):
        raise ValueError("has no list 'annotations'")
    if isinstance(picture, list) and len(picture) == 1:
        picture = picture[0]
    picture = picture if isinstance(picture, dict) else {}
    names = _category_names(content)
    objects = Objects()
    for i, entry in enumerate(annotations):
        try:
            _add(objects, entry, names)
        except ValueError as error:
            objects.skip(file.path, None, f"annotations[{i}]: {error}")
    problems += objects.problems
    size = stated_size(picture.get("width"), picture.get("height"))
    stated = str(picture.get("file_name") or file.path.stem)
    return place_record(objects.record(file.path, size=size), file, index, stated)


def _category_names(content: dict) -> dict[float, str]:
    listed = content.get("categories")
    if not isinstance(listed, list) or not listed:
        return dict(enumerate((*CLASSES, IGNORE)))
    names = {}
    for i, entry in enumerate(listed):
        if not isinstance(entry, dict) or "id" not in entry or "name" not in entry:
            raise ValueError(f"categories[{i}] has no id or no name")
        names[number(entry["id"], "id")] = str(entry["name"])
    return names


def _add(objects: Objects, entry: object, names: dict[float, str]) -> None:
    if not isinstance(entry, dict):
        raise ValueError(f"{shown(entry)} is not an object")
    category = number(entry.get("category_id", entry.get("cat_id")), "category_id")
    if category not in names:
        raise ValueError(f"category {category:g} is unknown; the file has {', '.join(f'{key:g}' for key in names)}")
    name = names[category]
    box = polygon_box(points_of(entry.get("poly"), "poly"))
    objects.add(name, box, flags=entry | {"ignored": name.strip().lower() in IGNORED})
