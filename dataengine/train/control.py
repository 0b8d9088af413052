"""Training of a side network that makes the ground follow a map; the renderer stays as it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from diffusers import ControlNetModel, DDPMScheduler
from PIL import Image
from torch import nn

from dataengine.data.layout import Acquisition, Layout
from dataengine.errors import UserError
from dataengine.maps.grid import check_gsd
from dataengine.maps.ground import Ground
from dataengine.maps.pairs import Pair, Pairs
from dataengine.maps.raster import n_channels, picture
from dataengine.render.control import Control, ControlInput, condition_of, condition_side, new_control, save_input
from dataengine.render.layout_batch import LayoutBatch
from dataengine.render.layout_unet import LayoutUNet, sample_latents
from dataengine.render.text import encode_prompts
from dataengine.render.thumbnail_decoder import thumbnail_pixels, thumbnails_of
from dataengine.train.decoder import to_pixels
from dataengine.train.flow_loss import Batch, Example, flow_loss
from dataengine.train.latents import snr_weight
from dataengine.train.loop import TrainSettings, model_settings_text, save_once, save_samples, train

KEEP_DIRECTION = 0.5  # chance that a pair is not mirrored, of each axis
NULL_TEXT = 0.1
PROMPT = "an aerial image"
SHOWN = 8


class Controlled(nn.Module):
    """A renderer's denoiser, which stays as it is, with the side network that is trained."""

    def __init__(self, denoiser: LayoutUNet, control: ControlNetModel):
        super().__init__()
        self.denoiser, self.control = denoiser.eval().requires_grad_(False), control

    def forward(self, latents, timesteps, batch: LayoutBatch, condition: torch.Tensor, text=None) -> torch.Tensor:
        """As `LayoutUNet.forward`; condition (B, C, H, W)."""
        return self.denoiser(latents, timesteps, batch, text, control=Control(self.control, condition))


def mirrored(image: np.ndarray, channels: np.ndarray, across: bool, down: bool) -> tuple[np.ndarray, np.ndarray]:
    """An image (H, W, 3) and the channels of its map (C, H, W), mirrored along one or both axes. The last channel,
    sin 2a, changes its sign with each mirroring: a line at angle a is then at -a.

    >>> image, channels = np.zeros((2, 2, 3)), np.arange(12.0).reshape(3, 2, 2)
    >>> mirrored(image, channels, True, False)[1][:, 0].tolist()
    [[1.0, 0.0], [5.0, 4.0], [-9.0, -8.0]]
    """
    for turned, axis in ((across, 1), (down, 0)):
        if turned:
            image, channels = np.flip(image, axis), np.flip(channels, axis + 1).copy()
            channels[-1] *= -1
    return np.ascontiguousarray(image), np.ascontiguousarray(channels)


def make_batch(model: LayoutUNet, pairs: Pairs, chosen: list[Pair], batch_size: int):
    """A function rng -> batch of images, conditions and unknown layouts with the pairs' acquisition."""
    side, cache = condition_side(model), {}

    def loaded(pair: Pair) -> tuple[np.ndarray, np.ndarray]:
        if pair.name not in cache:
            cache[pair.name] = pairs.image(pair), condition_of(pairs.raster(pair), side).astype(np.float16)
        return cache[pair.name]

    def batch(rng: np.random.Generator) -> Batch:
        of_batch = [chosen[i] for i in rng.integers(0, len(chosen), batch_size)]
        turns = rng.random((batch_size, 2)) >= KEEP_DIRECTION
        parts = [mirrored(*loaded(pair), *turn) for pair, turn in zip(of_batch, turns, strict=True)]
        pixels = torch.from_numpy(np.stack([image for image, _ in parts])).permute(0, 3, 1, 2).float() / 127.5 - 1
        conditions = torch.from_numpy(np.stack([condition for _, condition in parts]).astype(np.float32))
        null = torch.from_numpy(rng.random(batch_size) < NULL_TEXT)
        return {"pixels": pixels, "condition": conditions, "null_text": null,
                **vars(unknown_layouts(model, of_batch, pairs.size))}  # fmt: skip

    return batch


def unknown_layouts(model: LayoutUNet, pairs: list[Pair], size: int) -> LayoutBatch:
    """Layouts of which only the acquisition is known: nobody labelled the objects of these images."""
    none = np.zeros((0, 5), np.float32)
    acquisitions = [Acquisition(gsd_m=p.gsd_m, longitude_deg=p.lon, latitude_deg=p.lat) for p in pairs]
    layouts = [Layout(none, [], tuple(model.config.classes), (size, size), acquisition=a) for a in acquisitions]
    return model.layout_batch(layouts, [layout.labels for layout in layouts]).unknown()


def thumbnail_example(batch: Batch, generator: torch.Generator) -> Example:
    """Thumbnails, with unknown layouts and the map as conditions."""
    batch = dict(batch)
    x, condition = thumbnails_of(batch.pop("pixels")), batch.pop("condition")
    batch.pop("null_text")
    return Example(x, (LayoutBatch(**batch), condition), torch.ones_like(x[:, :1]))


