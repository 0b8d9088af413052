"""HIT-UAV JSON: thermal images from a drone, rotated boxes, altitude, camera angle, day or night, and date.

`annotations/<split>.json` next to `images/<split>/`. COCO-like, with `filename` for `file_name` and
`bbox = [cx, cy, w, h, theta]`: centre in continuous pixels without half-pixel shift, theta in radians clockwise (y
down) from the horizontal to the side of length w, w and h in any order. Category "DontCare" is an ignored region.
`difficult` is a JSON boolean. Numbers of an image may be strings.
"""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dataengine import geometry
from dataengine.data.file_index import FileIndex, safe_name
from dataengine.data.label_files import count_of, head_of, image_root
from dataengine.data.layout import UNKNOWN, Acquisition, Dataset, Layout, Problem
from dataengine.data.parse import flag, load_json, number, objects_only, radians
from dataengine.data.records import Record, assemble, unknown_acquisition
from dataengine.data.staging import Progress, placed, staged
from dataengine.errors import UserError

NAME = "hit-uav"
HOLDS = frozenset({"angles", "difficult", "ignored", "altitude_m", "camera_angle_deg", "night", "date"})
IGNORE = "dontcare"


def recognizes(file: Path, head: str) -> bool:
    """Whether a file is an annotation file of HIT-UAV. head: its first characters."""
    stated = re.search(r'"filename"\s*:', head) and re.search(r'"(perspective|scenarios)"\s*:', head)
    return file.suffix.lower() == ".json" and bool(stated)


def splits(path: Path) -> tuple[str, ...]:
    """Names of the splits of a data set, given its root."""
    return tuple(file.stem for file in _annotation_files(path))


def _annotation_files(path: Path) -> list[Path]:
    """`annotations/*.json`, or else the files of this format anywhere below a folder."""
    found = sorted((path / "annotations").glob("*.json"))
    if found:
        return found
    files = FileIndex(path, (".json",)).files
    return [file for file in files if recognizes(file, head_of(file))]


