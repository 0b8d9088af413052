"""What a run starts from where the data set of its preset is not on this machine. Nothing here loads a model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from dataengine import weights
from dataengine.data.layout import Layout, class_key, model_key, restrict_layout
from dataengine.data.presets import Preset, find_dataset, load_preset, preset_names, search_dataset
from dataengine.engine.recipe import Recipe, folder_hash
from dataengine.errors import UserError
from dataengine.layouts.typical import known_classes, sizes_file, typical_layouts
from dataengine.render.imagery import read_imagery
from dataengine.render.published import PUBLISHED


@dataclass(frozen=True)
class StandIn:
    """packaged: the data set whose packaged layouts and scenes are used; None for layouts from typical sizes, for a
    model that draws whole images. classes: those of the preset that can be made from it, in the preset's order."""

    packaged: Preset | None
    classes: tuple[str, ...]

    def layouts(self, classes: tuple[str, ...]) -> tuple[list[Layout], str]:
        """Layouts with an object of these classes in them, and the hash of them all."""
        if self.packaged is None:
            layouts, source = typical_layouts(classes), sizes_file()
        else:
            layouts, source = packaged_layouts(self.packaged, classes), layouts_file(self.packaged)
        return layouts, folder_hash(source)


def layouts_file(preset: Preset) -> Path:
    """The packaged layouts of a preset. Raises UserError where there are none."""
    return weights.packaged(f"layouts/{preset.name}.npz")


def packaged_layouts(preset: Preset, classes: tuple[str, ...]) -> list[Layout]:
    """The packaged layouts of a preset with an object of these classes, which may be called as another data set calls
    them ("plane" for "airplane")."""
    from dataengine.layouts.stored import load_layouts

    names = {model_key(name): name for name in classes}
    found = []
    for i, layout in enumerate(load_layouts(layouts_file(preset))):
        called = tuple(names.get(model_key(name), name) for name in layout.classes)
        layout = restrict_layout(replace(layout, classes=called), classes)
        if len(layout):
            found.append(replace(layout, origins=(f"{preset.name} layout {i}",)))
    return found


def find_stand_in(recipe: Recipe, preset: Preset) -> StandIn | None:
    """What stands in for the data set of a packaged preset; None where it is here, has packaged layouts of its own, or
    nothing fits. A preset from a file of the user's names data that should be there, so nothing stands in for it.

    Packaged layouts are used with the packaged models, and from optical imagery only, as all such presets are.
    """
    if recipe.dataset is None or recipe.dataset.endswith((".yaml", ".yml")):
        return None
    if recipe.data is not None or recipe.layout is not None or weights.has(f"layouts/{preset.name}.npz"):
        return None
    if search_dataset(preset) is not None:
        return None
    if recipe.model is not None:
        classes = known_classes(preset.classes) if recipe.renderer == "whole" else ()
        return StandIn(None, classes) if classes else None
    for imagery in read_imagery(weights.packaged(recipe.renderer)):
        known = {model_key(name) for name in imagery.classes}
        classes = tuple(name for name in preset.classes if model_key(name) in known)
        other = _preset_titled(imagery.source)
        if imagery.spectrum == "optical" and classes and other and weights.has(f"layouts/{other.name}.npz"):
            return StandIn(other, classes)
    return None


def _preset_titled(title: str) -> Preset | None:
    return next((preset for name in preset_names() if (preset := load_preset(name)).title == title), None)


def check_data(recipe: Recipe) -> None:
    """Raises UserError where the data set of a recipe is nowhere and nothing stands in for it.

    >>> check_data(Recipe(dataset="hit-uav"))
    """
    if recipe.data is not None and not recipe.data.exists():
        raise UserError(f"--data {recipe.data}: does not exist; check the spelling.")
    if recipe.data is not None or recipe.layout is not None:
        return
    preset = load_preset(recipe.dataset)
    if weights.has(f"layouts/{preset.name}.npz") or find_stand_in(recipe, preset) is not None:
        return
    try:
        find_dataset(preset)
    except UserError as error:
        if recipe.model is not None:
            raise
        known = [name for imagery in read_imagery(weights.packaged(recipe.renderer)) for name in imagery.classes]
        raise UserError(
            f"{error}. Without it, nothing can be made: the packaged models know {', '.join(known)}, and no class of "
            f"{preset.title} from such images."
        ) from None


def describe(stand_in: StandIn, preset: Preset, made: tuple[str, ...]) -> str:
    """What stands in for a preset's data, for people. made: the classes of the run."""
    left_out = [name for name in preset.classes if name not in stand_in.classes]
    text = f"{preset.title} is not on this machine. "
    if stand_in.packaged is None:
        text += (
            "Layouts come from typical sizes of its objects (configs/layouts/typical-sizes.yaml): how often classes "
            "occur and where objects stand is not as in real images. "
        )
    else:
        text += f"Layouts and scenes are those of the packaged models of {stand_in.packaged.title}. "
    text += f"Made: {', '.join(made)} ({len(made)} of its {len(preset.classes)} classes). "
    if left_out:
        why = "the models do not know them" if stand_in.packaged else "their sizes are not in that file"
        text += f"Left out, since {why}: {', '.join(left_out)}. "
    if stand_in.packaged is not None and stand_in.packaged.kind == "hbb" and preset.kind == "obb":
        text += f"Boxes are horizontal, as those of {stand_in.packaged.title}: they do not follow the heading. "
    model = next((m for m in PUBLISHED if m.dataset and _same_classes(load_preset(m.dataset), preset)), None)
    if left_out and model is not None:
        text += f"dataengine model get {model.name} fetches a model of all classes, for --dataset {model.dataset}. "
    source = f" ({preset.source})" if preset.source else ""
    return f"{text}With the real images{source}, give their folder with --data"


def _same_classes(one: Preset, other: Preset) -> bool:
    return {*map(class_key, one.classes)} == {*map(class_key, other.classes)}
