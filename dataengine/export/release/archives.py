"""Checksums and reproducible tar archives of a release."""

from __future__ import annotations

import hashlib
import re
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from dataengine.errors import UserError
from dataengine.files import write_whole

SUMS = "SHA256SUMS"
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


def digest(path: Path) -> str:
    """SHA-256 of a file as a hexadecimal string."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def files_below(folder: Path) -> list[str]:
    """Sorted paths, relative to a folder and with '/', of all files except the checksums and the archives."""
    names = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in names if name != SUMS and not name.startswith(f"{FOLDER}/"))


def write_sums(folder: Path, names: Iterable[str]) -> None:
    """Write `SHA256SUMS` of these files in the format of `sha256sum`."""
    write_whole(folder / SUMS, "".join(f"{digest(folder / name)}  {name}\n" for name in names))


def read_sums(file: Path) -> dict[str, str]:
    """Digest of each file by name. Raises ValueError for an invalid line."""
    sums = {}
    for line in file.read_text("utf-8").splitlines():
        value, _, name = line.partition("  ")
        if not re.fullmatch(r"[0-9a-f]{64}", value) or not name:
            raise ValueError(f"{line[:40]!r} is no checksum")
        sums[name] = value
    return sums


def write_archives(folder: Path, prefix: str, largest: int) -> list[str]:
    """Write all files of a release as `archives/<prefix>-00001-of-00003.tar` and so on; returns the file names.

    Each archive has at most `largest` bytes and can be unpacked alone; together they contain the folder `prefix`.
    Raises UserError where a single file does not fit.
    """
    (folder / FOLDER).mkdir()
    groups = list(_grouped(folder, prefix, largest))
    written = []
    for number, names in enumerate(groups, 1):
        written.append(f"{prefix}-{number:05d}-of-{len(groups):05d}.tar")
        with tarfile.open(folder / FOLDER / written[-1], "w", format=tarfile.PAX_FORMAT) as archive:
            for name in names:
                with open(folder / name, "rb") as content:
                    archive.addfile(_member(folder / name, f"{prefix}/{name}"), content)
    write_sums(folder / FOLDER, written)
    return written


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


def archived(file: Path) -> Iterator[tuple[str, str]]:
    """Name and digest of each file in an archive, without unpacking it. Raises ValueError for an unreadable archive and
    for members other than regular files: links, and sparse files, which can claim any size."""
    try:
        with tarfile.open(file, "r:") as archive:  # uncompressed only: protects against decompression bombs
            for member in archive:
                content = archive.extractfile(member) if member.isreg() and not member.issparse() else None
                if content is None:
                    raise ValueError(f"{member.name} is no file")
                yield member.name, hashlib.file_digest(content, "sha256").hexdigest()
    except (tarfile.TarError, OSError, OverflowError, LookupError) as error:  # the last two: invalid headers
        raise ValueError(f"no whole archive ({error})") from None
