"""Is a run what was made? The manifest is compared with the shards, and all that follows from it is derived again.

`finish.write_derived` writes data sets, contact sheets and report into a temporary folder; those of the run must be the
same, and its folder must hold nothing else.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from pydantic import ValidationError

from dataengine.data import images
from dataengine.data.layout import Dataset
from dataengine.data.png import same_picture
from dataengine.data.presets import load_preset
from dataengine.data.staging import name_only
from dataengine.engine.finish import Tally, write_derived
from dataengine.engine.recipe import Recipe
from dataengine.engine.record import MALFORMED, Record
from dataengine.engine.run_folder import RunFolder, Shard, StoredRecipe, image_name, record_files
from dataengine.engine.verify_parts import data_here, parts_here
from dataengine.errors import UserError
from dataengine.files import lock, parse_json, read_text
from dataengine.folders import differences, links_and_special_files, sha256_of, walk
from dataengine.judge.calibration import Calibration, calibration_hash
from dataengine.seeds import image_seed

AGAIN = "the same `dataengine synth` command makes it again"
REMOVE = "remove it; a run does not need it"
PUT_BACK = "put it back from a copy; where all settings are right, the same `dataengine synth` command writes it again"


@dataclass(frozen=True)
class Fault:
    """What is wrong, in one sentence, and how to fix it."""

    message: str
    fix: str = AGAIN


@dataclass
class Findings:
    """notes: what could not be compared here, which is no fault; images: those of the manifest that were compared with
    their checksum; fingerprint: see `fingerprint`, "" for a run that is not finished."""

    faults: list[Fault] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    images: int = 0
    accepted: int = 0
    fingerprint: str = ""

    def add(self, message: str, fix: str = AGAIN) -> None:
        """One more fault."""
        self.faults.append(Fault(str(UserError(message)), fix))  # unprintable characters of file names are escaped


def verify(out: Path, progress: Callable[[int], None] = lambda images: None) -> Findings:
    """Compare a run's folder with itself, and with the parts that its recipe names as far as they are here.

    progress: called with the number of images compared so far. Raises UserError where there is no run, its recipe
    cannot be read, or a run is at work in the folder. No detector and no renderer is loaded.
    """
    run, found = RunFolder(Path(out)), Findings()
    if not run.recipe.exists():
        raise UserError(f"{run.path}: no {run.recipe.name} here; give the folder of a run of dataengine synth.")
    for name, kind in links_and_special_files(run.path):
        found.add(f"{run.path / name} is a {kind}, and a run has files and folders only", REMOVE)
    for file in (run.recipe, run.calibration, run.manifest, run.report, run.trace, run.lock):
        if file.is_dir():
            found.add(f"{file} is a folder, not a file", REMOVE)
    if found.faults:  # nothing is read that could lead elsewhere or never end
        return found
    _refuse_while_at_work(run)
    stored = run.stored_recipe()
    try:
        recipe = Recipe.model_validate(stored.recipe)
    except ValidationError as error:
        raise UserError(f"{run.recipe}: no recipe of this version ({error.errors()[0]['msg']}).") from None
    _compare_recipe(run, recipe, stored, found)
    tally = Tally(_calibration(run, stored, found), stored.classes)
    try:
        for record in _compare_manifest(run, recipe, found, progress):
            tally.add(record)
    except MALFORMED as error:
        found.add(f"{run.manifest}: a record contradicts itself ({error})", "give another --out")
    found.accepted = tally.accepted
    if run.manifest.exists():
        found.fingerprint = fingerprint(run)
        if found.faults:
            found.notes.append(
                "data sets, contact sheets and report were not compared: first mend what they follow from"
            )
        else:
            _compare_derived(run, recipe, stored, tally, found)
    _compare_parts(recipe, stored, found)
    return found


def fingerprint(run: RunFolder) -> str:
    """SHA-256 over all that the rest of a finished run follows from: what this command prints in the run's folder:
    `sha256sum recipe.json calibration.json manifest.jsonl | sha256sum`, without calibration.json where there is none.
    """
    files = [file for file in (run.recipe, run.calibration, run.manifest) if file.exists()]
    return hashlib.sha256("".join(f"{sha256_of(file)}  {file.name}\n" for file in files).encode()).hexdigest()


def _refuse_while_at_work(run: RunFolder) -> None:
    try:
        lock(run.lock, shared=True).close()
    except FileNotFoundError:  # a copy of the folder without hidden files
        pass
    except BlockingIOError:
        raise UserError(f"{run.path}: a run is at work in this folder; wait for it, then verify.") from None


def _compare_recipe(run: RunFolder, recipe: Recipe, stored: StoredRecipe, found: Findings) -> None:
    """recipe.json against itself."""
    if recipe.identity(stored.parts) != stored.identity:
        found.add(f"{run.recipe} was changed: it is not the recipe that its identity was taken of", PUT_BACK)
    elif stored.has_checksum and run.recipe.read_bytes() != stored.to_json().encode():
        found.add(f"{run.recipe} was changed: it is not what its checksum was taken of", PUT_BACK)
    elif not stored.has_checksum:
        found.notes.append("this run was begun by a version that did not store a checksum of recipe.json")


def _calibration(run: RunFolder, stored: StoredRecipe, found: Findings) -> Calibration | None:
    """The stored calibration, compared with its hash; None where the run has none or it is at fault."""
    if stored.calibration == "none":
        return None
    if stored.calibration is None:
        found.notes.append("this run was begun before calibrations had a checksum, so its calibration was not compared")
        if not run.calibration.exists():
            return None
    try:
        calibration = Calibration.load(run.calibration)
        if stored.calibration in (None, calibration_hash(calibration)) and _is_as_saved(calibration, run.calibration):
            return calibration
    except UserError:
        pass
    fix = "remove it: the same `dataengine synth` command makes it again"
    found.add(f"{run.calibration} is missing, damaged or another than the run was begun with", fix)
    return None


def _is_as_saved(calibration: Calibration, file: Path) -> bool:
    return file.read_bytes() == calibration.to_json().encode()


def _compare_manifest(
    run: RunFolder, recipe: Recipe, found: Findings, progress: Callable[[int], None]
) -> Iterator[Record]:
    """The records of the run's shards, up to the last one that counts, each compared with its manifest line. Shards
    that were made ahead and are not needed are compared with themselves."""
    manifest, finished, lines = run.manifest, run.manifest.exists(), []
    if finished:
        *lines, end = manifest.read_bytes().decode("utf-8", "replace").split("\n")
        if end:
            found.add(f"{manifest}: its last line has no end")
    else:
        fix = "the same `dataengine synth` command goes on"
        found.add(f"{run.path}: this run is not finished, it has no manifest", fix)
    present, n_shards = run.present_shards(), -(-recipe.budget // recipe.shard_size)
    accepted = tried = 0
    whole = finished  # else it is not known how many of the images count
    needed = set()
    for number in range(n_shards):
        if accepted == recipe.n or (number * recipe.shard_size >= len(lines) and not whole):
            break
        needed.add(number)
        if number not in present:
            found.add(f"{run.shard(number)} is missing")
            whole = False
            continue
        shard = _examine(run, recipe, number, found)
        if shard is None:
            whole = False
            continue
        for line, record in zip(shard.lines, shard.records, strict=True):
            if accepted == recipe.n:
                break
            tried = record.index + 1
            if not (tried <= len(lines) and lines[tried - 1] == line):
                found.add(f"{manifest}: line {tried} is missing, cut off or not what the shard says")
            accepted += record.accepted
            found.images += 1
            yield record
        progress(found.images)
    if whole and len(lines) > tried:
        found.add(f"{manifest} has {len(lines) - tried} lines more than this run has images")
    for number in sorted(present - needed):
        if number >= n_shards:
            found.add(f"{run.shard(number)} is beyond the last image that this run may try", REMOVE)
            continue
        shard = _examine(run, recipe, number, found)
        if shard is not None and not finished:
            found.images += len(shard.records)
            yield from shard.records
            progress(found.images)


def _examine(run: RunFolder, recipe: Recipe, number: int, found: Findings) -> Shard | None:
    """A shard, which must hold its images and nothing else; None where its records are not known."""
    shard = run.examine_shard(number)
    indices = range(number * recipe.shard_size, min((number + 1) * recipe.shard_size, recipe.budget))
    for fault in shard.faults:
        found.add(fault)
    if [record.index for record in shard.records] != list(indices):
        if not shard.faults:
            found.add(f"{run.shard(number)} does not hold images {indices[0]} to {indices[-1]}")
        return None
    for record in shard.records:
        if record.seed != image_seed(recipe.seed, record.index):
            found.add(f"{run.path}: image {record.index} was not made from this run's seed", "give another --out")
        if not shard.faults and _size(run.image(record)) != record.labels.size:
            found.add(f"{run.image(record)} is not of the size that its labels are for", "give another --out")
    own = {*record_files([]), *(Path(image_name(number, index)).name for index in indices)}
    for name, _ in walk(run.shard(number)):
        if name not in own:
            found.add(f"{run.shard(number) / name} does not belong to this run", REMOVE)
    return shard


def _size(image: Path) -> tuple[int, int] | None:
    try:
        return images.measure(image)
    except ValueError:
        return None


def _compare_derived(run: RunFolder, recipe: Recipe, stored: StoredRecipe, tally: Tally, found: Findings) -> None:
    """Everything in the run's folder that follows from recipe, calibration and manifest, and what is not listed."""
    reported = _report(run, found)
    if not stored.has_checksum:
        stored = _as_reported(stored, reported)
    elif not stored.datasets:
        found.notes.append("this run was made without DOTA and COCO folders (--no-datasets)")
    real = _real_images(recipe, stored, found)
    sha256 = {}
    for record in run.records():
        if record.accepted:
            sha256[f"{run.dota.name}/train/images/{record.name}.png"] = record.sha256
            sha256[f"{run.coco.name}/images/train/{record.name}.png"] = record.sha256
    with TemporaryDirectory(prefix="dataengine-verify-") as work:
        derived = RunFolder(Path(work))
        try:
            write_derived(run, run.manifest, recipe, stored, tally, real, derived, place=name_only)
        except (UserError, OSError, *MALFORMED) as error:
            found.add(f"{run.path}: what follows from its manifest cannot be written ({error})", "give another --out")
            return
        if not stored.has_checksum:
            _as_earlier_versions(derived, reported)
        skipped = {run.mixed.name} if recipe.mix and real is None else set()
        own = {file.name for file in (run.recipe, run.calibration, run.manifest, run.trace, run.lock, run.shards)}
        own -= {run.calibration.name} if stored.calibration == "none" else set()
        for name, fault in differences(derived.path, run.path, sha256):
            top = name.split("/")[0]
            if top in skipped or top in own:
                continue
            path = run.path / name
            if (
                path in (run.kept_sheet, run.dropped_sheet)
                and path.is_file()
                and same_picture(path, derived.path / name)
            ):
                continue
            fix = REMOVE if top == name and fault == "does not belong here" else AGAIN
            found.add(f"{path} {fault}", fix)
    shards = set(map(run.shard, run.present_shards()))
    for entry in run.shards.iterdir():
        if entry not in shards:
            found.add(f"{entry} does not belong to this run", REMOVE)
    if run.lock.exists() and run.lock.stat().st_size:
        found.add(f"{run.lock} is not empty", REMOVE)


