"""Objects that are on a map themselves, such as courts, tanks, piers and bridges, as oriented boxes."""

from __future__ import annotations

import math

import numpy as np
import shapely

from dataengine.layouts.map_ground import Candidate, TileGround, box_around
from dataengine.layouts.map_table import Mapped
from dataengine.maps.features import MapFeature
from dataengine.maps.ground import RAIL, ROAD
from dataengine.maps.tags import metres

MIN_UNIT_FILL, MAX_UNIT_STRETCH = 0.55, 1.45  # of a polygon divided into units, by area and by side
JOINED_BRIDGE_M = 6.0  # carriageways of one bridge lie nearer than this
MIN_CROSSING_SHARE = 0.05  # of a bridge over what it crosses, or MIN_CROSSING_M2
MIN_CROSSING_M2 = 12.0
END_M = 8.0  # of a bridge, in which it touches the roads that it continues


def things(tile: TileGround, rule: Mapped) -> list[Candidate]:
    """The objects of a class that the map has in a tile, whole, also beyond its border."""
    if rule.crossing is not None:
        shapes = _crossings(tile, rule.crossing)
    elif rule.rings:
        shapes = _rings(tile, rule)
    else:
        shapes = [(shape, f.id) for f in tile.features if _meant(f, rule, tile) and (shape := _shape(f, rule))]
    if rule.join:
        shapes = _joined(shapes, rule.join)
    boxes = [(box, name) for shape, name in shapes for box in _boxes(shape, rule)]
    return [
        Candidate(tuple(float(value) for value in box), name)
        for box, name in boxes
        if rule.length[0] <= max(box[2:4]) <= rule.length[1]
    ]


def _meant(feature: MapFeature, rule: Mapped, tile: TileGround) -> bool:
    return (not rule.require or feature.has(rule.require)) and tile.ground.visible(feature)


def _shape(feature: MapFeature, rule: Mapped) -> shapely.Geometry | None:
    """What a feature covers as an object of the rule; None where it is none."""
    if feature.is_area:
        return feature.geometry if feature.has(rule.areas) else None
    if feature.is_line:
        if feature.has(rule.closed) and feature.geometry.is_ring:
            return shapely.Polygon(feature.geometry)
        if feature.has(rule.lines):
            width = metres(feature.tags.get("width")) or rule.width
            return feature.geometry.buffer(width / 2, cap_style="flat")
        return None
    if not feature.has(rule.points):
        return None
    stated = metres(feature.tags.get(rule.size_tag)) if rule.size_tag else None
    size = (stated, stated) if stated else rule.size
    if size is None:
        return None
    x, y = feature.geometry.centroid.coords[0]
    return shapely.box(x - size[0] / 2, y - size[1] / 2, x + size[0] / 2, y + size[1] / 2)


def _boxes(shape: shapely.Geometry, rule: Mapped) -> list[np.ndarray]:
    """The box of each part of a shape, or of each unit in it, such as the courts of a row."""
    parts = [part for part in shapely.get_parts(shape) if part.area > 0]
    boxes = [box_around(part) for part in parts]
    if rule.unit is None:
        return boxes
    return [unit for box in boxes for unit in units(box, rule.unit)]


def units(box: np.ndarray, unit: tuple[float, float]) -> list[np.ndarray]:
    """A box (5,) divided into boxes of about a size (length, width), in rows and columns; none where it does not fit.

    >>> [each.round(1).tolist() for each in units(np.array([0, 0, 40.0, 36.0, 0]), (36, 18))]
    [[0.0, -9.0, 40.0, 18.0, 0.0], [0.0, 9.0, 40.0, 18.0, 0.0]]
    """
    best = None
    for turned in (False, True):
        sides = box[2:4][::-1] if turned else box[2:4]
        counts = np.maximum(np.rint(sides / unit), 1)
        stretch = np.abs(np.log(sides / counts / unit)).sum()
        if best is None or stretch < best[0]:
            best = stretch, turned, counts, sides / counts
    _, turned, (n, m), (length, width) = best
    if length * width < MIN_UNIT_FILL * unit[0] * unit[1] or max(length / unit[0], width / unit[1]) > MAX_UNIT_STRETCH:
        return []
    theta = box[4] + (math.pi / 2 if turned else 0)
    along = (np.arange(int(n)) - (n - 1) / 2) * length
    across = (np.arange(int(m)) - (m - 1) / 2) * width
    cos, sin = math.cos(theta), math.sin(theta)
    return [
        np.array([box[0] + a * cos - b * sin, box[1] + a * sin + b * cos, length, width, theta])
        for a in along
        for b in across
    ]


def _rings(tile: TileGround, rule: Mapped) -> list[tuple[shapely.Geometry, str]]:
    """Closed roads, perhaps of several features, with the width of the road."""
    found = [f for f in tile.features if f.is_line and f.has(rule.rings) and _meant(f, rule, tile)]
    rings = []
    for part in shapely.get_parts(shapely.polygonize([f.geometry for f in found])):
        own = [f for f in found if f.geometry.distance(part.exterior) < 0.1]
        width = max((tile.ground.width_m(f, ROAD) or 0.0 for f in own), default=0.0)
        rings.append((part.buffer(width / 2), own[0].id if own else ""))
    return rings


def _joined(shapes: list[tuple[shapely.Geometry, str]], distance: float) -> list[tuple[shapely.Geometry, str]]:
    """Shapes of which those within a distance are one, by the rectangle around them."""
    if not shapes:
        return []
    grown = shapely.union_all(np.array([shape.buffer(distance / 2) for shape, _ in shapes], object))
    found = []
    for part in shapely.get_parts(grown):
        own = [(shape, name) for shape, name in shapes if part.contains(shape)]
        found.append((shapely.oriented_envelope(shapely.union_all([shape for shape, _ in own])), own[0][1]))
    return found


def _crossings(tile: TileGround, over: str) -> list[tuple[shapely.Geometry, str]]:
    """Bridges of roads and rails over water, or over roads and rails. The carriageways of one bridge are one."""
    ways = [
        (shape, f.id)
        for name in (ROAD, RAIL)
        for shape, f in zip(tile.surfaces[name].shapes, tile.surfaces[name].features, strict=True)
        if f.tags.get("bridge", "no") != "no"
    ]
    if not ways:
        return []
    decks = [f.geometry for f in tile.features if f.is_area and f.tags.get("man_made") == "bridge"]
    grown = shapely.union_all([shape.buffer(JOINED_BRIDGE_M / 2) for shape, _ in ways] + decks)
    below = [
        shape
        for name in (ROAD, RAIL)
        for shape, f in zip(tile.surfaces[name].shapes, tile.surfaces[name].features, strict=True)
        if f.tags.get("bridge", "no") == "no"
    ]
    water = tile.area("water")
    found = []
    for part in shapely.get_parts(grown):
        own = [(shape, name) for shape, name in ways if part.contains(shape)]
        if not own:
            continue
        inner = [deck for deck in decks if part.contains(deck.buffer(-0.5))]
        bridge = shapely.union_all(inner or [shape for shape, _ in own])
        ends = shapely.union_all([f.geometry.boundary for f in tile.features if any(f.id == name for _, name in own)])
        core = bridge.difference(ends.buffer(END_M))  # without the ends, where its own road goes on
        wet = bridge.intersection(water).area > max(MIN_CROSSING_SHARE * bridge.area, MIN_CROSSING_M2)
        if over == "water":
            crossed = wet
        else:
            crossed = not wet and any(shape.intersection(core).area > MIN_CROSSING_M2 for shape in below)
        if crossed:
            found.append((shapely.convex_hull(bridge), own[0][1]))
    return found
