"""A worker renders one batch while the one before is judged and stored."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import pytest

from dataengine.data.layout import Layout
from dataengine.engine import worker as worker_module
from dataengine.engine.parts import load_parts
from dataengine.engine.recipe import Recipe
from dataengine.engine.run_folder import RunFolder, ShardFolder
from dataengine.engine.worker import Job, Worker
from dataengine.errors import UserError
from dataengine.judge.verdict import Verdict
from dataengine.render.canvas import Canvas, Painted
from dataengine.seeds import image_seed

RECIPE = Recipe(dataset="hit-uav", n=100, shard_size=4)
NOTHING = Layout(np.zeros((0, 5)), np.zeros(0), (), (8, 8))


class InPlace:
    """The mutation: a second thread that is none."""

    def submit(self, function, *arguments) -> Future:
        future = Future()
        try:
            future.set_result(function(*arguments))
        except BaseException as error:
            future.set_exception(error)
        return future

    def shutdown(self, wait: bool) -> None: ...


@pytest.fixture
def staged(monkeypatch):
    """Stages that make black squares and say when they begin; `judging` may wait for what a test wants."""
    begun, judging = {i: threading.Event() for i in range(0, 100, 2)}, []

    def render(parts, recipe, indices):
        begun[indices.start].set()
        image = np.zeros((8, 8, 3), np.uint8)
        return [Painted(image, NOTHING, Canvas(image, NOTHING, NOTHING), None) for _ in indices]

    def judge(parts, recipe, painted, seed):
        index = next(i for i in range(100) if image_seed(recipe.seed, i) == seed)
        for wait in judging if index % 2 == 0 else ():  # once a batch of two
            wait(index)
        return painted, Verdict(True, "", [], [], [])

    monkeypatch.setattr(worker_module, "paint", render)
    monkeypatch.setattr(worker_module, "judged", judge)
    return begun, judging


@pytest.mark.parametrize(("second", "overlaps"), [(lambda: ThreadPoolExecutor(1), True), (InPlace, False)])
def test_the_next_batch_is_rendered_while_one_is_judged_also_across_shards(staged, tmp_path, second, overlaps):
    begun, judging = staged
    met = []
    judging.append(lambda first: met.append(begun[first + 2].wait(30 if overlaps else 0.05)))
    worker = Worker(None, RECIPE, batch_size=2)
    worker._second = second()
    futures = [worker.start(shard, ShardFolder(RunFolder(tmp_path), shard)) for shard in range(3)]
    begun[12].set()  # after the last one
    assert [future.result().shard for future in futures] == [0, 1, 2]
    worker.stop()
    assert met == [overlaps] * 6, "each batch met the next one while it was judged"
    assert [len(RunFolder(tmp_path).read_shard(shard).records) for shard in range(3)] == [4, 4, 4]


def test_no_more_than_one_batch_waits_for_the_judge(staged, tmp_path):
    begun, judging = staged
    go_on = threading.Event()
    judging.append(lambda first: go_on.wait(30))
    worker = Worker(None, RECIPE, batch_size=2)
    rendering = threading.Thread(
        target=lambda: [worker.start(n, ShardFolder(RunFolder(tmp_path), n)) for n in range(3)]
    )
    rendering.start()
    assert begun[2].wait(30)
    assert not begun[4].wait(0.2), "batch 0 is judged and batch 2 waits: nothing more is rendered"
    go_on.set()
    rendering.join()
    worker.stop()
    assert begun[10].is_set()


def test_what_goes_wrong_behind_is_raised_by_its_own_shard_and_leaves_nothing(staged, tmp_path):
    _, judging = staged

    def fail(first):
        if first == 6:
            raise OSError(28, "No space left on device")

    judging.append(fail)
    worker = Worker(None, RECIPE, batch_size=2)
    futures = [worker.start(shard, ShardFolder(RunFolder(tmp_path), shard)) for shard in range(3)]
    worker.stop()
    assert [type(future.exception()) for future in futures] == [type(None), OSError, type(None)]
    assert sorted(folder.name for folder in (tmp_path / "shards").iterdir()) == ["000000", "000002"]


def test_a_worker_with_other_parts_than_the_runs_is_refused(toy_recipe):
    parts = load_parts(toy_recipe)
    assert Job(toy_recipe, parts.calibration, parts.hashes, 4).load().hashes == parts.hashes
    with pytest.raises(UserError, match="the layouts of this worker are not those"):
        Job(toy_recipe, parts.calibration, {**parts.hashes, "layouts": "others"}, 4).load()
