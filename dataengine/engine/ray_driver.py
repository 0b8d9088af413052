"""The process that speaks with Ray for a run.

It is a child of the run (`cluster.py`): Ray ends the process that uses it when the head of the cluster is lost, takes
over its signal handlers and prints to its standard error. It loads no model: only the actors do.
"""

from __future__ import annotations

import ipaddress
import os
import secrets
import socket
import traceback
from multiprocessing.connection import Connection

from dataengine.engine.ray_pool import Plan, Pool, reason
from dataengine.errors import UserError

TCP_SECONDS = 5
SILENCE_SECONDS = 20  # without acknowledgement, after which Ray reconnects to the head; its own default is 120
HTTP2_SETTINGS = bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])  # RFC 9113, sections 3.4 and 6.5: both sides send one first
HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + HTTP2_SETTINGS


def import_ray(address: str | None):
    """The module, set up for a cluster at `address`, or for a new one that only this user of this machine can reach."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # no network but the cluster's
    if address is None:
        # Ray's own switch to bind to loopback: it replaces a node address of 127.0.0.1 that it is given
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
        os.environ["RAY_AUTH_MODE"] = "token"  # Ray below 2.52 knows no tokens
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    else:
        os.environ.setdefault("RAY_grpc_client_keepalive_timeout_ms", str(1000 * SILENCE_SECONDS))
    import ray

    return ray


def check_port(address: str) -> None:
    """Raise UserError where nothing listens at HOST:PORT, or what does not speak HTTP/2, as Ray's gRPC does."""
    failure = f"--address {address}: no Ray cluster can be reached there"
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=TCP_SECONDS) as connection:
            if os.environ.get("RAY_USE_TLS", "").lower() in ("1", "true"):
                return
            connection.sendall(HTTP2_PREFACE)
            answer = connection.makefile("rb").read(len(HTTP2_SETTINGS))
    except (OSError, OverflowError) as error:
        raise UserError(f"{failure} ({getattr(error, 'strerror', 0) or error}).") from None
    if answer[3:5] != HTTP2_SETTINGS[3:5]:  # type and flags of the frame
        raise UserError(f"{failure} (what listens there is not Ray).")


def connect(ray, address: str | None) -> None:
    """Connect to the cluster, or start one on this machine. Raises UserError when that fails."""
    options = {"log_to_driver": False, "logging_level": "CRITICAL"}
    if address is None:
        options["include_dashboard"] = False
    try:
        ray.init(address or "local", **options)
    except Exception as error:  # Ray raises bare exceptions, too
        failure = f"--address {address}: no Ray cluster can be reached there"
        raise UserError(f"{failure if address else 'Ray cannot start on this machine'} ({reason(error)}).") from None
    if address is None and not ipaddress.ip_address(ray.util.get_node_ip_address()).is_loopback:
        raise UserError(
            f"Ray {ray.__version__} would listen on the network, though only this machine should reach it; install "
            "another version of Ray, or use --executor local."
        )


def drive(connection: Connection, address: str | None, plan: Plan | None, said: str) -> None:
    """The life of the process. It tells (kind, value); only "next" is answered. plan: None to only connect. said: a
    file for what Ray prints."""
    if hasattr(os, "setsid"):
        os.setsid()  # the signals of a terminal are for the run, which ends this process
    log = os.open(said, os.O_WRONLY | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)

    def tell(kind: str, value: object = None) -> None:
        try:
            connection.send((kind, value))
        except OSError:
            raise SystemExit from None  # the run has ended

    def next_shard() -> int | None:
        tell("next")
        try:
            return connection.recv()
        except (EOFError, OSError):
            raise SystemExit from None

    def check_run() -> None:
        if connection.poll():  # nothing was asked, so the run has ended
            raise SystemExit

    try:
        tell("started")
        if address not in (None, "auto"):
            check_port(address)
        tell("reachable")
        ray = import_ray(address)
        tell("imported")
        try:
            connect(ray, address)
            tell("connected")
            if plan is not None:
                for result in Pool(ray, plan, check_run).run(next_shard):
                    tell("result", result)
        finally:
            ray.shutdown()
        tell("end")
    except UserError as error:
        tell("error", error)
    except Exception as error:
        tell("error", RuntimeError("".join(traceback.format_exception(error))))
