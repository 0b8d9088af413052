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
import mmap
import re
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile

import numpy as np
from pydantic import ValidationError

from dataengine import geometry
from dataengine.data.border import visible_hulls
from dataengine.data.coco_objects import (
    IS_DIFFICULT,
    IS_IGNORED,
    STATES_ROTATION,
    Annotations,
    Table,
    corners_of,
    entries_apart,
    flags_of,
    is_rotated,
    key_of,
    outline_of,
    states_rotation,
)
from dataengine.data.file_index import FileIndex, safe_name
from dataengine.data.json_stream import NO_OBJECT, stream_json
from dataengine.data.label_files import count_of, image_root
from dataengine.data.layout import UNKNOWN, Acquisition, Dataset, Layout, Problem, Sample
from dataengine.data.objects import NO_OUTLINE, look_like_corners
from dataengine.data.parse import not_objects, number, objects_only
from dataengine.data.records import NOTHING_READ, Record, assemble, unknown_acquisition
from dataengine.data.staging import Progress, placed, staged
from dataengine.errors import UserError, shown
from dataengine.files import open_regular

NAME = "coco"
HOLDS = frozenset({"angles", "hbb", "difficult", "visible", "ignored", *Acquisition.model_fields})
_OTHER_TASKS = ("captions_", "person_keypoints_", "panoptic_", "image_info_", "stuff_")
LISTS = ("images", "annotations", "categories")
IMAGE_FIELDS = ("id", "file_name", "width", "height", "source", "license", "acquisition")
FLAT = "segmentation is flat, so it has no area"


def recognizes(file: Path, head: str) -> bool:
    """Whether a file is a COCO file of boxes. head: its first characters."""
    if file.suffix.lower() != ".json" or file.name.startswith(_OTHER_TASKS):
        return False
    if re.search(r'"(shapes|imagePath)"\s*:', head) or re.search(r'"images"\s*:\s*\{', head):
        return False
    if re.search(r'"poly"\s*:', head) and not re.search(r'"(bbox|segmentation)"\s*:', head):
        return False  # SODA-A
    wanted = [re.compile(rb'"%s"\s*:\s*\[' % key) for key in (b"images", b"annotations", b"categories")]
    try:
        with open_regular(file) as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
            if sum(pattern.search(content) is not None for pattern in wanted) < 2:
                return False
            return content.find(b'"file_name"') >= 0 or content.find(b'"filename"') < 0
    except (OSError, ValueError):  # the second for an empty file
        return False


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
        return not isinstance(stream_json(file, {key: lambda block: None for key in LISTS}), dict)
    except ValueError as error:
        return NO_OBJECT not in str(error)


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
    contents: dict[str, _Content] = {}
    for name, file in files.items():
        try:
            contents[name] = _content(file, problems)
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


@dataclass(frozen=True)
class _Content:
    """What a file holds. images have only the fields that are read."""

    info: dict
    licenses: list[dict]
    categories: list[dict]
    images: list[dict]
    annotations: Annotations
    table: Table


def _content(file: Path, problems: list[Problem]) -> _Content:
    """The content of a file. Raises ValueError if it is no COCO file."""
    images: list[dict] = []
    annotations = Annotations()
    unread: dict[str, list[Problem]] = {"images": [], "annotations": []}
    counts = Counter()

    def objects(key: str, block: list) -> list[dict]:
        first = counts[key]
        counts[key] += len(block)
        if set(map(type, block)) == {dict}:
            return block
        unread[key] += not_objects(file, key, block, first)
        return [entry for entry in block if isinstance(entry, dict)]

    def add_images(block: list) -> None:
        images.extend({f: entry[f] for f in IMAGE_FIELDS if f in entry} for entry in objects("images", block))

    stated = stream_json(
        file, {"images": add_images, "annotations": lambda block: annotations.add(objects("annotations", block))}
    )
    missing = [key for key in LISTS if not isinstance(stated.get(key), list)]
    if missing:
        raise ValueError(f"has no list {missing[0]!r}")
    problems += [*unread["images"], *unread["annotations"]]
    rest = objects_only(file, stated, problems)
    category_names(rest["categories"])
    if annotations.unread:
        keys = ", ".join(sorted(annotations.unread))
        message = f"annotations have {keys}, which is not read; only bbox and segmentation place an object"
        problems.append(Problem(file, None, message))
    return _Content(rest["info"], rest["licenses"], rest["categories"], images, annotations, annotations.table())


def _is_rotated(contents: Sequence[_Content]) -> bool:
    """Whether the objects of a data set are rotated boxes, by all its files together."""
    stated = {shown(content.info.get("box_kind")) for content in contents} & {"'hbb'", "'obb'"}
    if stated:
        return "'obb'" in stated
    return is_rotated([(content.annotations, content.table) for content in contents])


def _report_contradictions(file: Path, content: _Content, rotated: bool, problems: list[Problem]) -> None:
    """The problem of objects whose `bbox` and polygons lie in different places, of which one is wrong."""
    apart = list(entries_apart(content.annotations, content.table))
    if apart:
        message = (
            f"{len(apart)} annotations (first: {shown(apart[0])}) have bbox and segmentation in different places; "
            f"{'segmentation' if rotated else 'bbox'} is used"
        )
        problems.append(Problem(file, None, message))


