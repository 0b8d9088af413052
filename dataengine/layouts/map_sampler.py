"""Layouts from a map: tiles with the objects that the map has, and those that would stand there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import shapely

from dataengine import geometry
from dataengine.data.layout import Layout, model_key
from dataengine.errors import UserError
from dataengine.layouts.constraints import apart, cut_by_border
from dataengine.layouts.map_berths import airplanes, helicopters, ships
from dataengine.layouts.map_ground import MAX_MAPPED_HIDDEN, Candidate, TileGround, tile_ground
from dataengine.layouts.map_table import Standing, map_objects, on_maps
from dataengine.layouts.map_things import things
from dataengine.layouts.map_traffic import on_paths, trains, vehicles
from dataengine.layouts.prior_sampler import PriorSampler
from dataengine.maps.features import Map, MapFeature
from dataengine.maps.ground import RAIL, ROAD, Ground

MAX_OVERLAP = 0.03  # of objects that stand on the map, as a share of the smaller box
MIN_SIDE_PX = 2.0  # of the short side; smaller objects are left out
MAX_TRIALS = 100  # tiles drawn for one with an object
SPREAD = 0.35  # of the tile's side, how far its middle lies from the feature that it is drawn for
DRAWN_LIGHT = 0.45  # of the map's colours under boxes, which are bright
CELL_M = 500.0  # side of the parts of a map by which layouts are told apart as neighbours
STANDING: dict[str, Callable[[TileGround, Standing, np.random.Generator], list[Candidate]]] = {
    "road": vehicles, "parking": vehicles, "path": on_paths, "rail": trains, "pier": ships, "water": ships,
    "apron": airplanes, "helipad": helicopters,
}  # fmt: skip


class MapSampler:
    """Samples tiles of a map with their objects. How many objects of a class stand on a tile, and how the image is
    acquired, come from a prior of real layouts; which are on the map itself, and where all of them are, from the map.

    the_map: features in metres. gsd_m: metres per pixel; those of the prior's acquisitions if None.
    Raises UserError where the map has no room for any class of the prior, or is smaller than an image, and where metres
    per pixel are unknown.
    """

    def __init__(self, the_map: Map, ground: Ground, prior: PriorSampler, gsd_m: float | None = None):
        self.map, self.ground, self.prior, self.gsd_m = the_map, ground, prior, gsd_m
        self.classes, self.kind, self.size = prior.classes, prior.kind, prior.size
        if gsd_m is None and any(a.gsd_m is None for a in prior.prior.acquisitions):
            raise UserError("--layouts map needs metres per pixel, which this data set does not state: give --map-gsd.")
        if not any(a.looks_down for a in prior.prior.acquisitions):
            raise UserError("--layouts map is for images from straight above; all of this data set are oblique.")
        largest = gsd_m or max(a.gsd_m for a in prior.prior.acquisitions)
        west, south, east, north = the_map.extent
        need = largest * self.size[0], largest * self.size[1]
        if east - west < need[0] or north - south < need[1]:
            raise UserError(
                f"--map {the_map.name}: is {east - west:.0f} x {north - south:.0f} m, less than an image of "
                f"{need[0]:.0f} x {need[1]:.0f} m; give a larger map, or a smaller --size or --map-gsd."
            )
        self.anchors = anchors(the_map, ground, self.classes)
        if not self.anchors:
            known = ", ".join(on_maps(self.classes)) or "none of its classes"
            raise UserError(f"--map {the_map.name}: has no place for {known}; give a map that shows some.")

    def sample(self, rng: np.random.Generator) -> Layout:
        """One layout with at least one object. Raises UserError when none of `MAX_TRIALS` tiles has one."""
        for _ in range(MAX_TRIALS):
            scene = self.prior._scene(rng, None)
            layout = self.layout_at(*self._place(rng, scene), scene, rng)
            if len(layout):
                return layout
        raise UserError(f"--map {self.map.name}: none of {MAX_TRIALS} tiles has an object that fits.")

    def _place(self, rng: np.random.Generator, scene) -> tuple[float, float, float]:
        """Middle of a tile in metres, and its metres per pixel: near a feature for a class of the scene."""
        gsd_m = self.gsd_m or self._acquisition(rng, scene).gsd_m
        wanted = [name for name in scene.counts if name in self.anchors] or list(self.anchors)
        geometries, weights = self.anchors[wanted[rng.integers(len(wanted))]]
        point = _point_on(geometries[rng.choice(len(geometries), p=weights)], rng)
        half = np.array(self.size) * gsd_m / 2
        point = point + rng.uniform(-SPREAD, SPREAD, 2) * 2 * half
        low, high = np.array(self.map.extent[:2]) + half, np.array(self.map.extent[2:]) - half
        x, y = np.minimum(np.maximum(point, low), high)
        return float(x), float(y), float(gsd_m)

    def _acquisition(self, rng: np.random.Generator, scene):
        """An acquisition of the scene type that looks straight down, as a map does; of any type if it has none."""
        every = self.prior.prior.acquisitions
        weights = np.array([scene.taken.get(i, 0.0) * a.looks_down for i, a in enumerate(every)])
        if not weights.any():
            weights = np.array([float(a.looks_down) for a in every])
        return every[rng.choice(len(every), p=weights / weights.sum())]

    def layout_at(self, x: float, y: float, gsd_m: float, scene, rng: np.random.Generator) -> Layout:
        """The layout of the tile with its middle at (x, y) metres; it may be empty."""
        acquisition = self._acquisition(rng, scene)
        counts = self.prior._class_counts(rng, scene, None, 1.0).astype(float)
        if acquisition.gsd_m is not None:  # another ground sample distance shows another area
            counts = counts * (gsd_m / acquisition.gsd_m) ** 2
        size_m = self.size[0] * gsd_m, self.size[1] * gsd_m
        tile = tile_ground(self.map, x, y, size_m, self.ground)
        table = map_objects()
        boxes, labels, names = np.zeros((0, 5)), [], []
        standing = []
        for label, name in enumerate(self.classes):
            key = model_key(name)
            if (rule := table.mapped.get(key)) is not None:
                found = _seen(tile.seen(things(tile, rule), MAX_MAPPED_HIDDEN), size_m)
                boxes = np.concatenate([boxes, _boxes(found)])
                labels += [label] * len(found)
                names += [each.feature for each in found]
            elif key in table.standing:
                standing.append((int(counts[label] + rng.random()), label, table.standing[key]))
        placed, of_placed, features = self.stand(tile, standing, size_m, np.zeros((0, 5)), rng)
        labels += of_placed
        names += features
        boxes = np.concatenate([boxes, placed]) / np.array([gsd_m, gsd_m, gsd_m, gsd_m, 1.0])
        boxes = geometry.regularize(boxes.astype(np.float32))
        lon, lat = self.map.grid(x, y, gsd_m, self.size).centre
        place = {"gsd_m": gsd_m, "longitude_deg": round(lon, 7), "latitude_deg": round(lat, 7)}
        layout = Layout(
            boxes, labels, self.classes, self.size, "obb", acquisition=acquisition.model_copy(update=place),
            origins=(f"{self.map.name} {x // CELL_M * CELL_M:.0f},{y // CELL_M * CELL_M:.0f}",), features=tuple(names),
        )  # fmt: skip
        layout = layout.select(layout.boxes[:, 3] >= MIN_SIDE_PX).in_kind(self.kind)
        return cut_by_border(layout)

    def stand(
        self,
        tile: TileGround,
        wanted: Sequence[tuple[int, int, Standing]],
        size_m: tuple[float, float],
        placed: np.ndarray,
        rng: np.random.Generator,
        fits: Callable[[np.ndarray], np.ndarray] | None = None,
    ) -> tuple[np.ndarray, list[int], list[str]]:
        """Objects that stand on a tile, fewest first: boxes (K, 5) in metres, their labels, and the features they stand
        on. wanted: (number, label, rule) of classes. placed: boxes that are there. fits: which of boxes (N, 5) may be
        chosen; all if None."""
        boxes, labels, features = np.zeros((0, 5)), [], []
        for n, label, rule in sorted(wanted, key=lambda entry: entry[0]):
            found = _seen(_candidates(tile, rule, rng), size_m)
            if fits is not None and found:
                found = [each for each, fit in zip(found, fits(_boxes(found)), strict=True) if fit]
            found = chosen(found, n, np.concatenate([placed, boxes]), rng)
            boxes = np.concatenate([boxes, _boxes(found)])
            labels += [label] * len(found)
            features += [each.feature for each in found]
        return boxes, labels, features

    def picture(self, layout: Layout) -> np.ndarray:
        """The map under a layout of this sampler in the colours of its classes, darkened, uint8 (H, W, 3)."""
        from dataengine.maps.raster import map_raster, picture

        a = layout.acquisition
        grid = self.map.grid_at(a.longitude_deg, a.latitude_deg, a.gsd_m, layout.size)
        return (picture(map_raster(self.map, grid, self.ground), self.ground) * DRAWN_LIGHT).astype(np.uint8)


def _candidates(tile: TileGround, rule: Standing, rng: np.random.Generator) -> list[Candidate]:
    makers = dict.fromkeys(STANDING[place] for place in rule.places)
    return tile.seen([each for maker in makers for each in maker(tile, rule, rng)])


def _boxes(found: Sequence[Candidate]) -> np.ndarray:
    return np.array([each.box for each in found], float).reshape(-1, 5)


def _seen(found: list[Candidate], size_m: tuple[float, float]) -> list[Candidate]:
    """Candidates that reach into the tile."""
    if not found:
        return []
    boxes = _boxes(found)
    reach = np.hypot(boxes[:, 2], boxes[:, 3]) / 2
    near = (boxes[:, :2] + reach[:, None] > 0).all(1) & (boxes[:, :2] - reach[:, None] < size_m).all(1)
    return [each for each, keep in zip(found, near, strict=True) if keep]


def chosen(found: list[Candidate], n: int, placed: np.ndarray, rng: np.random.Generator) -> list[Candidate]:
    """At most n candidates, drawn by their weights, that overlap neither one another nor what is placed (N, 5)."""
    if n <= 0 or not found:
        return []
    # the Gumbel trick: an order in which each comes with a chance by its weight
    order = np.argsort(-np.log([each.weight for each in found]) - rng.gumbel(size=len(found)))
    found = [found[i] for i in order[: 4 * n + 20]]
    boxes = geometry.regularize(_boxes(found).astype(np.float32))
    keep = np.flatnonzero(apart(boxes, MAX_OVERLAP, geometry.regularize(placed.astype(np.float32))))[:n]
    return [found[i] for i in keep]


def anchors(the_map: Map, ground: Ground, classes: Sequence[str]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """{class: geometries in metres (K,) and their shares (K,)} of the features that a tile of the class lies around;
    without classes of which the map has none."""
    table, found = map_objects(), {}
    frame = shapely.box(*the_map.extent)
    for name in classes:
        key = model_key(name)
        if key in table.mapped:
            rule = table.mapped[key]
            tags = [rule.areas, rule.points, rule.lines, rule.closed, rule.rings]
            if rule.crossing:
                tags = [{"bridge": ("yes", "viaduct", "movable")}]
            own = [
                f for f in the_map.features if any(f.has(t) for t in tags) and (not rule.require or f.has(rule.require))
            ]
        elif key in table.standing:
            own = [
                f for f in the_map.features if any(_carries(f, place, ground) for place in table.standing[key].places)
            ]
        else:
            continue
        own = [g for f in own if not (g := shapely.intersection(f.geometry, frame)).is_empty]
        if own:
            weights = np.array([1.0 + np.sqrt(g.area) + (g.length if g.area == 0 else 0) for g in own])
            found[name] = np.array(own, object), weights / weights.sum()
    return found


def _carries(feature: MapFeature, place: str, ground: Ground) -> bool:
    """Whether objects stand on a feature, as a place of `Standing`."""
    if not ground.visible(feature):
        return False
    lines = {"road": ROAD, "rail": RAIL, "path": "path"}
    if place in lines:
        return feature.is_line and ground.width_m(feature, lines[place]) is not None
    if place == "apron":
        return feature.has({"aeroway": ("apron", "parking_position", "gate")})
    if place == "helipad":
        return feature.has({"aeroway": ("helipad",)})
    if place == "pier":
        return feature.has({"man_made": ("pier", "quay")})
    return feature.is_area and feature.has(ground.classes[place].areas)


def _point_on(shape: shapely.Geometry, rng: np.random.Generator) -> np.ndarray:
    """A random point on a shape."""
    if shape.area == 0 and shape.length > 0:
        point = shape.interpolate(rng.random(), normalized=True) if shape.geom_type == "LineString" else None
        point = point or shapely.get_parts(shape)[rng.integers(shapely.get_num_geometries(shape))].centroid
        return np.array([point.x, point.y])
    x0, y0, x1, y1 = shape.bounds
    for _ in range(20):
        x, y = rng.uniform(x0, x1), rng.uniform(y0, y1)
        if shapely.intersects_xy(shape, x, y):
            return np.array([x, y])
    point = shape.representative_point()
    return np.array([point.x, point.y])


def map_sampler(
    file: Path, layouts: Sequence[Layout], size: tuple[int, int], gsd_m: float | None = None, box=None
) -> MapSampler:
    """The sampler of a map file with the prior of real layouts."""
    from dataengine.layouts.prior_fit import fit
    from dataengine.maps.ground import load_ground
    from dataengine.maps.read import read_map

    the_map = read_map(file, box)
    known = on_maps(layouts[0].classes)
    missing = [name for name in layouts[0].classes if name not in known]
    if missing:
        raise UserError(f"--layouts map: maps have no {', '.join(missing)}; leave them out with --classes.")
    prior = fit([replace(layout, features=None) for layout in layouts], size)
    return MapSampler(the_map, load_ground(), PriorSampler(prior, size), gsd_m)
