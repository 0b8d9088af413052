"""The flow-matching terms that both renderers share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

if TYPE_CHECKING:
    from dataengine.render.inpaint import Known

Velocity = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # of (noisy pictures, timesteps in [0, 1000])

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
    velocity: Velocity,
    noise: Callable[[], torch.Tensor],
    steps: int,
    settle: Callable[[torch.Tensor], torch.Tensor] = lambda clean: clean,
    start: Start | None = None,
) -> torch.Tensor:
    """A picture in few steps, by a model that was trained to draw it from each of `few_sigmas`: drawn, put under new
    noise, drawn again (Sauer et al. 2023, "Adversarial diffusion distillation"). With the noise of before, as Euler
    steps have it, contrast would grow from step to step.

    noise: gives new noise at each call. settle: puts back what is known of each drawn picture. start: pictures to begin
    from, under its strength of noise; of the shares of noise, those below follow.
    """
    sigmas = few_sigmas(steps)
    if start is not None:
        sigmas = [start.strength, *(s for s in sigmas if s < start.strength - 1e-6)]
    x = _begun(start, sigmas[0], noise())
    for sigma, following in zip(sigmas, [*sigmas[1:], 0.0], strict=True):
        timesteps = torch.full((len(x),), 1000.0 * sigma, device=x.device)
        clean = settle(x - sigma * velocity(x, timesteps).float())
        x = (1 - following) * clean + following * noise() if following else clean
    return x


@dataclass(frozen=True)
class Start:
    """Pictures (B, C, H, W) float32 that a drawing begins from in place of noise alone: under `strength` of noise, in
    (0, 1], it goes on as any other (SDEdit, Meng et al. 2022). At 1 nothing is left of them."""

    pictures: torch.Tensor
    strength: float


def _begun(start: Start | None, sigma: float, noise: torch.Tensor) -> torch.Tensor:
    return noise if start is None else (1 - sigma) * start.pictures + sigma * noise


def draw_noise(
    generators: list[torch.Generator], shape: tuple[int, ...], device: torch.device
) -> Callable[[], torch.Tensor]:
    """A function that gives new noise (B, *shape), picture i's from generators[i] alone (CPU; contract 4)."""
    return lambda: torch.stack([torch.randn(shape, generator=g) for g in generators]).to(device)


def sample(
    velocity: Velocity,
    noise: Callable[[], torch.Tensor],
    steps: int,
    *,
    few: bool = False,
    scheduler: FlowMatchEulerDiscreteScheduler | None = None,
    known: Known | None = None,
    start: Start | None = None,
) -> torch.Tensor:
    """Pictures (B, C, H, W) float32 from `noise()`, in Euler steps, or, for a model that was trained to need so few
    steps, by `sample_few`. known: what is to stay as it is outside a mask, put back at every step. start: pictures to
    begin from, in fewer of the steps."""
    if few:
        settle = (lambda x: x) if known is None else (lambda x: known.put_back(x, known.clean))
        return sample_few(velocity, noise, steps, settle, start)
    scheduler = scheduler or FlowMatchEulerDiscreteScheduler()
    sigma = 1.0 if start is None else start.strength
    count = max(1, round(steps * sigma))
    first = noise()
    x = _begun(start, sigma, first)
    scheduler.set_timesteps(sigmas=np.linspace(sigma, sigma / count, count), device=x.device)
    for k, t in enumerate(scheduler.timesteps):
        x = scheduler.step(velocity(x, t.expand(len(x))).float(), t, x, return_dict=False)[0]
        if known is not None:
            sigma = scheduler.sigmas[k + 1]
            x = known.put_back(x, (1 - sigma) * known.clean + sigma * first)
    return x