def _report_corners(file: Path, records: Sequence[Record], objects: _Objects, problems: list[Problem]) -> None:
    """The problem of a file with corners in `bbox`."""
    sizes = np.array([record.size or (np.nan, np.nan) for record in records]).reshape(-1, 2)[objects.images]
    stated = ~np.isnan(sizes[:, 0]) & ~objects.ignored
    first, last = objects.corners[stated][:, :2], objects.corners[stated][:, 4:6]
    rows = np.concatenate([first, last - first], 1)
    if (rows[:, 2:] > first).all() and look_like_corners(rows, (last > sizes[stated] + 1).any(1)):
        message = (
            "many boxes leave their image, and all look like x1, y1, x2, y2 in place of COCO's x, y, width, height"
        )
        problems.append(Problem(file, None, f"{message}; convert them"))


@dataclass
class _Objects:
    """Objects and ignored regions of a file, sorted by image and position in the file. images: of each, its place among
    the records."""

    images: np.ndarray
    categories: np.ndarray
    corners: np.ndarray
    ignored: np.ndarray
    difficult: np.ndarray
    visible: np.ndarray
    outlines: list[np.ndarray] | None


def _records(
    file: Path, split: str, content: _Content, names: dict, rotated: bool, index: FileIndex, problems: list[Problem]
) -> list[Record]:
    categories = category_names(content.categories)
    annotations = content.annotations
    used = {str(entry.get("category_id")) for entry in annotations.others.values()}
    used |= set(map(str, set(annotations.category_ids)))
    parents = {str(category.get("supercategory")) for category in content.categories}
    for key, name in categories.items():
        if str(key) in used or name not in parents:  # Roboflow adds a super-category, which no object has
            names.setdefault(name)
    by_id = _image_records(file, split, content, index, problems)
    records = list(by_id.values())
    _report_contradictions(file, content, rotated, problems)
    objects, unreadable = _objects(file, content, categories, by_id, rotated, problems)
    if not rotated:
        _report_corners(file, records, objects, problems)
    boxes = geometry.from_corners(objects.corners.astype(np.float32).reshape(-1, 4, 2))
    class_names = list(categories.values())
    ends = np.searchsorted(objects.images, np.arange(len(records) + 1)).tolist()
    any_ignored = objects.ignored.any()
    all_names = [class_names[category] for category in objects.categories.tolist()]
    for i, record in enumerate(records):
        own = slice(ends[i], ends[i + 1])
        if any_ignored and objects.ignored[own].any():
            regions = np.flatnonzero(objects.ignored[own]) + own.start
            # `write` repeats a region for each class
            record.ignored = boxes[regions[first_of_equal(objects.corners[regions])]]
            own = np.flatnonzero(~objects.ignored[own]) + own.start
            record.names = [all_names[at] for at in own]
            record.outlines = objects.outlines and [objects.outlines[at] for at in own]
        else:
            record.names = all_names[own]
            record.outlines = objects.outlines and objects.outlines[own]
        record.boxes, record.difficult, record.visible = boxes[own], objects.difficult[own], objects.visible[own]
    for i in unreadable:
        record = records[i]
        if not record.objects and record.image is not None:
            record.image, record.fault = None, NOTHING_READ
    return records


