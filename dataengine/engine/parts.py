"""The parts that a recipe is carried out with, found and loaded: layout sampler, scenes, renderer, detector, rule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from dataengine import weights
from dataengine.data import formats
from dataengine.data.layout import Dataset, Layout, Problem, Sample
from dataengine.data.presets import Preset, find_dataset, load_preset, preset_of, read_dataset
from dataengine.engine.recipe import Recipe, folder_hash
from dataengine.errors import UserError
from dataengine.judge.calibration import Calibration
from dataengine.judge.detector import Detector, OnnxDetector
from dataengine.layouts.enhance import EnhancedSampler
from dataengine.layouts.normal_filter import FilteredSampler, NormalFilter
from dataengine.layouts.sampler import Sampler
from dataengine.layouts.windows import random_windows, scaled
from dataengine.render.into import IntoDataset
from dataengine.render.reference import ReferenceSampler
from dataengine.render.scene import Scenes

if TYPE_CHECKING:
    from dataengine.judge.semantic import SemanticFilter

PATHS = ("data", "scenes", "into", "model", "layout_model", "semantic_filter", "detector", "calibration")
LABEL_SUFFIXES = (".json", ".xml", ".yaml", ".yml")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp")


@dataclass
class Parts:
    """Everything that a shard needs; None for what the recipe leaves out. `notes` are sentences the user should read;
    `hashes` name each part's content."""

    preset: Preset
    classes: tuple[str, ...]
    sampler: Sampler
    scenes: Scenes | None
    into: IntoDataset | None
    references: ReferenceSampler | None
    pipeline: object
    detector: Detector | None
    calibration: Calibration | None
    semantic: SemanticFilter | None
    notes: list[str]
    hashes: dict[str, str]
    real: Dataset | None = None


def load_parts(recipe: Recipe, calibration: Calibration | None = None) -> Parts:
    """Find and load every part. `calibration` is the one stored with the run, if it was begun before.

    Raises UserError where a part is missing or does not fit: no data and no packaged layouts, no class that the
    renderer and the detector both know, a calibration of another detector.
    """
    for option in (
        "data",
        "scenes",
        "into",
        "model",
        "layout_model",
        "semantic_filter",
        "detector",
        "calibration",
    ):  # told now, not after seconds of loading
        path = getattr(recipe, option)
        if path is not None and not path.exists():
            raise UserError(f"--{option.replace('_', '-')} {path}: does not exist; check the spelling.")
    import torch

    from dataengine.render.load import load_renderer

    torch.set_num_threads(1)  # processes are the unit of work: results then do not depend on how many there are
    notes: list[str] = []
    preset, dataset = _dataset(recipe)
    model_folder = recipe.model or weights.packaged(recipe.renderer)
    pipeline = load_renderer(model_folder, recipe.renderer)
    detector = None
    if recipe.filter == "off":
        notes.append("no detector looks at the images (filter: off), so nothing says whether they show their labels")
    else:
        detector = OnnxDetector(recipe.detector or weights.packaged("detector"), threads=1)
    classes = _usable_classes(recipe, preset, pipeline.classes, detector.classes if detector else None, notes)
    if dataset is not None:
        if dataset.problems:
            notes.append(f"{len(dataset.problems)} problems in the data set, such as {dataset.problems[0]}")
        dataset = restrict(dataset, classes)
    layouts, layouts_hash = _layouts(preset, dataset, classes)
    sampler = _sampler(recipe, [scaled(layout, recipe.layout_scale) for layout in layouts], classes)
    into = IntoDataset(_into(recipe.into, notes), sampler.size) if recipe.into is not None else None
    painted = recipe.renderer == "in-scene" and into is None
    scenes = _scenes(recipe, preset, dataset, notes) if painted else None
    if detector is not None:
        if calibration is None:
            calibration = _calibration(recipe, preset, detector, dataset, notes)
        calibration.check(detector)
    hashes = {
        "model": folder_hash(model_folder),
        "detector": detector.identity if detector else "none",
        "layouts": layouts_hash,
        "scenes": folder_hash(weights.packaged("whole")) if scenes is not None and dataset is None else "data",
    }
    if recipe.layout_model is not None:
        hashes["layout model"] = folder_hash(recipe.layout_model)
    references = _references(recipe, pipeline, dataset, notes)
    semantic = _semantic(recipe, dataset, notes)
    if recipe.mix and dataset is None:
        raise UserError("--mix joins real and synthetic images: give the real ones with --data.")
    return Parts(
        preset, classes, sampler, scenes, into, references, pipeline, detector, calibration, semantic, notes, hashes,
        dataset if recipe.mix else None,
    )  # fmt: skip


