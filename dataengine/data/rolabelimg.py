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
from dataengine.data.parse import FULL_TURN, element_number, element_text, radians
from dataengine.data.records import assemble, listed_classes
from dataengine.data.staging import Progress, decimal, placed, staged, write_classes
from dataengine.data.voc import parse_upright
from dataengine.data.xml_records import fill, find_splits, read_records, save_xml
from dataengine.errors import UserError

NAME = "rolabelimg"
HOLDS = frozenset({"angles", "difficult"})
_FIELDS = ("cx", "cy", "w", "h", "angle")


def recognizes(file: Path, head: str) -> bool:
    """Whether a file is an annotation of roLabelImg. head: its first characters."""
    return file.suffix.lower() == ".xml" and "<robndbox>" in head and "<x_left_top>" not in head


def splits(path: Path) -> tuple[str, ...]:
    """Names of the splits of a data set, given its root."""
    return find_splits(path)


def read(path: str | Path, *, split: str | None = None, classes: Sequence[str] | None = None) -> Dataset:
    """Read a data set from its root. `split=None` reads all splits.

    If most angles other than 0 are beyond a full turn, all are in degrees, which becomes a problem; otherwise such
    objects are skipped. Raises UserError if the path or the split is missing or no image is usable. Smaller faults are
    listed in `Dataset.problems`.
    """
    path = Path(path)
    if not path.is_dir():
        raise UserError(f"{path} is not a folder; give the folder with roLabelImg's XML files")
    problems: list[Problem] = []
    records = [r for r, _ in read_records(path, split, problems, tag="object", parse_object=_parse)]
    angles = np.concatenate([np.zeros(0), *(r.boxes[:, 4] for r in records if len(r.boxes))])
    beyond, turned = np.abs(angles) > FULL_TURN, angles != 0
    unit = 1.0
    if 2 * beyond.sum() > turned.sum():
        unit = np.pi / 180
        message = f"angles reach {np.abs(angles).max():g}, so they are read as degrees; roLabelImg states radians"
        problems.append(Problem(path, None, message))
    elif beyond.any():
        problems = []
        found = read_records(path, split, problems, tag="object", parse_object=lambda e: _in_radians(*_parse(e)))
        records = [record for record, _ in found]
    scale = np.array([1, 1, 1, 1, unit])
    for record in records:
        record.boxes = geometry.regularize((record.boxes.reshape(-1, 5) * scale).astype(np.float32))
        record.ignored = geometry.regularize((record.ignored.reshape(-1, 5) * scale).astype(np.float32))
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


def _in_radians(name: str, row: list[float]) -> tuple[str, list[float]]:
    return name, [*row[:4], radians(row[4], "angle")]


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
