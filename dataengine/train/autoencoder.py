"""Training of the autoencoder: its encoder matches a teacher's latents, its decoder reconstructs the pixels.

The teacher is a pretrained encoder whose latents are known to be easy to learn. Its latents of a window are computed
when the window is first sampled, and cached in a file.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

from dataengine.data.images import measure, rgb
from dataengine.errors import UserError
from dataengine.imagenet import ImageNetFeatures
from dataengine.render.autoencoder import LATENT_RATIO, Autoencoder
from dataengine.train.decoder import to_pixels
from dataengine.train.loop import TrainSettings, model_settings_text, save_once, save_samples, train
from dataengine.train.warm_start import copy_weights

WINDOW_PX = 256  # side of the windows that the teacher encodes
EDGE_PX = 16  # margin of a window that crops avoid, since the teacher's zero padding affects it
MAX_WINDOWS = 4000  # the teacher takes half a core-second for each
LATENT_WEIGHT = 0.5
FEATURE_WEIGHT = 0.5
FEATURE_STAGES = 3  # maps at 1/2, 1/4 and 1/8 of the side

Teacher = Callable[[torch.Tensor], torch.Tensor]  # (B, 3, H, W) in [-1, 1] -> (B, C, H / 8, W / 8)


@dataclass(frozen=True)
class Window:
    """A square part of an image file, WINDOW_PX wide."""

    file: Path
    left: int
    top: int

    def pixels(self) -> np.ndarray:
        """uint8 (WINDOW_PX, WINDOW_PX, 3)."""
        pixels = rgb(self.file)
        return pixels[self.top : self.top + WINDOW_PX, self.left : self.left + WINDOW_PX].copy()


def windows_of(file: Path) -> list[Window]:
    """Windows that cover an image file, overlapping where necessary; none if the image is smaller than a window."""
    size = measure(file)
    if min(size) < WINDOW_PX:
        return []
    lefts, tops = (np.linspace(0, side - WINDOW_PX, -(-side // WINDOW_PX)).astype(int).tolist() for side in size)
    return [Window(file, left, top) for top in tops for left in lefts]


def mixed_windows(sources: Sequence[Sequence[Path]], shares: Sequence[float], seed: int) -> list[Window]:
    """At most MAX_WINDOWS windows of the sources' images, in random order by seed; each source has about its share
    until its windows run out."""
    rng = np.random.default_rng(seed)
    keyed = []
    for files, share in zip(sources, shares, strict=True):
        windows = [window for file in files for window in windows_of(file)]
        ranks = rng.permutation(len(windows)) + rng.random(len(windows))
        keyed += [(rank / share, window) for rank, window in zip(ranks, windows, strict=True)]
    return [window for _, window in sorted(keyed, key=lambda pair: pair[0])[:MAX_WINDOWS]]


class LatentCache:
    """A teacher's latents of windows, computed once and stored as fp16 in a file."""

    def __init__(self, windows: Sequence[Window], teacher: Teacher, folder: Path, channels: int):
        folder.mkdir(parents=True, exist_ok=True)
        side = WINDOW_PX // LATENT_RATIO
        self.windows, self.teacher = windows, teacher
        self.latents = _open_array(folder / "latents.npy", np.float16, (len(windows), channels, side, side))
        self.known = _open_array(folder / "known.npy", np.bool_, (len(windows),))

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Pixels uint8 (WINDOW_PX, WINDOW_PX, 3) and latents (C, h, w) of window `index`."""
        pixels = self.windows[index].pixels()
        if not self.known[index]:
            with torch.no_grad():
                self.latents[index] = self.teacher(_as_images(pixels[None]))[0].numpy()
            self.known[index] = True  # after the latents, so that a killed process leaves none half written
        return pixels, self.latents[index]


def _open_array(file: Path, dtype: type, shape: tuple[int, ...]) -> np.memmap:
    array = np.lib.format.open_memmap(file, "r+") if file.exists() else None
    if array is not None and array.shape == shape:
        return array
    return np.lib.format.open_memmap(file, "w+", dtype, shape)  # zeros, sparse on disk


def _as_images(pixels: np.ndarray) -> torch.Tensor:
    """uint8 (B, H, W, 3) -> float32 (B, 3, H, W) in [-1, 1]."""
    return torch.from_numpy(pixels.astype(np.float32) / 127.5 - 1).permute(0, 3, 1, 2)


def random_crops(cache: LatentCache, crop: int, batch_size: int):
    """A function rng -> {"images": (B, 3, crop, crop) in [-1, 1], "latents": (B, C, crop / 8, crop / 8)}."""
    positions = (WINDOW_PX - 2 * EDGE_PX - crop) // LATENT_RATIO
    assert positions >= 0, "crops are smaller than windows"

    def batch(rng: np.random.Generator) -> dict[str, torch.Tensor]:
        images, latents = [], []
        for index in rng.integers(len(cache.windows), size=batch_size):
            pixels, known = cache[index]
            y, x = EDGE_PX + LATENT_RATIO * rng.integers(positions + 1, size=2)
            images.append(pixels[y : y + crop, x : x + crop])
            y, x, side = y // LATENT_RATIO, x // LATENT_RATIO, crop // LATENT_RATIO
            latents.append(known[:, y : y + side, x : x + side].astype(np.float32))
        return {"images": _as_images(np.stack(images)).contiguous(), "latents": torch.from_numpy(np.stack(latents))}

    return batch


def autoencoder_loss(features: ImageNetFeatures):
    """Squared error of the latents to the teacher's, and absolute errors of pixels and of ImageNet features; features
    keep textures sharp that pixel errors alone would blur (Johnson et al. 2016, section 3.2)."""

    def loss(model: torch.nn.Module, batch: dict[str, torch.Tensor], _: torch.Generator) -> dict[str, torch.Tensor]:
        x, target = batch["images"].contiguous(memory_format=torch.channels_last), batch["latents"]
        latents, decoded = model(x)
        with torch.no_grad():
            real = features(x)[:FEATURE_STAGES]
        reconstructed = features(decoded)[:FEATURE_STAGES]
        terms = {
            "latents": F.mse_loss(latents.float(), target) / target.var(),
            "pixels": F.l1_loss(decoded.float(), x) / x.std(),
            "features": sum(
                F.l1_loss(a.float(), b.float()) / b.float().abs().mean()
                for a, b in zip(reconstructed, real, strict=True)
            ),
        }
        total = terms["pixels"] + LATENT_WEIGHT * terms["latents"] + FEATURE_WEIGHT * terms["features"]
        return {"loss": total} | terms

    return loss


@torch.no_grad()
def reconstruction(model: Autoencoder, images: Sequence[np.ndarray]) -> dict[str, float]:
    """Quality of reconstructed images uint8 (H, W, 3): mean PSNR in dB, and mean gradient as a share of the input's."""
    psnr, gradients = [], []
    for image in images:
        decoded = to_pixels(model(_as_images(image[None]).to(model.device))[1])[0].astype(np.float32)
        real = image.astype(np.float32)
        psnr.append(10 * np.log10(255**2 / max(((decoded - real) ** 2).mean(), 1e-6)))
        slopes = [np.abs(np.diff(a, axis=0)).mean() + np.abs(np.diff(a, axis=1)).mean() for a in (decoded, real)]
        gradients.append(slopes[0] / max(slopes[1], 1e-6))
    return {"psnr_db": float(np.mean(psnr)), "gradient_share": float(np.mean(gradients))}


