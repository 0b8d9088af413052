"""The classes of a run: those of the data set that its renderer and its detector both know."""

from __future__ import annotations

from collections.abc import Sequence

from dataengine.data.layout import class_key, model_key
from dataengine.data.presets import Preset
from dataengine.engine.recipe import Recipe
from dataengine.errors import UserError


def usable_classes(
    recipe: Recipe, preset: Preset, drawn: Sequence[str], detected: Sequence[str] | None, notes: list[str]
) -> tuple[str, ...]:
    """Classes of the preset, or those asked for, that the renderer and the detector, if there is one, both know."""
    judged = detected is not None
    detected = drawn if detected is None else detected
    wanted = preset.classes
    if recipe.classes is not None:
        known = {class_key(name): name for name in preset.classes}
        unknown = [name for name in recipe.classes if class_key(name) not in known]
        if unknown:
            raise UserError(f"{preset.name} has no class {', '.join(unknown)}; it has {', '.join(preset.classes)}.")
        wanted = tuple(known[class_key(name)] for name in recipe.classes)
    drawn_names, detected_names = ({model_key(name) for name in names} for names in (drawn, detected))

    def known(name: str, names: set[str]) -> bool:
        return model_key(recipe.draw_as.get(name, name)) in names

    for names, part in ((drawn_names, "renderer"), (detected_names, "detector"))[: 1 + judged]:
        missing = [recipe.draw_as.get(name, name) for name in wanted if not known(name, names)]
        if missing:
            notes.append(f"left out, since the {part} does not know them: {', '.join(missing)}")
    usable = tuple(name for name in wanted if known(name, drawn_names) and known(name, detected_names))
    if not usable:
        can_draw = [name for name in wanted if known(name, drawn_names)]
        raise UserError(_no_class(recipe, preset, wanted, can_draw, drawn, detected))
    return usable


def map_classes(recipe: Recipe, classes: tuple[str, ...], notes: list[str]) -> tuple[str, ...]:
    """Those of the classes that a map can place, if layouts come from one; all of them otherwise."""
    if recipe.layouts != "map":
        return classes
    from dataengine.layouts.map_table import on_maps

    known = on_maps(classes)
    if not known:
        raise UserError(f"--layouts map: maps have no {', '.join(classes)}; use another source of layouts.")
    if left_out := [name for name in classes if name not in known]:
        notes.append(f"left out, since maps do not have them: {', '.join(left_out)}")
    return known


def _no_class(
    recipe: Recipe,
    preset: Preset,
    wanted: Sequence[str],
    can_draw: Sequence[str],
    drawn: Sequence[str],
    detected: Sequence[str],
) -> str:
    """What is missing now, where no class is left, and the command or option that brings it."""
    names = ", ".join(wanted)
    if not can_draw:
        return (
            f"the renderer knows none of the classes of {preset.name} ({names}); it knows {', '.join(drawn)}. Train "
            f"one on this data set: dataengine train renderer {recipe.data or 'DATA'} --out work/renderer; then give "
            "it with --model work/renderer/pipeline."
        )
    return (
        f"the filter's detector knows none of {', '.join(can_draw)}, which the renderer draws; it knows "
        f"{', '.join(detected)}. Give a detector of these classes (--detector; dataengine train detector trains "
        "one), or --filter off to go without."
    )
