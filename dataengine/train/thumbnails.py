"""Training of the whole-image renderer's thumbnail model: flow matching on thumbnails of labelled windows.

The two stages, thumbnails and their decoder, each train in an hour on one CPU core. A single stage on the latents of an
autoencoder did not reach the same quality in an hour on two cores (docs/log/training.md).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.progress import track
from torch.nn import functional as F

from dataengine.data.draw import draw
from dataengine.data.images import read_or_fail
from dataengine.data.layout import Dataset, Layout, class_key
from dataengine.errors import UserError
from dataengine.render.augment import augmented_window
from dataengine.render.layout_batch import LayoutBatch
from dataengine.render.layout_unet import LayoutUNet, sample_latents
from dataengine.render.reference import Encoder
from dataengine.render.thumbnail_decoder import THUMBNAIL_RATIO, thumbnail_pixels, thumbnails_of
from dataengine.train.conditions import drop_domains, drop_metadata, forget_layouts
from dataengine.train.decoder import domain_name, to_pixels
from dataengine.train.flow_loss import Batch, Example, flow_loss
from dataengine.train.loop import TrainSettings, model_settings_text, save_once, save_samples, train
from dataengine.train.warm_start import copy_weights

NULL_PROBABILITY = 0.1  # of each other condition
REFERENCE_NULL_PROBABILITY = 0.5  # most images are generated without a reference
FOREGROUND_WEIGHT = 2.0
CHUNK = 64  # windows that become thumbnails together
MAX_GREY_SPREAD = 8  # levels between a pixel's channels that JPEG alone can cause


@dataclass(frozen=True)
class Windows:
    """Windows of real images.

    thumbnails: float16 (N, C, S, S). labels: of the layouts, in the model's numbering. domains: int64 (N,). references:
    embeddings float32 (N, R, E), for a model with reference images. labelled: bool (N,), False where objects without a
    label may be seen, so that the layout is unknown, which is not empty; all are labelled if None.
    """

    thumbnails: np.ndarray
    layouts: list[Layout]
    labels: list[np.ndarray]
    domains: np.ndarray
    references: np.ndarray | None = None
    labelled: np.ndarray | None = None


def collect_windows(
    datasets: list[Dataset],
    classes: list[str],
    size: int,
    copies: int,
    rng: np.random.Generator,
    encoder: Encoder | None = None,
    unlabelled: Collection[str] = (),
) -> Windows:
    """Cut `copies` augmented windows of size x size pixels from each image; the encoder's embedding of the whole image
    is their reference. unlabelled: names of data sets without labels. Raises UserError when the data sets have no
    image."""
    number = {class_key(name): i for i, name in enumerate(classes)}
    pixels, thumbnails, layouts, labels, domains, references = [], [], [], [], [], []

    def encode(images: list[np.ndarray]) -> np.ndarray:
        # many at a time: one by one, the allocator keeps the space of most of these large arrays
        return thumbnails_of(torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2) / 127.5 - 1).half().numpy()

    samples = [(d, sample) for d, dataset in enumerate(datasets) for sample in dataset]
    for d, sample in track(samples, "cutting windows"):
        original = read_or_fail(sample)
        if encoder is not None:
            references += [encoder([original])[0]] * copies
        for _ in range(copies):
            image, layout = augmented_window(original, sample.layout, size, rng)
            numbers = np.array([number.get(class_key(name), -1) for name in layout.names()], np.int64)
            pixels.append(image)
            if len(pixels) == CHUNK:
                thumbnails.append(encode(pixels))
                pixels.clear()
            layouts.append(layout.select(numbers >= 0)), labels.append(numbers[numbers >= 0]), domains.append(d)
    if not layouts:
        raise UserError("the training data has no images.")
    if pixels:
        thumbnails.append(encode(pixels))
    stacked = np.stack(references) if references else None
    labelled = np.array([domain_name(datasets[d]) not in unlabelled for d in domains])
    return Windows(np.concatenate(thumbnails), layouts, labels, np.asarray(domains), stacked, labelled)


def make_batch(windows: Windows, model: LayoutUNet, batch_size: int, null_probability: float = NULL_PROBABILITY):
    """A function rng -> batch of thumbnails and layout tensors. Each condition is independently replaced by its null,
    the layout with `null_probability` (contract 7)."""

    def batch(rng: np.random.Generator) -> dict[str, torch.Tensor]:
        index = rng.integers(0, len(windows.layouts), batch_size)
        references = None if windows.references is None else windows.references[index]
        layouts = model.layout_batch(
            [windows.layouts[i] for i in index], [windows.labels[i] for i in index], windows.domains[index], references
        )
        nothing = rng.random(batch_size) < null_probability
        if windows.labelled is not None:
            nothing |= ~windows.labelled[index]
        forget_layouts(layouts, nothing)
        drop_metadata(layouts, model.config.fields, NULL_PROBABILITY, rng)
        drop_domains(layouts, len(model.config.domains), NULL_PROBABILITY, rng)
        if references is not None:
            layouts.references[torch.from_numpy(rng.random(batch_size) < REFERENCE_NULL_PROBABILITY)] = torch.nan
        return {"thumbnails": torch.from_numpy(windows.thumbnails[index].astype(np.float32)), **vars(layouts)}

    return batch


def window_example(batch: Batch, generator: torch.Generator, foreground_weight: float = FOREGROUND_WEIGHT) -> Example:
    """Thumbnails and their conditions; patches under objects have a higher weight."""
    batch = dict(batch)
    x = batch.pop("thumbnails")
    layouts = LayoutBatch(**batch)
    patch = x.shape[-1] // layouts.coverage.shape[-1]
    covered = F.interpolate(layouts.coverage.amax(1, keepdim=True), scale_factor=patch)
    return Example(x, (layouts,), 1 + (foreground_weight - 1) * covered)


def show_windows(windows: Windows, model: LayoutUNet, step: int, folder: Path, few: int | None = None) -> None:
    """Write `folder/samples/STEP.png`: real windows, each above one generated for its layout in `few` steps."""
    chosen = np.random.default_rng(2).integers(0, len(windows.layouts), 16)
    shown = [windows.layouts[i] for i in chosen]
    layouts = model.layout_batch(shown, [windows.labels[i] for i in chosen], windows.domains[chosen])
    real = torch.from_numpy(windows.thumbnails[chosen].astype(np.float32))
    generators = [torch.Generator().manual_seed(i) for i in range(len(shown))]
    generated = sample_latents(model, layouts, generators=generators, steps=few or 20, few=bool(few)).cpu()
    rows = []
    for start in (0, 8):
        for stack in (real, generated):
            images = to_pixels(thumbnail_pixels(stack[start : start + 8]))
            boxed = [np.asarray(draw(image, shown[start + i])) for i, image in enumerate(images)]
            rows.append(np.concatenate(boxed, 1))
    save_samples(Image.fromarray(np.concatenate(rows, 0)), folder, step)


def grey_domains(datasets: list[Dataset]) -> list[str]:
    """Names of the data sets whose images have one channel, or three equal ones."""

    def is_grey(dataset: Dataset) -> bool:
        step = -(-len(dataset) // 20)
        return all(np.ptp(read_or_fail(sample), axis=2).max() <= MAX_GREY_SPREAD for sample in dataset.samples[::step])

    return [name for name, dataset in zip(map(domain_name, datasets), datasets, strict=True) if is_grey(dataset)]


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
    unlabelled: Collection[str] = (),
) -> LayoutUNet:
    """Train a model on windows of size x size pixels and write it to `out/model`.

    copies: augmented windows of each image. start: a trained model whose weights initialise this one (`copy_weights`).
    encoder: of reference images, for a model with a reference_width. unlabelled: names of data sets whose layouts are
    unknown.
    """
    torch.manual_seed(settings.seed)
    sides = {"sample_size": size // THUMBNAIL_RATIO, "latent_channels": 3}
    model = LayoutUNet(
        classes=list(classes),
        domains=[domain_name(dataset) for dataset in datasets],
        **(sides | (model_settings or {})),
    )
    if start is not None:
        copy_weights(model, start)
    rng = np.random.default_rng((settings.seed, 1))
    windows = collect_windows(datasets, classes, size, copies, rng, encoder, unlabelled)
    if windows.references is not None:
        model.standardise_references(windows.references)
    batch = make_batch(windows, model, settings.batch_size)
    recipe = f"thumbnails {model_settings_text(model)} size={size} copies={copies} windows={len(windows.layouts)} "
    recipe += f"start={start is not None} unlabelled={sorted(unlabelled)} "
    train(model, batch, flow_loss(window_example), out, settings, recipe, partial(show_windows, windows))
    save_once(model, out / "model")
    return model
