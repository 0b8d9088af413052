"""A finished run becomes a data set that can be published: built beside its place, and put there when it is whole."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from dataengine import __version__
from dataengine.data.split import check_group
from dataengine.engine.record import Record
from dataengine.errors import UserError
from dataengine.export.release import words
from dataengine.export.release.archives import files_below, parse_size, write_archives, write_sums
from dataengine.export.release.card import write_card, write_samples
from dataengine.export.release.croissant import load_mlcroissant, write_croissant
from dataengine.export.release.finished_run import FinishedRun, read_run
from dataengine.export.release.labels import Progress, parse_formats, write_images, write_labels
from dataengine.export.release.licenses import conflicts, release_license
from dataengine.export.release.sides import divide, sources_of
from dataengine.files import read_text, write_whole

CONTENT = "release.json"
Bar = Callable[[Sequence, str], Sequence]  # wraps what is gone through in progress


@dataclass(frozen=True)
class Settings:
    """What decides a release, besides its run.

    name: of the data set, as a hub takes it. license: SPDX id. val: share of the images that are validated. group: a
    regular expression for sources that belong together (`sides.sources_of`). archive_size: "1GB", None for no archives.
    source_license: of what went in and does not say its own. training, held_out: labelled data sets or folders of
    images, for the check for copies; most_copies: the share of images that may be near copies; drop_copies: leave them
    out instead. version, date (YYYY-MM-DD): for the metadata only.
    """

    name: str
    license: str
    val: float = 0.1
    formats: str = "dota,coco"
    group: str | None = None
    archive_size: str | None = None
    source_license: str = ""
    allow_license_mix: bool = False
    training: Path | None = None
    held_out: Path | None = None
    most_copies: float = 0.02
    drop_copies: bool = False
    version: str = "1.0.0"
    date: str | None = None


@dataclass(frozen=True)
class Released:
    """splits: images in each; left_out: images that would have leaked; copies: near copies left out; notes: sentences
    for the user; fresh: whether it was made now, or was there already."""

    folder: Path
    splits: dict[str, int]
    left_out: int
    copies: int
    notes: list[str]
    fresh: bool = True


def _nothing(what: str, done: int, total: int) -> None:
    return None


def make(
    run_folder: Path, out: Path, settings: Settings, progress: Progress = _nothing, bar: Bar = lambda x, title: x
) -> Released:
    """Write a release of a finished run to `out`, which must not exist yet; the same call again changes nothing.

    The same run and settings make the same bytes. Raises UserError where licences forbid it, where more than
    `most_copies` of the images are near copies of training images, and for every option that does not fit; nothing is
    then left at `out`.
    """
    formats, largest = _checked(settings)
    load_mlcroissant()  # told now, where it is not installed, not at the end
    license = release_license(settings.license)
    run = read_run(run_folder, settings.source_license)
    against = conflicts(run.sources, license)
    if against and not settings.allow_license_mix:
        raise UserError(f"--license {license.id}: {'; '.join(against)}. --allow-license-mix releases it all the same.")
    if run.recipe.get("strength", 1) < 1 and settings.val:
        raise UserError(
            f"--val {settings.val:g}: objects of this run began as real ones (strength {run.recipe['strength']:g}), "
            "and nothing says as which, so one may have been redrawn on both sides; give --val 0."
        )
    records, copies, dropped = _without_copies(run, settings, bar)
    sources = [sources_of(x.layout_from, x.provenance, x.seed, settings.group) for x in records]
    sides = divide(sources, settings.val, run.recipe["seed"])
    splits = {
        split: [record for record, side in zip(records, sides, strict=True) if side == split]
        for split in (("train", "val") if settings.val else ("train",))
    }
    left_out = len(records) - sum(map(len, splits.values()))
    content = {
        "name": settings.name,
        "version": settings.version,
        "date": settings.date,
        "license": license.id,
        "synthetic": True,
        "dataengine": __version__,
        "classes": list(run.classes),
        "kind": run.kind,
        "formats": list(formats),
        "splits": {split: len(part) for split, part in splits.items()},
        "objects": {split: _counts(run, part) for split, part in splits.items()},
        "val": settings.val,
        "group": settings.group,
        "left_out": {"leaks": left_out, "copies": dropped},
        "recipe": run.recipe,
        "parts": run.parts,
        "identity": run.identity,
        "sources": [asdict(source) for source in run.sources],
        "against_licenses": against,
        "copies": copies.as_json() if copies is not None else None,
        "limits": words.limits(run, splits, settings.val),
    }
    if out.exists():
        return _already(out, content, left_out, dropped)
    building = out.with_name(f".{out.name}.partial")
    try:
        shutil.rmtree(building, ignore_errors=True)
        building.mkdir(parents=True)
        parts = {s: write_images(run, part, s, license, building, progress) for s, part in splits.items()}
        for name in formats:
            write_labels(parts, name, building, progress)
        write_samples(building, list(parts.values()), run.recipe["seed"])
        told = words.told(run, content, splits, copies)
        write_card(building, content, {**told, "license": license})
        write_croissant(building, content, told["what"], license)
        write_whole(building / CONTENT, json.dumps(content, indent=2) + "\n")
        write_sums(building, files_below(building))
        if largest is not None:
            write_archives(building, settings.name, largest)
        os.rename(building, out)
    except OSError as error:
        raise UserError(
            f"{error.filename or out} could not be written ({error.strerror or error}); free some space or give "
            "another --out."
        ) from error
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return Released(out, content["splits"], left_out, dropped, words.notes(content, license))


def _checked(settings: Settings) -> tuple[tuple[str, ...], int | None]:
    """Formats and archive size, or UserError with the option's name."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}", settings.name):
        raise UserError(
            f"--name {settings.name}: give letters, digits, '-', '_' and '.', at most 96, as hubs take them."
        )
    if not 0 <= settings.val <= 0.5:
        raise UserError(f"--val {settings.val:g}: give a share from 0 to 0.5.")
    if not re.fullmatch(r"\d+\.\d+\.\d+", settings.version):
        raise UserError(f"--version {settings.version}: give three numbers, such as 1.0.0.")
    if settings.date is not None and not re.fullmatch(r"\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])", settings.date):
        raise UserError(f"--date {settings.date}: give year, month and day, such as 2026-11-25.")
    if settings.group is not None:
        check_group(settings.group)
    if (settings.training is None) != (settings.held_out is None):
        raise UserError(
            "--training and --held-out belong together: how near a copy lies is told by real images that no model "
            "has seen."
        )
    largest = parse_size(settings.archive_size) if settings.archive_size is not None else None
    return parse_formats(settings.formats), largest


