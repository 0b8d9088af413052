"""Checksums and reproducible tar archives of a release."""

from __future__ import annotations

import hashlib
import io
import re
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO

from dataengine.errors import UserError
from dataengine.files import read_bytes, write_whole
from dataengine.folders import sha256_of

SUMS = "SHA256SUMS"
MAX_SUMS_BYTES = 2**27  # a million files have about 100 bytes each
FOLDER = "archives"
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
MIN_ARCHIVE_BYTES = 100_000


def parse_size(text: str) -> int:
    """Size in bytes of a text such as "1GB", "500 MB" or "2000000", in powers of ten. Raises UserError for other texts
    and for sizes below 100 kB.

    >>> parse_size("1.5 MB")
    1500000
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)B?", text.strip().upper())
    size = int(float(match[1]) * _UNITS[match[2]]) if match else 0
    if size < MIN_ARCHIVE_BYTES:
        raise UserError(f"--archive-size {text}: give a size of at least 100 kB, such as 500MB or 2GB.")
    return size


def files_below(folder: Path) -> list[str]:
    """Sorted paths, relative to a folder and with '/', of all files except the checksums and the archives."""
    names = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in names if name != SUMS and not name.startswith(f"{FOLDER}/"))


def sums(folder: Path, names: Iterable[str]) -> str:
    """The text of `SHA256SUMS` of these files, in the format of `sha256sum`."""
    return "".join(f"{sha256_of(folder / name)}  {name}\n" for name in names)


def write_sums(folder: Path, names: Iterable[str]) -> None:
    """Write `SHA256SUMS` of these files."""
    write_whole(folder / SUMS, sums(folder, names))


def read_sums(file: Path) -> dict[str, str]:
    """Digest of each file by name. Raises ValueError for an invalid line, and OSError for what cannot be read."""
    stored = {}
    for line in read_bytes(file, MAX_SUMS_BYTES).decode("utf-8").splitlines():
        value, _, name = line.partition("  ")
        if not re.fullmatch(r"[0-9a-f]{64}", value) or not name:
            raise ValueError(f"{line[:40]!r} is no checksum")
        stored[name] = value
    return stored


def write_archives(folder: Path, prefix: str, largest: int) -> list[str]:
    """Write all files of a release as `archives/<prefix>-00001-of-00003.tar` and so on; returns the file names.

    Each archive has at most `largest` bytes and can be unpacked alone; together they contain the folder `prefix`.
    Raises UserError where a single file does not fit.
    """
    (folder / FOLDER).mkdir()
    written = []
    for name, members in archive_members(folder, prefix, largest):
        with open(folder / FOLDER / name, "wb") as stream:
            _write_archive(folder, prefix, members, stream)
        written.append(name)
    write_sums(folder / FOLDER, written)
    return written


def archive_members(folder: Path, prefix: str, largest: int) -> list[tuple[str, list[str]]]:
    """Name of each archive, and the files in it. Raises UserError where a single file does not fit."""
    groups = list(_grouped(folder, prefix, largest))
    return [(f"{prefix}-{i:05d}-of-{len(groups):05d}.tar", names) for i, names in enumerate(groups, 1)]


def archive_sha256(folder: Path, prefix: str, members: Sequence[str]) -> str:
    """SHA-256 of the archive that `write_archives` writes of these files, which is not written."""
    stream = _Hashed()
    _write_archive(folder, prefix, members, stream)
    return stream.total.hexdigest()


class _Hashed(io.RawIOBase):
    """A stream of which only the SHA-256 is kept."""

    def __init__(self):
        self.total, self.position = hashlib.sha256(), 0

    def write(self, content: bytes) -> int:
        self.total.update(content)
        self.position += len(content)
        return len(content)

    def tell(self) -> int:
        return self.position


def _write_archive(folder: Path, prefix: str, members: Sequence[str], stream: IO[bytes]) -> None:
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name in members:
            with open(folder / name, "rb") as content:
                archive.addfile(_member(folder / name, f"{prefix}/{name}"), content)


def _grouped(folder: Path, prefix: str, largest: int) -> Iterator[list[str]]:
    """Names of the files in each archive."""
    names, filled = [], 0
    for name in [SUMS, *files_below(folder)]:
        member = _member(folder / name, f"{prefix}/{name}")
        size = len(member.tobuf(tarfile.PAX_FORMAT)) + member.size + -member.size % tarfile.BLOCKSIZE
        if _closed(size) > largest:
            raise UserError(f"--archive-size: {name} alone needs {_closed(size)} bytes; give a size above {largest}.")
        if _closed(filled + size) > largest:
            yield names
            names, filled = [], 0
        names.append(name)
        filled += size
    yield names


def _closed(filled: int) -> int:
    """Size of a complete archive: two empty blocks at its end, padded to whole records."""
    return -(-(filled + 2 * tarfile.BLOCKSIZE) // tarfile.RECORDSIZE) * tarfile.RECORDSIZE


def _member(file: Path, name: str) -> tarfile.TarInfo:
    """A header that depends on name and size only, without time, owner or mode."""
    info = tarfile.TarInfo(name)
    info.size, info.mode = file.stat().st_size, 0o644
    return info
