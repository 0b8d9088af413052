"""DIOR and DIOR-R XML in their own folders: rotated boxes as four corners, horizontal ones as `bndbox`.

Numbers are continuous pixels without the shift of VOC: in DIOR-R, the corners of an upright object and its `bndbox` are
the same numbers, and mmrotate reads them this way.
Read: `Annotations/Oriented Bounding Boxes/`, else `Annotations/Horizontal Bounding Boxes/` (with blanks or underscores)
or `Annotations/`; images in `JPEGImages*/`; splits in `ImageSets/Main/*.txt`.
Written: both kinds of annotation, under the names with blanks that mmrotate's `DIORDataset` expects. Images become
JPEG, since it appends `.jpg`. It converts class names to lower case, so the class list in its config must be in lower
case too.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from xml.etree.ElementTree import Element, SubElement

import numpy as np

from dataengine import geometry
from dataengine.data.border import visible_hulls
from dataengine.data.layout import Dataset, Kind, Layout, Problem
from dataengine.data.parse import element_number, element_text
from dataengine.data.records import assemble, listed_classes
from dataengine.data.staging import Progress, decimal, placed, staged, write_classes
from dataengine.data.voc import parse_upright
from dataengine.data.xml_records import fill, find_splits, read_records, save_xml, write_list
from dataengine.errors import UserError

NAME = "dior"
HOLDS = frozenset({"angles", "difficult"})
CLASSES = (
    "airplane", "airport", "baseballfield", "basketballcourt", "bridge", "chimney", "expressway-service-area",
    "expressway-toll-station", "dam", "golffield", "groundtrackfield", "harbor", "overpass", "ship", "stadium",
    "storagetank", "tenniscourt", "trainstation", "vehicle", "windmill",
)  # fmt: skip
ORIENTED = "Annotations/Oriented Bounding Boxes"
HORIZONTAL = "Annotations/Horizontal Bounding Boxes"
_NAMES = {Path(name).name for name in (ORIENTED, HORIZONTAL)}
_CORNERS = (
    "x_left_top", "y_left_top", "x_right_top", "y_right_top",
    "x_right_bottom", "y_right_bottom", "x_left_bottom", "y_left_bottom",
)  # fmt: skip


def recognizes(file: Path, head: str) -> bool:
    """Whether a file is an annotation of DIOR. head: its first characters."""
    return file.suffix.lower() == ".xml" and ("<x_left_top>" in head or file.parent.name.replace("_", " ") in _NAMES)


def _folder(path: Path, kind: Kind | None) -> tuple[Path, Kind]:
    """The folder of the annotations of a kind, and the kind."""
    for name, found in ((ORIENTED, "obb"), (HORIZONTAL, "hbb")):
        pattern = "**/" + Path(name).name.replace(" ", "[ _]")
        folder = next((place for place in sorted(path.glob(pattern)) if place.is_dir()), None)
        if folder is not None and kind in (None, found):
            return folder, found
    return path, kind or "hbb"


def splits(path: Path) -> tuple[str, ...]:
    """Names of the splits of a data set, given its root."""
    return find_splits(path, _folder(path, None)[0])


def read(
    path: str | Path, *, split: str | None = None, classes: Sequence[str] | None = None, kind: Kind | None = None
) -> Dataset:
    """Read a data set from its root. `kind` selects horizontal or rotated annotations; None prefers the rotated ones.

    Raises UserError if the path or the split is missing or no image is usable. Smaller faults are listed in
    `Dataset.problems`.
    """
    path = Path(path)
    if not path.is_dir():
        raise UserError(f"{path} is not a folder; give the DIOR folder with Annotations/ and JPEGImages-trainval/")
    folder, kind = _folder(path, kind)
    problems: list[Problem] = []
    parse = _parse_corners if kind == "obb" else parse_upright
    records = read_records(path, split, problems, tag="object", parse_object=parse, folder=folder)
    convert = _from_corners if kind == "obb" else lambda values: geometry.from_aabb(values.astype(np.float32))
    for record, _ in records:
        record.boxes, record.ignored = convert(record.boxes), convert(record.ignored)
    chosen, found = classes or listed_classes(path), [record for record, _ in records]
    return assemble(found, path, format=NAME, kind=kind, classes=chosen, known=(CLASSES,), problems=problems)


def _parse_corners(element: Element) -> tuple[str, list[float]]:
    name = element_text(element, "name")
    box = element.find("robndbox")
    if box is None:
        raise ValueError(f"object {name!r} has no <robndbox>")
    return name, [element_number(box, field) for field in _CORNERS]


def _from_corners(values: np.ndarray) -> np.ndarray:
    return geometry.from_corners(values.reshape(-1, 4, 2).astype(np.float32))


def write(
    dataset: Dataset, path: str | Path, *, split: str = "train", progress: Progress | None = None
) -> list[Problem]:
    """Write one split. Returns problems: what was skipped.

    Images of "test" go to `JPEGImages-test/`, of any other split to `JPEGImages-trainval/`.
    Raises UserError unless `path` is new, empty or a DIOR set of the same classes written by dataengine.
    """
    path = Path(path)
    problems: list[Problem] = []
    folder = "JPEGImages-test" if split == "test" else "JPEGImages-trainval"
    with staged(path, NAME, split, dataset.classes) as work:
        write_classes(work, dataset.classes)
        names = []
        samples = placed(dataset, work / folder, problems, suffix=".jpg", fill_ignored=True, progress=progress)
        for sample, name in samples:
            corners = geometry.to_corners(sample.layout.boxes).reshape(-1, 8)
            upright = visible_hulls(sample.layout.boxes, sample.layout.size)
            fields = ("xmin", "ymin", "xmax", "ymax")
            save_xml(_annotation(sample.layout, name, "robndbox", _CORNERS, corners), work / ORIENTED / f"{name}.xml")
            save_xml(_annotation(sample.layout, name, "bndbox", fields, upright), work / HORIZONTAL / f"{name}.xml")
            names.append(name)
        write_list(work, split, names)
    return problems


def _annotation(layout: Layout, name: str, tag: str, fields: Sequence[str], rows: np.ndarray) -> Element:
    root = fill(Element("annotation"), filename=f"{name}.jpg")
    fill(SubElement(root, "size"), width=layout.size[0], height=layout.size[1], depth=3)
    for word, row, difficult in zip(layout.names(), rows, layout.difficult, strict=True):
        item = fill(SubElement(root, "object"), type=tag, name=word, difficult=int(difficult))
        fill(SubElement(item, tag), **dict(zip(fields, map(decimal, row), strict=True)))
    return root
