"""Room for airplanes, helicopters and ships on a map: parking positions, aprons, pads, piers and open water."""

from __future__ import annotations

import math

import numpy as np
import shapely

from dataengine.layouts.map_ground import Candidate, TileGround, box_around, share_inside
from dataengine.layouts.map_table import Standing
from dataengine.layouts.map_traffic import drawn_size
from dataengine.maps.features import MapFeature
from dataengine.maps.tags import metres

# length and span in metres of light aircraft, and of airliners from regional jets to wide bodies
LIGHT = ((7.3, 10.0), (8.3, 11.0), (9.5, 11.5), (13.3, 16.2), (16.0, 16.3))
AIRLINERS = (
    (29.9, 26.2),
    (36.2, 28.7),
    (37.6, 35.8),
    (39.5, 35.8),
    (44.5, 35.8),
    (56.7, 60.1),
    (66.8, 60.9),
    (73.9, 64.8),
)
AIRLINER_SHARES = (0.08, 0.1, 0.3, 0.3, 0.1, 0.04, 0.05, 0.03)
LIGHT_RUNWAY_M = 1600.0  # an airfield whose runways are shorter, without gates, has light aircraft
STAND_GAP_M, NOSE_GAP_M = 6.0, 7.0  # between wing tips; between a nose and a building
GATE_REACH_M = 60.0  # from a gate or position to the building that it belongs to
MIN_ON_PAVING = 0.6  # share of an airplane's box on apron, taxiway or runway; its corners are empty
MIN_IN_WATER, SHIP_GAP_M = 0.95, 1.5
FINGER_PIER_M, FINGER_WIDTH_M = 25.0, 4.0  # a longer and narrower pier may have boats across it
ACROSS_M = 15.0  # longest boat across a pier
FAIRWAY_TRIALS = 60  # places on open water, for each tile
MIN_WATER_M2, STILL = 10_000.0, ("pond", "basin", "pool", "reflecting_pool", "fountain", "wastewater")  # without ships
MAX_SHIP_SHARE = 0.25  # of a ship's length, of the side of a square as large as its water
PAVING = ("apron", "taxiway", "runway")


def airplanes(tile: TileGround, rule: Standing, rng: np.random.Generator) -> list[Candidate]:
    """Airplanes on their positions and gates with their noses to the building, in rows on aprons without any, and a few
    on taxiways."""
    positions = [f for f in tile.features if f.tags.get("aeroway") == "parking_position"]
    gates = [f for f in tile.features if f.tags.get("aeroway") == "gate" and f.geometry.geom_type == "Point"]
    buildings, paving = tile.area("building"), tile.area(*PAVING)
    runways = [f.geometry.length for f in tile.features if f.tags.get("aeroway") == "runway" and f.is_line]
    light = not (positions or gates) and max(runways, default=0.0) < LIGHT_RUNWAY_M
    found = []
    for feature in positions:
        found += _at_position(feature, buildings, rng)
    stands = shapely.union_all(np.array([f.geometry for f in positions], object)) if positions else None
    for gate in gates:
        if stands is None or gate.geometry.distance(stands) > GATE_REACH_M / 2:
            found += _at_gate(gate, buildings, rng)
    for shape, feature in zip(tile.surfaces["apron"].shapes, tile.surfaces["apron"].features, strict=True):
        if feature.tags.get("aeroway") != "helipad" and not any(
            shape.intersects(f.geometry) for f in positions + gates
        ):
            found += _in_rows(shape, feature, light, rng)
    for line, feature, _ in tile.lines("taxiway"):
        if feature.tags.get("aeroway") in ("taxiway", "taxilane") and line.length > 80:
            length, span = _type(light, rng)
            at = rng.uniform(0, line.length - length) if line.length > length else 0.0
            (x0, y0), (x1, y1) = (line.interpolate(at + part * length).coords[0][:2] for part in (0.1, 0.9))
            box = ((x0 + x1) / 2, (y0 + y1) / 2, length, span, math.atan2(y1 - y0, x1 - x0))
            found.append(Candidate(box, feature.id, 0.1))
    return _on_ground(found, paving, buildings)


