"""Public repositories and what their hosts state about the files in them: GitHub, the hub of models, Zenodo."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal
from urllib.parse import quote

from dataengine.errors import UserError
from dataengine.folders import sha256_of

GITHUB, GITHUB_API = "https://github.com", "https://api.github.com"
GITHUB_RAW, ZENODO = "https://raw.githubusercontent.com", "https://zenodo.org"
CHUNK_BYTES = 1 << 20  # read at once for a checksum


class Unreachable(Exception):
    """A host that does not answer, or not with what is asked for. The message names the page and the reason."""


@dataclass(frozen=True)
class Source:
    """A repository, and the files that are needed from it.

    repository: owner and name, or the number of a record on Zenodo. paths: of the files; for GitHub and Zenodo, none
    for all. below: for GitHub without paths, the folder whose files are meant, without the files in `leave_out`; their
    names begin below it.
    """

    host: Literal["hub", "github", "zenodo"]
    repository: str
    paths: tuple[str, ...] = ()
    below: str = ""
    leave_out: tuple[str, ...] = ()

    @property
    def page(self) -> str:
        """Address of the repository, for people."""
        start = {"github": GITHUB, "zenodo": f"{ZENODO}/records"}.get(self.host) or _endpoint()
        return f"{start}/{self.repository}"

    @property
    def urls(self) -> list[str]:
        """Addresses of the files as they are now, for a browser; of the whole repository where no paths are named."""
        branch = {"github": "raw/HEAD", "hub": "resolve/main", "zenodo": "files"}[self.host]
        return [f"{self.page}/{branch}/{quote(path)}" for path in self.paths] or [self.page]


@dataclass(frozen=True)
class RemoteFile:
    """A file at one commit. name: with "/", it lies in folders. size: in bytes. checksum: "sha256:..." or "md5:..." of
    its content, or "git-blob:...", the SHA-1 by which git names content."""

    name: str
    url: str
    size: int
    checksum: str

    def is_in(self, file: Path) -> bool:
        """Whether a local file has exactly this content."""
        if not file.is_file() or file.stat().st_size != self.size:
            return False
        kind, _, digest = self.checksum.partition(":")
        return digest == {"sha256": sha256_of, "md5": _md5, "git-blob": _git_blob}[kind](file)


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


def _md5(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _git_blob(file: Path) -> str:
    total = hashlib.sha1(f"blob {file.stat().st_size}\0".encode(), usedforsecurity=False)
    with file.open("rb") as stream:
        while chunk := stream.read(CHUNK_BYTES):
            total.update(chunk)
    return total.hexdigest()


@contextmanager
def network(page: str) -> Iterator[None]:
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
    with network(source.page):
        try:
            how = {"github": _describe_github, "hub": _describe_hub, "zenodo": _describe_zenodo}
            return how[source.host](source)
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


def _ask(url: str) -> dict:
    from huggingface_hub.utils import get_session

    response = get_session().get(url, timeout=10)
    response.raise_for_status()
    return response.json()


def _describe_github(source: Source) -> RemoteRepository:
    api = f"{GITHUB_API}/repos/{source.repository}"
    licence, commit = _ask(api)["license"], _ask(f"{api}/commits/HEAD")["sha"]
    files = []
    for path in source.paths:
        file = _ask(f"{api}/contents/{quote(path)}?ref={commit}")
        files.append(RemoteFile(Path(path).name, file["download_url"], file["size"], f"git-blob:{file['sha']}"))
    if not source.paths:
        files = _tree(source, commit)
    return RemoteRepository(source.page, commit, licence["spdx_id"] if licence else "", tuple(files))


def _tree(source: Source, commit: str) -> list[RemoteFile]:
    """The files of a repository below `source.below`."""
    content = _ask(f"{GITHUB_API}/repos/{source.repository}/git/trees/{commit}?recursive=1")
    if content.get("truncated"):
        raise ValueError("the list of files is cut off")
    start, files = f"{source.below.strip('/')}/".lstrip("/"), []
    for entry in content["tree"]:
        path = entry["path"]
        if entry["type"] != "blob" or not path.startswith(start) or path in source.leave_out:
            continue
        if path.rpartition("/")[2].startswith("."):  # what systems leave
            continue
        url = f"{GITHUB_RAW}/{source.repository}/{commit}/{quote(path)}"
        files.append(RemoteFile(_checked(path.removeprefix(start)), url, entry["size"], f"git-blob:{entry['sha']}"))
    if not files:
        raise UserError(f"{source.page} has no files below {source.below} (any more); look there for them.")
    return files


def _describe_zenodo(source: Source) -> RemoteRepository:
    record = _ask(f"{ZENODO}/api/records/{source.repository}")
    listed = {file["key"]: file for file in record["files"]}
    files = []
    for path in source.paths or listed:
        if path not in listed:
            raise UserError(f"{source.page} has no file {path} (any more); look there for what has become of it.")
        file = listed[path]
        if not str(file["checksum"]).startswith("md5:"):
            raise ValueError(f"no checksum of {path}")
        files.append(RemoteFile(_checked(path), file["links"]["self"], file["size"], file["checksum"]))
    licence = (record["metadata"].get("license") or {}).get("id") or ""
    return RemoteRepository(source.page, f"record {record['id']}", licence, tuple(files))


def _checked(name: str) -> str:
    """The name of a file from a host's list. Raises ValueError where it would lead out of a folder."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name or "\0" in name:
        raise ValueError(f"a file is called {name!r}")
    return name
