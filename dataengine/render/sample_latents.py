"""Sampling of latents from the layout model."""

from __future__ import annotations

import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from dataengine.render.flow import draw_noise, sample
from dataengine.render.inpaint import Known
from dataengine.render.layout_batch import LayoutBatch
from dataengine.render.layout_unet import LayoutUNet


@torch.no_grad()
def sample_latents(
    model: LayoutUNet,
    layouts: LayoutBatch,
    *,
    generators: list[torch.Generator],
    steps: int = 20,
    guidance_scale: float = 1.0,
    null: LayoutBatch | None = None,
    scheduler: FlowMatchEulerDiscreteScheduler | None = None,
    known: Known | None = None,
    few: bool = False,
) -> torch.Tensor:
    """Latents (B, C, S, S), float32. Image i draws its noise from generators[i] alone (CPU; contract 4).

    Guidance: `null + guidance_scale * (layout - null)`, where in null, unless it is given, only the boxes are unknown.
    known: latents that are to stay as they are outside a mask. few: for a model that was trained to need so few steps
    (`flow.sample_few`).
    """
    config = model.config
    shape = (config.latent_channels, config.sample_size, config.sample_size)
    layouts = layouts.to(model.device)
    null = layouts.unknown() if null is None else null.to(model.device)

    noise = draw_noise(generators, shape, model.device)

    def velocity(x: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
        with_layout = model(x, times, layouts)
        if guidance_scale == 1.0:
            return with_layout
        without = model(x, times, null)
        return without + guidance_scale * (with_layout - without)

    return sample(velocity, noise, steps, few=few, scheduler=scheduler, known=known)
