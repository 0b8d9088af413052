"""A run: shards made by one or more processes until n images are accepted, then data sets, manifest and pictures.

A run directory can be killed at any instant and continued with the same command (contract 5):

    recipe.json       the recipe and the hash of every part; another recipe is refused
    calibration.json  the filter's thresholds
    shards/           one folder a shard, which appears whole or not at all
    manifest.jsonl    one line an attempt, in order, up to the last accepted image
    dota/ coco/       the accepted images with their labels
    kept.png dropped.png report.json
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import active_children, get_context
from pathlib import Path

from dataengine.engine.parts import Parts, load_parts
from dataengine.engine.recipe import Recipe, stored_recipe
from dataengine.engine.shard import read_shard, write_shard
from dataengine.errors import UserError
from dataengine.files import remove_unfinished, write_whole
from dataengine.judge.calibration import Calibration, calibration_hash

CALIBRATION = "calibration.json"
Progress = Callable[[int, int], None]  # (images accepted, images tried)


@dataclass(frozen=True)
class RunResult:
    """records: manifest lines, in order; accepted: how many of them are; notes: sentences for the user."""

    out: Path
    records: list[dict]
    accepted: int
    notes: list[str]


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
        if before.get("calibration", content["calibration"]) != content["calibration"]:
            changed.append(f"calibration ({CALIBRATION})")
        if changed:
            raise UserError(f"{out}: the {', '.join(changed)} changed since this run was begun; give another --out.")
    if parts.calibration is not None and not (out / CALIBRATION).exists():
        parts.calibration.save(out / CALIBRATION)
    if not begun:
        write_whole(out / "recipe.json", json.dumps(content, indent=2) + "\n")


_worker: tuple[Parts, Recipe] | None = None


def _start_worker(recipe: Recipe, calibration: Calibration, parent: int) -> None:
    global _worker
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    _worker = load_parts(recipe, calibration), recipe


def _end_with(parent: int) -> None:
    """A worker whose run was killed would wait for work, and hold its memory, for ever."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """Processes started meanwhile ignore Ctrl-C, which the terminal sends to all: the run itself ends them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _work(out: Path, number: int, batch_size: int) -> int:
    assert _worker is not None
    write_shard(*_worker, out, number, batch_size)
    return number


def _shards_in_order(recipe: Recipe, parts: Parts, out: Path, workers: int, batch_size: int) -> Iterator[list[dict]]:
    """Records of shard 0, 1, 2, ... Missing ones are made, `workers` at a time; stops when nobody asks for more."""
    n_shards = -(-recipe.budget // recipe.shard_size)
    if workers == 1:
        for number in range(n_shards):
            if read_shard(out, number) is None:
                write_shard(parts, recipe, out, number, batch_size)
            yield read_shard(out, number)
        return
    pool = ProcessPoolExecutor(
        workers,
        mp_context=get_context("spawn"),
        initializer=_start_worker,
        initargs=(recipe, parts.calibration, os.getpid()),
    )
    try:
        running: dict = {}
        upcoming = iter(number for number in range(n_shards) if read_shard(out, number) is None)
        for number in range(n_shards):
            while (records := read_shard(out, number)) is None:
                while len(running) < workers and (k := next(upcoming, None)) is not None:
                    with _interrupts_ignored():
                        running[pool.submit(_work, out, k, batch_size)] = k
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    running.pop(future)
                    future.result()
            yield records
    except BrokenProcessPool:
        raise UserError(
            "a worker process was killed, often for want of memory; the same command continues, perhaps with fewer "
            "--workers."
        ) from None
    except KeyboardInterrupt:
        for worker in active_children():  # half a shard is nothing, so nothing is lost
            worker.terminate()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def synth(
    recipe: Recipe,
    out: Path,
    workers: int = 1,
    batch_size: int = 16,
    progress: Progress = lambda accepted, tried: None,
    prepared: Callable[[Parts], None] = lambda parts: None,
) -> RunResult:
    """Make a verified synthetic data set in `out`, or continue one.

    Neither `workers` nor `batch_size` changes layouts, noise or which images are tried. The result is the first
    `recipe.n` accepted images in order of attempt, or all there are when the budget of attempts is spent.
    Raises UserError for anything the user can mend; finished shards are never lost.
    """
    from dataengine.engine.finish import finish

    out = Path(out)
    parts = load_parts(recipe, _adopt(out, recipe))  # before the folder is made: mistakes leave nothing behind
    with _locked(out):
        _adopt(out, recipe)  # again, now that nobody else can change it
        for half_made in (out / "shards").glob(".*"):
            shutil.rmtree(half_made)
        remove_unfinished(out)
        _store(out, recipe, parts)
        prepared(parts)
        records: list[dict] = []
        accepted = 0
        for shard in _shards_in_order(recipe, parts, out, workers, batch_size):
            for record in shard:
                records.append(record)
                accepted += record["verdict"]["kept"]
                if accepted == recipe.n:
                    break
            progress(accepted, len(records))
            if accepted == recipe.n:
                break
        finish(recipe, parts, out, records)
        return RunResult(out, records, accepted, parts.notes)
