"""Reading maps: OpenStreetMap's PBF and XML, GeoJSON, GeoPackage, GeoParquet of Overture Maps and what GDAL reads."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import shapely

from dataengine.errors import UserError, one_line, require
from dataengine.maps.coast import sea
from dataengine.maps.features import Map, MapFeature
from dataengine.maps.grid import Grid, local_crs
from dataengine.maps.overture import is_overture, overture_parts
from dataengine.maps.tags import tags_of_properties

Box = tuple[float, float, float, float]  # west, south, east, north in degrees
OSM_SUFFIXES = (".pbf", ".osm", ".osm.gz", ".osm.bz2", ".o5m")
PARQUET_SUFFIXES = (".parquet", ".geoparquet")
ID_COLUMNS = ("@id", "full_id", "id", "osm_id", "osm_way_id")
# of closed ways: with one of these keys, and without `area=yes`, they are lines
LINE_KEYS = ("highway", "railway", "barrier", "waterway", "route", "aerialway", "power")
AREA_VALUES = {"waterway": ("riverbank", "dock", "boatyard", "dam"), "railway": ("platform", "station"),
    "highway": ("platform", "rest_area", "services"), "power": ("generator", "plant", "substation")}  # fmt: skip
MAX_SIDE_M = 200_000  # beyond, one plane in metres is no longer true to scale
DEGREE_M = 111_320


def read_map(path: str | Path, box: Box | None = None) -> Map:
    """The features of a map file, or of all parquet files in a folder, that touch a box in degrees, in metres around
    its middle. box: None for all of the file.

    Raises UserError for a file that is not there, holds no map or states no coordinate system, a box beside the map,
    and a map too large for one plane.
    """
    path = Path(path)
    require("maps", "osmium", "pyogrio", "geopandas", "pyproj", "rasterio", "pyarrow")
    if box is not None and not (-180 <= box[0] < box[2] <= 180 and -90 <= box[1] < box[3] <= 90):
        raise UserError("--box: give west, south, east and north in degrees, such as 24.93 60.16 24.95 60.18.")
    if not path.exists():
        raise UserError(f"--map {path}: does not exist; check the spelling.")
    found, stated = _read_osm(path, box) if path.name.endswith(OSM_SUFFIXES) else _read_tables(path, box)
    features = [feature for feature in found if not feature.geometry.is_empty]
    if not features:
        where = " in the box" if box is not None else ""
        raise UserError(f"--map {path}: has no feature with tags{where}; see that it is a map and covers the place.")
    bounds = shapely.total_bounds(np.array([feature.geometry for feature in features], object))
    extent = _extent(path, stated or tuple(float(value) for value in bounds), box)
    crs = local_crs((extent[0] + extent[2]) / 2, (extent[1] + extent[3]) / 2)
    metres = Grid(crs, (1.0, 0.0, 0.0, 0.0, 1.0, 0.0), (1, 1))
    corners = metres.pixels([(extent[0], extent[1]), (extent[2], extent[3])])
    plane = (*(float(v) for v in corners[0]), *(float(v) for v in corners[1]))
    geometries = shapely.transform(np.array([f.geometry for f in features], object), metres.pixels)
    moved = [MapFeature(f.id, g, f.tags) for f, g in zip(features, geometries, strict=True)]
    coast = [f.geometry for f in moved if f.tags.get("natural") == "coastline" and f.is_line]
    water = [MapFeature("coastline", part, {"natural": "water"}) for part in sea(coast, plane)]
    return Map(tuple(water + moved), crs, plane, path.name)


def _extent(path: Path, known: Box, box: Box | None) -> Box:
    """The part of the box that the map knows."""
    if box is not None:
        known = (*np.maximum(known[:2], box[:2]).tolist(), *np.minimum(known[2:], box[2:]).tolist())
    if known[0] >= known[2] or known[1] >= known[3]:
        raise UserError(f"--map {path}: has nothing in the box; give a part of the map.")
    middle = math.cos(math.radians((known[1] + known[3]) / 2))
    if max((known[2] - known[0]) * middle, known[3] - known[1]) * DEGREE_M > MAX_SIDE_M:
        raise UserError(f"--map {path}: is more than {MAX_SIDE_M // 1000} km wide; cut a part of it with --box.")
    return known


def _read_osm(path: Path, box: Box | None) -> tuple[Iterator[MapFeature], Box | None]:
    import osmium

    try:
        header = osmium.io.Reader(str(path)).header().box()
        stated = None
        if header.valid():
            low, high = header.bottom_left, header.top_right
            stated = (low.lon, low.lat, high.lon, high.lat)
        return iter(list(_osm_features(osmium, path, box))), stated
    except (RuntimeError, osmium.InvalidLocationError) as error:
        raise UserError(f"--map {path}: cannot be read as OpenStreetMap data ({one_line(error)}).") from None


def _osm_features(osmium, path: Path, box: Box | None) -> Iterator[MapFeature]:
    """Nodes, lines and areas with tags. A closed way is either a line or an area."""
    factory = osmium.geom.WKBFactory()
    for item in osmium.FileProcessor(str(path)).with_areas().with_filter(osmium.filter.EmptyTagFilter()):
        try:
            if item.is_node():
                name, wkb = f"node/{item.id}", factory.create_point(item)
            elif item.is_way():
                if item.is_closed() and not _is_line(dict(item.tags)):
                    continue  # comes as an area
                name, wkb = f"way/{item.id}", _known_line(item)
            elif item.is_area():
                if item.from_way() and _is_line(dict(item.tags)):
                    continue
                name, wkb = f"{'way' if item.from_way() else 'relation'}/{item.orig_id()}", None
                wkb = factory.create_multipolygon(item)
            else:
                continue
        except (RuntimeError, osmium.InvalidLocationError):  # nodes outside of a cut file
            continue
        geometry = wkb if isinstance(wkb, shapely.Geometry) else shapely.from_wkb(wkb)
        if box is None or geometry.intersects(shapely.box(*box)):
            yield MapFeature(name, geometry, dict(item.tags))


def _known_line(way) -> shapely.Geometry:
    """A way's line, without nodes that a cut file lacks: then in parts."""
    places = [(node.lon, node.lat) if node.location.valid() else None for node in way.nodes]
    runs: list[list[tuple[float, float]]] = [[]]
    for place in places:
        if place is None:
            runs.append([])
        elif not runs[-1] or runs[-1][-1] != place:
            runs[-1].append(place)
    lines = [shapely.LineString(run) for run in runs if len(run) > 1]
    return lines[0] if len(lines) == 1 else shapely.MultiLineString(lines)


