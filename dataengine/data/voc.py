"""Pascal VOC XML: horizontal boxes as `xmin, ymin, xmax, ymax`, the indices of the first and last pixel, from 1.

Pixels count from 1 and both ends are inside, so the continuous box is `xmin - 1, ymin - 1, xmax, ymax`, and a box of
width w is written with `xmax - xmin = w - 1`. Datumaro, globox and some labelling tools count from 0 and exclude the
last pixel: the four numbers are then the continuous box. The boxes at the border decide which rule holds: if more of
them begin at 0 than at 1, pixels are counted from 0. `first_pixel` states it instead. Fractions are read and written.
Read: XML files in `Annotations/` or next to their images, at the root or in a folder of each split, with lists of the
splits in `ImageSets/Main/<split>.txt`. An object with `<polygon>` instead of `<bndbox>` (DroneVehicle), with a polygon
of four other corners, or with CVAT's attribute `rotation` (degrees clockwise around the centre) makes the data set
rotated. Rotated boxes are written as the axis-aligned boxes around them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from xml.etree.ElementTree import Element, SubElement

import numpy as np

from dataengine import geometry
from dataengine.data.border import visible_hulls
from dataengine.data.layout import Dataset, Problem
from dataengine.data.parse import element_number, element_text, flag
from dataengine.data.records import assemble, listed_classes
from dataengine.data.staging import Progress, decimal, placed, staged, write_classes
from dataengine.data.xml_records import fill, find_splits, read_records, save_xml, write_list
from dataengine.errors import UserError

NAME = "voc"
COLUMNS = 13  # numbers of an object in `_parse`
HOLDS = frozenset({"difficult", "hbb"})
_ANGLES = ("angle", "rotation", "theta", "orientation")


def recognizes(file: Path, head: str) -> bool:
    """Whether a file is an annotation of VOC. head: its first characters."""
    if file.suffix.lower() != ".xml" or not re.search(r"<annotation[\s>]", head):
        return False
    if any(tag in head for tag in ("<robndbox>", "<HRSC_Image", "<x_left_top>", "<objects")):
        return False
    return any(tag in head for tag in ("<bndbox>", "<polygon>", "<object>", "<filename>"))


def splits(path: Path) -> tuple[str, ...]:
    """Names of the splits of a data set, given its root."""
    return find_splits(path)


def read(
    path: str | Path, *, split: str | None = None, classes: Sequence[str] | None = None, first_pixel: int | None = None
) -> Dataset:
    """Read a data set from its root. `split=None` reads all annotations; first_pixel: index of the first pixel, 0 or 1,
    None to find it out.

    Raises UserError if the path or the split is missing or no image is usable. Smaller faults are listed in
    `Dataset.problems`, and the pixel rule in `Dataset.notes`.
    """
    path = Path(path)
    if not path.is_dir():
        raise UserError(f"{path} is not a folder; give the VOC folder with Annotations/ and JPEGImages/")
    problems: list[Problem] = []
    records = [r for r, _ in read_records(path, split, problems, tag="object", parse_object=_parse)]
    rows = np.concatenate([np.zeros((0, COLUMNS)), *(r.boxes.reshape(-1, COLUMNS) for r in records)])
    notes: list[str] = []
    if first_pixel is None:
        first_pixel, note = _first_pixel(rows)
        notes += note
    kind = "obb" if (rows[:, 4] != 0).any() or np.isfinite(rows[:, 5]).any() else "hbb"
    for record in records:
        record.boxes, record.ignored = (_to_boxes(part, first_pixel) for part in (record.boxes, record.ignored))
    chosen = classes or listed_classes(path)
    return assemble(records, path, format=NAME, kind=kind, classes=chosen, problems=problems, notes=notes)


def _first_pixel(rows: np.ndarray) -> tuple[int, list[str]]:
    """(index of the first pixel, notes) by the boxes that touch the left or upper border."""
    starts = rows[:, :2]
    zero, one = int((starts < 1).sum()), int((starts == 1).sum())
    if zero > one:
        note = (
            f"pixels are counted from 0, since {zero} boxes begin at 0 and {one} at 1 (--first-pixel 1 for VOC's own)"
        )
        return 0, [note]
    return 1, []


def _to_boxes(rows: np.ndarray, first_pixel: int) -> np.ndarray:
    """Rows of `_parse` (N, COLUMNS) -> le90 boxes, float32 (N, 5)."""
    rows = rows.reshape(-1, COLUMNS)
    x1, y1, x2, y2 = (rows[:, :4] - np.array([first_pixel, first_pixel, 0, 0])).T
    upright = np.stack([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1, np.radians(rows[:, 4])], axis=1)
    boxes = geometry.regularize(upright.astype(np.float32))
    oriented = np.isfinite(rows[:, 5])
    boxes[oriented] = geometry.from_corners(rows[oriented, 5:].reshape(-1, 4, 2).astype(np.float32))
    return boxes


def _parse(element: Element) -> tuple[str, list[float]]:
    """Class name, and `xmin, ymin, xmax, ymax, rotation in degrees` followed by the eight numbers of four corners. What
    an object does not have is `nan`, its rotation 0."""
    points = _polygon(element)
    if element.find("bndbox") is None and points is not None:
        if points.shape != (4, 2):
            points = geometry.to_corners(geometry.from_points(points))[0]
        return element_text(element, "name"), [np.nan] * 4 + [0.0, *points.ravel()]
    name, box = parse_upright(element)
    turned = next((child.tag for part in (element, element.find("bndbox")) for child in part if _turns(child)), None)
    if turned is not None and points is None:
        raise ValueError(
            f"object {name!r} has <{turned}>, which could turn its box and is not read; remove it or correct it"
        )
    x1, y1, x2, y2 = box
    corners = [np.nan] * 8
    if points is not None and points.shape == (4, 2):
        upright = {(x, y) for x in (x1, x2) for y in (y1, y2)}
        if {(x, y) for x, y in points.tolist()} != upright:
            corners = points.ravel().tolist()
    return name, [*box, _rotation(element), *corners]


def _polygon(element: Element) -> np.ndarray | None:
    """Points `<x1>, <y1>, <x2> ...` or `<pt><x>, <y></pt> ...` of `<polygon>`, (K, 2); None without one. Raises
    ValueError for less than three."""
    polygon = element.find("polygon")
    if polygon is None or not len(polygon):
        return None
    points = [[element_number(point, "x"), element_number(point, "y")] for point in polygon.iter("pt")]
    while polygon.find(f"x{len(points) + 1}") is not None:
        at = len(points) + 1
        points.append([element_number(polygon, f"x{at}"), element_number(polygon, f"y{at}")])
    if len(points) < 3:
        raise ValueError(f"<polygon> has {len(points)} points")
    return np.array(points)


def _turns(child: Element) -> bool:
    """Whether an element states an angle other than 0, in a way that no tool of this format reads."""
    return child.tag.lower() in _ANGLES and flag(child.text.lstrip("-") if child.text else "")


def _rotation(element: Element) -> float:
    """CVAT's attribute `rotation` in degrees, 0 without it."""
    for attribute in element.iter("attribute"):
        if (attribute.findtext("name") or "").strip() == "rotation":
            return element_number(attribute, "value") % 360
    return 0.0


