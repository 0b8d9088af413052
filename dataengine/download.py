"""Downloads of files of public repositories (`hosts`), which resume and are verified.

Models (`render/published.py`) and data sets (`data/published.py`) are fetched this way.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from dataengine.errors import UserError, one_line
from dataengine.files import disk_space, lock, make_room
from dataengine.hosts import RemoteFile, RemoteRepository, Unreachable, network

MAX_BARS = 10  # progress bars of files, one after the other; of more files, one bar counts them
MAX_LISTED_FILES = 10  # of a repository in the plan


Named = TypeVar("Named")


def find_named(name: str, published: Sequence[Named], what: str) -> Named:
    """The entry with this `name` of what can be fetched. what: a word for an entry. Raises UserError, with all names,
    for another name."""
    for entry in published:
        if entry.name == name:
            return entry
    names = ", ".join(entry.name for entry in published)
    raise UserError(f"{name!r} is not a {what} that can be fetched; choose one of: {names}.")


def partial_of(file: RemoteFile, folder: Path) -> Path:
    """Where the first part of an unfinished download lies. Another content has another name."""
    return folder / f"{file.name}.{file.checksum.partition(':')[2][:16]}.part"


def stated(repositories: Sequence[RemoteRepository]) -> list[str]:
    """What the hosts state, line by line: pages, commits, licences, and size and checksum of each file; of many files,
    their number and size."""
    lines = []
    for repository in repositories:
        lines.append(f"{repository.page} at {repository.commit}, stated licence: {repository.licence or 'none'}")
        if len(repository.files) > MAX_LISTED_FILES:
            kinds = {file.checksum.partition(":")[0] for file in repository.files}
            size = disk_space(sum(file.size for file in repository.files))
            lines.append(
                f"  {len(repository.files):,} files, {size}, each with a checksum ({', '.join(sorted(kinds))})"
            )
            continue
        lines += [f"  {file.name}, {disk_space(file.size)}, {file.checksum}" for file in repository.files]
    return lines


def free_bytes(folder: Path) -> int:
    """Free space of the disk on which a folder lies or will lie."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def check_space(needed: int, out: Path, other: str = "") -> None:
    """Raises UserError where the disk has too little free space. other: what else would help, such as ", or --half"."""
    if (free := free_bytes(out)) < needed:
        raise UserError(
            f"{out}: {disk_space(needed)} are needed, and {disk_space(free)} are free on this disk; free some space, "
            f"give --out on another disk{other}."
        )


def agreed(yes: bool) -> bool:
    """Whether the user wants the files that were listed. Raises UserError where nobody can be asked."""
    import typer

    if yes:
        return True
    if not sys.stdin.isatty():
        raise UserError("nothing was fetched: there is no terminal to ask; add --yes.")
    try:
        return typer.confirm("Fetch these files?")
    except typer.Abort:  # the input ended
        return False


def download_folder(out: Path) -> Path:
    """Where files are downloaded to, next to the result, so that they are moved and continued on one disk."""
    return out.with_name(f"{out.name}.download")


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder for downloads, which is made. Raises UserError while another process holds it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        held = lock(folder / ".lock")
    except BlockingIOError:
        raise UserError(f"{folder}: another process is downloading to it; wait for it.") from None
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror}); give another --out.") from None
    with held:
        yield


def download_all(
    repositories: Sequence[RemoteRepository], folder: Path, progress: Callable[[int, int], None] | None = None
) -> None:
    """Download all files to a folder; each is verified. progress: called with the number of files done and of all.
    Raises UserError as `download` does."""
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    files = [file for repository in repositories for file in repository.files]
    quiet = len(files) > MAX_BARS and not are_progress_bars_disabled()
    if quiet:
        disable_progress_bars()
    try:
        for number, file in enumerate(files, 1):
            download(file, folder)
            if progress is not None:
                progress(number, len(files))
    finally:
        if quiet:
            enable_progress_bars()


def bytes_missing(file: RemoteFile, folder: Path) -> int:
    """How many bytes of a file are still to be downloaded to a folder."""
    for present in (folder / file.name, partial_of(file, folder)):
        if present.is_file() and present.stat().st_size <= file.size:
            return file.size - present.stat().st_size
    return file.size


def download(file: RemoteFile, folder: Path) -> Path:
    """The file in a folder, downloaded where it is not there yet; an interrupted download is continued.

    hf_hub_download would begin again: since version 1.18, huggingface_hub keeps nothing of an interrupted download.
    Raises UserError where the download is interrupted, and where size or checksum are not those that the host states;
    such a file is removed.
    """
    from huggingface_hub.file_download import http_get

    target, partial = folder / file.name, partial_of(file, folder)
    if file.is_in(target):
        return target
    partial.parent.mkdir(parents=True, exist_ok=True)
    if partial.exists() and partial.stat().st_size > file.size:
        partial.unlink()
    try:
        with network(file.url), partial.open("ab") as stream:
            present = partial.stat().st_size
            headers = {"Accept-Encoding": "identity"}  # ranges are of the file, not of its compressed form
            http_get(file.url, stream, resume_size=present, headers=headers, expected_size=file.size)
    except Unreachable as error:
        present, cause = partial.stat().st_size if partial.exists() else 0, error.__cause__
        if isinstance(cause, OSError) and cause.errno is not None and (room := make_room(cause)):
            raise UserError(f"{folder}: the disk is full; {room}give another --out.") from None
        if present <= file.size:
            raise UserError(
                f"the download of {file.name} stopped at {disk_space(present)} of {disk_space(file.size)}: "
                f"{one_line(error)}; the same command continues it."
            ) from None
    if not file.is_in(partial):
        size = partial.stat().st_size
        partial.unlink()
        found = f"its size is {size:,} bytes, not {file.size:,}" if size != file.size else "its checksum is wrong"
        raise UserError(
            f"{file.url}: what was downloaded is not what its host states ({found}), so it was removed; the same "
            "command fetches it again."
        )
    partial.replace(target)
    return target
