"""Features of Overture Maps (schema 1) in the words of OpenStreetMap."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import shapely
from shapely.ops import substring

from dataengine.maps.tags import tags_of_properties

# (type, subtype): key of OpenStreetMap whose value is the class
KEYS = {
    ("segment", "road"): "highway", ("segment", "rail"): "railway", ("infrastructure", "airport"): "aeroway",
    ("infrastructure", "pier"): "man_made", ("infrastructure", "bridge"): "man_made",
    ("infrastructure", "tower"): "man_made", ("infrastructure", "utility"): "man_made",
    ("infrastructure", "quay"): "man_made", ("infrastructure", "water"): "waterway",
    ("water", "river"): "waterway", ("water", "stream"): "waterway", ("water", "canal"): "waterway",
    ("land_use", "park"): "leisure", ("land_use", "recreation"): "leisure", ("land_use", "golf"): "golf",
    ("land_use", "entertainment"): "leisure",
}  # fmt: skip
WHOLE_TYPES = {"land_use": "landuse", "land": "natural"}  # key where the subtype is not in KEYS
VALUES = {("natural", "forest"): "wood", ("natural", "shrub"): "scrub", ("natural", "grass"): "grassland",
    ("aeroway", "airport_gate"): "gate"}  # fmt: skip
GOLF_COURSE = "golf_course"  # a class of golf that is a tag of `leisure`
FLAGS = {"is_tunnel": {"tunnel": "yes"}, "is_bridge": {"bridge": "yes"}, "is_covered": {"covered": "yes"},
    "is_indoor": {"indoor": "yes"}, "is_abandoned": {"highway": "abandoned"},
    "is_under_construction": {"highway": "construction"}}  # fmt: skip
COLUMNS = ("class", "subtype", "subclass")


def is_overture(properties: Mapping[str, object]) -> bool:
    """Whether properties are of a feature of Overture Maps."""
    return "subtype" in properties and ("class" in properties or "subclass" in properties)


def overture_parts(
    geometry: shapely.Geometry, properties: Mapping[str, object]
) -> list[tuple[shapely.Geometry, dict[str, str]]]:
    """The parts of a feature and their tags: a road that is a tunnel or a bridge over a part of its length is divided.

    >>> line = shapely.LineString([(0, 0), (10, 0)])
    >>> flags = [{"values": ["is_tunnel"], "between": [0.5, 1.0]}]
    >>> row = {"type": "segment", "subtype": "road", "class": "primary", "road_flags": flags}
    >>> [(part.length, tags) for part, tags in overture_parts(line, row)]
    [(5.0, {'highway': 'primary'}), (5.0, {'highway': 'primary', 'tunnel': 'yes'})]
    """
    tags = _tags(properties)
    rules = [rule for name in ("road_flags", "rail_flags") for rule in _items(properties.get(name))]
    rules = [(tuple(_items(rule.get("between"))) or (0.0, 1.0), rule.get("values")) for rule in rules]
    if geometry.geom_type != "LineString":
        return [(geometry, tags)]
    ends = sorted({0.0, 1.0, *(float(end) for between, _ in rules for end in between)})
    parts = []
    for low, high in pairwise(ends):
        own = dict(tags)
        for (first, last), values in rules:
            if first <= low and high <= last:
                for value in _items(values):
                    own |= FLAGS.get(str(value), {})
        part = geometry if len(ends) == 2 else substring(geometry, low, high, normalized=True)
        if part.length > 0:
            parts.append((part, own))
    return parts


def _tags(properties: Mapping[str, object]) -> dict[str, str]:
    own = tags_of_properties({name: value for name, value in properties.items() if name not in COLUMNS})
    kind, subtype, name = (str(properties.get(key) or "") for key in ("type", "subtype", "class"))
    widths = [rule for rule in _items(properties.get("width_rules")) if not len(_items(rule.get("between")))]
    if widths and widths[0].get("value"):
        own.setdefault("width", str(widths[0]["value"]))
    if kind == "building" or (not kind and "num_floors" in properties):
        return own | {"building": name if name and name != "None" else "yes"}
    if name == "parking":
        return own | {"amenity": "parking"}
    if name == "swimming_pool":
        return own | {"leisure": name}
    key = KEYS.get((kind, subtype)) or KEYS.get(("segment", subtype)) or WHOLE_TYPES.get(kind)
    if key == "golf" and name == GOLF_COURSE:
        key = "leisure"
    if kind == "water" and key is None:
        return own | {"natural": "water"}
    return own if key is None or not name else {key: VALUES.get((key, name), name)} | own


def _items(value: object) -> list:
    """A list of a column that may be missing."""
    return [] if value is None or isinstance(value, float | str) else list(value)
