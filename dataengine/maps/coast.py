"""The sea: OpenStreetMap draws its coast as lines, with land on their left and water on their right."""

from __future__ import annotations

import numpy as np
import shapely
from shapely.ops import polygonize, unary_union

STEP_M = 0.5  # beside a line, where the side is looked at
MIN_AREA_M2 = 1.0
MAX_GAP_M = 150.0  # between the end of a line, in a file cut between two of its points, and the border


def sea(coast: list[shapely.Geometry], extent: tuple[float, float, float, float]) -> list[shapely.Polygon]:
    """The parts of an extent, in metres, that lie to the right of the lines of a coast. A part that no line bounds is
    land: without a coast there is no sea.

    >>> [part.bounds for part in sea([shapely.LineString([(4, -1), (4, 11)])], (0, 0, 10, 10))]
    [(4.0, 0.0, 10.0, 10.0)]
    """
    frame = shapely.box(*extent)
    lines = [_to_border(line, frame) for line in shapely.get_parts(np.array(coast, object)) if line.intersects(frame)]
    if not lines:
        return []
    points = np.concatenate([_right_of(line) for line in lines])
    found = []
    for part in polygonize(unary_union([frame.exterior, *(line.intersection(frame) for line in lines)])):
        if part.area < MIN_AREA_M2:
            continue
        right, left = (int(shapely.contains_xy(part, *points[:, side].T).sum()) for side in (0, 1))
        if right > left:
            found.append(part)
    return found


def _to_border(line: shapely.LineString, frame: shapely.Polygon) -> shapely.LineString:
    """A line whose loose ends inside the frame go on to the nearest point of its border, where that is near."""
    points = [tuple(point[:2]) for point in line.coords]
    if points[0] == points[-1]:
        return line
    for end, at in ((points[0], 0), (points[-1], len(points))):
        point = shapely.Point(end)
        if frame.contains(point) and frame.exterior.distance(point) <= MAX_GAP_M:
            outer = frame.exterior.interpolate(frame.exterior.project(point))
            beyond = (2 * outer.x - point.x, 2 * outer.y - point.y)
            points.insert(0, beyond) if at == 0 else points.append(beyond)
    return shapely.LineString(points)


def _right_of(line: shapely.LineString) -> np.ndarray:
    """Points to the right and to the left of the middle of each segment, (N, 2, 2)."""
    ends = np.asarray(line.coords)[:, :2]
    along = np.diff(ends, axis=0)
    length = np.hypot(*along.T)
    middle, along = (ends[:-1] + ends[1:])[length > 0] / 2, along[length > 0] / length[length > 0, None]
    beside = np.column_stack([along[:, 1], -along[:, 0]]) * np.minimum(STEP_M, length[length > 0] / 4)[:, None]
    return np.stack([middle + beside, middle - beside], 1)
