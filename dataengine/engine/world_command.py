"""`dataengine world`: one large labelled image."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from dataengine.data.commands import FormatName, WrittenName


def world_command(
    size: Annotated[int, typer.Option(min=256, max=131_072, help="Side of the world in pixels.")] = 2048,
    out: Annotated[Path | None, typer.Option(help="Folder. [default: runs/world-DATASET-SEED]")] = None,
    dataset: Annotated[
        str | None, typer.Option(help="Preset (hit-uav, hrplanes ...) or YAML file; not needed with --data.")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Folder of your labelled data set, in any format.")] = None,
    format: Annotated[
        FormatName | None, typer.Option(help="Format of --data. [default: recognised by content]")
    ] = None,
    map: Annotated[
        Path | None, typer.Option(help="Map under the world: OSM PBF, GeoJSON, GeoPackage or Overture GeoParquet.")
    ] = None,
    map_box: Annotated[
        tuple[float, float, float, float] | None,
        typer.Option(metavar="WEST SOUTH EAST NORTH", help="Part of --map in degrees, in whose middle the world lies."),
    ] = None,
    map_gsd: Annotated[
        float | None, typer.Option(min=0.001, help="Metres per pixel over --map. [default: that of the data set]")
    ] = None,
    control: Annotated[
        str | None, typer.Option(help="ControlNet that makes the ground follow --map, or off. [default: packaged]")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Random seed; another seed gives another world.")] = 0,
    model: Annotated[
        Path | None, typer.Option(help="In-scene renderer, which paints the objects. [default: the packaged one]")
    ] = None,
    ground: Annotated[
        Path | None, typer.Option(help="Whole-image renderer, which makes the ground. [default: the packaged one]")
    ] = None,
    filter: Annotated[
        Literal["erase", "difficult", "off"],
        typer.Option(help="What happens to objects that the detector does not find."),
    ] = "erase",
    crs: Annotated[
        str | None, typer.Option(help="Coordinate system in metres, such as EPSG:32633. [default: none on Earth]")
    ] = None,
    corner: Annotated[
        tuple[float, float], typer.Option(metavar="EAST NORTH", help="Top left corner in metres of --crs.")
    ] = (0.0, 0.0),
    gsd: Annotated[
        float | None, typer.Option(min=0.001, help="Metres per pixel, where the data set does not know its own.")
    ] = None,
    levels: Annotated[
        int, typer.Option(min=1, max=5, help="Number of scales; each further one has half the resolution.")
    ] = 1,
    like: Annotated[
        Path | None, typer.Option(help="Folder of images that the ground is to look like; they need no labels.")
    ] = None,
    style_px: Annotated[
        int, typer.Option(min=64, help="Pixels between places that each look like a part of one image of --like.")
    ] = 1024,
    tiles: Annotated[
        Path | None, typer.Option(help="Folder to also cut the finished world into tiles, as a data set.")
    ] = None,
    tile_size: Annotated[int, typer.Option(min=16, help="Side of a tile in pixels.")] = 1024,
    tile_overlap: Annotated[int, typer.Option(min=0, help="Overlap of neighbouring tiles in pixels.")] = 200,
    tile_format: Annotated[
        WrittenName, typer.Option(help="Format of the tiles; coco keeps all label fields.")
    ] = "coco",
    workers: Annotated[
        int | None, typer.Option(min=1, help="Number of processes; does not change the result. [default: one per core]")
    ] = None,
    executor: Annotated[
        Literal["local", "ray"], typer.Option(help="Run here, or on the machines of a Ray cluster (docs/scale.md).")
    ] = "local",
    address: Annotated[str | None, typer.Option(help="Ray cluster, HOST:PORT. [default: one on this machine]")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was made as JSON.")] = False,
) -> None:
    """Make one large labelled image: a GeoTIFF, with its labels as GeoJSON and DOTA text.

    It is made and stored in blocks. If it is stopped or killed, the same command continues it.

    Example: dataengine world --dataset hrplanes --size 2048 --out runs/world
    """
    from dataengine.engine.recipe import load_recipe
    from dataengine.engine.stand_in import check_data
    from dataengine.engine.world_tiles import check_tiles, write_tiles
    from dataengine.errors import UserError, counted

    fields = {
        "dataset": dataset,
        "data": data,
        "format": format,
        "seed": seed,
        "model": model,
        "filter": filter,
        "layouts": "prior" if map is None else "map",
        "map": map,
        "map_box": map_box,
        "map_gsd": map_gsd,
        "control": control,
    }
    if map is None and any(value is not None for value in (map_box, map_gsd, control)):
        raise UserError("--map-box, --map-gsd and --control are for a world over a map: give --map, or leave them out.")
    recipe = load_recipe(None, {name: value for name, value in fields.items() if value is not None})
    check_data(recipe)
    if tiles is not None:
        check_tiles(tiles, tile_size, tile_overlap)
    from dataengine.engine.show import world_with_progress  # takes seconds
    from dataengine.engine.world_worker import WorldSettings

    out = out or Path("runs") / f"world-{recipe.name}-{recipe.seed}"
    placement = None if crs is None else (crs, *corner)
    settings = WorldSettings(size, ground, levels, like, style_px)
    report = world_with_progress(
        recipe, out, settings, quiet=as_json, placement=placement, gsd_m=gsd, workers=workers, executor=executor,
        address=address,
    )  # fmt: skip
    if tiles is not None:
        report["tiles"] = cut = write_tiles(out, tiles, tile_size, tile_overlap, tile_format)
        if not as_json:
            print(f"{tiles}: {counted(cut['images'], 'tile')} with {counted(cut['objects'], 'object')}")
    if as_json:
        print(json.dumps(report, indent=2))
