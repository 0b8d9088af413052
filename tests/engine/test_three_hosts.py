"""A Ray cluster of three machines whose cables are cut and healed makes what one machine makes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from fault_runs import contents
from network_hosts import Host, network, why_not
from ray_runs import REPOSITORY, SMALL_RAY, finished_shards, synth_command, wait_until

from dataengine.engine.run import synth
from dataengine.engine.run_folder import RunFolder
from dataengine.engine.trace import read_trace

pytestmark = pytest.mark.slow
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


def test_cables_that_are_cut_and_healed_change_no_byte(hosts, toy_recipe, tmp_path):
    recipe = toy_recipe.model_copy(update={"n": 10, "shard_size": 1, "steps": 10, "max_attempts": 400})
    expected, out = contents(synth(recipe, tmp_path / "local").out), tmp_path / "ray"
    head, first, second = hosts
    address, log = f"{head.address}:6379", tmp_path / "ray.log"

    def join(host: Host) -> None:
        start_ray(host, log, "--address", address, "--num-cpus", "1")

    start_ray(head, log, "--head", "--port", "6379", "--num-cpus", "0", "--include-dashboard", "false")
    join(first)
    join(second)
    options = ["--workers", "2", "--address", address]

    # without the token of the cluster
    command = synth_command(recipe, out, *options, host=head, **{**RAY_VARIABLES, "RAY_AUTH_TOKEN": "1" * 64})
    code, lines = command.end(120)
    assert (code, len(lines)) == (2, 1), lines
    assert lines[0].startswith(f"error: --address {address}: no Ray cluster can be reached there")

    # the run is on a node that loses the head
    command = synth_command(recipe, out, *options, host=first, **RAY_VARIABLES)
    command.wait_for_shards(1)
    first.cut()
    code, lines = command.end(120)
    assert (code, len(lines)) == (2, 1), lines
    assert "the same command continues" in lines[0]
    made = finished_shards(out)
    command = synth_command(recipe, tmp_path / "cut", *options, host=first, **RAY_VARIABLES)
    code, lines = command.end(120)
    assert (code, len(lines)) == (2, 1), lines
    assert lines[0].startswith(f"error: --address {address}: no Ray cluster can be reached there")
    assert not (tmp_path / "cut").exists()
    first.heal()
    assert wait_until(lambda: not ray_is_alive(first), 120), "the node ends, since the cluster has given it up"
    join(first)

    # the run is on the head, and loses a node for good, and both for a moment
    command = synth_command(recipe, out, *options, host=head, **RAY_VARIABLES)
    try:
        assert wait_until(lambda: len(events(out, "load")) == 2, 240), "both load"
        first.cut()
        assert wait_until(lambda: events(out, "lost"), 120), "a worker was lost with its cable"
        now = finished_shards(out)
        assert wait_until(lambda: len(finished_shards(out)) > len(now), 240), "the other one goes on"
        second.cut()
        second.heal()
        first.heal()
        code, lines = command.end(240)
    finally:
        command.kill()
    assert (code, lines) == (0, [])
    assert made < finished_shards(out)
    assert contents(out) == expected
