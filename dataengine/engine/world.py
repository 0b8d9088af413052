"""A world in a folder: parts as of any run, blocks in place of shards, then the files that its users open."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Literal

from dataengine import __version__, weights
from dataengine.data.layout import model_key
from dataengine.engine.map_parts import map_sampler_of, settle_control
from dataengine.engine.parts import Parts, load_parts
from dataengine.engine.recipe import OFF, Recipe, folder_hash
from dataengine.engine.world_folder import StoredWorld, WorldFolder, write_derived
from dataengine.engine.world_worker import WorldJob, WorldSettings
from dataengine.errors import UserError
from dataengine.files import cannot_write, check_writable, lock, read_text, remove, write_whole
from dataengine.judge.calibration import Calibration
from dataengine.layouts.map_sampler import MapSampler
from dataengine.layouts.map_table import map_objects
from dataengine.layouts.prior_sampler import PriorSampler
from dataengine.render.layout_pipeline import LayoutPipeline
from dataengine.render.renderer import best_device, load_renderer
from dataengine.world.export import LOCAL_CRS, Placement, check_placement, load_rasterio
from dataengine.world.levels import CoarserLevel
from dataengine.world.map_layouts import MapGround, MapLayouts
from dataengine.world.style import load_style
from dataengine.world.verdicts import JudgedWorld
from dataengine.world.world import World, cell_size

MODES = ("erase", "difficult", "off")  # of the filter, that a world knows
MAX_LEVELS = 5
MAX_GSD_M = 1000


def load_world(
    recipe: Recipe, settings: WorldSettings | None = None, calibration: Calibration | None = None
) -> tuple[World | JudgedWorld, Parts]:
    """The world of a recipe, with its filter, and its parts.

    settings: all but its size matters; the packaged ground at one level if None. Raises UserError where a part is
    missing or does not fit, and for a filter that needs whole images.

    >>> recipe = Recipe(dataset="hrplanes", layouts="prior", filter="erase", seed=3)
    """
    settings = settings or WorldSettings(0)
    if recipe.filter not in MODES:
        raise UserError(f"--filter {recipe.filter}: a world has no images to drop; choose {', '.join(MODES)}.")
    parts = load_parts(recipe.model_copy(update={"control": OFF}) if recipe.map else recipe, calibration)
    folder = settings.ground or weights.packaged("whole")
    whole = load_renderer(folder, "whole").to(best_device())
    parts.hashes["ground"] = folder_hash(folder)
    style = None
    if settings.like is not None:
        style = load_style(settings.like, recipe.encoder, whole, recipe.seed, settings.style_px)
        parts.hashes["style"] = style.identity
    layouts, ground_map = None, None
    if recipe.map is not None:
        layouts, ground_map = _over_map(recipe, settings, parts, whole, folder)
    prior = parts.sampler.prior if layouts is None else layouts.prior
    world = World(
        recipe.seed, whole, parts.renderer, prior, parts.look, levels=settings.levels, style=style, layouts=layouts,
        ground_map=ground_map,
    )  # fmt: skip
    if parts.detector is None:
        return world, parts
    return JudgedWorld(world, parts.detector, parts.calibration, parts.recipe.filter), parts


def _over_map(
    recipe: Recipe, settings: WorldSettings, parts: Parts, whole: LayoutPipeline, folder: Path
) -> tuple[MapLayouts, MapGround | None]:
    """Layouts and ground of a world whose middle is that of a map. Settles the control in the recipe of the parts."""
    found = map_sampler_of(parts.sampler)
    mapped = [name for name in found.classes if model_key(name) not in map_objects().standing]
    if mapped:
        raise UserError(f"--map: a world holds only what stands on the map; leave out {', '.join(mapped)} (--classes).")
    cell = cell_size(found.prior.prior, parts.renderer)
    sampler = MapSampler(found.map, found.ground, PriorSampler(found.prior.prior, (cell, cell)), found.gsd_m)
    layouts = MapLayouts(sampler, recipe.seed, parts.renderer.unet.spec, settings.size)
    settled, control = settle_control(recipe, whole, folder, sampler, parts.notes)
    parts.recipe = parts.recipe.model_copy(update={"control": settled.control})
    if control is None:
        return layouts, None
    parts.hashes["control"] = control.identity
    return layouts, MapGround(control, layouts, settings.size)


def make_world(
    recipe: Recipe,
    out: Path,
    settings: WorldSettings,
    placement: tuple[str, float, float] | None = None,
    gsd_m: float | None = None,
    workers: int | None = 1,
    executor: Literal["local", "ray"] = "local",
    address: str | None = None,
    gpus_per_worker: float | None = None,
    prepared: Callable[[Parts], None] = lambda parts: None,
    done: Callable[[int, int], None] = lambda done, total: None,
) -> dict:
    """Make a world in the folder `out`, or continue it, and return what it holds.

    placement: coordinate reference system and the easting and northing of the top left corner in metres; none on Earth
    if None. gsd_m: metres per pixel, for data whose own are unknown. workers, executor, address, gpus_per_worker: as of
    `run.synth`; none changes the result. Raises UserError for a folder of another world.
    """
    load_rasterio()
    if placement is not None and recipe.map is not None:
        raise UserError("--crs: a world over a map lies where the map is; leave it out, or choose a part (--map-box).")
    if gsd_m is not None and not 0 < gsd_m <= MAX_GSD_M:
        raise UserError(f"--gsd {gsd_m:g}: give metres per pixel, above 0 and up to {MAX_GSD_M}.")
    if placement is not None:
        check_placement(Placement(*placement))
    _check_levels(settings)
    if executor == "ray":
        from dataengine.engine.cluster import check_cluster

        check_cluster(address)
    elif address is not None or gpus_per_worker is not None:
        raise UserError("--address and --gpus-per-worker are for --executor ray.")
    check_writable(out)
    out.mkdir(parents=True, exist_ok=True)
    folder = WorldFolder(out, settings.levels)
    try:
        held = lock(folder.lock)
    except BlockingIOError:
        raise UserError(f"{out}: another process makes this world; wait for it, or stop it.") from None
    with held:
        begun = Calibration.load(folder.calibration) if folder.calibration.exists() else None
        world, parts = load_world(recipe, settings, begun)
        plain = world.world if isinstance(world, JudgedWorld) else world
        if isinstance(plain.layouts, MapLayouts):
            placement = (plain.layouts.sampler.map.crs, *plain.layouts.corner_m)
        settled = recipe.model_copy(update={"control": parts.recipe.control})
        stored = _stored(settled, settings, parts, plain, placement, gsd_m)
        if folder.world.exists() and read_text(folder.world) != stored.to_json():
            raise UserError(f"{out}: holds a world with {_differences(folder.world, stored)}; choose another --out.")
        write_whole(folder.world, stored.to_json())
        if parts.calibration is not None and begun is None:
            parts.calibration.save(folder.calibration)
        prepared(parts)
        total = sum(len(folder.blocks(n, settings.size).places()) for n in range(settings.levels))
        blocks = folder.blocks(0, settings.size)
        blocks.prepare()
        stages = _stages(folder, stored)
        world.keep_in(stages)
        job = WorldJob(recipe, settings, parts.calibration, parts.hashes, blocks, blocks.made(), stages)
        _make(job, world, workers, executor, address, gpus_per_worker, lambda n: done(n, total))
        before, finer = len(blocks.places()), blocks
        for number in range(1, settings.levels):
            coarse = folder.blocks(number, settings.size)
            level = CoarserLevel(plain, number, finer)
            coarse.make(level, lambda n, _, before=before: done(before + n, total))
            before, finer = before + len(coarse.places()), coarse
        remove(folder.stages)
        return write_derived(folder, stored)


def _stages(folder: WorldFolder, stored: StoredWorld) -> Path:
    """Where what blocks are made from is kept: a folder of this world's own. What others left is removed."""
    stages = folder.stages / hashlib.sha256(stored.to_json().encode()).hexdigest()[:16]
    try:
        if folder.stages.is_symlink() or not folder.stages.is_dir():
            remove(folder.stages)
        else:
            for other in set(folder.stages.iterdir()) - {stages}:
                remove(other)
    except OSError as error:
        raise cannot_write(error, folder.stages, "choose a folder you can write to.") from None
    return stages


