"""The flow-matching terms that both renderers share."""

from __future__ import annotations

from collections.abc import Callable

import torch

SHIFT = 3.0  # of few steps towards noise, where it is decided what the picture will be
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


def few_sigmas(steps: int) -> list[float]:
    """Shares of noise from which a model of few steps draws, the first of them 1: of four steps 1, 0.9, 0.75, 0.5 (the
    timestep shift of Esser et al. 2024, section 5.3.2)."""
    even = [1 - k / steps for k in range(steps)]
    return [SHIFT * s / (1 + (SHIFT - 1) * s) for s in even]


def sample_few(
    velocity: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    noise: Callable[[], torch.Tensor],
    steps: int,
    settle: Callable[[torch.Tensor], torch.Tensor] = lambda clean: clean,
) -> torch.Tensor:
    """A picture in few steps, by a model that was trained to draw it from each of `few_sigmas`: drawn, put under new
    noise, drawn again (Sauer et al. 2023, "Adversarial diffusion distillation"). With the noise of before, as Euler
    steps have it, contrast would grow from step to step.

    velocity: of (noisy pictures, timesteps in [0, 1000]). noise: gives new noise at each call. settle: what is known of
    each drawn picture is put back by it.
    """
    sigmas, x = few_sigmas(steps), noise()
    for sigma, following in zip(sigmas, [*sigmas[1:], 0.0], strict=True):
        timesteps = torch.full((len(x),), 1000.0 * sigma, device=x.device)
        clean = settle(x - sigma * velocity(x, timesteps).float())
        x = (1 - following) * clean + following * noise() if following else clean
    return x
