"""Objects of one image, added one by one as they are read, and the shapes of labelling tools as boxes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from dataengine import geometry
from dataengine.data.file_index import FileIndex
from dataengine.data.label_files import LabelFile, columns, place_record
from dataengine.data.layout import Problem
from dataengine.data.parse import flag, line_count, number, numbered_lines
from dataengine.data.records import NOTHING_READ, Record
from dataengine.errors import UserError
from dataengine.files import MAX_TEXT_BYTES, read_text

DIFFICULT = frozenset({"difficult"})  # names of flags, in lower case
IGNORED = frozenset({"ignore", "ignored", "crowd", "is_crowd", "iscrowd"})
MIN_BEYOND = 0.25  # fraction of the boxes beyond the border from which corners are suspected
NO_OUTLINE = np.zeros((0, 2), np.float32)


@dataclass
class Objects:
    """Objects and ignored regions of an image. The lists other than `ignored` are parallel.

    turned: whether a shape was not upright by definition, so that the data set has oriented boxes.
    problems: of the objects that cannot be read, see `skip`.
    """

    names: list[str] = field(default_factory=list)
    boxes: list[np.ndarray] = field(default_factory=list)
    difficult: list[bool] = field(default_factory=list)
    lines: list[int | None] = field(default_factory=list)
    outlines: list[np.ndarray] = field(default_factory=list)
    ignored: list[np.ndarray] = field(default_factory=list)
    turned: bool = False
    problems: list[Problem] = field(default_factory=list)

    def add(
        self,
        name: str,
        box: np.ndarray,
        *,
        flags: Mapping[str, object] | None = None,
        line: int | None = None,
        outline: np.ndarray = NO_OUTLINE,
    ) -> None:
        """Add an object with its le90 box (5,), as an ignored region if a flag says so.

        Raises ValueError if the box has no area or the name is empty.
        """
        if not (box[2] > 0 and box[3] > 0):
            raise ValueError(f"its box is {box[2]:g} wide and {box[3]:g} high, so it has no area")
        if marked(flags, IGNORED):
            self.ignored.append(box)
            return
        if not name.strip():
            raise ValueError("it has no class name")
        self.names.append(name.strip())
        self.boxes.append(box)
        self.difficult.append(marked(flags, DIFFICULT))
        self.lines.append(line)
        self.outlines.append(outline)

    def skip(self, file: Path, line: int | None, reason: str, n: int = 1) -> None:
        """Report objects that cannot be read. n: how many."""
        self.problems.append(Problem(file, line, f"{reason}; the object is skipped", n))

    def record(self, annotation: Path, **fields) -> Record:
        """The record of an image with these objects; `fields` are its other fields.

        It has a fault if the image has objects and none can be read: it would pass for empty ground.
        """
        unreadable = self.problems and not self.names and not self.ignored
        return Record(
            **{"name": annotation.stem, "image": None, "annotation": annotation} | fields,
            fault=NOTHING_READ if unreadable else "",
            names=self.names,
            boxes=np.array(self.boxes, np.float32).reshape(-1, 5),
            difficult=self.difficult,
            lines=None if None in self.lines else self.lines,
            ignored=np.array(self.ignored, np.float32).reshape(-1, 5),
            outlines=self.outlines if any(map(len, self.outlines)) else None,
        )


def record_of_lines(
    file: LabelFile,
    index: FileIndex,
    problems: list[Problem],
    adder: Callable[[list[tuple[int, str]]], Callable[[Objects, list[str], int], None]],
) -> list[Record]:
    """The record of a text file with an object on each line; none if the file cannot be read, which is a problem.

    adder: gives, for the numbered lines of the file, a function that adds the object of a line's columns, and its
    number, or raises ValueError if they are no object.
    """
    try:
        lines = numbered_lines(read_text(file.path, MAX_TEXT_BYTES))
    except UserError as error:
        message = f"{error}; the file and its image are left out"
        problems.append(Problem(file.path, None, message, line_count(file.path)))
        return []
    objects, add = Objects(), adder(lines)
    for number_of_line, line in lines:
        try:
            add(objects, columns(line), number_of_line)
        except ValueError as error:
            objects.skip(file.path, number_of_line, str(error))
    problems += objects.problems
    return [place_record(objects.record(file.path), file, index, file.path.stem)]


def marked(flags: Mapping[str, object] | None, words: frozenset[str]) -> bool:
    """Whether a flag with one of these names is set.

    >>> marked({"Difficult": "true", "occluded": 1}, DIFFICULT), marked({"difficult": 0}, DIFFICULT)
    (True, False)
    """
    return any(flag(value) for name, value in (flags or {}).items() if str(name).strip().lower() in words)


def upright_box(x1: float, y1: float, x2: float, y2: float) -> np.ndarray:
    """The le90 box (5,) with these sides. Raises ValueError if it ends before it begins.

    >>> upright_box(2, 1, 6, 3).tolist()
    [4.0, 2.0, 4.0, 2.0, 0.0]
    """
    if x2 < x1 or y2 < y1:
        raise ValueError(f"its box ends before it begins: {x1:g}, {y1:g}, {x2:g}, {y2:g}")
    return geometry.from_aabb(np.array([[x1, y1, x2, y2]], np.float32))[0]


def turned_box(x1: float, y1: float, x2: float, y2: float, degrees: float) -> np.ndarray:
    """The le90 box (5,) with these sides before it is turned clockwise about its centre.

    >>> turned_box(0, 0, 8, 4, 30).round(4).tolist()
    [4.0, 2.0, 8.0, 4.0, 0.5235999822616577]
    """
    if x2 < x1 or y2 < y1:
        raise ValueError(f"its box ends before it begins: {x1:g}, {y1:g}, {x2:g}, {y2:g}")
    theta = np.deg2rad(degrees % 360)
    return geometry.regularize(np.array([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1, theta]))[0]


def look_like_corners(rows: np.ndarray, beyond: np.ndarray) -> bool:
    """Whether boxes that were read as position and size have the right and lower side in place of the size.

    rows: (N, 4), the numbers in the file. beyond: bool (N,), boxes that leave the image on the right or below. Corners
    always grow from the first to the last, and three quarters of those boxes would leave the image.

    >>> look_like_corners(np.array([[60, 40, 90, 80], [10, 20, 30, 30]]), np.array([True, False]))
    True
    """
    rows = np.reshape(rows, (-1, 4))
    return bool(len(rows) > 1 and (rows[:, 2:] > rows[:, :2]).all() and np.mean(beyond) > MIN_BEYOND)


def points_of(values: object, what: str = "points") -> np.ndarray:
    """Points (K, 2) from a JSON list of pairs, or of x and y in turn. Raises ValueError for anything else."""
    if not isinstance(values, list) or not values:
        raise ValueError(f"{what} is not a list of points")
    if all(isinstance(pair, list) for pair in values):
        if any(len(pair) != 2 for pair in values):
            raise ValueError(f"{what} has a point that is not x, y")
        values = [value for pair in values for value in pair]
    if len(values) % 2:
        raise ValueError(f"{what} has {len(values)} numbers, which are not pairs of x and y")
    return np.array([number(value, what) for value in values], np.float64).reshape(-1, 2)


def polygon_box(points: np.ndarray) -> np.ndarray:
    """The minimum-area le90 box (5,) around a polygon (K, 2), closed or not. Raises ValueError for fewer than three
    points.

    >>> polygon_box(np.array([[0, 0], [4, 0], [4, 2], [0, 2], [0, 0]])).tolist()
    [2.0, 1.0, 4.0, 2.0, 0.0]
    """
    points = without_repeated_end(points)
    if len(points) < 3:
        raise ValueError(f"its polygon has {len(points)} points, fewer than 3")
    return geometry.from_points(points)


def without_repeated_end(points: np.ndarray) -> np.ndarray:
    """A polygon (K, 2) without the last point if that is the first again."""
    return points[:-1] if len(points) > 1 and np.array_equal(points[0], points[-1]) else points


def outline_of(points: np.ndarray) -> np.ndarray:
    """The polygon (K, 2) if it says more than four corners do, otherwise (0, 2)."""
    points = without_repeated_end(points)
    return points.astype(np.float32) if len(points) > 4 else NO_OUTLINE


def sides(points: np.ndarray) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of the upright rectangle around points (K, 2).

    >>> sides(np.array([[6, 1], [2, 3]]))
    (2.0, 1.0, 6.0, 3.0)
    """
    (x1, y1), (x2, y2) = points.min(axis=0), points.max(axis=0)
    return float(x1), float(y1), float(x2), float(y2)


def is_upright(points: np.ndarray) -> bool:
    """Whether all points (K, 2) are corners of the upright rectangle around them.

    >>> is_upright(np.array([[2, 1], [6, 1], [6, 3], [2, 3]])), is_upright(np.array([[2, 0], [4, 2], [2, 4], [0, 2]]))
    (True, False)
    """
    x1, y1, x2, y2 = sides(points)
    return bool((np.isin(points[:, 0], (x1, x2)) & np.isin(points[:, 1], (y1, y2))).all())