def _dataset(recipe: Recipe) -> tuple[Preset, Dataset | None]:
    """The data set on disk, or None where there is none and the packaged layouts must do."""
    if recipe.dataset is None:
        dataset = formats.read(recipe.data)
        preset = preset_of(dataset, recipe.data)
        dataset = replace(dataset, name=preset.name)
    else:
        preset = load_preset(recipe.dataset)
        if recipe.data is None:
            try:
                find_dataset(preset)
            except UserError:
                if weights.has(f"layouts/{preset.name}.npz"):
                    return preset, None
                raise
        dataset = read_dataset(preset, recipe.data)
    if not len(dataset):
        raise UserError(f"{recipe.data or preset.title}: the data set has no image that can be read.")
    return preset, dataset


def _usable_classes(
    recipe: Recipe, preset: Preset, drawn: Sequence[str], detected: Sequence[str] | None, notes: list[str]
) -> tuple[str, ...]:
    """Classes of the preset, or those asked for, that the renderer and the detector, if there is one, both know."""
    detected = drawn if detected is None else detected
    wanted = preset.classes
    if recipe.classes is not None:
        known = {name.lower(): name for name in preset.classes}
        unknown = [name for name in recipe.classes if name.lower() not in known]
        if unknown:
            raise UserError(f"{preset.name} has no class {', '.join(unknown)}; it has {', '.join(preset.classes)}.")
        wanted = tuple(known[name.lower()] for name in recipe.classes)
    drawn_names, detected_names = ({name.lower() for name in names} for names in (drawn, detected))
    for names, part in ((drawn_names, "renderer"), (detected_names, "detector")):
        missing = [name for name in wanted if name.lower() not in names]
        if missing:
            notes.append(f"left out, since the {part} does not know them: {', '.join(missing)}")
    usable = tuple(n for n in wanted if n.lower() in drawn_names and n.lower() in detected_names)
    if not usable:
        raise UserError(
            f"no class of {preset.name} ({', '.join(wanted)}) is known to both the renderer ({', '.join(drawn)}) and "
            f"the filter's detector ({', '.join(detected)}); train the one that lacks them on this data set, and give "
            "it with --model or --detector."
        )
    return usable


def restrict(dataset: Dataset, classes: tuple[str, ...]) -> Dataset:
    """The data set with only these classes; objects of other classes become ignored regions, since they are seen."""
    if tuple(dataset.classes) == classes:
        return dataset
    samples = [replace(sample, layout=restrict_layout(sample.layout, classes)) for sample in dataset]
    return replace(dataset, classes=classes, samples=samples)


def restrict_layout(layout: Layout, classes: tuple[str, ...]) -> Layout:
    """The layout with labels in `classes`, matched by name without regard to case."""
    number = {name.lower(): i for i, name in enumerate(classes)}
    labels = np.array([number.get(name.lower(), -1) for name in layout.names()], np.int64)
    inside = layout.select(labels >= 0)
    ignored = np.concatenate([layout.ignored, layout.boxes[labels < 0]])
    return replace(inside, labels=labels[labels >= 0], classes=classes, ignored=ignored)


def _layouts(preset: Preset, dataset: Dataset | None, classes: tuple[str, ...]) -> tuple[list[Layout], str]:
    import hashlib

    if dataset is not None:
        layouts = [sample.layout for sample in dataset if len(sample.layout)]
        if not layouts:
            raise UserError(
                f"{preset.title}: no image shows {', '.join(classes)}, which is all that the renderer and the detector "
                "both know of it; train a renderer on this data set (dataengine train renderer)."
            )
        total = hashlib.sha256()
        for sample in dataset:
            total.update(sample.name.encode())
            total.update(sample.layout.boxes.tobytes())
        return layouts, total.hexdigest()[:16]
    from dataengine.layouts.stored import load_layouts

    path = weights.packaged(f"layouts/{preset.name}.npz")
    layouts = [restrict_layout(layout, classes) for layout in load_layouts(path)]
    return [layout for layout in layouts if len(layout)], folder_hash(path)


