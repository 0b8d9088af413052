"""Openly licensed data sets that `dataengine data get` fetches from their authors' public pages."""

from __future__ import annotations

import json
import shutil
import stat
import zipfile
from dataclasses import dataclass
from datetime import date
from pathlib import Path, PurePosixPath

from dataengine.download import bytes_missing, download_folder, find_named, stated
from dataengine.errors import UserError
from dataengine.files import cannot_write, create_folder, disk_space, remove
from dataengine.folders import sha256_of
from dataengine.hosts import RemoteRepository, Source, Unreachable, describe

PROVENANCE = "provenance.json"
MAX_UNPACKED_RATIO = 100  # of an archive's size; images hardly shrink


@dataclass(frozen=True)
class PublishedData:
    """shows: for people. licence: what the authors state, and where. source: the files; archives are unpacked.
    classes: names of YOLO's numbers, for an archive without a list of them."""

    name: str
    shows: str
    licence: str
    source: Source
    classes: tuple[str, ...] = ()

    @property
    def by_hand(self) -> str:
        """How to do without the network, as the rest of a sentence."""
        return f"download it from {self.source.page}, and read its folder in place"


PUBLISHED = (
    PublishedData(
        name="hit-uav",
        shows="2,898 thermal drone images with rotated boxes: Person, Car, Bicycle, OtherVehicle (Suo et al. 2023)",
        licence="CC BY 4.0 (Scientific Data 10, 227, 2023)",
        source=Source(
            "github",
            "suojiashun/HIT-UAV-Infrared-Thermal-Dataset",
            below="rotate_json",
            leave_out=("rotate_json/annotations/log.json",),
        ),
    ),
    PublishedData(
        name="hrplanes",
        shows="satellite images of airports with horizontal boxes of airplanes (HRPlanesv2)",
        licence="CC BY 4.0 (its page on Zenodo)",
        source=Source("zenodo", "7331974"),
        classes=("airplane",),
    ),
    PublishedData(
        name="neon-trees",
        shows="aerial images of forests with boxes of tree crowns (NeonTreeEvaluation, Weinstein et al. 2021)",
        licence="CC BY 4.0 (its page on Zenodo)",
        source=Source("zenodo", "5914554", ("annotations.zip", "evaluation.zip")),
    ),
)


def find_published(name: str) -> PublishedData:
    """The published data set of a name. Raises UserError, with all names, for another.

    >>> find_published("hit-uav").source.host
    'github'
    """
    return find_named(name, PUBLISHED, "data set")


def described(data: PublishedData) -> RemoteRepository:
    """What the host states about the files. Raises UserError, with what to do by hand, without network."""
    try:
        return describe(data.source)
    except Unreachable as error:
        raise UserError(f"no answer from {error}: {data.by_hand}.") from None


def plan(data: PublishedData, repository: RemoteRepository, out: Path, needed: int) -> list[str]:
    """What would be fetched, line by line, the licence first."""
    return [
        f"licence: {data.licence}",
        f"{data.name}: {data.shows}",
        *stated([repository]),
        f"into {out}: needs {disk_space(needed)}",
    ]


def bytes_needed(repository: RemoteRepository, out: Path) -> int:
    """Disk space for what is still to be downloaded, and for archives once more, unpacked."""
    folder = download_folder(out)
    archives = sum(file.size for file in repository.files if file.name.endswith(".zip"))
    return sum(bytes_missing(file, folder) for file in repository.files) + archives


def is_fetched(folder: Path) -> bool:
    """Whether a folder holds a data set that `data get` fetched."""
    return (folder / PROVENANCE).is_file()


def place(data: PublishedData, repository: RemoteRepository, folder: Path, out: Path) -> None:
    """Move verified downloads to `out`, archives unpacked, with a file that says where they come from. The folder
    appears complete or not at all.

    Raises UserError for an archive that is damaged or leads out of the folder, and for a full disk.
    """
    unfinished = out.with_name(f".{out.name}.new")
    try:
        create_folder(unfinished)
        entries = []
        for file in repository.files:
            here = folder / file.name
            entries.append({"name": file.name, "size": file.size, "checksum": file.checksum, "sha256": sha256_of(here)})
            if file.name.endswith(".zip"):
                unpack(here, unfinished / PurePosixPath(file.name).stem)
            else:
                target = unfinished / file.name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(here, target)
        if data.classes and not _has_class_list(unfinished):
            (unfinished / "classes.txt").write_text("".join(f"{name}\n" for name in data.classes), "utf-8")
        content = {
            "name": data.name,
            "date": date.today().isoformat(),
            "licence": data.licence,
            "page": repository.page,
            "version": repository.commit,
            "stated_licence": repository.licence or None,
            "files": entries,
        }
        (unfinished / PROVENANCE).write_text(json.dumps(content, indent=1) + "\n", "utf-8")
        if out.exists():
            out.rmdir()
        unfinished.rename(out)
    except OSError as error:
        raise cannot_write(error, out, "give another --out.") from None
    finally:
        remove(unfinished)


def _has_class_list(folder: Path) -> bool:
    names = ("classes.txt", "obj.names", "*.yaml", "*.yml")
    return any(next(folder.rglob(name), None) is not None for name in names)


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a zip archive into a new folder. Raises UserError, before anything is written, for one that is damaged,
    would unpack to far more than it holds, or has a link or a name that leads out of the folder."""
    try:
        with zipfile.ZipFile(archive) as packed:
            members = packed.infolist()
            for member in members:
                path = PurePosixPath(member.filename.replace("\\", "/"))
                kind = stat.S_IFMT(member.external_attr >> 16)
                leads_out = not path.parts or path.is_absolute() or ".." in path.parts or ":" in path.parts[0]
                if leads_out or kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                    raise UserError(f"{archive}: {member.filename!r} would lead out of the folder; it is not unpacked.")
            if sum(member.file_size for member in members) > MAX_UNPACKED_RATIO * max(archive.stat().st_size, 1000):
                raise UserError(f"{archive}: would unpack to far more than it holds; it is not unpacked.")
            packed.extractall(folder)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
        raise UserError(f"{archive}: is no zip archive that can be unpacked ({error}).") from None


def summary(folder: Path) -> list[str]:
    """What a fetched folder holds, as the readers see it, in one or two sentences."""
    from dataengine.data import formats

    try:
        dataset = formats.read(folder)
    except UserError as error:
        return [f"{folder}: unpacked, but its labels are not read as they are: {error}"]
    objects = sum(len(sample.layout) for sample in dataset)
    lines = [f"{folder}: {len(dataset):,} images, {objects:,} objects ({dataset.format} format)"]
    if dataset.problems:
        n = len(dataset.problems)
        lines.append(f"{n:,} problems, such as {dataset.problems[0]}; see dataengine data check {folder}")
    return lines
