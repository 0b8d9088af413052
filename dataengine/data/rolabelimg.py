"""roLabelImg XML: `robndbox` with `cx, cy, w, h, angle`, and plain `bndbox` for upright objects.

Continuous pixels without shift, for `bndbox` too. The angle is in radians, clockwise (y down), from the horizontal to
the side of length w, with w and h in any order; `write` gives it in [0, pi) as the tool does.
Read: XML files next to their images, in one folder or one for each split; `annotations/<split>/` next to
`images/<split>/`, as `write` makes them; or VOC's folders.
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
    """Names of the splits of a data set, given its root."""
    return find_splits(path, _FOLDERS)


def read(path: str | Path, *, split: str | None = None, classes: Sequence[str] | None = None) -> Dataset:
    """Read a data set from its root. `split=None` reads all annotations.

    Raises UserError if the path or the split is missing or no image is usable. Smaller faults are listed in
    `Dataset.problems`.
    """
    path = Path(path)
    if not path.is_dir():
        raise UserError(f"{path} is not a folder; give the folder with roLabelImg's XML files")
    problems: list[Problem] = []
    records: list[Record] = []
    for file, image, name in find_pairs(path, split, problems, _FOLDERS):
        result = read_record(
            file,
            problems,
            tag="object",
            parse_object=_parse,
            to_boxes=lambda values: geometry.regularize(values.astype(np.float32)),
        )
        if result is not None:
            result[0].image, result[0].split = image, name
            records.append(result[0])
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
    """Write one split. Returns problems: what was skipped.

    Raises UserError unless `path` is new, empty or a roLabelImg set of the same classes written by dataengine.
    """
    path = Path(path)
    problems: list[Problem] = []
    with staged(path, NAME, split, dataset.classes) as work:
        write_classes(work, dataset.classes)
        for sample, name in placed(dataset, work / "images" / split, problems, fill_ignored=True, progress=progress):
            layout = sample.layout
            root = fill(Element("annotation", verified="no"), folder=split, filename=name + sample.image.suffix)
            fill(SubElement(root, "size"), width=layout.size[0], height=layout.size[1], depth=3)
            for word, box, difficult in zip(layout.names(), layout.boxes, layout.difficult, strict=True):
                item = fill(SubElement(root, "object"), type="robndbox", name=word, difficult=int(difficult))
                values = [*map(decimal, box[:4]), decimal(float(box[4]) % np.pi, 7)]
                fill(SubElement(item, "robndbox"), **dict(zip(_FIELDS, values, strict=True)))
            save_xml(root, work / "annotations" / split / f"{name}.xml")
    return problems
