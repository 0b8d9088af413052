"""Verification of a release: files, counts, labels in all formats, marks and splits must agree."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dataengine import geometry
from dataengine.data import formats, images
from dataengine.data.layout import Dataset, class_key
from dataengine.engine.record import provenance_from_json
from dataengine.errors import UserError, shown
from dataengine.export.release import marks
from dataengine.export.release.archives import FOLDER, SUMS, archived, digest, files_below, read_sums
from dataengine.export.release.croissant import FILE, croissant_faults
from dataengine.export.release.labels import METADATA
from dataengine.export.release.sides import leaks, sources_of
from dataengine.files import read_text

CONTENT = "release.json"
MIN_IOU = 0.97  # between the same box in two formats, which round differently
LATER_KEYS = ("objects_from",)  # which releases of 0.1.0 do not have
DUPLICATED_KEYS = ("seed", "layout_from", "scene", "scene_source", "scene_license", "license", "sha256")


@dataclass(frozen=True)
class Verified:
    """faults: one sentence each, empty for a valid release. images: their number. checked: names of the checks."""

    faults: list[str]
    images: int
    checked: list[str]


def verify(folder: Path) -> Verified:
    """Check whether all parts of a release agree.

    Raises UserError where the folder has no release; faults of a release are sentences in the result.
    """
    if not (folder / CONTENT).exists():
        raise UserError(f"{folder}: no release (it has no {CONTENT}); give a folder written by dataengine release.")
    try:
        content = json.loads(read_text(folder / CONTENT))
        lines = {split: _lines(folder, split) for split in content["splits"]}
        checks = {
            "checksums": _sums(folder),
            "counts": _counts(content, lines),
            "marks in the images": _marks(folder, content, lines),
            "splits": _splits(content, lines),
        }
        for name in content["formats"]:
            checks[f"labels in {name.removesuffix('-obb').upper()}"] = _labels(folder, name, content, lines)
        checks["Croissant"] = iter(f"{FILE}: {fault}" for fault in croissant_faults(folder / FILE))
        if (folder / FOLDER).exists():
            checks["archives"] = _archives(folder, content["name"])
        faults = [fault for found in checks.values() for fault in found]
    except (ValueError, LookupError, TypeError, AttributeError, AssertionError, OverflowError, RecursionError) as error:
        # damaged JSON can have any content
        return Verified([f"{folder}: {CONTENT} or {METADATA} is damaged ({error})"], 0, [])
    return Verified(faults, sum(map(len, lines.values())), list(checks))


def _lines(folder: Path, split: str) -> list[dict]:
    return [json.loads(line) for line in read_text(folder / "images" / split / METADATA).splitlines()]


def _sums(folder: Path) -> Iterator[str]:
    try:
        stored = read_sums(folder / SUMS)
    except (OSError, ValueError) as error:
        yield f"{SUMS} cannot be read ({error})"
        return
    there = set(files_below(folder))
    for name in sorted(stored.keys() - there):
        yield f"{name} is missing"
    for name in sorted(there - stored.keys()):
        yield f"{name} is not in {SUMS}: it was added later"
    for name in sorted(there & stored.keys()):
        if digest(folder / name) != stored[name]:
            yield f"{name} was changed: its checksum differs"


def _counts(content: dict, lines: dict[str, list[dict]]) -> Iterator[str]:
    for split, n in content["splits"].items():
        if len(lines[split]) != n:
            yield f"images/{split}/{METADATA} has {len(lines[split])} images, {CONTENT} says {n}"
        found = Counter(name for line in lines[split] for name in line["objects"]["category_name"])
        for name, stated in content["objects"][split].items():
            if found[name] != stated:
                yield f"{split} has {found[name]} objects of {name}, {CONTENT} says {stated}"


def _marks(folder: Path, content: dict, lines: dict[str, list[dict]]) -> Iterator[str]:
    for split, part in lines.items():
        listed = {line["file_name"] for line in part}
        for file in sorted((folder / "images" / split).glob("*.png")):
            if file.name not in listed:
                yield f"{_name(folder, file)} is not in {METADATA}"
        for line in part:
            file = folder / "images" / split / line["file_name"]
            if Path(line["file_name"]).name != line["file_name"]:
                yield f"images/{split}/{METADATA} names {shown(line['file_name'])}, which is in another folder"
            elif os.path.isfile(file):  # unlike `Path`, accepts invalid names
                yield from (f"{_name(folder, file)}: {fault}" for fault in _mark(file, content, line))
            else:
                yield f"{_name(folder, file)} is missing, and {METADATA} names it"


def _mark(file: Path, content: dict, line: dict) -> Iterator[str]:
    png = file.read_bytes()
    try:
        mark = marks.read_mark(png)
        images.decode(file)
        size = images.measure(file)
    except ValueError as error:
        yield f"the image is damaged ({error})"
        return
    if size != (line["width"], line["height"]):
        yield f"the image is {size[0]} x {size[1]} pixels, {METADATA} says {line['width']} x {line['height']}"
    if mark.source_type not in (marks.GENERATED, marks.PAINTED_INTO) or not mark.details.get("synthetic"):
        yield "no mark says that the image is synthetic"
        return
    if mark.source_type != line["digital_source_type"]:
        yield f"its digital source type differs from {METADATA}"
    for key in (*DUPLICATED_KEYS, *(key for key in LATER_KEYS if key in line or key in mark.details)):
        if mark.details.get(key) != line.get(key):
            yield f"the image says {key} {mark.details.get(key)!r}, {METADATA} says {line.get(key)!r}"
    if mark.details.get("parts") != content["parts"] or mark.details.get("run") != content["identity"]:
        yield f"the image names another run or other models than {CONTENT}"
    if hashlib.sha256(marks.unmarked(png)).hexdigest() != line["sha256"]:
        yield "without its marks it is not the image that the run generated and filtered"


def _splits(content: dict, lines: dict[str, list[dict]]) -> Iterator[str]:
    sources = {
        split: [
            sources_of(
                line["layout_from"],
                provenance_from_json(line),
                line["seed"],
                content["group"],
                line.get("objects_from", []),
            )
            for line in part
        ]
        for split, part in lines.items()
    }
    for source in sorted(leaks(sources.get("train", []), sources.get("val", []))):
        yield f"train and val both have images made from {source}"
    seeds = {split: {line["seed"] for line in part} for split, part in lines.items()}
    for seed in sorted(seeds.get("train", set()) & seeds.get("val", set())):
        yield f"train and val both have an image of seed {seed}"


def _labels(folder: Path, name: str, content: dict, lines: dict[str, list[dict]]) -> Iterator[str]:
    """Labels of a format, read by its reader, against `metadata.jsonl`."""
    for split, part in lines.items():
        try:
            # some formats have no blanks in names
            dataset = formats.read(folder, formats.module(name).NAME, split=split)
        except UserError as error:
            yield f"{name}: {error}"
            continue
        yield from (f"{name}: {problem}" for problem in dataset.problems)
        yield from (f"{name}, {split}: {fault}" for fault in _against(dataset, name, content, part))


def _against(dataset: Dataset, name: str, content: dict, part: list[dict]) -> Iterator[str]:
    found = {Path(sample.name).name: sample.layout for sample in dataset}
    classes = [class_key(name) for name in content["classes"]]
    if unknown := {class_key(name) for name in dataset.classes} - set(classes):
        yield f"it has the classes {', '.join(sorted(unknown))}, which {CONTENT} does not have"
        return
    for line in part:
        stem = Path(line["file_name"]).stem
        layout = found.pop(stem, None)
        if layout is None:
            yield f"{stem} has no labels"
            continue
        stated = [classes[label] for label in line["objects"]["category"]]
        if [class_key(x) for x in layout.names()] != stated:
            yield f"{stem} has objects of other classes than in {METADATA}"
            continue
        corners = np.array(line["objects"]["obb"], np.float32).reshape(-1, 4, 2)
        if "difficult" in formats.module(name).HOLDS and layout.difficult.tolist() != line["objects"]["difficult"]:
            yield f"{stem} has other difficult objects than in {METADATA}"
        boxes = geometry.from_corners(corners)
        for i in np.flatnonzero(~_same(layout.boxes, boxes)):
            yield f"{stem}, object {i + 1} has another box than in {METADATA}"
    for stem in sorted(found):
        yield f"{stem} is labelled, but no image of {METADATA}"


def _same(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """bool (N,): boxes that are equal except for rounding."""
    return np.array([geometry.iou(x[None], y[None])[0, 0] >= MIN_IOU for x, y in zip(a, b, strict=True)], bool)


def _archives(folder: Path, prefix: str) -> Iterator[str]:
    try:
        stored = read_sums(folder / FOLDER / SUMS)
    except (OSError, ValueError) as error:
        yield f"{FOLDER}/{SUMS} cannot be read ({error})"
        return
    expected = {
        f"{prefix}/{name}": digest(folder / name) for name in [SUMS, *files_below(folder)] if (folder / name).exists()
    }
    whole = True
    for name, value in stored.items():
        file = folder / FOLDER / name
        if Path(name).name != name:
            whole = False
            yield f"{FOLDER}/{SUMS} names {shown(name)}, which is in another folder"
            continue
        if not os.path.isfile(file) or digest(file) != value:
            whole = False
            what = "was changed: its checksum differs" if os.path.isfile(file) else "is missing"
            yield f"{FOLDER}/{name} {what}"
            continue
        try:
            for member, content in archived(file):
                if expected.pop(member, None) != content:
                    yield f"{FOLDER}/{name} has another {member} than the folder"
        except ValueError as error:
            whole = False
            yield f"{FOLDER}/{name}: {error}"
    if whole and expected:
        yield f"no archive has {next(iter(expected))}"


def _name(folder: Path, file: Path) -> str:
    return file.relative_to(folder).as_posix()
