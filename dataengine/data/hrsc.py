"""HRSC2016 XML: ships as `mbox_cx, mbox_cy, mbox_w, mbox_h, mbox_ang`, with the position of the bow in `header_x/y`.

Continuous pixels without shift. The angle is in radians, clockwise (y down), to the side of length w.
Read: `FullDataSet/` or `Train/` and `Test/` or the root itself, each with `AllImages/` and `Annotations/` (or other
folders of corresponding names); splits in `ImageSets/<split>.txt`; metres per pixel in `Img_Resolution`, latitude and
longitude in `Img_Location`.
Written: `FullDataSet/`, BMP images, `header_x/y` as integers, `Img_SizeWidth` and `Img_SizeHeight`: mmrotate's
`HRSCDataset` hard-codes the first and needs the others. A layout does not distinguish bow and stern, so the header is
the middle of the short side that the long axis points to.
`Class_ID` is "1000000" and two digits. Classes other than HRSC's have the numbers of their lines in `classes.txt`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from xml.etree.ElementTree import Element, SubElement

import numpy as np

from dataengine import geometry
from dataengine.data.border import visible_hulls
from dataengine.data.layout import UNKNOWN, Acquisition, Dataset, Layout, Problem, class_key
from dataengine.data.parse import element_number, element_text, number, radians
from dataengine.data.records import assemble, listed_classes, unknown_acquisition
from dataengine.data.staging import Progress, decimal, placed, staged, write_classes
from dataengine.data.xml_records import fill, find_splits, read_records, save_xml
from dataengine.errors import UserError

NAME = "hrsc"
HOLDS = frozenset({"angles", "difficult", "gsd_m", "latitude_deg", "longitude_deg"})
CLASSES = (
    "ship", "aircraft carrier", "warcraft", "merchant ship", "Nimitz", "Enterprise", "Arleigh Burke", "WhidbeyIsland",
    "Perry", "Sanantonio", "Ticonderoga", "Kitty Hawk", "Kuznetsov", "Abukuma", "Austen", "Tarawa", "Blue Ridge",
    "Container", "OXo|--)", "Car carrier([]==[])", "Hovercraft", "yacht", "CntShip(_|.--.--|_]=", "Cruise", "submarine",
    "lute", "Medical", "Car carrier(======|", "Ford-class", "Midway-class", "Invincible-class",
)  # fmt: skip
_NUMBERS = (*range(1, 21), 22, *range(24, 34))  # 21 and 23 are not used
_FIELDS = ("mbox_cx", "mbox_cy", "mbox_w", "mbox_h", "mbox_ang")
_UPRIGHT_FIELDS = ("box_xmin", "box_ymin", "box_xmax", "box_ymax")


def splits(path: Path) -> tuple[str, ...]:
    """Names of the splits of a data set, given its root."""
    return find_splits(path)


def recognizes(file: Path, head: str) -> bool:
    """Whether a file is an annotation of HRSC2016. head: its first characters."""
    return file.suffix.lower() == ".xml" and "<HRSC_Image" in head


def _class_names(listed: Sequence[str] | None) -> dict[str, str]:
    """{Class_ID: name}: HRSC's own classes, or those of `classes.txt` if it has others."""
    if listed is None or {*map(class_key, listed)} <= {*map(class_key, CLASSES)}:
        pairs = zip(CLASSES, _NUMBERS, strict=True)
    else:
        pairs = zip(listed, range(1, len(listed) + 1), strict=True)
    return {f"1000000{value:02d}": name for name, value in pairs}


def class_ids(classes: Sequence[str]) -> tuple[str, ...]:
    """The `Class_ID` that `write` gives objects of each class."""
    identities = {class_key(name): identity for identity, name in _class_names(classes).items()}
    return tuple(identities[class_key(name)] for name in classes)


def read(path: str | Path, *, split: str | None = None, classes: Sequence[str] | None = None) -> Dataset:
    """Read a data set from its root. With `classes=("ship",)`, every object is a ship, HRSC's usual task.

    Raises UserError if the path or the split is missing or no image is usable. Smaller faults are listed in
    `Dataset.problems`.
    """
    path = Path(path)
    if not path.is_dir():
        raise UserError(f"{path} is not a folder; give the HRSC2016 folder with FullDataSet/ or AllImages/")
    listed = listed_classes(path)
    names = _class_names(listed)
    ships_only = classes is not None and [class_key(name) for name in classes] == ["ship"]

    def parse(element: Element) -> tuple[str, list[float]]:
        identity = element_text(element, "Class_ID") if not ships_only else ""
        name = classes[0] if ships_only else names.get(identity, identity)
        values = [element_number(element, field) for field in _FIELDS]
        box = [*values[:4], radians(values[4], "mbox_ang")]
        _check_unit(element, box)
        return name, box

    problems: list[Problem] = []
    results = read_records(path, split, problems, tag="HRSC_Object", parse_object=parse)
    for record, root in results:
        record.boxes = geometry.regularize(record.boxes.reshape(-1, 5).astype(np.float32))
        record.ignored = geometry.regularize(record.ignored.reshape(-1, 5).astype(np.float32))
        record.acquisition = _acquisition(record.annotation, root, problems)
    records, chosen = [record for record, _ in results], classes or listed
    return assemble(records, path, format=NAME, kind="obb", classes=chosen, known=(CLASSES,), problems=problems)


