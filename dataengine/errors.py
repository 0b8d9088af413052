"""The one exception that a user's mistake raises, and the words for what pydantic finds."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Bad input, said in one sentence that names the file, line or field and the mend.

    The command line prints the sentence and exits with status 2; it never shows a traceback for it. What cannot be
    printed, such as a line's end or a terminal's commands in a stranger's file name, is shown as its escape.
    """

    def __init__(self, message: str):
        super().__init__("".join(c if c.isprintable() else repr(c)[1:-1] for c in message))


def install(extra: str) -> str:
    """The command that installs what an extra of pyproject.toml names; from the folder, for on PyPI the name dataengine
    belongs to another project."""
    return f"pip install '.[{extra}]' in dataengine's folder"


def one_line(error: Exception) -> str:
    """What another library's error says, on one line."""
    return " ".join(str(error).split())


def shown(value: object) -> str:
    """The value as a sentence can show it: no longer than 60 characters, however large it is."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # an integer of thousands of digits, or lists in lists
        return f"a {type(value).__name__} too large to be shown"
    return text if len(text) <= 60 else f"{text[:57]}..."


def first_fault(error, fields: Iterable[str] = ()) -> str:
    """The fault to mend first in a pydantic ValidationError, after the name of its field.

    A field that is not known comes with the one of `fields` that may have been meant.
    """
    faults = error.errors()
    # a name that is not known says more than that the one it stands for is missing
    fault = next((fault for fault in faults if fault["type"] == "extra_forbidden"), faults[0])
    names = [str(part) for part in fault["loc"]]
    message = fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "extra_forbidden":
        close = difflib.get_close_matches(names[-1], list(fields), 1)
        message = f"no such field; perhaps {close[0]}" if close else f"no such field; known are {', '.join(fields)}"
    elif isinstance(fault["input"], int | float | str) and fault["type"] not in ("missing", "json_invalid"):
        message += f", not {fault['input']!r}"
    return f"{'.'.join(names)}: {message}" if names else message
