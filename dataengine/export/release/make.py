"""Release a finished run as a data set: written to a temporary folder and renamed into place when it is complete."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from dataengine import __version__
from dataengine.data.layout import Dataset
from dataengine.data.split import check_group
from dataengine.engine.record import Record
from dataengine.errors import UserError
from dataengine.evaluate.results import Result
from dataengine.export.release.archives import files_below, parse_size, write_archives, write_sums
from dataengine.export.release.card import card_values, notes, write_card, write_samples
from dataengine.export.release.content import (
    CONTENT,
    DATE,
    NAME,
    RECORDS,
    VERSION,
    as_run,
    by_hand,
    figures,
    follows,
    libraries,
    source_values,
    to_text,
)
from dataengine.export.release.croissant import load_mlcroissant, write_croissant
from dataengine.export.release.finished_run import FinishedRun, read_run
from dataengine.export.release.labels import Progress, parse_formats, write_images, write_labels
from dataengine.export.release.licenses import License, conflicts, release_license
from dataengine.export.release.sides import divide, sources_of
from dataengine.files import cannot_write, create_folder, read_text, write_whole
from dataengine.folders import sha256_of

Bar = Callable[[Sequence, str], Sequence]  # wraps a sequence to show progress


@dataclass(frozen=True)
class Settings:
    """Settings of a release.

    name: of the data set, valid on a hub. license: SPDX id. val: share of the validation split. group: a regular
    expression for sources that belong together (`sides.sources_of`). archive_size: such as "1GB", None for no archives.
    source_license: of sources without a stated licence. training, held_out: labelled data sets or folders of images for
    the check for copies. most_copies: share of images that may be near copies. drop_copies: leave near copies out.
    version, date (YYYY-MM-DD): for the metadata only. training_format, held_out_format: None recognises the format.
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
    training_format: str | None = None
    held_out_format: str | None = None


@dataclass(frozen=True)
class Released:
    """splits: number of images in each. left_out: images left out because their sources are in both splits. copies:
    near copies left out. notes: sentences for the user. fresh: False where the same release existed already."""

    folder: Path
    splits: dict[str, int]
    left_out: int
    copies: int
    notes: list[str]
    fresh: bool = True


def _no_progress(what: str, done: int, total: int) -> None:
    return None


def make(
    run_folder: Path, out: Path, settings: Settings, progress: Progress = _no_progress, bar: Bar = lambda x, title: x
) -> Released:
    """Write a release of a finished run to `out`; repeating the same call changes nothing.

    The same run and settings give the same bytes. Raises UserError for conflicting licences, more near copies of
    training images than `most_copies`, invalid options, and another release at `out`. Nothing is written then.
    """
    formats, largest = _checked(settings)
    load_mlcroissant()  # a missing library is reported now, not at the end
    license = release_license(settings.license)
    run = read_run(run_folder, settings.source_license)
    against = conflicts(run.sources, license)
    if against and not settings.allow_license_mix:
        raise UserError(f"--license {license.id}: {'; '.join(against)}. Release it anyway with --allow-license-mix.")
    unknown = [record for record in run.records if record.n_painted and not record.objects_from]
    if run.recipe.get("strength", 1) < 1 and settings.val and unknown:
        raise UserError(
            f"--val {settings.val:g}: objects of this run are repainted real ones (strength "
            f"{run.recipe['strength']:g}), and a version that did not record their sources made it, so one could be in "
            "both splits; make the run again, or give --val 0."
        )
    records, copies, dropped = _without_copies(run, settings, bar)
    sources = [sources_of(x.layout_from, x.provenance, x.seed, settings.group, x.object_images) for x in records]
    sides = divide(sources, settings.val, run.recipe["seed"])
    splits = {
        split: [record for record, side in zip(records, sides, strict=True) if side == split]
        for split in (("train", "val") if settings.val else ("train",))
    }
    # as verification reads them back, so that it derives the same files to the last bit
    splits = {split: [Record.from_json(record.to_json()) for record in part] for split, part in splits.items()}
    left_out = len(records) - sum(map(len, splits.values()))
    follow = follows(run, splits, license, settings.val, formats)
    content = {
        "name": settings.name,
        "version": settings.version,
        "date": settings.date,
        "license": license.id,
        "synthetic": True,
        "dataengine": __version__,
        "libraries": libraries(),
        "classes": list(run.classes),
        "kind": run.kind,
        "formats": list(formats),
        "splits": follow["splits"],
        "objects": follow["objects"],
        "val": settings.val,
        "group": settings.group,
        "left_out": {"leaks": left_out, "copies": dropped, "outside": run.outside(records)},
        "recipe": run.recipe,
        "parts": run.parts,
        "identity": run.identity,
        "sources": source_values(run),
        "against_licenses": follow["against_licenses"],
        "copies": [table.as_json() for table in copies],
        "limits": follow["limits"],
        **figures(run),
        "archive_size": largest,
        "records": {split: sha256(records_text(part)).hexdigest() for split, part in splits.items()},
        **by_hand([record for part in splits.values() for record in part], run.rejected),
    }
    content = json.loads(json.dumps(content))
    if out.exists():
        return _already(out, content, left_out, dropped)
    run = as_run(run.folder, content, [record for part in splits.values() for record in part])
    building = out.with_name(f".{out.name}.partial")
    try:
        create_folder(building)
        parts = {s: write_images(run, part, s, license, building, progress) for s, part in splits.items()}
        write_samples(building, list(parts.values()), run.recipe["seed"])
        write_derived(building, run, content, splits, parts, license, progress)
        write_sums(building, files_below(building))
        if largest is not None:
            write_archives(building, settings.name, largest)
        os.rename(building, out)
    except OSError as error:
        if error.errno is None:  # Pillow's errors are no errors of the disk
            raise UserError(
                f"{run_folder}: an image of the run cannot be used ({error}); find it with dataengine run verify."
            ) from error
        raise cannot_write(error, out, "choose another --out.") from error
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return Released(out, content["splits"], left_out, dropped, notes(content))


