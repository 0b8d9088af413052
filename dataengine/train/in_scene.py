"""Training of the in-scene renderer: it learns to paint real objects back into their surroundings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import astuple, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.progress import track

from dataengine import geometry
from dataengine.data.images import read_or_fail
from dataengine.data.layout import Dataset, Layout, class_key
from dataengine.errors import UserError
from dataengine.render.augment import augment
from dataengine.render.frame import FrameSpec, cut, frame_matrices, frame_sides, masks
from dataengine.render.heading import along_heading
from dataengine.render.in_scene import InSceneUNet, object_fields, without_angle
from dataengine.train.flow_loss import Batch, Example, flow_loss
from dataengine.train.loop import TrainSettings, model_settings_text, moved, save_once, save_samples, train
from dataengine.train.warm_start import copy_weights

MIN_CONTEXT, MAX_CONTEXT = 1.5, 2.3  # frame side / long side of the box: stored at the largest, cropped at random
NULL_PROBABILITY = 0.1  # of each condition
NOTHING_SHARE = 0.15  # of frames, with empty ground
HEADED_SHARE = 0.75  # of the frames of a class with known headings, cut along them
Headings = dict[tuple[str, int], float]  # {(name of the sample, number of the object in its layout): radians}


@dataclass(frozen=True)
class Frames:
    """Objects and empty ground, cut from real images.

    images: uint8 (N, S, S, 3), S = frame size * MAX_CONTEXT / context. boxes: float32 (N, 5), in pixels of the source
    image. labels: int64 (N,), in the model's numbering ("nothing" included). fields: float32 (N, len(FIELDS)).
    horizontal: bool (N,). headed: bool (N,), cut along the heading of the object, whose label is a horizontal box.
    """

    images: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    fields: np.ndarray
    horizontal: np.ndarray
    headed: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)


def _empty_boxes(layout: Layout, rng: np.random.Generator) -> np.ndarray:
    """Up to 2 boxes of the layout, (N, 5), moved to random places without objects."""
    if not len(layout):
        return layout.boxes
    boxes = layout.boxes[rng.integers(0, len(layout), 6)].copy()
    boxes[:, 0] = rng.uniform(0, layout.size[0], 6)
    boxes[:, 1] = rng.uniform(0, layout.size[1], 6)
    occupied = np.concatenate([layout.boxes, layout.ignored])
    wide = boxes + np.float32([0, 0, 4, 4, 0])
    wide[:, 2:4] *= 1.3
    free = (geometry.intersection(wide, occupied) == 0).all(1)
    return boxes[free & (geometry.visible_fraction(boxes, layout.size) > 0.9)][:2]


def collect_frames(
    datasets: list[Dataset], classes: list[str], spec: FrameSpec, copies: int, rng: np.random.Generator
) -> Frames:
    """Cut out every object that is visible to at least half, from each image and `copies` augmented copies of it.

    Classes are matched by `class_key`. Raises UserError when there is no object of the classes.
    """
    number = {class_key(name): i for i, name in enumerate(classes)}
    size = round(spec.size * MAX_CONTEXT / spec.context)
    wide = replace(spec, size=size)
    out: dict[str, list] = {"images": [], "boxes": [], "labels": [], "fields": [], "horizontal": []}

    def add(image: np.ndarray, layout: Layout, labels: np.ndarray) -> None:
        matrices = frame_matrices(layout.boxes, layout.kind, wide, MAX_CONTEXT)
        fields = object_fields(layout, spec)
        for i in range(len(layout)):
            out["images"].append(cut(image, matrices[i], size))
            out["boxes"].append(layout.boxes[i])
            out["labels"].append(labels[i])
            out["fields"].append(fields[i])
            out["horizontal"].append(layout.kind == "hbb")

    samples = [(dataset, sample) for dataset in datasets for sample in dataset]
    for _dataset, sample in track(samples, "cutting frames"):
        original = read_or_fail(sample)
        for copy in range(copies + 1):
            image, layout = augment(original, sample.layout, rng) if copy else (original, sample.layout)
            labels = np.array([number.get(class_key(name), -1) for name in layout.names()], np.int64)
            keep = (labels >= 0) & (layout.visible > 0.5) & (layout.boxes[:, 2] >= 5) & ~layout.difficult
            add(image, layout.select(keep), labels[keep])
            empty = _empty_boxes(layout, rng)
            add(image, replace(layout, boxes=empty, labels=np.zeros(len(empty)), difficult=None, visible=None),
                np.full(len(empty), len(classes)))  # fmt: skip
    if not out["images"]:
        raise UserError(f"the training data has no object of the classes {', '.join(classes)}.")
    return Frames(
        np.stack(out["images"]),
        np.stack(out["boxes"]).astype(np.float32),
        np.asarray(out["labels"], np.int64),
        np.stack(out["fields"]).astype(np.float32),
        np.asarray(out["horizontal"]),
        np.zeros(len(out["labels"]), bool),
    )


def headed_frames(dataset: Dataset, classes: list[str], spec: FrameSpec, headings: Headings) -> Frames:
    """Objects in horizontal boxes, cut along their known headings, whose classes are all among `classes`."""
    number = {class_key(name): i for i, name in enumerate(classes)}
    wide = replace(spec, size=round(spec.size * MAX_CONTEXT / spec.context))
    parts = []
    for sample in dataset:
        rows = np.array([k for k in range(len(sample.layout)) if (sample.name, k) in headings], int)
        if not len(rows):
            continue
        known = np.array([headings[sample.name, k] for k in rows])
        boxes = along_heading(sample.layout.boxes[rows], known)
        layout = replace(sample.layout.select(rows), boxes=boxes, kind="obb")
        image, matrices = read_or_fail(sample), frame_matrices(boxes, "obb", wide, MAX_CONTEXT)
        images = np.stack([cut(image, matrix, wide.size) for matrix in matrices])
        labels = np.array([number[class_key(name)] for name in layout.names()], np.int64)
        parts.append((images, boxes, labels, object_fields(layout, spec)))
    images, boxes, labels, fields = map(np.concatenate, zip(*parts, strict=True))
    n = len(labels)
    return Frames(images, boxes, labels, fields, np.zeros(n, bool), np.ones(n, bool))


def joined(frames: Frames, headed: Frames) -> Frames:
    """All frames; those of horizontal boxes, of classes with known headings, no longer state an angle."""
    fields = frames.fields.copy()
    unknown = frames.horizontal & np.isin(frames.labels, headed.labels)
    fields[unknown] = without_angle(fields[unknown])
    first = replace(frames, fields=fields)
    return Frames(*map(np.concatenate, zip(astuple(first), astuple(headed), strict=True)))


def all_frames(
    datasets: list[Dataset], classes: list[str], spec: FrameSpec, copies: int, seed: int, headings: dict[str, Headings]
) -> Frames:
    """Frames as they lie in the images, and along the known headings of the data sets (by name)."""
    frames = collect_frames(datasets, classes, spec, copies, np.random.default_rng((seed, 1)))
    for dataset in datasets:
        if dataset.name in headings:
            frames = joined(frames, headed_frames(dataset, classes, spec, headings[dataset.name]))
    return frames


def _weights(frames: Frames, nothing: int) -> np.ndarray:
    """Cumulative sampling probabilities (N,): by the inverse square root of a class's count, doubled for horizontal
    boxes (objects in them have any heading), and NOTHING_SHARE for empty ground."""
    counts = np.bincount(frames.labels, minlength=nothing + 1).astype(np.float64)
    weight = 1 / np.sqrt(np.maximum(counts, 1))
    p = weight[frames.labels] * np.where(frames.horizontal, 2, 1)
    empty = frames.labels == nothing
    for label in np.unique(frames.labels[frames.headed]):
        of_class = frames.labels == label
        along, others = of_class & frames.headed, of_class & ~frames.headed
        p[along] *= HEADED_SHARE / (1 - HEADED_SHARE) * p[others].sum() / p[along].sum() if others.any() else 1
    if empty.any() and not empty.all():
        p[empty] *= NOTHING_SHARE / (1 - NOTHING_SHARE) * p[~empty].sum() / p[empty].sum()
    return np.cumsum(p / p.sum())


def make_batch(frames: Frames, spec: FrameSpec, nothing: int, batch_size: int):
    """A function rng -> batch of frames with random context, mirroring, brightness and contrast, and hole margin."""
    cumulative = _weights(frames, nothing)
    stored_side = frame_sides(frames.boxes, spec, MAX_CONTEXT)

    def batch(rng: np.random.Generator) -> dict[str, torch.Tensor]:
        index = np.searchsorted(cumulative, rng.random(batch_size))
        context = np.exp(rng.uniform(np.log(MIN_CONTEXT), np.log(MAX_CONTEXT), batch_size)).astype(np.float32)
        images, holes, boxes, fields = [], [], [], frames.fields[index].copy()
        for j, i in enumerate(index):
            side = float(frame_sides(frames.boxes[i : i + 1], spec, context[j])[0])
            stored = frames.images.shape[1]
            scale = side / stored_side[i] * stored / spec.size
            offset = (stored - spec.size * scale) / 2
            image = cut(frames.images[i], np.float32([[scale, 0, offset], [0, scale, offset]]), spec.size)
            margins = replace(
                spec,
                hole_margin=spec.hole_margin * rng.uniform(0.7, 1.6),
                hole_pixels=spec.hole_pixels * rng.uniform(0.7, 2),
            )
            kind = "hbb" if frames.horizontal[i] else "obb"
            hole, box = masks(frames.boxes[i], kind, margins, context[j])
            fields[j, 1] = np.log2(side / spec.size)
            if rng.random() < 0.5:
                image = image[::-1]  # across its length: what points right still does
                fields[j, 2] *= -1  # mirroring reverses the object's angle
            images.append(image), holes.append(hole), boxes.append(box)
        x = np.stack(images).astype(np.float32) / 127.5 - 1  # (B, F, F, 3)
        x = x * rng.uniform(0.85, 1.15, (batch_size, 1, 1, 1)) + rng.uniform(-0.12, 0.12, (batch_size, 1, 1, 1))
        fields[rng.random(fields.shape) < NULL_PROBABILITY] = np.nan
        labels = frames.labels[index].copy()
        labels[rng.random(batch_size) < NULL_PROBABILITY] = nothing + 1
        return {
            "frames": torch.from_numpy(np.clip(x, -1, 1).astype(np.float32)).permute(0, 3, 1, 2).contiguous(),
            "hole": torch.from_numpy(np.stack(holes))[:, None],
            "box": torch.from_numpy(np.stack(boxes))[:, None],
            "labels": torch.from_numpy(labels),
            "fields": torch.from_numpy(fields),
        }

    return batch


def frame_example(batch: Batch, generator: torch.Generator, null: int | None = None) -> Example:
    """Frames and their conditions; the hole has weight 1, its surroundings 0.1. null: label of an unknown class."""
    x, hole = batch["frames"], batch["hole"]
    conditions = (x * (1 - hole), hole, batch["box"], batch["labels"], batch["fields"])
    unknown = None if null is None else (*conditions[:3], torch.full_like(batch["labels"], null), batch["fields"])
    return Example(x, conditions, 0.1 + 0.9 * hole, region=hole, null=unknown)


def show_frames(batch: Callable, model: InSceneUNet, step: int, folder: Path, few: int | None = None) -> None:
    """Write `folder/samples/STEP.png`: real frames, the model's input, and the frames painted in `few` steps."""
    from dataengine.render.in_scene import sample_frames

    shown = moved(batch(np.random.default_rng(2)), model.device)
    real = shown["frames"]
    conditions = frame_example(shown, torch.Generator()).conditions
    generators = [torch.Generator().manual_seed(i) for i in range(len(real))]
    painted = sample_frames(model, *conditions, generators=generators, steps=few or 12, few=bool(few))
    painted = torch.where(shown["hole"] > 0, painted, real)
    rows = []
    for start in range(0, len(real), 16):
        for stack in (real, conditions[0], painted):
            pixels = ((stack[start : start + 16] + 1) * 127.5).clamp(0, 255).byte().permute(0, 2, 3, 1).cpu().numpy()
            rows.append(np.concatenate(list(pixels), 1))
    grid = Image.fromarray(np.concatenate(rows, 0))
    save_samples(grid.resize((grid.width * 2, grid.height * 2)), folder, step)


