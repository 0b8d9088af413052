"""The flow-matching samplers with stand-in velocities whose integral is known."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from toy_scenes import random_layout

from dataengine.render.flow import Start, few_sigmas, sample_few
from dataengine.render.in_scene import FieldEmbedding, sample_frames
from dataengine.render.layout_batch import layout_batch
from dataengine.render.layout_unet import sample_latents


class FrameVelocity(nn.Module):
    """Velocity 1 for the null class, 3 for every other."""

    config, null = SimpleNamespace(frame_size=8), 9

    def forward(self, x, times, surroundings, hole, box, labels, fields):
        return torch.where(labels == self.null, 1.0, 3.0)[:, None, None, None].expand_as(x)


class LatentVelocity(nn.Module):
    """Velocity 1 for the unknown layout, 3 for every other."""

    config, device = SimpleNamespace(latent_channels=4, sample_size=8), torch.device("cpu")

    def forward(self, x, times, layouts):
        return torch.where(layouts.known, 3.0, 1.0)[:, None, None, None].expand_as(x)


def generators() -> list[torch.Generator]:
    return [torch.Generator().manual_seed(i) for i in range(2)]


def frames(scale: float, steps: int) -> torch.Tensor:
    zeros = torch.zeros(2, 3, 8, 8)
    return sample_frames(
        FrameVelocity(), zeros, zeros[:, :1], zeros[:, :1], torch.tensor([0, 1]), torch.zeros(2, 8),
        generators=generators(), steps=steps, guidance_scale=scale,
    )  # fmt: skip


def latents(scale: float, steps: int) -> torch.Tensor:
    layouts = [random_layout(np.random.default_rng(i)) for i in range(2)]
    batch = layout_batch(layouts, [x.labels for x in layouts], [0, 0], 8)
    return sample_latents(LatentVelocity(), batch, generators=generators(), steps=steps, guidance_scale=scale)


@pytest.mark.parametrize(("sample", "shape"), [(frames, (3, 8, 8)), (latents, (4, 8, 8))])
@pytest.mark.parametrize("scale", [1.0, 0.0, 2.5])
def test_guidance_is_null_plus_scale_times_the_difference_to_null(sample, shape, scale):
    noise = torch.stack([torch.randn(shape, generator=g) for g in generators()])
    wanted = noise - (1 + scale * (3 - 1))  # the times run from 1 to 0, and the velocity is constant
    for steps in (1, 7):
        assert torch.allclose(sample(scale, steps), wanted, atol=1e-4)


def test_guidance_uses_the_given_null():
    layouts = [random_layout(np.random.default_rng(i)) for i in range(2)]
    batch = layout_batch(layouts, [x.labels for x in layouts], [0, 0], 8)

    def drawn(null):
        return sample_latents(LatentVelocity(), batch, generators=generators(), guidance_scale=2.5, null=null)

    noise = torch.stack([torch.randn((4, 8, 8), generator=g) for g in generators()])
    assert torch.allclose(drawn(batch), noise - 3, atol=1e-4), (
        "with the layout itself as the null, guidance has no effect"
    )
    assert torch.equal(drawn(batch.unknown()), drawn(None)), "control: the unknown layout is the default null"
    assert not torch.allclose(drawn(None), noise - 3, atol=1e-4)


def test_an_unknown_field_uses_its_learned_null_and_not_zero():
    torch.manual_seed(0)
    embedding = FieldEmbedding(3, 16)
    known, unknown = torch.tensor([[0.3, 0.0, -1.0]]), torch.tensor([[0.3, torch.nan, -1.0]])
    with torch.no_grad():
        assert (embedding(known) - embedding(unknown)).abs().max() > 1e-3
        before = embedding(unknown)
        embedding.nulls[1] += 5
        assert torch.allclose(embedding(unknown), before + 5, atol=1e-5)
        still = embedding(known)
        embedding.nulls[0] += 5
        assert torch.equal(embedding(known), still), "control: the null of a known field has no effect"


class PerfectModel:
    """A few-step model that knows the image: its velocity leads there from any noise."""

    def __init__(self, image: torch.Tensor):
        self.image, self.seen = image, []

    def __call__(self, x: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        self.seen.append((float(timesteps[0]) / 1000, x))
        return (x - self.image) / (timesteps[0] / 1000)


def test_few_step_sampling_uses_new_noise_at_the_trained_levels():
    image, generator = torch.full((1, 3, 64, 64), 2.0), torch.Generator().manual_seed(0)
    model = PerfectModel(image)
    drawn = sample_few(model, lambda: torch.randn((1, 3, 64, 64), generator=generator), 4)
    assert torch.allclose(drawn, image, atol=1e-4)
    shares = [share for share, _ in model.seen]
    assert shares == pytest.approx([1, 0.9, 0.75, 0.5]), "the levels of few_sigmas, which are trained"
    assert few_sigmas(4) == pytest.approx(shares)
    noises = [(x - (1 - share) * image) / share for share, x in model.seen]
    for noise in noises:
        assert float(noise.std()) == pytest.approx(1, abs=0.03)
    for a, b in itertools.pairwise(noises):
        correlation = float(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1])
        assert abs(correlation) < 0.05, "each step has new noise; Euler steps would keep it, with a correlation of 1"


@pytest.mark.parametrize(("strength", "expected"), [(0.3, [0.3]), (0.5, [0.5]), (0.8, [0.8, 0.75, 0.5])])
def test_few_step_sampling_starts_from_images_at_the_given_noise_level(strength, expected):
    image, generator = torch.full((1, 3, 64, 64), 2.0), torch.Generator().manual_seed(0)
    model, begun = PerfectModel(image), torch.full((1, 3, 64, 64), -1.0)
    sample_few(model, lambda: torch.randn((1, 3, 64, 64), generator=generator), 4, start=Start(begun, strength))
    assert [share for share, _ in model.seen] == pytest.approx(expected)
    first = model.seen[0][1]
    assert float(first.mean()) == pytest.approx((1 - strength) * -1.0, abs=0.02)
    assert float(first.std()) == pytest.approx(strength, abs=0.02)


def test_few_step_sampling_keeps_known_content():
    generator = torch.Generator().manual_seed(0)
    model, known = PerfectModel(torch.full((1, 1, 8, 8), 2.0)), torch.full((1, 1, 8, 8), -1.0)
    left = torch.zeros(1, 1, 8, 8)
    left[..., :4] = 1

    def settle(clean: torch.Tensor) -> torch.Tensor:
        return left * clean + (1 - left) * known

    drawn = sample_few(model, lambda: torch.randn((1, 1, 8, 8), generator=generator), 3, settle)
    assert drawn[..., 4:].eq(-1).all()
    assert torch.allclose(drawn[..., :4], torch.tensor(2.0), atol=1e-4)
