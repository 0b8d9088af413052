"""A run: shards made by one or more processes until n images are accepted, then data sets, manifest and pictures.

A run directory can be killed at any instant and continued with the same command (contract 5):

    recipe.json       the recipe and the hash of every part; another recipe is refused
    calibration.json  the filter's thresholds
    shards/           one folder a shard, which appears whole or not at all
    manifest.jsonl    one line an attempt, in order, up to the last accepted image
    trace.json        how busy each stage was
    dota/ coco/       the accepted images with their labels
    kept.png dropped.png report.json
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from dataengine.engine.local import in_processes, in_this_process
from dataengine.engine.manifest import MANIFEST, UNFINISHED, read_manifest
from dataengine.engine.parts import Parts, load_parts
from dataengine.engine.recipe import Recipe, stored_recipe
from dataengine.engine.shard import read_shard
from dataengine.engine.tally import Tally
from dataengine.engine.trace import trace_file
from dataengine.engine.worker import Job
from dataengine.errors import UserError
from dataengine.files import check_writable, remove_unfinished, write_whole
from dataengine.judge.calibration import Calibration, calibration_hash

CALIBRATION = "calibration.json"
Progress = Callable[[int, int], None]  # (images accepted, images tried)


@dataclass(frozen=True)
class RunResult:
    """accepted: images of those tried; notes: sentences for the user."""

    out: Path
    accepted: int
    tried: int
    notes: list[str]

    @property
    def records(self) -> Iterator[dict]:
        """The lines of the manifest, in order, read as they are asked for."""
        return read_manifest(self.out / MANIFEST)


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Hold the run directory; a second run on it is refused. The lock goes with the process, however it ends."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with open(out / ".lock", "w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UserError(
                    f"{out}: another run is at work in this folder; wait for it, or give another --out."
                ) from None
            yield
    except OSError as error:
        if error.errno is None:  # not the disk's doing
            raise
        raise UserError(
            f"{error.filename or out}: cannot be written ({error.strerror or error}); free some space or choose "
            "another folder. What is finished stays, and the same command continues."
        ) from error


def _adopt(out: Path, recipe: Recipe) -> Calibration | None:
    """Check that a folder is new or holds this recipe's run; the calibration that is stored with it, if any."""
    if (out / "recipe.json").exists():
        before = stored_recipe(out)["recipe"]
        now = recipe.model_dump(mode="json")
        changed = sorted(name for name in now if now[name] != before.get(name))
        if changed:
            raise UserError(
                f"{out} holds a run with another {', '.join(changed)}; give another --out, or the settings of before "
                f"({', '.join(f'{name}={before.get(name)}' for name in changed)})."
            )
        return _stored_calibration(out)
    if out.is_file():
        raise UserError(f"{out}: cannot be written, since it is a file; give a folder with --out.")
    # a run that was killed before its recipe was stored leaves its calibration, or hidden files that are half written
    foreign = [e.name for e in out.iterdir() if e.name[0] != "." and e.name != CALIBRATION] if out.exists() else []
    if foreign:
        raise UserError(f"{out} is not empty and holds no run ({foreign[0]} is there); give another --out.")
    return None


def _stored_calibration(out: Path) -> Calibration | None:
    file = out / CALIBRATION
    try:
        return Calibration.load(file) if file.exists() else None
    except UserError as error:
        raise UserError(f"{error} Or remove the file: the same command makes it again.") from None


def _store(out: Path, recipe: Recipe, parts: Parts) -> None:
    """Write the recipe once; on continuing, refuse parts that have changed since."""
    content = {
        "recipe": recipe.model_dump(mode="json"),
        "parts": parts.hashes,
        "calibration": calibration_hash(parts.calibration),
        "identity": recipe.identity(parts.hashes),
        "classes": list(parts.classes),
        "guidance": "null + guidance_scale * (condition - null)",
    }
    begun = (out / "recipe.json").exists()
    if begun:
        before = stored_recipe(out)
        changed = sorted(name for name in parts.hashes if parts.hashes[name] != before["parts"].get(name))
        mend = "give another --out"
        if before.get("calibration", content["calibration"]) != content["calibration"]:
            changed.append(f"calibration ({CALIBRATION})")
            mend += f", or, if that file was damaged, remove {out / CALIBRATION}: it is made again"
        if changed:
            raise UserError(f"{out}: the {', '.join(changed)} changed since this run was begun; {mend}.")
    if parts.calibration is not None and not (out / CALIBRATION).exists():
        parts.calibration.save(out / CALIBRATION)
    if not begun:
        write_whole(out / "recipe.json", json.dumps(content, indent=2) + "\n")


