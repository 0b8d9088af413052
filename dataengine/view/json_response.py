"""JSON of values that anybody may have written, for a browser."""

from __future__ import annotations

import json
import math

from starlette.responses import JSONResponse

MAX_DEPTH = 50  # of nested values; deeper ones are left out


class Json(JSONResponse):
    """A response with any values of JSON files: numbers that JSON does not have are null."""

    def render(self, content: object) -> bytes:
        """The text, in ASCII: other characters are escaped."""
        try:
            return json.dumps(content, allow_nan=False, separators=(",", ":")).encode()
        except (ValueError, RecursionError):
            return json.dumps(_plain(content, 0), allow_nan=False, separators=(",", ":")).encode()


def _plain(value: object, depth: int) -> object:
    if depth > MAX_DEPTH or (isinstance(value, float) and not math.isfinite(value)):
        return None
    if isinstance(value, dict):
        return {key: _plain(item, depth + 1) for key, item in value.items()}
    return [_plain(item, depth + 1) for item in value] if isinstance(value, list | tuple) else value
