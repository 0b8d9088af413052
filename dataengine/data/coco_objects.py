"""Annotations of COCO files: as arrays where they are as the format says, one by one where they are not.

A file may have millions of annotations, and nearly all of them are plain: numbers where numbers belong, one or several
polygons without repeated points. Those are checked and kept as arrays, block by block. The others are kept as they are
and read by the careful functions, which also say what is wrong with them. Both give the same for a plain annotation
(`tests/data/test_data_coco_columns.py`).
"""

from __future__ import annotations

import math
import re
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from dataengine import geometry
from dataengine.data.objects import DIFFICULT, IGNORED, marked
from dataengine.data.parse import MAX_NUMBER, flag, number

MAX_POLYGONS = 20_000  # objects by whose polygons a data set is found to be rotated
OUTLINE_PX = 2e-3  # distance at which a corner of a polygon is a corner of bbox
UNREAD_GEOMETRY = {"rotation", "angle", "theta", "rbox", "obb", "poly", "rotated_box", "rotated_bbox", "bbox_mode"}
NUMBERS = frozenset({int, float})  # not bool
INT64 = range(-(2**63), 2**63)
IS_IGNORED, IS_DIFFICULT, IS_CROWD, STATES_ROTATION = 1, 2, 4, 8  # bits of `Annotations.flags`


@dataclass
class Annotations:
    """The annotations of a file, in its order. The arrays are parallel and have the plain ones.

    positions:    of the plain ones among all.
    ids, image_ids, category_ids: whole numbers.
    boxes:        four numbers each, `bbox`.
    flags:        bits, see above.
    visible:      one number each.
    points:       x and y of all polygons in turn. ends: where each polygon ends in `points`. owners: the annotation of
                  each polygon, by its place in the other arrays.
    others:       {position: entry} of those that are not plain.
    """

    positions: array = field(default_factory=lambda: array("q"))
    ids: array = field(default_factory=lambda: array("q"))
    image_ids: array = field(default_factory=lambda: array("q"))
    category_ids: array = field(default_factory=lambda: array("q"))
    boxes: array = field(default_factory=lambda: array("d"))
    flags: bytearray = field(default_factory=bytearray)
    visible: array = field(default_factory=lambda: array("d"))
    points: array = field(default_factory=lambda: array("d"))
    ends: array = field(default_factory=lambda: array("q"))
    owners: array = field(default_factory=lambda: array("q"))
    others: dict[int, dict] = field(default_factory=dict)
    unread: set[str] = field(default_factory=set)
    n: int = 0
    _kinds: dict[tuple, _Keys] = field(default_factory=dict)

    def add(self, entries: Sequence[dict]) -> None:
        """Add a block of entries."""
        rows = []
        for position, entry in enumerate(entries, self.n):
            names = tuple(entry)
            keys = self._kinds.get(names)
            if keys is None:
                keys = self._new_kind(names)
            row = _row(entry, keys)
            if row is None:
                self.others[position] = entry
            else:
                rows.append((position, entry, *row))
        self.n += len(entries)
        if not self._add_plain(rows):
            plain = []
            for row in rows:
                if _all_numbers([*row[2], row[4], *(value for polygon in row[3] for value in polygon)]):
                    plain.append(row)
                else:
                    self.others[row[0]] = row[1]
            self._add_plain(plain)

    def _new_kind(self, names: tuple) -> _Keys:
        lower = {name: name.strip().lower() for name in names}
        keys = _Keys(
            tuple(name for name in names if lower[name] in IGNORED),
            tuple(name for name in names if lower[name] in DIFFICULT),
        )
        self.unread |= {name for name in names if name.lower() in UNREAD_GEOMETRY}
        if len(self._kinds) < MAX_KINDS:
            self._kinds[names] = keys
        return keys

    def _add_plain(self, rows: Sequence[tuple]) -> bool:
        """Add rows of `_row`; nothing, and False, if one has other values than numbers within the limit."""
        boxes = [value for row in rows for value in row[2]]
        visible = [row[4] for row in rows]
        polygons = [polygon for row in rows for polygon in row[3]]
        values = [value for polygon in polygons for value in polygon]
        if not set(map(type, boxes)) | set(map(type, values)) | set(map(type, visible)) <= NUMBERS:
            return False
        try:
            checked = [np.array(each, np.float64) for each in (boxes, values, visible)]
        except OverflowError:
            return False
        if not all((np.abs(each) <= MAX_NUMBER).all() for each in checked):  # False for nan
            return False
        counts = np.array([len(row[3]) for row in rows], np.int64)
        owners, ends = np.repeat(np.arange(len(rows)), counts), np.cumsum([len(polygon) for polygon in polygons])
        plain = np.ones(len(rows), bool)
        plain[owners[_has_repeated_points(checked[1], ends.astype(np.int64))]] = False
        plain[(checked[0].reshape(-1, 4)[:, 2:] <= 0).any(1)] = False
        if not plain.all():
            for i in np.flatnonzero(~plain):
                self.others[rows[i][0]] = rows[i][1]
            return self._add_plain([row for row, is_plain in zip(rows, plain, strict=True) if is_plain])
        first = len(self.positions)
        self.positions.extend(row[0] for row in rows)
        self.ids.extend(row[1]["id"] for row in rows)
        self.image_ids.extend(row[1]["image_id"] for row in rows)
        self.category_ids.extend(row[1]["category_id"] for row in rows)
        self.flags.extend(row[5] for row in rows)
        self.boxes.frombytes(checked[0].tobytes())
        self.visible.frombytes(checked[2].tobytes())
        self.ends.frombytes((ends + len(self.points)).astype(np.int64).tobytes())
        self.points.frombytes(checked[1].tobytes())
        self.owners.frombytes((owners + first).astype(np.int64).tobytes())
        return True

    def table(self) -> Table:
        """The plain annotations as NumPy arrays."""
        flags = np.frombuffer(bytes(self.flags), np.uint8)
        ends = np.array(self.ends, np.int64)
        return Table(
            np.array(self.positions, np.int64),
            np.array(self.ids, np.int64),
            np.array(self.boxes, np.float64).reshape(-1, 4),
            flags,
            np.array(self.visible, np.float64),
            np.array(self.points, np.float64).reshape(-1, 2),
            np.concatenate([[0], ends]).astype(np.int64) // 2,
            np.searchsorted(np.array(self.owners, np.int64), np.arange(len(flags) + 1)),
        )


