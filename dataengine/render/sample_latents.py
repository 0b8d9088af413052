"""Sampling of latents from the layout model."""

from __future__ import annotations

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

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
) -> torch.Tensor:
    """Latents (B, C, S, S), float32. Image i draws its noise from generators[i] alone (CPU; contract 4).

    Guidance: `null + guidance_scale * (layout - null)`, where in null, unless it is given, only the boxes are unknown.
    known: latents that are to stay as they are outside a mask.
    """
    scheduler = scheduler or FlowMatchEulerDiscreteScheduler()
    config = model.config
    shape = (config.latent_channels, config.sample_size, config.sample_size)
    scheduler.set_timesteps(sigmas=np.linspace(1.0, 1.0 / steps, steps), device=model.device)
    noise = x = torch.stack([torch.randn(shape, generator=g) for g in generators]).to(model.device)
    layouts = layouts.to(model.device)
    null = layouts.unknown() if null is None else null.to(model.device)
    for k, t in enumerate(scheduler.timesteps):
        times = t.expand(len(x))
        velocity = model(x, times, layouts)
        if guidance_scale != 1.0:
            without = model(x, times, null)
            velocity = without + guidance_scale * (velocity - without)
        x = scheduler.step(velocity.float(), t, x, return_dict=False)[0]
        if known is not None:
            sigma = scheduler.sigmas[k + 1]
            x = known.put_back(x, (1 - sigma) * known.clean + sigma * noise)
    return x
