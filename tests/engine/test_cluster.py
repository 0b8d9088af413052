"""A run on a Ray cluster makes what the same run makes on one machine, whatever is lost on the way."""

from __future__ import annotations

import math
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from fault_runs import contents
from ray_runs import is_loopback

from dataengine.engine import cluster, ray_driver, ray_pool
from dataengine.engine.parts import load_parts
from dataengine.engine.run import synth
from dataengine.engine.run_folder import RunFolder
from dataengine.engine.trace import read_trace
from dataengine.engine.verify import verify
from dataengine.engine.worker import AHEAD, Job
from dataengine.errors import UserError


@pytest.fixture(scope="module")
def three_nodes():
    """A cluster of three nodes with one core each, and a head without any, all on this machine."""
    pytest.importorskip("ray")
    os.environ.update(RAY_USAGE_STATS_ENABLED="0", PYTHONPATH=str(Path(__file__).parents[2]))
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # on loopback
    from ray.cluster_utils import Cluster

    memory = {"object_store_memory": 80 * 2**20}
    own = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, **memory})
    nodes = [own.add_node(num_cpus=1, **memory) for _ in range(3)]
    yield own, nodes
    own.shutdown()


@pytest.mark.slow
def test_nodes_workers_and_the_run_itself_are_lost_and_every_byte_is_that_of_the_local_run(
    three_nodes, toy_recipe, tmp_path
):
    """One cluster for all of it, since its workers take long to load."""
    own, nodes = three_nodes
    recipe = toy_recipe.model_copy(update={"n": 40, "shard_size": 2, "steps": 20, "max_attempts": 400})
    expected = contents(synth(recipe, tmp_path / "local").out)

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

    alive = list(nodes)

    def lose_a_node(accepted: int, tried: int) -> None:
        if tried > made_before and len(alive) == 3:
            own.remove_node(alive.pop(), allow_graceful=False)

    result = synth(recipe, out, None, progress=lose_a_node, executor="ray", address=own.address)
    assert contents(result.out) == expected
    assert verify(result.out).faults == []
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
        ray_pool.Maker().load(pickle.dumps(Job(elsewhere, parts.calibration, parts.hashes, 4)), 1)
    with pytest.raises(UserError, match=r"on the node .*the model of this worker are not those"):
        ray_pool.Maker().load(pickle.dumps(Job(toy_recipe, parts.calibration, {**parts.hashes, "model": "0"}, 4)), 1)


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


def left_over() -> tuple[set[str], set[Path]]:
    """Processes of ours, but for the one that multiprocessing keeps, and folders of Ray."""
    processes = [process.cmdline() for process in psutil.Process().children(recursive=True)]
    ours = {" ".join(words) for words in processes if not any("resource_tracker" in word for word in words)}
    return ours, set(Path("/tmp/ray").glob("*"))


@pytest.fixture
def silent_port():
    """A server that takes connections and never says anything."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def black_hole():
    """A port whose packets are dropped: its queue of connections is full."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server, ExitStack() as stack:
        port = server.getsockname()[1]
        for _ in range(4):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(("127.0.0.1", port))
        yield port


@pytest.mark.parametrize(("port", "why"), [("silent_port", "timed out"), ("black_hole", "timed out")])
def test_an_address_that_never_answers_is_reported_in_time_and_leaves_nothing(port, why, request):
    pytest.importorskip("ray")
    before, began = left_over(), time.monotonic()
    with pytest.raises(UserError, match=f"no Ray cluster can be reached there .{why}"):
        cluster.check_cluster(f"127.0.0.1:{request.getfixturevalue(port)}")
    assert time.monotonic() - began < 20
    assert left_over() == before


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc")
def test_what_a_killed_driver_started_is_ended_also_in_groups_of_its_own_and_nothing_else():
    """As Ray's agents, which are no longer children of anything that is known."""
    own_group = f"{sys.executable} -c 'import os, time; os.setpgid(0, 0); time.sleep(100)'"
    leader = subprocess.Popen(
        ["sh", "-c", f"sleep 100 & setsid sleep 100 & {own_group} & wait"], start_new_session=True
    )
    children, deadline = psutil.Process(leader.pid).children, time.monotonic() + 20
    while len({os.getpgid(child.pid) for child in children()}) < 3:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    sessions = {child: os.getsid(child.pid) for child in children()}
    ours = [child for child, session in sessions.items() if session == leader.pid]
    [other] = sessions.keys() - ours
    try:
        leader.kill()
        leader.wait()
        assert all(child.is_running() for child in ours), "that ends none of them"
        cluster._kill_session(leader.pid)
        assert psutil.wait_procs(ours, timeout=10)[1] == []
        assert other.is_running()
    finally:
        for child in sessions:
            with suppress(psutil.NoSuchProcess):
                child.kill()


