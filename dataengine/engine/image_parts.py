"""Parts that are made of images: canvases, places, real objects, references, and the calibration of the filters."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from dataengine import weights
from dataengine.data.formats import labelled_or_plain
from dataengine.data.images import read_picture
from dataengine.data.layout import Dataset, Layout, Sample
from dataengine.data.pixel_range import parse, with_pixel_range
from dataengine.data.presets import Preset
from dataengine.data.rename import rename_classes
from dataengine.engine.recipe import Recipe
from dataengine.errors import UserError
from dataengine.files import user_cache
from dataengine.judge.calibration import Calibration
from dataengine.judge.detector import Detector
from dataengine.layouts.sampler import Sampler
from dataengine.layouts.windows import scaled
from dataengine.render.canvas import BlankCanvases, Canvases, GeneratedCanvases
from dataengine.render.dataset_canvases import DatasetCanvases
from dataengine.render.inpaint_canvases import InpaintCanvases, filling_of
from dataengine.render.places import Places, learn_places
from dataengine.render.real_objects import RealObjects, collect_objects
from dataengine.render.reference import ReferenceSampler
from dataengine.render.renderer import Renderer, best_device, load_renderer
from dataengine.world.canvases import WindowedCanvases

if TYPE_CHECKING:
    from dataengine.judge.semantic import SemanticFilter

CALIBRATION_FORM = 2  # raised when `judge.calibrate` measures something else: kept calibrations are then measured again


def find_canvases(
    recipe: Recipe,
    look: Preset,
    dataset: Dataset | None,
    renderer: Renderer,
    sampler: Sampler,
    layouts: Sequence[Layout],
    notes: list[str],
) -> Canvases:
    """What is painted on: labelled images that get new objects, nothing at all for a renderer of whole images, or
    scenes: the images given, the data set's own, or generated ones that look like those of `look`.

    layouts: real ones with objects, at the scale of the sampler's.
    """
    size = (recipe.size, recipe.size)
    shadows = recipe.strength < 1  # real objects are turned such that theirs fit
    if recipe.into is not None:
        from dataengine.data import formats

        labelled = _in_range(recipe, formats.read(recipe.into, recipe.into_format), notes)
        if labelled.problems:
            notes.append(f"{len(labelled.problems)} problems in --into, such as {labelled.problems[0]}")
        if renderer.paints_on == "scene":
            empty = () if dataset is None else (
                scaled(sample.layout, recipe.layout_scale) for sample in dataset if not len(sample.layout)
            )  # fmt: skip
            return InpaintCanvases(labelled, size, shadows, filling_of(sampler, [*layouts, *empty]))
        if any(max(sample.layout.size) > recipe.size for sample in labelled):
            notes.append(
                f"new objects go into one window of {recipe.size} px of each image, which is what this renderer paints "
                "at a time; --renderer in-scene fills whole images"
            )
        return InpaintCanvases(labelled, size, shadows)
    if renderer.paints_on == "blank":
        return BlankCanvases()
    if recipe.scenes is not None:
        images = _in_range(recipe, labelled_or_plain(recipe.scenes, recipe.scenes_format), notes)
        if images.problems:
            notes.append(f"{len(images.problems)} problems among the scenes, such as {images.problems[0]}")
        return DatasetCanvases(images, size, recipe.augment_scenes, shadows)
    if dataset is not None:
        alike = [sample for sample in dataset if recipe.wants(sample.layout.acquisition)]
        return DatasetCanvases(replace(dataset, samples=alike), size, recipe.augment_scenes, shadows)
    if not weights.has("whole"):
        raise UserError(
            f"{look.title} is not on this machine, and no whole-image model is packaged that could make scenes: "
            "give its folder with --data, or images to paint into with --scenes."
        )
    if recipe.augment_scenes:
        raise UserError("--augment-scenes: there are no real scenes to augment; give them with --data or --scenes.")
    whole = load_renderer(weights.packaged("whole"), "whole").to(best_device())
    notes.append(
        "no images of this data set were found, so scenes are generated; for real ones, give --data or --scenes"
    )
    if recipe.size == whole.size:
        return GeneratedCanvases(whole, look.name)
    return WindowedCanvases(whole, look.name)


def _in_range(recipe: Recipe, dataset: Dataset, notes: list[str]) -> Dataset:
    """The data set with the recipe's pixel range and class names, if it has any."""
    dataset = rename_classes(dataset, recipe.rename or {})
    dataset = with_pixel_range(dataset, None if recipe.pixel_range is None else parse(recipe.pixel_range))
    notes += dataset.notes
    return dataset


def find_places(recipe: Recipe, dataset: Dataset | None, notes: list[str]) -> Places | None:
    """What is known about the places of real objects, if new ones go to such places. With real objects to start from,
    and in complete images, that is the default, so too few of them to learn from are a note there, and no error."""
    by_default = recipe.strength < 1 or recipe.into is not None
    if not recipe.likely_places or (by_default and dataset is None):
        return None
    if dataset is None:
        raise UserError(
            "--likely-places learns from real images where objects stand: give them with --data, or leave it out."
        )
    try:
        return learn_places(dataset)
    except UserError as error:
        if not by_default:
            raise
        notes.append(f"objects stand where the layouts have them, on trees or across lanes too: {error}")
        return None


def find_real_objects(recipe: Recipe, renderer: Renderer, dataset: Dataset | None) -> RealObjects | None:
    """Real objects that painted ones start from; None at strength 1, which leaves nothing of them."""
    if recipe.strength == 1:
        return None
    if renderer.paints_on != "scene":
        raise UserError(
            f"--strength below 1: the renderer {recipe.renderer} does not start objects from real ones; use --renderer "
            "in-scene, or leave --strength out."
        )
    if dataset is None:
        raise UserError(
            "--strength below 1: the in-scene renderer starts objects from real ones; give them with --data, or leave "
            "--strength out."
        )
    return collect_objects(dataset, renderer.classes, renderer.unet.spec, recipe.strength)


