"""The folder of a run: its files, its shards, and the records in them. No other module knows the names of the files.

recipe.json         the recipe and the hash of every part
calibration.json    the filter's thresholds
shards/000000/      images and records of one shard; appears whole or not at all
manifest.jsonl      one record a line, in order, up to the last accepted image
trace.json          how busy each stage was
dota/ coco/ mixed/  the accepted images with their labels
changes/            of sequences: what differs between dates
kept.png dropped.png report.json
decisions.jsonl     what a person decided about the images, once there is such a thing
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from dataengine import __version__
from dataengine.data.file_index import named_file
from dataengine.data.layout import Dataset, Sample
from dataengine.engine.decided import decide
from dataengine.engine.decisions import Decision, read_decisions
from dataengine.engine.record import Record
from dataengine.errors import UserError
from dataengine.files import create_folder, open_regular, parse_json, read_bytes, read_text, remove, write_whole
from dataengine.folders import sha256_of

RECORDS = "records.jsonl"
MAX_CHECKSUM_BYTES = 1000
CHECKSUM = f"{RECORDS}.sha256"  # in the form of sha256sum, so that `sha256sum -c` checks it, too


@dataclass(frozen=True)
class StoredRecipe:
    """What recipe.json says. recipe: the settings, as plain values. parts: hash of each part by name. classes: those
    of the run. calibration: its hash, "none" without a filter. name: of the data set that the run imitates. notes: what
    the user was told when the run began. datasets: whether the run has DOTA and COCO folders. version: of dataengine.

    0.1.0 did not store the last four: they are None in its runs."""

    recipe: dict
    parts: dict[str, str]
    identity: str
    classes: tuple[str, ...] = ()
    calibration: str | None = None
    name: str | None = None
    notes: tuple[str, ...] | None = None
    datasets: bool | None = None
    version: str | None = __version__

    @property
    def has_checksum(self) -> bool:
        """Whether the run is of a later version than 0.1.0: recipe.json has a checksum and all fields."""
        return any(value is not None for value in (self.name, self.notes, self.datasets, self.version))

    @property
    def dataset_name(self) -> str:
        """What the run is called: its preset's name, or the name of the data set's folder or file."""
        return self.name or Path(self.recipe["dataset"] or self.recipe["data"]).stem

    def to_json(self) -> str:
        """The text of recipe.json. `checksum` covers everything else in it."""
        content = {
            "recipe": self.recipe,
            "parts": self.parts,
            "calibration": self.calibration,
            "identity": self.identity,
            "classes": list(self.classes),
            "guidance": "null + guidance_scale * (condition - null)",
            "name": self.name,
            "notes": list(self.notes or ()),
            "datasets": self.datasets,
            "dataengine": self.version,
        }
        content["checksum"] = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]
        return json.dumps(content, indent=2) + "\n"

    def save(self, file: Path) -> None:
        """Write recipe.json."""
        write_whole(file, self.to_json())

    @classmethod
    def load(cls, file: Path) -> StoredRecipe:
        """Raises UserError when the file is missing or damaged."""
        try:
            content = parse_json(read_text(file))
            recipe, parts, classes = content["recipe"], content["parts"], content.get("classes", [])
            name, notes, datasets, version = map(content.get, ("name", "notes", "datasets", "dataengine"))
            valid = isinstance(recipe, dict) and isinstance(parts, dict) and all(isinstance(c, str) for c in classes)
            valid &= isinstance(name, str | None) and isinstance(datasets, bool | None)
            valid &= isinstance(version, str | None)
            if valid and all(isinstance(text, str) for text in [*parts.values(), *(notes or ())]):
                return cls(
                    recipe, parts, content.get("identity", ""), tuple(classes), content.get("calibration"), name,
                    None if notes is None else tuple(notes), datasets, version,
                )  # fmt: skip
        except (ValueError, KeyError, TypeError, AttributeError):
            pass
        raise UserError(f"{file}: damaged; put it back from a copy, or give another --out.")


@dataclass(frozen=True)
class Shard:
    """What a shard holds. lines: its records as they were written. faults: all that contradicts a checksum, in
    sentences; a shard without any is what a worker made, to the last bit."""

    lines: list[str] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


class RunFolder:
    """The files of one run, as attributes, whether they exist or not.

    unfinished_manifest: the manifest while the run goes on. kept_sheet, dropped_sheet: contact sheets of accepted and
    of dropped images. mixed: real and synthetic images as one data set. changes: between the dates of sequences.

    >>> RunFolder("runs/first").manifest.as_posix()
    'runs/first/manifest.jsonl'
    """

    def __init__(self, path: str | Path):
        self.path = path = Path(path)
        self.recipe, self.calibration = path / "recipe.json", path / "calibration.json"
        self.manifest, self.unfinished_manifest = path / "manifest.jsonl", path / ".manifest.jsonl"
        self.report, self.trace, self.lock = path / "report.json", path / "trace.json", path / ".lock"
        self.kept_sheet, self.dropped_sheet = path / "kept.png", path / "dropped.png"
        self.dota, self.coco, self.mixed = path / "dota", path / "coco", path / "mixed"
        self.changes, self.shards, self.decisions = path / "changes", path / "shards", path / "decisions.jsonl"

    def shard(self, number: int) -> Path:
        """Folder of one shard."""
        return self.shards / f"{number:06d}"

    def store(self, number: int) -> ShardFolder:
        """Where a worker puts the files of a shard that it makes."""
        return ShardFolder(self, number)

    def present_shards(self) -> set[int]:
        """Numbers of the shards that have a folder."""
        names = (entry.name for entry in self.shards.glob("*"))
        return {int(name) for name in names if len(name) >= 6 and name.isascii() and name.isdecimal()}

    def stored_recipe(self) -> StoredRecipe:
        """Raises UserError when recipe.json is missing or damaged."""
        return StoredRecipe.load(self.recipe)

    def records(self) -> Iterator[Record]:
        """The records of a finished run, in order, read as they are asked for. Raises UserError with the line of one
        that is damaged, and where the run is not finished."""
        if not self.manifest.exists():
            raise UserError(
                f"{self.path}: the run is not finished; continue it with the same dataengine synth command."
            )
        return read_records(self.manifest)

    def decided(self) -> Iterator[Record]:
        """The records of a finished run with what a person decided about its images; these are what every export,
        release and evaluation reads. Raises UserError as `records` and `read_decisions` do."""
        records, decisions = self.records(), read_decisions(self)
        return (decide(record, decisions.get(record.index)) for record in records)

    def image(self, record: Record) -> Path:
        """The image file of a record. Raises ValueError where its path leads out of the run folder."""
        return named_file(self.path, record.image)

    def accepted_images(self) -> Dataset:
        """The accepted images of a finished run as a data set, after what a person decided. Raises UserError for a run
        that is not finished, and for one that is damaged, also while its samples are iterated."""
        stored = self.stored_recipe()
        decisions = read_decisions(self)
        classes, kind, count = dict.fromkeys(stored.classes), "obb", 0
        for record in self.decided():
            if record.accepted:
                classes.update(dict.fromkeys(record.labels.classes))
                kind, count = record.labels.kind, count + 1
        try:
            name = f"synthetic {stored.dataset_name}"
        except (KeyError, TypeError):
            raise UserError(f"{self.recipe}: damaged; it names no data set. Put it back from a copy.") from None
        samples = RunSamples(self, self.manifest, tuple(classes), count, decisions)
        return Dataset(samples.classes, samples, kind, name=name)

    def examine_shard(self, number: int) -> Shard:
        """A shard that is there, each file compared with its checksum. A line that is no record is a fault."""
        folder = self.shard(number)
        file = folder / RECORDS
        try:
            content = read_bytes(file)
            stated = read_bytes(folder / CHECKSUM, MAX_CHECKSUM_BYTES).decode("ascii")
        except (OSError, UnicodeDecodeError) as error:
            lost = Path(getattr(error, "filename", None) or CHECKSUM).name
            return Shard(faults=[f"{folder}: {lost} is missing or unreadable"])
        if stated != _checksum(content):
            return Shard(faults=[f"{file} is not what was written: its checksum differs"])
        shard = Shard()
        for number_of_line, line in enumerate(content.splitlines(), 1):
            try:
                record = Record.from_json(line)
                name = image_name(number, record.index)
            except ValueError:
                shard.faults.append(f"{file}: line {number_of_line} is no record of an image")
                continue
            shard.lines.append(line.decode())
            shard.records.append(record)
            if record.image != name:
                shard.faults.append(f"{file}: line {number_of_line} names {record.image} where {name} belongs")
            elif not (self.path / name).is_file():
                shard.faults.append(f"{self.path / name} is missing")
            elif sha256_of(self.path / name) != record.sha256:
                shard.faults.append(f"{self.path / name} is not what was written: its checksum differs")
        if not shard.records and not shard.faults:
            shard.faults.append(f"{file} is empty")
        return shard

    def read_shard(self, number: int) -> Shard | None:
        """A finished shard, None where there is none; a damaged one is removed, to be made again."""
        if not self.shard(number).exists():
            return None
        shard = self.examine_shard(number)
        if not shard.faults:
            return shard
        remove(self.shard(number))
        return None


def image_name(shard: int, index: int) -> str:
    """Path of the image of attempt `index` in a shard, from the run folder on."""
    return f"shards/{shard:06d}/{index:08d}.png"


def _checksum(content: bytes) -> str:
    return f"{hashlib.sha256(content).hexdigest()}  {RECORDS}\n"


def record_files(lines: Sequence[str]) -> dict[str, bytes]:
    """A shard's records, one a line, and their checksum: name and content of both files."""
    content = "".join(f"{line}\n" for line in lines).encode()
    return {RECORDS: content, CHECKSUM: _checksum(content).encode()}


