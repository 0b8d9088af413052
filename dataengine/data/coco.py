"""COCO JSON: horizontal boxes in `bbox`, rotated ones as a polygon of four corners in `segmentation`.

`bbox = [x, y, width, height]` has the top left corner in continuous pixels, without half-pixel shift; so have corners.
A data set is rotated (`obb`) if most polygons have four corners and at least one of them is more than the outline of
its `bbox`, or if an object has the attribute `rotation` of CVAT, in degrees clockwise around the centre of `bbox`.
`info.box_kind`, which `write` adds, takes precedence. In a rotated data set, an object with other polygons gets the
minimum-area box around them, and one without a polygon its `bbox`. In a horizontal one, `bbox` is used.
`iscrowd` and `ignore` objects are ignored regions, as for pycocotools and mmdetection.
Read: `annotations/<split>.json` next to `images/<split>/`, COCO's own `instances_train2017.json` next to `train2017/`,
Roboflow's `<split>/_annotations.coco.json`, and FiftyOne's `labels.json` next to `data/`.
"""

from __future__ import annotations

import json
import math
import mmap
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryFile

import numpy as np
from pydantic import ValidationError

from dataengine import geometry
from dataengine.data.border import visible_hulls
from dataengine.data.file_index import FileIndex, safe_name
from dataengine.data.label_files import count_of, image_root
from dataengine.data.layout import UNKNOWN, Acquisition, Dataset, Layout, Problem, Sample
from dataengine.data.objects import DIFFICULT, IGNORED, look_like_corners, marked
from dataengine.data.parse import flag, load_json, number, objects_only
from dataengine.data.records import NOTHING_READ, Record, assemble, unknown_acquisition
from dataengine.data.staging import Place, Progress, placed, staged
from dataengine.errors import UserError

NAME = "coco"
HOLDS = frozenset({"angles", "hbb", "difficult", "visible", "ignored", *Acquisition.model_fields})
_OTHER_TASKS = ("captions_", "person_keypoints_", "panoptic_", "image_info_", "stuff_")
MAX_POLYGONS = 20_000  # objects by whose polygons a data set is found to be rotated
OUTLINE_PX = 2e-3  # distance at which a corner of a polygon is a corner of bbox
_UNREAD_GEOMETRY = {"rotation", "angle", "theta", "rbox", "obb", "poly", "rotated_box", "rotated_bbox", "bbox_mode"}


