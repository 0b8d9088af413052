"""A run: shards made by one or more processes until n images are accepted, then data sets, manifest and pictures.

A run folder (`run_folder`) can be killed at any instant and continued with the same command (contract 5).
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

from dataengine.engine.fetched import with_fetched
from dataengine.engine.finish import Tally, finish
from dataengine.engine.local import in_processes
from dataengine.engine.parts import Parts, load_parts
from dataengine.engine.picture_recipe import PictureRecipe
from dataengine.engine.recipe import Recipe
from dataengine.engine.record import Record
from dataengine.engine.run_folder import RunFolder, Shard, StoredRecipe
from dataengine.engine.trace import trace_file
from dataengine.engine.worker import Job, in_this_process
from dataengine.errors import UserError, is_out_of_memory, out_of_memory
from dataengine.files import cannot_write, check_writable, create, lock, refuse_links, remove, remove_unfinished
from dataengine.judge.calibration import Calibration, calibration_hash

Progress = Callable[[int, int], None]  # (images accepted, images tried)
Painted = Callable[[int], None]  # (images painted just now, which are not judged yet)


@dataclass(frozen=True)
class RunResult:
    """accepted: images of those tried; notes: sentences for the user."""

    out: Path
    accepted: int
    tried: int
    notes: list[str]

    @property
    def records(self) -> Iterator[Record]:
        """The records of the manifest, in order, read as they are asked for."""
        return RunFolder(self.out).records()


@contextmanager
def _locked(run: RunFolder) -> Iterator[None]:
    """Hold the run folder; a second run on it is refused. The lock goes with the process, however it ends."""
    try:
        run.path.mkdir(parents=True, exist_ok=True)
        try:
            held = lock(run.lock)
        except BlockingIOError:
            raise UserError(
                f"{run.path}: another run is at work in this folder; wait for it, or give another --out."
            ) from None
        with held:
            refuse_links(run.path)
            yield
    except (OSError, MemoryError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise out_of_memory("the run") from error
        if not isinstance(error, OSError) or error.errno is None:  # not the disk's doing
            raise
        advice = "choose another folder. What is finished stays, and the same command continues."
        raise cannot_write(error, run.path, advice) from error


def _adopt(run: RunFolder, recipe: Recipe) -> Calibration | None:
    """Check that a folder is new or holds this recipe's run; the calibration that is stored with it, if any."""
    out = run.path
    if run.recipe.exists():
        before = run.stored_recipe().recipe
        now = recipe.model_dump(mode="json")
        # off, perhaps, packaged, and the number of pictures, once the parts are known (`load_parts`)
        unsettled = {
            "filter",
            "control",
            *(["n"] if isinstance(recipe, PictureRecipe) else []),
        } - recipe.model_fields_set
        changed = sorted(name for name in now if now[name] != before.get(name) and name not in unsettled)
        if changed:
            raise UserError(
                f"{out} holds a run with another {', '.join(changed)}; give another --out, or the settings of before "
                f"({', '.join(f'{name}={before.get(name)}' for name in changed)})."
            )
        return _stored_calibration(run)
    if out.is_file():
        raise UserError(f"{out}: cannot be written, since it is a file; give a folder with --out.")
    # a run that was killed before its recipe was stored leaves its calibration, or hidden files that are half written
    known = run.calibration.name
    foreign = [e.name for e in out.iterdir() if e.name[0] != "." and e.name != known] if out.exists() else []
    if foreign:
        raise UserError(f"{out} is not empty and holds no run ({foreign[0]} is there); give another --out.")
    return None


def _stored_calibration(run: RunFolder) -> Calibration | None:
    try:
        return Calibration.load(run.calibration) if run.calibration.exists() else None
    except UserError as error:
        raise UserError(f"{error} Or remove the file: the same command makes it again.") from None


def _store(run: RunFolder, recipe: Recipe, parts: Parts, datasets: bool) -> StoredRecipe:
    """Write recipe and calibration; on continuing, refuse parts that have changed since."""
    now = StoredRecipe(
        recipe.model_dump(mode="json"),
        parts.hashes,
        recipe.identity(parts.hashes),
        parts.classes,
        calibration_hash(parts.calibration),
        parts.preset.name,
        tuple(parts.notes),
        datasets,
    )
    begun = run.recipe.exists()
    if begun:
        before = run.stored_recipe()
        changed = sorted(name for name in parts.hashes if parts.hashes[name] != before.parts.get(name))
        fix = "give another --out"
        if before.calibration not in (None, now.calibration):
            changed.append(f"calibration ({run.calibration.name})")
            fix += f", or, if that file was damaged, remove {run.calibration}: it is made again"
        if changed:
            raise UserError(f"{run.path}: the {', '.join(changed)} changed since this run was begun; {fix}.")
        if before.notes is not None and run.recipe.read_bytes() == before.to_json().encode():
            now = replace(now, notes=before.notes)  # those of a run that measures its calibration say so once
    if not begun or run.recipe.read_bytes() != now.to_json().encode():
        now.save(run.recipe)
    if parts.calibration is not None and not run.calibration.exists():
        parts.calibration.save(run.calibration)
    return now


