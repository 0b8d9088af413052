"""A Ray cluster of three machines whose cables are cut and healed makes what one machine makes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fault_runs import contents
from network_hosts import Host, network, why_not
from ray_runs import REPOSITORY, SMALL_RAY, finished_shards, synth_command, wait_until

from dataengine.engine.run import synth
from dataengine.engine.run_folder import RunFolder
from dataengine.engine.trace import read_trace

pytestmark = pytest.mark.long
RAY_VARIABLES = {
    **SMALL_RAY,
    "PYTHONPATH": str(REPOSITORY),
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": "0" * 64,
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "5",
    "RAY_gcs_rpc_server_reconnect_timeout_s": "10",
}


@pytest.fixture
def hosts():
    """Three machines without Ray."""
    pytest.importorskip("ray")
    if reason := why_not():
        pytest.skip(reason)
    with network(3) as hosts:
        yield hosts


@pytest.fixture(scope="module")
def expected(toy_recipe, tmp_path_factory):
    """(recipe, the files of its run in this process)."""
    recipe = toy_recipe.model_copy(update={"n": 150, "shard_size": 1, "steps": 10, "max_attempts": 400})
    return recipe, contents(synth(recipe, tmp_path_factory.mktemp("runs") / "local").out)


def start_ray(host: Host, log: Path, *options: str) -> None:
    """Ray on a host, as an administrator starts it; it ends with the host."""
    ray = Path(sys.executable).with_name("ray")
    command = [str(ray), "start", "--node-ip-address", host.address, "--object-store-memory", str(100 * 2**20)]
    with open(log, "a") as file:
        subprocess.run(
            host.command(*command, "--disable-usage-stats", *options),
            env={**os.environ, **RAY_VARIABLES},
            stdout=file,
            stderr=file,
            timeout=120,
            check=True,
        )


def ray_is_alive(host: Host) -> bool:
    return b"raylet/raylet" in subprocess.run(host.command("ps", "ax"), capture_output=True).stdout


def events(out: Path, name: str) -> list[dict]:
    run = RunFolder(out)
    return [event for event in read_trace(run) if event["name"] == name] if run.trace.exists() else []


def test_a_run_on_a_machine_whose_cable_is_cut_ends_in_a_sentence_and_is_continued(hosts, expected, tmp_path):
    recipe, files = expected
    head, node, _ = hosts
    address, log, out = f"{head.address}:6379", tmp_path / "ray.log", tmp_path / "ray"
    start_ray(head, log, "--head", "--port", "6379", "--num-cpus", "0", "--include-dashboard", "false")
    start_ray(node, log, "--address", address, "--num-cpus", "1")
    options = ["--workers", "1", "--address", address]

    command = synth_command(recipe, out, *options, host=node, **{**RAY_VARIABLES, "RAY_AUTH_TOKEN": "1" * 64})
    code, lines = command.end(120)
    assert (code, len(lines)) == (2, 1), lines
    assert lines[0].startswith(f"error: --address {address}: no Ray cluster can be reached there")
    assert "oken" in lines[0], "it has another token"

    command = synth_command(recipe, out, *options, host=node, **RAY_VARIABLES)
    command.wait_for_shards(1)
    node.cut()
    code, lines = command.end(120)
    assert (code, len(lines)) == (2, 1), lines
    assert lines[0].endswith("the same command continues.")
    assert not (out / "manifest.jsonl").exists(), "it was faster than we; nothing was tested"

    command = synth_command(recipe, tmp_path / "cut", *options, host=node, **RAY_VARIABLES)
    code, lines = command.end(120)
    assert (code, len(lines)) == (2, 1), lines
    assert lines[0].startswith(f"error: --address {address}: no Ray cluster can be reached there")
    assert not (tmp_path / "cut").exists()

    node.heal()
    assert wait_until(lambda: not ray_is_alive(node), 120), "the node ends, since the cluster has given it up"
    start_ray(node, log, "--address", address, "--num-cpus", "1")
    command = synth_command(recipe, out, *options, host=node, **RAY_VARIABLES)
    assert command.end(240) == (0, [])
    assert contents(out) == files


def test_a_run_on_the_head_goes_on_when_cables_are_cut_and_healed(hosts, expected, tmp_path):
    """One for good, with a worker at its end; then the other for less time than the cluster waits."""
    recipe, files = expected
    head, first, second = hosts
    address, log, out = f"{head.address}:6379", tmp_path / "ray.log", tmp_path / "ray"
    start_ray(head, log, "--head", "--port", "6379", "--num-cpus", "0", "--include-dashboard", "false")
    for node in (first, second):
        start_ray(node, log, "--address", address, "--num-cpus", "1")

    command = synth_command(recipe, out, "--workers", "2", "--address", address, host=head, **RAY_VARIABLES)
    try:
        assert wait_until(lambda: len(events(out, "load")) == 2, 240), "both load"
        first.cut()
        assert wait_until(lambda: events(out, "lost"), 120), "a worker was lost with its cable"
        before = finished_shards(out)
        assert wait_until(lambda: len(finished_shards(out)) > len(before), 240), "the other one goes on"
        second.cut()
        time.sleep(1)
        second.heal()
        first.heal()
        assert command.end(240) == (0, [])
    finally:
        command.kill()
    assert contents(out) == files
