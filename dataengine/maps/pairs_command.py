"""`dataengine data pairs`: images and their maps, to train a control on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def pairs_command(
    images: Annotated[Path, typer.Option(help="GeoTIFF, or folder of GeoTIFFs, of three bands of 8 bits.")],
    map_file: Annotated[Path, typer.Option("--map", help="OSM PBF, GeoJSON, GeoPackage, or GeoParquet.")],
    out: Annotated[Path, typer.Option(help="New folder for the pairs.")],
    size: Annotated[int, typer.Option(min=64, help="Side of the tiles in pixels, that of the model's images.")] = 256,
    gsd: Annotated[
        tuple[float, float] | None,
        typer.Option(
            metavar="LOW HIGH",
            help="Metres per pixel that the model was trained on; images that deviate by more than 25 % are refused. "
            "[default: any]",
        ),
    ] = None,
    box: Annotated[
        tuple[float, float, float, float] | None,
        typer.Option(metavar="WEST SOUTH EAST NORTH", help="Part of the map, in degrees. [default: all]"),
    ] = None,
    val_share: Annotated[float, typer.Option(min=0, max=0.9, help="Share of the areas for validation.")] = 0.15,
    seed: Annotated[int, typer.Option(min=0, help="Random seed of the split.")] = 0,
) -> None:
    """Cut georeferenced images into tiles with the raster of a map beside each, split by areas of 1 km.

    Example: dataengine data pairs --images geotiffs --map region.osm.pbf --size 256 --out work/pairs
    """
    from dataengine.errors import UserError
    from dataengine.maps.ground import load_ground
    from dataengine.maps.pairs import LEFT_OUT, PAIRS_FILE, make_pairs
    from dataengine.maps.read import read_map

    if out.exists() and any(out.iterdir()) and not (out / PAIRS_FILE).exists():
        raise UserError(f"{out}: holds other files; give another --out.")
    if not images.exists():
        raise UserError(f"--images {images}: does not exist; check the spelling.")
    found = make_pairs(images, read_map(map_file, box), load_ground(), out, size, gsd, val_share, seed)
    low, high = found.gsd_m
    typer.echo(
        f"{out}: {len(found.of('train'))} pairs to train on and {len(found.of('val'))} to validate, {low:.3f} to "
        f"{high:.3f} m per pixel; {found.repeated} of them show a place again"
    )
    for reason, n in found.left_out.items():
        typer.echo(f"left out: {n} tiles {LEFT_OUT[reason]}")
