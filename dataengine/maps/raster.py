"""A map as pixels: class of the ground, edges, and the direction of roads, rails and runways."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import shapely

from dataengine.maps.features import Map
from dataengine.maps.grid import Grid
from dataengine.maps.ground import Ground, Surface, surfaces

UNMAPPED_COLOUR = (242, 239, 233)
OUTSIDE = 255  # class number of pixels beyond the extent of the map
OUTSIDE_COLOUR = (255, 255, 255)
N_LINE_CHANNELS = 3  # edges, cos 2a, sin 2a


@dataclass(frozen=True)
class MapRaster:
    """classes: uint8 (H, W), numbers in `names`, OUTSIDE beyond the map. edges: bool (H, W), pixels at the border
    between two features. direction: float32 (2, H, W), cos 2a and sin 2a of lines, with a clockwise from the right as
    of boxes; both 0 without a line. names: of the classes."""

    classes: np.ndarray
    edges: np.ndarray
    direction: np.ndarray
    names: tuple[str, ...]

    def channels(self) -> np.ndarray:
        """float32 (C, H, W): one channel for each class, 0 or 1, then edges, cos 2a and sin 2a. All classes are 0
        beyond the map: what is unknown is no class."""
        numbers = np.arange(len(self.names), dtype=np.uint8)[:, None, None]
        lines = [self.edges[None].astype(np.float32), self.direction]
        return np.concatenate([(self.classes[None] == numbers).astype(np.float32), *lines])

    def share(self, name: str) -> float:
        """Share of all pixels of a class."""
        return float((self.classes == self.names.index(name)).mean())


def n_channels(names: tuple[str, ...]) -> int:
    """Channels of a raster of these classes."""
    return len(names) + N_LINE_CHANNELS


def map_raster(the_map: Map, grid: Grid, ground: Ground) -> MapRaster:
    """The raster of a grid. A pixel has the class of the topmost feature over its centre."""
    gsd_m = grid.gsd_m
    margin = 60 / gsd_m  # of the widest line
    return raster_of(surfaces(the_map.on(grid, margin), ground, gsd_m), ground, grid, _inside(the_map, grid))


def _inside(the_map: Map, grid: Grid) -> np.ndarray | None:
    """Pixels within the extent, bool (H, W); None where all are."""
    if the_map.covers(grid):
        return None
    width, height = grid.size
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    points = the_map.metres(grid, np.column_stack([x.ravel(), y.ravel()]))
    west, south, east, north = the_map.extent
    return ((points >= (west, south)) & (points <= (east, north))).all(1).reshape(height, width)


def raster_of(painted: dict[str, Surface], ground: Ground, grid: Grid, inside: np.ndarray | None = None) -> MapRaster:
    """The raster of surfaces in the pixels of a grid. inside: pixels that the map covers; all if None."""
    from rasterio.features import rasterize

    width, height = grid.size
    names = ground.names
    pairs = [
        (shape, number, feature)
        for number, name in enumerate(names[1:], 1)
        for shape, feature in zip(painted[name].shapes, painted[name].features, strict=True)
        if not shape.is_empty
    ]
    pairs.sort(key=lambda pair: pair[2].level)  # bridges lie on top; sorting keeps the order of classes
    classes = np.zeros((height, width), np.uint8)
    tops = np.zeros((height, width), np.int32)  # number of the topmost feature
    if pairs:
        classes = rasterize([(shape, number) for shape, number, _ in pairs], (height, width), dtype="uint8")
        tops = rasterize([(shape, i) for i, (shape, _, _) in enumerate(pairs, 1)], (height, width), dtype="int32")
    edges = np.zeros((height, width), bool)
    edges[:, 1:] |= tops[:, 1:] != tops[:, :-1]
    edges[1:] |= tops[1:] != tops[:-1]
    direction = np.zeros((2, height, width), np.float32)
    for number, name in enumerate(names[1:], 1):
        if ground.classes[name].direction:
            on_class = classes == number
            if on_class.any():
                direction[:, on_class] = _directions(painted[name], (height, width))[:, on_class]
    if inside is not None:
        classes[~inside], edges[~inside], direction[:, ~inside] = OUTSIDE, False, 0
    return MapRaster(classes, edges, direction, names)


def _directions(surface: Surface, shape: tuple[int, int]) -> np.ndarray:
    """cos 2a and sin 2a (2, H, W) of the nearest segment of a class's lines; 0 where it has none near."""
    lines = [part for f in surface.features if f.is_line for part in shapely.get_parts(f.geometry)]
    ends = [np.asarray(line.coords) for line in lines]
    segments = (
        np.concatenate([np.stack([points[:-1], points[1:]], 1) for points in ends]) if ends else np.zeros((0, 2, 2))
    )
    numbers = np.zeros(shape, np.int32)
    for i, segment in enumerate(np.rint(segments * 16).astype(np.int64), 1):
        if np.abs(segment).max() < 2**30:
            cv2.line(numbers, *(tuple(map(int, point)) for point in segment - 8), i, 1, shift=4)
    if not numbers.any():
        return np.zeros((2, *shape), np.float32)
    # label of the nearest pixel with a segment, which `labels` numbers in its own way
    _, labels = cv2.distanceTransformWithLabels(
        (numbers == 0).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    of_label = np.zeros(labels.max() + 1, np.int32)
    of_label[labels[numbers > 0]] = numbers[numbers > 0]
    along = segments[:, 1] - segments[:, 0]
    twice = 2 * np.arctan2(along[:, 1], along[:, 0])
    nearest = of_label[labels] - 1
    return np.stack([np.cos(twice), np.sin(twice)]).astype(np.float32)[:, nearest]


def picture(raster: MapRaster, ground: Ground, edges: bool = True) -> np.ndarray:
    """The raster in the colours of its classes, uint8 (H, W, 3), with darker edges."""
    palette = np.zeros((256, 3), np.uint8)
    palette[0], palette[OUTSIDE] = UNMAPPED_COLOUR, OUTSIDE_COLOUR
    palette[1 : len(raster.names)] = [ground.classes[name].colour for name in raster.names[1:]]
    image = palette[raster.classes]
    if edges:
        image[raster.edges] = (image[raster.edges] * 0.75).astype(np.uint8)
    return image
