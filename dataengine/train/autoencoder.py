"""Training of the small autoencoder between pixels and latents."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderDC
from PIL import Image
from torch.nn import functional as F

from dataengine.data.layout import Dataset
from dataengine.errors import UserError
from dataengine.train.loop import TrainSettings, model_settings_text, train

# 8 times smaller on each side, 8 channels: 24 numbers of a picture become one. The first stage works at half
# resolution already (its layer count is 0), which is where a CPU would spend most of its time.
DEFAULT_MODEL = {
    "latent_channels": 8,
    "encoder_block_out_channels": (32, 32, 64, 128),
    "decoder_block_out_channels": (32, 32, 64, 128),
    "encoder_layers_per_block": (0, 1, 1, 2),
    "decoder_layers_per_block": (0, 1, 2, 4),
    "encoder_qkv_multiscales": ((),) * 4,
    "decoder_qkv_multiscales": ((),) * 4,
}
CROPS_OF_EACH = 4  # decoding a picture costs more than cropping it
LATENT_NOISE = 0.1  # of the latents' own spread: the decoder must bear what a denoiser leaves over
LATENT_PENALTY = 2e-3
COLOUR_WEIGHT = 20.0


def random_crops(datasets: list[Dataset], crop: int, batch_size: int):
    """A function rng -> {"images": float32 (B, 3, crop, crop) in [-1, 1]}; crops are flipped and turned by quarters.

    Raises UserError when no image is as large as the crop.
    """
    samples = [s for dataset in datasets for s in dataset if min(s.layout.size) >= crop]
    if not samples:
        raise UserError(
            f"no image of the training data is at least {crop} pixels wide and high; give a smaller --crop."
        )

    def batch(rng: np.random.Generator) -> dict[str, torch.Tensor]:
        crops = []
        for i in rng.integers(0, len(samples), -(-batch_size // CROPS_OF_EACH)):
            with Image.open(samples[i].image) as file:
                picture = np.asarray(file.convert("RGB"))
            for _ in range(CROPS_OF_EACH):
                y, x = (rng.integers(0, side - crop + 1) for side in picture.shape[:2])
                crops.append(np.rot90(picture[y : y + crop, x : x + crop], rng.integers(4))[:, :: rng.choice((1, -1))])
        images = np.stack(crops[:batch_size]).astype(np.float32) / 127.5 - 1
        return {"images": torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()}

    return batch


def reconstruction_loss(model: torch.nn.Module, batch: dict[str, torch.Tensor], generator: torch.Generator) -> dict:
    """L1 over the picture; over the differences between neighbouring pixels at three scales, which keep edges sharp;
    the square of what differs in colour, which is faint in aerial pictures and under L1 alone stays grey; and a small
    penalty that holds the latents at order one."""
    images = batch["images"]
    latents = model.encode(images).latent.float()
    noise = torch.randn(latents.shape, generator=generator, device=latents.device)
    decoded = model.decode(latents + LATENT_NOISE * latents.detach().std() * noise).sample.float()
    l1 = F.l1_loss(decoded, images)
    edges, a, b = 0.0, decoded, images
    for _ in range(3):
        for axis in (2, 3):
            edges = edges + F.l1_loss(a.diff(dim=axis), b.diff(dim=axis))
        a, b = F.avg_pool2d(a, 2), F.avg_pool2d(b, 2)
    colour = F.mse_loss(decoded - decoded.mean(1, keepdim=True), images - images.mean(1, keepdim=True))
    penalty = latents.pow(2).mean()
    return {
        "loss": l1 + 0.5 * edges + COLOUR_WEIGHT * colour + LATENT_PENALTY * penalty,
        "l1": l1,
        "latent_square": penalty,
    }


def train_autoencoder(
    datasets: list[Dataset], out: Path, settings: TrainSettings, crop: int = 128, model_settings: dict | None = None
) -> AutoencoderDC:
    """Train on random crops and write the model to `out/model`. Its `scaling_factor` brings latents to unit spread."""
    torch.manual_seed(settings.seed)
    model = AutoencoderDC(**(DEFAULT_MODEL | (model_settings or {})))
    if settings.compile:  # the loss calls both halves on their own
        model.encoder.compile()
        model.decoder.compile()
    batch = random_crops(datasets, crop, settings.batch_size)
    shown = random_crops(datasets, crop, 8)(np.random.default_rng((settings.seed, 2)))["images"]

    @torch.no_grad()
    def evaluate(averaged: torch.nn.Module, step: int, folder: Path) -> None:
        decoded = averaged.decode(averaged.encode(shown).latent).sample
        rows = [np.concatenate(list(to_pixels(stack)), 1) for stack in (shown, decoded)]
        (folder / "samples").mkdir(exist_ok=True)
        Image.fromarray(np.concatenate(rows, 0)).save(folder / "samples" / f"{step:07d}.png")

    recipe = f"autoencoder {model_settings_text(model)} crop={crop} images={sum(map(len, datasets))} "
    train(model, batch, reconstruction_loss, out, settings, recipe, evaluate)
    with torch.no_grad():
        rngs = [np.random.default_rng((settings.seed, 3, i)) for i in range(8)]
        latents = [model.encode(batch(rng)["images"].to(model.device)).latent.flatten() for rng in rngs]
    spread = torch.cat(latents).std()
    model.register_to_config(scaling_factor=1.0 / float(spread))
    model.save_pretrained(out / "model")
    return model


def to_pixels(images: torch.Tensor) -> np.ndarray:
    """(B, 3, H, W) in [-1, 1] -> uint8 (B, H, W, 3)."""
    return ((images.float() + 1) * 127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1).cpu().numpy()
