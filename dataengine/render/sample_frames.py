"""Sampling of object frames from the in-scene model."""

from __future__ import annotations

import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from dataengine.render.flow import Start, draw_noise, sample
from dataengine.render.in_scene import InSceneUNet


@torch.no_grad()
def sample_frames(
    model: InSceneUNet,
    surroundings: torch.Tensor,
    hole: torch.Tensor,
    box: torch.Tensor,
    labels: torch.Tensor,
    fields: torch.Tensor,
    *,
    generators: list[torch.Generator],
    steps: int = 12,
    guidance_scale: float = 1.0,
    scheduler: FlowMatchEulerDiscreteScheduler | None = None,
    few: bool = False,
    start: Start | None = None,
) -> torch.Tensor:
    """Paint B frames; returns (B, 3, F, F) float32 in about [-1, 1].

    Frame i draws its noise from generators[i] alone (CPU), so it does not depend on its batch (contract 4).
    Guidance is `null + guidance_scale * (class - null)` on the class label; 1 needs a single pass. few: for a model
    that was trained to need so few steps (`flow.sample_few`). start: frames to begin from.
    """
    size = model.config.frame_size

    noise = draw_noise(generators, (3, size, size), surroundings.device)

    def velocity(x: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
        with_class = model(x, times, surroundings, hole, box, labels, fields)
        if guidance_scale == 1.0:
            return with_class
        null = model(x, times, surroundings, hole, box, torch.full_like(labels, model.null), fields)
        return null + guidance_scale * (with_class - null)

    return sample(velocity, noise, steps, few=few, scheduler=scheduler, start=start)
