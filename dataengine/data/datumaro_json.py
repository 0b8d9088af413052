"""Datumaro JSON, which CVAT exports too: boxes and polygons of all images of a subset in one file.

Continuous pixels without shift. `bbox = [x, y, width, height]`; its attribute `rotation`, which CVAT adds, turns it by
so many degrees clockwise about its centre. A `polygon` is the minimum-area box around its points, an `ellipse`
(`x1, y1, x2, y2`) the upright box with these sides. Points, polylines, masks and cuboids are reported; `label` and
`caption` belong to whole images and have no box. `label_id` counts from 0 in `categories.label.labels`. An attribute
"difficult" marks a difficult object; "is_crowd", "ignore" or "ignored" an ignored region; others are not kept. Boxes
are oriented if `infos.box_kind`, which `write` adds, says so, or one is turned, or a polygon.
Read: `annotations/<subset>.json` with `images/<subset>/` or `images/`; the image is the one that `image.path` names,
otherwise the one with the name `id`.
Written: the same; oriented boxes as polygons of four corners, since Datumaro's own reader does not turn a `bbox`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dataengine import geometry
from dataengine.data.file_index import FileIndex, plain_name
from dataengine.data.label_files import LabelFile, count_of, head_of, image_root, place_record
from dataengine.data.layout import Dataset, Layout, Problem
from dataengine.data.objects import Objects, outline_of, points_of, polygon_box, turned_box, upright_box
from dataengine.data.parse import load_json, number, stated_size
from dataengine.data.records import Record, assemble
from dataengine.data.staging import Progress, placed, staged
from dataengine.errors import UserError, shown

NAME = "datumaro"
HOLDS = frozenset({"angles", "hbb", "difficult", "ignored"})
_OF_IMAGES = ("label", "caption")  # annotations without a place
_IGNORED_LABEL = "ignored"


def recognizes(file: Path, head: str) -> bool:
    """Whether a file, of which `head` are the first 100,000 characters, has labels of this format."""
    if file.suffix.lower() != ".json":
        return False
    keys = r'"items"\s*:\s*\[', r'"categories"\s*:\s*\{'
    return '"dm_format_version"' in head or all(re.search(key, head) for key in keys)


def annotation_files(path: Path) -> dict[str, Path]:
    """{subset: annotation file} of a data set, given its root or one annotation file."""
    if path.is_file():
        return {path.stem: path}
    found = [file for file in FileIndex(path, (".json",)).files if recognizes(file, head_of(file))]
    stems = [file.stem for file in found]
    return {
        stem if stems.count(stem) == 1 else f"{file.parent.name}-{stem}": file
        for stem, file in zip(stems, found, strict=True)
    }


def splits(path: Path) -> tuple[str, ...]:
    """Names of the splits of a data set, given its root."""
    return tuple(annotation_files(path))


def read(path: str | Path, *, split: str | None = None, classes: Sequence[str] | None = None) -> Dataset:
    """Read a data set from its root or one annotation file. `split=None` reads all splits.

    Raises UserError if the path or the split is missing or no image is usable. Smaller faults are listed in
    `Dataset.problems`.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path} does not exist; give the folder with Datumaro's annotations/ and images/")
    files = annotation_files(path)
    if split is not None and split not in files:
        raise UserError(f"{path} has no split {split!r}; it has {', '.join(files) or 'no annotations/*.json'}")
    index = FileIndex(image_root(path))
    problems: list[Problem] = []
    records: list[Record] = []
    names: dict[str, None] = {}
    turned, stated_kind = False, ""
    for name, file in files.items():
        if split not in (None, name):
            continue
        try:
            content = load_json(file)
            labels = _labels(content)
            for item in _items(content):
                record, objects = _record(file, name, item, labels, index, problems)
                records.append(record)
                turned |= objects.turned
        except ValueError as error:
            problems.append(Problem(file, None, f"{error}; the file is skipped", count_of(file, '"label_id"')))
            continue
        names |= dict.fromkeys(label for label in labels if label != _IGNORED_LABEL)
        infos = content.get("infos")
        stated_kind = stated_kind or str(infos.get("box_kind") or "") if isinstance(infos, dict) else stated_kind
    kind = stated_kind if stated_kind in ("hbb", "obb") else "obb" if turned else "hbb"
    known = (tuple(names),) if names else ()
    return assemble(records, path, format=NAME, kind=kind, classes=classes, known=known, problems=problems)


def _labels(content: dict) -> list[str]:
    categories = content.get("categories")
    label = categories.get("label") if isinstance(categories, dict) else None
    listed = label.get("labels") if isinstance(label, dict) else []
    if not isinstance(listed, list) or not all(isinstance(entry, dict) and "name" in entry for entry in listed):
        raise ValueError("categories.label.labels is not a list of objects with a name")
    return [str(entry["name"]) for entry in listed]


