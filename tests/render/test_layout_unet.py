from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import shapely
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.models.attention_processor import Attention
from toy_scenes import random_layout

from dataengine import geometry
from dataengine.errors import UserError
from dataengine.render.canvas import GeneratedCanvases
from dataengine.render.layout_batch import LayoutBatch, box_features, coverage
from dataengine.render.layout_pipeline import LayoutPipeline
from dataengine.render.layout_unet import BoxAttention, LayoutUNet
from dataengine.render.thumbnail_decoder import ThumbnailDecoder


def tiny_unet(**settings) -> LayoutUNet:
    torch.manual_seed(0)
    defaults = {"sample_size": 16, "latent_channels": 4, "block_out_channels": (16, 32), "cross_attention_dim": 16,
                "attention_head_dim": 8}  # fmt: skip
    return LayoutUNet(["car", "van"], ["toy"], **(defaults | settings)).eval()


@torch.no_grad()
def velocity(model: LayoutUNet, batch: LayoutBatch) -> torch.Tensor:
    x = torch.randn((1, 4, 16, 16), generator=torch.Generator().manual_seed(0)).expand(len(batch.known), -1, -1, -1)
    return model(x, torch.full((len(x),), 500.0), batch)


def batch_of(layouts) -> LayoutBatch:
    return tiny_unet().layout_batch(layouts, [layout.labels for layout in layouts], [0] * len(layouts))


def test_a_pixel_attends_only_to_the_boxes_that_cover_it():
    torch.manual_seed(0)
    attention = Attention(query_dim=16, cross_attention_dim=16, heads=2, dim_head=8)
    layer = BoxAttention(16, 16)
    pixels, text = torch.randn(1, 4, 16), torch.randn(1, 1, 16)
    tokens = torch.randn(1, 2, 16)  # background, one box
    bias = torch.zeros(1, 4, 2)
    bias[:, 2:, 1] = float("-inf")  # the box covers pixels 0 and 1
    moved = tokens.clone()
    moved[:, 1] += 1

    def out(tokens, bias):
        return layer(attention, pixels, text, box_tokens=tokens, box_bias={4: bias})

    change = (out(moved, bias) - out(tokens, bias)).abs().amax(-1)[0]
    assert (change[:2] > 1e-3).all()
    assert (change[2:] == 0).all()
    unmasked = (out(moved, torch.zeros_like(bias)) - out(tokens, torch.zeros_like(bias))).abs().amax(-1)[0]
    assert (unmasked > 1e-3).all(), "mutation: without the mask every pixel attends to the box"


def test_an_unknown_layout_is_not_an_empty_one():
    model = tiny_unet()
    layout = random_layout(np.random.default_rng(0))
    empty = layout.select(np.zeros(3, bool))
    known, nothing = batch_of([layout]), batch_of([empty])
    unknown = LayoutBatch(**(vars(known) | {"known": torch.tensor([False])}))
    outputs = [velocity(model, b) for b in (known, nothing, unknown)]
    for i in range(3):
        for j in range(i):
            assert (outputs[i] - outputs[j]).abs().max() > 1e-4


def test_padding_to_a_larger_layout_in_the_batch_changes_nothing():
    model = tiny_unet()
    rng = np.random.default_rng(1)
    few = random_layout(rng)
    many = replace(few, boxes=np.tile(few.boxes, (9, 1)), labels=np.tile(few.labels, 9), difficult=None, visible=None)
    alone, together = velocity(model, batch_of([few])), velocity(model, batch_of([few, many]))
    assert torch.allclose(alone[0], together[0], atol=1e-5)


def test_class_and_position_of_a_box_change_the_result():
    model = tiny_unet()
    layout = random_layout(np.random.default_rng(2))
    base = velocity(model, batch_of([layout]))
    other_class = velocity(model, batch_of([replace(layout, labels=1 - layout.labels)]))
    moved = velocity(model, batch_of([replace(layout, boxes=layout.boxes + np.float32([3, 0, 0, 0, 0]))]))
    assert (base - other_class).abs().max() > 1e-4
    assert (base - moved).abs().max() > 1e-4


