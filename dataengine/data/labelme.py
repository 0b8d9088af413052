"""labelme JSON, also of X-AnyLabeling: one file an image, with rectangles, polygons and turned rectangles as `shapes`.

Points are continuous pixels without shift. Read are "rectangle" (two opposite corners in any order, or four),
"polygon", "oriented_rectangle" and "rotation" (X-AnyLabeling; `direction` repeats the angle of the corners) as the
minimum-area box around their points, and "circle" (centre and a point of the rim) as the square around it. Points,
lines and masks are reported. Shapes of one label and one `group_id` are parts of one object, as in labelme's
converters; each such group is reported. A flag "difficult" marks a difficult object; "ignore", "ignored" or "crowd" an
ignored region. Boxes are oriented if `box_kind`, which `write` adds, says so, or a shape is not a rectangle or circle.
Read: JSON files next to their images or in other folders; the image is the one that `imagePath` names. Files without
`shapes` are not labelme's; they are reported if an image has their name.
Written: `<split>/*.json` next to the images; oriented boxes as polygons of four corners, which every version reads.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dataengine import geometry
from dataengine.data.file_index import FileIndex
from dataengine.data.label_files import (
    count_of,
    find_label_files,
    head_of,
    image_root,
    images_without_labels,
    of_split,
    place_record,
    recognised_splits,
)
from dataengine.data.layout import Dataset, Layout, Problem
from dataengine.data.objects import Objects, is_upright, outline_of, points_of, polygon_box, sides, upright_box
from dataengine.data.parse import load_json, stated_size
from dataengine.data.records import Record, assemble, listed_classes
from dataengine.data.staging import Progress, placed, staged, write_classes
from dataengine.errors import UserError, shown

NAME = "labelme"
HOLDS = frozenset({"angles", "hbb", "difficult", "ignored"})
_VERSION = "5.5.0"  # of labelme, whose files look like this
_TURNED = ("polygon", "oriented_rectangle", "rotation")
_IGNORED_LABEL = "ignored"


def recognizes(file: Path, head: str) -> bool:
    """Whether a file, of which `head` are the first 100,000 characters, has labels of this format."""
    keys = r'"shapes"\s*:\s*\[', r'"(imagePath|imageData|imageHeight|shape_type)"\s*:'
    return file.suffix.lower() == ".json" and all(re.search(key, head) for key in keys)


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
        raise UserError(f"{path} does not exist; give the folder with labelme's JSON files")
    index = FileIndex(image_root(path))
    stems = {file.stem for file in index.files}
    problems: list[Problem] = []
    records: list[Record] = []
    turned, stated_kind = False, ""
    for file in of_split(find_label_files(path, (".json",)), split, path):
        try:
            content = load_json(file.path)
            if not isinstance(content.get("shapes"), list):
                raise ValueError("has no list 'shapes'")
        except ValueError as error:
            ours = path.is_file() or file.path.stem in stems or recognizes(file.path, head_of(file.path))
            if ours:  # others, such as a COCO file beside the images, are passed over
                n = count_of(file.path, '"points"')
                problems.append(Problem(file.path, None, f"{error}; the file and its image are left out", n))
            continue
        objects = _objects(file.path, content["shapes"], problems)
        size = stated_size(content.get("imageWidth"), content.get("imageHeight"))
        stated = str(content.get("imagePath") or file.path.stem)
        records.append(place_record(objects.record(file.path, size=size), file, index, stated))
        turned |= objects.turned
        stated_kind = stated_kind or str(content.get("box_kind") or "")
    if split is None and path.is_dir():
        problems += images_without_labels(index, records, path)
    kind = stated_kind if stated_kind in ("hbb", "obb") else "obb" if turned else "hbb"
    chosen = classes or listed_classes(path)
    return assemble(records, path, format=NAME, kind=kind, classes=chosen, problems=problems)


def _objects(file: Path, shapes: list, problems: list[Problem]) -> Objects:
    objects = Objects()
    groups: dict[tuple[str, str], list[int]] = {}
    for i, shape in enumerate(shapes):
        group = shape.get("group_id") if isinstance(shape, dict) else None
        key = (str(shape.get("label")), str(group)) if group is not None else ("", f"shape {i}")
        groups.setdefault(key, []).append(i)
    for (label, group), members in groups.items():
        where = f"shapes[{members[0]}]" if len(members) == 1 else f"group {group} of {label!r}"
        try:
            _add(objects, [shapes[i] for i in members])
        except ValueError as error:
            objects.skip(file, None, f"{where}: {error}", len(members))
            continue
        if len(members) > 1:
            message = f"{where}: its {len(members)} shapes are parts of one object, as labelme reads them"
            problems.append(Problem(file, None, message, len(members) - 1))
    problems += objects.problems
    return objects


def _add(objects: Objects, shapes: list[dict]) -> None:
    """Add the object that consists of these shapes."""
    for shape in shapes:
        if not isinstance(shape, dict):
            raise ValueError(f"{shown(shape)} is not an object")
        if not isinstance(shape.get("label"), str):
            raise ValueError(f"label is {shown(shape.get('label'))}, not a name")
    parts = [_corners(shape) for shape in shapes]
    points = np.concatenate(parts)
    turned = any(str(shape.get("shape_type") or "polygon") in _TURNED for shape in shapes)
    box = polygon_box(points) if turned else upright_box(*sides(points))
    flags: dict[str, object] = {}
    for shape in shapes:
        own = [shape, shape.get("flags"), shape.get("attributes")]
        for name, value in ((n, v) for source in own if isinstance(source, dict) for n, v in source.items()):
            flags[str(name)] = flags.get(str(name)) or value
    outline = outline_of(points) if turned and len(shapes) == 1 else np.zeros((0, 2), np.float32)
    objects.add(shapes[0]["label"], box, flags=flags, outline=outline)
    objects.turned |= turned


def _corners(shape: dict) -> np.ndarray:
    """Corners (K, 2) of a shape. Raises ValueError for shapes without area."""
    kind = str(shape.get("shape_type") or "polygon")  # the first versions of labelme had polygons only
    points = points_of(shape.get("points"))
    wanted = {"rectangle": (2, 4), "circle": (2,), "oriented_rectangle": (4,), "rotation": (4,)}.get(kind)
    if kind != "polygon" and wanted is None:
        raise ValueError(f"a shape of type {kind!r} is not read; draw a rectangle or a polygon")
    if wanted is not None and len(points) not in wanted:
        raise ValueError(f"a {kind} has {len(points)} points, not {' or '.join(map(str, wanted))}")
    if kind == "circle":
        (x, y), radius = points[0], math.dist(*points)
        points = np.array([[x - radius, y - radius], [x + radius, y + radius]])
    if kind == "rectangle" and len(points) == 4 and not is_upright(points):
        raise ValueError("a rectangle of four corners is not upright; its type should be 'rotation'")
    if kind in ("rectangle", "circle"):
        x1, y1, x2, y2 = sides(points)
        return np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]])
    return points


def write(
    dataset: Dataset, path: str | Path, *, split: str = "train", progress: Progress | None = None
) -> list[Problem]:
    """Write one split. Returns problems: what was skipped.

    Raises UserError unless `path` is new, empty or a labelme set of the same classes written by dataengine.
    """
    path = Path(path)
    problems: list[Problem] = []
    with staged(path, NAME, split, dataset.classes) as work:
        write_classes(work, dataset.classes)
        for sample, name in placed(dataset, work / split, problems, flat=False, progress=progress):
            content = {
                "version": _VERSION,
                "flags": {},
                "shapes": _shapes(sample.layout, dataset.kind),
                "imagePath": Path(name).name + sample.image.suffix,
                "imageData": None,
                "imageHeight": sample.layout.size[1],
                "imageWidth": sample.layout.size[0],
                "box_kind": dataset.kind,
            }
            (work / split / f"{name}.json").write_text(json.dumps(content), "utf-8")
    return problems


def _shapes(layout: Layout, kind: str) -> list[dict]:
    boxes = np.concatenate([layout.boxes, layout.ignored])
    corners = np.round(geometry.to_corners(boxes).astype(np.float64), 4)  # (N, 4, 2)
    shapes = []
    for i, points in enumerate(corners):
        ignored = i >= len(layout)
        flags = {"ignored": True} if ignored else {"difficult": True} if layout.difficult[i] else {}
        low, high = points.min(axis=0).tolist(), points.max(axis=0).tolist()
        shapes.append(
            {
                "label": _IGNORED_LABEL if ignored else layout.classes[layout.labels[i]],
                "points": points.tolist() if kind == "obb" else [low, high],
                "group_id": None,
                "description": "",
                "shape_type": "polygon" if kind == "obb" else "rectangle",
                "flags": flags,
            }
        )
    return shapes