@dataclass(frozen=True)
class _Keys:
    """Of all entries with the same keys: those that are flags."""

    ignored: tuple[str, ...]
    difficult: tuple[str, ...]


MAX_KINDS = 1000  # sets of keys that are remembered
_NO_ATTRIBUTES: dict = {}


def _row(entry: dict, keys: _Keys) -> tuple | None:
    """(bbox, polygons, visible, flags) of an entry that is plain but for its numbers, None for others."""
    box, stated, attributes = entry.get("bbox"), entry.get("segmentation", ()), entry.get("attributes")
    if type(box) is not list or len(box) != 4:
        return None
    for key in ("id", "image_id", "category_id"):
        value = entry.get(key)
        if type(value) is not int or value not in INT64:
            return None
    bits = 0
    if attributes:
        bits = _attribute_bits(attributes)
        if bits is None:
            return None
    if type(stated) is list and stated:
        for polygon in stated:
            if type(polygon) is not list or len(polygon) < 6 or len(polygon) % 2:
                return None
    elif stated:
        return None
    for key in keys.ignored:
        if (value := entry[key]) != 0 and flag(value):
            bits |= IS_IGNORED | (IS_CROWD if key == "iscrowd" else 0)
    for key in keys.difficult:
        if flag(entry[key]):
            bits |= IS_DIFFICULT
    return box, stated or (), entry.get("visible", 1), bits


def _attribute_bits(attributes: object) -> int | None:
    """0, or `STATES_ROTATION`, for attributes that say nothing else about the object; None for others."""
    if type(attributes) is not dict:
        return None
    bits = 0
    for name, value in attributes.items():
        if name == "rotation" and type(value) in NUMBERS and value == 0:
            bits = STATES_ROTATION
        elif name == "rotation" or name.strip().lower() in IGNORED | DIFFICULT:
            return None
    return bits


def _all_numbers(values: Sequence) -> bool:
    return all(type(value) in NUMBERS and abs(value) <= MAX_NUMBER for value in values)


