"""The flow-matching terms that both renderers share."""

from __future__ import annotations

import torch

SMALLEST_SIGMA = 0.05  # below this share of noise the velocity is not divided further


def velocity_of(noisy: torch.Tensor, clean: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
    """The velocity `noise - clean` that leads from noisy (B, C, H, W) to a predicted clean picture, at timesteps (B,)
    in [0, 1000] (Lipman et al. 2023, in diffusers' sign)."""
    sigma = (timesteps.float() / 1000).clamp(min=SMALLEST_SIGMA)[:, None, None, None]
    return (noisy - clean) / sigma


def velocity_error(predicted: torch.Tensor, wanted: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """Squared error (B, C, H, W) of a predicted velocity at noise shares sigma (B,): that of the clean picture, divided
    by sigma^2 + 0.1. This is the velocity's own weight (Lipman et al. 2023, eq. 23), held finite near sigma = 0."""
    s = sigma[:, None, None, None] ** 2
    return s / (s + 0.1) * (predicted - wanted) ** 2
