"""A tile of a map in metres, with what its classes of ground cover: what objects are placed on."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import shapely

from dataengine import geometry
from dataengine.maps.features import Map, MapFeature
from dataengine.maps.ground import Ground, Surface, surfaces

MARGIN_M = 80.0  # around a tile, so that objects at its border are placed as in its middle


@dataclass(frozen=True)
class Candidate:
    """An object that a map has room for. box: (cx, cy, w, h, theta) in metres from the tile's top left corner, y down;
    w and h in any order. feature: id of the map feature. weight: how likely it is, relative to others of its class."""

    box: tuple[float, float, float, float, float]
    feature: str
    weight: float = 1.0


MAX_HIDDEN = 0.05  # share of the box of a thing that stands on the map, under a bridge
MAX_MAPPED_HIDDEN = 0.5  # the same of a thing that is on the map itself


@dataclass(frozen=True)
class TileGround:
    """features: in metres, x to the right and y down from the tile's top left corner. size_m: (width, height)."""

    features: tuple[MapFeature, ...]
    ground: Ground
    size_m: tuple[float, float]

    @cached_property
    def surfaces(self) -> dict[str, Surface]:
        """What each class covers, by feature."""
        return surfaces(self.features, self.ground, 1.0)

    def area(self, *names: str) -> shapely.Geometry:
        """What classes cover in the tile and its margin, as one shape."""
        key = tuple(sorted(names))
        if key not in self._areas:
            shapes = [shape for name in names for shape in self.surfaces[name].shapes]
            clipped = shapely.intersection(np.array(shapes, object), self.frame) if shapes else np.array([], object)
            self._areas[key] = shapely.union_all(clipped)
            shapely.prepare(self._areas[key])
        return self._areas[key]

    @cached_property
    def _areas(self) -> dict:
        return {}

    @cached_property
    def frame(self) -> shapely.Polygon:
        """The tile with its margin."""
        width, height = self.size_m
        return shapely.box(-MARGIN_M, -MARGIN_M, width + MARGIN_M, height + MARGIN_M)

    @cached_property
    def decks(self) -> tuple[np.ndarray, np.ndarray]:
        """Shapes of bridges (K,), and their levels (K,)."""
        found = {
            (feature.id, name): (shape, feature.level)
            for name in ("bridge", "path", "rail", "road")
            for shape, feature in zip(self.surfaces[name].shapes, self.surfaces[name].features, strict=True)
            if feature.level
        }
        return np.array([shape for shape, _ in found.values()], object), np.array([n for _, n in found.values()], int)

    def seen(self, found: list[Candidate], most: float | None = None) -> list[Candidate]:
        """Candidates of which bridges above their own feature hide at most a share, MAX_HIDDEN if None."""
        most = MAX_HIDDEN if most is None else most
        decks, levels = self.decks
        if not found or not len(decks):
            return found
        own = {feature.id: feature.level for feature in self.features}
        shapes = polygons(np.array([each.box for each in found]))
        hidden = np.zeros(len(found))
        for i, deck in zip(*shapely.STRtree(decks).query(shapes, predicate="intersects"), strict=True):
            if levels[deck] > own.get(found[i].feature, 0):
                hidden[i] = max(hidden[i], shapes[i].intersection(decks[deck]).area / shapes[i].area)
        return [each for each, share in zip(found, hidden, strict=True) if share <= most]

    def lines(self, name: str) -> list[tuple[shapely.LineString, MapFeature, float]]:
        """The visible lines of a class in the tile, with their feature and width in metres."""
        found = []
        for feature in self.features:
            if feature.is_line and self.ground.visible(feature) and (width := self.ground.width_m(feature, name)):
                parts = shapely.get_parts(shapely.intersection(feature.geometry, self.frame))
                found += [(part, feature, width) for part in parts if part.geom_type == "LineString"]
        return found


def tile_ground(the_map: Map, x: float, y: float, size_m: tuple[float, float], ground: Ground) -> TileGround:
    """The tile with its middle at (x, y) metres of a map."""
    whole = math.ceil(size_m[0]), math.ceil(size_m[1])
    # the same top left corner as of the tile in its own pixels
    grid = the_map.grid(x + (whole[0] - size_m[0]) / 2, y - (whole[1] - size_m[1]) / 2, 1.0, whole)
    return TileGround(tuple(the_map.on(grid, MARGIN_M)), ground, size_m)


def polygons(boxes: np.ndarray) -> np.ndarray:
    """Boxes (N, 5), w and h in any order, as shapely polygons (N,)."""
    boxes = np.asarray(boxes, np.float64).reshape(-1, 5)
    cos, sin = np.cos(boxes[:, 4]), np.sin(boxes[:, 4])
    along, across = np.stack([cos, sin], 1) * boxes[:, 2:3] / 2, np.stack([-sin, cos], 1) * boxes[:, 3:4] / 2
    corners = boxes[:, None, :2] + np.stack([-along - across, along - across, along + across, across - along], 1)
    return shapely.polygons(corners) if len(corners) else np.array([], object)


def share_inside(boxes: np.ndarray, area: shapely.Geometry) -> np.ndarray:
    """Share of each box (N, 5) that lies in an area, (N,)."""
    shapes = polygons(boxes)
    if not len(shapes):
        return np.zeros(0)
    covered = np.zeros(len(shapes))
    near = shapely.intersects(shapes, area)
    covered[near] = shapely.area(shapely.intersection(shapes[near], area))
    return covered / np.maximum(shapely.area(shapes), 1e-9)


def box_around(shape: shapely.Geometry) -> np.ndarray:
    """The smallest rotated rectangle around a shape, (5,) float64; upright around a circle."""
    rectangle = shapely.oriented_envelope(shape)
    if rectangle.geom_type != "Polygon":
        rectangle = shape.envelope.buffer(0.05)
    box = geometry.from_corners(np.asarray(rectangle.exterior.coords)[None, :4].astype(np.float32))[0].astype(float)
    hull = shape.convex_hull.area
    if box[3] > 0 and box[2] / box[3] < 1.12 and abs(hull / (math.pi / 4 * box[2] * box[3]) - 1) < 0.06:
        side = (box[2] + box[3]) / 2
        return np.array([box[0], box[1], side, side, 0.0])
    return box
