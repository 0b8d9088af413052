"""The content of a COCO file as records: its images with their objects, and the problems of what cannot be read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from dataengine import geometry
from dataengine.data.coco_entries import corners_of, flags_of, key_of, outline_of, states_rotation
from dataengine.data.coco_objects import (
    IS_DIFFICULT,
    IS_IGNORED,
    STATES_ROTATION,
    Annotations,
    Table,
    entries_apart,
    is_rotated,
)
from dataengine.data.file_index import FileIndex, safe_name
from dataengine.data.json_stream import stream_json
from dataengine.data.layout import UNKNOWN, Acquisition, Problem
from dataengine.data.objects import NO_OUTLINE, look_like_corners
from dataengine.data.parse import not_objects, number, objects_only
from dataengine.data.records import NOTHING_READ, Record, unknown_acquisition
from dataengine.errors import shown

LISTS = ("images", "annotations", "categories")
IMAGE_FIELDS = ("id", "file_name", "width", "height", "source", "license", "acquisition")
FLAT = "segmentation is flat, so it has no area"


@dataclass(frozen=True)
class CocoFile:
    """What a file holds. images have only the fields that are read."""

    info: dict
    licenses: list[dict]
    categories: list[dict]
    images: list[dict]
    annotations: Annotations
    table: Table


def read_file(file: Path, problems: list[Problem]) -> CocoFile:
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
    return CocoFile(rest["info"], rest["licenses"], rest["categories"], images, annotations, annotations.table())


def are_rotated(contents: Sequence[CocoFile]) -> bool:
    """Whether the objects of a data set are rotated boxes, by all its files together."""
    stated = {shown(content.info.get("box_kind")) for content in contents} & {"'hbb'", "'obb'"}
    if stated:
        return "'obb'" in stated
    return is_rotated([(content.annotations, content.table) for content in contents])


def _report_contradictions(file: Path, content: CocoFile, rotated: bool, problems: list[Problem]) -> None:
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


def records_of(
    file: Path, split: str, content: CocoFile, names: dict, rotated: bool, index: FileIndex, problems: list[Problem]
) -> list[Record]:
    """The records of a file. names: gets the class names of the data set. problems: gets those of the objects."""
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
    file: Path, content: CocoFile, categories: dict, records: dict, rotated: bool, problems: list[Problem]
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
    file: Path, split: str, content: CocoFile, index: FileIndex, problems: list[Problem]
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