def _shards_in_order(
    recipe: Recipe, run: RunFolder, tally: Tally, add_to_trace, painted: Painted, execute
) -> Iterator[Shard]:
    """Shard 0, 1, 2, ... Missing ones are made; stops when no more are asked for.

    No more shards are at work than will be needed if images go on to be accepted as they were so far.
    """
    n_shards = -(-recipe.budget // recipe.shard_size)
    asked = 0  # all shards below have been read, are there, or are at work

    def next_shard() -> int | None:
        nonlocal asked
        accepted_share = (tally.accepted + 1) / (tally.tried + 1)
        while (
            asked < n_shards and (asked * recipe.shard_size - tally.tried) * accepted_share < recipe.n - tally.accepted
        ):
            asked += 1
            if run.read_shard(asked - 1) is None:
                return asked - 1
        return None

    with closing(execute(next_shard)) as at_work:
        for number in range(n_shards):
            while (shard := run.read_shard(number)) is None:
                if (done := next(at_work, None)) is None:
                    raise UserError(
                        f"{run.path}: shard {number} was lost while the run was at work; the same command continues."
                    )
                add_to_trace(done.events)
                if done.painted:
                    painted(done.painted)
            asked = max(asked, number + 1)
            yield shard


def synth(
    recipe: Recipe,
    out: Path,
    workers: int | None = 1,
    batch_size: int | None = None,
    progress: Progress = lambda accepted, tried: None,
    prepared: Callable[[Parts], None] = lambda parts: None,
    executor: Literal["local", "ray"] = "local",
    address: str | None = None,
    gpus_per_worker: float | None = None,
    datasets: bool = True,
    painted: Painted = lambda n: None,
) -> RunResult:
    """Make a verified synthetic data set in `out`, or continue one.

    Neither `workers`, `batch_size` nor `executor` changes layouts, noise or which images are tried. The result is the
    first `recipe.n` accepted images in order of attempt, or all there are when the budget of attempts is spent.
    workers: None for one a core; with ray, one a GPU or else a core of the cluster. batch_size: images that are painted
    together, None for the renderer's own number. painted: called after each batch. address, gpus_per_worker: see
    `cluster.on_cluster`. datasets: False leaves the DOTA and COCO folders out.
    Raises UserError for anything the user can fix; finished shards are never lost.

    >>> result = synth(Recipe(dataset="hit-uav", n=20), Path("runs/first"))  # doctest: +SKIP
    >>> result.accepted  # doctest: +SKIP
    20
    """
    run = RunFolder(Path(out))
    if executor == "local" and (address is not None or gpus_per_worker is not None):
        raise UserError("--address and --gpus-per-worker are for --executor ray.")
    if executor == "ray":
        from dataengine.engine.cluster import check_cluster, on_cluster

        check_cluster(address)
    refuse_links(run.path)
    recipe, notes = (recipe, []) if isinstance(recipe, PictureRecipe) else with_fetched(recipe)
    calibration = _adopt(run, recipe)
    check_writable(run.path)
    parts = load_parts(recipe, calibration)  # before the folder is made: mistakes leave nothing behind
    parts.notes[:0] = notes
    recipe = parts.recipe.model_copy(update={"filter": parts.recipe.filter})  # settled, so compared from here on
    job = Job(recipe, parts.calibration, parts.hashes, batch_size)
    if executor == "ray":
        execute = partial(on_cluster, job, run, workers, address, gpus_per_worker)
    elif (workers or os.cpu_count()) == 1:
        execute = partial(in_this_process, parts, job, run, painted)
    else:
        execute = partial(in_processes, job, run, workers or os.cpu_count())
    with _locked(run):
        _adopt(run, recipe)  # again, now that no other process can change it
        _remove_half_made(run)
        stored = _store(run, recipe, parts, datasets)
        prepared(parts)
        tally = Tally(parts.calibration, parts.classes)
        try:
            with (
                create(run.unfinished_manifest) as file,
                trace_file(run) as add_to_trace,
                closing(_shards_in_order(recipe, run, tally, add_to_trace, painted, execute)) as shards,
            ):
                for shard in shards:
                    for line, record in zip(shard.lines, shard.records, strict=True):
                        file.write(f"{line}\n")
                        tally.add(record)
                        if tally.accepted == recipe.n:
                            break
                    progress(tally.accepted, tally.tried)
                    if tally.accepted == recipe.n:
                        break
        finally:
            _remove_half_made(run)
        finish(recipe, parts, run, tally, stored)
        return RunResult(run.path, tally.accepted, tally.tried, parts.notes)


def _remove_half_made(run: RunFolder) -> None:
    """Remove unfinished shards, and what an interrupted end left. Only while no worker is running."""
    half_made = [entry for entry in run.shards.glob(".*") if re.fullmatch(r"\.\d+\.\d+", entry.name)]
    for entry in (
        *half_made,
        *run.path.glob(".mixed-*"),
        *run.path.glob(".decided-*"),
    ):  # not what a file manager or a network disk leaves there
        with suppress(OSError):  # a file that is still open on a network disk cannot be removed yet
            remove(entry)
    remove_unfinished(run.path)
