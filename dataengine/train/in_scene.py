"""Training of the in-scene renderer: real objects in their frames, to be painted back from their surroundings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.progress import track

from dataengine import geometry
from dataengine.data.layout import Dataset, Layout, class_key
from dataengine.errors import UserError
from dataengine.render.augment import augment
from dataengine.render.frame import FrameSpec, cut, frame_matrices, frame_sides, masks
from dataengine.render.in_scene import InSceneUNet, object_fields
from dataengine.train.flow_loss import Batch, Example, flow_loss
from dataengine.train.loop import TrainSettings, model_settings_text, moved, save_once, train
from dataengine.train.warm_start import take_weights

WIDEST = 2.3  # frames are kept with this much context, and cropped to between TIGHTEST and WIDEST in training
TIGHTEST = 1.5
NULL_PROBABILITY = 0.1
NOTHING_SHARE = 0.15


@dataclass(frozen=True)
class Frames:
    """Objects cut from real images.

    images: uint8 (N, S, S, 3), S = frame size x WIDEST / context. holes, boxes: coverage at the model's own context.
    labels: int64 (N,) in the model's numbering ("nothing" included). fields: float32 (N, len(FIELDS)).
    """

    images: np.ndarray
    boxes: np.ndarray  # float32 (N, 5), in pixels of the source image
    labels: np.ndarray
    fields: np.ndarray
    horizontal: np.ndarray  # bool (N,)

    def __len__(self) -> int:
        return len(self.labels)


def _empty_boxes(layout: Layout, rng: np.random.Generator) -> np.ndarray:
    """Boxes like the layout's own, moved to where nothing is, (<= 2, 5)."""
    if not len(layout):
        return layout.boxes
    boxes = layout.boxes[rng.integers(0, len(layout), 6)].copy()
    boxes[:, 0] = rng.uniform(0, layout.size[0], 6)
    boxes[:, 1] = rng.uniform(0, layout.size[1], 6)
    taken = np.concatenate([layout.boxes, layout.ignored])
    wide = boxes + np.float32([0, 0, 4, 4, 0])
    wide[:, 2:4] *= 1.3
    free = (geometry.intersection(wide, taken) == 0).all(1)
    return boxes[free & (geometry.visible_fraction(boxes, layout.size) > 0.9)][:2]


def collect_frames(
    datasets: list[Dataset], classes: list[str], spec: FrameSpec, copies: int, rng: np.random.Generator
) -> Frames:
    """Cut every object of at least half visibility, from each image and from `copies` augmented copies of it.

    Class names are matched without regard to case. Raises UserError when no object of the classes is found.
    """
    number = {class_key(name): i for i, name in enumerate(classes)}
    size = round(spec.size * WIDEST / spec.context)
    wide = replace(spec, size=size)
    out: dict[str, list] = {"images": [], "boxes": [], "labels": [], "fields": [], "horizontal": []}

    def add(image: np.ndarray, layout: Layout, labels: np.ndarray) -> None:
        matrices = frame_matrices(layout.boxes, layout.kind, wide, WIDEST)
        fields = object_fields(layout, spec)
        for i in range(len(layout)):
            out["images"].append(cut(image, matrices[i], size))
            out["boxes"].append(layout.boxes[i])
            out["labels"].append(labels[i])
            out["fields"].append(fields[i])
            out["horizontal"].append(layout.kind == "hbb")

    samples = [(dataset, sample) for dataset in datasets for sample in dataset]
    for _dataset, sample in track(samples, "cutting frames"):
        picture = np.asarray(Image.open(sample.image).convert("RGB"))
        for copy in range(copies + 1):
            image, layout = augment(picture, sample.layout, rng) if copy else (picture, sample.layout)
            labels = np.array([number.get(class_key(name), -1) for name in layout.names()], np.int64)
            keep = (labels >= 0) & (layout.visible > 0.5) & (layout.boxes[:, 2] >= 5) & ~layout.difficult
            add(image, layout.select(keep), labels[keep])
            empty = _empty_boxes(layout, rng)
            add(image, replace(layout, boxes=empty, labels=np.zeros(len(empty)), difficult=None, visible=None),
                np.full(len(empty), len(classes)))  # fmt: skip
    if not out["images"]:
        raise UserError(f"no object of the classes {', '.join(classes)} was found in the training data.")
    return Frames(
        np.stack(out["images"]),
        np.stack(out["boxes"]).astype(np.float32),
        np.asarray(out["labels"], np.int64),
        np.stack(out["fields"]).astype(np.float32),
        np.asarray(out["horizontal"]),
    )


