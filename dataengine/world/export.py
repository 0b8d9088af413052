"""A finished world as its users expect it: a Cloud-Optimized GeoTIFF, and labels as GeoJSON and DOTA text."""

from __future__ import annotations

import io
import json
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np
import shapely

from dataengine import geometry
from dataengine.data.layout import Acquisition, Layout
from dataengine.data.tile import crop_layout
from dataengine.errors import UserError, install
from dataengine.files import write_whole
from dataengine.layouts.constraints import MIN_VISIBLE
from dataengine.world.blocks import BlockFolder
from dataengine.world.layouts import LEAST_VISIBLE, scaled_down

LOCAL_CRS = 'LOCAL_CS["dataengine world",UNIT["metre",1]]'
CACHE_MB = 64  # of GDAL
MAX_COORDINATE_M = 1e8  # more than twice round the Earth
NAME = "world"
SMALLEST_PX = 6.0  # long side of a box below which a coarser level shows an object too small to be recognised


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
    if not all(abs(value) <= MAX_COORDINATE_M for value in (placement.east, placement.north)):
        raise UserError(f"--corner {placement.east:g} {placement.north:g}: give two numbers of metres on the map.")
    if unit != 1:
        raise UserError(f"--crs {placement.crs}: not in metres; give a projected one such as EPSG:32633.")