def recognizes(file: Path, head: str) -> bool:
    """Whether a file is a COCO file of boxes. head: its first characters."""
    if file.suffix.lower() != ".json" or file.name.startswith(_OTHER_TASKS):
        return False
    if re.search(r'"(shapes|imagePath)"\s*:', head) or re.search(r'"images"\s*:\s*\{', head):
        return False
    if re.search(r'"poly"\s*:', head) and not re.search(r'"(bbox|segmentation)"\s*:', head):
        return False  # SODA-A
    wanted = [re.compile(rb'"%s"\s*:\s*\[' % key) for key in (b"images", b"annotations", b"categories")]
    if not file.stat().st_size:
        return False
    with open(file, "rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
        if sum(pattern.search(content) is not None for pattern in wanted) < 2:
            return False
        return content.find(b'"file_name"') >= 0 or content.find(b'"filename"') < 0


def annotation_files(path: Path) -> dict[str, Path]:
    """{split: annotation file} of a data set, given its root or one annotation file."""
    if path.is_file():
        return {_split_name(path): path}
    for patterns in (("*/_annotations.coco.json", "[Aa]nnotations/*.json"), ("*.json",), ("*/*.json",)):
        files = sorted(file for pattern in patterns for file in path.glob(pattern) if file.name[0] != ".")
        named = [file for file in files if not file.name.startswith(_OTHER_TASKS)]
        found = [file for file in named if recognizes(file, "") or _is_broken(file)]
        if found:
            return _by_split(found)
    return {}


def _is_broken(file: Path) -> bool:
    """Whether a file is no JSON: it may be an annotation file that was cut off."""
    try:
        json.loads(file.read_bytes())
    except (ValueError, OSError, RecursionError):
        return True
    return False


def _by_split(files: Sequence[Path]) -> dict[str, Path]:
    names = [_split_name(file) for file in files]
    return {
        name if names.count(name) == 1 else f"{file.parent.name}-{name}": file
        for name, file in zip(names, files, strict=True)
    }


def _split_name(file: Path) -> str:
    if file.name in ("_annotations.coco.json", "labels.json", "annotations.json"):
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
        years = re.compile(re.escape(split) + r"\d{4}")  # train2017
        chosen = {name: file for name, file in files.items() if name == split or years.fullmatch(name)}
        if not chosen:
            raise UserError(f"{path} has no split {split!r}; it has {', '.join(files) or 'no annotations/*.json'}")
        files = chosen
    problems: list[Problem] = []
    index = FileIndex(image_root(path))
    contents: dict[str, dict] = {}
    for name, file in files.items():
        try:
            contents[name] = _checked(file, load_json(file), problems)
        except ValueError as error:
            problems.append(Problem(file, None, f"{error}; the file is skipped", count_of(file, '"bbox"')))
    rotated = _is_rotated(list(contents.values()))
    records: list[Record] = []
    names: dict[str, None] = {}
    for name, content in contents.items():
        records += _records(files[name], name, content, names, rotated, index, problems)
    known = (tuple(names),) if names else ()
    kind = "obb" if rotated else "hbb"
    return assemble(records, path, format=NAME, kind=kind, classes=classes, known=known, problems=problems)


def _checked(file: Path, content: dict, problems: list[Problem]) -> dict:
    """The content with lists of JSON objects only. Raises ValueError if it is no COCO file."""
    missing = [key for key in ("images", "annotations", "categories") if not isinstance(content.get(key), list)]
    if missing:
        raise ValueError(f"has no list {missing[0]!r}")
    content = objects_only(file, content, problems)
    _category_names(content["categories"])
    unread = sorted({key for entry in content["annotations"] for key in entry if key.lower() in _UNREAD_GEOMETRY})
    if unread:
        message = f"annotations have {', '.join(unread)}, which is not read; only bbox and segmentation place an object"
        problems.append(Problem(file, None, message))
    return content


def _report_contradictions(file: Path, entries: Sequence[dict], rotated: bool, problems: list[Problem]) -> None:
    """The problem of objects whose `bbox` and polygons lie in different places, of which one is wrong."""
    apart = [entry for entry in entries if _lies_apart(entry)]
    if apart:
        message = (
            f"{len(apart)} annotations (first: {apart[0].get('id')}) have bbox and segmentation in different places; "
            f"{'segmentation' if rotated else 'bbox'} is used"
        )
        problems.append(Problem(file, None, message))


def _report_corners(file: Path, records: Iterable[Record], problems: list[Problem]) -> None:
    """The problem of a file with corners in `bbox`. Records have the corners of their boxes, as they were read."""
    rows, beyond = [], []
    for record in records:
        if record.size is None:
            continue
        for x1, y1, _, _, x2, y2, *_ in record.boxes:
            if x2 - x1 <= x1 or y2 - y1 <= y1:  # no corners
                return
            rows.append([x1, y1, x2 - x1, y2 - y1])
            beyond.append(x2 > record.size[0] + 1 or y2 > record.size[1] + 1)
    if look_like_corners(np.array(rows), np.array(beyond)):
        message = (
            "many boxes leave their image, and all look like x1, y1, x2, y2 in place of COCO's x, y, width, height"
        )
        problems.append(Problem(file, None, f"{message}; convert them"))


def _lies_apart(entry: dict) -> bool:
    """Whether the centre of neither `bbox` nor the rectangle around the polygons is in the other."""
    box = _four_numbers(entry.get("bbox"))
    points = [point for polygon in _polygons(entry) for point in polygon]
    if not points or box is None or _states_rotation(entry):
        return False
    x, y, width, height = box
    (x1, y1), (x2, y2) = map(min, zip(*points, strict=True)), map(max, zip(*points, strict=True))
    bbox_in_polygon = x1 <= x + width / 2 <= x2 and y1 <= y + height / 2 <= y2
    return not (bbox_in_polygon or (x <= (x1 + x2) / 2 <= x + width and y <= (y1 + y2) / 2 <= y + height))


def _records(
    file: Path, split: str, content: dict, names: dict, rotated: bool, index: FileIndex, problems: list[Problem]
) -> list[Record]:
    categories = _category_names(content["categories"])
    used = {str(entry.get("category_id")) for entry in content["annotations"]}
    parents = {str(category.get("supercategory")) for category in content["categories"]}
    for key, name in categories.items():
        if str(key) in used or name not in parents:  # Roboflow adds a super-category, which no object has
            names.setdefault(name)
    records = _image_records(file, split, content, index, problems)
    _report_contradictions(file, content["annotations"], rotated, problems)
    unreadable: list[Record] = []
    for entry in content["annotations"]:
        record = None
        try:
            record = records[_key(entry["image_id"])]
            name = categories[_key(entry["category_id"])]
            flags = _attributes(entry) | entry
            ignored = marked(flags, IGNORED)
            corners = _corners(entry, rotated)
            visible = number(entry.get("visible", 1), "visible")
        except KeyError as error:
            problems.append(Problem(file, None, f"annotation {entry.get('id')}: {error} is unknown; it is skipped", 1))
            unreadable += [record] if record else []
            continue
        except (ValueError, TypeError) as error:
            problems.append(Problem(file, None, f"annotation {entry.get('id')}: {error}; it is skipped", 1))
            unreadable += [record] if record else []
            continue
        segmentation = entry.get("segmentation")
        if (
            rotated
            and not ignored
            and not (isinstance(segmentation, list) and segmentation)
            and not _states_rotation(entry)
        ):
            message = "has no polygon in a data set of rotated boxes; its upright bbox is used"
            problems.append(Problem(file, None, f"annotation {entry.get('id')}: {message}"))
        if ignored:
            if corners not in record.ignored:  # `write` repeats a region for each class
                record.ignored.append(corners)
        else:
            record.names.append(name)
            record.boxes.append(corners)
            record.difficult.append(marked(flags, DIFFICULT))
            record.visible.append(visible)
            record.outlines.append(_outline(entry))
    if not rotated:
        _report_corners(file, records.values(), problems)
    for record in unreadable:
        if not record.names and not len(record.ignored) and record.image is not None:
            record.image, record.fault = None, NOTHING_READ
    for record in records.values():
        record.boxes = geometry.from_corners(np.array(record.boxes, np.float32).reshape(-1, 4, 2))
        record.ignored = geometry.from_corners(np.array(record.ignored, np.float32).reshape(-1, 4, 2))
    return list(records.values())


def _image_records(
    file: Path, split: str, content: dict, index: FileIndex, problems: list[Problem]
) -> dict[object, Record]:
    """The records of the images by id, without objects. An id of two pictures is left out: nothing tells whose the
    objects are."""
    licenses = {_key(entry.get("id")): str(entry.get("name", "")) for entry in content.get("licenses") or []}
    default_license = str(content.get("info", {}).get("license", ""))
    records: dict[object, Record] = {}
    ambiguous: set = set()
    for entry in content["images"]:
        try:
            file_name = str(entry["file_name"])
            record = Record(safe_name(file_name), None, file, split=split)
            try:
                record.image = index.find(file_name, near=file, split=split)
            except ValueError as error:
                record.fault = str(error)
            if entry.get("width") and entry.get("height"):
                record.size = int(number(entry["width"], "width")), int(number(entry["height"], "height"))
            record.source = str(entry.get("source", ""))
            record.license = licenses.get(entry.get("license")) or default_license
            record.acquisition = _acquisition(file, entry, problems)
            record.boxes, record.difficult, record.visible, record.ignored, record.outlines = [], [], [], [], []
            first = records.setdefault(_key(entry["id"]), record)
            if first is not record and first.name != record.name:
                ambiguous.add(entry["id"])
                message = f"image id {entry['id']} is that of {first.name!r} and of {record.name!r}"
                problems.append(Problem(file, None, f"{message}; both and their objects are skipped"))
        except KeyError as error:
            problems.append(Problem(file, None, f"an image has no field {error}; it is skipped"))
        except (ValueError, TypeError) as error:
            problems.append(Problem(file, None, f"image {entry.get('file_name')!r}: {error}; it is skipped"))
    return {key: record for key, record in records.items() if key not in ambiguous}


def _category_names(categories: Sequence[dict]) -> dict[object, str]:
    """{id: name}. Raises ValueError if an id has several names."""
    names: dict[object, str] = {}
    for category in categories:
        name = str(category["name"])
        if names.setdefault(_key(category["id"]), name) != name:
            raise ValueError(f"category id {category['id']} is that of {names[_key(category['id'])]!r} and of {name!r}")
    return names


def _key(value: object) -> object:
    """The id of an entry, a number or text; "7" and 7 are equal. Raises ValueError for a list or an object."""
    if isinstance(value, list | dict):
        raise ValueError(f"{value} is not an id")
    return int(value) if isinstance(value, str) and re.fullmatch(r"0|[1-9]\d{0,17}", value) else value


def _attributes(entry: dict) -> dict:
    """The attributes of an object, {name: value}, also where a file has a list of {"name": ..., "value": ...}."""
    stated = entry.get("attributes")
    if isinstance(stated, list):
        return {str(each.get("name")): each.get("value") for each in stated if isinstance(each, dict)}
    return stated if isinstance(stated, dict) else {}


def _acquisition(file: Path, entry: dict, problems: list[Problem]) -> Acquisition:
    if "acquisition" not in entry:
        return UNKNOWN
    try:
        return Acquisition.model_validate(entry["acquisition"])
    except ValidationError as error:
        problems.append(unknown_acquisition(file, entry["file_name"], error))
        return UNKNOWN


def _is_rotated(contents: Sequence[dict]) -> bool:
    """Whether the objects of a data set are rotated boxes, by all its files together."""
    stated = {content.get("info", {}).get("box_kind") for content in contents} & {"hbb", "obb"}
    if stated:
        return "obb" in stated
    entries = [entry for content in contents for entry in content["annotations"] if not flag(entry.get("iscrowd"))]
    if any(_has_rotation(entry) for entry in entries):
        return True
    sample = entries[:: len(entries) // MAX_POLYGONS + 1]
    polygons = [(entry.get("bbox"), found) for entry in sample if (found := _polygons(entry))]
    quadrilaterals = [(box, found[0]) for box, found in polygons if len(found) == 1 and len(found[0]) == 4]
    if 2 * len(quadrilaterals) <= len(polygons):
        return False
    return any(not _is_outline(points, box) for box, points in quadrilaterals)


def _polygons(entry: dict) -> list[list[tuple[float, float]]]:
    """The polygons of an object without repeated points; those without three points, or with other values than
    numbers, are left out."""
    found = []
    for polygon in _parts(entry):
        try:
            values = [number(value, "segmentation") for value in polygon]
        except (TypeError, ValueError):
            continue
        points = list(zip(values[::2], values[1::2], strict=False))
        points = [point for i, point in enumerate(points) if i == 0 or point != points[i - 1]]
        if len(points) > 1 and points[0] == points[-1]:  # closed
            points.pop()
        if len(points) >= 3 and len(values) % 2 == 0:
            found.append(points)
    return found


def _parts(entry: dict) -> list:
    """The polygons in `segmentation`, each a list of x and y in turn, also where it is a single one or has pairs."""
    stated = entry.get("segmentation")
    if not isinstance(stated, list) or not stated:
        return []
    if not any(isinstance(part, list) for part in stated):
        return [stated]
    if all(isinstance(part, list) and len(part) == 2 and not isinstance(part[0], list) for part in stated):
        stated = [stated]
    return [
        [value for pair in part for value in pair] if part and all(isinstance(pair, list) for pair in part) else part
        for part in stated
    ]


def _four_numbers(box: object) -> list[float] | None:
    """`bbox` as numbers, None if it is something else, which is reported where the object is read."""
    if not isinstance(box, list) or len(box) != 4:
        return None
    try:
        return [number(value, "bbox") for value in box]
    except ValueError:
        return None


def _is_outline(points: Sequence[tuple[float, float]], box: object) -> bool:
    """Whether four points are the corners of the upright box `x, y, width, height`."""
    numbers = _four_numbers(box)
    if numbers is None:
        return False
    x, y, width, height = numbers
    corners = ((x, y), (x + width, y), (x + width, y + height), (x, y + height))
    return all(any(abs(px - cx) + abs(py - cy) < OUTLINE_PX for px, py in points) for cx, cy in corners)


def _rotation(entry: dict) -> float:
    """CVAT's attribute `rotation` in degrees, 0 without it. Raises ValueError if it is no number."""
    value = _attributes(entry).get("rotation")
    return 0.0 if value in (None, "") else number(value, "rotation") % 360


def _states_rotation(entry: dict) -> bool:
    return "rotation" in _attributes(entry)


def _has_rotation(entry: dict) -> bool:
    try:
        return _rotation(entry) != 0
    except ValueError:
        return False


def _corners(entry: dict, rotated: bool) -> list[float]:
    """Eight numbers: four corners of the object, x and y in turn. Raises ValueError if it has no area."""
    polygons, rotation = _parts(entry), _rotation(entry)
    if rotated and not rotation and polygons:
        found = _polygons(entry)
        if len(found) < len(polygons):
            counts = [len([number(value, "segmentation") for value in polygon]) / 2 for polygon in polygons]
            points = ", ".join(f"{count:g}" for count in counts)
            raise ValueError(f"segmentation has {points} points; a polygon has at least 3 different ones")
        if len(found) == 1 and len(found[0]) == 4:
            return [value for point in found[0] for value in point]
        box = geometry.from_points([point for points in found for point in points])
        if box[3] <= 0:
            raise ValueError("segmentation is flat, so it has no area")
        return geometry.to_corners(box).ravel().tolist()
    values = [number(value, "bbox") for value in entry["bbox"]]
    if len(values) != 4:
        raise ValueError(f"bbox has {len(values)} numbers, not x, y, width, height")
    x, y, width, height = values
    if width <= 0 or height <= 0:
        raise ValueError(f"bbox is {width:g} wide and {height:g} high, so it has no area")
    if rotated and rotation:
        box = [[x + width / 2, y + height / 2, width, height, math.radians(rotation)]]
        return geometry.to_corners(np.array(box)).ravel().tolist()
    return [x, y, x + width, y, x + width, y + height, x, y + height]


def _outline(entry: dict) -> np.ndarray:
    """The largest polygon of an instance mask, (K, 2); (0, 2) if there is none with more than four points."""
    outlines = [np.array(points) for points in _polygons(entry) if len(points) > 4]
    return max(outlines, key=lambda points: np.ptp(points, axis=0).prod(), default=np.zeros((0, 2)))


def write(
    dataset: Dataset,
    path: str | Path,
    *,
    split: str = "train",
    progress: Progress | None = None,
    place: Place | None = None,
) -> list[Problem]:
    """Write one split: `annotations/<split>.json` and `images/<split>/`. Returns problems: what was skipped.

    `bbox` is the axis-aligned box around the part of an object inside the image, `segmentation` the four corners of its
    box, which are those of `bbox` in a horizontal data set. An ignored region is a crowd of every class, as COCO's
    evaluation matches crowds by class. `difficult`, `visible` and
    `acquisition` are added under these names, which other readers ignore. `place`: in place of copying images
    (`staging.placed`).
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
            samples = placed(dataset, work / "images" / split, problems, flat=False, progress=progress, place=place)
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
