"""Machines on this machine: each has its own network, processes, host name and /tmp/ray, and a cable that can be cut.

Linux namespaces, so only root can make them. The switch has one, too: the network of this machine is not touched.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

RAY_FOLDER = Path("/tmp/ray")
MAX_ERROR_LENGTH = 200


def _run(*command: object) -> None:
    subprocess.run([str(word) for word in command], check=True, capture_output=True, text=True)


def why_not() -> str | None:
    """Why namespaces cannot be made here, None where they can."""
    missing = [
        name for name in ("ip", "unshare", "nsenter", "setpriv", "mount", "hostname") if shutil.which(name) is None
    ]
    if missing:
        return f"{', '.join(missing)} is not installed"
    try:
        with network(1) as [host]:
            subprocess.run(host.command("true"), check=True, capture_output=True, text=True)
    except (subprocess.SubprocessError, OSError) as error:
        return f"no network namespaces: {(getattr(error, 'stderr', '') or str(error)).strip()[:MAX_ERROR_LENGTH]}"
    return None


@dataclass
class Host:
    """address: of it. switch, port: namespace and interface at the other end of its cable. init: its first process."""

    name: str
    address: str
    switch: str
    port: str
    init: subprocess.Popen

    def command(self, *words: str) -> list[str]:
        """What to run for a command on this host."""
        [first] = Path(f"/proc/{self.init.pid}/task/{self.init.pid}/children").read_text().split()
        return ["nsenter", "--target", first, "--mount", "--uts", "--net", "--pid", *words]

    def cut(self) -> None:
        _run("ip", "-n", self.switch, "link", "set", self.port, "down")

    def heal(self) -> None:
        _run("ip", "-n", self.switch, "link", "set", self.port, "up")


@contextmanager
def network(n: int) -> Iterator[Sequence[Host]]:
    """Hosts 10.77.0.1, 10.77.0.2, ... at a switch. All of their processes end with the context."""
    prefix = f"de{os.getpid()}"
    switch, hosts, namespaces = f"{prefix}s", [], []
    RAY_FOLDER.mkdir(exist_ok=True)
    try:
        _run("ip", "netns", "add", switch)
        namespaces.append(switch)
        _run("ip", "-n", switch, "link", "add", "bridge", "type", "bridge")
        _run("ip", "-n", switch, "link", "set", "bridge", "up")
        for i in range(1, n + 1):
            space, address, port = f"{prefix}h{i}", f"10.77.0.{i}", f"port{i}"
            _run("ip", "netns", "add", space)
            namespaces.append(space)
            _run("ip", "-n", switch, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", space)
            _run("ip", "-n", switch, "link", "set", port, "master", "bridge", "up")
            _run("ip", "-n", space, "address", "add", f"{address}/24", "dev", "eth0")
            for interface in ("eth0", "lo"):
                _run("ip", "-n", space, "link", "set", interface, "up")
            setup = f"hostname host{i} && mount -t tmpfs tmpfs {RAY_FOLDER} && echo ready && exec sleep infinity"
            isolate = ["unshare", "--mount", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc"]
            init = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "ip", "netns", "exec", space, *isolate, "sh", "-c", setup],
                text=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
            hosts.append(Host(f"host{i}", address, switch, port, init))
            if init.stdout.readline() != "ready\n":
                raise OSError(init.stderr.read())
        yield hosts
    finally:
        for host in hosts:
            host.init.kill()
            host.init.communicate()
        for space in namespaces:
            _run("ip", "netns", "delete", space)
