"""The data sets in a run's folder after changes by hand that are later than they are."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory

from dataengine.engine.decisions import changes_in, read_changes
from dataengine.engine.finish import Tally, write_derived
from dataengine.engine.picture_recipe import recipe_of
from dataengine.engine.run_folder import RunFolder
from dataengine.engine.verify_parts import data_here
from dataengine.errors import UserError
from dataengine.files import lock, parse_json, read_text, remove
from dataengine.judge.calibration import Calibration


def update_data_sets(folder: str | Path) -> bool:
    """Write the DOTA and COCO folders, `mixed`, `changes` and the report of a finished run again if decisions.jsonl has
    changes that they do not contain; whether it had. Other folders stay as they are.

    Raises UserError where a run is at work in the folder, where it is damaged, and where the data set that --mix joins
    is not on this machine.
    """
    run = RunFolder(folder)
    if not (run.decisions.exists() and run.manifest.exists() and run.report.exists()):
        return False
    try:
        report = parse_json(read_text(run.report))
    except ValueError as error:
        raise UserError(f"{run.report} {error}; the same dataengine synth command writes it again.") from None
    if len(read_changes(run.decisions)) == changes_in(report):
        return False
    stored = run.stored_recipe()
    recipe = recipe_of(stored.recipe)
    tally = Tally(Calibration.load(run.calibration) if run.calibration.exists() else None, stored.classes)
    try:
        with lock(run.lock):
            for record in run.records():
                tally.add(record)
            data = data_here(recipe, stored.classes) if recipe.mix and stored.datasets else None
            if recipe.mix and stored.datasets and (data is None or data[1] is None):
                raise UserError(
                    f"{run.mixed}: the data set that --mix joins is not on this machine; put it there first."
                )
            with TemporaryDirectory(prefix=".decided-", dir=run.path) as work:
                fresh = RunFolder(work)
                write_derived(run, run.manifest, recipe, stored, tally, data and data[1], fresh)
                for name in (run.dota.name, run.coco.name, run.mixed.name, run.changes.name):
                    remove(run.path / name)
                    if (fresh.path / name).exists():
                        os.rename(fresh.path / name, run.path / name)
                os.replace(fresh.report, run.report)
    except BlockingIOError:
        raise UserError(f"{run.path}: a run is at work in this folder; wait for it, then export.") from None
    return True
