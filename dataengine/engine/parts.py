"""The parts that a recipe is carried out with, found and loaded: layout sampler, scenes, renderer, detector, rule."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from dataengine import weights
from dataengine.data.formats import labelled_or_plain
from dataengine.data.layout import Dataset, class_key, restrict, restrict_layout
from dataengine.data.pixel_range import parse, range_of, with_pixel_range
from dataengine.data.presets import Preset, load_preset, preset_of, read_dataset, search_dataset
from dataengine.data.rename import check_names, rename_classes
from dataengine.engine.image_parts import (
    find_calibration,
    find_canvases,
    find_places,
    find_real_objects,
    make_calibration,
    make_references,
    make_semantic,
)
from dataengine.engine.map_parts import MapControl, check_map, use_control
from dataengine.engine.picture_parts import load_picture_parts
from dataengine.engine.picture_recipe import PictureRecipe
from dataengine.engine.recipe import Recipe, folder_hash
from dataengine.engine.samplers import (
    choose_layouts,
    crowding_warnings,
    find_layouts,
    make_sampler,
    reuse_warnings,
    scale_warnings,
)
from dataengine.engine.stand_in import StandIn, describe, find_stand_in
from dataengine.engine.usable_classes import map_classes, usable_classes
from dataengine.errors import UserError
from dataengine.judge.calibration import Calibration
from dataengine.judge.detector import Detector, load_detector
from dataengine.layouts.given import read_layout
from dataengine.layouts.sampler import Sampler
from dataengine.layouts.windows import scaled
from dataengine.render.canvas import Canvases
from dataengine.render.dataset_canvases import DatasetCanvases
from dataengine.render.imagery import Imagery, measured, mismatches, read_imagery
from dataengine.render.places import Places
from dataengine.render.real_objects import RealObjects
from dataengine.render.reference import ReferenceSampler
from dataengine.render.renderer import PaintSettings, Renderer, best_device, load_renderer

if TYPE_CHECKING:
    from dataengine.judge.semantic import SemanticFilter

REAL_STRENGTH = 0.5  # up to which real objects keep all of their fine detail (docs/synth.md)
PATHS = (
    "data",
    "layout",
    "map",
    "scenes",
    "like",
    "into",
    "model",
    "layout_model",
    "semantic_filter",
    "detector",
    "calibration",
)


@dataclass
class Parts:
    """Everything that a shard needs; None for what the recipe leaves out. `notes` are sentences the user should read;
    `hashes` name each part's content. `look` is the data set whose appearance is painted: the preset's, or what stands
    in for it, or None. `recipe` is what is carried out: `filter` may be off although nobody said so."""

    preset: Preset
    classes: tuple[str, ...]
    sampler: Sampler
    canvases: Canvases
    places: Places | None
    real_objects: RealObjects | None
    references: ReferenceSampler | None
    renderer: Renderer
    detector: Detector | None
    calibration: Calibration | None
    semantic: SemanticFilter | None
    notes: list[str]
    hashes: dict[str, str]
    recipe: Recipe
    look: str
    real: Dataset | None = None
    control: MapControl | None = None

    def paint_settings(self, recipe: Recipe) -> PaintSettings:
        """How the renderer is asked to paint."""
        control = self.control if self.renderer.paints_on == "blank" else None  # else the canvases follow it
        return PaintSettings(recipe.steps, recipe.guidance_scale, self.look, self.real_objects, self.references,
                             control)  # fmt: skip


def load_parts(recipe: Recipe, calibration: Calibration | None = None) -> Parts:
    """Find and load every part. `calibration` is the one stored with the run, if it was begun before.

    Raises UserError where a part is missing or does not fit: no data and no packaged layouts, no class that the
    renderer and the detector both know, a calibration of another detector. What takes longest comes last, so that a
    mistake is reported early.
    """
    _check_paths(recipe)
    if isinstance(recipe, PictureRecipe):
        return load_picture_parts(recipe, calibration)
    import torch

    torch.set_num_threads(1)  # processes are the unit of work: results then do not depend on how many there are
    notes: list[str] = []
    preset, dataset = find_data(recipe)
    if recipe.mix and dataset is None:
        raise UserError("--mix joins real and synthetic images: give the real ones with --data.")
    model_folder = recipe.model or weights.packaged(recipe.renderer)
    renderer = _load_renderer(recipe, model_folder)
    detector = None
    if recipe.filter == "off":
        notes.append("no detector looks at the images (filter: off), so nothing says whether they show their labels")
    else:
        detector = load_detector(recipe.detector or weights.packaged("detector"), threads=1)
    if recipe.draw_as:
        _learn(renderer, recipe.draw_as, preset)
    stand_in = find_stand_in(recipe, preset)
    classes = usable_classes(recipe, preset, renderer.classes, detector.classes if detector else None, notes)
    if stand_in is not None:
        classes = _made_by(recipe, stand_in, preset, classes, notes)
    classes = map_classes(recipe, classes, notes)
    look = stand_in.packaged if stand_in is not None and stand_in.packaged else preset
    own = {place: measured(images) for place, images in _images(recipe, dataset).items()}
    if detector is not None and (why := _not_filtered(recipe, own, classes)):
        recipe, detector, notes = recipe.model_copy(update={"filter": "off"}), None, [why]
        classes = map_classes(recipe, usable_classes(recipe, preset, renderer.classes, None, notes), notes)
    notes += check_imagery(recipe, own, model_folder, detector, classes)
    if dataset is not None:
        notes += dataset.notes
        if dataset.problems:
            notes.append(f"{len(dataset.problems)} problems in the data set, such as {dataset.problems[0]}")
        dataset = restrict(dataset, classes)
    if recipe.layout is not None:
        layout = read_layout(
            recipe.layout, recipe.size, classes, renderer.classes, preset.kind, scale=recipe.layout_scale
        )
        layouts_hash = folder_hash(recipe.layout)
        classes = tuple(name for name in classes if name in layout.names())
        layouts = [restrict_layout(layout, classes)]
        notes.append(f"{recipe.layout}: {', '.join(f'{n} {name}' for name, n in Counter(layout.names()).items())}")
    else:
        layouts, layouts_hash = find_layouts(preset, dataset, classes, stand_in)
        layouts = choose_layouts(recipe, layouts)
        if recipe.layout_scale != 1:
            layouts = [scaled(layout, recipe.layout_scale) for layout in layouts]
    classes = tuple(recipe.draw_as.get(name, name) for name in classes)
    layouts = [replace(layout, classes=classes) for layout in layouts]
    sampler = make_sampler(recipe, layouts, classes)
    notes += reuse_warnings(recipe, sampler, layouts)
    notes += crowding_warnings(renderer, sampler)
    check_map(recipe, model_folder, sampler, notes)
    if dataset is not None:
        notes += scale_warnings(recipe, sampler, layouts)
    canvases = find_canvases(recipe, look, dataset, renderer, sampler, layouts, notes)
    recipe, control = use_control(recipe, renderer, model_folder, canvases, sampler, notes)
    if detector is not None:
        calibration = calibration or find_calibration(recipe, look, dataset)
        if calibration is not None:
            calibration.check(detector)
            calibration.check_classes(recipe.draw_as.get(name, name) for name in classes)
    places = find_places(recipe, dataset, notes)
    real_objects = find_real_objects(recipe, renderer, dataset)
    if isinstance(canvases, DatasetCanvases) and real_objects is None and dataset is not None:
        notes.append("objects are painted from noise; --strength 0.3 starts them from real objects of your data")
    references = make_references(recipe, renderer, canvases, dataset, notes)
    semantic = make_semantic(recipe, dataset, notes)
    if detector is not None and calibration is None:
        try:
            calibration = make_calibration(recipe, preset, detector, dataset, notes)
        except UserError as error:  # few images may show the classes that are left
            raise UserError("\n".join([*(note for note in notes if note.startswith("left out")), str(error)])) from None
    if calibration is not None and (warning := calibration.warning()):
        notes.append(warning)
    canvases_are_given = recipe.into is not None or renderer.paints_on == "blank"
    hashes = {
        "model": folder_hash(model_folder),
        "detector": detector.identity if detector else "none",
        "layouts": layouts_hash,
        "scenes": "data" if dataset is not None or canvases_are_given else folder_hash(weights.packaged("whole")),
    }
    if recipe.map is not None:
        hashes["map"] = folder_hash(recipe.map)
    if control is not None:
        hashes["control"] = control.identity
    if recipe.like is not None:
        hashes["style"] = references.identity
    if recipe.layout_model is not None:
        hashes["layout model"] = folder_hash(recipe.layout_model)
    if dataset is not None and (pixel_range := range_of(dataset)) is not None:
        hashes["pixel range"] = str(pixel_range)
    return Parts(
        preset, classes, sampler, canvases, places, real_objects, references, renderer, detector, calibration,
        semantic, notes, hashes, recipe, look.name, dataset if recipe.mix else None, control,
    )  # fmt: skip


def _images(recipe: Recipe, dataset: Dataset | None) -> dict[str, Dataset]:
    """The data sets of a recipe that renderer and detector must fit, by their options."""
    images = {} if dataset is None else {f"--data {recipe.data}" if recipe.data else str(recipe.dataset): dataset}
    for option, place in (("--scenes", recipe.scenes), ("--into", recipe.into)):
        if place is not None:
            images[f"{option} {place}"] = labelled_or_plain(place)
    return images


def _not_filtered(recipe: Recipe, own: dict[str, Imagery | None], classes: Sequence[str]) -> str:
    """Why a run goes without a filter that nobody asked for, as a sentence; "" where it does not.

    Below REAL_STRENGTH, painted objects are real ones of the user's own images. If the packaged detector knows none of
    the classes in such images, it can say nothing of them, and the run is worth more than a refusal.
    """
    chosen = recipe.model_fields_set & {"filter", "detector", "calibration"}
    if chosen or recipe.strength > REAL_STRENGTH or recipe.renderer != "in-scene":
        return ""
    trained, names = read_imagery(weights.packaged("detector")), [recipe.draw_as.get(name, name) for name in classes]
    for place, imagery in own.items():
        wrong = mismatches(trained, imagery, names)
        if wrong and len(wrong) == len(names):
            known, how = next(iter(wrong.values()))
            return (
                f"NOT FILTERED: no detector checks these images. The packaged one knows {', '.join(wrong)} from "
                f"{known} ({known.source}), and the images of {place} are {how}. Painted objects are real objects of "
                "your data; look at kept.png. To filter, give a detector of your images (--detector; "
                "dataengine train detector trains one)"
            )
    return ""


def check_imagery(
    recipe: Recipe,
    own: dict[str, Imagery | None],
    model_folder: Path,
    detector: Detector | None,
    classes: Sequence[str],
) -> list[str]:
    """Refuse a renderer or a detector that was trained on another kind of images than those that are painted into, or
    than the data set. Names of classes say nothing about that.

    own: the imagery of each data set, by how people call it. At a strength of REAL_STRENGTH or less, painted objects
    are real ones, and any renderer may finish them. A calibration that the user gives was measured on images like
    theirs, and found thresholds that tell objects from painted controls; then the difference is a note, which is
    returned. Raises UserError with the fixes.
    """
    names = [recipe.draw_as.get(name, name) for name in classes]
    checks, faults, notes = [], [], []
    if recipe.strength > REAL_STRENGTH:
        real = "start from real objects (--strength 0.3), or " if recipe.renderer == "in-scene" else ""
        fix = f"{real}give a renderer of your images (--model; dataengine train renderer)"
        checks.append(("renderer", read_imagery(model_folder), fix, faults))
    if detector is not None:
        trained = read_imagery(recipe.detector or weights.packaged("detector"))
        fix = "give a detector of your images (--detector; dataengine train detector trains one), or --filter off"
        found = faults
        if recipe.calibration is not None:
            fix, found = f"see that --calibration {recipe.calibration} was measured on such images", notes
        checks.append(("filter's detector", trained, fix, found))
    for part, trained, fix, found in checks:
        for place, measured_imagery in own.items() if trained else ():
            wrong = mismatches(trained, measured_imagery, names)
            if wrong:
                imagery, how = next(iter(wrong.values()))
                rest = [name for name in classes if recipe.draw_as.get(name, name) not in wrong]
                fewer = f", or leave the class out (--classes {','.join(rest)})" if rest else ""
                found.append(
                    f"the {part} knows {', '.join(wrong)} from {imagery} ({imagery.source}), and the images of {place} "
                    f"are {how}: {fix}{fewer}."
                )
                break
    if faults:  # one at a time: the fix of the renderer often is that of the filter too
        raise UserError(faults[0])
    return notes


def _check_paths(recipe: Recipe) -> None:
    for option in PATHS:
        path = getattr(recipe, option)
        if path is not None and not path.exists():
            raise UserError(f"--{option.replace('_', '-')} {path}: does not exist; check the spelling.")


def _load_renderer(recipe: Recipe, folder: Path) -> Renderer:
    renderer = load_renderer(folder, recipe.renderer).to(best_device())
    if renderer.label_effect != "keeps":
        raise UserError(f"{folder}: this renderer does not keep boxes where they are, so its images have no labels.")
    if renderer.paints_on == "blank" and recipe.size != renderer.size:
        raise UserError(
            f"--size {recipe.size}: this renderer makes images of {renderer.size} pixels; give --size {renderer.size}."
        )
    if renderer.few_steps and recipe.steps not in (None, renderer.few_steps):
        raise UserError(
            f"--steps {recipe.steps}: this renderer was trained to draw in {renderer.few_steps}; leave --steps out."
        )
    if recipe.scheduler is not None or recipe.eta is not None:
        if not hasattr(renderer, "use_scheduler"):
            raise UserError(
                f"{folder}: --scheduler and --eta are for models with text, such as AeroGen's; leave them out."
            )
        renderer.use_scheduler(recipe.scheduler, recipe.eta)
    return renderer


def find_data(recipe: Recipe) -> tuple[Preset, Dataset | None]:
    """The data set on disk, or None where there is none and the packaged layouts must do."""
    asked = None if recipe.pixel_range is None else parse(recipe.pixel_range)
    if recipe.dataset is None:
        from dataengine.data import formats

        dataset = _renamed(recipe, with_pixel_range(formats.read(recipe.data, recipe.format), asked))
        preset = preset_of(dataset, recipe.data)
        dataset = replace(dataset, name=preset.name)
    else:
        preset = load_preset(recipe.dataset)
        packaged = weights.has(f"layouts/{preset.name}.npz")
        stands_in = recipe.layout is not None or packaged or find_stand_in(recipe, preset) is not None
        if recipe.data is None and stands_in and search_dataset(preset) is None:
            if recipe.rename:
                raise UserError(
                    f"--rename is for classes of labelled images: give those of {preset.title} with --data."
                )
            return preset, None
        dataset = _renamed(recipe, with_pixel_range(read_dataset(preset, recipe.data, recipe.format), asked))
        if recipe.rename:
            preset = preset.model_copy(update={"classes": dataset.classes})
    if not len(dataset):
        raise UserError(f"{recipe.data or preset.title}: the data set has no image that can be read.")
    return preset, dataset


def _renamed(recipe: Recipe, dataset: Dataset) -> Dataset:
    """The data set with the recipe's names of classes. Raises UserError for a class that it does not have."""
    if not recipe.rename:
        return dataset
    check_names(dataset.classes, recipe.rename, dataset.name)
    return rename_classes(dataset, recipe.rename)