def write_geotiff(blocks: BlockFolder, path: Path, placement: Placement, coarser: Sequence[Path] = ()) -> None:
    """The picture as a Cloud-Optimized GeoTIFF, block by block. Its overviews are the pictures `coarser`, each of half
    the resolution of the one before, and the overviews of the last; without, they are averages."""
    rasterio = load_rasterio()
    from rasterio.shutil import copy
    from rasterio.windows import Window

    plain, vrt, partial = (path.with_name(f".{path.name}.{part}.{os.getpid()}") for part in ("plain", "vrt", "cog"))
    p = placement
    profile = {
        "driver": "GTiff", "width": blocks.size, "height": blocks.size, "count": 3, "dtype": "uint8", "tiled": True,
        "blockxsize": blocks.side, "blockysize": blocks.side, "photometric": "RGB", "interleave": "pixel",
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
            overviews = [str(level.absolute()) for level in coarser]
            if coarser:  # the averaged ones of the coarsest level follow
                with rasterio.open(coarser[-1]) as file:
                    pages = range(2, 2 + len(file.overviews(1)))
                overviews += [f"GTIFF_DIR:{page}:{overviews[-1]}" for page in pages]
            write_whole(vrt, _vrt(plain, blocks.size, placement, overviews))
            copy(vrt, partial, driver="COG", COMPRESS="DEFLATE", PREDICTOR="YES", BLOCKSIZE=blocks.side,
                 OVERVIEW_RESAMPLING="AVERAGE", BIGTIFF="IF_SAFER", INTERLEAVE="PIXEL")  # fmt: skip
        os.replace(partial, path)
    except rasterio.errors.RasterioError as error:
        raise UserError(f"{path} could not be written ({error}); make room on the disk, and run it again.") from error
    finally:
        for file in (plain, vrt, partial):
            file.unlink(missing_ok=True)


def _vrt(plain: Path, size: int, placement: Placement, overviews: Sequence[str]) -> str:
    """A file of GDAL that gives a picture other pictures as its overviews."""
    p = placement
    bands = "".join(
        f'<VRTRasterBand dataType="Byte" band="{band}"><ColorInterp>{colour}</ColorInterp><SimpleSource>'
        f"<SourceFilename>{escape(str(plain.absolute()))}</SourceFilename><SourceBand>{band}</SourceBand></SimpleSource>"
        + "".join(
            f"<Overview><SourceFilename>{escape(name)}</SourceFilename><SourceBand>{band}</SourceBand></Overview>"
            for name in overviews
        )
        + "</VRTRasterBand>"
        for band, colour in enumerate(("Red", "Green", "Blue"), 1)
    )
    transform = f"{p.east!r}, {p.gsd_m!r}, 0, {p.north!r}, 0, {-p.gsd_m!r}"
    return (
        f'<VRTDataset rasterXSize="{size}" rasterYSize="{size}"><SRS>{escape(p.crs)}</SRS>'
        f"<GeoTransform>{transform}</GeoTransform>{bands}</VRTDataset>"
    )


def too_small(layout: Layout) -> np.ndarray:
    """Which objects are shown with a long side below SMALLEST_PX, bool (N,)."""
    return layout.boxes[:, 2] < SMALLEST_PX


def labels_of(
    objects: Sequence[dict], classes: tuple[str, ...], kind: str, acquisition: Acquisition, size: int, level: int = 0
) -> Layout:
    """All labels of a world of size x size pixels, at a level, clipped to it, with their visible shares.

    objects: of the finest level (`BlockFolder.objects`). acquisition: at this level. An object of which the border
    leaves less than MIN_VISIBLE is difficult, and one that a coarser level shows too small; none is left out.
    """
    boxes = np.array([entry["box"] for entry in objects]).reshape(-1, 5)
    labels = [classes.index(entry["class"]) for entry in objects]
    difficult = np.array([entry["difficult"] for entry in objects], bool)
    layout = Layout(boxes, labels, classes, (size, size), kind, difficult)
    layout = scaled_down(crop_layout(layout, (0, 0, size, size), LEAST_VISIBLE), level)
    assert len(layout) == len(objects), "every object of a block is visible in the world"
    layout.difficult[layout.visible < MIN_VISIBLE] = True
    if level:
        layout.difficult[too_small(layout)] = True
    return replace(layout, acquisition=acquisition)


def write_geojson(ids: Sequence[str], layout: Layout, placement: Placement) -> str:
    """The text of a GeoJSON file: a polygon for each object, in the coordinates of the map, clipped to the world."""
    rings, small = map_corners(layout, placement).round(4), too_small(layout)
    features = (
        {
            "type": "Feature",
            "id": ids[i],
            "properties": {
                "class": name, "difficult": bool(layout.difficult[i]), "too_small": bool(small[i]),
                "visible": round(float(layout.visible[i]), 4),
                "box_px": [round(float(value), 4) for value in layout.boxes[i]],
            },
            "geometry": {"type": "Polygon", "coordinates": [[*rings[i].tolist(), rings[i][0].tolist()]]},
        }
        for i, name in enumerate(layout.names())
    )  # fmt: skip
    crs = {"type": "name", "properties": {"name": placement.crs}}
    head = json.dumps({"type": "FeatureCollection", "name": NAME, "crs": crs})[:-1]
    return head + ', "features": [\n' + ",\n".join(map(json.dumps, features)) + "\n]}\n"


def map_corners(layout: Layout, placement: Placement) -> np.ndarray:
    """Corners of the boxes in the coordinates of the map, (N, 4, 2) float64."""
    p = placement
    return geometry.to_corners(layout.boxes).astype(np.float64) * (p.gsd_m, -p.gsd_m) + (p.east, p.north)


def write_parquet(path: Path, ids: Sequence[str], layout: Layout, placement: Placement) -> bool:
    """The same as GeoParquet 1.1, in columns; False where pyarrow is not installed."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        return False
    polygons = shapely.polygons(map_corners(layout, placement))
    table = pa.table({
        "id": pa.array(ids, pa.string()), "class": pa.array(layout.names(), pa.string()),
        "difficult": layout.difficult, "too_small": too_small(layout), "visible": layout.visible,
        **{name: layout.boxes[:, k] for k, name in enumerate(("cx_px", "cy_px", "w_px", "h_px", "angle_rad"))},
        "geometry": pa.array(list(shapely.to_wkb(polygons)), pa.binary()),
    })  # fmt: skip
    crs = None
    if placement.crs != LOCAL_CRS:
        crs = load_rasterio().crs.CRS.from_user_input(placement.crs).to_dict(projjson=True)
    column = {"encoding": "WKB", "geometry_types": ["Polygon"] if ids else [], "crs": crs}
    geo = {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": column}}
    buffer = io.BytesIO()
    pq.write_table(table.replace_schema_metadata({"geo": json.dumps(geo)}), buffer)
    write_whole(path, buffer.getvalue())
    return True
