"""A map painted by hand, in metres: an airport, a harbour, a sports ground, streets and a car park, 2 km wide."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from dataengine.maps.grid import Grid, local_crs

LON, LAT = 10.0, 50.0
METRES = Grid(local_crs(LON, LAT), (1.0, 0.0, 0.0, 0.0, 1.0, 0.0), (1, 1))


def box(x: float, y: float, width: float, height: float, turn_deg: float = 0.0) -> list[tuple[float, float]]:
    """A closed ring around (x, y)."""
    c, s = np.cos(np.radians(turn_deg)), np.sin(np.radians(turn_deg))
    corners = [(-width / 2, -height / 2), (width / 2, -height / 2), (width / 2, height / 2), (-width / 2, height / 2)]
    ring = [(x + a * c - b * s, y + a * s + b * c) for a, b in corners]
    return [*ring, ring[0]]


def circle(x: float, y: float, radius: float) -> list[tuple[float, float]]:
    angles = np.linspace(0, 2 * np.pi, 33)
    return [(float(x + radius * np.cos(a)), float(y + radius * np.sin(a))) for a in angles]


AREA, LINE, POINT = "Polygon", "LineString", "Point"
FEATURES: list[tuple[str, str, list[tuple[float, float]], dict[str, str]]] = [
    # a square of land with its border, so that the map's extent is known
    ("border", AREA, box(0, 0, 2000, 2000), {"boundary": "administrative"}),
    # north: an airport
    ("airport", AREA, box(0, 650, 1900, 640), {"aeroway": "aerodrome"}),
    ("runway", LINE, [(-900, 900), (900, 900)], {"aeroway": "runway", "width": "45"}),
    ("taxiway", LINE, [(-800, 760), (800, 760)], {"aeroway": "taxiway"}),
    ("apron", AREA, box(0, 620, 700, 220), {"aeroway": "apron"}),
    ("terminal", AREA, box(0, 470, 600, 60), {"building": "yes"}),
    *((f"stand{i}", LINE, [(90 * i, 640), (90 * i, 520)], {"aeroway": "parking_position"}) for i in range(-3, 4)),
    ("gate", POINT, [(330, 500)], {"aeroway": "gate"}),
    ("light", AREA, box(-700, 600, 300, 120, 10), {"aeroway": "apron"}),
    ("pad", AREA, box(600, 600, 24, 24), {"aeroway": "helipad"}),
    # south: a harbour with a bridge
    ("sea", AREA, [(-1000, -1000), (1000, -1000), (1000, -600), (-1000, -600), (-1000, -1000)], {"natural": "water"}),
    ("pier1", AREA, box(-300, -700, 12, 200), {"man_made": "pier"}),
    ("pier2", LINE, [(-100, -600), (-100, -680)], {"man_made": "pier"}),
    ("river", LINE, [(500, -600), (500, 200)], {"waterway": "river", "width": "40"}),
    ("tank1", AREA, circle(-700, -500, 20), {"man_made": "storage_tank"}),
    ("tank2", AREA, circle(-640, -500, 20), {"man_made": "storage_tank"}),
    # the middle: streets, a car park, a railway and a sports ground
    ("main", LINE, [(-1000, 100), (450, 100)], {"highway": "primary", "lanes": "4"}),
    ("bridge", LINE, [(450, 100), (550, 100)], {"highway": "primary", "lanes": "4", "bridge": "yes"}),
    ("east", LINE, [(550, 100), (1000, 100)], {"highway": "primary", "lanes": "4"}),
    ("slope", LINE, [(-900, -400), (-400, 60)], {"highway": "residential"}),
    ("tunnel", LINE, [(-1000, -300), (1000, -300)], {"highway": "primary", "tunnel": "yes"}),
    ("motorway", LINE, [(-200, -560), (-200, 60)], {"highway": "motorway", "bridge": "yes", "lanes": "2"}),
    ("under", LINE, [(-420, -200), (0, -200)], {"highway": "secondary"}),
    ("lot", AREA, box(200, 0, 120, 80, 20), {"amenity": "parking"}),
    ("rail", LINE, [(-1000, 200), (1000, 240)], {"railway": "rail"}),
    ("path", LINE, [(0, -500), (400, -500)], {"highway": "footway"}),
    ("tennis", AREA, box(700, -150, 36, 36, 30), {"leisure": "pitch", "sport": "tennis"}),
    ("pool", AREA, box(760, -300, 50, 21), {"leisure": "swimming_pool"}),
    ("ring", LINE, circle(700, 0, 20), {"junction": "roundabout", "highway": "residential"}),
    ("house", AREA, box(-600, 0, 60, 40), {"building": "house"}),
    ("wood", AREA, box(-700, 350, 400, 150), {"natural": "wood"}),
]


def write_pbf(file: Path, features=FEATURES) -> Path:
    """The map as OpenStreetMap PBF: nodes, and open or closed ways."""
    import osmium
    from osmium.osm.mutable import Node, Way

    with osmium.SimpleWriter(str(file), overwrite=True) as writer:
        ways, number = [], 0
        for i, (_, kind, points, tags) in enumerate(features, 1):
            first = number + 1
            ring = points[:-1] if kind == AREA else points
            for lon, lat in METRES.lonlat(ring).tolist():
                number += 1
                writer.add_node(Node(id=number, location=(lon, lat), version=1, tags=tags if kind == POINT else {}))
            if kind != POINT:
                refs = [*range(first, number + 1), *([first] if kind == AREA else [])]
                ways.append(Way(id=i, nodes=refs, version=1, tags=tags))
        for way in ways:
            writer.add_way(way)
    return file


def write_geojson(file: Path, features=FEATURES) -> Path:
    """The map as GeoJSON, tags as properties."""
    entries = []
    for name, kind, points, tags in features:
        lonlat = METRES.lonlat(points).round(9).tolist()
        coordinates = {AREA: [lonlat], LINE: lonlat, POINT: lonlat[0]}[kind]
        geometry = {"type": kind, "coordinates": coordinates}
        entries.append({"type": "Feature", "properties": {"@id": name, **tags}, "geometry": geometry})
    file.write_text(json.dumps({"type": "FeatureCollection", "features": entries}))
    return file