def _without_copies(run: FinishedRun, settings: Settings, bar: Bar):
    """The records to release, the table of the check for copies if it was made, and how many images it left out."""
    if settings.training is None or settings.held_out is None:
        return run.records, None, 0
    from dataengine.export.release.copies import near_copies  # networks, which nothing else here needs

    result, near = near_copies(run.folder, settings.training, settings.held_out, bar, run.recipe["seed"])
    share = len(near) / len(run.records)
    if share > settings.most_copies and not settings.drop_copies:
        named = ", ".join(near[:10]) + (f" and {len(near) - 10} more" if len(near) > 10 else "")
        raise UserError(
            f"{len(near)} of {len(run.records)} images ({share:.1%}, more than --max-copies {settings.most_copies:g}) "
            f"are nearer to a training image than 99 % of held-out ones: {named}. --drop-copies leaves them out."
        )
    if not settings.drop_copies:
        return run.records, result, 0
    rest = [record for record in run.records if record.name not in set(near)]
    if not rest:
        raise UserError("--drop-copies: all images are near copies of training images, so nothing would be released.")
    return rest, result, len(near)


def _counts(run: FinishedRun, records: Sequence[Record]) -> dict[str, int]:
    """Objects of each class."""
    labels = np.concatenate([run.labels(record).labels for record in records])
    return dict(zip(run.classes, np.bincount(labels, minlength=len(run.classes)).tolist(), strict=True))


def _already(out: Path, content: dict, left_out: int, dropped: int) -> Released:
    """A release that is there already is left alone, if it is this one."""
    if not (out / CONTENT).exists():
        raise UserError(f"{out} exists and is no release; give another --out.")
    try:
        there = json.loads(read_text(out / CONTENT))
    except ValueError:
        there = {}
    changed = sorted(key for key in content if there.get(key) != content[key])
    if changed:
        raise UserError(f"{out} holds another release ({', '.join(changed)} differ); give another --out.")
    return Released(out, content["splits"], left_out, dropped, [], fresh=False)
