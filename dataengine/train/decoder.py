"""Training of the decoder from thumbnails to pixels: flow matching on crops of real images."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.progress import track

from dataengine.data.images import read_or_fail
from dataengine.data.layout import Dataset, Layout, class_key
from dataengine.errors import UserError
from dataengine.render.augment import augmented_window
from dataengine.render.layout_batch import NOTHING, layout_raster
from dataengine.render.thumbnail_decoder import (
    ThumbnailDecoder,
    decode_thumbnails,
    thumbnail_pixels,
    thumbnails_of,
    with_noise,
)
from dataengine.train.flow_loss import Batch, Example, flow_loss
from dataengine.train.loop import TrainSettings, model_settings_text, moved, save_once, save_samples, train
from dataengine.train.warm_start import copy_weights

NULL_PROBABILITY = 0.1
FOREGROUND_WEIGHT = 3.0
OBJECT_CROP_SHARE = 0.6  # of crops that lie around an object


def random_crops(
    datasets: list[Dataset],
    classes: list[str],
    domains: list[str],
    crop: int,
    batch_size: int,
    object_share: float = OBJECT_CROP_SHARE,
):
    """A function rng -> {"images": float32 (B, 3, crop, crop) in [-1, 1], "domains": int64 (B,), "rasters": int8
    (B, 3, crop, crop)} of augmented crops.

    object_share: of crops that lie around an object, those of rare classes more often. domains: names that data sets
    are numbered by; len(domains) is the number of an unknown one. All images are held in memory. Raises UserError when
    no image is as large as the crop.
    """
    samples = [(d, s) for d, dataset in enumerate(datasets) for s in dataset if min(s.layout.size) >= crop]
    if not samples:
        raise UserError(
            f"no image of the training data is at least {crop} pixels wide and high; choose a smaller --crop."
        )
    numbers = domain_numbers(datasets, domains)
    pixels = []
    for _, sample in track(samples, "reading images"):
        pixels.append(read_or_fail(sample))
    objects = [(i, box[:2], name) for i, (_, s) in enumerate(samples) for box, name in named_boxes(s.layout, classes)]
    _, which, counts = np.unique([name for *_, name in objects], return_inverse=True, return_counts=True)
    probabilities = counts[which] ** -0.5 if objects else np.zeros(0)
    probabilities /= probabilities.sum()

    def one(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, int]:
        if objects and rng.random() < object_share:
            i, around, _ = objects[rng.choice(len(objects), p=probabilities)]
        else:
            i, around = rng.integers(len(samples)), None
        image, layout = augmented_window(pixels[i], samples[i][1].layout, crop, rng, around)
        return image, layout_raster(layout, classes), numbers[samples[i][0]]

    def batch(rng: np.random.Generator) -> dict[str, torch.Tensor]:
        images, rasters, domain_labels = zip(*(one(rng) for _ in range(batch_size)), strict=True)
        images, labels = np.stack(images).astype(np.float32) / 127.5 - 1, np.array(domain_labels)
        labels[rng.random(batch_size) < NULL_PROBABILITY] = len(domains)
        return {
            "images": torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(),
            "domains": torch.from_numpy(labels),
            "rasters": torch.from_numpy(np.stack(rasters)),
        }

    return batch


def domain_name(dataset: Dataset) -> str:
    """A data set's name among the domains of a model."""
    return dataset.name or dataset.format


def domain_numbers(datasets: list[Dataset], domains: list[str]) -> np.ndarray:
    """Number of each data set's domain, int64 (len(datasets),); len(domains) for an unknown one.

    >>> domain_numbers([Dataset(("car",), [], name=name) for name in ("dota", "mars")], ["hit-uav", "dota"]).tolist()
    [1, 2]
    """
    names = [domain_name(dataset) for dataset in datasets]
    return np.array([domains.index(name) if name in domains else len(domains) for name in names])


def named_boxes(layout: Layout, classes: list[str]) -> list[tuple[np.ndarray, str]]:
    """Boxes (5,) and class keys of the layout's objects of these classes."""
    known = {class_key(name) for name in classes}
    return [(box, class_key(n)) for box, n in zip(layout.boxes, layout.names(), strict=True) if class_key(n) in known]


def crop_example(batch: Batch, generator: torch.Generator) -> Example:
    """Crops and their conditions; pixels inside boxes have a higher weight."""
    x, rasters = batch["images"], batch["rasters"]
    thumbnails = thumbnails_of(x)
    noisy = with_noise(thumbnails, torch.randn(thumbnails.shape, generator=generator, device=x.device), rasters)
    weight = torch.where(rasters[:, :1] != NOTHING, FOREGROUND_WEIGHT, 1.0)
    return Example(x, (noisy, batch["domains"], rasters), weight)


def to_pixels(images: torch.Tensor) -> np.ndarray:
    """(B, 3, H, W) in [-1, 1] -> uint8 (B, H, W, 3)."""
    return ((images.float() + 1) * 127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1).cpu().numpy()


def show_crops(batch: Callable, model: ThumbnailDecoder, step: int, folder: Path, few: int | None = None) -> None:
    """Write `folder/samples/STEP.png`: real crops, their thumbnails, and the thumbnails decoded in `few` steps."""
    shown = moved(batch(np.random.default_rng(2)), model.device)
    thumbnails = thumbnails_of(shown["images"])
    generators = [torch.Generator().manual_seed(i) for i in range(len(thumbnails))]
    rasters = shown["rasters"] if model.config.classes else None
    decoded = decode_thumbnails(
        model, thumbnails, shown["domains"], generators=generators, rasters=rasters, steps=few or 10, few=bool(few)
    )
    rows = [np.concatenate(list(to_pixels(x)), 1) for x in (shown["images"], thumbnail_pixels(thumbnails), decoded)]
    save_samples(Image.fromarray(np.concatenate(rows, 0)), folder, step)


def train_decoder(
    datasets: list[Dataset],
    classes: list[str],
    out: Path,
    settings: TrainSettings,
    crop: int = 96,
    model_settings: dict | None = None,
    start: ThumbnailDecoder | None = None,
) -> ThumbnailDecoder:
    """Train a decoder on random crops, whose side is a multiple of 16 pixels, and write it to `out/model`.

    Sample grids as in `show_crops`. classes: of the objects around which crops lie, and of the model, unless
    model_settings has others. start: a trained model whose weights initialise this one (`copy_weights`).
    """
    torch.manual_seed(settings.seed)
    names = [domain_name(dataset) for dataset in datasets]
    model = ThumbnailDecoder(**({"domains": names, "classes": list(classes)} | (model_settings or {})))
    if start is not None:
        copy_weights(model, start)
    batch = random_crops(datasets, classes, names, crop, settings.batch_size)
    largest = min(256, min(min(s.layout.size) for dataset in datasets for s in dataset)) // 16 * 16
    show = partial(show_crops, random_crops(datasets, classes, names, largest, 8))
    recipe = f"decoder {model_settings_text(model)} crop={crop} images={sum(map(len, datasets))} "
    recipe += f"start={start is not None} "
    train(model, batch, flow_loss(crop_example), out, settings, recipe, show)
    save_once(model, out / "model")
    return model
