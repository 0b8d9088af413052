"""Adversarial training after flow matching, for sharp images in few steps.

A flow-matching model that takes few steps predicts, in each, the mean of all plausible images. Here it is trained
further, as a generator, against a discriminator of real and generated images: small heads on the features of a frozen
copy of the model, which sees both under the same noise and the same conditions (Sauer et al. 2024, "Fast
high-resolution image synthesis with latent adversarial diffusion distillation"). A discriminator trained from scratch
would take longer to become useful than the whole training lasts. The loss is that of R3GAN (Huang et al. 2024): a real
image against the generated one of the same place.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from dataengine.imagenet import ImageNetFeatures
from dataengine.render.flow import few_sigmas
from dataengine.train.flow_loss import Batch, Data, Example, Loss, fast_backward
from dataengine.train.loop import TrainSettings, model_settings_text, train

# without momentum: each network responds to the other's latest step
ADVERSARIAL_SETTINGS = {"momentum": 0.0, "weight_decay": 0.0, "gradient_clip": 5.0}
NOISE_LOGIT_MEAN, NOISE_LOGIT_SPREAD = -1.2, 1.0  # of the noise level at which the discriminator sees images
FEATURE_WEIGHT = 0.5
MEAN_WEIGHT = 4.0
GUIDED_WEIGHT = 2.0
PATTERN_WEIGHT = 4.0
PATTERN_PATCHES = 4  # side, in patches, of the squares over which a pattern is averaged
HEAD_WIDTH = 64
MIN_FEATURE_SIDE_PX = 96  # smaller images are enlarged for the ImageNet features


class Standard(nn.Module):
    """Standardises features (B, C, h, w) by a fixed mean (C,) and spread (C,)."""

    def __init__(self, mean: torch.Tensor, spread: torch.Tensor):
        super().__init__()
        self.register_buffer("mean", mean.detach()[:, None, None].clone())
        self.register_buffer("spread", spread.detach()[:, None, None].clamp(min=1e-3))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return (features - self.mean) / self.spread


class Head(nn.Module):
    """Logits of "real" for each position of a feature map (B, C, h, w) and for the whole map: (B, h w), (B, 1)."""

    def __init__(self, features: torch.Tensor):
        """features: an example, which fixes the scale. With normalisation of each map on its own, generated images
        could have any contrast."""
        super().__init__()
        width = features.shape[1]
        self.standard = Standard(features.mean((0, 2, 3)), features.std((0, 2, 3)))
        self.place = nn.Sequential(nn.Conv2d(width, HEAD_WIDTH, 1), nn.LeakyReLU(0.2), nn.Conv2d(HEAD_WIDTH, 1, 1))
        self.whole = nn.Sequential(nn.Linear(width, HEAD_WIDTH), nn.LeakyReLU(0.2), nn.Linear(HEAD_WIDTH, 1))

    def forward(self, features: torch.Tensor) -> list[torch.Tensor]:
        features = self.standard(features)
        return [self.place(features).flatten(1).float(), self.whole(features.mean((2, 3))).float()]


class Discriminator(nn.Module):
    """Logits (B, L) of "real" for each position of each map of frozen features, and for each whole map.

    Features come from a frozen copy of the denoiser, under noise, which knows the conditions; and, with a feature
    network, from that network without noise, which sees what the denoiser misses.
    """

    def __init__(self, denoiser: nn.Module, example: Example, feature_network: nn.Module | None):
        """example: fixes the shapes and scales of the features. feature_network: `ImageNetFeatures`."""
        super().__init__()
        self.denoiser = copy.deepcopy(denoiser).eval().requires_grad_(False)
        self.feature_network = feature_network
        unet = self.denoiser.unet
        self.blocks = [*unet.down_blocks, unet.mid_block, *unet.up_blocks]
        sigma = torch.full((len(example.clean),), 0.2)
        features = [f.float() for f in self.features(example.clean, example.clean, sigma, example.conditions)]
        self.heads = nn.ModuleList(Head(f) for f in features)

    def train(self, mode: bool = True) -> Discriminator:
        super().train(mode)
        self.denoiser.eval()
        return self

    def features(
        self, images: torch.Tensor, noisy: torch.Tensor, sigma: torch.Tensor, conditions: tuple
    ) -> list[torch.Tensor]:
        """Outputs (B, C, h, w) of the denoiser's blocks for the noisy images, and of the feature network for the clean
        ones."""
        maps: list[torch.Tensor] = []

        def keep(_block, _inputs, output) -> None:
            maps.append(output[0] if isinstance(output, tuple) else output)

        hooks = [block.register_forward_hook(keep) for block in self.blocks]
        try:
            self.denoiser(noisy, sigma * 1000, *conditions)
        finally:
            for hook in hooks:
                hook.remove()
        if self.feature_network is not None:
            factor = max(1, MIN_FEATURE_SIDE_PX // images.shape[-1])
            maps += self.feature_network(
                F.interpolate(images, scale_factor=factor, mode="bilinear") if factor > 1 else images
            )
        return maps

    def forward(self, features: list[torch.Tensor]) -> list[torch.Tensor]:
        return [logits for head, f in zip(self.heads, features, strict=True) for logits in head(f)]


class AdversarialPair(nn.Module):
    """Generator and discriminator as one model for the training loop. The generator learns more slowly; otherwise it
    would find artifacts that fool the discriminator, such as a grid, before the discriminator learns to see them."""

    rate_shares = {"generator": 0.1}  # noqa: RUF012

    def __init__(self, generator: nn.Module, example: Example, feature_network: nn.Module | None):
        super().__init__()
        self.discriminator = Discriminator(generator, example, feature_network)
        self.generator = generator


@dataclass(frozen=True)
class Goal:
    """What the generator should learn.

    steps: number of steps of later sampling (`sample_few`), each of which is trained. pooled: means over squares of
    this many pixels should match the real image, as should the discriminator's features, the more the lower the noise
    level; or always, if the conditions determine the means (means_known). guidance: if not 1, the generator learns to
    produce without guidance what it produced with it (Meng et al. 2023, section 3.1); examples then need a null.
    """

    steps: int
    pooled: int
    means_known: bool = False
    guidance: float = 1.0


def patch_pattern(images: torch.Tensor, patch: int) -> torch.Tensor:
    """What repeats from patch to patch of images (B, C, H, W), which real images do not have: the mean of each position
    in a patch over squares of 4 x 4 patches, minus the mean of all positions, (B, C patch^2, h, w).

    >>> image = torch.zeros(1, 1, 8, 8)
    >>> image[..., ::2, ::2] = 1
    >>> patch_pattern(image, 2).flatten().tolist()
    [0.75, -0.25, -0.25, -0.25]
    """
    positions = F.avg_pool2d(F.pixel_unshuffle(images, patch), PATTERN_PATCHES)
    return positions - F.avg_pool2d(images, patch * PATTERN_PATCHES).repeat_interleave(patch**2, 1)


def adversarial_loss(data: Data, goal: Goal) -> Loss:
    """One loss for both networks: the generator's terms do not change the discriminator, and vice versa. Only an
    example's region (B, 1, H, W) is generated; the rest is real."""
    sigmas = torch.tensor(few_sigmas(goal.steps))

    def loss(pair: AdversarialPair, batch: Batch, random: torch.Generator) -> dict[str, torch.Tensor]:
        example = data(batch, random)
        x, discriminator, patch = example.clean, pair.discriminator, pair.generator.config.patch

        def normal(*shape: int) -> torch.Tensor:
            return torch.randn(shape, generator=random, device=x.device)

        def inside(images: torch.Tensor) -> torch.Tensor:
            return images if example.region is None else x + example.region * (images - x)

        @torch.no_grad()
        def guided(noisy: torch.Tensor) -> torch.Tensor:
            """What the frozen copy of the generator predicts with guidance."""
            velocities = (
                discriminator.denoiser(noisy, sigma * 1000, *c).float() for c in (example.conditions, example.null)
            )
            v, null = velocities
            return noisy - s * (null + goal.guidance * (v - null))

        sigma = sigmas.to(x.device)[torch.randint(goal.steps, (len(x),), generator=random, device=x.device)]
        s = sigma[:, None, None, None]
        start = (1 - s) * x + s * normal(*x.shape)
        feature_sigma = torch.sigmoid(NOISE_LOGIT_MEAN + NOISE_LOGIT_SPREAD * normal(len(x)))
        v, noise = feature_sigma[:, None, None, None], normal(*x.shape)
        with fast_backward(x):
            fake = inside(start - s * pair.generator(start, sigma * 1000, *example.conditions).float())
            fake_features = discriminator.features(fake, (1 - v) * fake + v * noise, feature_sigma, example.conditions)
        with torch.no_grad():
            real_features = discriminator.features(x, (1 - v) * x + v * noise, feature_sigma, example.conditions)
        discriminator.heads.requires_grad_(False)
        logits_for_generator = discriminator(fake_features)
        discriminator.heads.requires_grad_(True)
        real_logits, fake_logits = discriminator(real_features), discriminator([f.detach() for f in fake_features])

        def distance(a: torch.Tensor, b: torch.Tensor, weight: torch.Tensor | float = 1.0) -> torch.Tensor:
            error = (weight * (a.float() - b.float()).abs().mean((1, 2, 3))).mean()
            return error / b.float().abs().mean().clamp(min=0.1)

        def relativistic(upper: list[torch.Tensor], lower: list[torch.Tensor]) -> torch.Tensor:
            """softplus(lower - upper): small where the upper logits exceed the lower; each map has the same weight."""
            return torch.stack([F.softplus(b - a).mean() for a, b in zip(upper, lower, strict=True)]).mean()

        certainty = 1 - 0.9 * sigma  # how far the noisy image determines the clean one
        terms = {
            "generator": relativistic(logits_for_generator, [logits.detach() for logits in real_logits]),
            "discriminator": relativistic(real_logits, fake_logits),
            "features": torch.stack(
                [distance(a, b, certainty) for a, b in zip(fake_features, real_features, strict=True)]
            ).mean(),
            "means": distance(
                F.avg_pool2d(fake, goal.pooled), F.avg_pool2d(x, goal.pooled), 1.0 if goal.means_known else certainty
            ),
            "pattern": distance(patch_pattern(fake, patch), patch_pattern(x, patch)),
        }
        total = terms["generator"] + terms["discriminator"]
        total = total + FEATURE_WEIGHT * terms["features"] + MEAN_WEIGHT * terms["means"]
        total = total + PATTERN_WEIGHT * terms["pattern"]
        if goal.guidance != 1:
            terms["guided"] = distance(fake, inside(guided(start)))
            total = total + GUIDED_WEIGHT * terms["guided"]
        return {"loss": total} | terms

    return loss


def train_adversarially(
    generator: nn.Module,
    batch: Callable,
    data: Data,
    out: Path,
    settings: TrainSettings,
    goal: Goal,
    evaluate: Callable[[nn.Module, int, Path], None] | None = None,
) -> bool:
    """Train `generator` in place against a discriminator on its own former features and ImageNet features; True when
    all steps are done.

    Raises UserError where the package `imagenet` is not installed.
    """
    example = data(batch(np.random.default_rng(settings.seed)), torch.Generator().manual_seed(0))
    torch.manual_seed(settings.seed)
    pair = AdversarialPair(generator, example, ImageNetFeatures())
    recipe = f"adversarial {model_settings_text(generator)} {goal} "
    show = None if evaluate is None else lambda model, step, folder: evaluate(model.generator, step, folder)
    settings = settings.model_copy(update=ADVERSARIAL_SETTINGS)
    return train(pair, batch, adversarial_loss(data, goal), out, settings, recipe, show)
