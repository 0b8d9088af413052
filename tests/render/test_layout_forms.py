"""The arguments of `LayoutUNet` in which AeroGen's form and ours differ: each one's effect."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from toy_scenes import random_layout

from dataengine import geometry
from dataengine.data.layout import Layout
from dataengine.render.layout_batch import outlines, shape_raster
from dataengine.render.layout_unet import LayoutUNet

AEROGEN = {"masked_attention": False, "corners": "grid", "areas": "grid", "angle": False, "painted_channels": 0,
           "regional": True, "padded_to": 15, "patch": 1}  # fmt: skip


def unet(**arguments) -> LayoutUNet:
    torch.manual_seed(0)
    defaults = {"sample_size": 16, "latent_channels": 4, "block_out_channels": (16, 32), "cross_attention_dim": 16,
                "attention_head_dim": 8, "attention_levels": (True, True), "patch": 1}  # fmt: skip
    model = LayoutUNet(["airplane", "car"], [], **(defaults | arguments)).eval()
    if "regional" in arguments:
        torch.nn.init.normal_(model.regional_attention.proj_out.weight, std=0.3)
    return model


def boxes(*rows, size: int = 128) -> Layout:
    return Layout(rows, [0] * len(rows), ("airplane", "car"), (size, size))


@torch.no_grad()
def change(model: LayoutUNet, one: Layout, other: Layout) -> float:
    """How much the prediction changes from one layout to another."""
    x, t = torch.randn((1, 4, 16, 16), generator=torch.Generator().manual_seed(1)), torch.tensor([600.0])
    outs = [model(x, t, model.layout_batch([layout], [layout.labels])) for layout in (one, other)]
    return float((outs[0] - outs[1]).abs().max())


def test_a_shift_below_a_cell_has_an_effect_with_exact_corners_only():
    one, other = boxes([60, 60, 28, 12, 0]), boxes([60.6, 60, 28, 12, 0])
    assert change(unet(), one, other) > 1e-4
    assert change(unet(corners="grid", areas="grid", painted_channels=0), one, other) == 0


def test_a_thin_box_is_painted_in_either_form():
    thin, nothing = boxes([60, 60, 6, 3, 0.2]), boxes()
    for areas in ("grid", "exact"):
        assert unet(areas=areas).layout_batch([thin], [thin.labels]).coverage.sum() > 0
        assert change(unet(areas=areas), thin, nothing) > 1e-4


def test_more_than_fifteen_boxes_have_an_effect_in_either_form():
    rng = np.random.default_rng(0)
    rows = [[*rng.uniform(20, 108, 2), 20, 9, rng.uniform(-1.5, 1.5)] for _ in range(40)]
    other = [*rows[:-1], [*(rng.uniform(20, 108, 2)), 20, 9, 0.2]]
    for arguments in ({}, AEROGEN):
        assert change(unet(**arguments), boxes(*rows), boxes(*other)) > 1e-5


def test_the_angle_distinguishes_a_square_box_from_one_rotated_by_45_degrees():
    one, other = boxes([60, 60, 20, 20, 0.0]), boxes([60, 60, 20, 20, 0.5])
    features = [unet().layout_batch([layout], [layout.labels]).features[0, 0] for layout in (one, other)]
    assert (features[0][8:10] - features[1][8:10]).abs().max() > 0.3
    assert unet(angle=False).layout_batch([one], [one.labels]).features.shape[-1] == 8


@torch.no_grad()
def test_regional_attention_acts_on_cells_of_boxes_and_early_timesteps_only():
    model = unet(regional=True)
    layout = boxes([40, 40, 40, 40, 0])
    batch = model.layout_batch([layout], [layout.labels])
    features, categories = torch.randn(2, 16, 16, 16), model.box_encoder.classes(batch.labels)
    masks = batch.coverage.expand(2, -1, -1, -1)
    out = model.regional_attention(features, categories.expand(2, -1, -1), masks, torch.tensor([500, 199]))
    inside = masks[0].amax(0) > 0
    assert torch.equal(out[1], features[1]), "no effect below timestep 200"
    assert torch.allclose(out[0][:, ~inside], 0.8 * features[0][:, ~inside])
    assert (out[0] - 0.8 * features[0])[:, inside].abs().max() > 0.01
    less = model.regional_attention(features, categories.expand(2, -1, -1), 0.5 * masks, torch.tensor([500, 500]))
    assert torch.allclose((less[0] - 0.8 * features[0]) * 2, out[0] - 0.8 * features[0], atol=1e-5)


def test_silhouettes_lie_inside_their_boxes_and_do_not_fill_them():
    layout = random_layout(np.random.default_rng(0), 96)
    layout = replace(layout, classes=("airplane", "car"))
    for polygon, box, name in zip(outlines(layout), layout.boxes, layout.names(), strict=True):
        ends = np.column_stack([polygon, np.full((len(polygon), 2), 0.01), np.zeros(len(polygon))])
        assert (geometry.intersection(ends.astype(np.float32), box[None]) > 0.4e-4).mean() > 0.8
        x, y = polygon.T
        area = abs(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1))) / 2
        assert (0.2 if name == "airplane" else 0.8) < area / (box[2] * box[3]) < 1
    raster = shape_raster(layout, 48)
    assert raster.max() <= 1
    assert (raster > 0.9).any()
    assert shape_raster(layout.select([]), 48).max() == 0


@pytest.mark.parametrize("shape_prior", [True, False])
def test_the_silhouette_has_an_effect_and_unknown_layouts_have_none(shape_prior):
    model = unet(shape_prior=shape_prior)
    layout = boxes([60, 60, 40, 20, 0.3])
    batch = model.layout_batch([layout], [layout.labels])
    assert bool(batch.shapes.numel()) == shape_prior
    if shape_prior:
        assert batch.shapes.max() == 1
        assert batch.unknown().shapes.max() == 0
