"""A map in memory: features with their tags, in metres around the middle of the map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import shapely

from dataengine.maps.grid import Grid, grid_around


@dataclass(frozen=True)
class MapFeature:
    """id: "way/123" or what the file calls it. geometry: shapely, in metres east and north of the map's middle, or in
    pixels once it is on a grid."""

    id: str
    geometry: shapely.Geometry
    tags: Mapping[str, str]

    def has(self, rules: Mapping[str, Sequence[str] | str]) -> bool:
        """Whether a tag has one of the values of a key; "*" is any value but "no".

        >>> road = MapFeature("way/1", shapely.Point(0, 0), {"highway": "service"})
        >>> road.has({"highway": ["service"]}), road.has({"highway": "*"}), road.has({"building": "*"})
        (True, True, False)
        """
        for key, values in rules.items():
            value = self.tags.get(key)
            if value is not None and value != "no" and (values == "*" or value in values):
                return True
        return False

    @property
    def level(self) -> int:
        """0 on the ground, 1 or its `layer` for a bridge: what a level covers of lower ones is hidden.

        >>> MapFeature("way/1", shapely.Point(0, 0), {"bridge": "yes", "layer": "2"}).level
        2
        """
        if self.tags.get("bridge", "no") == "no" and self.tags.get("man_made") != "bridge":
            return 0
        layer = self.tags.get("layer", "1")
        return max(1, int(layer)) if layer.lstrip("+").isdecimal() and len(layer) < 3 else 1

    @property
    def is_area(self) -> bool:
        """Whether it covers ground as it is, without a width."""
        return self.geometry.geom_type in ("Polygon", "MultiPolygon")

    @property
    def is_line(self) -> bool:
        """Whether it is a line or a closed way that is one."""
        return self.geometry.geom_type in ("LineString", "MultiLineString", "LinearRing")


@dataclass(frozen=True)
class Map:
    """features: in the order of their ids. crs: metres, as pyproj reads it. extent: (west, south, east, north) in
    metres, within which the map says what there is. name: of the file, for people and manifests."""

    features: tuple[MapFeature, ...]
    crs: str
    extent: tuple[float, float, float, float]
    name: str = ""

    @cached_property
    def index(self) -> shapely.STRtree:
        """Finds features by place."""
        return shapely.STRtree([feature.geometry for feature in self.features])

    def grid(self, x: float, y: float, gsd_m: float, size: tuple[int, int]) -> Grid:
        """The grid with its middle at (x, y) metres of this map."""
        return grid_around(x, y, gsd_m, size, self.crs)

    def grid_at(self, lon: float, lat: float, gsd_m: float, size: tuple[int, int]) -> Grid:
        """The grid with its middle at a place in degrees."""
        middle = Grid(self.crs, (1.0, 0.0, 0.0, 0.0, 1.0, 0.0), (1, 1)).pixels([[lon, lat]])[0]
        return self.grid(*(float(value) for value in middle), gsd_m, size)

    def on(self, grid: Grid, margin_px: float = 0.0) -> list[MapFeature]:
        """Features that touch a grid grown by a margin, in its pixels: x to the right, y down, not clipped."""
        width, height = grid.size
        frame = shapely.segmentize(
            shapely.box(-margin_px, -margin_px, width + margin_px, height + margin_px), max(width, height) / 8
        )
        there = shapely.transform(frame, lambda points: self.metres(grid, points))
        near = np.sort(self.index.query(there, predicate="intersects"))
        chosen = [self.features[i] for i in near]
        moved = shapely.transform(
            np.array([feature.geometry for feature in chosen], object), lambda points: self._pixels(grid, points)
        )
        return [MapFeature(f.id, g, f.tags) for f, g in zip(chosen, moved, strict=True)]

    def metres(self, grid: Grid, pixels: np.ndarray) -> np.ndarray:
        """Pixels (N, 2) of any grid -> metres of this map (N, 2)."""
        if grid.crs == self.crs:
            return grid.positions(pixels)
        return Grid(self.crs, (1.0, 0.0, 0.0, 0.0, 1.0, 0.0), (1, 1)).pixels(grid.lonlat(pixels))

    def _pixels(self, grid: Grid, positions: np.ndarray) -> np.ndarray:
        if grid.crs == self.crs:
            return grid.pixels_at(positions)
        return grid.pixels(Grid(self.crs, (1.0, 0.0, 0.0, 0.0, 1.0, 0.0), (1, 1)).lonlat(positions))

    def covers(self, grid: Grid) -> bool:
        """Whether a grid lies within the extent."""
        corners = np.array([(0, 0), (grid.size[0], 0), grid.size, (0, grid.size[1])], float)
        points = self.metres(grid, corners)
        west, south, east, north = self.extent
        return bool(((points >= (west - 1e-6, south - 1e-6)) & (points <= (east + 1e-6, north + 1e-6))).all())
