"""Training of the whole-image renderer's thumbnail model: flow matching on thumbnails of labelled windows.

Two stages, thumbnail and decoder, each learn in an hour on a CPU core what one stage, on the latents of a trained
autoencoder, had not learnt in as long on two (docs/log/training.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.progress import track
from torch.nn import functional as F

from dataengine.data.draw import draw
from dataengine.data.layout import Dataset, Layout, class_key, drop_fields
from dataengine.errors import UserError
from dataengine.render.augment import augmented_window
from dataengine.render.layout_batch import LayoutBatch
from dataengine.render.layout_unet import LayoutUNet, sample_latents
from dataengine.render.reference import Encoder
from dataengine.render.thumbnail_decoder import THUMBNAIL_RATIO, thumbnail_pixels, thumbnails_of
from dataengine.train.decoder import domain_name, to_pixels
from dataengine.train.flow_loss import Batch, Example, flow_loss
from dataengine.train.loop import TrainSettings, model_settings_text, save_once, train
from dataengine.train.warm_start import take_weights

NULL_PROBABILITY = 0.1
REFERENCE_NULL_PROBABILITY = 0.5  # most pictures are drawn without one
FOREGROUND_WEIGHT = 2.0
GREY_SPREAD = 8  # of a pixel's channels, that JPEG alone may cause


@dataclass(frozen=True)
class Windows:
    """Windows of real images: thumbnails float16 (N, C, S, S), layouts, their labels in the model's numbering,
    domains int64 (N,), and, for a model with a reference, embeddings of real images float32 (N, R, E)."""

    thumbnails: np.ndarray
    layouts: list[Layout]
    labels: list[np.ndarray]
    domains: np.ndarray
    references: np.ndarray | None = None


def collect_windows(
    datasets: list[Dataset],
    classes: list[str],
    size: int,
    copies: int,
    rng: np.random.Generator,
    encoder: Encoder | None = None,
) -> Windows:
    """Cut `copies` augmented windows of each image, with the encoder's embedding of the whole image as the reference.

    Raises UserError when the data sets hold no image.
    """
    number = {class_key(name): i for i, name in enumerate(classes)}
    thumbnails, layouts, labels, domains, references = [], [], [], [], []
    samples = [(d, sample) for d, dataset in enumerate(datasets) for sample in dataset]
    for d, sample in track(samples, "cutting windows"):
        with Image.open(sample.image) as file:
            picture = np.asarray(file.convert("RGB"))
        if encoder is not None:
            references += [encoder([picture])[0]] * copies
        for _ in range(copies):
            image, layout = augmented_window(picture, sample.layout, size, rng)
            own = np.array([number.get(class_key(name), -1) for name in layout.names()], np.int64)
            pixels = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None] / 127.5 - 1
            thumbnails.append(thumbnails_of(pixels)[0].half().numpy())
            layouts.append(layout.select(own >= 0)), labels.append(own[own >= 0]), domains.append(d)
    if not layouts:
        raise UserError("the training data holds no images.")
    found = np.stack(references) if references else None
    return Windows(np.stack(thumbnails), layouts, labels, np.asarray(domains), found)


def make_batch(windows: Windows, model: LayoutUNet, batch_size: int, null_probability: float = NULL_PROBABILITY):
    """A function rng -> batch of thumbnails and layout tensors; each condition dropped to its null on its own, the
    layout with `null_probability`."""
    fields = model.config.fields

    def dropped(rng: np.random.Generator, probability: float = NULL_PROBABILITY) -> torch.Tensor:
        return torch.from_numpy(rng.random(batch_size) < probability)

    def batch(rng: np.random.Generator) -> dict[str, torch.Tensor]:
        index = rng.integers(0, len(windows.layouts), batch_size)
        references = None if windows.references is None else windows.references[index]
        layouts = model.layout_batch(
            [windows.layouts[i] for i in index], [windows.labels[i] for i in index], windows.domains[index], references
        )
        nothing = dropped(rng, null_probability)
        layouts.known[nothing] = False
        layouts.shapes[nothing] = 0
        if fields:
            layouts.fields.copy_(torch.from_numpy(drop_fields(layouts.fields.numpy(), fields, NULL_PROBABILITY, rng)))
        layouts.domains[dropped(rng)] = len(model.config.domains)
        if references is not None:
            layouts.references[dropped(rng, REFERENCE_NULL_PROBABILITY)] = torch.nan
        return {"thumbnails": torch.from_numpy(windows.thumbnails[index].astype(np.float32)), **vars(layouts)}

    return batch


def window_example(batch: Batch, generator: torch.Generator, foreground_weight: float = FOREGROUND_WEIGHT) -> Example:
    """Patches under objects weigh more."""
    batch = dict(batch)
    x = batch.pop("thumbnails")
    layouts = LayoutBatch(**batch)
    patch = x.shape[-1] // layouts.coverage.shape[-1]
    covered = F.interpolate(layouts.coverage.amax(1, keepdim=True), scale_factor=patch)
    return Example(x, (layouts,), 1 + (foreground_weight - 1) * covered)


def show_windows(windows: Windows, model: LayoutUNet, step: int, folder: Path, few: int | None = None) -> None:
    """A sheet `folder/samples/STEP.png` of real windows, each above what is drawn for its layout, in `few` steps."""
    chosen = np.random.default_rng(2).integers(0, len(windows.layouts), 16)
    shown = [windows.layouts[i] for i in chosen]
    layouts = model.layout_batch(shown, [windows.labels[i] for i in chosen], windows.domains[chosen])
    real = torch.from_numpy(windows.thumbnails[chosen].astype(np.float32))
    generators = [torch.Generator().manual_seed(i) for i in range(len(shown))]
    drawn = sample_latents(model, layouts, generators=generators, steps=few or 20, few=bool(few)).cpu()
    rows = []
    for start in (0, 8):
        for stack in (real, drawn):
            images = to_pixels(thumbnail_pixels(stack[start : start + 8]))
            boxed = [np.asarray(draw(image, shown[start + i])) for i, image in enumerate(images)]
            rows.append(np.concatenate(boxed, 1))
    (folder / "samples").mkdir(exist_ok=True)
    Image.fromarray(np.concatenate(rows, 0)).save(folder / "samples" / f"{step:07d}.png")


def grey_domains(datasets: list[Dataset]) -> list[str]:
    """Names of the data sets whose images have one channel, or three that are the same."""

    def is_grey(dataset: Dataset) -> bool:
        step = -(-len(dataset) // 20)
        for sample in dataset.samples[::step]:
            with Image.open(sample.image) as file:
                if np.ptp(np.asarray(file.convert("RGB")), axis=2).max() > GREY_SPREAD:
                    return False
        return True

    return [name for name, dataset in zip(_domains(datasets), datasets, strict=True) if is_grey(dataset)]


def _domains(datasets: list[Dataset]) -> list[str]:
    return [domain_name(dataset) for dataset in datasets]


def train_thumbnails(
    datasets: list[Dataset],
    classes: list[str],
    out: Path,
    settings: TrainSettings,
    size: int = 256,
    copies: int = 4,
    model_settings: dict | None = None,
    start: LayoutUNet | None = None,
    encoder: Encoder | None = None,
) -> LayoutUNet:
    """Train on windows of size x size pixels and write the model to `out/model`; sample grids show real windows above
    drawn ones. start: a trained model, from whose weights to go on. encoder: of reference images, for a model with a
    reference_width."""
    torch.manual_seed(settings.seed)
    sides = {"sample_size": size // THUMBNAIL_RATIO, "latent_channels": 3}
    model = LayoutUNet(classes=list(classes), domains=_domains(datasets), **(sides | (model_settings or {})))
    if start is not None:
        take_weights(model, start)
    windows = collect_windows(datasets, classes, size, copies, np.random.default_rng((settings.seed, 1)), encoder)
    if windows.references is not None:
        model.standardise_references(windows.references)
    batch = make_batch(windows, model, settings.batch_size)
    recipe = f"thumbnails {model_settings_text(model)} size={size} copies={copies} windows={len(windows.layouts)} "
    recipe += f"start={start is not None} "
    train(model, batch, flow_loss(window_example), out, settings, recipe, partial(show_windows, windows))
    save_once(model, out / "model")
    return model
