"""Workers of the small world of `toy_world.py`, for tests of executors. It can be pickled."""

from __future__ import annotations

from dataclasses import dataclass

from toy_world import toy_world

from dataengine.engine.world_worker import ChunkWorker, WorldJob


@dataclass(frozen=True)
class ToyJob(WorldJob):
    def worker(self, number, painted=lambda n: None):
        return ChunkWorker(toy_world(), self.blocks, self.made, number)
