"""Annotations of COCO files one by one: what a value means, and what is wrong with it."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import numpy as np

from dataengine import geometry
from dataengine.data.objects import DIFFICULT, IGNORED, marked
from dataengine.data.parse import number
from dataengine.errors import shown

OUTLINE_PX = 2e-3  # distance at which a corner of a polygon is a corner of bbox


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
        raise ValueError(f"{shown(value)} is not an id")
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


def is_outline(points: Sequence[tuple[float, float]], box: object) -> bool:
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
    """Whether an object has CVAT's attribute `rotation`."""
    return "rotation" in attributes_of(entry)


def has_rotation(entry: dict) -> bool:
    """Whether CVAT's attribute `rotation` turns the object."""
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
