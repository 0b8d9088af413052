"""`dataengine synth --executor ray` as a user starts it, and what it leaves behind."""

from __future__ import annotations

import ipaddress
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
from network_hosts import Host

from dataengine.engine.recipe import Recipe
from dataengine.engine.run_folder import RunFolder

REPOSITORY = Path(__file__).parents[1]
SMALL_RAY = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DEFAULT_OBJECT_STORE_MAX_MEMORY_BYTES": str(100 * 2**20)}

AGENTS_SECONDS = 30  # Ray's own agents look for their raylet five times, every two seconds


def wait_until(is_so: Callable[[], object], seconds: float) -> bool:
    """Whether it becomes so in time."""
    end = time.monotonic() + seconds
    while not (result := is_so()) and time.monotonic() < end:
        time.sleep(0.05)
    return bool(result)


def finished_shards(out: Path) -> set[str]:
    return {folder.name for folder in RunFolder(out).shards.glob("0*")}


def started_by(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def listening(processes: list[psutil.Process]) -> list[tuple[str, int]]:
    """Addresses and ports at which processes wait for TCP connections or UDP packets."""
    addresses = []
    for process in processes:
        try:
            connections = process.net_connections("inet")
        except psutil.NoSuchProcess:
            continue
        addresses += [tuple(c.laddr) for c in connections if c.status == "LISTEN" or (c.laddr and not c.raddr)]
    return addresses


def is_loopback(address: str) -> bool:
    ip = ipaddress.ip_address(address)
    return (getattr(ip, "ipv4_mapped", None) or ip).is_loopback


@dataclass
class Command:
    """A synth command at work in a session of its own."""

    process: subprocess.Popen
    out: Path
    started: dict[int, psutil.Process]

    def children(self) -> list[psutil.Process]:
        """Its processes. All that were ever seen are remembered."""
        now = started_by(self.process.pid)
        self.started |= {child.pid: child for child in now}
        return now

    def wait_for_shards(self, n: int) -> None:
        """Until n shards more than at the start are there."""
        before = len(finished_shards(self.out))

        def enough() -> bool:
            self.children()
            return len(finished_shards(self.out)) >= before + n or self.process.poll() is not None

        assert wait_until(enough, 240), "no shard in four minutes"
        assert self.process.poll() is None, self.process.stderr.read()

    def end(self, seconds: float) -> tuple[int, list[str]]:
        """Exit code and lines on standard error. Fails where the command or one of its processes lives longer."""
        self.children()
        try:
            _, errors = self.process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise
        wait_until(lambda: not any(map(lives, self.started.values())), AGENTS_SECONDS)
        left = [" ".join(process.cmdline())[:80] for process in self.started.values() if lives(process)]
        self.kill()
        assert not left, f"processes are left behind: {left}"
        return self.process.returncode, errors.splitlines()

    def kill(self) -> None:
        self.process.kill()
        for child in [*self.started.values(), *started_by(self.process.pid)]:
            if child.is_running():
                child.kill()


def synth_command(recipe: Recipe, out: Path, *options: str, host: Host | None = None, **environment: str) -> Command:
    """Start `dataengine synth` with a recipe, on this machine or on a host."""
    file = out.with_name(f"{out.name}.yaml")
    file.write_text(json.dumps(recipe.model_dump(mode="json", exclude_unset=True)))
    # Ctrl-C works as at a terminal, also where the tests run in the background of a shell, which ignores it
    program = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    program += "from dataengine.cli import main; main()"
    command = [sys.executable, "-c", program, "synth", "--config", file, "--out", out, "--executor", "ray", *options]
    variables = {**os.environ, **SMALL_RAY, "PYTHONPATH": str(REPOSITORY), **environment}
    command = [str(word) for word in command]
    process = subprocess.Popen(
        command if host is None else host.command(*command),
        env=variables,
        start_new_session=True,
        text=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    return Command(process, out, {})