def _check_unit(element: Element, box: list[float]) -> None:
    """Raises ValueError where the upright box of an object fits its turned box only if the angle is in degrees."""
    try:
        stated = np.array([float(element.findtext(field) or "") for field in _UPRIGHT_FIELDS])
    except ValueError:
        return  # not stated
    if not np.isfinite(stated).all():
        return
    both = geometry.hulls(np.array([box, [*box[:4], math.radians(box[4])]]))
    in_radians, in_degrees = geometry.iou(geometry.from_aabb(stated[None]), both)[0]
    if in_radians < 0.5 and in_degrees > 0.8:
        raise ValueError(
            f"mbox_ang is {box[4]:g}, which fits box_xmin to box_ymax only as degrees; convert it to radians"
        )


def _acquisition(file: Path, root: Element, problems: list[Problem]) -> Acquisition:
    gsd, location = (root.findtext("Img_Resolution") or "").strip(), (root.findtext("Img_Location") or "").strip()
    try:
        degrees = [number(part, "Img_Location") for part in location.split(",")] if location else (None, None)
        latitude, longitude = degrees
        gsd_m = number(gsd, "Img_Resolution") if gsd else None
        return Acquisition(gsd_m=gsd_m, latitude_deg=latitude, longitude_deg=longitude)
    except ValueError as error:  # pydantic's ValidationError is one too
        problems.append(unknown_acquisition(file, "header", error))
        return UNKNOWN


def write(
    dataset: Dataset, path: str | Path, *, split: str = "train", progress: Progress | None = None
) -> list[Problem]:
    """Write one split for mmrotate's `HRSCDataset`. Returns problems: what was skipped.

    Raises UserError unless `path` is new, empty or an HRSC set of the same classes written by dataengine.
    """
    path = Path(path)
    problems: list[Problem] = []
    identities = dict(zip(map(class_key, dataset.classes), class_ids(dataset.classes), strict=True))
    with staged(path, NAME, split, dataset.classes) as work:
        write_classes(work, dataset.classes)
        base, names = work / "FullDataSet", []
        samples = placed(dataset, base / "AllImages", problems, suffix=".bmp", fill_ignored=True, progress=progress)
        for sample, name in samples:
            save_xml(_annotation(sample.layout, name, identities), base / "Annotations" / f"{name}.xml")
            names.append(name)
        (work / "ImageSets").mkdir()
        (work / "ImageSets" / f"{split}.txt").write_text("".join(f"{name}\n" for name in names), "utf-8")
    return problems


def _annotation(layout: Layout, name: str, identities: dict[str, str]) -> Element:
    root = fill(Element("HRSC_Image"), Img_ID=name, Img_FileName=name, Img_FileFmt="bmp")
    acquisition = layout.acquisition
    if acquisition.gsd_m is not None:
        fill(root, Img_Resolution=acquisition.gsd_m)
    if acquisition.latitude_deg is not None and acquisition.longitude_deg is not None:
        fill(root, Img_Location=f"{acquisition.latitude_deg},{acquisition.longitude_deg}")
    fill(root, Img_SizeWidth=layout.size[0], Img_SizeHeight=layout.size[1], Img_SizeDepth=3)
    objects = SubElement(root, "HRSC_Objects")
    upright = visible_hulls(layout.boxes, layout.size)
    for i, (word, box, hull) in enumerate(zip(layout.names(), layout.boxes, upright, strict=True), 1):
        cx, cy, w, _, theta = map(float, box)
        item = fill(SubElement(objects, "HRSC_Object"), Object_ID=i, Class_ID=identities[class_key(word)])
        fill(item, difficult=int(layout.difficult[i - 1]))
        fill(item, **dict(zip(_UPRIGHT_FIELDS, map(decimal, hull), strict=True)))
        fill(item, **dict(zip(_FIELDS, [*map(decimal, box[:4]), decimal(theta, 7)], strict=True)))
        fill(item, header_x=round(cx + w / 2 * math.cos(theta)), header_y=round(cy + w / 2 * math.sin(theta)))
    return root