def make_references(
    recipe: Recipe, renderer: Renderer, canvases: Canvases, dataset: Dataset | None, notes: list[str]
) -> ReferenceSampler | None:
    """New embeddings like those of the recipe's images to be like, or else of the data set, for a renderer that was
    trained with references. Raises UserError where such images are given, and the ground takes none."""
    generated = isinstance(canvases, GeneratedCanvases | WindowedCanvases)
    ground = canvases.pipeline if generated and recipe.like is not None else renderer
    width = ground.reference_width
    if not width:
        if recipe.like is not None:
            raise UserError(
                f"--like {recipe.like}: the ground of this run is real, or made by a renderer that was trained without "
                "reference images; leave it out."
            )
        if recipe.encoder is not None:
            raise UserError("this renderer was trained without reference images: leave --encoder out.")
        return None
    if recipe.like is not None:
        dataset = labelled_or_plain(recipe.like)
    if dataset is None:
        notes.append("there are no real images to use as references, so the renderer uses its null")
        return None
    from dataengine.render.reference import load_encoder

    images, _ = real_images(dataset, "a reference")
    embeddings = load_encoder(recipe.encoder or weights.packaged("encoder") / "model.onnx")(images)
    if embeddings.shape[-1] != width:
        raise UserError(f"the encoder gives {embeddings.shape[-1]} numbers, the renderer was trained with {width}; "
                        "give the encoder that it was trained with (--encoder).")  # fmt: skip
    references = ReferenceSampler(embeddings)
    if generated and recipe.like is not None:
        canvases.references = references
    return references


def real_images(dataset: Dataset | None, what: str) -> tuple[list[np.ndarray], list[Layout]]:
    """Up to 200 readable images, spread over the data set, and their layouts. Raises UserError without a data set."""
    if dataset is None:
        raise UserError(f"{what} needs real images: give them with --data.")
    step = -(-len(dataset) // 200)
    found = [(image, s.layout) for s in dataset.samples[::step] if (image := read_picture(s)) is not None]
    return [image for image, _ in found], [layout for _, layout in found]


def find_calibration(recipe: Recipe, look: Preset, dataset: Dataset | None) -> Calibration | None:
    """The given calibration, or the packaged one; None where there is neither, but a data set to calibrate on."""
    if recipe.calibration is not None:
        return Calibration.load(recipe.calibration)
    packaged = f"calibration/{look.name}.json"
    if recipe.detector is None and weights.has(packaged):
        return Calibration.load(weights.packaged(packaged))
    if dataset is None:
        raise UserError("this detector has no calibration: give --calibration, or --data to calibrate it on.")
    return None


def make_calibration(
    recipe: Recipe, preset: Preset, detector: Detector, dataset: Dataset, notes: list[str]
) -> Calibration:
    """The calibration on images of the data set: measured once, and kept in the user's cache by the hash of all that it
    depends on."""
    from dataengine.judge.calibrate import calibrate

    chosen = np.random.default_rng(recipe.seed).permutation(len(dataset))[:200]
    samples = [dataset.samples[i] for i in sorted(chosen)]
    readable = [sample for sample in samples if read_picture(sample) is not None]
    notes.append(f"the filter was calibrated on {len(readable)} images of the data set itself")
    if len(readable) < len(samples):
        notes.append(f"{len(samples) - len(readable)} of its images cannot be read; see dataengine data check")
    file = user_cache() / "calibrations" / f"{_calibration_key(recipe, preset, detector, readable)}.json"
    if file.exists():
        with suppress(UserError):  # a damaged one is measured again
            return Calibration.load(file)
    loaders = [lambda sample=sample: read_picture(sample) for sample in readable]
    calibration = calibrate(detector, loaders, [s.layout for s in readable], preset.name, recipe.pass_share)
    with suppress(OSError):  # a cache that cannot be written costs time only
        file.parent.mkdir(parents=True, exist_ok=True)
        calibration.save(file)
    return calibration


def _calibration_key(recipe: Recipe, preset: Preset, detector: Detector, samples: Sequence[Sample]) -> str:
    """Hash of what a calibration depends on, 32 hexadecimal digits: the detector, the pixels and labels of the images,
    the share that is to pass, and the way in which it is measured."""
    total = hashlib.sha256(f"{CALIBRATION_FORM} {detector.identity} {preset.name} {recipe.pass_share}".encode())
    for sample in samples:
        layout = sample.layout
        total.update(f"{sample.name} {sample.pixel_range} {layout.classes} {layout.size} {layout.kind}".encode())
        for array in (layout.boxes, layout.labels, layout.difficult, layout.visible, layout.ignored):
            total.update(array.tobytes())
        total.update(sample.image.read_bytes())
    return total.hexdigest()[:32]


def make_semantic(recipe: Recipe, dataset: Dataset | None, notes: list[str]) -> SemanticFilter | None:
    """The semantic filter with its threshold set on the data set's own images, None where the recipe has none."""
    if recipe.semantic_filter is None:
        return None
    from dataengine.judge.semantic import SemanticFilter

    semantic = SemanticFilter(recipe.semantic_filter)
    semantic.calibrate(*real_images(dataset, "the semantic filter"), recipe.pass_share)
    notes.append(
        f"{recipe.pass_share:.0%} of real images have a CLIP similarity to their prompt of at least "
        f"{semantic.threshold:.3f}"
    )
    return semantic