def _shards_in_order(recipe: Recipe, out: Path, tally: Tally, add_to_trace, execute) -> Iterator[list[dict]]:
    """Records of shard 0, 1, 2, ... Missing ones are made; stops when nobody asks for more.

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
            if read_shard(out, asked - 1) is None:
                return asked - 1
        return None

    with closing(execute(next_shard)) as at_work:
        for number in range(n_shards):
            while (records := read_shard(out, number)) is None:
                if (done := next(at_work, None)) is None:
                    raise UserError(
                        f"{out}: shard {number} was lost while the run was at work; the same command continues."
                    )
                add_to_trace(done.events)
            asked = max(asked, number + 1)
            yield records


def synth(
    recipe: Recipe,
    out: Path,
    workers: int | None = 1,
    batch_size: int = 16,
    progress: Progress = lambda accepted, tried: None,
    prepared: Callable[[Parts], None] = lambda parts: None,
    executor: Literal["local", "ray"] = "local",
    address: str | None = None,
    gpus_per_worker: float | None = None,
    datasets: bool = True,
) -> RunResult:
    """Make a verified synthetic data set in `out`, or continue one.

    Neither `workers`, `batch_size` nor `executor` changes layouts, noise or which images are tried. The result is the
    first `recipe.n` accepted images in order of attempt, or all there are when the budget of attempts is spent.
    workers: None for one a core; with ray, one a GPU or else a core of the cluster. address, gpus_per_worker: see
    `cluster.on_cluster`. datasets: False leaves the DOTA and COCO folders out.
    Raises UserError for anything the user can mend; finished shards are never lost.
    """
    from dataengine.engine.finish import finish

    out = Path(out)
    if executor == "local" and (address is not None or gpus_per_worker is not None):
        raise UserError("--address and --gpus-per-worker are for --executor ray.")
    if executor == "ray":
        from dataengine.engine.cluster import check_cluster, on_cluster

        check_cluster(address)
    stored = _adopt(out, recipe)
    check_writable(out)
    parts = load_parts(recipe, stored)  # before the folder is made: mistakes leave nothing behind
    job = Job(recipe, parts.calibration, parts.hashes, batch_size)
    if executor == "ray":
        execute = partial(on_cluster, job, out, workers, address, gpus_per_worker)
    elif (workers or os.cpu_count()) == 1:
        execute = partial(in_this_process, parts, job, out)
    else:
        execute = partial(in_processes, job, out, workers or os.cpu_count())
    with _locked(out):
        _adopt(out, recipe)  # again, now that nobody else can change it
        _remove_half_made(out)
        _store(out, recipe, parts)
        prepared(parts)
        tally, lines = Tally(parts.calibration, parts.classes), out / UNFINISHED
        try:
            with (
                open(lines, "w") as file,
                trace_file(out) as add_to_trace,
                closing(_shards_in_order(recipe, out, tally, add_to_trace, execute)) as shards,
            ):
                for shard in shards:
                    for record in shard:
                        file.write(json.dumps(record) + "\n")
                        tally.add(record)
                        if tally.accepted == recipe.n:
                            break
                    progress(tally.accepted, tally.tried)
                    if tally.accepted == recipe.n:
                        break
        finally:
            _remove_half_made(out)
        finish(recipe, parts, out, tally, lines, datasets)
        return RunResult(out, tally.accepted, tally.tried, parts.notes)


def _remove_half_made(out: Path) -> None:
    """Remove shards that were broken off. Only while no worker is at work."""
    for half_made in (out / "shards").glob(".*"):
        shutil.rmtree(half_made)
    remove_unfinished(out)
