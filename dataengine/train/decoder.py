"""Training of the decoder from thumbnails to pixels: flow matching on crops of real images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.progress import track

from dataengine.data.layout import Dataset
from dataengine.errors import UserError
from dataengine.render.flow import velocity_error
from dataengine.render.thumbnail import thumbnail_pixels, thumbnails_of
from dataengine.render.thumbnail_decoder import ThumbnailDecoder, decode_thumbnails, with_noise
from dataengine.train.loop import TrainSettings, model_settings_text, save_once, train

NULL_PROBABILITY = 0.1


def random_crops(datasets: list[Dataset], crop: int, batch_size: int):
    """A function rng -> {"images": float32 (B, 3, crop, crop) in [-1, 1], "domains": int64 (B,)}; crops are mirrored,
    turned by quarters and re-lit. All images are held in memory.

    Raises UserError when no image is as large as the crop.
    """
    pictures, domains = [], []
    samples = [(d, s) for d, dataset in enumerate(datasets) for s in dataset if min(s.layout.size) >= crop]
    for d, sample in track(samples, "reading images"):
        with Image.open(sample.image) as file:
            pictures.append(np.asarray(file.convert("RGB")))
        domains.append(d)
    if not pictures:
        raise UserError(
            f"no image of the training data is at least {crop} pixels wide and high; give a smaller --crop."
        )

    def batch(rng: np.random.Generator) -> dict[str, torch.Tensor]:
        index = rng.integers(0, len(pictures), batch_size)
        crops = []
        for i in index:
            y, x = (rng.integers(0, side - crop + 1) for side in pictures[i].shape[:2])
            crops.append(np.rot90(pictures[i][y : y + crop, x : x + crop], rng.integers(4))[:, :: rng.choice((1, -1))])
        images = np.stack(crops).astype(np.float32) / 127.5 - 1
        light = rng.uniform(0.85, 1.15, (batch_size, 1, 1, 1)), rng.uniform(-0.12, 0.12, (batch_size, 1, 1, 1))
        images = np.clip(images * light[0] + light[1], -1, 1).astype(np.float32)
        labels = np.array([domains[i] for i in index])
        labels[rng.random(batch_size) < NULL_PROBABILITY] = len(datasets)
        return {
            "images": torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(),
            "domains": torch.from_numpy(labels),
        }

    return batch


def velocity_loss(model: torch.nn.Module, batch: dict[str, torch.Tensor], generator: torch.Generator) -> dict:
    """Flow matching with logit-normal times (Esser et al. 2024, eq. 19)."""
    x = batch["images"]
    noise = torch.randn(x.shape, generator=generator, device=x.device)
    sigma = torch.sigmoid(torch.randn(len(x), generator=generator, device=x.device))
    thumbnails = thumbnails_of(x)
    seen = with_noise(thumbnails, torch.randn(thumbnails.shape, generator=generator, device=x.device))
    s = sigma[:, None, None, None]
    predicted = model((1 - s) * x + s * noise, sigma * 1000, seen, batch["domains"]).float()
    return {"loss": velocity_error(predicted, noise, x, sigma).mean()}


def to_pixels(images: torch.Tensor) -> np.ndarray:
    """(B, 3, H, W) in [-1, 1] -> uint8 (B, H, W, 3)."""
    return ((images.float() + 1) * 127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1).cpu().numpy()


def train_decoder(
    datasets: list[Dataset], out: Path, settings: TrainSettings, crop: int = 64, model_settings: dict | None = None
) -> ThumbnailDecoder:
    """Train on random crops, whose side is a multiple of 16 pixels, and write the model to `out/model`."""
    torch.manual_seed(settings.seed)
    names = [dataset.name or dataset.format for dataset in datasets]
    model = ThumbnailDecoder(domains=names, **(model_settings or {}))
    batch = random_crops(datasets, crop, settings.batch_size)
    largest = min(256, min(min(s.layout.size) for dataset in datasets for s in dataset)) // 16 * 16
    shown = random_crops(datasets, largest, 8)(np.random.default_rng((settings.seed, 2)))

    @torch.no_grad()
    def evaluate(averaged: torch.nn.Module, step: int, folder: Path) -> None:
        thumbnails = thumbnails_of(shown["images"])
        generators = [torch.Generator().manual_seed(i) for i in range(len(thumbnails))]
        decoded = decode_thumbnails(averaged, thumbnails, shown["domains"], generators=generators)
        rows = [np.concatenate(list(to_pixels(x)), 1) for x in (shown["images"], thumbnail_pixels(thumbnails), decoded)]
        (folder / "samples").mkdir(exist_ok=True)
        Image.fromarray(np.concatenate(rows, 0)).save(folder / "samples" / f"{step:07d}.png")

    recipe = f"decoder {model_settings_text(model)} crop={crop} images={sum(map(len, datasets))} "
    train(model, batch, velocity_loss, out, settings, recipe, evaluate)
    save_once(model, out / "model")
    return model
