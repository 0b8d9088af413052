"""Review in CVAT: "CVAT for images 1.1" with an attribute `object` for each box, and tags for each image.

Written: `annotations.xml` and `images/`. In CVAT, make a task of the images with these labels, then upload the file
as annotations; export it in the same format. Decisions are tags named `accepted` and `rejected`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from xml.etree.ElementTree import Element, SubElement

import numpy as np

from dataengine.data.cvat import add_shape
from dataengine.data.objects import Objects
from dataengine.data.parse import load_xml
from dataengine.data.staging import decimal
from dataengine.data.xml_records import fill, save_xml
from dataengine.engine.decisions import EditedObject
from dataengine.errors import UserError
from dataengine.export.tools.review import VERDICTS, Back, Given

FILE = "annotations.xml"
SHAPES = ("box", "polygon", "ellipse")


def write(images: Sequence[Given], classes: Sequence[str], folder: Path) -> Path:
    """Write the labels of images whose files are in `images/`; returns the file."""
    root = fill(Element("annotations"), version="1.1")
    labels = SubElement(SubElement(fill(SubElement(root, "meta")), "task"), "labels")
    tags = dict.fromkeys([*VERDICTS, *(word for image in images for word in image.words)])
    for name, kind in (*((name, "any") for name in classes), *((tag, "tag") for tag in tags)):
        attributes = SubElement(fill(SubElement(labels, "label"), name=name, type=kind), "attributes")
        if kind == "any":
            checkbox = {"mutable": "False", "input_type": "checkbox", "default_value": "false", "values": "false"}
            fill(SubElement(attributes, "attribute"), name="difficult", **checkbox)
            number = {"mutable": "False", "input_type": "text", "default_value": "", "values": ""}
            fill(SubElement(attributes, "attribute"), name="object", **number)
    for i, image in enumerate(images):
        width, height = map(str, image.labels.size)
        fields = {"id": str(i), "name": f"{image.name}.png", "width": width, "height": height}
        element = SubElement(root, "image", fields)
        for word in image.words:
            SubElement(element, "tag", {"label": word, "source": "manual"})
        for name, box, difficult, number in zip(
            image.labels.names(),
            image.labels.boxes.astype(np.float64),
            image.labels.difficult,
            image.numbers,
            strict=True,
        ):
            cx, cy, w, h, theta = box
            sides = map(decimal, (cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2))
            corners = dict(zip(("xtl", "ytl", "xbr", "ybr"), sides, strict=True))
            turn = {"rotation": decimal(np.rad2deg(theta) % 360, 5)}
            shape = SubElement(element, "box", {"label": name, "occluded": "0", **corners, **turn, "z_order": "0"})
            SubElement(shape, "attribute", {"name": "difficult"}).text = "true" if difficult else "false"
            SubElement(shape, "attribute", {"name": "object"}).text = "" if number is None else str(number)
    save_xml(root, folder / FILE)
    return folder / FILE


def read(file: Path) -> list[Back]:
    """The images in a file. Raises UserError with the image of a shape that is no box, and for another file."""
    try:
        root = load_xml(file)
    except ValueError as error:
        raise UserError(f"{file}: {error}; export it from CVAT as CVAT for images 1.1.") from None
    if root.tag != "annotations" or root.find("track") is not None:
        raise UserError(f"{file}: no file of images; export it from CVAT as CVAT for images 1.1.")
    return [_image(file, element) for element in root.iter("image")]


def _image(file: Path, image: Element) -> Back:
    name = (image.get("name") or "").replace("\\", "/").split("/")[-1]
    found = []
    for number, shape in enumerate((element for element in image if element.tag not in ("tag", "attribute")), 1):
        objects = Objects()
        try:
            add_shape(objects, shape)
        except ValueError as error:
            raise UserError(f"{file}: image {name}, shape {number} ({shape.tag}): {error}.") from None
        if not objects.names:
            raise UserError(
                f"{file}: image {name}, shape {number}: a region to ignore is no label of a run; remove it."
            )
        text = next((a.text or "" for a in shape.iterfind("attribute") if a.get("name") == "object"), "").strip()
        box = tuple(map(float, objects.boxes[0]))
        of = int(text) if text.isdecimal() else None
        found.append(EditedObject(of=of, cls=objects.names[0], box=box, difficult=objects.difficult[0]))
    words = tuple(tag.get("label") or "" for tag in image.iterfind("tag"))
    return Back(name.rpartition(".")[0] or name, tuple(found), tuple(word for word in words if word))
