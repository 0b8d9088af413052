"""Flow matching, and its distillation into fewer steps: one loss for every model of pictures here."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from dataengine.render.flow import velocity_error

Batch = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Example:
    """A batch as a model learns from it: clean (B, C, H, W); `model(noisy, timesteps, *conditions)` is its velocity;
    weight (B, 1, H, W) of each pixel's error; null: the conditions without the one that is guided, if any."""

    clean: torch.Tensor
    conditions: tuple
    weight: torch.Tensor
    null: tuple | None = None


Data = Callable[[Batch, torch.Generator], Example]
Loss = Callable[[torch.nn.Module, Batch, torch.Generator], dict[str, torch.Tensor]]


def flow_loss(data: Data, logit_mean: float = 0.0, logit_spread: float = 1.0) -> Loss:
    """Flow matching (Lipman et al. 2023) with logit-normal noise shares (Esser et al. 2024, eq. 19)."""

    def loss(model: torch.nn.Module, batch: Batch, generator: torch.Generator) -> dict[str, torch.Tensor]:
        example = data(batch, generator)
        x = example.clean
        noise = torch.randn(x.shape, generator=generator, device=x.device)
        normal = torch.randn(len(x), generator=generator, device=x.device)
        sigma = torch.sigmoid(logit_mean + logit_spread * normal)
        s = sigma[:, None, None, None]
        with quick_backward(x):
            predicted = model((1 - s) * x + s * noise, sigma * 1000, *example.conditions).float()
        return _weighed(velocity_error(predicted, noise - x, sigma), example.weight)

    return loss


def distillation_loss(teacher: torch.nn.Module, data: Data, steps: int, substeps: int, guidance_scale: float) -> Loss:
    """The student goes in one of `steps` equal steps where its teacher, guided, goes in `substeps` (progressive
    distillation, Salimans and Ho 2022, in one round): Euler sampling with `steps` steps then needs no guidance."""

    def loss(model: torch.nn.Module, batch: Batch, generator: torch.Generator) -> dict[str, torch.Tensor]:
        example = data(batch, generator)
        x = example.clean
        noise = torch.randn(x.shape, generator=generator, device=x.device)
        first = torch.randint(1, steps + 1, (len(x),), generator=generator, device=x.device) / steps
        s = first[:, None, None, None]
        start = (1 - s) * x + s * noise
        with torch.no_grad():
            end = start
            for k in range(substeps):
                t = (first - k / (steps * substeps)) * 1000
                velocity = teacher(end, t, *example.conditions).float()
                if guidance_scale != 1.0:
                    without = teacher(end, t, *example.null).float()
                    velocity = without + guidance_scale * (velocity - without)
                end = end - velocity / (steps * substeps)
            wanted = (start - end) * steps
        with quick_backward(x):
            predicted = model(start, first * 1000, *example.conditions).float()
        return _weighed(velocity_error(predicted, wanted, first), example.weight)

    return loss


def _weighed(error: torch.Tensor, weight: torch.Tensor) -> dict[str, torch.Tensor]:
    error = error.mean(1, keepdim=True)
    return {"loss": (weight * error).sum() / weight.sum(), "mse": error.mean()}


def quick_backward(x: torch.Tensor):
    """A context for the forward pass of a model that is trained, where x is."""
    # the backward pass of flash attention is slow on CPUs: 45 images/s against 63
    return sdpa_kernel(SDPBackend.MATH) if x.device.type == "cpu" else nullcontext()
