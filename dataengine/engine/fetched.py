"""A fetched model (`dataengine model get`) as the renderer of runs that name no model."""

from __future__ import annotations

from pydantic import ValidationError

from dataengine import weights
from dataengine.data.layout import model_key
from dataengine.data.presets import load_preset
from dataengine.engine.recipe import Recipe
from dataengine.errors import UserError
from dataengine.render import published
from dataengine.render.imagery import read_imagery


def with_fetched(recipe: Recipe) -> tuple[Recipe, list[str]]:
    """The recipe with the fetched model of its preset where it names no model, and a note that says so.

    That is where the preset is asked for with renderer "whole", or where no renderer is asked for and the packaged one
    does not know all of its classes. Image size, the scale of layouts, and no filter, since no packaged detector knows
    all classes, are chosen unless they are given. Raises UserError where the model would be needed and is not fetched:
    the packaged whole-image renderer draws only the data sets that it was trained on.
    """
    if recipe.dataset is None or recipe.model is not None:
        return recipe, []
    preset = load_preset(recipe.dataset)
    model = next((model for model in published.PUBLISHED if model.dataset == preset.name), None)
    if model is None:
        return recipe, []
    folder = published.default_folder(model)
    if not published.is_imported(folder):
        if recipe.renderer == "whole":
            raise UserError(
                f"no packaged model draws whole images of {preset.name}: fetch one (dataengine model get {model.name}) "
                "or give your own with --model."
            )
        return recipe, []
    given = {name: getattr(recipe, name) for name in recipe.model_fields_set}
    if recipe.renderer != "whole":
        packaged = read_imagery(weights.packaged(recipe.renderer))
        known = {model_key(name) for imagery in packaged for name in imagery.classes}
        if "renderer" in given or {model_key(name) for name in recipe.classes or preset.classes} <= known:
            return recipe, []
    settings = {"size": model.size} | ({} if recipe.layout else {"layout_scale": model.layout_scale}) | given
    if unfiltered := not {"filter", "detector", "calibration"} & recipe.model_fields_set:
        settings["filter"] = "off"
    try:
        chosen = Recipe.model_validate(settings | {"renderer": "whole", "model": folder})
    except ValidationError:  # it asks for what only the packaged renderer does, such as --strength
        return recipe, []
    note = (
        f"rendered by the fetched model {model.name} ({folder}), with --size {chosen.size} and --layout-scale "
        f"{chosen.layout_scale:g}; --model gives another. Licence: {model.licence}"
    )
    notes = [note]
    if unfiltered:
        notes.append(
            "NOT FILTERED: no packaged detector knows these classes, so nothing checks that images show their labels; "
            "look at kept.png. To filter, give a detector (--detector)"
        )
    return chosen, notes