def _sampler(recipe: Recipe, layouts: list[Layout], classes: tuple[str, ...]) -> Sampler:
    """The sampler that the recipe names, with enhancement and label filter around it where they are asked for."""
    sampler = _drawn_by(recipe, layouts, classes)
    if recipe.layouts == "diffusion" and recipe.enhance:
        sampler = EnhancedSampler(sampler, layouts)
    if recipe.label_filter is not None:
        windows = random_windows(layouts, sampler.size, np.random.default_rng(recipe.seed))
        sampler = FilteredSampler(sampler, NormalFilter(windows, recipe.label_filter))
    return sampler


def _drawn_by(recipe: Recipe, layouts: list[Layout], classes: tuple[str, ...]) -> Sampler:
    size = (recipe.size, recipe.size)
    if recipe.layouts == "diffusion":
        from dataengine.layouts.diffusion_sampler import DiffusionSampler, load_layout_model

        if recipe.balance is not None:
            raise UserError("--balance is for reuse and prior; a layout model draws classes as it has learnt them.")
        return _Restricted(DiffusionSampler(load_layout_model(recipe.layout_model), size), classes)
    if recipe.layouts == "prior":
        from dataengine.layouts.prior_fit import fit
        from dataengine.layouts.prior_sampler import PriorSampler

        return PriorSampler(fit(layouts, size), size, recipe.balance)
    from dataengine.layouts.reuse import ReuseSampler

    return ReuseSampler(layouts, size, recipe.balance)


class _Restricted:
    """A sampler with only the classes that can be drawn and judged, in their numbering; others are left out."""

    def __init__(self, sampler: Sampler, classes: tuple[str, ...]):
        known = {name.lower() for name in sampler.classes}
        if not known & {name.lower() for name in classes}:
            raise UserError(f"the layout model draws {', '.join(sampler.classes)}, none of which is wanted here.")
        self.sampler, self.classes, self.kind, self.size = sampler, classes, sampler.kind, sampler.size

    def sample(self, rng: np.random.Generator) -> Layout:
        """One layout with at least one object. Raises UserError when none of 100 has one."""
        for _ in range(100):
            layout = replace(restrict_layout(self.sampler.sample(rng), self.classes), ignored=np.zeros((0, 5)))
            if len(layout):
                return layout
        raise UserError(f"the layout model drew no {', '.join(self.classes)} in 100 layouts.")


def _into(folder: Path, notes: list[str]) -> Dataset:
    dataset = formats.read(folder)
    if dataset.problems:
        notes.append(f"{len(dataset.problems)} problems in --into, such as {dataset.problems[0]}")
    return dataset


