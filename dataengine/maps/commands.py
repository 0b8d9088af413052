"""`dataengine map`: look at a map as a renderer is given it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    help="Look at maps (OpenStreetMap PBF, GeoJSON, GeoPackage, Overture GeoParquet) as rasters, and at layouts from "
    "them.",
    no_args_is_help=True,
)

MapFile = Annotated[Path, typer.Argument(help="OSM PBF, GeoJSON, GeoPackage, or GeoParquet file or folder.")]
BoxOption = Annotated[
    tuple[float, float, float, float] | None,
    typer.Option("--box", metavar="WEST SOUTH EAST NORTH", help="Part of the map, in degrees. [default: all]"),
]
Gsd = Annotated[float, typer.Option(min=0.01, max=100, help="Metres per pixel.")]
Side = Annotated[int, typer.Option(min=16, max=8192, help="Side of the image in pixels.")]
Classes = Annotated[str, typer.Option(help="Table of tags and classes: osm, or a YAML file.")]
Out = Annotated[Path, typer.Option(help="Picture to write (.png).")]


@app.command("show")
def show_command(
    map_file: MapFile,
    out: Out,
    at: Annotated[
        tuple[float, float] | None,
        typer.Option(metavar="LON LAT", help="Middle of the image in degrees. [default: middle of the map]"),
    ] = None,
    gsd: Gsd = 0.5,
    size: Side = 512,
    tile: Annotated[
        str | None, typer.Option(metavar="ZOOM/COLUMN/ROW", help="A tile of web maps instead of --at and --gsd.")
    ] = None,
    box: BoxOption = None,
    ground_classes: Classes = "osm",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for a script instead of text.")] = False,
) -> None:
    """Draw a part of a map as classes of the ground, and print what it shows.

    Example: dataengine map show helsinki.osm.pbf --at 24.9443 60.1716 --gsd 0.5 --out map.png
    """
    import json

    from PIL import Image

    from dataengine.data.draw import save_sheet
    from dataengine.errors import UserError
    from dataengine.maps.grid import web_tile
    from dataengine.maps.ground import load_ground
    from dataengine.maps.raster import map_raster, picture
    from dataengine.maps.read import read_map

    ground, the_map = load_ground(ground_classes), read_map(map_file, box)
    if tile is not None:
        try:
            zoom, column, row = map(int, tile.split("/"))
        except ValueError:
            raise UserError(f"--tile {tile}: give zoom, column and row, such as 17/74638/38006.") from None
        grid = web_tile(zoom, column, row, size)
    elif at is not None:
        grid = the_map.grid_at(*at, gsd, (size, size))
    else:
        west, south, east, north = the_map.extent
        grid = the_map.grid((west + east) / 2, (south + north) / 2, gsd, (size, size))
    raster = map_raster(the_map, grid, ground)
    if (raster.classes == 255).all():
        raise UserError(f"{map_file}: the image lies beside the map; give another --at or --tile.")
    save_sheet(Image.fromarray(picture(raster, ground)), out)
    shares = {name: share for name in raster.names if (share := raster.share(name)) > 0}
    lon, lat = grid.centre
    if as_json:
        figures = {"lon": lon, "lat": lat, "gsd_m": grid.gsd_m, "size": size, "shares": shares}
        typer.echo(json.dumps(figures, indent=2))
        return
    shown = ", ".join(f"{name} {share:.1%}" for name, share in sorted(shares.items(), key=lambda pair: -pair[1]))
    typer.echo(f"{out}: {size} x {size} px around {lon:.5f} {lat:.5f}, {grid.gsd_m:.3f} m per pixel: {shown}")
