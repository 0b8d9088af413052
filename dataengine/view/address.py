"""Parameters of the page's address that are no part of a filter; `static/address.js` has the filter's names."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.requests import Request

PAGE_PARAMETERS = frozenset({
    "start", "n", "v", "side", "view", "id", "at", "tile", "boxes", "layers", "zoom", "least", "pair", "edit", "object",
    "crops", "order", "colour", "open", "on", "seed", "outcome",
})  # fmt: skip


def lists(request: Request) -> dict[str, list[str]]:
    """Parameters of the address, each with all its values."""
    return {name: request.query_params.getlist(name) for name in request.query_params}
