"""Adversarial training: a model of few steps draws as clearly as real pictures are."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from toy_stripes import drawn, striped, trained

from dataengine.train.adversarial import Rivals, adversarial_loss
from dataengine.train.decoder import crop_example
from dataengine.train.flow_loss import Example

PERIOD = 4  # of stripes of which thumbnails show nothing


@pytest.fixture(scope="module")
def blurred():
    return trained(PERIOD)


def rivals_of(model) -> Rivals:
    torch.manual_seed(0)
    batch = striped(np.random.default_rng(0), 4, PERIOD)
    return Rivals(copy.deepcopy(model), crop_example(batch, torch.Generator().manual_seed(0)))


def sharpened(model, adversarial: bool, steps: int = 150):
    """The model trained on against its judge, or, as the mutation, by the loss's other terms alone."""
    rivals = rivals_of(model)
    sides = {"lr": 4e-4, "params": rivals.drawer.parameters()}, {"lr": 4e-3, "params": rivals.judge.heads.parameters()}
    optimizer = torch.optim.AdamW(sides, betas=(0.0, 0.99), weight_decay=0)
    loss = adversarial_loss(crop_example, steps=1, pooled=8)
    generator, rng = torch.Generator().manual_seed(0), np.random.default_rng(0)
    for _ in range(steps):
        losses = loss(rivals, striped(rng, 16, PERIOD), generator)
        (losses["loss"] if adversarial else losses["means"] + losses["features"]).backward()
        optimizer.step()
        optimizer.zero_grad()
    return rivals.drawer.eval()


def clear(pictures: torch.Tensor) -> float:
    """Share of pixels that are as bright or as dark as the stripes are, and not between them."""
    return float(((pictures.abs() - 0.7).abs() < 0.25).float().mean())


def test_one_step_is_clear_after_it_and_neither_before_nor_without_a_judge(blurred):
    before, after = clear(drawn(blurred, 1, PERIOD)), clear(drawn(sharpened(blurred, True), 1, PERIOD))
    without = clear(drawn(sharpened(blurred, False), 1, PERIOD))
    assert clear(striped(np.random.default_rng(1), 16, PERIOD)["images"]) == 1
    assert before < 0.5
    assert after > 0.7
    assert without < 0.5, "mutation: without the judge"


def test_neither_side_is_moved_by_the_others_terms(blurred):
    rivals = rivals_of(blurred)
    loss = adversarial_loss(crop_example, steps=1, pooled=8)

    def moved(*names: str) -> tuple[bool, bool]:
        rivals.zero_grad()
        losses = loss(rivals, striped(np.random.default_rng(0), 4, PERIOD), torch.Generator().manual_seed(0))
        sum(losses[name] for name in names).backward()
        sides = rivals.drawer, rivals.judge
        return tuple(any(p.grad is not None and p.grad.abs().max() > 0 for p in s.parameters()) for s in sides)

    assert moved("drawer", "features", "means") == (True, False)
    assert moved("judge") == (False, True)


def test_what_lies_outside_the_region_is_as_it_was(blurred):
    """Mutation: without the region, the drawer's term reaches its pixels everywhere."""
    rivals, seen = rivals_of(blurred), []
    judged = rivals.judge.features
    rivals.judge.features = lambda noisy, *rest: (seen.append(noisy), judged(noisy, *rest))[1]
    half = torch.zeros(4, 1, 32, 32)
    half[..., :16] = 1

    def data(batch, generator, region=half) -> Example:
        e = crop_example(batch, generator)
        return Example(e.clean, e.conditions, e.weight, region=region)

    for region, same in ((half, True), (torch.ones_like(half), False)):
        seen.clear()
        loss = adversarial_loss(lambda b, g, region=region: data(b, g, region), steps=1, pooled=8)
        loss(rivals, striped(np.random.default_rng(0), 4, PERIOD), torch.Generator().manual_seed(0))
        of_drawn, of_real = seen
        assert torch.allclose(of_drawn[..., 16:], of_real[..., 16:], atol=1e-5) == same
        assert not torch.allclose(of_drawn[..., :16], of_real[..., :16], atol=0.1)
