"""Room for vehicles, trains and people on a map: along lanes, in rows on car parks, on rails and on paths."""

from __future__ import annotations

import math

import numpy as np
import shapely

from dataengine.layouts.map_ground import Candidate, TileGround, box_around, polygons, share_inside
from dataengine.layouts.map_table import Standing
from dataengine.maps.features import MapFeature
from dataengine.maps.ground import RAIL, ROAD
from dataengine.maps.tags import count

LANE_M = 2.75  # least width of a lane
GAP_M = (2.0, 12.0)  # between vehicles of one lane
LATERAL_M, HEADING_SD_DEG, MAX_HEADING_DEG = 0.2, 1.5, 5.0  # how far vehicles are off their lane
MIN_ON_ROAD = 0.9  # share of a vehicle's box on road or car park
MAX_ON_BUILDING = 0.05
STALL_M = (5.2, 2.7)  # length and width of a place on a car park
AISLE_M = 6.0
PARALLEL_BELOW_M, ONE_ROW_BELOW_M = 4.0, 9.0  # width of a strip with cars along it, or with one row across
MIN_IN_LOT = 0.97  # share of a parked vehicle's box inside its car park
OCCUPANCY = (0.35, 0.95)
FILLED_M = 15.0  # distance over which a car park fills up
MAX_PARKED_M = 6.5  # longer vehicles do not stand in stalls
ROAD_WEIGHTS = {"motorway": 1.5, "trunk": 1.5, "primary": 1.5, "secondary": 1.2, "tertiary": 1.0, "service": 0.3}
LARGE_WEIGHTS = {"residential": 0.2, "living_street": 0.05, "service": 0.1}  # of vehicles longer than MAX_PARKED_M
CARS_M, CAR_GAP_M = (3, 10), 1.0  # cars of a train, and between them


def vehicles(tile: TileGround, rule: Standing, rng: np.random.Generator) -> list[Candidate]:
    """Places along lanes and on car parks."""
    found = on_lanes(tile, rule, rng) if "road" in rule.places else []
    if "parking" in rule.places and rule.length[0] < MAX_PARKED_M:
        found += on_car_parks(tile, rule, rng)
    return found


def drawn_size(rule: Standing, rng: np.random.Generator, longest: float = math.inf) -> tuple[float, float]:
    """Length and width in metres of one object, mostly of the shorter ones."""
    low, high = rule.length[0], max(min(rule.length[1], longest), rule.length[0])
    length = low * (high / low) ** (rng.random() ** 1.5)
    return length, length / rng.uniform(*rule.aspect)


def on_lanes(tile: TileGround, rule: Standing, rng: np.random.Generator) -> list[Candidate]:
    """Vehicles along the lanes of roads, in the direction of the lane, with their boxes on the road."""
    found: list[Candidate] = []
    for line, feature, width in tile.lines(ROAD):
        kind = feature.tags.get("highway", "").removesuffix("_link")
        lanes = max(1, min(count(feature.tags.get("lanes")) or int(width / LANE_M), int(width / 2.2), 12))
        for lane in (np.arange(lanes) - (lanes - 1) / 2) * (width / lanes):
            at = rng.uniform(0, GAP_M[1])
            while True:
                length, breadth = drawn_size(rule, rng)
                if at + length > line.length:
                    break
                weight = ROAD_WEIGHTS.get(kind, 0.6) * (LARGE_WEIGHTS.get(kind, 1) if length > MAX_PARKED_M else 1)
                box = _along(line, at, length, breadth, lane + rng.normal(0, LATERAL_M), rng)
                found.append(Candidate(box, feature.id, weight))
                at += length + GAP_M[0] + rng.exponential(GAP_M[1] - GAP_M[0])
    return _kept(found, tile, tile.area(ROAD, "parking"), MIN_ON_ROAD)


def _along(line: shapely.LineString, at: float, length: float, width: float, offset: float, rng) -> tuple:
    """A box beside a line, between `at` and `at + length` along it."""
    (x0, y0), (x1, y1) = (line.interpolate(at + part * length).coords[0][:2] for part in (0.1, 0.9))
    theta = math.atan2(y1 - y0, x1 - x0)
    turn = np.clip(rng.normal(0, HEADING_SD_DEG), -MAX_HEADING_DEG, MAX_HEADING_DEG)
    x, y = (x0 + x1) / 2 - offset * math.sin(theta), (y0 + y1) / 2 + offset * math.cos(theta)
    return x, y, length, width, theta + math.radians(turn)


def _kept(found: list[Candidate], tile: TileGround, area: shapely.Geometry, least: float) -> list[Candidate]:
    """Candidates that lie in an area, and not under a building."""
    if not found:
        return []
    boxes = np.array([each.box for each in found])
    inside = share_inside(boxes, area) >= least
    inside &= share_inside(boxes, tile.area("building")) <= MAX_ON_BUILDING
    return [each for each, keep in zip(found, inside, strict=True) if keep]


def on_car_parks(tile: TileGround, rule: Standing, rng: np.random.Generator) -> list[Candidate]:
    """Vehicles in the rows of car parks: on both sides of their aisles, or across their long axis."""
    aisles = [f for f in tile.features if f.is_line and f.tags.get("service") == "parking_aisle"]
    found = []
    for shape, feature in zip(tile.surfaces["parking"].shapes, tile.surfaces["parking"].features, strict=True):
        for lot in shapely.get_parts(shape):
            if lot.area > STALL_M[0] * STALL_M[1]:
                own = [aisle.geometry for aisle in aisles if aisle.geometry.intersects(lot)]
                occupied, stalls = rng.uniform(*OCCUPANCY), _stalls(lot, own)
                found += _parked(stalls[rng.random(len(stalls)) < occupied], lot, feature, rule, rng)
    return _kept(found, tile, tile.area("parking"), MIN_IN_LOT)