def read_records(manifest: Path) -> Iterator[Record]:
    """The records in a manifest, in order. Raises UserError with the line of one that is damaged."""
    try:
        opened = open_regular(manifest)
    except OSError as error:
        raise UserError(
            f"{manifest} cannot be read ({error.strerror}); the same dataengine synth command writes it again."
        ) from None
    with opened as file:
        for number, line in enumerate(file, 1):
            try:
                record = Record.from_json(line)
            except ValueError as error:
                raise UserError(
                    f"{manifest}:{number}: no record of an image ({error}); the same dataengine synth command writes "
                    "it again."
                ) from None
            yield record


@dataclass(frozen=True)
class RunSamples:
    """Accepted images of a run with their labels in `classes`, made from the manifest as they are asked for, so that
    memory does not grow with the run. decisions: of a person, by the index of the image."""

    run: RunFolder
    manifest: Path
    classes: tuple[str, ...]
    count: int
    decisions: Mapping[int, Decision] = field(default_factory=dict)

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Sample]:
        numbers = {name: number for number, name in enumerate(self.classes)}
        for number, record in enumerate(read_records(self.manifest), 1):
            record = decide(record, self.decisions.get(record.index))
            if not record.accepted:
                continue
            try:
                image = self.run.image(record)
                labels = np.array([numbers[name] for name in record.labels.names()], np.int64)
            except (ValueError, KeyError) as error:
                raise UserError(f"{self.manifest}:{number}: no record of an image ({error}).") from None
            layout = replace(record.labels, labels=labels, classes=self.classes)
            yield Sample(record.name, image, layout, "dataengine", record.provenance.license)


class ShardFolder:
    """A shard that is being written next to its place, and appears there whole or not at all."""

    def __init__(self, run: RunFolder, number: int):
        self.final = run.shard(number)
        self.building = self.final.with_name(f".{self.final.name}.{os.getpid()}")
        create_folder(self.building)

    def put(self, name: str, content: bytes) -> None:
        """Write one file."""
        (self.building / name).write_bytes(content)

    def close(self) -> None:
        """Rename it into place."""
        if self.final.exists():  # another worker was faster; both made the same
            shutil.rmtree(self.building)
        else:
            self.building.rename(self.final)

    def abandon(self) -> None:
        """Remove what was written: a full disk would stay full."""
        shutil.rmtree(self.building, ignore_errors=True)
