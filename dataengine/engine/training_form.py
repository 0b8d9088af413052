"""A run without real images in the form of the data set that it imitates, with a config of mmrotate beside it."""

from __future__ import annotations

from pathlib import Path

from dataengine.data.presets import load_preset
from dataengine.engine.fetched import with_fetched
from dataengine.engine.recipe import Recipe
from dataengine.engine.run_folder import RunFolder
from dataengine.engine.stand_in import find_stand_in


def write_training_form(recipe: Recipe, out: Path) -> str:
    """Write the accepted images of a run whose preset's data set is not on this machine, at least two, to the folder
    `OUT-mmrotate`; a sentence that says so, or "" for all other runs.

    Raises UserError as `export_synthetic` does.
    """
    recipe, _ = with_fetched(recipe)
    preset = load_preset(recipe.dataset) if recipe.dataset is not None else None
    if preset is None or find_stand_in(recipe, preset) is None:
        return ""
    from dataengine.mmrotate.synthetic import export_synthetic
    from dataengine.mmrotate.training_config import LAYOUTS

    run = RunFolder(out)
    made = run.accepted_images()
    if len(made) < 2:
        return ""
    layout = preset.format if preset.format in LAYOUTS else "dota"
    detector = "h2rbox-v2" if made.kind == "hbb" else "oriented-rcnn"  # the first learns angles from horizontal boxes
    folder = out.with_name(f"{out.name}-mmrotate")
    done = export_synthetic(made, folder, detector, layout, run.stored_recipe().identity)
    return (
        f"in the form of {preset.title}, with a config of mmrotate: {done.config} trains on {done.train} of these "
        f"synthetic images and tests on the other {done.test}, which says nothing about real ones"
    )
