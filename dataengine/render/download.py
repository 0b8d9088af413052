"""Files of public repositories: what their host states about them, and downloads that resume and are verified."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from dataengine.errors import UserError, one_line
from dataengine.files import disk_space, make_room
from dataengine.folders import sha256_of

GITHUB, GITHUB_API = "https://github.com", "https://api.github.com"
CHUNK_BYTES = 1 << 20  # read at once for a checksum


class Unreachable(Exception):
    """A host that does not answer, or not with what is asked for. The message names the page and the reason."""


@dataclass(frozen=True)
class Source:
    """A repository, and the paths of the files that are needed from it."""

    host: Literal["hub", "github"]
    repository: str
    paths: tuple[str, ...]

    @property
    def page(self) -> str:
        """Address of the repository, for people."""
        return f"{GITHUB if self.host == 'github' else _endpoint()}/{self.repository}"

    @property
    def urls(self) -> list[str]:
        """Addresses of the files as they are now, for a browser."""
        branch = "raw/HEAD" if self.host == "github" else "resolve/main"
        return [f"{self.page}/{branch}/{quote(path)}" for path in self.paths]


@dataclass(frozen=True)
class RemoteFile:
    """A file at one commit. size: in bytes. checksum: "sha256:..." of its content, or "git-blob:...", the SHA-1 by
    which git names content."""

    name: str
    url: str
    size: int
    checksum: str

    def is_in(self, file: Path) -> bool:
        """Whether a local file has exactly this content."""
        if not file.is_file() or file.stat().st_size != self.size:
            return False
        kind, _, digest = self.checksum.partition(":")
        return digest == (sha256_of(file) if kind == "sha256" else _git_blob(file))


@dataclass(frozen=True)
class RemoteRepository:
    """What a host states about a repository at one commit. licence: "" where it states none."""

    page: str
    commit: str
    licence: str
    files: tuple[RemoteFile, ...]


def _endpoint() -> str:
    """The hub: $HF_ENDPOINT, or https://huggingface.co."""
    from huggingface_hub import constants

    return constants.ENDPOINT


def _git_blob(file: Path) -> str:
    total = hashlib.sha1(f"blob {file.stat().st_size}\0".encode(), usedforsecurity=False)
    with file.open("rb") as stream:
        while chunk := stream.read(CHUNK_BYTES):
            total.update(chunk)
    return total.hexdigest()


@contextmanager
def _network(page: str) -> Iterator[None]:
    """Raise Unreachable for errors of the network, of whichever HTTP library this version of huggingface_hub uses."""
    try:
        yield
    except Exception as error:
        if not isinstance(error, OSError) and type(error).__module__.partition(".")[0] not in ("httpx", "httpx2"):
            raise
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise Unreachable(f"{page} ({reason.rstrip('.')})") from error


def describe(source: Source) -> RemoteRepository:
    """What the host states about a source at its newest commit. Nothing is downloaded but that.

    Raises Unreachable where it cannot be asked, and UserError where it has no such file.
    """
    with _network(source.page):
        try:
            return _describe_github(source) if source.host == "github" else _describe_hub(source)
        except (KeyError, TypeError, ValueError):  # a login page of a hotel, a mirror that states no checksums
            raise Unreachable(f"{source.page} (it does not answer as a host of models does)") from None


def _describe_hub(source: Source) -> RemoteRepository:
    from huggingface_hub import HfApi

    info = HfApi().model_info(source.repository, files_metadata=True)
    listed = {sibling.rfilename: sibling for sibling in info.siblings}
    files = []
    for path in source.paths:
        if path not in listed:
            raise UserError(f"{source.page} has no file {path} (any more); look there for what has become of it.")
        file = listed[path]
        digest = file.lfs.sha256 if file.lfs else file.blob_id
        if file.size is None or not digest:
            raise ValueError(f"no size or checksum of {path}")
        checksum = f"{'sha256' if file.lfs else 'git-blob'}:{digest}"
        url = f"{source.page}/resolve/{info.sha}/{quote(path)}"
        files.append(RemoteFile(Path(path).name, url, file.size, checksum))
    licence = (info.card_data.get("license") if info.card_data else None) or ""
    return RemoteRepository(source.page, info.sha, str(licence), tuple(files))


def _describe_github(source: Source) -> RemoteRepository:
    from huggingface_hub.utils import get_session

    def ask(path: str) -> dict:
        response = get_session().get(f"{GITHUB_API}/repos/{source.repository}{path}", timeout=10)
        response.raise_for_status()
        return response.json()

    licence, commit = ask("")["license"], ask("/commits/HEAD")["sha"]
    files = []
    for path in source.paths:
        file = ask(f"/contents/{quote(path)}?ref={commit}")
        files.append(RemoteFile(Path(path).name, file["download_url"], file["size"], f"git-blob:{file['sha']}"))
    return RemoteRepository(source.page, commit, licence["spdx_id"] if licence else "", tuple(files))


def partial_of(file: RemoteFile, folder: Path) -> Path:
    """Where the first part of an unfinished download lies. Another content has another name."""
    return folder / f"{file.name}.{file.checksum.partition(':')[2][:16]}.part"


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
    if partial.exists() and partial.stat().st_size > file.size:
        partial.unlink()
    try:
        with _network(file.url), partial.open("ab") as stream:
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