def _objects(
    file: Path, content: _Content, categories: dict, records: dict, rotated: bool, problems: list[Problem]
) -> tuple[_Objects, list[int]]:
    """The objects of a file, and the images with an object that cannot be read, by their place among the records."""
    table, annotations = content.table, content.annotations
    image_places = {key: i for i, key in enumerate(records)}
    category_places = {key: i for i, key in enumerate(categories)}
    images = np.array([image_places.get(key, -1) for key in annotations.image_ids], np.int64)
    classes = np.array([category_places.get(key, -1) for key in annotations.category_ids], np.int64)
    corners = table.corners(rotated)
    flat = np.isnan(corners[:, 0])
    left_out = (images < 0) | (classes < 0) | flat
    found: list[tuple[int, Problem]] = []  # at these positions
    unreadable = [int(images[i]) for i in np.flatnonzero(left_out & (images >= 0))]
    for i in np.flatnonzero(left_out).tolist():
        unknown = annotations.image_ids[i] if images[i] < 0 else annotations.category_ids[i]
        reason = FLAT if images[i] >= 0 and classes[i] >= 0 else f"{unknown} is unknown"
        found.append((int(table.positions[i]), _skipped(file, int(table.ids[i]), reason)))
    if rotated:
        bare = (np.diff(table.first) == 0) & ~left_out & ~table.has(STATES_ROTATION | IS_IGNORED)
        found += [(int(table.positions[i]), _without_polygon(file, int(table.ids[i]))) for i in np.flatnonzero(bare)]
    rows: list[tuple] = []
    more_outlines: list[np.ndarray] = []
    for position, entry in annotations.others.items():
        image = None
        try:
            image = image_places[key_of(entry["image_id"])]
            category = category_places[key_of(entry["category_id"])]
            ignored, difficult = flags_of(entry)
            own = corners_of(entry, rotated)
            visible = number(entry.get("visible", 1), "visible")
        except (KeyError, ValueError, TypeError) as error:
            reason = f"{shown_key(error)} is unknown" if isinstance(error, KeyError) else str(error)
            found.append((position, _skipped(file, entry.get("id"), reason)))
            unreadable += [] if image is None else [image]
            continue
        segmentation = entry.get("segmentation")
        if (
            rotated
            and not ignored
            and not (isinstance(segmentation, list) and segmentation)
            and not states_rotation(entry)
        ):
            found.append((position, _without_polygon(file, entry.get("id"))))
        rows.append((position, image, category, own, ignored, difficult, visible))
        more_outlines.append(outline_of(entry))
    problems += [problem for _, problem in sorted(found, key=lambda pair: pair[0])]
    kept = np.flatnonzero(~left_out)
    columns = list(zip(*rows, strict=True)) or [[]] * 7
    positions = np.concatenate([table.positions[kept], np.array(columns[0], np.int64)])
    images = np.concatenate([images[kept], np.array(columns[1], np.int64)])
    order = np.lexsort((positions, images))
    outlines = {i: points for i, points in table.outlines().items() if not left_out[i]}
    all_outlines = None
    if outlines or any(map(len, more_outlines)):
        all_outlines = [*(outlines.get(i, NO_OUTLINE) for i in kept.tolist()), *more_outlines]
        all_outlines = [all_outlines[at] for at in order.tolist()]
    return _Objects(
        images[order],
        np.concatenate([classes[kept], np.array(columns[2], np.int64)])[order],
        np.concatenate([corners[kept], np.array(columns[3], np.float64).reshape(-1, 8)])[order],
        np.concatenate([table.has(IS_IGNORED)[kept], np.array(columns[4], bool)])[order],
        np.concatenate([table.has(IS_DIFFICULT)[kept], np.array(columns[5], bool)])[order],
        np.concatenate([table.visible[kept], np.array(columns[6], np.float64)])[order],
        all_outlines,
    ), unreadable


def _skipped(file: Path, annotation_id: object, reason: str) -> Problem:
    return Problem(file, None, f"annotation {shown(annotation_id)}: {reason}; it is skipped", 1)


def _without_polygon(file: Path, annotation_id: object) -> Problem:
    message = "has no polygon in a data set of rotated boxes; its upright bbox is used"
    return Problem(file, None, f"annotation {shown(annotation_id)}: {message}")


def first_of_equal(rows: np.ndarray) -> np.ndarray:
    """Places of the rows (N, 8) that equal none before them, in order.

    >>> first_of_equal(np.array([[1, 2], [3, 4], [1, 2]])).tolist()
    [0, 1]
    """
    return np.sort(np.unique(rows, axis=0, return_index=True)[1])


def shown_key(error: KeyError) -> str:
    """The key that a dict lacks, as a message has it."""
    return shown(error.args[0])


def _image_records(
    file: Path, split: str, content: _Content, index: FileIndex, problems: list[Problem]
) -> dict[object, Record]:
    """The records of the images by id, without objects. An id of two pictures is left out: nothing tells whose the
    objects are."""
    licenses = {key_of(entry.get("id")): str(entry.get("name", "")) for entry in content.licenses}
    default_license = str(content.info.get("license", ""))
    records: dict[object, Record] = {}
    ambiguous: set = set()
    for entry in content.images:
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
            first = records.setdefault(key_of(entry["id"]), record)
            if first is not record and first.name != record.name:
                ambiguous.add(key_of(entry["id"]))
                message = f"image id {shown(entry['id'])} is that of {shown(first.name)} and of {shown(record.name)}"
                problems.append(Problem(file, None, f"{message}; both and their objects are skipped"))
        except KeyError as error:
            problems.append(Problem(file, None, f"an image has no field {error}; it is skipped"))
        except (ValueError, TypeError) as error:
            problems.append(Problem(file, None, f"image {shown(entry.get('file_name'))}: {error}; it is skipped"))
    return {key: record for key, record in records.items() if key not in ambiguous}


def category_names(categories: Sequence[dict]) -> dict[object, str]:
    """{id: name}. Raises ValueError if an id has several names."""
    names: dict[object, str] = {}
    for category in categories:
        name = str(category["name"])
        key = key_of(category["id"])
        if names.setdefault(key, name) != name:
            raise ValueError(f"category id {shown(category['id'])} is that of {shown(names[key])} and of {shown(name)}")
    return names


def _acquisition(file: Path, entry: dict, problems: list[Problem]) -> Acquisition:
    if "acquisition" not in entry:
        return UNKNOWN
    try:
        return Acquisition.model_validate(entry["acquisition"])
    except ValidationError as error:
        problems.append(unknown_acquisition(file, entry["file_name"], error))
        return UNKNOWN


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
