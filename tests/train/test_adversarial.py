"""Adversarial training: a model of few steps draws as sharply as real pictures are, and follows what is asked."""

from __future__ import annotations

import copy
from functools import partial

import numpy as np
import pytest
import torch
from toy_stripes import drawn, striped, trained

from dataengine.render.layout_raster import NOTHING
from dataengine.train.adversarial import Discriminator, Rivals, adversarial_loss, crop_planes, frame_planes
from dataengine.train.decoder import crop_example
from dataengine.train.flow_loss import Example

PLANES = partial(crop_planes, n_classes=1, n_domains=1)
PERIOD = 4  # of stripes of which thumbnails show nothing
CHANNELS = 3 + 3 + 3 + 2 + 2


@pytest.fixture(scope="module")
def blurred():
    return trained(PERIOD)


def sharpened(model, adversarial: bool, steps: int = 150):
    """The model trained on against a discriminator, or, as the mutation, by the loss's other terms alone."""
    torch.manual_seed(0)
    rivals = Rivals(copy.deepcopy(model), Discriminator(CHANNELS, widths=(16, 32, 48)))
    slow, quick = rivals.drawer.parameters(), rivals.discriminator.parameters()
    optimizer = torch.optim.AdamW(
        [{"params": slow, "lr": 4e-4}, {"params": quick, "lr": 2e-3}], betas=(0.0, 0.99), weight_decay=0
    )
    loss = adversarial_loss(crop_example, PLANES, feature_weight=0.0)
    generator, rng = torch.Generator().manual_seed(0), np.random.default_rng(0)
    for _ in range(steps):
        losses = loss(rivals, striped(rng, 16, PERIOD), generator)
        total = losses["loss"] if adversarial else losses["means"]
        total.backward()
        optimizer.step()
        optimizer.zero_grad()
    return rivals.drawer.eval()


def clear(pictures: torch.Tensor) -> float:
    """Share of pixels that are as bright or as dark as the stripes are, and not between them."""
    return float(((pictures.abs() - 0.7).abs() < 0.25).float().mean())


def test_one_step_is_clear_after_it_and_neither_before_nor_without_a_discriminator(blurred):
    before, after = clear(drawn(blurred, 1, PERIOD)), clear(drawn(sharpened(blurred, True), 1, PERIOD))
    without = clear(drawn(sharpened(blurred, False), 1, PERIOD))
    assert clear(striped(np.random.default_rng(1), 16, PERIOD)["images"]) == 1
    assert before < 0.5
    assert after > 0.7
    assert without < 0.5, "mutation: without the discriminator"


def test_neither_side_is_moved_by_the_others_terms(blurred):
    torch.manual_seed(0)
    rivals = Rivals(copy.deepcopy(blurred), Discriminator(CHANNELS, widths=(16, 32, 48)))
    loss = adversarial_loss(crop_example, PLANES)

    def moved(*names: str) -> tuple[bool, bool]:
        rivals.zero_grad()
        losses = loss(rivals, striped(np.random.default_rng(0), 4), torch.Generator().manual_seed(0))
        sum(losses[name] for name in names).backward()
        sides = rivals.drawer, rivals.discriminator
        return tuple(any(p.grad is not None and p.grad.abs().max() > 0 for p in s.parameters()) for s in sides)

    assert moved("drawer", "features", "means") == (True, False)
    assert moved("discriminator", "steepness") == (False, True)


def test_only_the_hole_of_a_frame_is_judged():
    hole = torch.zeros(2, 1, 24, 24)
    hole[:, :, 6:18, 6:18] = 1
    frames = torch.rand(2, 3, 24, 24)
    example = Example(frames, (frames * (1 - hole), hole, hole, torch.tensor([0, 1]), torch.zeros(2, 1)), hole)
    planes, region = frame_planes(example, 3)
    assert region is hole
    assert planes[0, 2].eq(1).all()
    assert planes[1, 2].eq(0).all()
    assert planes[1, 3].eq(1).all(), "the class, everywhere"


def test_the_discriminator_is_told_of_boxes_and_of_the_data_set():
    batch = striped(np.random.default_rng(0), 2)
    batch["rasters"][1, 0, 4:8, 4:8] = 0
    generator = torch.Generator().manual_seed(0)
    planes, _ = PLANES(crop_example(batch, generator))
    nothing, of_class = planes[:, 3], planes[:, 5]
    assert of_class[1, 4:8, 4:8].eq(1).all()
    assert of_class[1].sum() == 16
    assert nothing[0].eq(1).all()
    assert NOTHING == -2, "planes are numbered from it on"
