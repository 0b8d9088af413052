"""Ray on this machine: who can reach it, and what a user reads when something of it is killed."""

from __future__ import annotations

import os
import signal

import psutil
import pytest
from fault_runs import contents
from ray_runs import Command, is_loopback, listening, synth_command

from dataengine.engine.cluster import check_cluster
from dataengine.engine.run import synth
from dataengine.engine.run_folder import RunFolder
from dataengine.engine.trace import read_trace
from dataengine.errors import UserError

pytestmark = pytest.mark.long
STOPPED = "stopped; finished work is kept, and the same command continues it"


@pytest.fixture(scope="module", autouse=True)
def ray():
    pytest.importorskip("ray")


def named(command: Command, *words: str) -> psutil.Process:
    """The process of a command whose name or command line has one of these words."""
    for process in command.children():
        if any(word in " ".join([process.name(), *process.cmdline()[:1]]) for word in words):
            return process
    raise AssertionError(f"no process {words}")


def sigterm(command: Command) -> None:
    command.process.terminate()


def ctrl_c(command: Command) -> None:
    """As a terminal does: to the whole group."""
    os.killpg(command.process.pid, signal.SIGINT)


def kill_raylet(command: Command) -> None:
    named(command, "raylet/raylet").kill()


def kill_head(command: Command) -> None:
    named(command, "gcs_server").kill()


def kill_driver(command: Command) -> None:
    named(command, "gcs_server").parent().kill()


@pytest.fixture(scope="module")
def expected(toy_recipe, tmp_path_factory):
    """(recipe, the files of its run in this process)."""
    recipe = toy_recipe.model_copy(update={"n": 150, "shard_size": 1, "steps": 10, "max_attempts": 400})
    return recipe, contents(synth(recipe, tmp_path_factory.mktemp("runs") / "local").out)


@pytest.mark.parametrize(
    ("strike", "exit_code", "sentence"),
    [
        (sigterm, 130, STOPPED),
        (ctrl_c, 130, STOPPED),
        (kill_raylet, 2, "error: the connection to the Ray cluster was lost: its head, the Ray node of this machine"),
        (kill_head, 2, "error: the connection to the Ray cluster was lost"),
        (kill_driver, 2, "error: the connection to the Ray cluster was lost"),
    ],
)
def test_only_this_machine_can_reach_ray_and_a_run_that_is_struck_says_so_and_can_be_continued(
    strike, exit_code, sentence, expected, tmp_path
):
    recipe, files = expected
    out = tmp_path / "ray"
    command = synth_command(recipe, out, "--workers", "1", RAY_gcs_rpc_server_reconnect_timeout_s="5")
    try:
        command.wait_for_shards(1)
        addresses = listening(command.children())
        assert len(addresses) > 4, "Ray listens, on loopback"
        assert [address for address in addresses if not is_loopback(address[0])] == []
        strike(command)
        code, lines = command.end(60)
    finally:
        command.kill()
    assert (code, len(lines)) == (exit_code, 1), lines
    assert lines[0].startswith(sentence)
    assert not (out / "manifest.jsonl").exists(), "it was faster than we; nothing was tested"
    assert contents(synth(recipe, out).out) == files


def test_another_user_is_refused_and_a_worker_that_is_killed_is_replaced_and_reported(expected, tmp_path, monkeypatch):
    recipe, files = expected
    out = tmp_path / "ray"
    command = synth_command(recipe, out, "--workers", "1")
    try:
        command.wait_for_shards(1)
        [(_, port)] = listening([named(command, "gcs_server")])
        monkeypatch.setenv("RAY_AUTH_MODE", "token")
        monkeypatch.setenv("RAY_AUTH_TOKEN", "0" * 64)
        # else Ray takes the network's address for loopback, where this cluster does not listen
        monkeypatch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        with pytest.raises(UserError, match=r"no Ray cluster can be reached there .*oken"):
            check_cluster(f"127.0.0.1:{port}")
        named(command, "ray::Maker").kill()
        code, lines = command.end(240)
    finally:
        command.kill()
    assert (code, lines) == (0, [])
    lost = [event["args"]["reason"] for event in read_trace(RunFolder(out)) if event["name"] == "lost"]
    assert any("worker process has died" in reason for reason in lost)
    assert contents(out) == files
