"""Training of the whole-image renderer: flow matching on cached latents of labelled windows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderDC
from PIL import Image
from rich.progress import track

from dataengine.data.layout import Dataset, Layout
from dataengine.errors import UserError
from dataengine.layouts.draw import draw
from dataengine.render.flow import velocity_error
from dataengine.render.layout_unet import LayoutBatch, LayoutUNet, layout_batch
from dataengine.render.precision import fast_autocast
from dataengine.render.sample_latents import sample_latents
from dataengine.train.augment import augment, random_window
from dataengine.train.autoencoder import to_pixels
from dataengine.train.loop import TrainSettings, model_settings_text, train

NULL_PROBABILITY = 0.1
FOREGROUND_WEIGHT = 2.0


@dataclass(frozen=True)
class CachedLatents:
    """Windows of real images: latents float16 (N, C, S, S), their layouts, labels in the model's numbering, domains."""

    latents: np.ndarray
    layouts: list[Layout]
    labels: list[np.ndarray]
    domains: np.ndarray


@torch.no_grad()
def cache_latents(
    datasets: list[Dataset], vae: AutoencoderDC, classes: list[str], size: int, copies: int, rng: np.random.Generator
) -> CachedLatents:
    """Encode `copies` augmented windows of each image. Raises UserError when the data sets hold no image."""
    number = {name.lower(): i for i, name in enumerate(classes)}
    latents, layouts, labels, domains, pending = [], [], [], [], []

    def flush() -> None:
        if pending:
            x = torch.from_numpy(np.stack(pending)).permute(0, 3, 1, 2).to(vae.device) / 127.5 - 1
            with fast_autocast(vae.device):
                encoded = vae.encode(x.contiguous(memory_format=torch.channels_last)).latent
            latents.append((encoded.float() * vae.config.scaling_factor).half().cpu().numpy())
            pending.clear()

    samples = [(d, sample) for d, dataset in enumerate(datasets) for sample in dataset]
    for d, sample in track(samples, "encoding windows"):
        with Image.open(sample.image) as file:
            picture = np.asarray(file.convert("RGB"))
        for _ in range(copies):
            image, layout = random_window(*augment(picture, sample.layout, rng), size, rng)
            own = np.array([number.get(name.lower(), -1) for name in layout.names()], np.int64)
            layout = layout.select(own >= 0)
            pending.append(image), layouts.append(layout), labels.append(own[own >= 0]), domains.append(d)
            if len(pending) == 32:
                flush()
    flush()
    if not latents:
        raise UserError("the training data holds no images.")
    return CachedLatents(np.concatenate(latents), layouts, labels, np.asarray(domains))


def make_batch(cache: CachedLatents, grid: int, batch_size: int, n_domains: int):
    """A function rng -> batch of latents and layout tensors; each condition dropped to its null on its own."""

    def batch(rng: np.random.Generator) -> dict[str, torch.Tensor]:
        index = rng.integers(0, len(cache.layouts), batch_size)
        layouts = layout_batch(
            [cache.layouts[i] for i in index], [cache.labels[i] for i in index], cache.domains[index], grid
        )
        layouts.known[torch.from_numpy(rng.random(batch_size) < NULL_PROBABILITY)] = False
        layouts.fields[torch.from_numpy(rng.random(layouts.fields.shape) < NULL_PROBABILITY)] = torch.nan
        layouts.domains[torch.from_numpy(rng.random(batch_size) < NULL_PROBABILITY)] = n_domains
        return {"latents": torch.from_numpy(cache.latents[index].astype(np.float32)), **vars(layouts)}

    return batch


def velocity_loss(model: torch.nn.Module, batch: dict[str, torch.Tensor], generator: torch.Generator) -> dict:
    """Flow matching with logit-normal times (Esser et al. 2024, eq. 19); patches under objects weigh more."""
    batch = dict(batch)
    x = batch.pop("latents")
    layouts = LayoutBatch(**batch)
    noise = torch.randn(x.shape, generator=generator, device=x.device)
    sigma = torch.sigmoid(torch.randn(len(x), generator=generator, device=x.device))
    s = sigma[:, None, None, None]
    predicted = model((1 - s) * x + s * noise, sigma * 1000, layouts).float()
    error = velocity_error(predicted, noise, x, sigma).mean(1)  # (B, S, S)
    patch = x.shape[-1] // layouts.coverage.shape[-1]
    covered = layouts.coverage.amax(1).repeat_interleave(patch, 1).repeat_interleave(patch, 2)
    weight = 1 + (FOREGROUND_WEIGHT - 1) * covered
    return {"loss": (weight * error).sum() / weight.sum(), "mse": error.mean()}


def train_whole(
    datasets: list[Dataset],
    classes: list[str],
    vae: AutoencoderDC,
    out: Path,
    settings: TrainSettings,
    size: int = 256,
    copies: int = 4,
    model_settings: dict | None = None,
) -> LayoutUNet:
    """Train on windows of size x size pixels and write the model to `out/model`."""
    torch.manual_seed(settings.seed)
    model = LayoutUNet(
        classes=list(classes),
        domains=[dataset.name or dataset.format for dataset in datasets],
        sample_size=size // vae.spatial_compression_ratio,
        latent_channels=vae.config.latent_channels,
        **(model_settings or {}),
    )
    cache = cache_latents(datasets, vae, classes, size, copies, np.random.default_rng((settings.seed, 1)))
    chosen = np.random.default_rng((settings.seed, 2)).integers(0, len(cache.layouts), 16)
    shown = [cache.layouts[i] for i in chosen]
    shown_batch = layout_batch(shown, [cache.labels[i] for i in chosen], cache.domains[chosen], model.grid)

    @torch.no_grad()
    def evaluate(averaged: torch.nn.Module, step: int, folder: Path) -> None:
        generators = [torch.Generator().manual_seed(i) for i in range(len(shown))]
        sampled = sample_latents(averaged, shown_batch, generators=generators, steps=20, guidance_scale=2.0)
        real = torch.from_numpy(cache.latents[chosen].astype(np.float32))
        rows = []
        for start in (0, 8):
            for stack in (real, sampled.cpu()):
                part = stack[start : start + 8].to(vae.device) / vae.config.scaling_factor
                pictures = to_pixels(vae.decode(part).sample)
                rows.append(np.concatenate([np.asarray(draw(p, shown[start + i])) for i, p in enumerate(pictures)], 1))
        (folder / "samples").mkdir(exist_ok=True)
        Image.fromarray(np.concatenate(rows, 0)).save(folder / "samples" / f"{step:07d}.png")

    batch = make_batch(cache, model.grid, settings.batch_size, len(datasets))
    recipe = f"whole {model_settings_text(model)} size={size} copies={copies} windows={len(cache.layouts)} "
    train(model, batch, velocity_loss, out, settings, recipe, evaluate)
    model.save_pretrained(out / "model")
    return model
