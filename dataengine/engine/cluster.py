"""The executor on a Ray cluster: the very same shards, made by actors wherever the cluster has room (see `local.py`).

A shard comes back through the object store, and the run itself puts it into its folder: no file system need be shared.
An actor that is lost, alone or with its node, loses the shards that it held, which are made again by others; a new one
takes its place as soon as there is room for it.
"""

from __future__ import annotations

import os
import platform
import socket
import threading
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from dataengine.engine.run_folder import RunFolder, ShardFolder
from dataengine.engine.trace import process_name, watch
from dataengine.engine.worker import AHEAD, Done, Job, NextShard, Worker, life
from dataengine.errors import UserError, install

TRIES = 4  # workers that a shard may outlive, before it is taken for the reason


class Files(dict):
    """The files of a shard in memory, name -> bytes."""

    put = dict.__setitem__

    def close(self) -> None:
        """Nothing to do: they travel as they are."""

    abandon = dict.clear


class Maker:
    """What an actor is: a worker that gives its shards back as bytes."""

    def load(self, job: Job, number: int) -> Done:
        """Load the parts on this node. Raises UserError when they are not here, or others."""
        name = f"worker {number}, process {os.getpid()} on {platform.node()}"
        loaded = Done(None, [process_name(number, name)])
        with watch(loaded.events, "load", number):
            try:
                self._worker = Worker(job.load(), job.recipe, job.batch_size, number)
            except UserError as error:
                raise UserError(
                    f"on the node {platform.node()}: {error} Every node of the cluster needs the data sets and models "
                    "of the run under the same paths, and the same dataengine."
                ) from None
        self._rendering = threading.Lock()
        return loaded

    def make(self, shard: int) -> tuple[dict[str, bytes], Done]:
        """One shard. Called from two threads: one renders while the other's shard is judged."""
        files = Files()
        with self._rendering:
            future = self._worker.start(shard, files)
        done = future.result()
        return dict(files), done


def check_cluster(address: str | None) -> None:
    """Raise UserError where Ray is not installed, or nothing answers at HOST:PORT: Ray itself would try for minutes."""
    if find_spec("ray") is None:
        raise UserError(f"--executor ray needs: {install('ray')}.")
    if address in (None, "auto", "local"):
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():
        raise UserError(f"--address {address}: give HOST:PORT as printed by ray start --head, or auto on a node.")
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, OverflowError) as error:
        raise UserError(
            f"--address {address}: no Ray cluster can be reached there ({getattr(error, 'strerror', 0) or error})."
        ) from None


def on_cluster(
    job: Job,
    run: RunFolder,
    workers: int | None,
    address: str | None,
    gpus_per_worker: float | None,
    next_shard: NextShard,
) -> Iterator[Done]:
    """Make shards on a Ray cluster, or on this machine alone where `address` is None.

    workers: None for as many as the cluster has GPUs (or shares of them), or else cores, for. gpus_per_worker: None for
    one where the cluster has GPUs, below 1 to let workers share one. Raises UserError when there is no cluster at that
    address, when workers end one after the other, and whatever one of them raises.
    """
    import ray

    with _connected(ray, address):
        has = ray.cluster_resources()
        gpus = (1.0 if has.get("GPU") else 0.0) if gpus_per_worker is None else gpus_per_worker
        workers = workers or int(has.get("GPU", 0) / gpus if gpus else has.get("CPU", 0)) or 1
        options = {"num_cpus": 1, "num_gpus": gpus, "max_concurrency": AHEAD, "scheduling_strategy": "SPREAD"}
        yield from _Pool(ray, job, options, life(job.recipe, on_gpu=gpus > 0)).run(workers, run, next_shard)