def latent_loss(pipeline, snr_gamma: float = 5.0) -> Callable:
    """Mean squared error of the predicted noise, weighted by min-SNR."""
    scheduler = DDPMScheduler.from_config(pipeline.scheduler.config)
    text = encode_prompts([PROMPT, ""], pipeline.tokenizer, pipeline.text_encoder)

    def loss(model: Controlled, batch: Batch, generator: torch.Generator) -> dict:
        batch = dict(batch)
        pixels, condition, null = (batch.pop(name) for name in ("pixels", "condition", "null_text"))
        with torch.no_grad():
            posterior = pipeline.vae.encode(pixels).latent_dist
            latents = posterior.sample(generator) * pipeline.vae.config.scaling_factor
        noise = torch.randn(latents.shape, generator=generator, device=latents.device)
        n = scheduler.config.num_train_timesteps
        timesteps = torch.randint(0, n, (len(latents),), generator=generator, device=latents.device)
        noisy = scheduler.add_noise(latents, noise, timesteps)
        prompts = text.to(latents.device)[null.long()]
        predicted = model(noisy, timesteps, LayoutBatch(**batch), condition, prompts).float()
        error = (predicted - noise).square().mean((1, 2, 3))
        return {"loss": (error * snr_weight(scheduler, timesteps, snr_gamma)).mean(), "mse": error.mean()}

    return loss


def show_pairs(
    pipeline, control: ControlNetModel, pairs: Pairs, chosen: list[Pair], ground: Ground, step: int, folder: Path
) -> None:
    """Write `folder/samples/STEP.png`: rows of maps, real images, and images of the same maps (thumbnails)."""
    model, few = pipeline.unet, pipeline.config.few_steps
    shown = chosen[:SHOWN]
    rasters = [pairs.raster(pair) for pair in shown]
    condition = torch.from_numpy(np.stack([condition_of(raster, condition_side(model)) for raster in rasters]))
    layouts = unknown_layouts(model, shown, pairs.size)
    generators = [torch.Generator().manual_seed(i) for i in range(len(shown))]
    made = sample_latents(model, layouts, generators=generators, control=Control(control, condition),
                          steps=few or 20, few=bool(few))  # fmt: skip
    rows = [
        np.concatenate([picture(raster, ground) for raster in rasters], 1),
        np.concatenate([pairs.image(pair) for pair in shown], 1),
        np.concatenate(list(to_pixels(thumbnail_pixels(made.cpu()))), 1),
    ]
    save_samples(Image.fromarray(np.concatenate(rows)), folder, step)


def train_control(pipeline, pairs: Pairs, ground: Ground, out: Path, settings: TrainSettings, trained_gsd=None):
    """Train a side network of a whole-image renderer on pairs, and write it to `out/control`; returns it.

    pipeline: `LayoutPipeline` or `LatentPipeline`. trained_gsd: metres per pixel of its own training, None if unknown.
    Raises UserError for pairs of another size or scale, or with another table of classes.
    """
    if pairs.size != pipeline.size:
        raise UserError(
            f"{pairs.folder}: pairs of {pairs.size} px, and the renderer makes {pipeline.size} px; make them with "
            f"dataengine data pairs --size {pipeline.size}."
        )
    if pairs.classes != ground.names:
        raise UserError(f"{pairs.folder}: made with another table of classes; make the pairs again.")
    for gsd_m in pairs.gsd_m:
        check_gsd(gsd_m, trained_gsd, str(pairs.folder))
    chosen = pairs.of("train")
    if not chosen:
        raise UserError(f"{pairs.folder}: has no pair to train on; give more images, or a smaller --val-share.")
    torch.manual_seed(settings.seed)
    denoiser, latent = pipeline.unet, hasattr(pipeline, "vae")
    model = Controlled(denoiser, new_control(denoiser, n_channels(pairs.classes)))
    evaluate = None
    if latent:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        pipeline.vae.to(device), pipeline.text_encoder.to(device)
        loss = latent_loss(pipeline)
    else:
        loss = flow_loss(thumbnail_example)
        held_out = pairs.of("val") or chosen

        def evaluate(_, step: int, folder: Path) -> None:
            show_pairs(pipeline, model.control, pairs, held_out, ground, step, folder)

    weights = float(sum(p.double().abs().sum() for p in denoiser.parameters()))
    recipe = f"control {model_settings_text(denoiser)} base={weights:.6f} pairs={len(chosen)} size={pairs.size} "
    train(model, make_batch(denoiser, pairs, chosen, settings.batch_size), loss, out, settings, recipe, evaluate)
    save_once(model.control, out / "control")
    save_input(out / "control", ControlInput(classes=pairs.classes, gsd_m=pairs.gsd_m))
    return model.control
