"""Runs over a data set's own pictures: their parts, and what is refused."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dataengine import weights
from dataengine.data.layout import Dataset, Sample, restrict
from dataengine.data.presets import Preset, load_preset, preset_names
from dataengine.engine.image_parts import find_calibration, make_calibration
from dataengine.engine.picture_recipe import PictureRecipe
from dataengine.engine.recipe import folder_hash
from dataengine.engine.samplers import find_layouts
from dataengine.errors import UserError
from dataengine.judge.calibration import Calibration
from dataengine.judge.detector import load_detector
from dataengine.render.imagery import MAX_GSD_RATIO, Imagery, measured, mismatches, read_imagery
from dataengine.render.picture_canvases import PictureCanvases, under
from dataengine.render.pictures import PictureRenderer
from dataengine.render.renderer import best_device, load_renderer

if TYPE_CHECKING:
    from dataengine.engine.parts import Parts

OPTIONS = {
    "night": "--night/--day", "date": "--date", "cloud": "--cloud", "sun_elevation_deg": "--sun", "gsd_m": "--gsd",
}  # fmt: skip


def eligible(recipe: PictureRecipe, dataset: Dataset, notes: list[str]) -> list[Sample]:
    """The pictures that a run is about: with objects to verify, not yet as they are asked for, and of known scale where
    that is to change. Notes say how many are left out, and why. Raises UserError where none is left."""
    task, left_out = recipe.task, {}

    def why_not(sample: Sample) -> str:
        own, target = sample.layout.acquisition, task.targets[0]
        if not len(sample.layout):
            return "show no object of these classes, so that no filter could verify them"
        if task.kind != "rerender":
            return ""
        if target.gsd_m is not None and own.gsd_m is None:
            return "do not state their metres per pixel, so that nobody knows how large their objects would be"
        if target.gsd_m is not None and own.gsd_m > target.gsd_m:
            return f"are coarser than --gsd {target.gsd_m:g}; dataengine superres makes finer ones"
        return "were taken like that already" if under(own, target) == own else ""

    chosen = []
    for sample in dataset:
        if reason := why_not(sample):
            left_out[reason] = left_out.get(reason, 0) + 1
        else:
            chosen.append(sample)
    notes += [f"{count} pictures are left out: they {reason}" for reason, count in left_out.items()]
    if not chosen:
        reasons = "; ".join(f"{count} {reason}" for reason, count in left_out.items())
        raise UserError(f"none of the {len(dataset)} pictures can be used: {reasons or 'there are none'}.")
    return chosen


def local_model(model: str) -> Path:
    """The folder of a model; a hub id is fetched. Raises UserError where there is neither."""
    if Path(model).exists():
        return Path(model)
    from dataengine.render.diffusionsat import fetch

    return fetch(model)


def who_follows(options: Sequence[str]) -> list[str]:
    """Which models would follow these options.

    >>> who_follows(["--cloud"])
    ["DiffusionSat's follow --date, --cloud and --gsd (dataengine model get diffusionsat-512)"]
    """
    of_diffusionsat = [option for option in options if option in ("--date", "--cloud", "--gsd")]
    answers = ["DiffusionSat's follow --date, --cloud and --gsd (dataengine model get diffusionsat-512)"]
    answers = answers if of_diffusionsat else []
    if "--sun" in options:
        answers.append(
            "--sun takes a whole-image renderer with `sun` among its fields, trained on pictures that state "
            "sun_elevation_deg; no packaged or published one is"
        )
    if "--night/--day" in options:
        answers.append("the packaged one follows --night and --day of thermal images")
    return answers


def check_conditions(recipe: PictureRecipe, renderer: PictureRenderer, trained: Imagery | None, name: str) -> None:
    """Raises UserError for a condition that the model does not follow, or follows nowhere near what is asked for.

    trained: the images like the data set's that it was trained on, None where unknown. name: of the model.
    """
    for target in recipe.task.targets:
        asked = target.model_dump(exclude_none=True)
        if unknown := [OPTIONS.get(field, field) for field in asked if field not in renderer.conditions]:
            known = ", ".join(OPTIONS[field] for field in OPTIONS if field in renderer.conditions) or "none of them"
            raise UserError(
                f"{', '.join(unknown)}: {name} was not trained with that condition (it follows {known}); leave it out, "
                f"or give a model that follows it (--model): {' and '.join(who_follows(unknown))}."
            )
        if trained is None:
            continue
        if target.night is not None and trained.night not in (None, target.night):
            seen = "by night" if trained.night else "by day"
            raise UserError(
                f"{OPTIONS['night']}: {name} has seen such images ({trained.source}) {seen} only; give another --model."
            )
        if target.gsd_m is not None and trained.gsd_m and not trained.gsd_m[0] <= target.gsd_m <= trained.gsd_m[1]:
            low, high = trained.gsd_m
            raise UserError(
                f"--gsd {target.gsd_m:g}: {name} has seen such images ({trained.source}) at {low:g} to {high:g} m per "
                "pixel; stay within that."
            )


def check_finest(recipe: PictureRecipe, dataset: Dataset, trained: Imagery | None, notes: list[str]) -> None:
    """Raises UserError where super-resolution would ask for finer detail than the decoder has seen."""
    known = [gsd for sample in dataset if (gsd := sample.layout.acquisition.gsd_m) is not None]
    if not known:
        notes.append(
            "the pictures do not state their metres per pixel, so nothing says whether the decoder has seen objects as "
            "large as these will be; the filter drops what it does not recognise"
        )
    elif trained is not None and trained.gsd_m:
        finest = float(np.median(known)) / recipe.task.factor
        if finest < trained.gsd_m[0] / MAX_GSD_RATIO:
            raise UserError(
                f"--factor {recipe.task.factor}: the result would have {finest:.3g} m per pixel, and the decoder has "
                f"seen such images ({trained.source}) at {trained.gsd_m[0]:g} to {trained.gsd_m[1]:g} m; give a "
                "smaller factor or a renderer of finer images (--model)."
            )


def check_painter(recipe: PictureRecipe, folder: Path, own: Imagery | None, classes: Sequence[str]) -> None:
    """Raises UserError where the in-scene renderer was trained on another kind of images: the ground that it paints
    would not be theirs."""
    if wrong := mismatches(read_imagery(folder), own, classes):
        imagery, how = next(iter(wrong.values()))
        raise UserError(
            f"objects vanish under ground that an in-scene renderer paints: the one in {folder} knows {imagery} "
            f"({imagery.source}), and these pictures are {how}; give one of your images (--painter; dataengine train "
            f"renderer), or --present 1."
        )


def look_of(domains: Sequence[str], trained: Sequence[Imagery], own: Imagery | None, preset: Preset) -> Preset | None:
    """The preset, of those that a model was trained on, whose images look like the data set's; None for none."""
    if preset.name in domains:
        return preset
    for name in domains:
        if name in preset_names():
            known = load_preset(name)
            entries = [entry for entry in trained if entry.source == known.title]
            shared = [c for c in preset.classes if not mismatches(entries, own, [c])] if entries and own else []
            if shared and {c.lower() for c in shared} & {c.lower() for c in known.classes}:
                return known
    return None


