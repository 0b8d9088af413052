"""Grids of pixels on the Earth: pixels <-> longitude and latitude, and metres per pixel."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from dataengine.errors import UserError

MAX_GSD_DEVIATION = 1.25  # of metres per pixel, beyond the range that a model was trained on
WEB_MERCATOR = "EPSG:3857"
EARTH_CIRCUMFERENCE_M = 2 * math.pi * 6378137.0
TILE_PX = 256


@dataclass(frozen=True)
class Grid:
    """Pixels of an image on the Earth. crs: a coordinate reference system as pyproj reads it. transform: (a, b, c, d,
    e, f) of x = a column + b row + c, y = d column + e row + f, in its units; whole numbers are corners of pixels.
    size: (width, height) in pixels."""

    crs: str
    transform: tuple[float, float, float, float, float, float]
    size: tuple[int, int]

    def positions(self, pixels: np.ndarray) -> np.ndarray:
        """Pixels (N, 2) -> coordinates of the system (N, 2), float64."""
        a, b, c, d, e, f = self.transform
        pixels = np.asarray(pixels, np.float64).reshape(-1, 2)
        return pixels @ np.array([[a, d], [b, e]]) + (c, f)

    def pixels_at(self, positions: np.ndarray) -> np.ndarray:
        """The inverse of `positions`."""
        a, b, c, d, e, f = self.transform
        positions = np.asarray(positions, np.float64).reshape(-1, 2)
        return (positions - (c, f)) @ np.linalg.inv(np.array([[a, d], [b, e]]))

    def lonlat(self, pixels: np.ndarray) -> np.ndarray:
        """Pixels (N, 2) -> longitude and latitude in degrees (N, 2).

        >>> grid = web_tile(18, 42048, 101323)
        >>> [round(value, 1) for value in grid.lonlat([[128, 128]])[0].tolist()]
        [-122.3, 37.8]
        """
        positions = self.positions(pixels)
        return np.column_stack(_to_lonlat(self.crs).transform(positions[:, 0], positions[:, 1]))

    def pixels(self, lonlat: np.ndarray) -> np.ndarray:
        """Longitude and latitude in degrees (N, 2) -> pixels (N, 2)."""
        lonlat = np.asarray(lonlat, np.float64).reshape(-1, 2)
        to_system = _to_lonlat(self.crs).transform(lonlat[:, 0], lonlat[:, 1], direction="INVERSE")
        return self.pixels_at(np.column_stack(to_system))

    @property
    def centre(self) -> tuple[float, float]:
        """Longitude and latitude of the middle."""
        lon, lat = self.lonlat([[self.size[0] / 2, self.size[1] / 2]])[0]
        return float(lon), float(lat)

    @property
    def gsd_m(self) -> float:
        """Metres per pixel in the middle, on the ellipsoid: mean of columns and rows.

        >>> round(grid_around(0, 0, 0.5, (512, 512), local_crs(25.0, 60.0)).gsd_m, 6)
        0.5
        """
        import pyproj

        x, y = self.size[0] / 2, self.size[1] / 2
        west, east, north, south = self.lonlat([[x - 8, y], [x + 8, y], [x, y - 8], [x, y + 8]])
        measure = pyproj.Geod(ellps="WGS84").inv
        return (measure(*west, *east)[2] + measure(*north, *south)[2]) / 32


@lru_cache(maxsize=64)
def _to_lonlat(crs: str):
    import pyproj

    return pyproj.Transformer.from_crs(crs, "EPSG:4326", always_xy=True)


def local_crs(lon: float, lat: float) -> str:
    """A coordinate system in metres, true to scale and angle around a place.

    >>> local_crs(24.94, 60.17)[:32]
    '+proj=tmerc +lat_0=60.17 +lon_0='
    """
    return f"+proj=tmerc +lat_0={lat!r} +lon_0={lon!r} +k=1 +x_0=0 +y_0=0 +datum=WGS84 +units=m +no_defs"


def grid_around(x: float, y: float, gsd_m: float, size: tuple[int, int], crs: str) -> Grid:
    """A grid with its middle at (x, y) metres of a system, north up.

    >>> [round(value, 6) for value in grid_around(0, 0, 0.5, (512, 512), local_crs(25.0, 60.0)).centre]
    [25.0, 60.0]
    """
    width, height = size
    return Grid(crs, (gsd_m, 0.0, x - gsd_m * width / 2, 0.0, -gsd_m, y + gsd_m * height / 2), size)


def web_tile(zoom: int, column: int, row: int, size: int = TILE_PX) -> Grid:
    """The grid of a tile of web maps (slippy map, XYZ) in `size` pixels. Raises UserError for a tile that is not there.

    >>> web_tile(0, 0, 0).size
    (256, 256)
    """
    n = 2**zoom
    if not (0 <= zoom <= 30 and 0 <= column < n and 0 <= row < n):
        raise UserError(f"tile {zoom}/{column}/{row}: no such tile; at zoom {zoom} columns and rows are 0 to {n - 1}.")
    side = EARTH_CIRCUMFERENCE_M / n
    half = EARTH_CIRCUMFERENCE_M / 2
    step = side / size
    return Grid(WEB_MERCATOR, (step, 0.0, column * side - half, 0.0, -step, half - row * side), (size, size))


def web_tile_gsd(zoom: int, latitude_deg: float, size: int = TILE_PX) -> float:
    """Metres per pixel of a tile of web maps at a latitude, on the ellipsoid: mean of columns and rows.

    >>> round(web_tile_gsd(17, 0), 3), round(web_tile_gsd(17, 56), 3)
    (1.19, 0.669)
    """
    phi, e2 = math.radians(latitude_deg), 0.00669437999014
    per_radian = EARTH_CIRCUMFERENCE_M / 2**zoom / size
    root = math.sqrt(1 - e2 * math.sin(phi) ** 2)
    # radii of curvature along the parallel and the meridian, in equatorial radii
    return per_radian * math.cos(phi) * (1 / root + (1 - e2) / root**3) / 2


def grid_of_geotiff(path: Path) -> Grid:
    """The grid of a georeferenced image. Raises UserError for a file without a place on Earth."""
    import rasterio

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)  # reported below
            with rasterio.open(path) as file:
                crs, transform, size = file.crs, file.transform, (file.width, file.height)
    except rasterio.errors.RasterioError as error:
        raise UserError(f"{path}: cannot be read as an image ({error}); give a GeoTIFF.") from None
    if crs is None or transform.is_identity:
        raise UserError(f"{path}: has no place on Earth (no coordinate system or no transform); give a GeoTIFF.")
    return Grid(crs.to_wkt(), tuple(float(value) for value in transform[:6]), size)


def check_gsd(gsd_m: float, trained: tuple[float, float] | None, what: str) -> None:
    """Raises UserError where metres per pixel lie by more than 25 % outside of the range that a model was trained on;
    None is an unknown range, which allows any.

    >>> check_gsd(0.6, (0.5, 0.5), "map")
    >>> check_gsd(0.7, (0.5, 0.5), "map")
    Traceback (most recent call last):
    dataengine.errors.UserError: map: 0.7 m per pixel; the model was trained on 0.5 to 0.5 m, so give 0.4 to 0.625 m.
    """
    if trained is None:
        return
    low, high = trained[0] / MAX_GSD_DEVIATION, trained[1] * MAX_GSD_DEVIATION
    if not low * (1 - 1e-9) <= gsd_m <= high * (1 + 1e-9):
        raise UserError(
            f"{what}: {gsd_m:.3g} m per pixel; the model was trained on {trained[0]:.3g} to {trained[1]:.3g} m, so "
            f"give {low:.3g} to {high:.3g} m."
        )