def test_coverage_is_the_common_area_of_box_and_cell():
    layout = random_layout(np.random.default_rng(3))
    found = coverage(layout, 8, supersample=16)
    cell = 96 / 8
    for k, corners in enumerate(geometry.to_corners(layout.boxes)):
        box = shapely.Polygon(corners)
        for i in range(8):
            for j in range(8):
                common = box.intersection(shapely.box(j * cell, i * cell, (j + 1) * cell, (i + 1) * cell)).area
                assert found[k, i, j] == pytest.approx(common / cell**2, abs=0.03)


def test_a_box_rotated_by_half_a_turn_has_the_same_angle_features():
    layout = random_layout(np.random.default_rng(4))
    turned = replace(layout, boxes=layout.boxes + np.float32([0, 0, 0, 0, np.pi]))
    assert np.allclose(box_features(layout)[:, 8:], box_features(turned)[:, 8:], atol=1e-4)


@pytest.fixture(scope="module")
def tiny_pipeline(tmp_path_factory) -> LayoutPipeline:
    torch.manual_seed(1)
    folder = tmp_path_factory.mktemp("whole")
    unet = tiny_unet(sample_size=8, latent_channels=3)
    decoder = ThumbnailDecoder(domains=["toy"], block_out_channels=(16, 32))
    LayoutPipeline(unet, decoder, FlowMatchEulerDiscreteScheduler(), ["toy"]).save_pretrained(folder)
    return LayoutPipeline.from_pretrained(folder)


def layout_64():
    return random_layout(np.random.default_rng(5), 64)


def test_a_whole_image_depends_on_its_seed_and_not_on_its_batch(tiny_pipeline):
    layout = layout_64()
    pair = tiny_pipeline([layout, layout], [1, 2], num_inference_steps=2)
    alone = tiny_pipeline([layout], [2], num_inference_steps=2)
    assert np.abs(pair[1].astype(int) - alone[0]).max() <= 2
    assert np.abs(pair[0].astype(int) - pair[1]).max() > 5


def test_layouts_of_another_size_unknown_domains_and_classes_are_refused(tiny_pipeline):
    with pytest.raises(UserError, match="--size 64"):
        tiny_pipeline([random_layout(np.random.default_rng(0))], [0])
    with pytest.raises(UserError, match="not trained on 'mars'"):
        tiny_pipeline([layout_64()], [0], domain="mars")
    with pytest.raises(UserError, match="windmill"):
        tiny_pipeline([replace(layout_64(), classes=("windmill", "car"))], [0])


def test_generated_scenes_are_empty_and_grey_where_the_sensor_is(tiny_pipeline):
    scene = GeneratedCanvases(tiny_pipeline, "toy", steps=2).draw([layout_64()], [3])[0]
    assert len(scene.existing) == 0
    assert np.ptp(scene.image, axis=2).max() == 0
    coloured = tiny_pipeline([layout_64()], [3], None, num_inference_steps=2)[0]
    assert np.ptp(coloured, axis=2).max() > 0, "control: an unknown domain keeps its colours"


def test_the_ground_is_generated_with_the_objects_or_without(tiny_pipeline):
    layouts = [layout_64(), random_layout(np.random.default_rng(8), 64)]

    def differ(occupied: bool) -> bool:
        scenes = GeneratedCanvases(tiny_pipeline, "toy", steps=2, occupied=occupied).draw(layouts, [4, 4])
        return bool((scenes[0].image != scenes[1].image).any())

    assert differ(occupied=True)
    assert not differ(occupied=False), "control: an empty scene depends on its seed alone"


def test_an_object_is_painted_where_it_lies_and_nowhere_else():
    model = tiny_unet()
    layout = replace(random_layout(np.random.default_rng(7)), boxes=[[30, 30, 20, 20, 0]], labels=[0], difficult=None,
                     visible=None)  # fmt: skip
    empty = layout.select(np.zeros(1, bool))
    with torch.no_grad():
        painted, nothing = (model.paint(model.box_tokens(b), b)[0] for b in (batch_of([layout]), batch_of([empty])))
    changed = (painted - nothing).abs().amax(0) > 1e-4  # patches of 12 pixels
    assert changed[1:4, 1:4].any()
    assert not changed[:, 5:].any()
    assert not changed[5:].any()
