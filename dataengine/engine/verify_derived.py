"""What follows from the manifest of a run, derived again into a temporary folder and compared with the run's folder."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from dataengine import __version__
from dataengine.data.layout import Dataset
from dataengine.data.png import same_picture
from dataengine.data.presets import load_preset
from dataengine.data.staging import name_only
from dataengine.engine.decided import decide
from dataengine.engine.decisions import changes_in, read_changes, read_decisions
from dataengine.engine.findings import AGAIN, REMOVE, Findings
from dataengine.engine.finish import Tally, write_derived
from dataengine.engine.recipe import Recipe
from dataengine.engine.record import MALFORMED
from dataengine.engine.run_folder import RunFolder, StoredRecipe
from dataengine.engine.verify_parts import data_here
from dataengine.errors import UserError
from dataengine.files import parse_json, read_text
from dataengine.folders import differences

EXPORT = "mmrotate"  # folder of a run that `dataengine export mmrotate` writes into unless --out names another


def compare_derived(run: RunFolder, recipe: Recipe, stored: StoredRecipe, tally: Tally, found: Findings) -> None:
    """Everything in the run's folder that follows from recipe, calibration and manifest, and what is not listed."""
    reported = _report(run, found)
    if not stored.has_checksum:
        stored = _as_reported(stored, reported)
    elif not stored.datasets:
        found.notes.append("this run was made without DOTA and COCO folders (--no-datasets)")
    real = _real_images(recipe, stored, found)
    sha256 = {}
    try:
        n_changes = _changes(run, reported, found)
        decisions = read_decisions(run, n_changes)
        for record in run.records():
            if decide(record, decisions.get(record.index)).accepted:
                sha256[f"{run.dota.name}/train/images/{record.name}.png"] = record.sha256
                sha256[f"{run.coco.name}/images/train/{record.name}.png"] = record.sha256
    except UserError as error:
        found.add(str(error), f"put {run.decisions.name} back from a copy")
        return
    made_by = stored.version or "0.1.0"
    other = "" if made_by == __version__ else f"; or verify the run with dataengine {made_by}, which made it"
    with TemporaryDirectory(prefix="dataengine-verify-") as work:
        derived = RunFolder(Path(work))
        try:
            write_derived(run, run.manifest, recipe, stored, tally, real, derived, place=name_only, n_changes=n_changes)
        except (UserError, OSError, *MALFORMED) as error:
            found.add(f"{run.path}: what follows from its manifest cannot be written ({error})", "give another --out")
            return
        if not stored.has_checksum:
            _as_earlier_versions(derived, reported)
        skipped = {run.mixed.name} if recipe.mix and real is None else set()
        if (run.path / EXPORT / "data" / "export.json").is_file():
            found.notes.append(f"{EXPORT}, an export of the run, is not verified")
            skipped.add(EXPORT)
        own = {
            file.name
            for file in (run.recipe, run.calibration, run.manifest, run.trace, run.lock, run.shards, run.decisions)
        }
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
            fix = REMOVE if top == name and fault == "does not belong here" else AGAIN + other
            found.add(f"{path} {fault}", fix)
    shards = set(map(run.shard, run.present_shards()))
    for entry in run.shards.iterdir():
        if entry not in shards:
            found.add(f"{entry} does not belong to this run", REMOVE)
    if run.lock.exists() and run.lock.stat().st_size:
        found.add(f"{run.lock} is not empty", REMOVE)


def _changes(run: RunFolder, report: dict, found: Findings) -> int:
    """How many of the changes by hand the data sets contain, as the report says; a note where there are later ones."""
    n = changes_in(report)
    if (later := len(read_changes(run.decisions)) - n) > 0:
        found.notes.append(
            f"{later} changes in {run.decisions.name} are later than the data sets of the run: the same `dataengine "
            "synth` command writes them again, and every export contains them"
        )
    return n


def _real_images(recipe: Recipe, stored: StoredRecipe, found: Findings) -> Dataset | None:
    """The images that --mix joins; None where there are none, or they are not on this machine."""
    if not recipe.mix or not stored.datasets:
        return None
    data = data_here(recipe, stored.classes)
    if data is None or data[1] is None:
        found.notes.append("the data set that --mix joins is not on this machine, so mixed/ was not compared")
        return None
    return data[1]


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
