"""Flow matching: the terms and samplers that all renderers share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

if TYPE_CHECKING:
    from dataengine.render.inpaint import Known

Velocity = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # of (noisy images, timesteps in [0, 1000])

TIMESTEP_SHIFT = 3.0  # moves few steps towards noise, where the content of the image is decided
MIN_SIGMA = 0.05  # at less noise the velocity is not divided further


def velocity_of(noisy: torch.Tensor, clean: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
    """The velocity `noise - clean` of a predicted clean image (Lipman et al. 2023, in diffusers' sign).

    noisy, clean: (B, C, H, W). timesteps: (B,) in [0, 1000].

    >>> noise, clean = torch.full((1, 1, 1, 1), 3.0), torch.ones(1, 1, 1, 1)
    >>> velocity_of(0.5 * noise + 0.5 * clean, clean, torch.tensor([500])).item()
    2.0
    """
    sigma = (timesteps.float() / 1000).clamp(min=MIN_SIGMA)[:, None, None, None]
    return (noisy - clean) / sigma


def preconditioned_velocity(
    noisy: torch.Tensor, out: torch.Tensor, timesteps: torch.Tensor, axes: torch.Tensor, power: torch.Tensor
) -> torch.Tensor:
    """The velocity `noise - clean` from a network that corrects the best linear guess of the clean image (Karras et al.
    2022, "Elucidating the design space", section 5, for flow matching and with the covariance of the data).

    At pure noise the output is the clean image, without noise the negative noise. So the network need not copy what it
    is given, nor remove noise from directions in which the data hardly vary. noisy, out: (B, C, H, W), of mean 0.
    timesteps: (B,) in [0, 1000]. axes (C, C), power (C,): eigenvectors, as columns, and eigenvalues of the covariance
    of the channels.

    >>> noise, clean = torch.full((1, 1, 1, 1), 3.0), torch.ones(1, 1, 1, 1)
    >>> preconditioned_velocity(noise, clean, torch.tensor([1000]), torch.eye(1), torch.ones(1)).item()
    2.0
    >>> preconditioned_velocity(clean, -noise, torch.tensor([0]), torch.eye(1), torch.ones(1)).item()
    2.0
    """
    sigma = (timesteps.float() / 1000)[:, None]
    share = (sigma - (1 - sigma) * power) / ((1 - sigma) ** 2 * power + sigma**2)  # (B, C), of the guess's velocity
    with torch.autocast(noisy.device.type, enabled=False):
        matrix = (axes[None] * share[:, None]) @ axes.T  # (B, C, C)
        guess = torch.einsum("bdc,bchw->bdhw", matrix, noisy.float())
    return guess - out / ((1 - sigma) ** 2 + sigma**2).sqrt()[..., None, None]


def velocity_error(predicted: torch.Tensor, target: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """Weighted squared error (B, C, H, W) of a predicted velocity at noise levels sigma (B,).

    It equals the error of the clean image divided by sigma^2 + 0.1: the velocity's own weighting (Lipman et al. 2023,
    eq. 23), kept finite near sigma = 0.
    """
    s = sigma[:, None, None, None] ** 2
    return s / (s + 0.1) * (predicted - target) ** 2


def few_sigmas(steps: int) -> list[float]:
    """Noise levels that a few-step model denoises from (the timestep shift of Esser et al. 2024, section 5.3.2).

    >>> few_sigmas(4)
    [1.0, 0.9, 0.75, 0.5]
    """
    even = [1 - k / steps for k in range(steps)]
    return [TIMESTEP_SHIFT * s / (1 + (TIMESTEP_SHIFT - 1) * s) for s in even]


def sample_few(
    velocity: Velocity,
    noise: Callable[[], torch.Tensor],
    steps: int,
    settle: Callable[[torch.Tensor], torch.Tensor] = lambda clean: clean,
    start: Start | None = None,
) -> torch.Tensor:
    """Images from a few-step model: denoise, add new noise, denoise again (Sauer et al. 2023, "Adversarial diffusion
    distillation"). With the same noise throughout, as in Euler steps, contrast would grow from step to step.

    noise: returns new noise at each call. settle: applied to each clean image, to put known pixels back. start: images
    to start from at their own noise level; only the lower noise levels follow.
    """
    sigmas = few_sigmas(steps)
    if start is not None:
        sigmas = [start.strength, *(s for s in sigmas if s < start.strength - 1e-6)]
    x = _initial(start, sigmas[0], noise())
    for sigma, following in zip(sigmas, [*sigmas[1:], 0.0], strict=True):
        timesteps = torch.full((len(x),), 1000.0 * sigma, device=x.device)
        clean = settle(x - sigma * velocity(x, timesteps).float())
        x = (1 - following) * clean + following * noise() if following else clean
    return x


@dataclass(frozen=True)
class Start:
    """Images to start from in place of pure noise (SDEdit, Meng et al. 2022).

    images: (B, C, H, W) float32. strength: in (0, 1], the noise level to start at; 1 leaves nothing of the images.
    """

    images: torch.Tensor
    strength: float


def _initial(start: Start | None, sigma: float, noise: torch.Tensor) -> torch.Tensor:
    return noise if start is None else (1 - sigma) * start.images + sigma * noise


def draw_noise(
    generators: list[torch.Generator], shape: tuple[int, ...], device: torch.device
) -> Callable[[], torch.Tensor]:
    """A function that returns new noise (B, *shape); image i's comes from generators[i] alone (CPU; contract 4)."""
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
    """Images (B, C, H, W) float32 from `noise()`, in Euler steps, or by `sample_few` for few-step models (few).

    known: content outside a mask, put back after every step. start: images to start from, which takes fewer steps.
    """
    if few:
        settle = (lambda x: x) if known is None else (lambda x: known.put_back(x, known.clean))
        return sample_few(velocity, noise, steps, settle, start)
    scheduler = scheduler or FlowMatchEulerDiscreteScheduler()
    sigma = 1.0 if start is None else start.strength
    count = max(1, round(steps * sigma))
    first = noise()
    x = _initial(start, sigma, first)
    scheduler.set_timesteps(sigmas=np.linspace(sigma, sigma / count, count), device=x.device)
    for k, t in enumerate(scheduler.timesteps):
        x = scheduler.step(velocity(x, t.expand(len(x))).float(), t, x, return_dict=False)[0]
        if known is not None:
            sigma = scheduler.sigmas[k + 1]
            x = known.put_back(x, (1 - sigma) * known.clean + sigma * first)
    return x