def _is_line(tags: dict[str, str]) -> bool:
    """Whether a closed way is a line."""
    if "area" in tags:
        return tags["area"] != "yes"
    if tags.get("natural") == "coastline" or tags.get("aeroway") in ("taxiway", "parking_position"):
        return True
    keys = [key for key in LINE_KEYS if key in tags]
    return bool(keys) and not any(tags[key] in AREA_VALUES.get(key, ()) for key in keys) and "building" not in tags


def _read_tables(path: Path, box: Box | None) -> tuple[Iterator[MapFeature], Box | None]:
    files = sorted(path.rglob("*.parquet")) if path.is_dir() else [path]
    if not files:
        raise UserError(f"--map {path}: this folder has no .parquet file; give a map file.")
    return iter([feature for file in files for feature in _table_features(file, box)]), None


def _table_features(file: Path, box: Box | None) -> Iterator[MapFeature]:
    import geopandas
    import pyogrio

    try:
        if file.name.endswith(PARQUET_SUFFIXES):
            tables = {file.stem: geopandas.read_parquet(file)}
        else:
            layers = [str(name) for name, kind in pyogrio.list_layers(file) if kind is not None]
            tables = {name: pyogrio.read_dataframe(file, layer=name) for name in layers}
    except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError, ValueError, OSError) as error:
        raise UserError(
            f"--map {file}: cannot be read as a map ({one_line(error)}); give OSM PBF, GeoJSON, GeoPackage or "
            "GeoParquet."
        ) from None
    overture = next((part.split("=")[1] for part in file.parts if part.startswith("type=")), None)
    for name, table in tables.items():
        if not hasattr(table, "crs"):
            continue  # without geometry
        if table.crs is None:
            raise UserError(f"--map {file}: {name} states no coordinate system; write it with one, such as EPSG:4326.")
        yield from _rows(name, table.to_crs("EPSG:4326"), box, overture)


def _rows(layer: str, table, box: Box | None, overture: str | None) -> Iterator[MapFeature]:
    frame = None if box is None else shapely.box(*box)
    columns = [name for name in table.columns if name != table.geometry.name]
    known = next((name for name in ID_COLUMNS if name in columns), None)
    for number, (geometry, row) in enumerate(zip(table.geometry, table[columns].to_dict("records"), strict=True), 1):
        if geometry is None or geometry.is_empty:
            continue
        geometry = shapely.force_2d(geometry)
        if frame is not None and not geometry.intersects(frame):
            continue
        if not geometry.is_valid:
            geometry = shapely.make_valid(geometry)
        if overture is not None:
            row.setdefault("type", overture)
        own = row.get(known) if known is not None else None
        own = f"{layer}/{number}" if own is None or own == "" or own != own else str(own)
        tagged = overture_parts(geometry, row) if is_overture(row) else [(geometry, tags_of_properties(row))]
        for shape, tags in tagged:
            if tags:
                parts = shapely.get_parts(shape) if shape.geom_type == "GeometryCollection" else [shape]
                yield from (MapFeature(own, part, tags) for part in parts)
