"""Protection against other sites: checks of the host name, response headers, and a token for all changes.

Another page in the same browser can send requests to 127.0.0.1. It cannot read the responses (same-origin policy)
unless it points its own name here (DNS rebinding), which the Host header reveals. To prevent it from changing anything,
changes require the page's own origin and a token that only this page can read.
"""

from __future__ import annotations

import secrets

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HOSTS = ("127.0.0.1", "localhost")
TOKEN_HEADER = "x-dataengine-token"
MAX_BODY_BYTES = 2_000_000
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}


class Guard:
    """ASGI middleware that responds 400 to another host, 403 to a change without origin and token, and 413 to a large
    body; every response has `HEADERS`."""

    def __init__(self, app: ASGIApp, token: str, frame_ancestors: str = "'none'"):
        """frame_ancestors: sources of pages that may show this one in a frame, as in the Content-Security-Policy."""
        self.app, self.token = app, token
        policy = HEADERS["Content-Security-Policy"]
        policy = policy.replace("frame-ancestors 'none'", f"frame-ancestors {frame_ancestors}")
        self.headers = HEADERS | {"Content-Security-Policy": policy}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(self.headers)
            await send(message)

        refusal = self._refusal(scope["method"], Headers(scope=scope))
        await (refusal or self.app)(scope, receive, guarded)

    def _refusal(self, method: str, headers: Headers) -> JSONResponse | None:
        host = headers.get("host", "")
        if host.rpartition(":")[0] not in HOSTS and host not in HOSTS:
            return JSONResponse({"error": "open the page at the address that dataengine printed"}, 400)
        if method in ("GET", "HEAD"):
            return None
        same_origin = headers.get("origin") == f"http://{host}"
        if not same_origin or not secrets.compare_digest(headers.get(TOKEN_HEADER, "").encode(), self.token.encode()):
            return JSONResponse({"error": "only the page itself can request this; reload it"}, 403)
        size = headers.get("content-length", "")
        if not size.isdigit() or int(size) > MAX_BODY_BYTES:
            return JSONResponse({"error": "the request is too large"}, 413)
        return None
