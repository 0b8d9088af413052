"""Tags of a map feature in the words of OpenStreetMap, however its file stores them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

# columns that hold no tags
NO_TAGS = {"id", "fid", "osm_id", "osm_way_id", "osm_type", "full_id", "@id", "@type", "@timestamp", "@version",
    "@changeset", "@uid", "@user", "timestamp", "version", "changeset", "uid", "user", "z_order", "geometry", "bbox",
    "sources", "names", "theme", "type", "update_time"}  # fmt: skip
_HSTORE = re.compile(r'"((?:[^"\\]|\\.)*)"\s*=>\s*"((?:[^"\\]|\\.)*)"')


def tags_of_properties(properties: Mapping[str, object]) -> dict[str, str]:
    """Tags in the properties of a feature: columns named as keys, `other_tags` of GDAL, `tags` as a mapping.

    >>> tags_of_properties({"osm_id": "5", "highway": "primary", "other_tags": '"lanes"=>"2","oneway"=>"yes"'})
    {'highway': 'primary', 'lanes': '2', 'oneway': 'yes'}
    """
    tags: dict[str, str] = {}
    for name, value in properties.items():
        if _missing(value):
            continue
        if name == "other_tags" and isinstance(value, str):
            tags |= {_plain(key): _plain(text) for key, text in _HSTORE.findall(value)}
        elif name in ("tags", "source_tags"):
            pairs = value.items() if isinstance(value, Mapping) else value if not isinstance(value, str) else ()
            tags |= {str(key): str(text) for key, text in pairs}
        elif name not in NO_TAGS and isinstance(value, str | int | float | bool) and not isinstance(value, bool):
            tags[name] = str(value)
    return tags


def _missing(value: object) -> bool:
    return value is None or (isinstance(value, str) and not value) or (isinstance(value, float) and math.isnan(value))


def _plain(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text)


def metres(text: str | None) -> float | None:
    """A length in metres from a tag, None where it states none.

    >>> metres("7.5"), metres("7,5 m"), metres("20 ft"), metres("narrow"), metres(None)
    (7.5, 7.5, 6.096, None, None)
    """
    found = re.fullmatch(r"\s*(\d+(?:[.,]\d+)?)\s*(m|metres?|meters?|ft|feet|')?\s*", text or "")
    if found is None:
        return None
    value = float(found[1].replace(",", "."))
    value *= 0.3048 if found[2] in ("ft", "feet", "'") else 1
    return value if 0 < value < 1000 else None


def count(text: str | None) -> int | None:
    """A whole number from a tag such as `lanes`, None where it states none.

    >>> count("2"), count("2;3"), count("many")
    (2, 2, None)
    """
    found = re.match(r"\s*(\d{1,2})(?!\d)", text or "")
    return int(found[1]) if found and int(found[1]) > 0 else None
