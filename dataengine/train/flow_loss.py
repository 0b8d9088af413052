"""Flow matching: the loss of every image model."""

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
    """A training batch in the form that the losses need.

    clean: (B, C, H, W). conditions: `model(noisy, timesteps, *conditions)` is the velocity. weight: (B, 1, H, W), of
    each pixel's error. region: (B, 1, H, W), 1 where the model generates; everywhere if None. null: the conditions with
    the learned null in place of the guided one.
    """

    clean: torch.Tensor
    conditions: tuple
    weight: torch.Tensor
    region: torch.Tensor | None = None
    null: tuple | None = None


Data = Callable[[Batch, torch.Generator], Example]
Loss = Callable[[torch.nn.Module, Batch, torch.Generator], dict[str, torch.Tensor]]


def flow_loss(data: Data, logit_mean: float = 0.0, logit_spread: float = 1.0) -> Loss:
    """Flow matching (Lipman et al. 2023) with logit-normal noise levels (Esser et al. 2024, eq. 19)."""

    def loss(model: torch.nn.Module, batch: Batch, generator: torch.Generator) -> dict[str, torch.Tensor]:
        example = data(batch, generator)
        x = example.clean
        noise = torch.randn(x.shape, generator=generator, device=x.device)
        normal = torch.randn(len(x), generator=generator, device=x.device)
        sigma = torch.sigmoid(logit_mean + logit_spread * normal)
        s = sigma[:, None, None, None]
        with fast_backward(x):
            predicted = model((1 - s) * x + s * noise, sigma * 1000, *example.conditions).float()
        error = velocity_error(predicted, noise - x, sigma).mean(1, keepdim=True)  # (B, 1, H, W)
        return {"loss": (example.weight * error).sum() / example.weight.sum(), "mse": error.mean()}

    return loss


def fast_backward(x: torch.Tensor):
    """A context for the forward pass in training, on the device of x, that makes the backward pass fast."""
    # the backward pass of flash attention is slower on CPUs: 45 images/s, 63 without
    return sdpa_kernel(SDPBackend.MATH) if x.device.type == "cpu" else nullcontext()
