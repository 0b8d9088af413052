"""Is a run what was made? The manifest is compared with the shards, and all that follows from it is derived again.

`finish.write_derived` writes data sets, contact sheets and report into a temporary folder; those of the run must be the
same, and its folder must hold nothing else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

from pydantic import ValidationError

from dataengine.data import images
from dataengine.engine.findings import PUT_BACK, REMOVE, Findings
from dataengine.engine.finish import Tally
from dataengine.engine.picture_recipe import recipe_of
from dataengine.engine.recipe import Recipe
from dataengine.engine.record import MALFORMED, Record
from dataengine.engine.run_folder import RunFolder, Shard, StoredRecipe, image_name, record_files
from dataengine.engine.verify_derived import compare_derived
from dataengine.engine.verify_parts import parts_here
from dataengine.errors import UserError
from dataengine.files import lock
from dataengine.folders import links_and_special_files, sha256_of, walk
from dataengine.judge.calibration import Calibration, calibration_hash
from dataengine.seeds import image_seed


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
        recipe = recipe_of(stored.recipe)
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
            compare_derived(run, recipe, stored, tally, found)
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
    try:
        calibration = Calibration.load(run.calibration)
        if stored.calibration == calibration_hash(calibration) and _is_as_saved(calibration, run.calibration):
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


def _compare_parts(recipe: Recipe, stored: StoredRecipe, found: Findings) -> None:
    for name, now in parts_here(recipe, stored):
        if now is None:
            found.notes.append(f"the {name} of this run is not on this machine, so it was not compared")
        elif now != stored.parts[name]:
            found.add(
                f"the {name} has changed since this run was made ({now}, not {stored.parts[name]})",
                "put the earlier part back; the run stays as it is, but cannot be continued",
            )
