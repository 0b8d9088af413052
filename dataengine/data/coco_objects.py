"""Annotations of COCO files: as arrays where they are as the format says, one by one where they are not.

A file may have millions of annotations, and nearly all of them are plain: numbers where numbers belong, one or several
polygons without repeated points. Those are checked and kept as arrays, block by block. The others are kept as they are
and read by the careful functions, which also say what is wrong with them. Both give the same for a plain annotation
(`tests/data/test_data_coco_columns.py`).
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from dataengine import geometry
from dataengine.data.coco_entries import has_rotation, is_outline, lies_apart, polygons_of
from dataengine.data.objects import DIFFICULT, IGNORED
from dataengine.data.parse import MAX_NUMBER, flag

MAX_POLYGONS = 20_000  # objects by whose polygons a data set is found to be rotated
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
        if any(has_rotation(listed.others[position]) for position in others.tolist()):
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
    return any(not is_outline(points, box) for box, points in quadrilaterals)


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