def _has_repeated_points(values: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """bool (P,): polygons in which a point is that before it, or the last is the first. values: x and y in turn of all
    polygons; ends: (P,), where each ends."""
    if not len(ends):
        return np.zeros(0, bool)
    points, ends = values.reshape(-1, 2), ends // 2
    starts = np.concatenate([[0], ends[:-1]])
    before = np.arange(len(points)) - 1
    before[starts] = ends - 1
    return np.logical_or.reduceat((points == points[before]).all(1), starts)


@dataclass(frozen=True)
class Table:
    """`Annotations` as NumPy arrays: positions (N,), ids (N,), boxes float64 (N, 4) as x, y, width, height, flags (N,),
    visible (N,), points float64 (K, 2) of all polygons, polygon i at `points[ends[i]:ends[i + 1]]`, those of annotation
    i from `first[i]` to `first[i + 1]`."""

    positions: np.ndarray
    ids: np.ndarray
    boxes: np.ndarray
    flags: np.ndarray
    visible: np.ndarray
    points: np.ndarray
    ends: np.ndarray
    first: np.ndarray

    def has(self, flag: int) -> np.ndarray:
        """bool (N,): the annotations with a flag."""
        return (self.flags & flag) > 0

    def polygons(self, i: int) -> list[np.ndarray]:
        """The polygons of annotation i, (K, 2) each."""
        return [self.points[self.ends[k] : self.ends[k + 1]] for k in range(self.first[i], self.first[i + 1])]

    def lie_apart(self) -> np.ndarray:
        """bool (N,): as `lies_apart`."""
        apart = np.zeros(len(self.boxes), bool)
        rows = np.flatnonzero((np.diff(self.first) > 0) & ~self.has(STATES_ROTATION))
        if not len(rows):
            return apart
        drawn = np.flatnonzero(np.diff(self.first) > 0)
        starts = self.ends[self.first[drawn]]  # polygons of one annotation follow each other
        low, high = np.minimum.reduceat(self.points, starts), np.maximum.reduceat(self.points, starts)
        corner, size = self.boxes[drawn, :2], self.boxes[drawn, 2:]
        middle, centre = corner + size / 2, (low + high) / 2
        bbox_in_polygon = ((low <= middle) & (middle <= high)).all(1)
        polygon_in_bbox = ((corner <= centre) & (centre <= corner + size)).all(1)
        apart[drawn] = ~(bbox_in_polygon | polygon_in_bbox)
        return apart & ~self.has(STATES_ROTATION)

    def corners(self, rotated: bool) -> np.ndarray:
        """float64 (N, 8): as `corners_of`; nan where the polygons are flat, so that there is no area."""
        x, y, width, height = self.boxes.T
        corners = np.column_stack([x, y, x + width, y, x + width, y + height, x, y + height])
        if not rotated:
            return corners
        counts = np.diff(self.first)
        sizes = np.diff(self.ends)
        rows = np.flatnonzero(counts)
        one = rows[(counts[rows] == 1) & (sizes[self.first[rows]] == 4)]
        corners[one] = self.points[self.ends[self.first[one]][:, None] + np.arange(4)].reshape(-1, 8)
        for i in np.setdiff1d(rows, one):
            box = geometry.from_points(np.concatenate(self.polygons(i)))
            corners[i] = geometry.to_corners(box).ravel() if box[3] > 0 else np.nan
        return corners

    def outlines(self) -> dict[int, np.ndarray]:
        """{annotation: (K, 2)} of those with more than four points, as `outline_of`."""
        found = {}
        many = np.diff(self.ends) > 4
        if not many.any():
            return found
        for i in np.flatnonzero(np.diff(self.first)):
            if many[self.first[i] : self.first[i + 1]].any():
                outlines = [points for points in self.polygons(i) if len(points) > 4]
                found[int(i)] = max(outlines, key=lambda points: np.ptp(points, axis=0).prod())
        return found


def is_rotated(files: Sequence[tuple[Annotations, Table]]) -> bool:
    """Whether the objects of a data set are rotated boxes, by the annotations of all its files together."""
    chosen = []  # rows of (file, place among the plain ones or -1 - position)
    for at, (listed, table) in enumerate(files):
        others = np.array([p for p, entry in listed.others.items() if not flag(entry.get("iscrowd"))], np.int64)
        if any(_has_rotation(listed.others[position]) for position in others.tolist()):
            return True
        plain = np.flatnonzero(~table.has(IS_CROWD))
        order = np.argsort(np.concatenate([table.positions[plain], others]), kind="stable")
        places = np.concatenate([plain, -1 - others])[order]
        chosen.append(np.column_stack([np.full(len(places), at), places]))
    rows = np.concatenate(chosen) if chosen else np.zeros((0, 2), np.int64)
    sample = rows[:: len(rows) // MAX_POLYGONS + 1].tolist()
    polygons = [(box, found) for at, place in sample for box, found in [_shape(*files[at], place)] if found]
    quadrilaterals = [(box, found[0]) for box, found in polygons if len(found) == 1 and len(found[0]) == 4]
    if 2 * len(quadrilaterals) <= len(polygons):
        return False
    return any(not _is_outline(points, box) for box, points in quadrilaterals)


def _shape(annotations: Annotations, table: Table, place: int) -> tuple[object, list]:
    """(bbox, polygons) of an annotation, see `is_rotated`."""
    if place >= 0:
        return table.boxes[place].tolist(), [points.tolist() for points in table.polygons(place)]
    entry = annotations.others[-1 - place]
    return entry.get("bbox"), polygons_of(entry)


def entries_apart(annotations: Annotations, table: Table) -> Iterator[object]:
    """The ids of the annotations whose `bbox` and polygons lie in different places, in the order of the file."""
    apart = {int(table.positions[i]): int(table.ids[i]) for i in np.flatnonzero(table.lie_apart())}
    apart |= {at: entry.get("id") for at, entry in annotations.others.items() if lies_apart(entry)}
    return (apart[at] for at in sorted(apart))


def lies_apart(entry: dict) -> bool:
    """Whether the centre of neither `bbox` nor the rectangle around the polygons is in the other."""
    box = _four_numbers(entry.get("bbox"))
    points = [point for polygon in polygons_of(entry) for point in polygon]
    if not points or box is None or states_rotation(entry):
        return False
    x, y, width, height = box
    (x1, y1), (x2, y2) = map(min, zip(*points, strict=True)), map(max, zip(*points, strict=True))
    bbox_in_polygon = x1 <= x + width / 2 <= x2 and y1 <= y + height / 2 <= y2
    return not (bbox_in_polygon or (x <= (x1 + x2) / 2 <= x + width and y <= (y1 + y2) / 2 <= y + height))


def key_of(value: object) -> object:
    """The id of an entry, a number or text; "7" and 7 are equal. Raises ValueError for a list or an object."""
    if isinstance(value, list | dict):
        raise ValueError(f"{value} is not an id")
    return int(value) if isinstance(value, str) and re.fullmatch(r"0|[1-9]\d{0,17}", value) else value


def attributes_of(entry: dict) -> dict:
    """The attributes of an object, {name: value}, also where a file has a list of {"name": ..., "value": ...}."""
    stated = entry.get("attributes")
    if isinstance(stated, list):
        return {str(each.get("name")): each.get("value") for each in stated if isinstance(each, dict)}
    return stated if isinstance(stated, dict) else {}


def flags_of(entry: dict) -> tuple[bool, bool]:
    """(whether the object is ignored, whether it is difficult)."""
    flags = attributes_of(entry) | entry
    return marked(flags, IGNORED), marked(flags, DIFFICULT)


def polygons_of(entry: dict) -> list[list[tuple[float, float]]]:
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
    value = attributes_of(entry).get("rotation")
    return 0.0 if value in (None, "") else number(value, "rotation") % 360


def states_rotation(entry: dict) -> bool:
    return "rotation" in attributes_of(entry)


def _has_rotation(entry: dict) -> bool:
    try:
        return _rotation(entry) != 0
    except ValueError:
        return False


def corners_of(entry: dict, rotated: bool) -> list[float]:
    """Eight numbers: four corners of the object, x and y in turn. Raises ValueError if it has no area."""
    polygons, rotation = _parts(entry), _rotation(entry)
    if rotated and not rotation and polygons:
        found = polygons_of(entry)
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


def outline_of(entry: dict) -> np.ndarray:
    """The largest polygon of an instance mask, (K, 2); (0, 2) if there is none with more than four points."""
    outlines = [np.array(points) for points in polygons_of(entry) if len(points) > 4]
    return max(outlines, key=lambda points: np.ptp(points, axis=0).prod(), default=np.zeros((0, 2)))
