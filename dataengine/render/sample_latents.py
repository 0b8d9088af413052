"""Sampling of latents from the layout model."""

from __future__ import annotations

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from dataengine.render.flow import sample_few
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

    def noise() -> torch.Tensor:
        return torch.stack([torch.randn(shape, generator=g) for g in generators]).to(model.device)

    def velocity(x: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
        with_layout = model(x, times, layouts)
        if guidance_scale == 1.0:
            return with_layout
        without = model(x, times, null)
        return without + guidance_scale * (with_layout - without)

    if few:
        settle = (lambda x: x) if known is None else (lambda x: known.put_back(x, known.clean))
        return sample_few(velocity, noise, steps, settle)
    scheduler = scheduler or FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(sigmas=np.linspace(1.0, 1.0 / steps, steps), device=model.device)
    first = x = noise()
    for k, t in enumerate(scheduler.timesteps):
        x = scheduler.step(velocity(x, t.expand(len(x))).float(), t, x, return_dict=False)[0]
        if known is not None:
            sigma = scheduler.sigmas[k + 1]
            x = known.put_back(x, (1 - sigma) * known.clean + sigma * first)
    return x
