"""roLabelImg XML: `robndbox` with `cx, cy, w, h, angle`, and plain `bndbox` for upright objects.

Continuous pixels, no shift. The angle is in radians, clockwise with y down, from the horizontal to the side of length
w, in any w/h order; `write` gives it in [0, pi) as the tool does. `bndbox` numbers are taken as they stand.
Read: XML files beside their images, in one folder or one for each split; or `annotations/<split>/` beside
`images/<split>/`, which is what `write` makes; or VOC's folders.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from xml.etree.ElementTree import Element, SubElement

import numpy as np

from dataengine import geometry
from dataengine.data.layout import Dataset, Problem
from dataengine.data.parse import element_number, element_text
from dataengine.data.records import Record, assemble, listed_classes
from dataengine.data.staging import Progress, decimal, placed, staged, write_classes
from dataengine.data.voc import parse_upright
from dataengine.data.xml_records import fill, find_pairs, find_splits, read_record, save_xml
from dataengine.errors import UserError

NAME = "rolabelimg"
HOLDS = frozenset({"angles", "difficult"})
_FOLDERS = ("annotations", "Annotations")
_FIELDS = ("cx", "cy", "w", "h", "angle")


def splits(path: Path) -> tuple[str, ...]:
    """Names of the splits below a data set's root."""
    return find_splits(path, _FOLDERS)


def read(path: str | Path, *, split: str | None = None, classes: Sequence[str] | None = None) -> Dataset:
    """Read a data set's root. `split=None` reads every annotation there is.

    Raises `UserError` when the path or the split is missing or nothing in it can be used; smaller faults are
    `Dataset.problems`.
    """
    path = Path(path)
    if not path.is_dir():
        raise UserError(f"{path} is no folder; give the folder that has roLabelImg's XML files in it")
    problems: list[Problem] = []
    records: list[Record] = []
    for file, image, name in find_pairs(path, split, problems, _FOLDERS):
        found = read_record(
            file,
            problems,
            tag="object",
            parse_object=_parse,
            to_boxes=lambda values: geometry.regularize(values.astype(np.float32)),
        )
        if found is not None:
            found[0].image, found[0].split = image, name
            records.append(found[0])
    chosen = classes or listed_classes(path)
    return assemble(records, path, format=NAME, kind="obb", classes=chosen, problems=problems)


def _parse(element: Element) -> tuple[str, list[float]]:
    box = element.find("robndbox")
    if box is not None:
        return element_text(element, "name"), [element_number(box, field) for field in _FIELDS]
    if element.find("bndbox") is None:
        raise ValueError("object has neither <robndbox> nor <bndbox>")
    name, (x1, y1, x2, y2) = parse_upright(element)
    return name, [(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1, 0.0]


def write(
    dataset: Dataset, path: str | Path, *, split: str = "train", progress: Progress | None = None
) -> list[Problem]:
    """Write one split. Gives back what was left out.

    Raises `UserError` when `path` holds anything but a roLabelImg set of the same classes that dataengine wrote.
    """
    path = Path(path)
    problems: list[Problem] = []
    with staged(path, NAME, split, dataset.classes) as work:
        write_classes(work, dataset.classes)
        for sample, name in placed(dataset, work / "images" / split, problems, progress=progress):
            layout = sample.layout
            root = fill(Element("annotation", verified="no"), folder=split, filename=name + sample.image.suffix)
            fill(SubElement(root, "size"), width=layout.size[0], height=layout.size[1], depth=3)
            for word, box, hard in zip(layout.names(), layout.boxes, layout.difficult, strict=True):
                item = fill(SubElement(root, "object"), type="robndbox", name=word, difficult=int(hard))
                values = [*map(decimal, box[:4]), decimal(float(box[4]) % np.pi, 7)]
                fill(SubElement(item, "robndbox"), **dict(zip(_FIELDS, values, strict=True)))
            save_xml(root, work / "annotations" / split / f"{name}.xml")
    return problems