def parse_upright(element: Element) -> tuple[str, list[float]]:
    """Class name and the numbers of `bndbox`. Raises ValueError for missing fields or corners in the wrong order."""
    name = element_text(element, "name")
    box = element.find("bndbox")
    if box is None:
        raise ValueError(f"object {name!r} has no <bndbox>")
    x1, y1, x2, y2 = (element_number(box, field) for field in ("xmin", "ymin", "xmax", "ymax"))
    if x2 < x1 or y2 < y1:
        raise ValueError(f"object {name!r} ends before it begins: {x1:g}, {y1:g}, {x2:g}, {y2:g}")
    return name, [x1, y1, x2, y2]


def write(
    dataset: Dataset, path: str | Path, *, split: str = "train", progress: Progress | None = None
) -> list[Problem]:
    """Write one split. Returns problems: what was skipped.

    Raises UserError unless `path` is new, empty or a VOC set of the same classes written by dataengine.
    """
    path = Path(path)
    problems: list[Problem] = []
    with staged(path, NAME, split, dataset.classes) as work:
        write_classes(work, dataset.classes)
        names = []
        for sample, name in placed(dataset, work / "JPEGImages", problems, fill_ignored=True, progress=progress):
            layout = sample.layout
            root = fill(Element("annotation"), folder="JPEGImages", filename=name + sample.image.suffix)
            fill(SubElement(root, "size"), width=layout.size[0], height=layout.size[1], depth=3)
            upright = visible_hulls(layout.boxes, layout.size) + np.array([1, 1, 0, 0])
            for i, (word, box, difficult) in enumerate(zip(layout.names(), upright, layout.difficult, strict=True), 1):
                if (box[2:].round(4) < box[:2].round(4)).any():
                    what = f"object {i} is less than a pixel wide or high, which VOC cannot say; it is skipped"
                    problems.append(Problem(sample.image, None, what))
                    continue
                item = fill(SubElement(root, "object"), name=word, difficult=int(difficult))
                fields = zip(("xmin", "ymin", "xmax", "ymax"), map(decimal, box), strict=True)
                fill(SubElement(item, "bndbox"), **dict(fields))
            save_xml(root, work / "Annotations" / f"{name}.xml")
            names.append(name)
        write_list(work, split, names)
    return problems