def _weights(frames: Frames, nothing: int) -> np.ndarray:
    """Rare classes are drawn more often: by the square root of their inverse share; objects in horizontal boxes twice
    as often, for they must be learnt in every direction; empty ground at its own share."""
    counts = np.bincount(frames.labels, minlength=nothing + 1).astype(np.float64)
    weight = 1 / np.sqrt(np.maximum(counts, 1))
    p = weight[frames.labels] * np.where(frames.horizontal, 2, 1)
    empty = frames.labels == nothing
    if empty.any() and not empty.all():
        p[empty] *= NOTHING_SHARE / (1 - NOTHING_SHARE) * p[~empty].sum() / p[empty].sum()
    return np.cumsum(p / p.sum())


def make_batch(frames: Frames, spec: FrameSpec, nothing: int, batch_size: int):
    """A function rng -> batch: frames at a random tightness, mirrored, re-lit; holes of random margin."""
    cumulative = _weights(frames, nothing)
    kept_side = frame_sides(frames.boxes, spec, WIDEST)

    def batch(rng: np.random.Generator) -> dict[str, torch.Tensor]:
        index = np.searchsorted(cumulative, rng.random(batch_size))
        context = np.exp(rng.uniform(np.log(TIGHTEST), np.log(WIDEST), batch_size)).astype(np.float32)
        images, holes, boxes, fields = [], [], [], frames.fields[index].copy()
        for j, i in enumerate(index):
            side = float(frame_sides(frames.boxes[i : i + 1], spec, context[j])[0])
            kept = frames.images.shape[1]
            scale = side / kept_side[i] * kept / spec.size
            offset = (kept - spec.size * scale) / 2
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
                image = image[:, ::-1]
                fields[j, 2] *= -1  # the mirrored picture holds the object at the opposite angle
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
    """The part to be painted counts in full, its given surroundings a tenth. null: the label of an unknown class."""
    x, hole = batch["frames"], batch["hole"]
    conditions = (x * (1 - hole), hole, batch["box"], batch["labels"], batch["fields"])
    unknown = None if null is None else (*conditions[:3], torch.full_like(batch["labels"], null), batch["fields"])
    return Example(x, conditions, 0.1 + 0.9 * hole, region=hole, null=unknown)


def show_frames(batch: Callable, model: InSceneUNet, step: int, folder: Path, few: int | None = None) -> None:
    """A sheet `folder/samples/STEP.png` of frames: as they were, as the model is given them, painted in `few` steps."""
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
            pictures = ((stack[start : start + 16] + 1) * 127.5).clamp(0, 255).byte().permute(0, 2, 3, 1).cpu().numpy()
            rows.append(np.concatenate(list(pictures), 1))
    (folder / "samples").mkdir(exist_ok=True)
    grid = Image.fromarray(np.concatenate(rows, 0))
    grid.resize((grid.width * 2, grid.height * 2)).save(folder / "samples" / f"{step:07d}.png")


def with_classes(model: InSceneUNet, classes: list[str]) -> InSceneUNet:
    """A model with the same weights and other classes: those it knows keep their embedding, new ones get the null's."""
    settings = {name: value for name, value in model.config.items() if not name.startswith("_")}
    other = InSceneUNet(**(settings | {"classes": list(classes)}))
    take_weights(other, model)
    return other


def train_in_scene(
    datasets: list[Dataset],
    classes: list[str],
    out: Path,
    settings: TrainSettings,
    copies: int = 3,
    model_settings: dict | None = None,
    start: InSceneUNet | None = None,
) -> InSceneUNet:
    """Train on the objects of the data sets and write the model to `out/model` (diffusers folder format).

    start: a trained model to go on from, with its own settings and with these classes.
    """
    torch.manual_seed(settings.seed)
    model = (
        InSceneUNet(classes=list(classes), **(model_settings or {})) if start is None else with_classes(start, classes)
    )
    spec = model.spec
    frames = collect_frames(datasets, list(classes), spec, copies, np.random.default_rng((settings.seed, 1)))
    show = partial(show_frames, make_batch(frames, spec, model.nothing, 32))
    batch = make_batch(frames, spec, model.nothing, settings.batch_size)
    recipe = f"in-scene {model_settings_text(model)} copies={copies} frames={len(frames)} "
    train(model, batch, flow_loss(frame_example, 0.2, 1.1), out, settings, recipe, show)
    save_once(model, out / "model")
    return model
