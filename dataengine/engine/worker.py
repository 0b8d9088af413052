"""One worker: renders a batch while the batch before it is judged, encoded and stored by a second thread."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from dataengine.engine.attempt import batches, judged, paint, record
from dataengine.engine.parts import Parts, load_parts
from dataengine.engine.recipe import Recipe
from dataengine.engine.run_folder import RunFolder, ShardFolder, record_files
from dataengine.engine.trace import watch
from dataengine.errors import UserError
from dataengine.judge.calibration import Calibration
from dataengine.render.canvas import Painted
from dataengine.seeds import image_seed

NextShard = Callable[[], int | None]
AHEAD = 2  # shards that a worker holds: one that is rendered, and one that is judged and stored meanwhile
LIFE = 512  # images after which a fresh process takes a worker's place: on a CPU torch's memory grows with each


def life(recipe: Recipe, on_gpu: bool) -> float:
    """`Job.life` of a recipe's images."""
    return math.inf if on_gpu else max(1, LIFE // recipe.shard_size)


class Store(Protocol):
    """Takes the files of a shard one by one, in an order in which each may be the last that is written before a kill;
    `close` when it is whole, `abandon` when it never will be."""

    def put(self, name: str, content: bytes) -> None: ...

    def close(self) -> None: ...

    def abandon(self) -> None: ...


class Stores(Protocol):
    """The folder of a run or of a world, as its workers know it."""

    def store(self, number: int) -> Store: ...


class Makes(Protocol):
    """Starts shards one by one; the future is done when a shard is stored."""

    def start(self, shard: int, store: Store) -> Future[Done]: ...


class WorkerJob(Protocol):
    """What executors need of a job (`Job` for images, `world_worker.WorldJob`); it can be pickled."""

    def worker(self, number: int, painted: Callable[[int], None] = ...) -> Makes: ...

    def life(self, on_gpu: bool) -> float: ...


@dataclass(frozen=True)
class Job:
    """What every worker of a run needs to know. hashes: of the parts, which must be the same everywhere."""

    recipe: Recipe
    calibration: Calibration | None
    hashes: dict[str, str]
    batch_size: int | None

    def load(self) -> Parts:
        """The parts. Raises UserError where they are not those that the run was begun with."""
        parts = load_parts(self.recipe, self.calibration)
        changed = sorted(name for name in self.hashes if parts.hashes[name] != self.hashes[name])
        if changed:
            raise UserError(f"the {', '.join(changed)} of this worker are not those that the run was begun with.")
        return parts

    def worker(self, number: int, painted: Callable[[int], None] = lambda n: None) -> Worker:
        """A worker with the parts. Raises UserError as `load` does."""
        return Worker(self.load(), self.recipe, self.batch_size, number, painted)

    def life(self, on_gpu: bool) -> float:
        """Shards that a worker's process makes before a fresh one takes its place."""
        return life(self.recipe, on_gpu)


@dataclass
class Done:
    """A shard that is stored and the trace events of it. shard: None when a worker has loaded its parts, or has painted
    so many images of a shard."""

    shard: int | None
    events: list[dict] = field(default_factory=list)
    painted: int = 0


class Worker:
    """Makes shards, one after the other. Results do not depend on the overlap: each batch goes through alone.

    batch_size: None for the renderer's own. painted: called with the number of images of each batch once it is painted.
    """

    def __init__(
        self,
        parts: Parts,
        recipe: Recipe,
        batch_size: int | None,
        number: int = 1,
        painted: Callable[[int], None] = lambda n: None,
    ):
        self.parts, self.recipe, self.number, self.painted = parts, recipe, number, painted
        self.batch_size = batch_size or parts.renderer.batch_size
        self._second = ThreadPoolExecutor(1)
        self._before: Future | None = None  # the last batch that was handed over

    def start(self, shard: int, store: Store) -> Future[Done]:
        """Render a shard in this thread; the future, which is done when all of it is stored, raises what went wrong.

        No more than one batch waits for the second thread, so that memory does not grow where that is the slower one.
        """
        done, lines = Done(shard), []
        handed: list[Future] = []
        try:
            for indices in batches(self.recipe, shard, self.batch_size):
                with watch(done.events, "render", self.number, shard):
                    painted = paint(self.parts, self.recipe, indices)
                self.painted(len(indices))
                if handed:
                    handed[-1].result()
                elif self._before is not None:  # of another shard, whose own future raises what went wrong
                    wait([self._before])
                self._before = self._second.submit(
                    self._finish_batch, indices, painted, shard, store, lines, done.events
                )
                handed.append(self._before)
        except BaseException:
            if handed:
                wait(handed)
            store.abandon()
            raise
        return self._second.submit(self._close, handed, lines, store, done)

    def _finish_batch(
        self, indices: range, painted: list[Painted], shard: int, store: Store, lines: list[str], events: list[dict]
    ) -> None:
        with watch(events, "judge", self.number, shard):
            seeds = [image_seed(self.recipe.seed, index) for index in indices]
            results = [judged(self.parts, self.recipe, *each) for each in zip(painted, seeds, strict=True)]
        with watch(events, "encode", self.number, shard):
            made = [record(self.recipe, shard, index, *each) for index, each in zip(indices, results, strict=True)]
        with watch(events, "write", self.number, shard):
            for one, png in made:
                store.put(Path(one.image).name, png)
                lines.append(one.to_json())

    def _close(self, handed: list[Future], lines: list[str], store: Store, done: Done) -> Done:
        try:
            for future in handed:
                future.result()
            for name, content in record_files(lines).items():
                store.put(name, content)
            store.close()
        except BaseException:
            store.abandon()
            raise
        return done

    def stop(self) -> None:
        """End the second thread, once it has done what it was handed."""
        self._second.shutdown(wait=True)


def write_shard(parts: Parts, recipe: Recipe, run: RunFolder, number: int, batch_size: int | None) -> None:
    """Make one shard in this process, all or nothing."""
    worker = Worker(parts, recipe, batch_size)
    try:
        worker.start(number, ShardFolder(run, number)).result()
    finally:
        worker.stop()


def in_this_process(
    parts: Parts, job: Job, run: RunFolder, painted: Callable[[int], None], next_shard: NextShard
) -> Iterator[Done]:
    """Make shards with the parts that are loaded already. An interrupt ends it at once."""
    worker, waiting = Worker(parts, job.recipe, job.batch_size, painted=painted), deque()
    try:
        while True:
            number = next_shard()
            if number is not None:
                waiting.append(worker.start(number, ShardFolder(run, number)))
            elif not waiting:
                return
            if number is None or len(waiting) >= AHEAD or waiting[0].done():
                yield waiting.popleft().result()
    finally:
        worker.stop()