def records_text(records: Sequence[Record]) -> bytes:
    """The records of a split, one a line."""
    return "".join(f"{record.to_json()}\n" for record in records).encode()


def write_derived(
    folder: Path,
    run: FinishedRun,
    content: dict,
    splits: dict[str, list[Record]],
    parts: dict[str, Dataset],
    license: License,
    progress: Progress = _no_progress,
) -> None:
    """Write what follows from the records of a release and from `release.json`: records, labels, card, Croissant.

    run: as the release knows it (`as_run`). parts: the released images by split. `make` writes into the release,
    `verify` next to it to compare.
    """
    (folder / RECORDS).mkdir()
    for split, records in splits.items():
        write_whole(folder / RECORDS / f"{split}.jsonl", records_text(records))
    for name in content["formats"]:
        write_labels(parts, name, folder, progress)
    write_whole(folder / CONTENT, to_text(content))
    copies = [Result.from_json(table) for table in content["copies"]]
    values = card_values(run, content, splits, copies)
    write_card(folder, content, {**values, "license": license, "content_sha256": sha256_of(folder / CONTENT)})
    write_croissant(folder, content, values["what"], license)


def _checked(settings: Settings) -> tuple[tuple[str, ...], int | None]:
    """Formats and archive size in bytes. Raises UserError with the invalid option."""
    if not re.fullmatch(NAME, settings.name):
        raise UserError(f"--name {settings.name}: give letters, digits, '-', '_' and '.', at most 96, as hubs require.")
    if not 0 <= settings.val <= 0.5:
        raise UserError(f"--val {settings.val:g}: give a share from 0 to 0.5.")
    if not re.fullmatch(VERSION, settings.version):
        raise UserError(f"--version {settings.version}: give three numbers, such as 1.0.0.")
    if settings.date is not None and not re.fullmatch(DATE, settings.date):
        raise UserError(f"--date {settings.date}: give year, month and day, such as 2026-11-25.")
    if settings.group is not None:
        check_group(settings.group)
    if (settings.training is None) != (settings.held_out is None):
        raise UserError(
            "--training and --held-out belong together: the distance of a near copy is calibrated on real images "
            "that no model has seen."
        )
    largest = parse_size(settings.archive_size) if settings.archive_size is not None else None
    return parse_formats(settings.formats), largest


def _without_copies(run: FinishedRun, settings: Settings, bar: Bar):
    """Records to release, the tables of the check for copies ([] without a check), and how many it left out."""
    if settings.training is None or settings.held_out is None:
        return run.records, [], 0
    from dataengine.export.release.copies import near_copies  # imports networks

    formats = settings.training_format, settings.held_out_format
    results, near = near_copies(run.folder, settings.training, settings.held_out, bar, run.recipe["seed"], formats)
    share = len(near) / len(run.records)
    if share > settings.most_copies and not settings.drop_copies:
        named = ", ".join(near[:10]) + (f" and {len(near) - 10} more" if len(near) > 10 else "")
        raise UserError(
            f"{len(near)} of {len(run.records)} images ({share:.1%}, more than --max-copies {settings.most_copies:g}) "
            "are nearer to a training image than 99 % of held-out images, or show a part of one: "
            f"{named}. Leave them out with --drop-copies."
        )
    if not settings.drop_copies:
        return run.records, results, 0
    rest = [record for record in run.records if record.name not in set(near)]
    if not rest:
        raise UserError("--drop-copies: all images are near copies of training images, so nothing would be released.")
    return rest, results, len(near)


def _already(out: Path, content: dict, left_out: int, dropped: int) -> Released:
    """The existing release at `out`. Raises UserError where it is another one."""
    if not (out / CONTENT).exists():
        raise UserError(f"{out} exists and is no release; choose another --out.")
    try:
        stored = json.loads(read_text(out / CONTENT))
    except ValueError:
        stored = {}
    changed = sorted(key for key in content if stored.get(key) != content[key])
    if changed:
        raise UserError(f"{out} holds another release ({', '.join(changed)} differ); choose another --out.")
    return Released(out, content["splits"], left_out, dropped, [], fresh=False)
