"""Files of public repositories: what their host states about them, and downloads that resume and are verified.

Models (`render/published.py`) and data sets (`data/published.py`) are fetched this way.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal
from urllib.parse import quote

from dataengine.errors import UserError, one_line
from dataengine.files import disk_space, lock, make_room
from dataengine.folders import sha256_of

GITHUB, GITHUB_API = "https://github.com", "https://api.github.com"
GITHUB_RAW, ZENODO = "https://raw.githubusercontent.com", "https://zenodo.org"
MAX_BARS = 10  # progress bars of files, one after the other; of more files, one bar counts them
MAX_LISTED_FILES = 10  # of a repository in the plan
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
