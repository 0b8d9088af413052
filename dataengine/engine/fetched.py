"""A fetched model (`dataengine model get`) as the renderer of runs that name no model."""

from __future__ import annotations

from pydantic import ValidationError

from dataengine import weights
from dataengine.data.layout import class_key
from dataengine.data.presets import load_preset
from dataengine.engine.recipe import Recipe
from dataengine.errors import UserError
from dataengine.render import published
from dataengine.render.renderer import load_renderer


def with_fetched(recipe: Recipe) -> tuple[Recipe, list[str]]:
    """The recipe with the fetched model of its preset where it names no model, and a note that says so.

    That is where the preset is asked for with renderer "whole", or where no renderer is asked for and the packaged one
    knows none of its classes. Image size and, for layouts of a data set, their scale are the model's unless they are
    given. Raises UserError where the model would be needed and is not fetched: the packaged whole-image renderer draws
    only the data sets that it was trained on.
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
        packaged = load_renderer(weights.packaged(recipe.renderer), recipe.renderer).classes
        known = {class_key(name) for name in packaged}
        if "renderer" in given or known & {class_key(name) for name in recipe.classes or preset.classes}:
            return recipe, []
    settings = {"size": model.size} | ({} if recipe.layout else {"layout_scale": model.layout_scale}) | given
    try:
        chosen = Recipe.model_validate(settings | {"renderer": "whole", "model": folder})
    except ValidationError:  # it asks for what only the packaged renderer does, such as --strength
        return recipe, []
    note = (
        f"rendered by the fetched model {model.name} ({folder}), with --size {chosen.size} and --layout-scale "
        f"{chosen.layout_scale:g}; --model gives another. Licence: {model.licence}"
    )
    return chosen, [note]
