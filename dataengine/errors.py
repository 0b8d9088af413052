"""`UserError`, the exception for bad input, and helpers that phrase its messages."""

from __future__ import annotations

import difflib
import errno
import importlib.util
from collections.abc import Iterable, Sequence


class UserError(Exception):
    """Bad input. The message is one sentence that names the file, line or field and how to fix it.

    The command line prints the message without a traceback and exits with status 2. Unprintable characters, such as
    line ends or terminal commands in file names, are escaped.

    >>> str(UserError("no such file: a\\nb"))
    'no such file: a\\\\nb'
    """

    def __init__(self, message: str):
        super().__init__(printable(message))


def printable(text: str) -> str:
    """A text without characters that a terminal obeys: they are escaped. All that is printed of a file goes through it.

    >>> printable("red \\x1b[31m")
    'red \\\\x1b[31m'
    """
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


DISTRIBUTION = "aerial-dataengine"  # on the package index, where the name dataengine belongs to another project


def install(extra: str | None = None) -> str:
    """The command that installs the package, or what an extra of pyproject.toml adds to it.

    >>> install("view")
    "pip install 'aerial-dataengine[view]'"
    """
    return f"pip install {DISTRIBUTION}" if extra is None else f"pip install '{DISTRIBUTION}[{extra}]'"


def require(extra: str, *modules: str) -> None:
    """Raises UserError, with the command that installs the extra, for the first module that is not installed.

    >>> require("view", "json", "no_such")
    Traceback (most recent call last):
    dataengine.errors.UserError: no_such is not installed; install it with: pip install 'aerial-dataengine[view]'
    """
    for module in modules:
        if importlib.util.find_spec(module) is None:
            raise UserError(f"{module} is not installed; install it with: {install(extra)}")


def one_line(error: Exception) -> str:
    """The message of another library's error on one line.

    >>> one_line(ValueError("bad\\n  shape"))
    'bad shape'
    """
    return " ".join(str(error).split())


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory was lacking, whatever library says so.

    >>> is_out_of_memory(MemoryError()), is_out_of_memory(ValueError("memory"))
    (True, False)
    """
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    phrases = ("can't allocate memory", "out of memory", "can't start new thread", "bad allocation", "std::bad_alloc")
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(words in str(error) for words in phrases)
    )


def out_of_memory(who: str) -> UserError:
    """The sentence for a run that lacks memory."""
    return UserError(
        f"{who} ran out of memory; the same command continues, perhaps with fewer --workers or a smaller --batch-size."
    )


def shown(value: object) -> str:
    """The repr of a value, at most 60 characters long.

    >>> shown([1, 2])
    '[1, 2]'
    >>> len(shown("x" * 1000))
    60
    """
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # an integer of thousands of digits, or deeply nested lists
        return f"a {type(value).__name__} too large to be shown"
    return text if len(text) <= 60 else f"{text[:57]}..."


MAX_LISTED = 30  # names in a message


def listed(names: Sequence[str]) -> str:
    """Names in a row, the first `MAX_LISTED`, each at most 60 characters long.

    >>> listed(["car", "van"]), listed(["a"] * 1000)[-16:]
    ('car, van', 'a and 970 others')
    """
    short = [name if len(name) <= 60 else f"{name[:57]}..." for name in names[:MAX_LISTED]]
    return ", ".join(short) + (f" and {len(names) - MAX_LISTED} others" if len(names) > MAX_LISTED else "")


def counted(number: float, what: str) -> str:
    """A number and what it counts, in the singular where it is 1.

    >>> counted(1, "minute"), counted(0.5, "minute"), counted(1234567, "step")
    ('1 minute', '0.5 minutes', '1,234,567 steps')
    """
    text = f"{number:,}" if isinstance(number, int) else f"{number:,g}"
    return f"{text} {what}{'' if number == 1 else 's'}"


def first_fault(error, fields: Iterable[str] = ()) -> str:
    """The field and message of the most helpful error in a pydantic ValidationError.

    For an unknown field, the message names the closest of `fields`.
    """
    faults = error.errors()
    # a misspelt field is unknown and the right one missing: the former is more helpful
    fault = next((fault for fault in faults if fault["type"] == "extra_forbidden"), faults[0])
    names = [str(part) for part in fault["loc"]]
    message = fault["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    if fault["type"] == "extra_forbidden":
        close = difflib.get_close_matches(names[-1], list(fields), 1)
        message = f"no such field; perhaps {close[0]}" if close else f"no such field; known are {', '.join(fields)}"
    elif isinstance(fault["input"], int | float | str) and fault["type"] not in ("missing", "json_invalid"):
        message += f", not {shown(fault['input'])}"
    return f"{'.'.join(names)}: {message}" if names else message