def _on_ground(found: list[Candidate], area: shapely.Geometry, buildings: shapely.Geometry) -> list[Candidate]:
    if not found:
        return []
    boxes = np.array([each.box for each in found])
    keep = (share_inside(boxes, area) >= MIN_ON_PAVING) & (share_inside(boxes, buildings) < 0.03)
    keep &= shapely.intersects_xy(area, boxes[:, 0], boxes[:, 1])
    return [each for each, kept in zip(found, keep, strict=True) if kept]


def _type(light: bool, rng: np.random.Generator) -> tuple[float, float]:
    """Length and span of an airplane."""
    if light:
        return LIGHT[rng.integers(len(LIGHT))]
    return AIRLINERS[rng.choice(len(AIRLINERS), p=AIRLINER_SHARES)]


def _at_position(feature: MapFeature, buildings: shapely.Geometry, rng: np.random.Generator) -> list[Candidate]:
    """A position is the line that a nose wheel follows, to its end near the building; or a point."""
    length, span = _type(False, rng)
    if not feature.is_line:
        return _at_gate(feature, buildings, rng) if feature.geometry.geom_type == "Point" else []
    ends = [feature.geometry.interpolate(at, normalized=True) for at in (0, 1)]
    nearest = int(ends[0].distance(buildings) < ends[1].distance(buildings)) if not buildings.is_empty else 0
    stop, before = (
        (ends[0], feature.geometry.interpolate(5.0)) if nearest else (ends[1], feature.geometry.interpolate(-5.0))
    )
    heading = math.atan2(stop.y - before.y, stop.x - before.x)
    back = length * 0.4  # the nose wheel stands before the middle
    box = (stop.x - back * math.cos(heading), stop.y - back * math.sin(heading), length, span, heading)
    return [Candidate(box, feature.id)]


def _at_gate(feature: MapFeature, buildings: shapely.Geometry, rng: np.random.Generator) -> list[Candidate]:
    """An airplane before the wall of the building that a gate belongs to, with its nose to it."""
    gate = feature.geometry
    if buildings.is_empty or gate.distance(buildings) > GATE_REACH_M:
        return []
    length, span = _type(False, rng)
    wall = shapely.get_parts(buildings.boundary)
    line = wall[np.argmin(shapely.distance(wall, gate))]
    at = line.project(gate)
    foot, (a, b) = line.interpolate(at), (line.interpolate(max(at - 2, 0)), line.interpolate(at + 2))
    along = math.atan2(b.y - a.y, b.x - a.x)
    found = []
    for side in (-1, 1):  # the wall's two sides; the wrong one lies in the building
        outward = along + side * math.pi / 2
        reach = NOSE_GAP_M + length / 2
        box = (foot.x + reach * math.cos(outward), foot.y + reach * math.sin(outward), length, span, outward + math.pi)
        found.append(Candidate(box, feature.id))
    return found


def _in_rows(apron: shapely.Geometry, feature: MapFeature, light: bool, rng: np.random.Generator) -> list[Candidate]:
    """Airplanes side by side along the long edge of an apron, their noses across it."""
    found = []
    for part in shapely.get_parts(apron):
        x, y, long, short, theta = box_around(part)
        length, span = _type(light, rng)
        step, depth = span + STAND_GAP_M, length + NOSE_GAP_M
        across = np.arange(depth / 2 + 2, short - depth / 2, depth * 2.2) - short / 2
        for b in across if len(across) else [0.0]:
            for a in np.arange(step / 2, long, step) - long / 2:
                px = x + a * math.cos(theta) - b * math.sin(theta)
                py = y + a * math.sin(theta) + b * math.cos(theta)
                found.append(
                    Candidate((px, py, length, span, theta + math.pi / 2 + rng.normal(0, 0.03)), feature.id, 0.7)
                )
    return found