def _made_by(
    recipe: Recipe, stand_in: StandIn, preset: Preset, classes: tuple[str, ...], notes: list[str]
) -> tuple[str, ...]:
    """The classes that a stand-in has layouts of. Its note says what `usable_classes` noted of the packaged models."""
    made = tuple(name for name in classes if name in stand_in.classes)
    if not made:
        known = ", ".join(stand_in.classes)
        raise UserError(f"{preset.title} is not on this machine, and without it only {known} can be made; give --data.")
    if stand_in.packaged is not None:
        said = ("left out, since the renderer", *(("left out, since the detector",) if recipe.detector is None else ()))
        notes[:] = [note for note in notes if not note.startswith(said)]
    notes.append(describe(stand_in, preset, made))
    return made


def _learn(renderer: Renderer, draw_as: dict[str, str], preset: Preset) -> None:
    """Teach the renderer the new names, where it reads text. Raises UserError for names that do not fit."""
    for old, new in draw_as.items():
        if old not in preset.classes:
            raise UserError(
                f"--draw-as {old}={new}: {preset.name} has no class {old}; it has {', '.join(preset.classes)}."
            )
        if class_key(new) in {class_key(name) for name in preset.classes}:
            raise UserError(f"--draw-as {old}={new}: {new} is a class already; give another name.")
    if hasattr(renderer, "add_classes"):
        renderer.add_classes(list(draw_as.values()))