def _differences(file: Path, stored: StoredWorld) -> str:
    """What of the world in a folder is not that which is asked for, for people."""
    there, asked = (json.loads(one.to_json()) for one in (StoredWorld.load(file), stored))
    there, asked = ({**one.pop("recipe"), **one} for one in (there, asked))
    names = [name for name in {**there, **asked} if there.get(name) != asked.get(name)]
    return f"another {' and '.join(names) or 'form of world.json'}"


def _make(job: WorldJob, world, workers, executor, address, gpus_per_worker, done: Callable[[int], None]) -> None:
    """Make the blocks that are missing, in this process or by workers."""
    missing = job.missing()
    if executor == "local" and (workers == 1 or len(missing) < 2):
        return job.blocks.make(world, lambda n, _: done(n))
    if executor == "ray":
        from dataengine.engine.cluster import on_cluster

        execute = partial(on_cluster, replace(job, stages=None), job.blocks, workers, address, gpus_per_worker)
    else:
        import os

        from dataengine.engine.local import in_processes

        execute = partial(in_processes, job, job.blocks, min(workers or os.cpu_count(), len(missing)))
    chunks, number = iter(missing), len(job.made)
    for one in execute(lambda: next(chunks, None)):
        if one.shard is not None:
            number += len(job.blocks.chunks()[one.shard])
            done(min(number, len(job.blocks.places())))
    if replace(job, made=job.blocks.made()).missing():
        raise UserError(
            f"{job.blocks.folder}: blocks were lost while workers were at work; the same command continues."
        )


def _check_levels(settings: WorldSettings) -> None:
    if settings.size % (1 << settings.levels - 1):
        raise UserError(f"--size {settings.size}: with --levels {settings.levels} it must be a multiple of "
                        f"{1 << settings.levels - 1}.")  # fmt: skip


def _stored(recipe: Recipe, settings: WorldSettings, parts: Parts, world: World, placement, gsd_m) -> StoredWorld:
    """What the world is made from, and what its files need."""
    acquisition, layouts = world.layouts.acquisition, world.layouts
    known = acquisition.gsd_m or gsd_m
    if placement is not None and known is None:
        raise UserError("--crs needs the size of a pixel, which this data set does not know: give --gsd.")
    crs, east, north = placement or (LOCAL_CRS, 0.0, 0.0)
    return StoredWorld(
        __version__, settings.size, settings.levels, recipe.model_dump(mode="json"),
        {"like": None if settings.like is None else str(settings.like), "style_px": settings.style_px},
        parts.hashes, parts.recipe.filter, list(layouts.classes), layouts.kind,
        acquisition.model_dump(mode="json", exclude_none=True),
        asdict(Placement(crs, east, north, known or 1.0)), known,
    )  # fmt: skip
