"""Review in Label Studio: rotated rectangles, decisions and tags as choices.

Written: `tasks.json`, `config.xml` (the labelling interface) and `images/`. Positions are in percent of the image; a
rectangle turns about its upper left corner. Images are found through Label Studio's local files:
`LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true` and `LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT` set to the folder.
Export as JSON.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from xml.sax.saxutils import quoteattr

import numpy as np

from dataengine.engine.decisions import EditedObject
from dataengine.errors import UserError
from dataengine.export.tools.review import VERDICTS, Back, Given
from dataengine.files import parse_json, read_text, write_whole

FILE, CONFIG = "tasks.json", "config.xml"
NO_VERDICT = "as filtered"


def write(images: Sequence[Given], classes: Sequence[str], folder: Path) -> Path:
    """Write tasks and interface for images whose files are in `images/`; returns the file of tasks."""
    tags = dict.fromkeys(tag for image in images for tag in image.tags)
    write_whole(folder / CONFIG, _config(classes, tuple(tags)))
    write_whole(folder / FILE, json.dumps([_task(image) for image in images], indent=1) + "\n")
    return folder / FILE


def _config(classes: Sequence[str], tags: Sequence[str]) -> str:
    def values(tag: str, names: Sequence[str]) -> str:
        return "".join(f"    <{tag} value={quoteattr(name)}/>\n" for name in names)

    return (
        '<View>\n  <Image name="image" value="$image" zoom="true" zoomControl="true"/>\n'
        f'  <RectangleLabels name="label" toName="image" canRotate="true">\n{values("Label", classes)}  '
        f'</RectangleLabels>\n  <Choices name="difficult" toName="image" perRegion="true" choice="multiple">\n'
        f'{values("Choice", ["difficult"])}  </Choices>\n  <Choices name="decision" toName="image" choice="single">\n'
        f"{values('Choice', [*VERDICTS, NO_VERDICT])}  </Choices>\n"
        '  <TextArea name="tags" toName="image" editable="true" placeholder="tag"/>\n</View>\n'
    ) + ("" if not tags else f"<!-- tags in use: {', '.join(tags).replace('--', '- -')} -->\n")


def _task(image: Given) -> dict:
    width, height = image.labels.size
    common = {"to_name": "image", "original_width": width, "original_height": height, "image_rotation": 0}
    result = []
    for k, (name, box, difficult, number) in enumerate(
        zip(image.labels.names(), image.labels.boxes, image.labels.difficult, image.numbers, strict=True)
    ):
        region = f"added-{k}" if number is None else f"object-{number}"
        place = _value(box, width, height)
        result.append({
            "id": region, "type": "rectanglelabels", "from_name": "label", **common,
            "value": {**place, "rectanglelabels": [name]},
        })  # fmt: skip
        if difficult:
            result.append({
                "id": region, "type": "choices", "from_name": "difficult", **common,
                "value": {**place, "choices": ["difficult"]},
            })  # fmt: skip
    verdict = next((word for word in image.words if word in VERDICTS), None)
    if verdict is not None:
        value = {"choices": [verdict]}
        result.append({"id": "decision", "type": "choices", "from_name": "decision", **common, "value": value})
    if image.tags:
        value = {"text": list(image.tags)}
        result.append({"id": "tags", "type": "textarea", "from_name": "tags", **common, "value": value})
    data = {"image": f"/data/local-files/?d=images/{image.name}.png", "name": image.name}
    return {"data": data, "annotations": [{"result": result}]}


def _value(box: np.ndarray, width: int, height: int) -> dict:
    """A box as Label Studio states it: its upper left corner before turning, in percent, and degrees."""
    cx, cy, w, h, theta = map(float, box)
    cos, sin = math.cos(theta), math.sin(theta)
    x, y = cx - (w / 2) * cos + (h / 2) * sin, cy - (w / 2) * sin - (h / 2) * cos
    return {
        "x": 100 * x / width, "y": 100 * y / height, "width": 100 * w / width, "height": 100 * h / height,
        "rotation": math.degrees(theta) % 360,
    }  # fmt: skip


def _box(value: dict, width: float, height: float) -> tuple[float, ...]:
    x, w = (float(value[key]) / 100 * width for key in ("x", "width"))
    y, h = (float(value[key]) / 100 * height for key in ("y", "height"))
    theta = math.radians(float(value.get("rotation", 0.0)))
    cos, sin = math.cos(theta), math.sin(theta)
    return x + (w / 2) * cos - (h / 2) * sin, y + (w / 2) * sin + (h / 2) * cos, w, h, theta


def read(file: Path) -> list[Back]:
    """The images in an export. Of an image with several annotations the last one counts. Raises UserError with the
    task that is damaged."""
    try:
        tasks = parse_json(read_text(file))
        if not isinstance(tasks, list):
            raise ValueError("is no list of tasks")
    except ValueError as error:
        raise UserError(f"{file} {error}; export it from Label Studio as JSON.") from None
    found = []
    for number, task in enumerate(tasks, 1):
        try:
            found.append(_back(task))
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            raise UserError(f"{file}: task {number} is damaged ({reason}); export it again as JSON.") from None
    return found


def _back(task: dict) -> Back:
    data = task["data"]
    name = data.get("name") or data["image"].rsplit("/", 1)[-1].rpartition(".")[0]
    annotations = [one for one in task["annotations"] if not one.get("was_cancelled")]
    if not annotations:
        raise ValueError(f"{name} has no annotation")
    results = annotations[-1]["result"]
    difficult = {
        one["id"] for one in results if one.get("from_name") == "difficult" and "difficult" in one["value"]["choices"]
    }
    objects, words = [], []
    for one in results:
        value, kind = one["value"], one.get("type")
        if kind == "rectanglelabels":
            of = one["id"].removeprefix("object-")
            box = _box(value, float(one["original_width"]), float(one["original_height"]))
            objects.append(EditedObject(
                of=int(of) if of.isdecimal() and of != one["id"] else None, cls=value["rectanglelabels"][0], box=box,
                difficult=one["id"] in difficult,
            ))  # fmt: skip
        elif one.get("from_name") == "decision":
            words += [word for word in value["choices"] if word in VERDICTS]
        elif one.get("from_name") == "tags":
            words += value["text"] if isinstance(value["text"], list) else [value["text"]]
        elif kind not in ("choices", "textarea"):
            raise ValueError(f"{name} has a {kind}; only rectangles are labels")
    return Back(name, tuple(objects), tuple(words))
