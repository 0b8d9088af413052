"""Training of the whole-image renderer: flow matching on windows of labelled images, in two stages.

The first draws the thumbnail, what lies where; the second the latents, given the thumbnail (cascaded diffusion, Ho et
al. 2022). One stage on latents alone had learned no more than clouds when two stages of the same size, trained side by
side for as long, drew runways (docs/training-log.md).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderDC
from PIL import Image
from rich.progress import track
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from dataengine.data.layout import Dataset, Layout
from dataengine.errors import UserError
from dataengine.layouts.draw import draw
from dataengine.render.flow import velocity_error
from dataengine.render.layout_unet import LayoutBatch, LayoutUNet, layout_batch
from dataengine.render.precision import fast_autocast
from dataengine.render.sample_latents import blurred_by_noise, sample_latents
from dataengine.render.thumbnail import THUMBNAIL_RATIO, thumbnail_pixels, thumbnails_of
from dataengine.train.augment import augmented_window
from dataengine.train.autoencoder import to_pixels
from dataengine.train.loop import TrainSettings, model_settings_text, train

LATENTS_MODEL = {"block_out_channels": (96, 128)}  # what is left to draw is local
NULL_PROBABILITY = 0.1
FOREGROUND_WEIGHT = 2.0
GREY_SPREAD = 8  # of a pixel's channels, that JPEG alone may cause


@dataclass(frozen=True)
class Windows:
    """Windows of real images: pictures float16 (N, C, S, S), the latents or the thumbnails that a model learns to
    draw; thumbnails float16 (N, 3, S, S) where they are its condition; layouts, their labels in the model's
    numbering, and domains int64 (N,)."""

    pictures: np.ndarray
    thumbnails: np.ndarray | None
    layouts: list[Layout]
    labels: list[np.ndarray]
    domains: np.ndarray


@torch.no_grad()
def collect_windows(
    datasets: list[Dataset],
    vae: AutoencoderDC | None,
    classes: list[str],
    size: int,
    copies: int,
    rng: np.random.Generator,
) -> Windows:
    """Cut `copies` augmented windows of each image: thumbnails alone, or latents as well where there is a `vae`.

    Raises UserError when the data sets hold no image.
    """
    number = {name.lower(): i for i, name in enumerate(classes)}
    latents, thumbnails, layouts, labels, domains, pending = [], [], [], [], [], []

    def flush() -> None:
        if not pending:
            return
        x = torch.from_numpy(np.stack(pending)).permute(0, 3, 1, 2) / 127.5 - 1
        thumbnails.append(thumbnails_of(x).half().numpy())
        if vae is not None:
            with fast_autocast(vae.device):
                encoded = vae.encode(x.to(vae.device).contiguous(memory_format=torch.channels_last)).latent
            latents.append((encoded.float() * vae.config.scaling_factor).half().cpu().numpy())
        pending.clear()

    samples = [(d, sample) for d, dataset in enumerate(datasets) for sample in dataset]
    for d, sample in track(samples, "cutting windows"):
        with Image.open(sample.image) as file:
            picture = np.asarray(file.convert("RGB"))
        for _ in range(copies):
            image, layout = augmented_window(picture, sample.layout, size, rng)
            own = np.array([number.get(name.lower(), -1) for name in layout.names()], np.int64)
            pending.append(image), layouts.append(layout.select(own >= 0)), labels.append(own[own >= 0])
            domains.append(d)
            if len(pending) == 32:
                flush()
    flush()
    if not layouts:
        raise UserError("the training data holds no images.")
    small = np.concatenate(thumbnails)
    if vae is None:
        return Windows(small, None, layouts, labels, np.asarray(domains))
    return Windows(np.concatenate(latents), small, layouts, labels, np.asarray(domains))


def make_batch(windows: Windows, grid: int, batch_size: int, n_domains: int):
    """A function rng -> batch of pictures and layout tensors; each condition dropped to its null on its own."""

    def batch(rng: np.random.Generator) -> dict[str, torch.Tensor]:
        index = rng.integers(0, len(windows.layouts), batch_size)
        layouts = layout_batch(
            [windows.layouts[i] for i in index], [windows.labels[i] for i in index], windows.domains[index], grid
        )
        layouts.known[torch.from_numpy(rng.random(batch_size) < NULL_PROBABILITY)] = False
        layouts.fields[torch.from_numpy(rng.random(layouts.fields.shape) < NULL_PROBABILITY)] = torch.nan
        layouts.domains[torch.from_numpy(rng.random(batch_size) < NULL_PROBABILITY)] = n_domains
        tensors = {"pictures": torch.from_numpy(windows.pictures[index].astype(np.float32)), **vars(layouts)}
        if windows.thumbnails is not None:
            tensors["thumbnails"] = torch.from_numpy(windows.thumbnails[index].astype(np.float32))
        return tensors

    return batch


def velocity_loss(model: torch.nn.Module, batch: dict[str, torch.Tensor], generator: torch.Generator) -> dict:
    """Flow matching with logit-normal times (Esser et al. 2024, eq. 19); patches under objects weigh more."""
    batch = dict(batch)
    x, thumbnails = batch.pop("pictures"), batch.pop("thumbnails", None)
    layouts = LayoutBatch(**batch)
    if thumbnails is not None:
        thumbnails = blurred_by_noise(thumbnails, torch.randn(thumbnails.shape, generator=generator, device=x.device))
    noise = torch.randn(x.shape, generator=generator, device=x.device)
    sigma = torch.sigmoid(torch.randn(len(x), generator=generator, device=x.device))
    s = sigma[:, None, None, None]
    # the backward pass of flash attention is slow on CPUs: 45 images/s against 63
    with sdpa_kernel(SDPBackend.MATH) if x.device.type == "cpu" else nullcontext():
        predicted = model((1 - s) * x + s * noise, sigma * 1000, layouts, thumbnails).float()
    error = velocity_error(predicted, noise, x, sigma).mean(1)  # (B, S, S)
    patch = x.shape[-1] // layouts.coverage.shape[-1]
    covered = F.interpolate(layouts.coverage.amax(1, keepdim=True), scale_factor=patch)[:, 0]
    weight = 1 + (FOREGROUND_WEIGHT - 1) * covered
    return {"loss": (weight * error).sum() / weight.sum(), "mse": error.mean()}


def _train(
    model: LayoutUNet,
    windows: Windows,
    to_images: Callable[[torch.Tensor], np.ndarray],
    out: Path,
    settings: TrainSettings,
    recipe: str,
) -> LayoutUNet:
    """Train one stage; sample grids show real windows above drawn ones. `to_images` decodes pictures (B, C, S, S)."""
    chosen = np.random.default_rng((settings.seed, 2)).integers(0, len(windows.layouts), 16)
    shown = [windows.layouts[i] for i in chosen]
    layouts = layout_batch(shown, [windows.labels[i] for i in chosen], windows.domains[chosen], model.grid)
    real = torch.from_numpy(windows.pictures[chosen].astype(np.float32))
    thumbnails = None
    if windows.thumbnails is not None:
        thumbnails = torch.from_numpy(windows.thumbnails[chosen].astype(np.float32))

    @torch.no_grad()
    def evaluate(averaged: torch.nn.Module, step: int, folder: Path) -> None:
        generators = [torch.Generator().manual_seed(i) for i in range(len(shown))]
        drawn = sample_latents(averaged, layouts, thumbnails, generators=generators, guidance_scale=2.0).cpu()
        rows = []
        for start in (0, 8):
            for stack in (real, drawn):
                images = to_images(stack[start : start + 8])
                boxed = [np.asarray(draw(image, shown[start + i])) for i, image in enumerate(images)]
                rows.append(np.concatenate(boxed, 1))
        (folder / "samples").mkdir(exist_ok=True)
        Image.fromarray(np.concatenate(rows, 0)).save(folder / "samples" / f"{step:07d}.png")

    batch = make_batch(windows, model.grid, settings.batch_size, len(model.config.domains))
    recipe = f"{recipe} {model_settings_text(model)} windows={len(windows.layouts)} "
    train(model, batch, velocity_loss, out, settings, recipe, evaluate)
    model.save_pretrained(out / "model")
    return model


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
    return [dataset.name or dataset.format for dataset in datasets]


def train_thumbnails(
    datasets: list[Dataset],
    classes: list[str],
    out: Path,
    settings: TrainSettings,
    size: int = 256,
    copies: int = 4,
    model_settings: dict | None = None,
) -> LayoutUNet:
    """The first stage: thumbnails of windows of size x size pixels. The model is written to `out/model`."""
    torch.manual_seed(settings.seed)
    model = LayoutUNet(
        list(classes), _domains(datasets), sample_size=size // THUMBNAIL_RATIO, latent_channels=3,
        **(model_settings or {}),
    )  # fmt: skip
    windows = collect_windows(datasets, None, classes, size, copies, np.random.default_rng((settings.seed, 1)))

    def to_images(thumbnails: torch.Tensor) -> np.ndarray:
        return to_pixels(F.interpolate(thumbnail_pixels(thumbnails), scale_factor=THUMBNAIL_RATIO))

    return _train(model, windows, to_images, out, settings, f"thumbnails size={size} copies={copies}")


def train_latents(
    datasets: list[Dataset],
    classes: list[str],
    vae: AutoencoderDC,
    out: Path,
    settings: TrainSettings,
    size: int = 256,
    copies: int = 4,
    model_settings: dict | None = None,
) -> LayoutUNet:
    """The second stage: latents of such windows given their thumbnails. The model is written to `out/model`.

    Raises UserError for an autoencoder whose latents are not of the thumbnails' size.
    """
    if vae.spatial_compression_ratio != THUMBNAIL_RATIO:
        raise UserError(
            f"the autoencoder shrinks pictures {vae.spatial_compression_ratio} times; the whole-image renderer needs "
            f"one that shrinks them {THUMBNAIL_RATIO} times, as dataengine train autoencoder makes."
        )
    torch.manual_seed(settings.seed)
    model = LayoutUNet(
        list(classes), _domains(datasets), sample_size=size // THUMBNAIL_RATIO,
        latent_channels=vae.config.latent_channels, thumbnail_channels=3, **(LATENTS_MODEL | (model_settings or {})),
    )  # fmt: skip
    windows = collect_windows(datasets, vae, classes, size, copies, np.random.default_rng((settings.seed, 1)))

    def to_images(latents: torch.Tensor) -> np.ndarray:
        return to_pixels(vae.decode(latents.to(vae.device) / vae.config.scaling_factor).sample)

    return _train(model, windows, to_images, out, settings, f"latents size={size} copies={copies}")
