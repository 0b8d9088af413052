"""Renderers that need one step, or few, and come out sharp: adversarial training after flow matching.

A trained flow-matching model that jumps from noise to picture at once gives the mean of all pictures it might be. Here
it is trained on against a discriminator of real and drawn pictures, which sees the same conditions (Lin et al. 2025,
"Diffusion adversarial post-training for one-step video generation"; the loss is that of R3GAN, Huang et al. 2024).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from dataengine.render.layout_raster import NOTHING, SCALE
from dataengine.render.thumbnail import thumbnail_pixels
from dataengine.train.flow_loss import Batch, Data, Example, Loss, quick_backward
from dataengine.train.loop import TrainSettings, model_settings_text, train

SLOWLY = {"momentum": 0.0, "weight_decay": 0.0, "gradient_clip": 5.0}  # each side answers the other's last step
STEEPNESS_NOISE = 0.02  # of pictures in [-1, 1], over which the discriminator is to be level
STEEPNESS_WEIGHT = 10.0
FEATURE_WEIGHT = 0.5
MEAN_WEIGHT = 4.0


class Discriminator(nn.Module):
    """Real or drawn, for each part of a picture (B, C, H, W), given planes (B, K, H, W) of what is asked for.

    Convolutional, strided, without normalisation; gives (B, L) logits of two sizes of parts, and its features.
    """

    def __init__(self, channels: int, patch: int = 2, widths: tuple[int, ...] = (64, 128, 192, 256)):
        super().__init__()
        self.patch = patch
        self.first = nn.Conv2d(channels * patch**2, widths[0], 3, padding=1)
        pairs = list(itertools.pairwise(widths))
        self.down = nn.ModuleList(nn.Conv2d(a, b, 4, stride=2, padding=1) for a, b in pairs)
        self.mix = nn.ModuleList(nn.Conv2d(b, b, 3, padding=1) for _, b in pairs)
        self.heads = nn.ModuleList(nn.Conv2d(width, 1, 1) for width in widths[-2:])
        for layer in (self.first, *self.down, *self.mix):  # no normalisation: the spread of features is the weights'
            nn.init.kaiming_normal_(layer.weight, 0.2)
            nn.init.zeros_(layer.bias)

    def forward(self, pictures: torch.Tensor, planes: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        x = F.pixel_unshuffle(torch.cat([pictures, planes.to(pictures.dtype)], 1), self.patch)
        x = F.leaky_relu(self.first(x.contiguous(memory_format=torch.channels_last)), 0.2)
        features = []
        for down, mix in zip(self.down, self.mix, strict=True):
            x = F.leaky_relu(down(x), 0.2)
            x = F.leaky_relu((x + mix(x)) * 0.5**0.5, 0.2)
            features.append(x)
        logits = [head(f).flatten(1) for head, f in zip(self.heads, features[-2:], strict=True)]
        return torch.cat(logits, 1).float(), features


class Rivals(nn.Module):
    """The renderer and its discriminator, as one model for the training loop. The renderer learns more slowly: it would
    else find what deceives the discriminator, such as a pattern of squares, sooner than that learns to see it."""

    rate_shares = {"drawer": 0.2}  # noqa: RUF012

    def __init__(self, drawer: nn.Module, discriminator: Discriminator):
        super().__init__()
        self.drawer, self.discriminator = drawer, discriminator


Asked = Callable[[Example], tuple[torch.Tensor, torch.Tensor | None]]


def adversarial_loss(
    data: Data, asked: Asked, steps: int = 1, pooled: int = 8, feature_weight: float = FEATURE_WEIGHT
) -> Loss:
    """One loss for both: the drawer's terms leave the discriminator as it is, and the other way round.

    asked: what is asked for, as planes (B, K, H, W), and the region (B, 1, H, W) that is drawn, None for all of it.
    steps: Euler steps of the later sampling; each is trained on its own share of noise. pooled: means over squares of
    so many pixels are to be those of the real picture. feature_weight: of the discriminator's features being the same.
    """

    def loss(rivals: Rivals, batch: Batch, generator: torch.Generator) -> dict[str, torch.Tensor]:
        example = data(batch, generator)
        x, (planes, region) = example.clean, asked(example)

        def normal() -> torch.Tensor:
            return torch.randn(x.shape, generator=generator, device=x.device)

        sigma = torch.randint(1, steps + 1, (len(x),), generator=generator, device=x.device) / steps
        s = sigma[:, None, None, None]
        start = (1 - s) * x + s * normal()
        with quick_backward(x):
            velocity = rivals.drawer(start, sigma * 1000, *example.conditions).float()
        drawn = start - s * velocity
        if steps > 1:  # a picture drawn from much noise is another matter than one drawn from little
            planes = torch.cat([planes, s.expand(-1, -1, *planes.shape[-2:])], 1)
        if region is not None:
            drawn = x + region * (drawn - x)
        judge = rivals.discriminator
        judge.requires_grad_(False)
        about_drawn, drawn_features = judge(drawn, planes)
        judge.requires_grad_(True)
        about_real, real_features = judge(x, planes)
        about_near, _ = judge(x + STEEPNESS_NOISE * normal(), planes)
        about_seen, _ = judge(drawn.detach(), planes)
        discriminator = F.softplus(about_seen - about_real).mean()
        steepness = (about_near - about_real).square().mean()
        drawer = F.softplus(about_real.detach() - about_drawn).mean()
        features = torch.stack([
            F.l1_loss(a.float(), b.detach().float()) for a, b in zip(drawn_features, real_features, strict=True)
        ]).mean()  # fmt: skip
        means = F.l1_loss(F.avg_pool2d(drawn, pooled), F.avg_pool2d(x, pooled))
        total = drawer + feature_weight * features + MEAN_WEIGHT * means
        return {
            "loss": total + discriminator + STEEPNESS_WEIGHT * steepness, "drawer": drawer,
            "discriminator": discriminator, "features": features, "means": means, "steepness": steepness,
        }  # fmt: skip

    return loss


def one_hot(numbers: torch.Tensor, n: int) -> torch.Tensor:
    """(B, ...) int64 -> (B, n, ...) float32."""
    return F.one_hot(numbers, n).movedim(-1, 1).float()


def frame_planes(example: Example, n_labels: int) -> tuple[torch.Tensor, torch.Tensor]:
    """For frames of objects: hole, box and class. Only the hole is drawn; what surrounds it is as it was."""
    _, hole, box, labels, _ = example.conditions
    classes = one_hot(labels, n_labels)[:, :, None, None].expand(-1, -1, *hole.shape[-2:])
    return torch.cat([hole, box, classes], 1), hole


def crop_planes(example: Example, n_classes: int, n_domains: int) -> tuple[torch.Tensor, None]:
    """For crops: the thumbnail as it was given, classes and places of the boxes, and the data set."""
    seen, domains, rasters = example.conditions
    numbers = rasters[:, 0].long() - NOTHING  # nothing, unknown, classes
    places = rasters[:, 1:].float() / SCALE
    looks = one_hot(domains, n_domains + 1)[:, :, None, None].expand(-1, -1, *rasters.shape[-2:])
    return torch.cat([thumbnail_pixels(seen), one_hot(numbers, n_classes + 2), places, looks], 1), None


def train_against(
    drawer: nn.Module,
    batch: Callable,
    data: Data,
    asked: Asked,
    out: Path,
    settings: TrainSettings,
    steps: int = 1,
    pooled: int = 8,
    evaluate: Callable[[nn.Module, int, Path], None] | None = None,
) -> bool:
    """Train `drawer` in place, to need so many Euler steps, against a new discriminator; True when all is done.

    The discriminator reads squares half as wide as the drawer's patches.
    """
    example = data(batch(np.random.default_rng(settings.seed)), torch.Generator().manual_seed(0))
    channels = example.clean.shape[1] + asked(example)[0].shape[1] + (steps > 1)
    torch.manual_seed(settings.seed)
    rivals = Rivals(drawer, Discriminator(channels, max(1, drawer.config.patch // 2)))
    recipe = f"adversarial {model_settings_text(drawer)} steps={steps} "
    shown = None if evaluate is None else lambda model, step, folder: evaluate(model.drawer, step, folder)
    loss = adversarial_loss(data, asked, steps, pooled)
    return train(rivals, batch, loss, out, settings.model_copy(update=SLOWLY), recipe, shown)
