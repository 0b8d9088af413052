"""CVAT XML ("CVAT for images 1.1"): boxes with `rotation`, ellipses and polygons of each image.

Continuous pixels without shift. `box` has `xtl, ytl, xbr, ybr` before it is turned by `rotation`, in degrees clockwise
about its centre (CVAT's `RotatedBoxesToPolygons`). An `ellipse` (`cx, cy, rx, ry, rotation`) is the box along its axes,
a `polygon` the minimum-area box around it. Polylines, points, masks, cuboids and skeletons are reported, and so are
shapes with `outside="1"`, which are not in the picture. Attributes "difficult" mark difficult objects; "ignore",
"ignored", "crowd" or "is_crowd" ignored regions. `occluded` does not change a box and is not kept; `tag` labels whole
images and has no box. Boxes are oriented if `box_kind`, which `write` adds, says so, or one is turned, or a polygon.
Read: `annotations.xml` or, as Datumaro writes them, `<subset>.xml`, with `images/`; the attribute `subset` of an image
or the name of the file is the split. Files of "CVAT for video" (`track`) are reported.
Written: `<split>.xml` and `images/<split>/`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from xml.etree.ElementTree import Element, SubElement

import numpy as np

from dataengine import geometry
from dataengine.data.file_index import FileIndex
from dataengine.data.label_files import LabelFile, count_of, head_of, image_root, place_record
from dataengine.data.layout import Dataset, Layout, Problem
from dataengine.data.objects import Objects, outline_of, polygon_box, turned_box
from dataengine.data.parse import flag, load_xml, number, stated_size
from dataengine.data.records import Record, assemble
from dataengine.data.staging import Progress, decimal, placed, staged
from dataengine.data.xml_records import fill, save_xml
from dataengine.errors import UserError

NAME = "cvat"
HOLDS = frozenset({"angles", "hbb", "difficult", "ignored"})
_SHAPES = ("box", "polygon", "ellipse")
_UNREAD = ("polyline", "points", "mask", "cuboid", "skeleton")
_IGNORED_LABEL = "ignored"


def recognizes(file: Path, head: str) -> bool:
    """Whether a file, of which `head` are the first 100,000 characters, has labels of this format."""
    inside = re.search(r"<(meta|image|track)[\s>]", head)
    return file.suffix.lower() == ".xml" and bool(re.search(r"<annotations[\s>]", head) and inside)


def annotation_files(path: Path) -> list[Path]:
    """CVAT's XML files of a data set, given its root or one file."""
    if path.is_file():
        return [path]
    return [file for file in FileIndex(path, (".xml",)).files if recognizes(file, head_of(file))]


def splits(path: Path) -> tuple[str, ...]:
    """Names of the splits of a data set, given its root."""
    found: set[str] = set()
    for file in annotation_files(path):
        try:
            found |= {_split(file, element) for element in load_xml(file).iter("image")} or {_split(file, Element(""))}
        except ValueError:  # `read` reports it
            continue
    return tuple(sorted(found - {""}))


def _split(file: Path, image: Element) -> str:
    own = file.parent.name if file.stem == "annotations" and file.parent.name in ("train", "val", "test") else file.stem
    return image.get("subset") or ("" if own == "annotations" else own)


