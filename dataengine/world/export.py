"""A finished world as its users expect it: a Cloud-Optimized GeoTIFF, and labels as GeoJSON and DOTA text."""

from __future__ import annotations

import json
import os
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dataengine import geometry
from dataengine.data.layout import Acquisition, Layout
from dataengine.data.tile import crop_layout
from dataengine.errors import UserError, install
from dataengine.files import write_whole
from dataengine.layouts.constraints import MIN_VISIBLE
from dataengine.world.blocks import BLOCK_PX, BlockFolder
from dataengine.world.world import LEAST_VISIBLE

LOCAL_CRS = 'LOCAL_CS["dataengine world",UNIT["metre",1]]'
CACHE_MB = 64  # of GDAL
NAME = "world"


@dataclass(frozen=True)
class Placement:
    """Where a world lies on a map. crs: as rasterio reads it ("EPSG:32633"), in metres; LOCAL_CRS for nowhere on Earth.
    east, north: of its top left corner, in metres. gsd_m: metres per pixel."""

    crs: str = LOCAL_CRS
    east: float = 0.0
    north: float = 0.0
    gsd_m: float = 1.0


def load_rasterio():
    """The module. Raises UserError, which says how to install it, where it is missing."""
    try:
        import rasterio
    except ImportError:
        raise UserError(f"a world is written as a GeoTIFF by rasterio: {install('world')}.") from None
    return rasterio


def check_placement(placement: Placement) -> None:
    """Raises UserError for a coordinate reference system that rasterio does not know, or one that is not in metres."""
    rasterio = load_rasterio()
    try:
        crs = rasterio.crs.CRS.from_user_input(placement.crs)
        unit = crs.linear_units_factor[1] if not crs.is_geographic else None
    except rasterio.errors.CRSError:
        raise UserError(f"--crs {placement.crs}: unknown; give one such as EPSG:32633 (UTM zone 33 north).") from None
    if unit != 1:
        raise UserError(f"--crs {placement.crs}: not in metres; give a projected one such as EPSG:32633.")


def write_geotiff(blocks: BlockFolder, path: Path, placement: Placement) -> None:
    """The picture as a Cloud-Optimized GeoTIFF with overviews, block by block."""
    rasterio = load_rasterio()
    from rasterio.shutil import copy
    from rasterio.windows import Window

    plain, partial = (path.with_name(f".{path.name}.{part}.{os.getpid()}") for part in ("plain", "cog"))
    p = placement
    profile = {
        "driver": "GTiff", "width": blocks.size, "height": blocks.size, "count": 3, "dtype": "uint8", "tiled": True,
        "blockxsize": BLOCK_PX, "blockysize": BLOCK_PX, "photometric": "RGB", "interleave": "pixel",
        "crs": p.crs, "transform": rasterio.transform.from_origin(p.east, p.north, p.gsd_m, p.gsd_m),
        "BIGTIFF": "IF_SAFER",
    }  # fmt: skip
    try:
        with rasterio.Env(GDAL_CACHEMAX=CACHE_MB), warnings.catch_warnings():
            # a world of a metre a pixel that begins at 0, 0 has its place
            warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
            with rasterio.open(plain, "w", **profile) as file:
                for row in blocks.rows():
                    for block in row:
                        window = Window(block.left, block.top, block.width, block.height)
                        file.write(blocks.picture(block).transpose(2, 0, 1), window=window)
            copy(plain, partial, driver="COG", COMPRESS="DEFLATE", PREDICTOR="YES", BLOCKSIZE=BLOCK_PX,
                 OVERVIEW_RESAMPLING="AVERAGE", BIGTIFF="IF_SAFER")  # fmt: skip
        os.replace(partial, path)
    except rasterio.errors.RasterioError as error:
        raise UserError(f"{path} could not be written ({error}); make room on the disk, and run it again.") from error
    finally:
        plain.unlink(missing_ok=True)
        partial.unlink(missing_ok=True)


def labels_of(blocks: BlockFolder, classes: tuple[str, ...], kind: str, acquisition: Acquisition) -> Layout:
    """All labels of the world, clipped to it, with their visible shares. An object of which the border leaves less than
    MIN_VISIBLE is difficult."""
    objects = list(blocks.objects())
    boxes = np.array([entry["box"] for entry in objects]).reshape(-1, 5)
    labels = [classes.index(entry["class"]) for entry in objects]
    difficult = np.array([entry["difficult"] for entry in objects], bool)
    size = (blocks.size, blocks.size)
    layout = Layout(boxes, labels, classes, size, kind, difficult, acquisition=acquisition)
    layout = crop_layout(layout, (0, 0, *size), LEAST_VISIBLE)
    assert len(layout) == len(objects), "every object of a block is visible in the world"
    layout.difficult[layout.visible < MIN_VISIBLE] = True
    return layout


def write_geojson(path: Path, blocks: BlockFolder, layout: Layout, placement: Placement) -> None:
    """One polygon for each object, in the coordinates of the map, clipped to the world."""
    p = placement
    corners = geometry.to_corners(layout.boxes).astype(np.float64) * (p.gsd_m, -p.gsd_m) + (p.east, p.north)
    ids = ["_".join(map(str, entry["id"])) for entry in blocks.objects()]
    features = (
        {
            "type": "Feature",
            "id": ids[i],
            "properties": {
                "class": name, "difficult": bool(layout.difficult[i]), "visible": round(float(layout.visible[i]), 4),
                "box_px": [round(float(value), 4) for value in layout.boxes[i]],
            },
            "geometry": {"type": "Polygon", "coordinates": [[*ring.round(4).tolist(), ring[0].round(4).tolist()]]},
        }
        for i, (name, ring) in enumerate(zip(layout.names(), corners, strict=True))
    )  # fmt: skip
    crs = {"type": "name", "properties": {"name": p.crs}}
    head = json.dumps({"type": "FeatureCollection", "name": NAME, "crs": crs})[:-1]
    write_whole(path, head + ', "features": [\n' + ",\n".join(map(json.dumps, features)) + "\n]}\n")
