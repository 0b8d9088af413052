"""Renderers that need few steps and come out sharp: adversarial training after flow matching.

A trained flow-matching model that goes in few steps gives, in each, the mean of all pictures that it might be. Here it
is trained on against a discriminator of real and drawn pictures: small heads on the features of the model itself, as it
was, which sees both under the same noise and the same conditions (Sauer et al. 2024, "Fast high-resolution image
synthesis with latent adversarial diffusion distillation"). A discriminator that began from nothing would take far
longer to be of any use than the training lasts. The loss is that of R3GAN (Huang et al. 2024), a real picture against
the drawn one of its place.
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
from dataengine.train.flow_loss import Batch, Data, Example, Loss, quick_backward
from dataengine.train.loop import TrainSettings, model_settings_text, train

SLOWLY = {"momentum": 0.0, "weight_decay": 0.0, "gradient_clip": 5.0}  # each side answers the other's last step
NOISE_MEAN, NOISE_SPREAD = -1.2, 1.0  # of the logit of the share of noise under which pictures are judged
FEATURE_WEIGHT = 0.5
MEAN_WEIGHT = 4.0
GUIDED_WEIGHT = 2.0
PATTERN_WEIGHT = 4.0
PATTERN_PATCHES = 4  # on a side, over which a pattern is a mean
HEAD_WIDTH = 64
EYES_SIDE = 96  # pixels; smaller pictures are enlarged for the eyes


class Standard(nn.Module):
    """Features (B, C, h, w) less their mean, over their spread, both (C,) and fixed."""

    def __init__(self, mean: torch.Tensor, spread: torch.Tensor):
        super().__init__()
        self.register_buffer("mean", mean.detach()[:, None, None].clone())
        self.register_buffer("spread", spread.detach()[:, None, None].clamp(min=1e-3))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return (features - self.mean) / self.spread


class Head(nn.Module):
    """Real or drawn, for each place of a map of features (B, C, h, w) and for all of it: logits (B, h w), (B, 1)."""

    def __init__(self, features: torch.Tensor):
        """features: an example, whose scale is that of all. Normalised each on its own, a drawn one could have any
        contrast."""
        super().__init__()
        width = features.shape[1]
        self.standard = Standard(features.mean((0, 2, 3)), features.std((0, 2, 3)))
        self.place = nn.Sequential(nn.Conv2d(width, HEAD_WIDTH, 1), nn.LeakyReLU(0.2), nn.Conv2d(HEAD_WIDTH, 1, 1))
        self.whole = nn.Sequential(nn.Linear(width, HEAD_WIDTH), nn.LeakyReLU(0.2), nn.Linear(HEAD_WIDTH, 1))

    def forward(self, features: torch.Tensor) -> list[torch.Tensor]:
        features = self.standard(features)
        return [self.place(features).flatten(1).float(), self.whole(features.mean((2, 3))).float()]


class Judge(nn.Module):
    """Real or drawn, for each place of each map of frozen features and for the whole of each, as logits (B, L).

    Two sorts of features: those of the denoiser itself, as it was, under noise, which know the conditions; and, with
    eyes, those of a network that was trained on ImageNet, without noise, which see what the denoiser does not.
    """

    def __init__(self, denoiser: nn.Module, example: Example, eyes: nn.Module | None):
        """example: from which the shapes of the features are seen. eyes: `ImageNetFeatures`."""
        super().__init__()
        self.denoiser = copy.deepcopy(denoiser).eval().requires_grad_(False)
        self.eyes = eyes
        unet = self.denoiser.unet
        self.blocks = [*unet.down_blocks, unet.mid_block, *unet.up_blocks]
        seen = torch.full((len(example.clean),), 0.2)
        features = [f.float() for f in self.features(example.clean, example.clean, seen, example.conditions)]
        self.heads = nn.ModuleList(Head(f) for f in features)

    def train(self, mode: bool = True) -> Judge:
        super().train(mode)
        self.denoiser.eval()
        return self

    def features(
        self, pictures: torch.Tensor, noisy: torch.Tensor, sigma: torch.Tensor, conditions: tuple
    ) -> list[torch.Tensor]:
        """Outputs of the denoiser's blocks for the noisy pictures and of the eyes for the clean ones, (B, C, h, w)
        each."""
        found: list[torch.Tensor] = []

        def keep(block, given, output) -> None:
            found.append(output[0] if isinstance(output, tuple) else output)

        hooks = [block.register_forward_hook(keep) for block in self.blocks]
        try:
            self.denoiser(noisy, sigma * 1000, *conditions)
        finally:
            for hook in hooks:
                hook.remove()
        if self.eyes is not None:
            larger = max(1, EYES_SIDE // pictures.shape[-1])
            found += self.eyes(
                F.interpolate(pictures, scale_factor=larger, mode="bilinear") if larger > 1 else pictures
            )
        return found

    def forward(self, features: list[torch.Tensor]) -> list[torch.Tensor]:
        return [logits for head, f in zip(self.heads, features, strict=True) for logits in head(f)]


class Rivals(nn.Module):
    """The renderer and its judge, as one model for the training loop. The renderer learns more slowly: it would else
    find what deceives the judge, such as a pattern of squares, sooner than that learns to see it."""

    rate_shares = {"drawer": 0.1}  # noqa: RUF012

    def __init__(self, drawer: nn.Module, example: Example, eyes: nn.Module | None):
        super().__init__()
        self.judge = Judge(drawer, example, eyes)
        self.drawer = drawer


@dataclass(frozen=True)
class Goal:
    """What the drawer is to learn.

    steps: those of the later sampling (`sample_few`), each of which is trained. pooled: means over squares of so many
    pixels are to be those of the real picture, as are the judge's features: the more, the less noise it is drawn from;
    or, if the conditions tell them (means_told), always. guidance: where it is not 1, the drawer learns to draw as it
    did with it (Meng et al. 2023, section 3.1), so that it needs none; examples need a null then.
    """

    steps: int
    pooled: int
    means_told: bool = False
    guidance: float = 1.0


def pattern(pictures: torch.Tensor, patch: int) -> torch.Tensor:
    """What repeats from patch to patch of pictures (B, C, H, W), and no real picture has: the mean of each place in a
    patch over squares of 4 x 4 patches, less that of all places, (B, C patch^2, h, w)."""
    places = F.avg_pool2d(F.pixel_unshuffle(pictures, patch), PATTERN_PATCHES)
    return places - F.avg_pool2d(pictures, patch * PATTERN_PATCHES).repeat_interleave(patch**2, 1)


def adversarial_loss(data: Data, goal: Goal) -> Loss:
    """One loss for both: the drawer's terms leave the judge as it is, and the other way round. An example's region
    (B, 1, H, W) is all that is drawn; the rest is as it was."""
    sigmas = torch.tensor(few_sigmas(goal.steps))

    def loss(rivals: Rivals, batch: Batch, generator: torch.Generator) -> dict[str, torch.Tensor]:
        example = data(batch, generator)
        x, judge, patch = example.clean, rivals.judge, rivals.drawer.config.patch

        def normal(*shape: int) -> torch.Tensor:
            return torch.randn(shape, generator=generator, device=x.device)

        def inside(pictures: torch.Tensor) -> torch.Tensor:
            return pictures if example.region is None else x + example.region * (pictures - x)

        @torch.no_grad()
        def guided(noisy: torch.Tensor) -> torch.Tensor:
            """What the drawer, as it was, drew with guidance."""
            v, null = (judge.denoiser(noisy, sigma * 1000, *c).float() for c in (example.conditions, example.null))
            return noisy - s * (null + goal.guidance * (v - null))

        sigma = sigmas.to(x.device)[torch.randint(goal.steps, (len(x),), generator=generator, device=x.device)]
        s = sigma[:, None, None, None]
        start = (1 - s) * x + s * normal(*x.shape)
        seen = torch.sigmoid(NOISE_MEAN + NOISE_SPREAD * normal(len(x)))
        v, veil = seen[:, None, None, None], normal(*x.shape)
        with quick_backward(x):
            drawn = inside(start - s * rivals.drawer(start, sigma * 1000, *example.conditions).float())
            of_drawn = judge.features(drawn, (1 - v) * drawn + v * veil, seen, example.conditions)
        with torch.no_grad():
            of_real = judge.features(x, (1 - v) * x + v * veil, seen, example.conditions)
        judge.heads.requires_grad_(False)
        about_drawn = judge(of_drawn)
        judge.heads.requires_grad_(True)
        about_real, about_seen = judge(of_real), judge([f.detach() for f in of_drawn])

        def distance(a: torch.Tensor, b: torch.Tensor, weight: torch.Tensor | float = 1.0) -> torch.Tensor:
            apart = (weight * (a.float() - b.float()).abs().mean((1, 2, 3))).mean()
            return apart / b.float().abs().mean().clamp(min=0.1)

        def deceived(those: list[torch.Tensor], others: list[torch.Tensor]) -> torch.Tensor:
            """How far the logits of those lie below the others'; each map counts alike, however large."""
            return torch.stack([F.softplus(b - a).mean() for a, b in zip(those, others, strict=True)]).mean()

        sure = 1 - 0.9 * sigma  # of what is to be seen
        sure_of_means = 1.0 if goal.means_told else sure
        terms = {
            "drawer": deceived(about_drawn, [logits.detach() for logits in about_real]),
            "judge": deceived(about_real, about_seen),
            "features": torch.stack([distance(a, b, sure) for a, b in zip(of_drawn, of_real, strict=True)]).mean(),
            "means": distance(F.avg_pool2d(drawn, goal.pooled), F.avg_pool2d(x, goal.pooled), sure_of_means),
            "pattern": distance(pattern(drawn, patch), pattern(x, patch)),
        }
        total = terms["drawer"] + terms["judge"] + FEATURE_WEIGHT * terms["features"] + MEAN_WEIGHT * terms["means"]
        total = total + PATTERN_WEIGHT * terms["pattern"]
        if goal.guidance != 1:
            terms["guided"] = distance(drawn, inside(guided(start)))
            total = total + GUIDED_WEIGHT * terms["guided"]
        return {"loss": total} | terms

    return loss


def train_against(
    drawer: nn.Module,
    batch: Callable,
    data: Data,
    out: Path,
    settings: TrainSettings,
    goal: Goal,
    evaluate: Callable[[nn.Module, int, Path], None] | None = None,
) -> bool:
    """Train `drawer` in place against its former self's features and those of a network that was trained on ImageNet;
    True when done.

    Raises UserError where the package `imagenet` is not installed.
    """
    example = data(batch(np.random.default_rng(settings.seed)), torch.Generator().manual_seed(0))
    torch.manual_seed(settings.seed)
    rivals = Rivals(drawer, example, ImageNetFeatures())
    recipe = f"adversarial {model_settings_text(drawer)} {goal} "
    shown = None if evaluate is None else lambda model, step, folder: evaluate(model.drawer, step, folder)
    return train(rivals, batch, adversarial_loss(data, goal), out, settings.model_copy(update=SLOWLY), recipe, shown)
