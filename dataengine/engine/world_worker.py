"""Workers of a world: the same executors as for images, chunks of blocks in place of shards."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path

from dataengine.engine.recipe import Recipe
from dataengine.engine.trace import watch
from dataengine.engine.worker import LIFE, Done, Store
from dataengine.errors import UserError
from dataengine.judge.calibration import Calibration
from dataengine.world.blocks import CHUNK_BLOCKS, BlockFolder, Regions

IMAGE_PX = 256  # of the images that LIFE counts


@dataclass(frozen=True)
class WorldSettings:
    """What a world is beyond its recipe.

    size: side in pixels. ground: folder of a whole-image renderer; the packaged one if None. levels: number of scales,
    each of half the resolution of the one before. like: folder of images that the ground is to look like; style_px:
    distance of the places that each look like one of them.
    """

    size: int
    ground: Path | None = None
    levels: int = 1
    like: Path | None = None
    style_px: int = 1024


@dataclass(frozen=True)
class WorldJob:
    """What every worker of a world needs to know (`worker.WorkerJob`). hashes: of the parts, which must be the same
    everywhere. blocks: where they go. made: names of those that are there already. stages: folder of what blocks are
    made from, that all workers share; None where they share no disk."""

    recipe: Recipe
    settings: WorldSettings
    calibration: Calibration | None
    hashes: dict[str, str]
    blocks: BlockFolder
    made: frozenset[str] = field(default_factory=frozenset)
    stages: Path | None = None

    def worker(self, number: int, painted: Callable[[int], None] = lambda n: None) -> ChunkWorker:
        """A worker with the world. Raises UserError where its parts are not those that the world was begun with."""
        from dataengine.engine.world import load_world

        world, parts = load_world(self.recipe, self.settings, self.calibration)
        changed = sorted(name for name in self.hashes if parts.hashes.get(name) != self.hashes[name])
        if changed:
            raise UserError(f"the {', '.join(changed)} of this worker are not those that the world was begun with.")
        if self.stages is not None:
            world.keep_in(self.stages)
        return ChunkWorker(world, self.blocks, self.made, number)

    def life(self, on_gpu: bool) -> float:
        """Chunks that a worker's process makes before a fresh one takes its place."""
        return float("inf") if on_gpu else max(1, LIFE * IMAGE_PX**2 // (CHUNK_BLOCKS * self.blocks.side) ** 2)

    def missing(self) -> list[int]:
        """Chunks that have a block to be made."""
        chunks = self.blocks.chunks()
        return [n for n, chunk in enumerate(chunks) if any(self.blocks.name(block) not in self.made for block in chunk)]


@dataclass
class ChunkWorker:
    """Makes chunks, one after the other, without the blocks that are there."""

    world: Regions
    blocks: BlockFolder
    made: frozenset[str]
    number: int

    def start(self, shard: int, store: Store) -> Future[Done]:
        """Make a chunk in this thread (`worker.Makes`)."""
        done, future = Done(shard), Future()
        blocks = [block for block in self.blocks.chunks()[shard] if self.blocks.name(block) not in self.made]
        with watch(done.events, "render", self.number, shard):
            for name, content in self.blocks.files_of(blocks, self.world):
                store.put(name, content)
        store.close()
        future.set_result(done)
        return future
