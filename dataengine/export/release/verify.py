"""Verification of a release: all that follows from its records and `release.json` is derived again and compared.

`make.write_derived` writes labels, card and metadata into a temporary folder; those of the release must be the same, to
the last byte, and its folder must hold nothing else. No archive is opened, and no regular expression of a file is used.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from dataengine import __version__
from dataengine.data import images
from dataengine.data.layout import Dataset, Sample
from dataengine.data.staging import name_only
from dataengine.engine.record import MALFORMED, Record
from dataengine.errors import UserError, one_line
from dataengine.export.release import marks
from dataengine.export.release.archives import (
    FOLDER,
    SUMS,
    archive_members,
    archive_sha256,
    files_below,
    read_sums,
    sums,
)
from dataengine.export.release.card import write_samples
from dataengine.export.release.content import (
    CONTENT,
    LIBRARIES,
    RECORDS,
    as_run,
    by_hand,
    follows,
    libraries,
    read_content,
)
from dataengine.export.release.finished_run import FinishedRun
from dataengine.export.release.labels import METADATA, as_dataset, parse_formats, released_image
from dataengine.export.release.licenses import License, release_license
from dataengine.export.release.make import write_derived
from dataengine.export.release.sides import leaks, sources_of
from dataengine.files import read_bytes, read_text
from dataengine.folders import differences, links_and_special_files, sha256_of

CARD = "README.md"


@dataclass(frozen=True)
class Verified:
    """faults: one sentence each, empty for a valid release. images: their number. checked: names of the checks. notes:
    what could not be compared here. fingerprint: SHA-256 of `release.json`, from which all else follows."""

    faults: list[str]
    images: int
    checked: list[str]
    notes: list[str] = field(default_factory=list)
    fingerprint: str = ""


def verify(folder: Path) -> Verified:
    """Check whether a release is what its records say, and nothing else.

    Raises UserError where the folder has no release, or its `release.json` is none of this version; faults of a release
    are sentences in the result.
    """
    if not (folder / CONTENT).exists():
        raise UserError(f"{folder}: no release (it has no {CONTENT}); give a folder written by dataengine release.")
    if elsewhere := links_and_special_files(folder):  # nothing is read that could lead elsewhere or never end
        return Verified(
            [f"{name} is a {kind}: a release has files and folders only" for name, kind in elsewhere], 0, []
        )
    content = read_content(folder)
    try:
        parse_formats(",".join(content["formats"]))
        splits = {split: list(_records(folder, split, content)) for split in content["splits"]}
        return _compare(folder, content, splits)
    except (UserError, *MALFORMED) as error:
        return Verified([f"{folder}: {CONTENT} or {RECORDS} are damaged ({one_line(error)})"], 0, [])


def _compare(folder: Path, content: dict, splits: dict[str, list[Record]]) -> Verified:
    notes: list[str] = []
    run = as_run(folder, content, [record for part in splits.values() for record in part])
    license = release_license(content["license"])
    checks = {
        CONTENT: list(_content(run, content, splits, license)),
        "splits": list(_splits(splits)),
        "checksums": list(_sums(folder)),
    }
    lines, parts, checks["images and their marks"] = _images(folder, run, splits, license)
    checks["labels, card and metadata"] = list(_derived(folder, run, content, splits, lines, parts, license, notes))
    checks["archives"] = list(_archives(folder, content))
    if content["archive_size"] is None and not checks["archives"]:
        del checks["archives"]
    faults = [str(UserError(fault)) for found in checks.values() for fault in found]  # unprintable characters escaped
    return Verified(faults, sum(map(len, splits.values())), list(checks), notes, sha256_of(folder / CONTENT))


def _records(folder: Path, split: str, content: dict) -> Iterator[Record]:
    """The records of the images of a split. Raises UserError or ValueError for others than those released."""
    file = folder / RECORDS / f"{split}.jsonl"
    try:
        text = file.read_bytes()
    except OSError as error:
        raise UserError(f"{file} cannot be read ({error.strerror})") from None
    if hashlib.sha256(text).hexdigest() != content["records"][split]:
        raise UserError(f"{file} was changed: {CONTENT} has another checksum of it")
    last = -1
    for number, line in enumerate(text.splitlines(), 1):
        try:
            record = Record.from_json(line)
        except ValueError as error:
            raise UserError(f"{file}:{number}: no record of an image ({error})") from None
        known = set(record.labels.classes) <= set(content["classes"])
        if not (record.accepted and record.layout_from is not None and record.index > last and known):
            raise UserError(f"{file}:{number}: no record of an image that can be released here")
        last = record.index
        yield record


def _content(run: FinishedRun, content: dict, splits: dict[str, list[Record]], license: License) -> Iterator[str]:
    """The fields of `release.json` that follow from the records."""
    if not all(splits.values()):
        yield f"{CONTENT} says that {content['splits']} images are in the splits, and a split has none"
        return
    derived = follows(run, splits, license, content["val"], content["formats"])
    if set(splits) != ({"train", "val"} if content["val"] else {"train"}):
        yield f"{CONTENT} says a share of {content['val']:g} for validation, and has the splits {', '.join(splits)}"
    if content["kind"] != run.records[0].labels.kind:
        yield f"{CONTENT} says that boxes are {content['kind']}, the records that they are {run.records[0].labels.kind}"
    rejected = (content.get("by_hand") or {}).get("rejected", 0)
    if by_hand(run.records, rejected).get("by_hand") != content.get("by_hand"):
        yield f"{CONTENT}: by_hand is not what the records say"
    for name, value in derived.items():
        if content[name] != value:
            yield f"{CONTENT}: {name} is not what the records say"


def _splits(splits: dict[str, list[Record]]) -> Iterator[str]:
    """Sources and seeds in both splits. Sources that --group joined are not: its expression may come from anyone."""
    sources = {
        split: [sources_of(x.layout_from, x.provenance, x.seed, objects_from=x.object_images) for x in part]
        for split, part in splits.items()
    }
    for source in sorted(leaks(sources.get("train", []), sources.get("val", []))):
        yield f"train and val both have images made from {source}"
    seeds = {split: {record.seed for record in part} for split, part in splits.items()}
    for seed in sorted(seeds.get("train", set()) & seeds.get("val", set())):
        yield f"train and val both have an image of seed {seed}"


def _sums(folder: Path) -> Iterator[str]:
    try:
        stored = read_sums(folder / SUMS)
    except (OSError, ValueError) as error:
        yield f"{SUMS} cannot be read ({error})"
        return
    there = files_below(folder)
    for name in sorted(stored.keys() - {*there}):
        yield f"{name} is missing"
    for name in sorted({*there} - stored.keys()):
        yield f"{name} is not in {SUMS}: it was added later"
    current = sums(folder, there)
    if current.encode() == read_bytes(folder / SUMS):
        return
    yield f"{SUMS} is not what `sha256sum` writes of these files"
    for line in current.splitlines():
        value, _, name = line.partition("  ")
        if stored.get(name, value) != value:
            yield f"{name} was changed: its checksum differs"


def _images(
    folder: Path, run: FinishedRun, splits: dict[str, list[Record]], license: License
) -> tuple[dict[str, str], dict[str, Dataset], list[str]]:
    """(text of `metadata.jsonl`, data set) of each split as they follow from the records, and faults of image files."""
    lines, parts, faults = {}, {}, []
    for split, records in splits.items():
        released = [released_image(run, record, split, license, folder) for record in records]
        lines[split] = "".join(image.line for image in released)
        parts[split] = as_dataset(run, [image.sample for image in released])
        for image, record in zip(released, records, strict=True):
            if fault := _image_fault(image.sample, image.packet, image.details, record):
                faults.append(f"images/{split}/{image.sample.image.name}: {fault}")
    return lines, parts, faults


def _image_fault(sample: Sample, packet: str, details: dict, record: Record) -> str:
    if not sample.image.is_file():
        return f"it is missing, and {RECORDS} name it"
    png = sample.image.read_bytes()
    try:
        original = marks.unmarked(png)
        size = images.measure(sample.image)
    except ValueError as error:
        return f"the image is damaged ({error})"
    if hashlib.sha256(original).hexdigest() != record.sha256:
        return "without its marks it is not the image that the run generated and filtered"
    if size != sample.layout.size:
        return f"the image is {size[0]} x {size[1]} pixels, its labels are for {sample.layout.size}"
    return "" if marks.marked(original, packet, details) == png else "its marks are not those of its record"


def _derived(
    folder: Path,
    run: FinishedRun,
    content: dict,
    splits: dict[str, list[Record]],
    lines: dict[str, str],
    parts: dict[str, Dataset],
    license: License,
    notes: list[str],
) -> Iterator[str]:
    """All other files of a release, and files and folders that do not belong to it."""
    skipped = _of_other_versions(content, notes)
    with TemporaryDirectory(prefix="dataengine-verify-") as work:
        derived = Path(work)
        for split, part in parts.items():
            for sample in part:
                name_only(sample, derived / "images" / split / sample.image.name)
            (derived / "images" / split / METADATA).write_text(lines[split], "utf-8")
        try:
            write_derived(derived, run, content, splits, parts, license)
        except Exception as error:  # libraries raise many types for values that may come from anyone
            yield f"what follows from {CONTENT} cannot be written ({one_line(error)})"
            return
        try:
            write_samples(derived, list(parts.values()), run.recipe["seed"])
        except (OSError, MemoryError, *MALFORMED):  # an image is missing or damaged, which is a fault of its own
            skipped.add("samples.jpg")
        for name, fault in differences(derived, folder):
            is_image = name.startswith("images/") and name.endswith(".png")
            elsewhere = name == SUMS or name.split("/")[0] == FOLDER
            if elsewhere or name in skipped or (is_image and fault == "is not what was written"):
                continue
            yield f"{name} {fault}"
    if (folder / CARD).is_file() and sha256_of(folder / CONTENT) not in read_text(folder / CARD):
        yield f"{CARD} was written for another {CONTENT}"


def _of_other_versions(content: dict, notes: list[str]) -> set[str]:
    """Files that this version of dataengine, or of the libraries here, may write otherwise."""
    here, skipped = libraries(), set()
    for file, names in LIBRARIES.items():
        made = {"dataengine": content["dataengine"], **{name: content["libraries"].get(name, "?") for name in names}}
        now = {"dataengine": __version__, **{name: here[name] for name in names}}
        if other := [f"{name} {made[name]} (here {now[name]})" for name in now if made[name] != now[name]]:
            notes.append(f"{file} was not compared, since it was made with {', '.join(other)}")
            skipped.add(file)
    return skipped


def _archives(folder: Path, content: dict) -> Iterator[str]:
    """Archives against the files that they must hold. None is opened: each is written again, into a checksum."""
    place = folder / FOLDER
    if content["archive_size"] is None:
        if place.exists():
            yield f"{FOLDER} does not belong here: {CONTENT} says that there are no archives"
        return
    if not place.is_dir():
        yield f"{FOLDER} is missing"
        return
    if not (folder / SUMS).is_file():
        yield f"{FOLDER} cannot be compared: {SUMS}, which archives hold, is no file"
        return
    try:
        expected = dict(archive_members(folder, content["name"], content["archive_size"]))
    except (UserError, OSError) as error:
        yield f"{FOLDER}: {error}"
        return
    for name in sorted({entry.name for entry in place.iterdir()} - {SUMS, *expected}):
        yield f"{FOLDER}/{name} does not belong here"
    for name, members in expected.items():
        if not (place / name).is_file():
            yield f"{FOLDER}/{name} is missing"
        elif archive_sha256(folder, content["name"], members) != sha256_of(place / name):
            yield f"{FOLDER}/{name} is not the archive of the files in this folder"
    there = [name for name in expected if (place / name).is_file()]
    if not (place / SUMS).is_file() or sums(place, there).encode() != (place / SUMS).read_bytes():
        yield f"{FOLDER}/{SUMS} is missing or not what `sha256sum` writes of these archives"