def show_reconstructions(held_out: dict[str, list[np.ndarray]], model: Autoencoder, step: int, folder: Path) -> None:
    """Print `reconstruction` of each source's images, and write `folder/samples/STEP.png`: images above
    reconstructions."""
    rows = []
    for name, images in held_out.items():
        figures = reconstruction(model, images)
        print(f"step {step}, {name}: {figures['psnr_db']:.2f} dB, gradient {figures['gradient_share']:.3f}", flush=True)
        with torch.no_grad():
            decoded = [to_pixels(model(_as_images(i[None]).to(model.device))[1])[0] for i in images[:6]]
        rows += [np.concatenate(images[:6], 1), np.concatenate(decoded, 1)]
    width = max(row.shape[1] for row in rows)
    rows = [np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0))) for row in rows]
    save_samples(Image.fromarray(np.concatenate(rows)), folder, step)


def train_autoencoder(
    sources: dict[str, Sequence[Path]],
    shares: dict[str, float],
    held_out: dict[str, list[np.ndarray]],
    teacher: Teacher,
    out: Path,
    settings: TrainSettings,
    crop: int = 128,
    model_settings: dict | None = None,
    start: Autoencoder | None = None,
) -> Autoencoder:
    """Train on crops of the sources' images, each source with its share, and write the model to `out/model`.

    start: weights to start from; a checkpoint in `out` takes precedence.
    held_out: windows uint8 (WINDOW_PX, WINDOW_PX, 3) by source, for `show_reconstructions`. Raises UserError when no
    image is as large as a window.
    """
    torch.manual_seed(settings.seed)
    model = Autoencoder(**(model_settings or {}))
    if start is not None:
        copy_weights(model, start)
    windows = mixed_windows(list(sources.values()), [shares[name] for name in sources], settings.seed)
    if not windows:
        raise UserError(f"no image of the training data is at least {WINDOW_PX} pixels wide and high.")
    cache = LatentCache(windows, teacher, out / "latents", model.config.latent_channels)
    recipe = (
        f"autoencoder {model_settings_text(model)} crop={crop} windows={len(windows)} shares={sorted(shares.items())} "
    )
    loss = autoencoder_loss(ImageNetFeatures())

    def show(averaged: Autoencoder, step: int, folder: Path) -> None:
        show_reconstructions(held_out, averaged, step, folder)

    train(model, random_crops(cache, crop, settings.batch_size), loss, out, settings, recipe, show)
    save_once(model, out / "model")
    return model