def helicopters(tile: TileGround, rule: Standing, rng: np.random.Generator) -> list[Candidate]:
    """A helicopter in the middle of each pad."""
    found = []
    for feature in tile.features:
        if feature.tags.get("aeroway") == "helipad":
            middle = feature.geometry.centroid
            length, width = drawn_size(rule, rng)
            found.append(Candidate((middle.x, middle.y, length, width, rng.uniform(-np.pi / 2, np.pi / 2)), feature.id))
    return found


def ships(tile: TileGround, rule: Standing, rng: np.random.Generator) -> list[Candidate]:
    """Ships along piers or across them, and on open water along its long axis."""
    water = tile.area("water")
    if water.is_empty:
        return []
    free = water.difference(shapely.union_all([tile.area("pier"), tile.area("building"), tile.area("bridge")]))
    found = _at_piers(tile, rule, rng) if "pier" in rule.places else []
    if "water" in rule.places:
        found += _on_water(tile, rule, rng)
    if not found:
        return []
    keep = share_inside(np.array([each.box for each in found]), free) >= MIN_IN_WATER
    return [each for each, kept in zip(found, keep, strict=True) if kept]


def _at_piers(tile: TileGround, rule: Standing, rng: np.random.Generator) -> list[Candidate]:
    found = []
    for feature in tile.features:
        if feature.tags.get("man_made") not in ("pier", "quay") or not (feature.is_line or feature.is_area):
            continue
        width = metres(feature.tags.get("width")) or 3.0
        shape = feature.geometry.buffer(width / 2, cap_style="flat") if feature.is_line else feature.geometry
        for part in shapely.get_parts(shape):
            x, y, long, short, theta = box_around(part)
            across = long > FINGER_PIER_M and short < FINGER_WIDTH_M and rng.random() < 0.5
            for side in (-1, 1):
                at = -long / 2
                while at < long / 2:
                    length, beam = drawn_size(rule, rng, min(long, ACROSS_M) if across else long)
                    step, away = (beam, length) if across else (length, beam)
                    a, b = at + step / 2, side * (short / 2 + SHIP_GAP_M / 2 + away / 2)
                    at += step + SHIP_GAP_M + rng.exponential(2.0)
                    if a + step / 2 > long / 2 + step / 3:
                        break
                    px = x + a * math.cos(theta) - b * math.sin(theta)
                    py = y + a * math.sin(theta) + b * math.cos(theta)
                    heading = theta + (math.pi / 2 if across else 0) + rng.normal(0, 0.02)
                    found.append(Candidate((px, py, length, beam, heading), feature.id))
    return found


def _on_water(tile: TileGround, rule: Standing, rng: np.random.Generator) -> list[Candidate]:
    found = []
    shapes, features = tile.surfaces["water"].shapes, tile.surfaces["water"].features
    for shape, feature in zip(shapes, features, strict=True):
        inner = shape.intersection(tile.frame)
        if (
            shape.area < MIN_WATER_M2
            or feature.tags.get("water") in STILL
            or "amenity" in feature.tags
            or inner.is_empty
        ):
            continue
        x0, y0, x1, y1 = inner.bounds
        axis = box_around(inner)[4]
        narrow = inner.area / max(inner.length, 1) < 30
        for _ in range(FAIRWAY_TRIALS):
            length, beam = drawn_size(rule, rng, MAX_SHIP_SHARE * math.sqrt(inner.area))
            heading = axis + rng.normal(0, 0.1) if narrow else rng.uniform(-np.pi / 2, np.pi / 2)
            box = (rng.uniform(x0, x1), rng.uniform(y0, y1), length, beam, heading)
            if length < MAX_SHIP_SHARE * math.sqrt(inner.area) * 1.5:
                found.append(Candidate(box, feature.id, 0.15))
    return found
