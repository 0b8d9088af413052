"""Checksums, and archives that are the same to the last byte whenever and wherever they are made."""

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
LEAST = 100_000


def parse_size(text: str) -> int:
    """ "1GB", "500 MB" or "2000000" -> bytes, in powers of ten. Raises UserError for anything else, or below 100 kB."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)B?", text.strip().upper())
    size = int(float(found[1]) * _UNITS[found[2]]) if found else 0
    if size < LEAST:
        raise UserError(f"--archive-size {text}: give a size of at least 100 kB, such as 500MB or 2GB.")
    return size


def digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def files_below(folder: Path) -> list[str]:
    """Paths of all files relative to a folder, with '/', sorted; the checksums and the archives are not among them."""
    found = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in found if name != SUMS and not name.startswith(f"{FOLDER}/"))


def write_sums(folder: Path, names: Iterable[str]) -> None:
    """`SHA256SUMS` of these files, as `sha256sum --check` reads it."""
    write_whole(folder / SUMS, "".join(f"{digest(folder / name)}  {name}\n" for name in names))


def read_sums(file: Path) -> dict[str, str]:
    """Digest by name. Raises ValueError for a line of another form."""
    found = {}
    for line in file.read_text("utf-8").splitlines():
        value, _, name = line.partition("  ")
        if not re.fullmatch(r"[0-9a-f]{64}", value) or not name:
            raise ValueError(f"{line[:40]!r} is no checksum")
        found[name] = value
    return found


def write_archives(folder: Path, prefix: str, largest: int) -> list[str]:
    """`archives/<prefix>-00001-of-00003.tar` and so on, each at most `largest` bytes, with all files of a release.

    Every archive can be unpacked alone; together they make the folder `prefix`. Raises UserError where one file does
    not fit.
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
    """Files of each archive, in order."""
    names, filled = [], 0
    for name in [SUMS, *files_below(folder)]:
        member = _member(folder / name, f"{prefix}/{name}")
        size = len(member.tobuf(tarfile.PAX_FORMAT)) + member.size + -member.size % tarfile.BLOCKSIZE
        if _closed(size) > largest:
            raise UserError(f"--archive-size: {name} alone needs {_closed(size)} bytes, more than {largest}.")
        if _closed(filled + size) > largest:
            yield names
            names, filled = [], 0
        names.append(name)
        filled += size
    yield names


def _closed(filled: int) -> int:
    """Size of an archive: two empty blocks end it, and it is filled up to whole records."""
    return -(-(filled + 2 * tarfile.BLOCKSIZE) // tarfile.RECORDSIZE) * tarfile.RECORDSIZE


def _member(file: Path, name: str) -> tarfile.TarInfo:
    """A header that depends on name and size only: no time, owner or mode of this machine."""
    info = tarfile.TarInfo(name)
    info.size, info.mode = file.stat().st_size, 0o644
    return info


def archived(file: Path) -> Iterator[tuple[str, str]]:
    """Name and digest of each file in an archive; nothing is unpacked. Raises ValueError where it cannot be read, or
    holds anything but files: links, and files with holes, which say that they are of any size."""
    try:
        with tarfile.open(file, "r:") as archive:  # never compressed: a small file would stand for a huge one
            for member in archive:
                content = archive.extractfile(member) if member.isreg() and not member.issparse() else None
                if content is None:
                    raise ValueError(f"{member.name} is no file")
                yield member.name, hashlib.file_digest(content, "sha256").hexdigest()
    except (tarfile.TarError, OSError, OverflowError, LookupError) as error:  # the last two of odd headers
        raise ValueError(f"no whole archive ({error})") from None
