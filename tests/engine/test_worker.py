"""A worker renders one batch while the one before is judged and stored."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import pytest
from dataengine.engine.shard import Attempt, ShardFolder, read_shard

from dataengine.data.layout import Layout
from dataengine.engine import worker as worker_module
from dataengine.engine.parts import load_parts
from dataengine.engine.recipe import Recipe
from dataengine.engine.worker import Job, Worker
from dataengine.errors import UserError
from dataengine.judge.verdict import Verdict

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
        return list(indices)

    def judge(parts, recipe, rendered):
        for wait in judging:
            wait(rendered[0])
        image, verdict = np.zeros((8, 8, 3), np.uint8), Verdict(True, "", [], [], [])
        return [Attempt(i, NOTHING, image, NOTHING, "", "", "", (), verdict) for i in rendered]

    monkeypatch.setattr(worker_module, "render_batch", render)
    monkeypatch.setattr(worker_module, "judge_batch", judge)
    return begun, judging


@pytest.mark.parametrize(("second", "overlaps"), [(lambda: ThreadPoolExecutor(1), True), (InPlace, False)])
def test_the_next_batch_is_rendered_while_one_is_judged_also_across_shards(staged, tmp_path, second, overlaps):
    begun, judging = staged
    met = []
    judging.append(lambda first: met.append(begun[first + 2].wait(30 if overlaps else 0.05)))
    worker = Worker(None, RECIPE, batch_size=2)
    worker._second = second()
    futures = [worker.start(shard, ShardFolder(tmp_path, shard)) for shard in range(3)]
    begun[12].set()  # after the last one
    assert [future.result().shard for future in futures] == [0, 1, 2]
    worker.stop()
    assert met == [overlaps] * 6, "each batch met the next one while it was judged"
    assert [len(read_shard(tmp_path, shard)) for shard in range(3)] == [4, 4, 4]


def test_no_more_than_one_batch_waits_for_the_judge(staged, tmp_path):
    begun, judging = staged
    go_on = threading.Event()
    judging.append(lambda first: go_on.wait(30))
    worker = Worker(None, RECIPE, batch_size=2)
    rendering = threading.Thread(target=lambda: [worker.start(n, ShardFolder(tmp_path, n)) for n in range(3)])
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
    futures = [worker.start(shard, ShardFolder(tmp_path, shard)) for shard in range(3)]
    worker.stop()
    assert [type(future.exception()) for future in futures] == [type(None), OSError, type(None)]
    assert sorted(folder.name for folder in (tmp_path / "shards").iterdir()) == ["000000", "000002"]


def test_a_worker_with_other_parts_than_the_runs_is_refused(toy_recipe):
    parts = load_parts(toy_recipe)
    assert Job(toy_recipe, parts.calibration, parts.hashes, 4).load().hashes == parts.hashes
    with pytest.raises(UserError, match="the layouts of this worker are not those"):
        Job(toy_recipe, parts.calibration, {**parts.hashes, "layouts": "others"}, 4).load()