def _real_pictures(dataset: Dataset | None, what: str) -> tuple[list[np.ndarray], list[Layout]]:
    """Up to 200 readable pictures of the data set, spread over it. Raises UserError where there is none."""
    if dataset is None:
        raise UserError(f"{what} needs real images: give them with --data.")
    step = -(-len(dataset) // 200)
    found = [(picture, s.layout) for s in dataset.samples[::step] if (picture := _picture(s)) is not None]
    return [picture for picture, _ in found], [layout for _, layout in found]


def _references(recipe: Recipe, pipeline, dataset: Dataset | None, notes: list[str]) -> ReferenceSampler | None:
    """New embeddings like those of the data set, for a renderer that was trained with references."""
    width = getattr(pipeline.unet.config, "reference_width", 0)
    if not width:
        if recipe.encoder is not None:
            raise UserError("this renderer was trained without reference images: leave --encoder out.")
        return None
    if dataset is None:
        notes.append("no real images are here to be a reference, so the renderer's null stands for them")
        return None
    from dataengine.render.reference import load_encoder

    pictures, _ = _real_pictures(dataset, "a reference")
    embeddings = load_encoder(recipe.encoder or weights.packaged("encoder") / "model.onnx")(pictures)
    if embeddings.shape[-1] != width:
        raise UserError(f"the encoder gives {embeddings.shape[-1]} numbers, the renderer was trained with {width}; "
                        "give the encoder that it was trained with (--encoder).")  # fmt: skip
    return ReferenceSampler(embeddings)


def _semantic(recipe: Recipe, dataset: Dataset | None, notes: list[str]) -> SemanticFilter | None:
    if recipe.semantic_filter is None:
        return None
    from dataengine.judge.semantic import SemanticFilter

    semantic = SemanticFilter(recipe.semantic_filter)
    semantic.calibrate(*_real_pictures(dataset, "the semantic filter"), recipe.pass_share)
    notes.append(f"{recipe.pass_share:.0%} of real images agree with their prompt by {semantic.threshold:.3f}, to CLIP")
    return semantic


def _scenes(recipe: Recipe, preset: Preset, dataset: Dataset | None, notes: list[str]) -> Scenes:
    from dataengine.render.scene import DatasetScenes

    size = (recipe.size, recipe.size)
    if recipe.scenes is not None:
        images = _scene_images(recipe.scenes)
        if images.problems:
            notes.append(f"{len(images.problems)} problems among the scenes, such as {images.problems[0]}")
        return DatasetScenes(images, size)
    if dataset is not None:
        return DatasetScenes(dataset, size)
    if not weights.has("whole"):
        raise UserError(
            f"{preset.title} is not on this machine, and no whole-image model is packaged that could make scenes: "
            "give its folder with --data, or images to paint into with --scenes."
        )
    from dataengine.render.layout_pipeline import GeneratedScenes
    from dataengine.render.load import load_renderer

    whole = load_renderer(weights.packaged("whole"), "whole")
    if recipe.size != whole.size:
        raise UserError(f"without images of your own, scenes are {whole.size} pixels wide: give --size {whole.size}, "
                        "or images with --scenes.")  # fmt: skip
    notes.append("no images of this data set were found, so the scenes are generated too; give --data or --scenes")
    return GeneratedScenes(whole, preset.name)


def _scene_images(folder: Path) -> Dataset:
    """A data set's images with their labels, or the images of a plain folder, taken to be empty of objects."""
    every = sorted(file for file in folder.rglob("*") if file.is_file() and file.name[0] != ".")
    files = [file for file in every if file.suffix.lower() in IMAGE_SUFFIXES]
    try:
        return formats.read(folder)
    except UserError:
        stems = {file.stem for file in files}
        labels = [f for f in every if f.suffix.lower() in LABEL_SUFFIXES or (f.suffix == ".txt" and f.stem in stems)]
        if labels:  # whose objects would go unlabelled into the result
            raise
    samples, problems = [], []
    for file in files:
        try:
            with Image.open(file) as image:
                layout = Layout(np.zeros((0, 5)), np.zeros(0), (), image.size)
        except OSError as error:
            problems.append(Problem(file, None, f"cannot be read ({error}); it is passed over"))
            continue
        samples.append(Sample(file.relative_to(folder).with_suffix("").as_posix(), file, layout))
    if not samples:
        raise UserError(f"{folder}: no images in this folder.")
    return Dataset((), samples, problems=problems)


def _calibration(
    recipe: Recipe, preset: Preset, detector: Detector, dataset: Dataset | None, notes: list[str]
) -> Calibration:
    """The one given, the packaged one, or a new one on the data set's own images."""
    if recipe.calibration is not None:
        return Calibration.load(recipe.calibration)
    packaged = f"calibration/{preset.name}.json"
    if recipe.detector is None and weights.has(packaged):
        return Calibration.load(weights.packaged(packaged))
    if dataset is None:
        raise UserError("this detector has no calibration: give --calibration, or --data to calibrate it on.")
    from dataengine.judge.calibration import calibrate

    chosen = np.random.default_rng(recipe.seed).permutation(len(dataset))[:200]
    samples = [dataset.samples[i] for i in sorted(chosen)]
    readable = [sample for sample in samples if _picture(sample) is not None]
    notes.append(f"the filter was calibrated on {len(readable)} images of the data set itself")
    if len(readable) < len(samples):
        notes.append(f"{len(samples) - len(readable)} of its images cannot be read; see dataengine data check")
    loaders = [lambda sample=sample: _picture(sample) for sample in readable]
    return calibrate(detector, loaders, [s.layout for s in readable], preset.name, recipe.pass_share)


def _picture(sample: Sample) -> np.ndarray | None:
    """Pixels uint8 (H, W, 3), None where the file cannot be decoded."""
    try:
        with Image.open(sample.image) as file:
            return np.asarray(file.convert("RGB"))
    except (OSError, SyntaxError):
        return None
