"""Review in FiftyOne: a data set of the type `LegacyFiftyOneDataset`, with oriented boxes as closed polylines.

Written: `samples.json`, `metadata.json` and `data/`. Load it with
`fiftyone.Dataset.from_dir(FOLDER, fiftyone.types.LegacyFiftyOneDataset)`; write it back with
`dataset.export(FOLDER, dataset_type=fiftyone.types.LegacyFiftyOneDataset)`. Decisions are tags of a sample.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dataengine import geometry
from dataengine.data.objects import polygon_box
from dataengine.engine.decisions import EditedObject
from dataengine.errors import UserError
from dataengine.export.tools.review import Back, Given
from dataengine.files import parse_json, read_text, write_whole

FILE, METADATA, FIELD = "samples.json", "metadata.json", "ground_truth"


def write(images: Sequence[Given], classes: Sequence[str], folder: Path) -> Path:
    """Write the samples of images whose files are in `data/`; returns the file."""
    metadata = {"name": folder.name, "media_type": "image", "info": {}, "classes": {FIELD: list(classes)}}
    write_whole(folder / METADATA, json.dumps(metadata, indent=1) + "\n")
    write_whole(folder / FILE, json.dumps({"samples": [_sample(image) for image in images]}, indent=1) + "\n")
    return folder / FILE


def _sample(image: Given) -> dict:
    corners = geometry.to_corners(image.labels.boxes.astype(np.float64)) / np.array(image.labels.size, np.float64)
    lines = [
        {
            "_cls": "Polyline", "label": name, "points": [four.tolist()], "closed": True, "filled": False, "tags": [],
            "object": number, "difficult": bool(difficult),
        }
        for name, four, difficult, number in zip(
            image.labels.names(), corners, image.labels.difficult, image.numbers, strict=True
        )
    ]  # fmt: skip
    width, height = image.labels.size
    return {
        "filepath": f"data/{image.name}.png", "tags": list(image.words),
        "metadata": {"_cls": "ImageMetadata", "width": width, "height": height},
        FIELD: {"_cls": "Polylines", "polylines": lines}, "kept": image.kept,
    }  # fmt: skip


def read(file: Path) -> list[Back]:
    """The images in a folder's `samples.json`. Raises UserError with the sample that is damaged."""
    try:
        samples = parse_json(read_text(file))["samples"]
        if not isinstance(samples, list):
            raise ValueError("samples is no list")
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file}: no samples of FiftyOne ({error}); export a LegacyFiftyOneDataset.") from None
    found = []
    for number, sample in enumerate(samples, 1):
        try:
            found.append(_back(sample))
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            raise UserError(f"{file}: sample {number} is damaged ({reason}); export it again.") from None
    return found


def _back(sample: dict) -> Back:
    size, name = sample["metadata"], Path(sample["filepath"].replace("\\", "/")).stem
    scale = np.array([size["width"], size["height"]], np.float64)
    objects = []
    for line in (sample.get(FIELD) or {"polylines": []})["polylines"]:
        [points] = line["points"]
        box = polygon_box(np.asarray(points, np.float64) * scale)
        number = line.get("object")
        objects.append(EditedObject(
            of=None if number is None else int(number), cls=line["label"], box=tuple(map(float, box)),
            difficult=bool(line.get("difficult")),
        ))  # fmt: skip
    return Back(name, tuple(objects), tuple(sample.get("tags", ())))