class _Pool:
    """Actors, what each holds, and what has to be made again."""

    def __init__(self, ray, job: Job, options: dict, life: float):
        """life: shards that an actor makes before a fresh one takes its place."""
        self.ray, self.job, self.life = ray, ray.put(job), life
        self.actor_class = ray.remote(Maker).options(**options)
        self.actors, self.held = {}, {}  # by number: the actor, and how many shards it holds; None while it loads
        self.left = {}  # by number: shards that it may still be given
        self.at_work = {}  # reference of a result -> (actor's number, shard or None for loading)
        self.again: deque[int] = deque()
        self.lost: Counter = Counter()
        self.started = 0

    def run(self, workers: int, run: RunFolder, next_shard: NextShard) -> Iterator[Done]:
        """Report each shard that lies in the run folder, until there is none to make."""
        try:
            for _ in range(workers):
                self._start()
            while self._hand_out(next_shard):
                [ready], _ = self.ray.wait(list(self.at_work), num_returns=1)
                number, shard = self.at_work.pop(ready)
                try:
                    result = self.ray.get(ready)
                except self.ray.exceptions.RayTaskError as error:
                    raise _cause(error) from None
                except self.ray.exceptions.RayError as error:
                    self._give_up(number, shard, error, workers)
                    continue
                self.lost.pop(None, None)
                if shard is None:
                    self.held[number] = 0
                    yield result
                else:
                    if number in self.held:
                        self.held[number] -= 1
                        if not self.held[number] and not self.left[number]:
                            self._replace(number)
                    yield _store(run, *result)
        finally:
            for actor in self.actors.values():
                self.ray.kill(actor)

    def _start(self) -> None:
        self.started += 1
        actor = self.actors[self.started] = self.actor_class.remote()
        self.held[self.started], self.left[self.started] = None, self.life
        self.at_work[actor.load.remote(self.job, self.started)] = (self.started, None)

    def _hand_out(self, next_shard: NextShard) -> bool:
        """Give every actor its first shard before any gets another one; False when all is made."""
        for depth in range(AHEAD):
            for number in [n for n, held in self.held.items() if held == depth and self.left[n]]:
                shard = self.again.popleft() if self.again else next_shard()
                if shard is None:
                    return any(made is not None for _, made in self.at_work.values())
                self.at_work[self.actors[number].make.remote(shard)] = (number, shard)
                self.held[number], self.left[number] = self.held[number] + 1, self.left[number] - 1
        return True

    def _replace(self, number: int) -> None:
        """End an actor, whose node may be gone, and start another one."""
        actor = self.actors.pop(number)
        del self.held[number], self.left[number]
        self.ray.kill(actor)  # where it only could not be reached, it must not keep its place
        self._start()

    def _give_up(self, number: int, shard: int | None, error: Exception, workers: int) -> None:
        """A result is lost, as a rule with its actor: the shard is made again, another actor takes the place."""
        if shard is not None:
            self.again.append(shard)
        self.lost[shard] += 1
        if self.lost[shard] > TRIES + (workers if shard is None else 0):
            what = "workers" if shard is None else f"the workers that made shard {shard}"
            raise UserError(
                f"{what} were lost one after the other, often for want of memory, or of dataengine on a node; the same "
                f"command continues. Ray says: {str(error).strip().splitlines()[0]}"
            )
        if number in self.actors:
            self._replace(number)


def _store(run: RunFolder, files: dict[str, bytes], done: Done) -> Done:
    """Put a shard into the run folder."""
    with watch(done.events, "store", 0, done.shard):
        folder = ShardFolder(run, done.shard)
        try:
            for name, content in files.items():
                folder.put(name, content)
            folder.close()
        except BaseException:
            folder.abandon()
            raise
    return done


def _cause(error) -> BaseException:
    """What was raised in the actor: errors that a user can fix as they are, others with the actor's traceback."""
    return error.cause if isinstance(error.cause, UserError | OSError) else error


@contextmanager
def _connected(ray, address: str | None) -> Iterator[None]:
    """A connection to the cluster at `address`, or to a new one on this machine; one that is there already is used."""
    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # no network but the cluster's
    own = {} if address is not None else {"include_dashboard": False}
    try:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR", **own)
    except (ConnectionError, ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(f"--address {address}: no Ray cluster can be reached there ({reason}).") from None
    try:
        yield
    finally:
        ray.shutdown()