def with_classes(model: InSceneUNet, classes: list[str]) -> InSceneUNet:
    """A copy of a model with other classes: known ones keep their embedding, new ones get the null's."""
    settings = {name: value for name, value in model.config.items() if not name.startswith("_")}
    other = InSceneUNet(**(settings | {"classes": list(classes)}))
    copy_weights(other, model)
    return other


def train_in_scene(
    datasets: list[Dataset],
    classes: list[str],
    out: Path,
    settings: TrainSettings,
    copies: int = 3,
    model_settings: dict | None = None,
    start: InSceneUNet | None = None,
    headings: dict[str, Headings] | None = None,
) -> InSceneUNet:
    """Train a model on the objects of the data sets and write it to `out/model` (a diffusers folder).

    copies: augmented copies of each image. start: a trained model to continue from, with its own settings and these
    classes. headings: {name of a data set with horizontal boxes: what is known of its objects}.
    """
    torch.manual_seed(settings.seed)
    model = (
        InSceneUNet(classes=list(classes), **(model_settings or {})) if start is None else with_classes(start, classes)
    )
    spec = model.spec
    frames = all_frames(datasets, list(classes), spec, copies, settings.seed, headings or {})
    headed = np.unique(frames.labels[frames.headed])
    model.register_to_config(headed=[classes[i] for i in headed])
    show = partial(show_frames, make_batch(frames, spec, model.nothing, 32))
    batch = make_batch(frames, spec, model.nothing, settings.batch_size)
    recipe = f"in-scene {model_settings_text(model)} copies={copies} frames={len(frames)} "
    train(model, batch, flow_loss(frame_example, 0.2, 1.1), out, settings, recipe, show)
    save_once(model, out / "model")
    return model
