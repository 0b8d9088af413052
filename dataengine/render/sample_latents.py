"""Sampling of thumbnails and of latents from the layout models."""

from __future__ import annotations

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from dataengine.render.layout_unet import LayoutBatch, LayoutUNet

THUMBNAIL_NOISE = 0.15  # what the second stage is trained to overlook in a drawn thumbnail (Ho et al. 2022, section 4)


def blurred_by_noise(thumbnails: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """Thumbnails (B, 3, S, S) as the second stage sees them, in training and in use: with a little noise."""
    return thumbnails + THUMBNAIL_NOISE * noise


@torch.no_grad()
def sample_latents(
    model: LayoutUNet,
    layouts: LayoutBatch,
    thumbnails: torch.Tensor | None = None,
    *,
    generators: list[torch.Generator],
    steps: int = 20,
    guidance_scale: float = 1.0,
    scheduler: FlowMatchEulerDiscreteScheduler | None = None,
) -> torch.Tensor:
    """Latents (B, C, S, S), float32, or thumbnails, whichever the model draws; `thumbnails` (B, 3, S, S) are the
    condition of a model that needs them. Image i draws its noise from generators[i] alone (CPU; contract 4).

    Guidance on the layout: `null + guidance_scale * (layout - null)`, where only the boxes are nulled.
    """
    scheduler = scheduler or FlowMatchEulerDiscreteScheduler()
    config = model.config
    shape = (config.latent_channels, config.sample_size, config.sample_size)
    scheduler.set_timesteps(sigmas=np.linspace(1.0, 1.0 / steps, steps), device=model.device)
    x = torch.stack([torch.randn(shape, generator=g) for g in generators]).to(model.device)
    if thumbnails is not None:
        noise = torch.stack([torch.randn(thumbnails.shape[1:], generator=g) for g in generators])
        thumbnails = blurred_by_noise(thumbnails.to(model.device), noise.to(model.device))
    layouts = layouts.to(model.device)
    null = LayoutBatch(**(vars(layouts) | {"known": torch.zeros_like(layouts.known)}))
    for t in scheduler.timesteps:
        times = t.expand(len(x))
        velocity = model(x, times, layouts, thumbnails)
        if guidance_scale != 1.0:
            without = model(x, times, null, thumbnails)
            velocity = without + guidance_scale * (velocity - without)
        x = scheduler.step(velocity.float(), t, x, return_dict=False)[0]
    return x
