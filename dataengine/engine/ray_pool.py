"""Shards made by Ray actors, wherever the cluster has room for them.

An actor that is lost, alone or with its node, loses the shards that it held, which are made again by others; a new one
takes its place as soon as there is room for it.
"""

from __future__ import annotations

import os
import pickle
import platform
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from textwrap import shorten

from dataengine.engine.trace import lost_worker, process_name, watch
from dataengine.errors import UserError, is_out_of_memory, out_of_memory

TRIES = 4  # workers that a shard may outlive, before it is taken for the reason
POLL_SECONDS = 0.5
NO_ROOM_SECONDS = 300  # no node could hold a worker; an autoscaler takes minutes to start one
REASON_LENGTH = 200  # characters of Ray's own message, which can be a page

# shard, or None when a worker has loaded or is lost; its files; trace events
Result = tuple[int | None, dict[str, bytes], list[dict]]


@dataclass(frozen=True)
class Plan:
    """What the driver needs to know of a run.

    job: a pickled `worker.WorkerJob`. workers, gpus_per_worker: see `cluster.on_cluster`. ahead: shards that an actor
    holds. lives: shards that an actor makes before a fresh one takes its place, without and with a GPU.
    """

    job: bytes
    workers: int | None
    gpus_per_worker: float | None
    ahead: int
    lives: tuple[float, float]


class Files(dict):
    """The files of a shard in memory, name -> bytes."""

    put = dict.__setitem__

    def close(self) -> None:
        """Nothing to do: they travel as they are."""

    abandon = dict.clear


@contextmanager
def _named_node() -> Iterator[None]:
    """Name this node in errors that its own files or memory cause."""
    where = f"on the node {platform.node()}"
    try:
        yield
    except (MemoryError, OSError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise out_of_memory(f"{where}: a worker") from None
        if not isinstance(error, OSError):
            raise
        what = f"{error.filename or 'a file'}: {error.strerror or error}"
        raise UserError(f"{where}: {what}; the same command continues.") from None


class Maker:
    """What an actor is: a worker that gives its shards back as bytes."""

    def load(self, job: bytes, number: int) -> list[dict]:
        """Load the parts on this node. Raises UserError when they are not here, or others."""
        events = [process_name(number, f"worker {number}, process {os.getpid()} on {platform.node()}")]
        with watch(events, "load", number), _named_node():
            try:
                self._worker = pickle.loads(job).worker(number)
            except UserError as error:
                raise UserError(
                    f"on the node {platform.node()}: {error} Every node of the cluster needs the data sets and models "
                    "of the run under the same paths, and the same dataengine."
                ) from None
        self._rendering = threading.Lock()
        return events

    def make(self, shard: int) -> tuple[dict[str, bytes], list[dict]]:
        """One shard. Called from two threads: one renders while the other's shard is judged."""
        files = Files()
        with _named_node():
            with self._rendering:
                future = self._worker.start(shard, files)
            done = future.result()
        return dict(files), done.events


class Pool:
    """Actors, what each holds, and what has to be made again."""

    def __init__(self, ray, plan: Plan, check_run: Callable[[], None]):
        """check_run: called while the pool waits; what it raises ends the pool."""
        has = ray.cluster_resources()
        gpus = (1.0 if has.get("GPU") else 0.0) if plan.gpus_per_worker is None else plan.gpus_per_worker
        self.needs = {"CPU": 1, "GPU": gpus}
        self.workers = plan.workers or int(has.get("GPU", 0) / gpus if gpus else has.get("CPU", 0)) or 1
        self.ray, self.job, self.ahead, self.life = ray, ray.put(plan.job), plan.ahead, plan.lives[gpus > 0]
        self.actor_class = ray.remote(Maker).options(
            num_cpus=1, num_gpus=gpus, max_concurrency=plan.ahead, scheduling_strategy="SPREAD"
        )
        self.check_run = check_run
        self.node = ray.get_runtime_context().get_node_id()
        self.actors, self.held = {}, {}  # by number: the actor, and how many shards it holds; None while it loads
        self.left = {}  # by number: shards that it may still be given
        self.at_work = {}  # reference of a result -> (actor's number, shard or None for loading)
        self.again: deque[int] = deque()
        self.lost: Counter = Counter()
        self.started = 0

    def run(self, next_shard: Callable[[], int | None]) -> Iterator[Result]:
        """Give back each shard, until there is none to make."""
        try:
            for _ in range(self.workers):
                self._start()
            while self._hand_out(next_shard):
                ready = self._wait()
                number, shard = self.at_work.pop(ready)
                try:
                    result = self.ray.get(ready)
                except self.ray.exceptions.RayTaskError as error:
                    raise (error.cause if isinstance(error.cause, UserError) else error) from None
                except self.ray.exceptions.RayError as error:
                    self._give_up(number, shard, reason(error))
                    yield None, {}, [lost_worker(number, shard, reason(error))]
                    continue
                self.lost.pop(None, None)
                if shard is None:
                    self.held[number] = 0
                    yield None, {}, result
                else:
                    if number in self.held:
                        self.held[number] -= 1
                        if not self.held[number] and not self.left[number]:
                            self._replace(number)
                    yield shard, *result
        finally:
            for actor in self.actors.values():
                self.ray.kill(actor)

    def _wait(self) -> object:
        """The reference of the next result. Raises UserError when no node can hold a worker for a long time."""
        began = time.monotonic()
        while True:
            ready, _ = self.ray.wait(list(self.at_work), num_returns=1, timeout=POLL_SECONDS)
            if ready:
                return ready[0]
            self.check_run()
            if time.monotonic() - began > NO_ROOM_SECONDS:
                has = self.ray.cluster_resources()
                if missing := [name for name, amount in self.needs.items() if has.get(name, 0) < amount]:
                    raise UserError(
                        f"no node of the Ray cluster has had a {missing[0]} for a worker for {NO_ROOM_SECONDS} "
                        "seconds; start Ray on the nodes again, and the same command continues."
                    )
                began = time.monotonic()

    def _start(self) -> None:
        self.started += 1
        actor = self.actors[self.started] = self.actor_class.remote()
        self.held[self.started], self.left[self.started] = None, self.life
        self.at_work[actor.load.remote(self.job, self.started)] = (self.started, None)

    def _hand_out(self, next_shard: Callable[[], int | None]) -> bool:
        """Give every actor its first shard before any gets another one; False when all is made."""
        for depth in range(self.ahead):
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

    def _give_up(self, number: int, shard: int | None, why: str) -> None:
        """A result is lost, as a rule with its actor: the shard is made again, another actor takes the place."""
        if not any(node["Alive"] for node in self.ray.nodes() if node["NodeID"] == self.node):
            raise UserError(
                "the Ray node of this machine (its raylet) was killed or lost its connection to the head, often "
                "because memory ran out; the same command continues."
            )
        if shard is not None:
            self.again.append(shard)
        self.lost[shard] += 1
        if self.lost[shard] > TRIES + (self.workers if shard is None else 0):
            when = "while they loaded" if shard is None else f"while they made shard {shard}"
            raise UserError(
                f"{self.lost[shard]} workers were killed or lost one after the other {when}, often because memory ran "
                "out or dataengine is not on a node; the same command continues, perhaps with fewer --workers or a "
                f"smaller --batch-size. Ray says: {why}."
            )
        if number in self.actors:
            self._replace(number)


def reason(error: Exception | str) -> str:
    """Why, on one line: the last line of Ray's messages says it."""
    return shorten((str(error).strip().splitlines() or [type(error).__name__])[-1], REASON_LENGTH).rstrip(".")
