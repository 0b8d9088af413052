"""The parts that a recipe names, as far as they are on this machine: what verification compares. None is loaded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from dataengine import weights
from dataengine.data.layout import Dataset, restrict
from dataengine.data.presets import Preset
from dataengine.engine.picture_recipe import PictureRecipe
from dataengine.engine.recipe import PACKAGED, Recipe, folder_hash
from dataengine.engine.run_folder import StoredRecipe
from dataengine.errors import UserError
from dataengine.judge.detector import identity_of


def parts_here(recipe: Recipe, stored: StoredRecipe) -> Iterator[tuple[str, str | None]]:
    """(name, hash of its content now) of each part that recipe.json names; None where it is not on this machine."""
    folders = {
        "model": recipe.model or weights.packaged(recipe.renderer),
        "layout model": recipe.layout_model,
        "map": recipe.map,
        "control": _control_here(recipe),
        "scenes": weights.packaged("whole"),
        "painter": recipe.task.painter or weights.packaged("in-scene") if isinstance(recipe, PictureRecipe) else None,
    }
    for name, before in stored.parts.items():
        if before in ("none", "data"):
            continue
        if name == "detector":
            try:
                yield name, identity_of(recipe.detector or weights.packaged("detector"))
            except (UserError, OSError):
                yield name, None
        elif name == "layouts":
            yield name, _layouts_here(recipe, stored.classes)
        elif name in folders:
            folder = folders[name]
            yield name, folder_hash(folder) if folder is not None and folder.exists() else None


def _control_here(recipe: Recipe) -> Path | None:
    """Folder of a recipe's control; None for one of a hub."""
    if recipe.control is None:
        return None
    return weights.FOLDER / "control" if recipe.control == PACKAGED else Path(recipe.control)


def data_here(recipe: Recipe, classes: Sequence[str]) -> tuple[Preset, Dataset | None, tuple[str, ...]] | None:
    """(preset, data set with only the run's classes, these by their names there); None where the data set cannot be
    read here. classes: of the run, as --draw-as renamed them."""
    from dataengine.engine.parts import find_data

    named = {new: old for old, new in recipe.draw_as.items()}
    wanted = tuple(named.get(name, name) for name in classes)
    try:
        preset, dataset = find_data(recipe)
    except UserError:
        return None
    return preset, restrict(dataset, wanted) if dataset is not None else None, wanted


def _layouts_here(recipe: Recipe, classes: Sequence[str]) -> str | None:
    from dataengine.engine.samplers import find_layouts
    from dataengine.engine.stand_in import find_stand_in

    if recipe.layout is not None:
        return folder_hash(recipe.layout) if recipe.layout.is_file() else None
    data = data_here(recipe, classes)
    try:
        return find_layouts(*data, find_stand_in(recipe, data[0]))[1] if data is not None else None
    except UserError:
        return None