def read(path: str | Path, *, split: str | None = None, classes: Sequence[str] | None = None) -> Dataset:
    """Read a data set from its root or one XML file. `split=None` reads all splits.

    Raises UserError if the path or the split is missing or no image is usable. Smaller faults are listed in
    `Dataset.problems`.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path} does not exist; give the folder with CVAT's XML file and images/")
    if split is not None and split not in splits(path):
        raise UserError(f"{path} has no split {split!r}; it has {', '.join(splits(path)) or 'none'}")
    index = FileIndex(image_root(path))
    problems: list[Problem] = []
    records: list[Record] = []
    names: dict[str, None] = {}
    turned, stated_kind = False, ""
    for file in annotation_files(path):
        try:
            root = load_xml(file)
        except ValueError as error:
            n = sum(count_of(file, f"<{tag} ") for tag in (*_SHAPES, *_UNREAD))
            problems.append(Problem(file, None, f"{error}; the file is skipped", n))
            continue
        names |= dict.fromkeys(_class_names(root))
        stated_kind = stated_kind or (root.findtext("meta/box_kind") or "").strip()
        _report_tracks(file, root, problems)
        for element in root.iter("image"):
            own = _split(file, element)
            if split not in (None, own):
                continue
            stated = element.get("name") or ""
            objects = _objects(file, element, problems)
            turned |= objects.turned
            size = stated_size(element.get("width"), element.get("height"))
            record = objects.record(file, size=size)
            records.append(place_record(record, LabelFile(file, own, _folder(stated)), index, stated))
    kind = stated_kind if stated_kind in ("hbb", "obb") else "obb" if turned else "hbb"
    known = (tuple(names),) if names else ()
    return assemble(records, path, format=NAME, kind=kind, classes=classes, known=known, problems=problems)


def _folder(stated: str) -> str:
    """The folders before the name of an image, apart from `images`, with "/" at the end."""
    folders = stated.replace("\\", "/").split("/")[:-1]
    return "".join(f"{folder}/" for folder in folders if folder not in ("", ".", "..", "images"))


def _class_names(root: Element) -> list[str]:
    names = [(label.findtext("name") or "").strip() for label in root.iterfind("meta//labels/label")]
    return [name for name in names if name and name != _IGNORED_LABEL]


def _report_tracks(file: Path, root: Element, problems: list[Problem]) -> None:
    tracks = root.findall("track")
    if tracks:
        n = sum(shape.get("outside") != "1" for track in tracks for shape in track if shape.tag in (*_SHAPES, *_UNREAD))
        message = f"has {len(tracks)} tracks of CVAT for video, which are skipped; export as CVAT for images 1.1"
        problems.append(Problem(file, None, message, n))


def _objects(file: Path, image: Element, problems: list[Problem]) -> Objects:
    objects = Objects()
    shapes = [element for element in image if element.tag in (*_SHAPES, *_UNREAD)]
    for i, shape in enumerate(shapes, 1):
        try:
            add_shape(objects, shape)
        except ValueError as error:
            where = f"image {image.get('name')!r}, shape {i} ({shape.tag})"
            objects.skip(file, None, f"{where}: {error}")
    problems += objects.problems
    return objects


def add_shape(objects: Objects, shape: Element) -> None:
    """Add what a box, polygon or ellipse of an image labels. Raises ValueError for other shapes and damaged ones."""
    if shape.tag in _UNREAD:
        raise ValueError(f"a {shape.tag} is not read; draw a box or a polygon")
    if flag(shape.get("outside")):
        raise ValueError("it is outside of the picture")
    flags = {attribute.get("name", ""): attribute.text for attribute in shape.iterfind("attribute")}
    name = shape.get("label") or ""
    if shape.tag == "polygon":
        points = _points(shape.get("points") or "")
        objects.add(name, polygon_box(points), flags=flags, outline=outline_of(points))
        objects.turned = True
        return
    degrees = _number(shape, "rotation") if shape.get("rotation") is not None else 0.0
    if shape.tag == "box":
        x1, y1, x2, y2 = (_number(shape, field) for field in ("xtl", "ytl", "xbr", "ybr"))
    else:
        cx, cy, rx, ry = (_number(shape, field) for field in ("cx", "cy", "rx", "ry"))
        x1, y1, x2, y2 = cx - rx, cy - ry, cx + rx, cy + ry
    objects.add(name, turned_box(x1, y1, x2, y2, degrees), flags=flags)
    objects.turned |= degrees % 180 != 0


def _number(shape: Element, field: str) -> float:
    return number(shape.get(field), field)


def _points(text: str) -> np.ndarray:
    """Points (K, 2) of "x,y;x,y". Raises ValueError for anything else."""
    pairs = [pair.split(",") for pair in text.split(";")]
    if any(len(pair) != 2 for pair in pairs):
        raise ValueError("points is not x,y;x,y;...")
    return np.array([[number(value, "points") for value in pair] for pair in pairs], np.float64)


def write(
    dataset: Dataset, path: str | Path, *, split: str = "train", progress: Progress | None = None
) -> list[Problem]:
    """Write one split. Returns problems: what was skipped.

    Raises UserError unless `path` is new, empty or a CVAT set of the same classes written by dataengine.
    """
    path = Path(path)
    problems: list[Problem] = []
    with staged(path, NAME, split, dataset.classes) as work:
        root = fill(Element("annotations"), version="1.1")
        meta = fill(SubElement(root, "meta"), box_kind=dataset.kind)
        task = fill(SubElement(meta, "task"), name=split, mode="annotation")
        labels = SubElement(task, "labels")
        marked = any(len(sample.layout.ignored) for sample in dataset)
        for name in (*dataset.classes, *((_IGNORED_LABEL,) if marked else ())):
            attributes = SubElement(fill(SubElement(labels, "label"), name=name), "attributes")
            for flag_name in ("difficult", "ignored"):
                fields = {"mutable": "False", "input_type": "checkbox", "default_value": "false", "values": "false"}
                fill(SubElement(attributes, "attribute"), name=flag_name, **fields)
        pictures = placed(dataset, work / "images" / split, problems, flat=False, progress=progress)
        for i, (sample, name) in enumerate(pictures):
            width, height = map(str, sample.layout.size)
            fields = {"id": str(i), "name": name + sample.image.suffix, "width": width, "height": height}
            _add_boxes(SubElement(root, "image", fields), sample.layout, dataset.kind)
        save_xml(root, work / f"{split}.xml")
    return problems


def _add_boxes(image: Element, layout: Layout, kind: str) -> None:
    boxes = np.concatenate([layout.boxes, layout.ignored]).astype(np.float64)
    upright = geometry.to_aabb(boxes)
    for i, (cx, cy, w, h, theta) in enumerate(boxes):
        ignored = i >= len(layout)
        label = _IGNORED_LABEL if ignored else layout.classes[layout.labels[i]]
        sides = (cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2) if kind == "obb" else upright[i]
        fields = dict(zip(("xtl", "ytl", "xbr", "ybr"), map(decimal, sides), strict=True))
        if kind == "obb":
            fields["rotation"] = decimal(np.rad2deg(theta) % 360, 5)
        shape = SubElement(image, "box", {"label": label, "occluded": "0", **fields, "z_order": "0"})
        word = "ignored" if ignored else "difficult" if layout.difficult[i] else None
        if word is not None:
            SubElement(shape, "attribute", {"name": word}).text = "true"