def _items(content: dict) -> list[dict]:
    items = content.get("items")
    if not isinstance(items, list):
        raise ValueError("has no list 'items'")
    for i, item in enumerate(items):
        if not isinstance(item, dict) or not isinstance(item.get("annotations"), list):
            raise ValueError(f"items[{i}] has no list 'annotations'")
    return items


def _record(
    file: Path, split: str, item: dict, labels: list[str], index: FileIndex, problems: list[Problem]
) -> tuple[Record, Objects]:
    name = str(item.get("id") or "")
    objects = Objects()
    for i, entry in enumerate(item["annotations"]):
        try:
            _add(objects, entry, labels)
        except ValueError as error:
            objects.skip(file, None, f"item {name!r}, annotation {i}: {error}")
    problems += objects.problems
    image = item.get("image") if isinstance(item.get("image"), dict) else {}
    size = image.get("size")
    height, width = size if isinstance(size, list) and len(size) == 2 else (None, None)
    stated = str(image.get("path") or name)
    record = objects.record(file, size=stated_size(width, height))
    record = place_record(record, LabelFile(file, split, ""), index, stated)
    folders = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    record.name = plain_name("/".join(folders)) or record.name
    return record, objects


def _add(objects: Objects, entry: object, labels: list[str]) -> None:
    if not isinstance(entry, dict):
        raise ValueError(f"{shown(entry)} is not an object")
    kind = entry.get("type")
    if kind in _OF_IMAGES:
        return
    attributes = entry.get("attributes") if isinstance(entry.get("attributes"), dict) else {}
    label = number(entry.get("label_id"), "label_id")
    if label not in range(len(labels)):
        raise ValueError(f"label_id is {label:g}, but there are {len(labels)} labels")
    name = labels[int(label)]
    if kind == "polygon":
        points = points_of(entry.get("points"))
        objects.add(name, polygon_box(points), flags=attributes, outline=outline_of(points))
        objects.turned = True
    elif kind == "bbox":
        x, y, width, height = _four(entry.get("bbox"), "bbox")
        degrees = number(attributes["rotation"], "rotation") if attributes.get("rotation") is not None else 0.0
        objects.add(name, turned_box(x, y, x + width, y + height, degrees), flags=attributes)
        objects.turned |= degrees % 180 != 0
    elif kind == "ellipse":
        objects.add(name, upright_box(*_four(entry.get("points"), "points")), flags=attributes)
    else:
        raise ValueError(f"an annotation of type {shown(kind)} is not read; boxes and polygons are")


def _four(values: object, what: str) -> list[float]:
    if not isinstance(values, list) or len(values) != 4:
        raise ValueError(f"{what} is {shown(values)}, not four numbers")
    return [number(value, what) for value in values]


def write(
    dataset: Dataset, path: str | Path, *, split: str = "train", progress: Progress | None = None
) -> list[Problem]:
    """Write one split. Returns problems: what was skipped.

    Raises UserError unless `path` is new, empty or a Datumaro set of the same classes written by dataengine.
    """
    path = Path(path)
    problems: list[Problem] = []
    with staged(path, NAME, split, dataset.classes) as work:
        items = []
        for sample, name in placed(dataset, work / "images" / split, problems, flat=False, progress=progress):
            layout = sample.layout
            image = {"path": name + sample.image.suffix, "size": [layout.size[1], layout.size[0]]}
            annotations = _annotations(layout, dataset)
            items.append({"id": name, "annotations": annotations, "attr": {"frame": len(items)}, "image": image})
        marked = any(len(sample.layout.ignored) for sample in dataset)
        names = (*dataset.classes, *((_IGNORED_LABEL,) if marked else ()))
        labels = [{"name": name, "parent": "", "attributes": []} for name in names]
        content = {
            "dm_format_version": "1.0",
            "media_type": 2,  # images
            "infos": {"box_kind": dataset.kind},
            "categories": {"label": {"labels": labels, "label_groups": [], "attributes": []}},
            "items": items,
        }
        file = work / "annotations" / f"{split}.json"
        file.parent.mkdir()
        file.write_text(json.dumps(content), "utf-8")
    return problems


def _annotations(layout: Layout, dataset: Dataset) -> list[dict]:
    boxes = np.concatenate([layout.boxes, layout.ignored])
    corners = np.round(geometry.to_corners(boxes).astype(np.float64), 4)  # (N, 4, 2)
    low, high = corners.min(axis=1), corners.max(axis=1)
    entries = []
    for i, points in enumerate(corners):
        ignored = i >= len(layout)
        attributes = {"is_crowd": True} if ignored else {"difficult": True} if layout.difficult[i] else {}
        label = len(dataset.classes) if ignored else int(layout.labels[i])
        entry = {"id": i, "attributes": attributes, "group": 0, "label_id": label, "z_order": 0}
        if dataset.kind == "obb":
            entries.append({**entry, "type": "polygon", "points": points.ravel().tolist()})
        else:
            bbox = np.round(np.concatenate([low[i], high[i] - low[i]]), 4).tolist()
            entries.append({**entry, "type": "bbox", "bbox": bbox})
    return entries