def test_a_port_is_known_to_be_rays_or_not():
    """A server that greets as gRPC does, one that speaks HTTP/1.1, and one that hangs up."""
    settings = bytes([0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 5, 0, 0, 64, 0])
    for greeting in (settings, b"HTTP/1.1 400 Bad Request\r\n\r\n", b""):
        with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(1) as pool:

            def answer(server=server, greeting=greeting) -> bytes:
                with server.accept()[0] as connection:
                    connection.sendall(greeting)
                    return connection.recv(100)

            preface = pool.submit(answer)
            address = f"127.0.0.1:{server.getsockname()[1]}"
            if greeting is settings:
                ray_driver.check_port(address)
            else:
                with pytest.raises(UserError, match="what listens there is not Ray"):
                    ray_driver.check_port(address)
            assert preface.result().startswith(b"PRI * HTTP/2.0")


def test_the_tests_know_loopback():
    addresses = ("127.0.0.1", "::1", "::ffff:127.0.0.1", "0.0.0.0", "::", "192.0.2.2", "::ffff:192.0.2.2", "fe80::1")
    assert [is_loopback(address) for address in addresses] == [True] * 3 + [False] * 5


def test_a_local_ray_that_would_listen_on_the_network_is_refused(monkeypatch):
    """For versions of Ray in which the switch does nothing."""
    ray = SimpleNamespace(
        __version__="1", init=lambda *_, **__: None, util=SimpleNamespace(get_node_ip_address=lambda: "192.0.2.7")
    )
    with pytest.raises(UserError, match="would listen on the network"):
        ray_driver.connect(ray, None)
    ray_driver.connect(ray, "192.0.2.7:6379")  # a cluster has to
    ray.util.get_node_ip_address = lambda: "127.0.0.1"
    ray_driver.connect(ray, None)


@dataclass(eq=False)
class Reference:
    """Of a result of a pretended actor; shard: None of loading."""

    actor: SimpleNamespace
    shard: int | None


class PretendedRay:
    """Actors without processes, whose results come in order; one ends where `deadly` says so of its shard."""

    exceptions = SimpleNamespace(RayError=RuntimeError, RayTaskError=KeyError)

    def __init__(self, deadly):
        self.deadly, self.killed, self.node_alive = deadly, 0, True

    def put(self, value):
        return value

    def remote(self, maker):
        def start():
            actor = SimpleNamespace(dead=False)
            actor.load = SimpleNamespace(remote=lambda job, number: Reference(actor, None))
            actor.make = SimpleNamespace(remote=lambda shard: Reference(actor, shard))
            return actor

        return SimpleNamespace(options=lambda **options: SimpleNamespace(remote=start))

    def cluster_resources(self):
        return {"CPU": 2.0}

    def get_runtime_context(self):
        return SimpleNamespace(get_node_id=lambda: "here")

    def nodes(self):
        return [{"NodeID": "here", "Alive": self.node_alive}, {"NodeID": "there", "Alive": True}]

    def wait(self, references, num_returns, timeout):
        return references[:1], references[1:]

    def get(self, reference):
        if reference.shard is None:
            return []
        reference.actor.dead |= self.deadly(reference.shard)
        if reference.actor.dead:
            raise RuntimeError("the actor died")
        return {"records.jsonl": b"{}"}, [{"name": "render"}]

    def kill(self, actor):
        self.killed += 1


