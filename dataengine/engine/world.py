"""A world in a folder: parts as of any run, blocks in place of shards, then the files that its users open."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from dataengine import __version__, weights
from dataengine.data import dota
from dataengine.engine.parts import Parts, load_parts
from dataengine.engine.recipe import Recipe, folder_hash
from dataengine.errors import UserError
from dataengine.files import check_writable, lock, read_text, write_whole
from dataengine.judge.calibration import Calibration
from dataengine.layouts.prior_sampler import PriorSampler
from dataengine.render.renderer import best_device, load_renderer
from dataengine.world.blocks import BlockFolder
from dataengine.world.export import (
    LOCAL_CRS,
    NAME,
    Placement,
    check_placement,
    labels_of,
    load_rasterio,
    write_geojson,
    write_geotiff,
)
from dataengine.world.layouts import WorldLayouts
from dataengine.world.verdicts import JudgedWorld
from dataengine.world.world import World

MODES = ("erase", "difficult", "off")  # of the filter, that a world knows


def load_world(recipe: Recipe, ground: Path | None = None, calibration: Calibration | None = None):
    """The world of a recipe, with its filter, and its parts: (World or JudgedWorld, Parts).

    ground: folder of a whole-image renderer of the same data set; the packaged one if None. Raises UserError where a
    part is missing or does not fit, and for a filter that needs whole images.

    >>> recipe = Recipe(dataset="hrplanes", layouts="prior", filter="erase", seed=3)
    """
    if recipe.filter not in MODES:
        raise UserError(f"--filter {recipe.filter}: a world has no images to drop; choose {', '.join(MODES)}.")
    parts = load_parts(recipe, calibration)
    assert isinstance(parts.sampler, PriorSampler), "worlds take their layouts from a prior"
    folder = ground or weights.packaged("whole")
    whole = load_renderer(folder, "whole").to(best_device())
    parts.hashes["ground"] = folder_hash(folder)
    world = World(recipe.seed, whole, parts.renderer, parts.sampler.prior, parts.look)
    if parts.detector is None:
        return world, parts
    return JudgedWorld(world, parts.detector, parts.calibration, parts.recipe.filter), parts


def make_world(
    recipe: Recipe,
    out: Path,
    size: int,
    ground: Path | None = None,
    placement: tuple[str, float, float] | None = None,
    gsd_m: float | None = None,
    prepared: Callable[[Parts], None] = lambda parts: None,
    done: Callable[[int, int], None] = lambda done, total: None,
) -> dict:
    """Make a world of size x size pixels in the folder `out`, or continue it, and return what it holds.

    placement: coordinate reference system and the easting and northing of the top left corner in metres; none on Earth
    if None. gsd_m: metres per pixel, for data whose own are unknown. Raises UserError for a folder of another world.
    """
    load_rasterio()
    if placement is not None:
        check_placement(Placement(*placement))
    check_writable(out)
    out.mkdir(parents=True, exist_ok=True)
    try:
        held = lock(out / ".lock")
    except BlockingIOError:
        raise UserError(f"{out}: another process makes this world; wait for it, or stop it.") from None
    with held:
        stored = out / "filter.json"  # its thresholds
        world, parts = load_world(recipe, ground, Calibration.load(stored) if stored.exists() else None)
        _check_same(out, recipe, size, parts)
        if parts.calibration is not None and not stored.exists():
            parts.calibration.save(stored)
        layouts = (world.world if isinstance(world, JudgedWorld) else world).layouts
        known = layouts.acquisition.gsd_m or gsd_m
        if placement is not None and known is None:
            raise UserError("--crs needs the size of a pixel, which this data set does not know: give --gsd.")
        prepared(parts)
        blocks = BlockFolder(out / "blocks", size)
        blocks.make(world, done)
        crs, east, north = placement or (LOCAL_CRS, 0.0, 0.0)
        return _finish(out, blocks, layouts, Placement(crs, east, north, known or 1.0), known)


def _check_same(out: Path, recipe: Recipe, size: int, parts: Parts) -> None:
    """Store what the world is made from, or compare it with what was stored."""
    identity = {"dataengine": __version__, "size": size, "parts": parts.hashes, "filter": parts.recipe.filter}
    told = json.dumps(identity | {"recipe": recipe.model_dump(mode="json")}, indent=2) + "\n"
    file = out / "world.json"
    if file.exists() and read_text(file) != told:
        raise UserError(f"{out}: holds a world of another recipe, size, model or version; choose another --out.")
    write_whole(file, told)


def _finish(out: Path, blocks: BlockFolder, layouts: WorldLayouts, placement: Placement, gsd_m: float | None) -> dict:
    """Write picture and labels of the finished blocks. Both may be there already: they are written again."""
    acquisition = layouts.acquisition.model_copy(update={"gsd_m": gsd_m})
    layout = labels_of(blocks, layouts.classes, layouts.kind, acquisition)
    picture, labels = out / "images" / f"{NAME}.tif", out / "labelTxt" / f"{NAME}.txt"
    for file in (picture, labels):
        file.parent.mkdir(exist_ok=True)
    write_geotiff(blocks, picture, placement)
    write_geojson(out / f"{NAME}.geojson", blocks, layout, placement)
    write_whole(labels, dota.label_text(layout))
    if text := dota.meta_text(layout):
        (out / "meta").mkdir(exist_ok=True)
        write_whole(out / "meta" / labels.name, text)
    write_whole(out / "classes.txt", "".join(f"{name}\n" for name in dota.names_of(layout.classes)))
    objects = {name: int((layout.labels == i).sum()) for i, name in enumerate(layout.classes)}
    return {
        "size": blocks.size, "gsd_m": gsd_m, "objects": objects, "difficult": int(layout.difficult.sum()),
        "geotiff": str(picture),
    }  # fmt: skip
