"""Text files read as UTF-8 and files that appear whole or not at all, with the user's mistakes in one sentence."""

from __future__ import annotations

import os
import re
from pathlib import Path

from dataengine.errors import UserError


def read_text(path: str | Path) -> str:
    """The file's text, UTF-8 with or without a byte order mark. Raises UserError when it is not, or cannot be read."""
    try:
        return Path(path).read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text (byte {error.start + 1}); save it as UTF-8") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); check the name and its permissions") from None


def write_whole(path: str | Path, content: bytes | str) -> None:
    """Write a file that is there whole or not at all. Raises UserError when the folder cannot be written to."""
    path = Path(path)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        try:
            fresh.write_bytes(content.encode() if isinstance(content, str) else content)
            os.replace(fresh, path)
        finally:
            if fresh.exists():
                fresh.unlink()
    except OSError as error:
        raise UserError(f"{path} could not be written ({error.strerror}); choose a folder you can write to") from error


def remove_unfinished(folder: Path) -> None:
    """Remove what `write_whole` leaves in a folder when it is killed half-way."""
    for file in folder.iterdir():
        if re.fullmatch(r"\..+\.\d+", file.name) and file.is_file():
            file.unlink()


def read_yaml(path: str | Path) -> dict:
    """The fields of a YAML file. Raises UserError, with the line, when it is no list of `field: value` lines."""
    import yaml

    try:
        values = yaml.safe_load(read_text(path)) or {}
    except yaml.YAMLError as error:
        raise UserError(f"{path}: {_fault(error)}.") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: it has to be a list of `field: value` lines.")
    return values


def _fault(error: Exception) -> str:
    """Where and why a text is not YAML, from PyYAML's error."""
    mark, why = getattr(error, "problem_mark", None), getattr(error, "problem", None) or str(error).splitlines()[0]
    return f"line {mark.line + 1} is not valid YAML ({why})" if mark is not None else f"not valid YAML ({why})"