def pool(ray: PretendedRay, life: float = math.inf) -> ray_pool.Pool:
    return ray_pool.Pool(ray, ray_pool.Plan(b"", 2, None, AHEAD, (life, math.inf)), lambda: None)


def made(ray: PretendedRay, life: float = math.inf) -> list[int]:
    """The shards that a pool of two actors gives back, where six are wanted."""
    numbers = iter(range(6))
    return [shard for shard, *_ in pool(ray, life).run(lambda: next(numbers, None)) if shard is not None]


def test_what_a_lost_worker_held_is_made_again_by_others():
    first_time = [1, 2]  # the first actor holds 0 and 1, the second, which has loaded later, 2 and 3
    ray = PretendedRay(lambda shard: shard in first_time and first_time.remove(shard) is None)
    assert sorted(made(ray)) == list(range(6)), "each once"
    assert not first_time
    assert ray.killed == 2 + 2, "those that were lost, and at the end those that are left"


def test_worn_workers_are_replaced_once_they_have_given_back_what_they_hold():
    """So that memory does not grow with the run."""
    ray = PretendedRay(lambda shard: False)
    assert sorted(made(ray, life=2)) == list(range(6)), "each once"
    assert ray.killed > 2, "the first two, too"
    control = PretendedRay(lambda shard: False)
    made(control)
    assert control.killed == 2, "at the end"


def test_worn_workers_that_are_lost_are_replaced_once():
    first_time = [1, 2]
    ray = PretendedRay(lambda shard: shard in first_time and first_time.remove(shard) is None)
    assert sorted(made(ray, life=2)) == list(range(6))


def test_a_shard_that_ends_every_worker_stops_the_run_and_says_that_they_were_killed():
    lost, numbers = [], iter(range(6))

    def run_on() -> None:
        for *_, events in pool(PretendedRay(lambda shard: shard == 3)).run(lambda: next(numbers, None)):
            lost.extend(event["args"] for event in events if event["name"] == "lost")

    told = r"5 workers were killed or lost .* while they made shard 3.*: the actor died\."
    with pytest.raises(UserError, match=told):
        run_on()
    assert {event["reason"] for event in lost} == {"the actor died"}
    assert len([event for event in lost if event["shard"] == 3]) == ray_pool.TRIES


def test_when_the_raylet_of_this_machine_is_dead_no_other_worker_is_tried():
    ray = PretendedRay(lambda shard: True)
    ray.node_alive = False
    with pytest.raises(UserError, match=r"Ray node of this machine .* was killed"):
        made(ray)
    assert ray.killed == 2, "those that there were"


def test_a_run_without_any_node_left_ends_and_one_that_waits_for_its_turn_does_not(monkeypatch):
    monkeypatch.setattr(ray_pool, "NO_ROOM_SECONDS", 0)
    ray, silence = PretendedRay(lambda shard: False), iter(range(3))
    answer = ray.wait
    ray.wait = lambda refs, **how: ([], refs) if next(silence, None) is not None else answer(refs, **how)
    assert sorted(made(ray)) == list(range(6))
    assert next(silence, None) is None
    silence = iter(range(3))
    ray.cluster_resources = lambda: {"memory": 1.0}
    with pytest.raises(UserError, match="no node of the Ray cluster has had a CPU"):
        made(ray)


def test_files_and_memory_that_fail_on_a_node_are_not_the_run_folders():
    """An OSError of the run folder tells to free some space there."""
    maker = ray_pool.Maker()
    maker._rendering = threading.Lock()
    for raised, told in ((FileNotFoundError(2, "No such file", "scene.png"), "scene.png: No such file"),
                         (BrokenPipeError(32, "Broken pipe"), "a file: Broken pipe"),
                         (MemoryError(), "a worker ran out of memory")):  # fmt: skip
        future = Future()
        future.set_exception(raised)
        maker._worker = SimpleNamespace(start=lambda shard, files, future=future: future)
        with pytest.raises(UserError, match=f"on the node .*: {told}.*the same command continues"):
            maker.make(0)
