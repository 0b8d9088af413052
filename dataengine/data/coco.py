"""COCO JSON: horizontal boxes in `bbox`, rotated ones as a polygon of four corners in `segmentation`.

`bbox = [x, y, width, height]` has the top left corner in continuous pixels, without half-pixel shift; so have corners.
A file is rotated (`obb`) if every object has one polygon of four corners and at least one of them is more than the
outline of its `bbox`. `info.box_kind`, which `write` adds, takes precedence. `iscrowd` objects are ignored regions.
Read: `annotations/<split>.json` next to `images/<split>/`, COCO's own `instances_train2017.json` next to `train2017/`,
and Roboflow's `<split>/_annotations.coco.json`.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryFile

import numpy as np
from pydantic import ValidationError

from dataengine import geometry
from dataengine.data.border import visible_hulls
from dataengine.data.images import named_file, safe_name
from dataengine.data.layout import UNKNOWN, Acquisition, Dataset, Layout, Problem, Sample
from dataengine.data.parse import flag, load_json, number, objects_only
from dataengine.data.records import Record, assemble, unknown_acquisition
from dataengine.data.staging import Progress, placed, staged
from dataengine.errors import UserError

NAME = "coco"
HOLDS = frozenset({"angles", "hbb", "difficult", "visible", "ignored", *Acquisition.model_fields})
_OTHER_TASKS = ("captions_", "person_keypoints_", "panoptic_", "image_info_", "stuff_")


def annotation_files(path: Path) -> dict[str, Path]:
    """{split: annotation file} of a data set, given its root or one annotation file."""
    if path.is_file():
        return {_split_name(path): path}
    files = [*path.glob("*/_annotations.coco.json"), *path.glob("annotations/*.json")] or [*path.glob("*.json")]
    return {_split_name(file): file for file in sorted(files) if not file.name.startswith(_OTHER_TASKS)}


def _split_name(file: Path) -> str:
    if file.name == "_annotations.coco.json":
        return file.parent.name
    return file.stem.removeprefix("instances_")


def splits(path: Path) -> tuple[str, ...]:
    """Names of the splits of a data set, given its root."""
    return tuple(annotation_files(path))


def read(path: str | Path, *, split: str | None = None, classes: Sequence[str] | None = None) -> Dataset:
    """Read a data set from its root or one annotation file. `split=None` reads all splits.

    Raises UserError if the path or the split is missing or no image is usable. Smaller faults are listed in
    `Dataset.problems`.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path} does not exist; give a folder with annotations/*.json or one COCO file")
    files = annotation_files(path)
    if split is not None:
        chosen = {name: file for name, file in files.items() if re.fullmatch(re.escape(split) + r"\d*", name)}
        if not chosen:
            raise UserError(f"{path} has no split {split!r}; it has {', '.join(files) or 'no annotations/*.json'}")
        files = chosen
    records: list[Record] = []
    problems: list[Problem] = []
    names: dict[str, None] = {}
    rotated: list[bool] = []
    for name, file in files.items():
        try:
            content = load_json(file)
            records += _records(file, name, content, names, rotated, problems)
        except ValueError as error:
            problems.append(Problem(file, None, f"{error}; the file is skipped"))
    known = (tuple(names),) if names else ()
    kind = "obb" if any(rotated) else "hbb"
    return assemble(records, path, format=NAME, kind=kind, classes=classes, known=known, problems=problems)


def _records(file: Path, split: str, content: dict, names: dict, rotated: list, problems: list) -> list[Record]:
    missing = [key for key in ("images", "annotations", "categories") if not isinstance(content.get(key), list)]
    if missing:
        raise ValueError(f"has no list {missing[0]!r}")
    content = objects_only(file, content, problems)
    categories = {_key(category["id"]): str(category["name"]) for category in content["categories"]}
    used = {str(entry.get("category_id")) for entry in content["annotations"]}
    parents = {str(category.get("supercategory")) for category in content["categories"]}
    for key, name in categories.items():
        if str(key) in used or name not in parents:  # Roboflow adds a super-category, which no object has
            names.setdefault(name)
    oriented = _is_rotated(content)
    rotated.append(oriented)
    licenses = {_key(entry.get("id")): str(entry.get("name", "")) for entry in content.get("licenses") or []}
    default_license = str(content.get("info", {}).get("license", ""))
    records: dict[object, Record] = {}
    for entry in content["images"]:
        try:
            file_name = str(entry["file_name"])
            record = Record(safe_name(file_name), _image(file, split, file_name), file, split=split)
            if entry.get("width") and entry.get("height"):
                record.size = int(number(entry["width"], "width")), int(number(entry["height"], "height"))
            record.source = str(entry.get("source", ""))
            record.license = licenses.get(entry.get("license")) or default_license
            record.acquisition = _acquisition(file, entry, problems)
            record.boxes, record.difficult, record.visible, record.ignored, record.outlines = [], [], [], [], []
            records[entry["id"]] = record
        except KeyError as error:
            problems.append(Problem(file, None, f"an image has no field {error}; it is skipped"))
        except (ValueError, TypeError) as error:
            problems.append(Problem(file, None, f"image {entry.get('file_name')!r}: {error}; it is skipped"))
    for entry in content["annotations"]:
        try:
            record = records[entry["image_id"]]
            name = categories[entry["category_id"]]
            corners = _corners(entry, oriented)
            visible = number(entry.get("visible", 1), "visible")
        except KeyError as error:
            problems.append(Problem(file, None, f"annotation {entry.get('id')}: {error} is unknown; it is skipped"))
            continue
        except (ValueError, TypeError) as error:
            problems.append(Problem(file, None, f"annotation {entry.get('id')}: {error}; it is skipped"))
            continue
        if entry.get("iscrowd"):
            if corners not in record.ignored:  # `write` repeats a region for each class
                record.ignored.append(corners)
        else:
            record.names.append(name)
            record.boxes.append(corners)
            record.difficult.append(flag(entry.get("difficult", False)))
            record.visible.append(visible)
            record.outlines.append(_outline(entry))
    for record in records.values():
        record.boxes = geometry.from_corners(np.array(record.boxes, np.float32).reshape(-1, 4, 2))
        record.ignored = geometry.from_corners(np.array(record.ignored, np.float32).reshape(-1, 4, 2))
    return list(records.values())


def _key(value: object) -> object:
    """The id of an entry, a number or text. Raises ValueError for a list or an object."""
    if isinstance(value, list | dict):
        raise ValueError(f"{value} is not an id")
    return value


def _acquisition(file: Path, entry: dict, problems: list[Problem]) -> Acquisition:
    if "acquisition" not in entry:
        return UNKNOWN
    try:
        return Acquisition.model_validate(entry["acquisition"])
    except ValidationError as error:
        problems.append(unknown_acquisition(file, entry["file_name"], error))
        return UNKNOWN


def _is_rotated(content: dict) -> bool:
    stated = content.get("info", {}).get("box_kind")
    if stated in ("hbb", "obb"):
        return stated == "obb"
    tilted = False
    for entry in content["annotations"]:
        polygons, box = entry.get("segmentation"), entry.get("bbox")
        if entry.get("iscrowd"):
            continue
        if not isinstance(polygons, list) or len(polygons) != 1:
            return False
        if not isinstance(polygons[0], list) or len(polygons[0]) != 8:
            return False
        plain = isinstance(box, list) and all(isinstance(value, int | float) for value in (*box, *polygons[0]))
        if plain and len(box) == 4:
            outline = {(box[0] + dx * box[2], box[1] + dy * box[3]) for dx in (0, 1) for dy in (0, 1)}
            tilted |= {*zip(polygons[0][::2], polygons[0][1::2], strict=True)} != outline
        else:
            tilted = True
    return tilted


def _corners(entry: dict, oriented: bool) -> list[float]:
    """Eight numbers: four corners of the object, x and y in turn."""
    if oriented and isinstance(entry.get("segmentation"), list) and entry["segmentation"]:
        polygon = [number(value, "segmentation") for value in entry["segmentation"][0]]
        if len(polygon) != 8:
            raise ValueError(f"segmentation has {len(polygon) / 2:g} points, not the 4 corners of a rotated box")
        return polygon
    box = [number(value, "bbox") for value in entry["bbox"]]
    if len(box) != 4:
        raise ValueError(f"bbox has {len(box)} numbers, not x, y, width, height")
    x, y, width, height = box
    if width <= 0 or height <= 0:
        raise ValueError(f"bbox is {width:g} wide and {height:g} high, so it has no area")
    return [x, y, x + width, y, x + width, y + height, x, y + height]


def _outline(entry: dict) -> np.ndarray:
    """The largest polygon of an instance mask, (K, 2); (0, 2) if there is none with more than four points."""
    polygons = entry.get("segmentation")
    if not isinstance(polygons, list):
        return np.zeros((0, 2))
    try:
        outlines = [
            np.asarray(p, np.float64).reshape(-1, 2)
            for p in polygons
            if isinstance(p, list) and len(p) > 8 and len(p) % 2 == 0
        ]
    except (TypeError, ValueError):  # an invalid mask counts as missing, since the box does not need it
        return np.zeros((0, 2))
    finite = [points for points in outlines if np.isfinite(points).all()]
    return max(finite, key=lambda points: np.ptp(points, axis=0).prod(), default=np.zeros((0, 2)))


def _image(annotation: Path, split: str, file_name: str) -> Path:
    root, folder = annotation.parent.parent, annotation.parent
    folders = (root / "images" / split, root / split, root / "images", folder / "images" / split, folder / split)
    return named_file(root, (*folders, folder / "images", folder, root), file_name)


def write(
    dataset: Dataset, path: str | Path, *, split: str = "train", progress: Progress | None = None
) -> list[Problem]:
    """Write one split: `annotations/<split>.json` and `images/<split>/`. Returns problems: what was skipped.

    `bbox` is the axis-aligned box around the part of an object inside the image, `segmentation` the four corners of its
    box, which are those of `bbox` in a horizontal data set. An ignored region is a crowd of every class, as COCO's
    evaluation matches crowds by class. `difficult`, `visible` and
    `acquisition` are added under these names, which other readers ignore.
    Raises UserError unless `path` is new, empty or a COCO set of the same classes written by dataengine.
    """
    path = Path(path)
    problems: list[Problem] = []
    licenses = sorted({sample.license for sample in dataset if sample.license})
    with staged(path, NAME, split, dataset.classes) as work:
        file = work / "annotations" / f"{split}.json"
        file.parent.mkdir()
        # entries are streamed, so that memory does not grow with the data set; annotations go to a temporary file
        # first, since all images precede them
        with open(file, "w", encoding="utf-8") as out, TemporaryFile("w+", encoding="utf-8", dir=path) as annotations:
            info = {"description": dataset.name, "box_kind": dataset.kind}
            out.write(f'{{"info": {json.dumps(info)}, "licenses": ')
            out.write(json.dumps([{"id": i, "name": name} for i, name in enumerate(licenses, 1)]) + ', "images": [')
            objects = 0
            samples = placed(dataset, work / "images" / split, problems, flat=False, progress=progress)
            for number, (sample, name) in enumerate(samples, 1):
                image = {"id": number, "file_name": name + sample.image.suffix, **_image_fields(sample, licenses)}
                out.write((", " if number > 1 else "") + json.dumps(image))
                for entry in _annotations(sample.layout, dataset):
                    objects += 1  # ids start at 1: pycocotools treats a match with id 0 as none
                    entry = {"id": objects, "image_id": number, **entry}
                    annotations.write((", " if objects > 1 else "") + json.dumps(entry))
            annotations.seek(0)
            out.write('], "annotations": [')
            shutil.copyfileobj(annotations, out)
            categories = [{"id": i, "name": name} for i, name in enumerate(dataset.classes, 1)]
            out.write(f'], "categories": {json.dumps(categories)}}}')
    return problems


def _image_fields(sample: Sample, licenses: list[str]) -> dict:
    """Fields of the entry of an image other than id and file name."""
    layout = sample.layout
    fields: dict = {"width": layout.size[0], "height": layout.size[1]}
    if sample.source:
        fields["source"] = sample.source
    if sample.license:
        fields["license"] = licenses.index(sample.license) + 1
    if layout.acquisition != UNKNOWN:
        fields["acquisition"] = layout.acquisition.model_dump(mode="json", exclude_none=True)
    return fields


def _annotations(layout: Layout, dataset: Dataset) -> Iterator[dict]:
    """Entries of the objects and ignored regions of an image, without ids."""
    boxes = np.concatenate([layout.boxes, layout.ignored])
    corners = np.round(geometry.to_corners(boxes).astype(np.float64), 4)  # (N, 4, 2)
    hulls = np.round(visible_hulls(boxes, layout.size), 4)  # (N, 4)
    for i, box in enumerate(boxes):
        x1, y1, x2, y2 = hulls[i].tolist()
        entry = {
            "bbox": np.round([x1, y1, x2 - x1, y2 - y1], 4).tolist(),
            "area": round(float(box[2]) * float(box[3]), 4),
            "segmentation": [corners[i].ravel().tolist()]
            if dataset.kind == "obb"
            else [[x1, y1, x2, y1, x2, y2, x1, y2]],
        }
        if i >= len(layout):  # an ignored region
            for label in range(len(dataset.classes)):
                yield {**entry, "iscrowd": 1, "category_id": label + 1}
            continue
        entry |= {"category_id": int(layout.labels[i]) + 1, "iscrowd": 0}
        if layout.difficult[i]:
            entry["difficult"] = 1
        if layout.visible[i] < 1:
            entry["visible"] = round(float(layout.visible[i]), 4)
        yield entry
