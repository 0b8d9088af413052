"""What folders hold, without following links, and how a folder differs from one that was derived again."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from hashlib import file_digest
from pathlib import Path
from typing import Literal

from dataengine.files import open_regular

Kind = Literal["file", "folder", "link", "special file"]
CHUNK_BYTES = 1 << 20


def walk(folder: Path, below: str = "") -> Iterator[tuple[str, Kind]]:
    """Everything below a folder: its path from there with '/', and what it is. Links are not followed; a special file
    is a pipe, a socket or a device.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     Path(folder, "a").mkdir()
    ...     Path(folder, "a", "b").symlink_to("/dev/zero")
    ...     list(walk(Path(folder)))
    [('a', 'folder'), ('a/b', 'link')]
    """
    with os.scandir(folder / below) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    for entry in found:
        name = f"{below}/{entry.name}" if below else entry.name
        if entry.is_symlink():
            yield name, "link"
        elif entry.is_dir():
            yield name, "folder"
            yield from walk(folder, name)
        else:
            yield name, "file" if entry.is_file() else "special file"


def links_and_special_files(folder: Path) -> list[tuple[str, Kind]]:
    """All below a folder that is neither a file nor a folder. Reading it could lead elsewhere, or never end."""
    return [(name, kind) for name, kind in walk(folder) if kind in ("link", "special file")]


def sha256_of(file: Path) -> str:
    """SHA-256 of a file as a hexadecimal string."""
    with open_regular(file) as content:
        return file_digest(content, "sha256").hexdigest()


def same_bytes(a: Path, b: Path) -> bool:
    """Whether two files have the same content."""
    if a.stat().st_size != b.stat().st_size:
        return False
    with open_regular(a) as one, open_regular(b) as other:
        while content := one.read(CHUNK_BYTES):
            if content != other.read(CHUNK_BYTES):
                return False
    return True


def differences(derived: Path, folder: Path, sha256: Mapping[str, str] | None = None) -> Iterator[tuple[str, str]]:
    """(path, fault) of each file and folder of `folder` that is not as in `derived`.

    sha256: of files that are compared by checksum, whatever `derived` holds under their names.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as work:
    ...     a, b = Path(work, "a"), Path(work, "b")
    ...     for file in ("a/1", "a/2", "b/1", "b/3"):
    ...         Path(work, file).parent.mkdir(exist_ok=True)
    ...         written = Path(work, file).write_text(file)
    ...     list(differences(Path(work, "a"), Path(work, "b")))
    [('1', 'is not what was written'), ('2', 'is missing'), ('3', 'does not belong here')]
    """
    expected, found = dict(walk(derived)), dict(walk(folder))
    known = {"", *expected}
    for name in sorted(expected.keys() | found.keys()):
        if name not in expected:
            if name.rpartition("/")[0] in known:  # one fault for a folder with all that it holds
                yield name, "does not belong here"
        elif name not in found:
            yield name, "is missing"
        elif found[name] != expected[name]:
            yield name, f"is a {found[name]}, not a {expected[name]}"
        elif expected[name] == "file":
            stated = (sha256 or {}).get(name)
            same = sha256_of(folder / name) == stated if stated else same_bytes(derived / name, folder / name)
            if not same:
                yield name, "is not what was written"