def _parked(
    stalls: np.ndarray, lot: shapely.Polygon, feature: MapFeature, rule: Standing, rng: np.random.Generator
) -> list[Candidate]:
    if not len(stalls):
        return []
    entrance, candidates = stalls[rng.integers(len(stalls)), :2], []
    for x, y, theta in stalls:
        length, width = drawn_size(rule, rng, min(STALL_M[0], MAX_PARKED_M))
        width = min(width, STALL_M[1] - 0.4)
        off_x, off_y, turn = rng.normal(0, (0.12, 0.12, 0.02))
        weight = 0.1 + 3 * math.exp(-math.dist((x, y), entrance) / FILLED_M)  # few cars stand together
        candidates.append(Candidate((x + off_x, y + off_y, length, width, theta + turn), feature.id, weight))
    return candidates


def _stalls(lot: shapely.Polygon, aisles: list[shapely.Geometry]) -> np.ndarray:
    """Middle and heading (N, 3) of the places of a car park."""
    length, width = STALL_M
    x, y, long, short, theta = box_around(lot)
    if short < PARALLEL_BELOW_M:
        steps = np.arange(length / 2 + 0.4, long, length + 0.8) - long / 2
        return _rows(x, y, theta, steps, np.zeros(1), theta)
    if short < ONE_ROW_BELOW_M:
        return _rows(x, y, theta, np.arange(width / 2, long, width) - long / 2, np.zeros(1), theta + math.pi / 2)
    places = []
    for aisle in shapely.get_parts(shapely.intersection(np.array(aisles, object), lot)) if aisles else ():
        if aisle.geom_type != "LineString" or aisle.length < width:
            continue
        for at in np.arange(width / 2, aisle.length, width):
            (x0, y0), (x1, y1) = (aisle.interpolate(at + d).coords[0][:2] for d in (-width / 2, width / 2))
            heading = math.atan2(y1 - y0, x1 - x0)
            for side in (-1, 1):
                away = side * (AISLE_M / 2 + length / 2)
                places.append(((x0 + x1) / 2 - away * math.sin(heading), (y0 + y1) / 2 + away * math.cos(heading),
                               heading + math.pi / 2))  # fmt: skip
    if not places:
        two = length / 2 + np.array([0, length + AISLE_M])  # a row, an aisle, a row; back to back with the next
        rows = (np.arange(0, short, 2 * length + AISLE_M)[:, None] + two).ravel()
        rows = rows[rows + length / 2 <= short] - short / 2
        return _rows(x, y, theta, np.arange(width / 2, long, width) - long / 2, rows, theta + math.pi / 2)
    stalls = np.array(places)
    strips = shapely.union_all([aisle.buffer(AISLE_M / 2 - 0.3, cap_style="flat") for aisle in aisles])
    boxes = np.column_stack([stalls[:, :2], np.tile(STALL_M, (len(stalls), 1)), stalls[:, 2]])
    stalls = stalls[share_inside(boxes, strips) < 0.1]
    return _apart(stalls)


def _rows(x: float, y: float, theta: float, along: np.ndarray, across: np.ndarray, heading: float) -> np.ndarray:
    a, b = (grid.ravel() for grid in np.meshgrid(along, across))
    cos, sin = math.cos(theta), math.sin(theta)
    return np.column_stack([x + a * cos - b * sin, y + a * sin + b * cos, np.full(len(a), heading)])


def _apart(stalls: np.ndarray) -> np.ndarray:
    """Places that no earlier one covers: aisles meet at corners."""
    boxes = np.column_stack([stalls[:, :2], np.tile(STALL_M, (len(stalls), 1)) - 0.3, stalls[:, 2]])
    shapes, kept = polygons(boxes), []
    tree = shapely.STRtree(shapes)
    taken = np.zeros(len(shapes), bool)
    for i, shape in enumerate(shapes):
        if not taken[tree.query(shape, predicate="intersects")].any():
            taken[i] = True
            kept.append(i)
    return stalls[kept]


def trains(tile: TileGround, rule: Standing, rng: np.random.Generator) -> list[Candidate]:
    """Trains on rails: chains of cars, each with a box of its own."""
    found = []
    for line, feature, _ in tile.lines(RAIL):
        at = rng.uniform(0, 100)
        while at < line.length:
            length, width = drawn_size(rule, rng)
            for _ in range(rng.integers(*CARS_M)):
                if at + length > line.length:
                    break
                box = _along(line, at, length, width, 0.0, rng)
                found.append(Candidate((*box[:4], box[4]), feature.id, 1.0))
                at += length + CAR_GAP_M
            at += rng.exponential(150) + CAR_GAP_M
    return _kept(found, tile, tile.area(RAIL).buffer(0.5), 0.8)


def on_paths(tile: TileGround, rule: Standing, rng: np.random.Generator) -> list[Candidate]:
    """People and bicycles on paths, along them or standing."""
    found = []
    for line, feature, width in tile.lines("path"):
        for at in np.arange(rng.uniform(0, 8), line.length, 8.0):
            length, breadth = drawn_size(rule, rng)
            if at + length <= line.length:
                offset = rng.uniform(-1, 1) * max(width / 2 - breadth, 0)
                found.append(Candidate(_along(line, at, length, breadth, offset, rng), feature.id, 1.0))
    return _kept(found, tile, tile.area("path", "paved"), 0.5)
