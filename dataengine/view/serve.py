"""The server, on 127.0.0.1 only. From another machine, use `ssh -L`."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from contextlib import suppress

import uvicorn

from dataengine.errors import UserError

HOST = "127.0.0.1"


def server_of(app, port: int) -> tuple[uvicorn.Server, socket.socket, str]:
    """A server that is ready to run, its open socket, and the page's address. port: 0 for any free port.

    Raises UserError when the port is in use.
    """
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
    except OSError as error:
        listener.close()
        if error.errno not in (errno.EADDRINUSE, errno.EACCES):
            raise
        raise UserError(f"--port {port}: {error.strerror.lower()}; choose another, or 0 for any free port.") from None
    listener.listen(128)
    config = uvicorn.Config(app, log_level="warning", lifespan="off", server_header=False, timeout_graceful_shutdown=1)
    return uvicorn.Server(config), listener, f"http://{HOST}:{listener.getsockname()[1]}"


def serve(app, port: int, started: Callable[[str], None]) -> None:
    """Serve until Ctrl-C. started: called with the address before the first response. Raises UserError as above."""
    server, listener, address = server_of(app, port)
    with listener:
        started(address)
        with suppress(KeyboardInterrupt):  # the regular end
            server.run(sockets=[listener])