def load_picture_parts(recipe: PictureRecipe, calibration: Calibration | None = None) -> Parts:
    """`engine.parts.load_parts` for a run over a data set's own pictures. Raises UserError likewise."""
    import torch

    from dataengine.engine.parts import Parts, check_imagery, find_data
    from dataengine.engine.usable_classes import usable_classes

    torch.set_num_threads(1)
    notes: list[str] = []
    preset, dataset = find_data(recipe)
    if dataset is None:
        raise UserError(f"{preset.title} is not on this machine: give the folder of its pictures.")
    folder = recipe.model or weights.packaged("whole")
    name = "the packaged renderer" if recipe.model is None else f"{folder}"
    model = load_picture_model(folder, recipe)
    detector = load_detector(recipe.detector or weights.packaged("detector"), threads=1)
    drawn = getattr(model, "classes", preset.classes)  # DiffusionSat's knows no boxes, and so no classes
    classes = usable_classes(recipe, preset, drawn, detector.classes, notes)
    own, trained = measured(dataset), read_imagery(folder)
    check_imagery(recipe, {f"{recipe.data or preset.title}": own}, folder, detector, classes)
    notes += dataset.notes
    if dataset.problems:
        notes.append(f"{len(dataset.problems)} problems in the data set, such as {dataset.problems[0]}")
    dataset = restrict(dataset, classes)
    look = look_of(getattr(model.unet.config, "domains", ()), trained, own, preset)
    seen = next((entry for entry in trained if look is not None and entry.source == look.title), None)
    renderer = PictureRenderer(model, recipe.task.strength, recipe.task.factor)
    check_conditions(recipe, renderer, seen, name)
    painter_folder = recipe.task.painter or weights.packaged("in-scene")
    if recipe.task.present < 1:
        check_painter(recipe, painter_folder, own, classes)
        renderer.painter = load_renderer(painter_folder, "in-scene").to(best_device())
    if recipe.model is None and any(target.night is not None for target in recipe.task.targets):
        notes.append(
            "at the default strength the packaged renderer hardly makes a night of a day, or the reverse (measured in "
            "docs/rerender.md)"
        )
    if recipe.task.kind == "superres":
        check_finest(recipe, dataset, seen, notes)
    samples = eligible(recipe, dataset, notes)[: recipe.task.images]
    recipe = recipe.model_copy(update={"n": len(samples) * len(recipe.task.targets)})
    canvases = PictureCanvases(samples, recipe.task.targets, recipe.task.present, recipe.task.factor)
    calibration = calibration or find_calibration(recipe, look or preset, dataset)
    if calibration is None:
        calibration = make_calibration(recipe, preset, detector, dataset, notes)
    calibration.check(detector)
    calibration.check_classes(classes)
    if warning := calibration.warning():
        notes.append(warning)
    hashes = {
        "model": folder_hash(folder),
        "detector": detector.identity,
        "layouts": find_layouts(preset, dataset, classes)[1],
        "scenes": "data",
    }
    if renderer.painter is not None:
        hashes["painter"] = folder_hash(painter_folder)
    return Parts(
        preset, classes, None, canvases, None, None, None, renderer, detector, calibration, None, notes, hashes, recipe,
        look.name if look is not None else None,
    )  # fmt: skip


def load_picture_model(folder: Path, recipe: PictureRecipe):
    """The whole-image renderer in a folder, or a model of DiffusionSat's form. Raises UserError for another."""
    if (folder / "decoder").is_dir() or recipe.task.kind == "superres":
        model = load_renderer(folder, "whole")
        if not hasattr(model, "decoder"):
            raise UserError(f"{folder}: has no decoder of thumbnails; give a model of dataengine train renderer.")
        return model.to(best_device())
    from dataengine.render.diffusionsat import load_diffusionsat

    return load_diffusionsat(folder).to(best_device())
