"""Pascal VOC XML: horizontal boxes as `xmin, ymin, xmax, ymax`, the indices of the first and last pixel, from 1.

Pixels count from 1 and both ends are inside, so the continuous box is `xmin - 1, ymin - 1, xmax, ymax`, and a box of
width w is written with `xmax - xmin = w - 1`. For labelling tools that count from 0 and exclude the last pixel,
`first_pixel=0` reads the four numbers without a shift. Fractions are read and written.
Read: `Annotations/*.xml`, `JPEGImages/`, `ImageSets/Main/<split>.txt`; or XML files next to their images, in one folder
or one for each split. Rotated boxes are written as the axis-aligned boxes around them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from xml.etree.ElementTree import Element, SubElement

import numpy as np

from dataengine import geometry
from dataengine.data.border import visible_hulls
from dataengine.data.layout import Dataset, Problem
from dataengine.data.parse import element_number, element_text
from dataengine.data.records import Record, assemble, listed_classes
from dataengine.data.staging import Progress, decimal, placed, staged, write_classes
from dataengine.data.xml_records import fill, find_pairs, find_splits, read_record, save_xml, write_list
from dataengine.errors import UserError

NAME = "voc"
HOLDS = frozenset({"difficult", "hbb"})


def splits(path: Path) -> tuple[str, ...]:
    """Names of the splits of a data set, given its root."""
    return find_splits(path)


def read(
    path: str | Path, *, split: str | None = None, classes: Sequence[str] | None = None, first_pixel: int = 1
) -> Dataset:
    """Read a data set from its root. `split=None` reads all annotations.

    Raises UserError if the path or the split is missing or no image is usable. Smaller faults are listed in
    `Dataset.problems`.
    """
    path = Path(path)
    if not path.is_dir():
        raise UserError(f"{path} is not a folder; give the VOC folder with Annotations/ and JPEGImages/")
    problems: list[Problem] = []
    records: list[Record] = []
    shift = np.array([first_pixel, first_pixel, 0, 0])
    for file, image, name in find_pairs(path, split, problems):
        result = read_record(
            file,
            problems,
            tag="object",
            parse_object=parse_upright,
            to_boxes=lambda values: geometry.from_aabb((values - shift).astype(np.float32)),
        )
        if result is not None:
            result[0].image, result[0].split = image, name
            records.append(result[0])
    chosen = classes or listed_classes(path)
    return assemble(records, path, format=NAME, kind="hbb", classes=chosen, problems=problems)


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
