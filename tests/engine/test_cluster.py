"""A run on a Ray cluster makes what the same run makes on one machine, whatever is lost on the way."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest

from dataengine.engine import cluster
from dataengine.engine.parts import load_parts
from dataengine.engine.run import synth
from dataengine.engine.run_folder import RunFolder
from dataengine.engine.trace import read_trace
from dataengine.engine.verify import verify
from dataengine.engine.worker import Done, Job
from dataengine.errors import UserError


def content(out: Path) -> dict[str, bytes]:
    """All that a run leaves, but for what says where and when it was made, and shards that were made and not needed."""
    last = json.loads((out / "manifest.jsonl").read_text().splitlines()[-1])["image"].split("/")[1]
    files = [file.relative_to(out) for file in sorted(out.rglob("*")) if file.is_file()]
    files = [file for file in files if file.name not in (".lock", "trace.json")]
    files = [file for file in files if file.parts[0] != "shards" or file.parts[1] <= last]
    return {file.as_posix(): (out / file).read_bytes() for file in files}


@pytest.fixture(scope="module")
def three_nodes():
    """A cluster of three nodes with one core each, and a head without any, all on this machine."""
    pytest.importorskip("ray")
    os.environ.update(RAY_USAGE_STATS_ENABLED="0", PYTHONPATH=str(Path(__file__).parents[2]))
    from ray.cluster_utils import Cluster

    memory = {"object_store_memory": 80 * 2**20}
    own = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, **memory})
    nodes = [own.add_node(num_cpus=1, **memory) for _ in range(3)]
    yield own, nodes
    own.shutdown()


@pytest.mark.slow
def test_nodes_workers_and_the_run_itself_are_lost_and_every_byte_is_that_of_the_local_run(
    three_nodes, toy_recipe, tmp_path, monkeypatch
):
    """One cluster for all of it, since its workers take long to load."""
    own, nodes = three_nodes
    recipe = toy_recipe.model_copy(update={"n": 40, "shard_size": 2, "steps": 20, "max_attempts": 400})
    expected = content(synth(recipe, tmp_path / "local").out)

    file, out = tmp_path / "recipe.json", tmp_path / "killed"
    file.write_text(recipe.model_dump_json())
    program = (
        "import sys; from pathlib import Path; from dataengine.engine.recipe import Recipe; "
        "from dataengine.engine.run import synth; "
        f"synth(Recipe.model_validate_json(Path({str(file)!r}).read_text()), Path({str(out)!r}), None, "
        f"executor='ray', address={own.address!r})"
    )
    process = subprocess.Popen([sys.executable, "-c", program])
    while not (out / "shards" / "000001").exists() and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (out / "manifest.jsonl").exists(), "it was faster than we; nothing was tested"
    made_before = len(list((out / "shards").glob("0*")))

    given_up, give_up = [], cluster._Pool._give_up

    def counted(self, number, shard, error, workers):
        given_up.append(shard)
        give_up(self, number, shard, error, workers)

    monkeypatch.setattr(cluster._Pool, "_give_up", counted)
    alive = list(nodes)

    def lose_a_node(accepted: int, tried: int) -> None:
        if tried > made_before and len(alive) == 3:
            own.remove_node(alive.pop(), allow_graceful=False)

    result = synth(recipe, out, None, progress=lose_a_node, executor="ray", address=own.address)
    assert content(result.out) == expected
    assert verify(result.out).faults == []
    assert given_up, "a worker was lost with its node, and told so"
    events = read_trace(RunFolder(out))
    # what the lost one told last may be lost with it
    assert len({event["pid"] for event in events if event["name"] == "load"}) >= 2, "the work was shared"
    assert (
        len([event for event in events if event["name"] == "store"])
        == len(list((out / "shards").iterdir())) - made_before
    )


def test_a_node_without_the_data_or_with_others_says_which_node_and_what_is_missing(toy_recipe, tmp_path):
    parts = load_parts(toy_recipe)
    elsewhere = toy_recipe.model_copy(update={"data": tmp_path / "elsewhere"})
    with pytest.raises(UserError, match=r"on the node .*elsewhere: does not exist.*Every node of the cluster needs"):
        cluster.Maker().load(Job(elsewhere, parts.calibration, parts.hashes, 4), 1)
    with pytest.raises(UserError, match=r"on the node .*the model of this worker are not those"):
        cluster.Maker().load(Job(toy_recipe, parts.calibration, {**parts.hashes, "model": "0"}, 4), 1)


def test_without_ray_the_extra_is_named_and_options_of_a_cluster_need_one(toy_recipe, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"pip install 'aerial-dataengine\[ray\]'"):
        synth(toy_recipe, tmp_path / "run", executor="ray")
    with pytest.raises(UserError, match="are for --executor ray"):
        synth(toy_recipe, tmp_path / "run", address="auto")


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("127.0.0.1:1", "no Ray cluster can be reached there"),
        ("ray://127.0.0.1:1", "no Ray cluster can be reached there"),
        ("127.0.0.1:99999", "no Ray cluster can be reached there"),
        ("nonsense", "give HOST:PORT"),
        (":6379", "give HOST:PORT"),
    ],
)
def test_a_wrong_address_is_told_before_anything_is_loaded_and_leaves_nothing(address, told, toy_recipe, tmp_path):
    with pytest.raises(UserError, match=f"--address {address}: {told}"):
        synth(toy_recipe, tmp_path / "run", executor="ray", address=address)
    assert not (tmp_path / "run").exists()


@dataclass(eq=False)
class Reference:
    """Of a result of a pretended actor; shard: None of loading."""

    actor: SimpleNamespace
    shard: int | None


class PretendedRay:
    """Actors without processes, whose results come in order; one ends where `deadly` says so of its shard."""

    exceptions = SimpleNamespace(RayError=RuntimeError, RayTaskError=KeyError)

    def __init__(self, deadly):
        self.deadly, self.killed = deadly, 0

    def put(self, value):
        return value

    def remote(self, maker):
        def start():
            actor = SimpleNamespace(dead=False)
            actor.load = SimpleNamespace(remote=lambda job, number: Reference(actor, None))
            actor.make = SimpleNamespace(remote=lambda shard: Reference(actor, shard))
            return actor

        return SimpleNamespace(options=lambda **options: SimpleNamespace(remote=start))

    def wait(self, references, num_returns):
        return references[:1], references[1:]

    def get(self, reference):
        if reference.shard is None:
            return Done(None)
        reference.actor.dead |= self.deadly(reference.shard)
        if reference.actor.dead:
            raise RuntimeError("the actor died")
        return {"records.jsonl": b""}, Done(reference.shard)

    def kill(self, actor):
        self.killed += 1


def made(ray: PretendedRay, out: Path, life: float = math.inf) -> list[int]:
    """The shards that a pool of two actors tells of, where six are wanted."""
    numbers = iter(range(6))
    pool = cluster._Pool(ray, None, {}, life)
    return [done.shard for done in pool.run(2, RunFolder(out), lambda: next(numbers, None)) if done.shard is not None]


def test_what_a_lost_worker_held_is_made_again_by_others(tmp_path):
    first_time = [1, 2]  # the first actor holds 0 and 1, the second, which has loaded later, 2 and 3
    ray = PretendedRay(lambda shard: shard in first_time and first_time.remove(shard) is None)
    assert sorted(made(ray, tmp_path)) == list(range(6)), "each once"
    assert not first_time
    assert ray.killed == 2 + 2, "those that were lost, and at the end those that are left"
    assert sorted(folder.name for folder in (tmp_path / "shards").iterdir()) == [f"{n:06d}" for n in range(6)]


def test_worn_workers_are_replaced_once_they_have_given_back_what_they_hold(tmp_path):
    """So that memory does not grow with the run."""
    ray = PretendedRay(lambda shard: False)
    assert sorted(made(ray, tmp_path, life=2)) == list(range(6)), "each once"
    assert ray.killed > 2, "the first two, too"
    control = PretendedRay(lambda shard: False)
    made(control, tmp_path / "control")
    assert control.killed == 2, "at the end"


def test_worn_workers_that_are_lost_are_replaced_once(tmp_path):
    first_time = [1, 2]
    ray = PretendedRay(lambda shard: shard in first_time and first_time.remove(shard) is None)
    assert sorted(made(ray, tmp_path, life=2)) == list(range(6))


def test_a_shard_that_ends_every_worker_stops_the_run(tmp_path):
    with pytest.raises(UserError, match="workers that made shard 3 were lost one after the other"):
        made(PretendedRay(lambda shard: shard == 3), tmp_path)
    assert (tmp_path / "shards" / "000000").exists()
