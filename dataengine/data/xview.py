"""xView GeoJSON: horizontal boxes of 60 classes for all images in one file.

`bounds_imcoords = "x1,y1,x2,y2"` in continuous pixels without shift, as xView's own `wv_util` reads it; boxes may leave
the image. `geometry` says the same in degrees and is not used. `type_id` is a number of xView's
`xview_class_labels.txt`; 75 and 82 are not in that list (artefacts of labelling, by its authors) and are reported with
their number of objects, as is any other unknown number. The image is the one that `image_id` names; images without
objects in the file are left out. The format is read, not written.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from dataengine.data.file_index import FileIndex
from dataengine.data.label_files import LabelFile, count_of, head_of, image_root, images_without_labels, place_record
from dataengine.data.layout import Dataset, Problem
from dataengine.data.objects import Objects, upright_box
from dataengine.data.parse import load_json, number
from dataengine.data.records import assemble
from dataengine.errors import UserError, shown

NAME = "xview"
CLASS_OF_TYPE = {
    11: "Fixed-wing Aircraft", 12: "Small Aircraft", 13: "Cargo Plane", 15: "Helicopter", 17: "Passenger Vehicle",
    18: "Small Car", 19: "Bus", 20: "Pickup Truck", 21: "Utility Truck", 23: "Truck", 24: "Cargo Truck",
    25: "Truck w/Box", 26: "Truck Tractor", 27: "Trailer", 28: "Truck w/Flatbed", 29: "Truck w/Liquid",
    32: "Crane Truck", 33: "Railway Vehicle", 34: "Passenger Car", 35: "Cargo Car", 36: "Flat Car", 37: "Tank car",
    38: "Locomotive", 40: "Maritime Vessel", 41: "Motorboat", 42: "Sailboat", 44: "Tugboat", 45: "Barge",
    47: "Fishing Vessel", 49: "Ferry", 50: "Yacht", 51: "Container Ship", 52: "Oil Tanker", 53: "Engineering Vehicle",
    54: "Tower crane", 55: "Container Crane", 56: "Reach Stacker", 57: "Straddle Carrier", 59: "Mobile Crane",
    60: "Dump Truck", 61: "Haul Truck", 62: "Scraper/Tractor", 63: "Front loader/Bulldozer", 64: "Excavator",
    65: "Cement Mixer", 66: "Ground Grader", 71: "Hut/Tent", 72: "Shed", 73: "Building", 74: "Aircraft Hangar",
    76: "Damaged Building", 77: "Facility", 79: "Construction Site", 83: "Vehicle Lot", 84: "Helipad",
    86: "Storage Tank", 89: "Shipping container lot", 91: "Shipping Container", 93: "Pylon", 94: "Tower",
}  # fmt: skip
CLASSES = tuple(CLASS_OF_TYPE.values())
_SUFFIXES = (".geojson", ".json")


def recognizes(file: Path, head: str) -> bool:
    """Whether a file, of which `head` are the first 100,000 characters, has labels of this format."""
    return file.suffix.lower() in _SUFFIXES and '"bounds_imcoords"' in head and '"type_id"' in head


def splits(path: Path) -> tuple[str, ...]:
    """Names of the splits of a data set, given its root: xView has none."""
    return ()


def read(path: str | Path, *, split: str | None = None, classes: Sequence[str] | None = None) -> Dataset:
    """Read a data set from its root or the GeoJSON file.

    Raises UserError if the path is missing, a split is asked for, or no image is usable. Smaller faults are listed in
    `Dataset.problems`.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path} does not exist; give the xView folder or xView_train.geojson")
    if split is not None:
        raise UserError(f"{path} has no split {split!r}; xView has no splits")
    files = [path] if path.is_file() else [f for f in FileIndex(path, _SUFFIXES).files if recognizes(f, head_of(f))]
    problems: list[Problem] = []
    objects: dict[tuple[Path, str], Objects] = {}
    for file in files:
        try:
            _read_features(file, load_json(file), objects, problems)
        except ValueError as error:
            problems.append(Problem(file, None, f"{error}; the file is skipped", count_of(file, '"type_id"')))
    index = FileIndex(image_root(path))
    records = [
        place_record(found.record(file), LabelFile(file, "", ""), index, name)
        for (file, name), found in objects.items()
    ]
    if path.is_dir():
        problems += images_without_labels(index, records, path)
    return assemble(records, path, format=NAME, kind="hbb", classes=classes, known=(CLASSES,), problems=problems)


def _read_features(file: Path, content: dict, objects: dict, problems: list[Problem]) -> None:
    features = content.get("features")
    if not isinstance(features, list):
        raise ValueError("has no list 'features'")
    unknown: Counter[float] = Counter()
    for i, feature in enumerate(features):
        try:
            properties = feature.get("properties") if isinstance(feature, dict) else None
            if not isinstance(properties, dict):
                raise ValueError("it has no properties")
            name = properties.get("image_id")
            if not isinstance(name, str) or not name:
                raise ValueError(f"image_id is {shown(name)}, not the name of an image")
            kind = number(properties.get("type_id"), "type_id")
            if kind not in CLASS_OF_TYPE:
                unknown[kind] += 1
                continue
            here = objects.get((file, name), Objects())
            here.add(CLASS_OF_TYPE[int(kind)], upright_box(*_bounds(properties.get("bounds_imcoords"))))
            objects[file, name] = here  # not before: an image whose objects cannot be read is not empty
        except ValueError as error:
            problems.append(Problem(file, None, f"features[{i}]: {error}; the object is skipped", 1))
    for kind, n in sorted(unknown.items()):
        message = f"type {kind:g} has no class in xView's list; its {n} objects are skipped"
        problems.append(Problem(file, None, message, n))


def _bounds(text: object) -> list[float]:
    values = re.split(r"\s*,\s*", text.strip()) if isinstance(text, str) else []
    if len(values) != 4:
        raise ValueError(f"bounds_imcoords is {shown(text)}, not x1,y1,x2,y2")
    return [number(value, "bounds_imcoords") for value in values]
