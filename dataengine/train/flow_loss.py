"""Flow matching: one loss for every model of pictures here."""

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
    weight (B, 1, H, W) of each pixel's error; region (B, 1, H, W) that is to be drawn, all of it if None; null: the
    conditions with the learned null in place of what can be guided."""

    clean: torch.Tensor
    conditions: tuple
    weight: torch.Tensor
    region: torch.Tensor | None = None
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


def _weighed(error: torch.Tensor, weight: torch.Tensor) -> dict[str, torch.Tensor]:
    error = error.mean(1, keepdim=True)
    return {"loss": (weight * error).sum() / weight.sum(), "mse": error.mean()}


def quick_backward(x: torch.Tensor):
    """A context for the forward pass of a model that is trained, where x is."""
    # the backward pass of flash attention is slow on CPUs: 45 images/s against 63
    return sdpa_kernel(SDPBackend.MATH) if x.device.type == "cpu" else nullcontext()