def read(path: str | Path, *, split: str | None = None, classes: Sequence[str] | None = None) -> Dataset:
    """Read a data set from its root or one annotation file. `split=None` reads all splits.

    Raises UserError if the path or the split is missing or no image is usable. Smaller faults are listed in
    `Dataset.problems`.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path} does not exist; give the HIT-UAV folder or one of its annotation files")
    files = [path] if path.is_file() else _annotation_files(path)
    if not files:
        raise UserError(f"{path} has no annotation files of HIT-UAV; they were looked for in annotations/*.json")
    if split is not None:
        files = [file for file in files if file.stem == split]
        if not files:
            raise UserError(
                f"{path} has no split {split!r}; it has {', '.join(splits(path)) or 'no annotations/*.json'}"
            )
    records: list[Record] = []
    problems: list[Problem] = []
    names: dict[str, None] = {}
    index = FileIndex(image_root(path))
    for file in files:
        try:
            content = load_json(file)
            records += _records(file, content, names, index, problems)
        except ValueError as error:
            problems.append(Problem(file, None, f"{error}; the file is skipped", count_of(file, '"bbox"')))
    known = (tuple(names),) if names else ()
    return assemble(records, path, format=NAME, kind="obb", classes=classes, known=known, problems=problems)


def _records(
    file: Path, content: dict, names: dict[str, None], index: FileIndex, problems: list[Problem]
) -> list[Record]:
    missing = [key for key in ("images", "annotations", "categories") if not isinstance(content.get(key), list)]
    if missing:
        raise ValueError(f"has no list {missing[0]!r}")
    content = objects_only(file, content, problems)
    categories = {category["id"]: str(category["name"]) for category in content["categories"]}
    names.update(dict.fromkeys(n for n in categories.values() if n.lower() != IGNORE))
    official = content.get("info", {}).get("description") == "PegasusDrone"
    credit = {"source": "HIT-UAV", "license": "CC BY 4.0"} if official else {}
    records: dict[object, Record] = {}
    for entry in content["images"]:
        try:
            file_name = str(entry["filename"])
            size = int(number(entry["width"], "width")), int(number(entry["height"], "height"))
            record = Record(safe_name(file_name), None, file, size=size, split=file.stem, **credit)
            try:
                record.image = index.find(file_name, near=file, split=file.stem)
            except ValueError as error:
                record.fault = str(error)
            record.acquisition = _acquisition(file, entry, problems)
            record.boxes, record.difficult, record.ignored = [], [], []
            records[entry["id"]] = record
        except KeyError as error:
            problems.append(Problem(file, None, f"an image has no field {error}; it is skipped"))
        except (ValueError, TypeError) as error:
            problems.append(Problem(file, None, f"image {entry.get('filename')!r}: {error}; it is skipped"))
    for entry in content["annotations"]:
        try:
            record = records[entry["image_id"]]
            name = categories[entry["category_id"]]
            box = [number(value, "bbox") for value in entry["bbox"]]
            if len(box) != 5:
                raise ValueError(f"bbox has {len(box)} numbers, not cx, cy, w, h, theta")
            radians(box[4], "theta")
        except KeyError as error:
            problems.append(Problem(file, None, f"annotation {entry.get('id')}: {error} is unknown; it is skipped", 1))
            continue
        except (ValueError, TypeError) as error:
            problems.append(Problem(file, None, f"annotation {entry.get('id')}: {error}; it is skipped", 1))
            continue
        if name.lower() == IGNORE:
            record.ignored.append(box)
        else:
            record.names.append(name)
            record.boxes.append(box)
            record.difficult.append(flag(entry.get("difficult", False)))
    for record in records.values():
        record.boxes = geometry.regularize(np.array(record.boxes, np.float32).reshape(-1, 5))
        record.ignored = geometry.regularize(np.array(record.ignored, np.float32).reshape(-1, 5))
    return list(records.values())


def _acquisition(file: Path, entry: dict, problems: list[Problem]) -> Acquisition:
    date, scenario = entry.get("date"), entry.get("scenario")
    try:
        return Acquisition(
            altitude_m=_optional(entry, "altitude"),
            camera_angle_deg=_optional(entry, "perspective"),
            night=number(scenario, "scenario") == 1 if scenario is not None else None,
            date=datetime.datetime.strptime(str(date), "%Y%m%d").date() if date is not None else None,
        )
    except ValueError as error:  # pydantic's ValidationError is one too
        problems.append(unknown_acquisition(file, entry["filename"], error))
        return UNKNOWN


def _optional(entry: dict, field: str) -> float | None:
    return None if entry.get(field) is None else number(entry[field], field)


def write(
    dataset: Dataset, path: str | Path, *, split: str = "train", progress: Progress | None = None
) -> list[Problem]:
    """Write one split; ignored regions become "DontCare". Returns problems: what was skipped.

    Raises UserError unless `path` is new, empty or a HIT-UAV set of the same classes written by dataengine.
    """
    path = Path(path)
    problems: list[Problem] = []
    image_entries, annotations = [], []
    with staged(path, NAME, split, dataset.classes) as work:
        for sample, name in placed(dataset, work / "images" / split, problems, flat=False, progress=progress):
            layout = sample.layout
            image_entries.append(_image_entry(len(image_entries), layout, name + sample.image.suffix))
            rows = [
                *zip(layout.boxes, layout.labels, layout.difficult, strict=True),
                *((box, len(dataset.classes), False) for box in layout.ignored),
            ]
            for box, label, difficult in rows:
                *values, theta = map(float, box)
                entry = {"id": len(annotations), "image_id": len(image_entries) - 1, "category_id": int(label)}
                bbox = [*(round(value, 4) for value in values), round(theta % np.pi, 7)]
                annotations.append({**entry, "difficult": bool(difficult), "bbox": bbox})
        content = {
            "info": {"description": dataset.name},
            "scenarios": [{"id": 0, "name": "day"}, {"id": 1, "name": "night"}],
            "images": image_entries,
            "categories": [{"id": i, "name": name} for i, name in enumerate([*dataset.classes, "DontCare"])],
            "annotations": annotations,
        }
        file = work / "annotations" / f"{split}.json"
        file.parent.mkdir()
        file.write_text(json.dumps(content), "utf-8")
    return problems


def _image_entry(identity: int, layout: Layout, file_name: str) -> dict:
    entry: dict = {"id": identity, "width": layout.size[0], "height": layout.size[1], "filename": file_name}
    acquisition = layout.acquisition
    if acquisition.night is not None:
        entry["scenario"] = str(int(acquisition.night))
    if acquisition.camera_angle_deg is not None:
        entry["perspective"] = f"{acquisition.camera_angle_deg:g}"
    if acquisition.altitude_m is not None:
        entry["altitude"] = f"{acquisition.altitude_m:g}"
    if acquisition.date is not None:
        entry["date"] = acquisition.date.strftime("%Y%m%d")
    return entry
