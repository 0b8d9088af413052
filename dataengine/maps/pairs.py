"""Images with the raster of their map beside them, to train a control on: `dataengine data pairs`."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from dataengine.errors import UserError, one_line
from dataengine.files import create_folder, parse_json, read_text, write_whole
from dataengine.maps.features import Map
from dataengine.maps.grid import MAX_GSD_DEVIATION, Grid, check_gsd, grid_of_geotiff
from dataengine.maps.ground import Ground
from dataengine.maps.raster import MapRaster, map_raster

PAIRS_FILE = "pairs.json"
SUFFIXES = (".tif", ".tiff", ".jp2", ".vrt")
CELL_M = 1000.0  # side of the areas of which each belongs to one split
MAX_EMPTY = 0.01  # share of a tile's pixels without data
LEVELS = 127  # of a direction's sine and cosine in 8 bits
LEFT_OUT = {
    "duplicate": "with the same pixels as another",
    "beside": "not covered by the map",
    "empty": "with pixels without data",
    "between": "across the border of training and validation areas",
}


@dataclass(frozen=True)
class Pair:
    """name: of the files `SPLIT/images/NAME.png` and `SPLIT/maps/NAME.png`. lon, lat: of the middle, in degrees.
    source: the image that it was cut from."""

    name: str
    split: str
    lon: float
    lat: float
    gsd_m: float
    source: str


@dataclass(frozen=True)
class Pairs:
    """The content of a folder of pairs. classes: of the rasters, by number. repeated: tiles of a place that is in an
    earlier tile, too, such as of another year; they are in the same split. left_out: tiles by reason (`LEFT_OUT`)."""

    folder: Path
    classes: tuple[str, ...]
    size: int
    pairs: tuple[Pair, ...]
    repeated: int
    left_out: dict[str, int]

    def of(self, split: str) -> list[Pair]:
        """Those of "train" or "val"."""
        return [pair for pair in self.pairs if pair.split == split]

    @property
    def gsd_m(self) -> tuple[float, float]:
        """Smallest and largest metres per pixel."""
        values = [pair.gsd_m for pair in self.pairs]
        return min(values), max(values)

    def image(self, pair: Pair) -> np.ndarray:
        """uint8 (S, S, 3)."""
        return np.asarray(Image.open(self.folder / pair.split / "images" / f"{pair.name}.png").convert("RGB"))

    def raster(self, pair: Pair) -> MapRaster:
        """The map of a pair."""
        coded = np.asarray(Image.open(self.folder / pair.split / "maps" / f"{pair.name}.png"))
        return decoded(coded, self.classes)


def coded(raster: MapRaster) -> np.ndarray:
    """A raster as four channels of 8 bits (H, W, 4): class, edge, cos 2a and sin 2a."""
    lines = np.rint(raster.direction.transpose(1, 2, 0) * LEVELS + LEVELS + 1).astype(np.uint8)
    return np.dstack([raster.classes, raster.edges.astype(np.uint8) * 255, lines])


def decoded(values: np.ndarray, names: tuple[str, ...]) -> MapRaster:
    """The inverse of `coded`; directions to 1/254."""
    direction = ((values[..., 2:].astype(np.float32) - LEVELS - 1) / LEVELS).transpose(2, 0, 1)
    return MapRaster(values[..., 0], values[..., 1] > 0, direction, names)


def make_pairs(
    images: Path,
    the_map: Map,
    ground: Ground,
    out: Path,
    size: int = 256,
    trained_gsd: tuple[float, float] | None = None,
    val_share: float = 0.15,
    seed: int = 0,
) -> Pairs:
    """Cut GeoTIFFs into tiles of size x size pixels at their own scale, and write each with the raster of its map.

    Every tile lies in areas of one split. trained_gsd: metres per pixel of the model to be controlled. Raises UserError
    for a folder without GeoTIFFs, an image whose metres per pixel deviate by more than 25 %, and for no tile at all.
    """  # fmt: skip
    files = [images] if images.is_file() else sorted(f for f in images.rglob("*") if f.suffix.lower() in SUFFIXES)
    if not files:
        raise UserError(f"--images {images}: has no GeoTIFF ({', '.join(SUFFIXES)}).")
    grids = {file: grid_of_geotiff(file) for file in files}
    gsds = {file: grid.gsd_m for file, grid in grids.items()}
    for file, gsd_m in gsds.items():
        check_gsd(gsd_m, trained_gsd, str(file))
    low, high = min(gsds, key=gsds.get), max(gsds, key=gsds.get)
    if gsds[high] > gsds[low] * MAX_GSD_DEVIATION**2:
        raise UserError(
            f"{high}: {gsds[high]:.3g} m per pixel, and {low} {gsds[low]:.3g} m; bring them to one scale first."
        )
    create_folder(out)
    pairs, left_out, seen, places = [], Counter(), set(), set()
    for file in files:
        for pixels, grid, empty in _tiles(file, grids[file], size):
            lon, lat = grid.centre
            split = _split(the_map, grid, val_share, seed)
            digest = hashlib.sha256(pixels.tobytes()).hexdigest()
            reason = (
                "empty" if empty > MAX_EMPTY else "duplicate" if digest in seen
                else "beside" if not the_map.covers(grid) else "between" if split is None else ""
            )  # fmt: skip
            if reason:
                left_out[reason] += 1
                continue
            seen.add(digest)
            pair = Pair(f"{len(pairs):06d}", split, round(lon, 7), round(lat, 7), grid.gsd_m, file.name)
            for part, values in (("images", pixels), ("maps", coded(map_raster(the_map, grid, ground)))):
                folder = out / split / part
                folder.mkdir(parents=True, exist_ok=True)
                Image.fromarray(values).save(folder / f"{pair.name}.png")
            pairs.append(pair)
            places.add(tuple(np.floor(grid.positions([[size / 2, size / 2]])[0] / (grid.transform[0] * size)).tolist()))
    if not pairs:
        why = ", ".join(f"{n} {LEFT_OUT[reason]}" for reason, n in left_out.items())
        raise UserError(f"--images {images}: gives no tile of {size} px; left out: {why or 'all are smaller'}.")
    found = Pairs(out, ground.names, size, tuple(pairs), len(pairs) - len(places), dict(left_out))
    values = {"classes": list(found.classes), "size": size, "repeated": found.repeated, "left_out": found.left_out}
    lines = ",\n".join(json.dumps(asdict(pair)) for pair in pairs)
    write_whole(out / PAIRS_FILE, json.dumps(values)[:-1] + f', "pairs": [\n{lines}\n]}}\n')
    return found


def _tiles(file: Path, grid: Grid, size: int) -> Iterator[tuple[np.ndarray, Grid, float]]:
    """Pixels uint8 (S, S, 3) of each tile, its grid, and its share without data."""
    import rasterio
    from rasterio.windows import Window

    a, b, c, d, e, f = grid.transform
    try:
        with rasterio.open(file) as image:
            if image.count < 3 or image.dtypes[0] != "uint8":
                raise UserError(f"{file}: has {image.count} bands of {image.dtypes[0]}; give images of three of uint8.")
            for top in range(0, image.height - size + 1, size):
                for left in range(0, image.width - size + 1, size):
                    window = Window(left, top, size, size)
                    pixels = np.ascontiguousarray(image.read((1, 2, 3), window=window).transpose(1, 2, 0))
                    empty = float((image.dataset_mask(window=window) == 0).mean())
                    moved = (a, b, c + a * left + b * top, d, e, f + d * left + e * top)
                    yield pixels, Grid(grid.crs, moved, (size, size)), empty
    except rasterio.errors.RasterioError as error:
        raise UserError(f"{file}: cannot be read ({one_line(error)}); copy it again.") from None


def _split(the_map: Map, grid: Grid, val_share: float, seed: int) -> str | None:
    """The split of the areas that a tile lies in, None where they differ."""
    width, height = grid.size
    corners = the_map.metres(grid, np.array([(0, 0), (width, 0), (width, height), (0, height)], float))
    (x0, y0), (x1, y1) = np.floor(corners.min(0) / CELL_M).astype(int), np.floor(corners.max(0) / CELL_M).astype(int)
    found = {_cell_split(x, y, val_share, seed) for x in range(x0, x1 + 1) for y in range(y0, y1 + 1)}
    return found.pop() if len(found) == 1 else None


def _cell_split(column: int, row: int, val_share: float, seed: int) -> str:
    digest = hashlib.sha256(f"dataengine area {seed} {column} {row}".encode()).digest()
    return "val" if int.from_bytes(digest[:8], "big") / 2**64 < val_share else "train"


def read_pairs(folder: Path) -> Pairs:
    """The pairs that `make_pairs` wrote. Raises UserError for another folder."""
    file = folder / PAIRS_FILE
    if not file.is_file():
        raise UserError(f"{folder}: has no {PAIRS_FILE}; make pairs with: dataengine data pairs.")
    try:
        values = parse_json(read_text(file))
        pairs = tuple(Pair(**pair) for pair in values["pairs"])
        return Pairs(
            folder, tuple(values["classes"]), values["size"], pairs, values["repeated"], dict(values["left_out"])
        )
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"{file}: damaged ({one_line(error)}); make the pairs again.") from None
