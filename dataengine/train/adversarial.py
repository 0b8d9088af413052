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
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from dataengine.render.flow import few_sigmas
from dataengine.train.flow_loss import Batch, Data, Example, Loss, quick_backward
from dataengine.train.loop import TrainSettings, model_settings_text, train

SLOWLY = {"momentum": 0.0, "weight_decay": 0.0, "gradient_clip": 5.0}  # each side answers the other's last step
NOISE_MEAN, NOISE_SPREAD = -1.2, 1.0  # of the logit of the share of noise under which pictures are judged
FEATURE_WEIGHT = 0.5
MEAN_WEIGHT = 4.0
HEAD_WIDTH = 64


class Standard(nn.Module):
    """Features (B, C, h, w) less their mean, over their spread, both (C,) and fixed."""

    def __init__(self, mean: torch.Tensor, spread: torch.Tensor):
        super().__init__()
        self.register_buffer("mean", mean.detach()[:, None, None].clone())
        self.register_buffer("spread", spread.detach()[:, None, None].clamp(min=1e-3))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return (features - self.mean) / self.spread


class Judge(nn.Module):
    """Real or drawn, for each place of each block's features of a frozen denoiser, as (B, L) logits."""

    def __init__(self, denoiser: nn.Module, example: Example):
        """example: from which the shapes of the features are seen."""
        super().__init__()
        self.denoiser = copy.deepcopy(denoiser).eval().requires_grad_(False)
        unet = self.denoiser.unet
        self.blocks = [*unet.down_blocks, unet.mid_block, *unet.up_blocks]
        seen = torch.full((len(example.clean),), 0.2)
        features = [f.float() for f in self.features(example.clean, seen, example.conditions)]
        # One scale for all pictures: normalised each on its own, a drawn one could have any contrast.
        self.heads = nn.ModuleList(
            nn.Sequential(
                Standard(f.mean((0, 2, 3)), f.std((0, 2, 3))), nn.Conv2d(f.shape[1], HEAD_WIDTH, 1), nn.LeakyReLU(0.2),
                nn.Conv2d(HEAD_WIDTH, 1, 1),
            )
            for f in features
        )  # fmt: skip

    def train(self, mode: bool = True) -> Judge:
        super().train(mode)
        self.denoiser.eval()
        return self

    def features(self, noisy: torch.Tensor, sigma: torch.Tensor, conditions: tuple) -> list[torch.Tensor]:
        """Outputs of the denoiser's blocks, (B, C, h, w) each."""
        found: list[torch.Tensor] = []

        def keep(block, given, output) -> None:
            found.append(output[0] if isinstance(output, tuple) else output)

        hooks = [block.register_forward_hook(keep) for block in self.blocks]
        try:
            self.denoiser(noisy, sigma * 1000, *conditions)
        finally:
            for hook in hooks:
                hook.remove()
        return found

    def forward(self, features: list[torch.Tensor]) -> torch.Tensor:
        return torch.cat([head(f).flatten(1) for head, f in zip(self.heads, features, strict=True)], 1).float()


class Rivals(nn.Module):
    """The renderer and its judge, as one model for the training loop. The renderer learns more slowly: it would else
    find what deceives the judge, such as a pattern of squares, sooner than that learns to see it."""

    rate_shares = {"drawer": 0.1}  # noqa: RUF012

    def __init__(self, drawer: nn.Module, example: Example):
        super().__init__()
        self.judge = Judge(drawer, example)
        self.drawer = drawer


def adversarial_loss(data: Data, steps: int, pooled: int) -> Loss:
    """One loss for both: the drawer's terms leave the judge as it is, and the other way round.

    steps: those of the later sampling (`sample_few`), each of which is trained. pooled: means over squares of
    so many pixels, and the judge's features, are to be those of the real picture, the more the less noise it is drawn
    from. An example's region (B, 1, H, W) is all that is drawn; the rest is as it was.
    """

    sigmas = torch.tensor(few_sigmas(steps))

    def loss(rivals: Rivals, batch: Batch, generator: torch.Generator) -> dict[str, torch.Tensor]:
        example = data(batch, generator)
        x, judge = example.clean, rivals.judge

        def normal(*shape: int) -> torch.Tensor:
            return torch.randn(shape, generator=generator, device=x.device)

        sigma = sigmas.to(x.device)[torch.randint(steps, (len(x),), generator=generator, device=x.device)]
        s = sigma[:, None, None, None]
        start = (1 - s) * x + s * normal(*x.shape)
        seen = torch.sigmoid(NOISE_MEAN + NOISE_SPREAD * normal(len(x)))
        v, veil = seen[:, None, None, None], normal(*x.shape)
        with quick_backward(x):
            drawn = start - s * rivals.drawer(start, sigma * 1000, *example.conditions).float()
            if example.region is not None:
                drawn = x + example.region * (drawn - x)
            of_drawn = judge.features((1 - v) * drawn + v * veil, seen, example.conditions)
        with torch.no_grad():
            of_real = judge.features((1 - v) * x + v * veil, seen, example.conditions)
        judge.heads.requires_grad_(False)
        about_drawn = judge(of_drawn)
        judge.heads.requires_grad_(True)
        about_real, about_seen = judge(of_real), judge([f.detach() for f in of_drawn])
        sure = 1 - 0.9 * sigma  # of what is to be seen

        def distance(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            return (sure * (a.float() - b.float()).abs().mean((1, 2, 3))).mean() / b.float().abs().mean().clamp(min=0.1)

        terms = {
            "drawer": F.softplus(about_real.detach() - about_drawn).mean(),
            "judge": F.softplus(about_seen - about_real).mean(),
            "features": torch.stack([distance(a, b) for a, b in zip(of_drawn, of_real, strict=True)]).mean(),
            "means": distance(F.avg_pool2d(drawn, pooled), F.avg_pool2d(x, pooled)),
        }
        total = terms["drawer"] + terms["judge"] + FEATURE_WEIGHT * terms["features"] + MEAN_WEIGHT * terms["means"]
        return {"loss": total} | terms

    return loss


def train_against(
    drawer: nn.Module,
    batch: Callable,
    data: Data,
    out: Path,
    settings: TrainSettings,
    steps: int,
    pooled: int,
    evaluate: Callable[[nn.Module, int, Path], None] | None = None,
) -> bool:
    """Train `drawer` in place, to need so many steps, against its former self's features; True when done."""
    example = data(batch(np.random.default_rng(settings.seed)), torch.Generator().manual_seed(0))
    torch.manual_seed(settings.seed)
    rivals = Rivals(drawer, example)
    recipe = f"adversarial {model_settings_text(drawer)} steps={steps} "
    shown = None if evaluate is None else lambda model, step, folder: evaluate(model.drawer, step, folder)
    return train(
        rivals, batch, adversarial_loss(data, steps, pooled), out, settings.model_copy(update=SLOWLY), recipe, shown
    )