def _real_images(recipe: Recipe, stored: StoredRecipe, found: Findings) -> Dataset | None:
    """The images that --mix joins; None where there are none, or they are not on this machine."""
    if not recipe.mix or not stored.datasets:
        return None
    data = data_here(recipe, stored.classes)
    if data is None or data[1] is None:
        found.notes.append("the data set that --mix joins is not on this machine, so mixed/ was not compared")
        return None
    return data[1]


def _compare_parts(recipe: Recipe, stored: StoredRecipe, found: Findings) -> None:
    for name, now in parts_here(recipe, stored):
        if now is None:
            found.notes.append(f"the {name} of this run is not on this machine, so it was not compared")
        elif now != stored.parts[name]:
            found.add(
                f"the {name} has changed since this run was made ({now}, not {stored.parts[name]})",
                "put the earlier part back; the run stays as it is, but cannot be continued",
            )


def _report(run: RunFolder, found: Findings) -> dict:
    """What report.json says; {} where it is missing or damaged, which its comparison finds, too."""
    try:
        content = parse_json(read_text(run.report))
    except (UserError, ValueError):
        content = None
    return content if isinstance(content, dict) else {}


def _as_reported(stored: StoredRecipe, report: dict) -> StoredRecipe:
    """The recipe of a run of an earlier version, which kept in its report alone what the user was told, and whether it
    has data sets."""
    try:
        name = load_preset(stored.recipe["dataset"]).name
    except (UserError, KeyError, TypeError):
        name = stored.dataset_name
    notes = report.get("notes")
    notes = tuple(notes) if isinstance(notes, list) and all(isinstance(note, str) for note in notes) else ()
    return replace(stored, name=name, notes=notes, datasets=report.get("datasets") is not False)


def _as_earlier_versions(derived: RunFolder, report: dict) -> None:
    """Leave out of a derived report what the version that made the run did not report."""
    content = json.loads(read_text(derived.report))
    notes = report.get("notes", content["notes"])  # they may name a path below the run's folder of then
    content = {name: value for name, value in content.items() if name in report} | {"notes": notes}
    derived.report.write_text(json.dumps(content, indent=2) + "\n")
