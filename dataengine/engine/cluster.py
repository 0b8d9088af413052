"""The executor on a Ray cluster: the very same shards, made by actors wherever the cluster has room (see `local.py`).

A shard comes back through the object store, and the run itself puts it into its folder: no file system need be shared.
`ray_driver.py`, in a process of its own, speaks with Ray: whatever ends that process, the run ends with a sentence.
"""

from __future__ import annotations

import os
import pickle
import re
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import BinaryIO

from dataengine.engine.local import interrupts_ignored
from dataengine.engine.ray_driver import drive
from dataengine.engine.ray_pool import Plan, reason
from dataengine.engine.trace import watch
from dataengine.engine.worker import AHEAD, Done, NextShard, Stores, WorkerJob
from dataengine.errors import UserError, install

IMPORT_SECONDS = 120  # from a slow disk
CONNECT_SECONDS = 8  # Ray itself would try for minutes
START_SECONDS = 180  # of a cluster on this machine, when it is busy
LOG_PREFIX = re.compile(r"^\[.*?\] |\S+\.cc:\d+: ", re.MULTILINE)  # time and source of each line of Ray's log
STOP_SECONDS = 10  # for Ray to end its processes by itself


def check_cluster(address: str | None) -> None:
    """Raise UserError where Ray is not installed, or no cluster answers at HOST:PORT in time."""
    if find_spec("ray") is None:
        raise UserError(f"--executor ray needs: {install('ray')}.")
    if address in (None, "local"):
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if address != "auto" and (not host or not port.isdecimal()):
        raise UserError(f"--address {address}: give HOST:PORT as printed by ray start --head, or auto on a node.")
    with _driver(address, None):
        pass


def on_cluster(
    job: WorkerJob,
    run: Stores,
    workers: int | None,
    address: str | None,
    gpus_per_worker: float | None,
    next_shard: NextShard,
) -> Iterator[Done]:
    """Make shards on a Ray cluster, or on this machine alone where `address` is None or "local".

    workers: None for as many as the cluster has GPUs (or shares of them), or else cores, for. gpus_per_worker: None for
    one where the cluster has GPUs, below 1 to let workers share one. Raises UserError when there is no cluster at that
    address, when it is lost, when workers end one after the other, and whatever one of them raises.
    """
    lives = (job.life(on_gpu=False), job.life(on_gpu=True))
    plan = Plan(pickle.dumps(job), workers, gpus_per_worker, AHEAD, lives)
    with _driver(None if address == "local" else address, plan) as driver:
        while True:
            kind, value = _receive(driver)
            if kind == "next":
                _send(driver, next_shard())
            elif kind == "result":
                shard, files, events = value
                yield Done(None, events) if shard is None else _store(run, files, Done(shard, events))
            else:
                return


@contextmanager
def _driver(address: str | None, plan: Plan | None) -> Iterator[Connection]:
    """The process that speaks with Ray, connected. It is ended with the context, and Ray on this machine with it."""
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    said = tempfile.NamedTemporaryFile(prefix="ray-")  # noqa: SIM115  closed below
    process = context.Process(target=drive, args=(theirs, address, plan, said.name), daemon=True)
    patience = 0
    try:
        with interrupts_ignored():
            process.start()
        theirs.close()
        limit, failure = START_SECONDS, "Ray cannot start on this machine"
        if address is not None:
            limit, failure = CONNECT_SECONDS, f"--address {address}: no Ray cluster can be reached there"
        for seconds in (IMPORT_SECONDS, limit, IMPORT_SECONDS, limit):  # Python, the port, Ray, connected
            _receive(ours, seconds, failure, said)
        patience = STOP_SECONDS
        yield ours
    finally:
        try:
            ours.close()
            process.join(patience)
        finally:  # even if interrupted again
            process.kill()
            process.join()
            _kill_session(process.pid)
            said.close()


def _kill_session(leader: int) -> None:
    """End every process that was started by a process which made itself leader of a session, and by those in turn.

    Ray's agents outlive a raylet or driver that is killed. They belong to its session, whoever their parent is by now.
    Processes are found in /proc; on systems without it, Ray is left to end them.
    """
    killed = set()
    while True:
        found = set()
        for entry in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # it has just ended
                if os.getsid(pid := int(entry.name)) == leader and pid not in killed:
                    os.kill(pid, signal.SIGKILL)
                    found.add(pid)
        if not found:  # none that another one has started meanwhile
            return
        killed |= found


def _receive(
    driver: Connection, seconds: float | None = None, failure: str = "", said: BinaryIO | None = None
) -> tuple[str, object]:
    """What the driver tells. Raises what it raised, and UserError where it is lost, or says nothing for that long.

    said: the log of Ray in the driver, whose last line is the reason why nothing comes.
    """
    try:
        if seconds is not None and not driver.poll(seconds):
            log = LOG_PREFIX.sub("", said.read().decode("utf-8", "replace")) if said else ""
            why = f"; Ray says: {reason(log)}" if log.strip() else ""
            raise UserError(f"{failure} (no answer within {seconds} seconds{why}).")
        kind, value = driver.recv()
    except (EOFError, ConnectionError):
        raise (UserError(f"{failure} (Ray ended its process).") if failure else _lost()) from None
    if kind == "error":
        raise value
    return kind, value


def _send(driver: Connection, shard: int | None) -> None:
    try:
        driver.send(shard)
    except ConnectionError:
        raise _lost() from None


def _lost() -> UserError:
    return UserError(
        "the connection to the Ray cluster was lost: its head, the Ray node of this machine (its raylet), or the "
        "process that speaks with them was killed or cannot be reached; the same command continues."
    )


def _store(run: Stores, files: dict[str, bytes], done: Done) -> Done:
    """Put a shard into the run folder."""
    with watch(done.events, "store", 0, done.shard):
        folder = run.store(done.shard)
        try:
            for name, content in files.items():
                folder.put(name, content)
            folder.close()
        except BaseException:
            folder.abandon()
            raise
    return done
