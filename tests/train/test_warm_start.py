from __future__ import annotations

import numpy as np
import torch

from dataengine.data.layout import Layout
from dataengine.render.layout_unet import LayoutUNet
from dataengine.render.thumbnail_decoder import ThumbnailDecoder
from dataengine.train.warm_start import copy_weights

SMALL = {"sample_size": 16, "block_out_channels": (16, 32), "cross_attention_dim": 32, "attention_head_dim": 16}


def prediction(model: LayoutUNet, name: str) -> torch.Tensor:
    number = list(model.config.classes).index(name)
    layout = Layout(np.float32([[60, 60, 40, 30, 0.3]]), [0], (name,), (128, 128))
    domain = list(model.config.domains).index("toy")
    batch = model.layout_batch([layout], [np.array([number])], [domain])
    batch.shapes.zero_()
    noise = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return model.eval()(noise, torch.tensor([500.0]), batch)


def test_a_model_with_more_inputs_and_other_classes_predicts_what_the_old_one_predicted():
    torch.manual_seed(0)
    old = LayoutUNet(["car", "ship"], ["toy"], **SMALL)
    new = LayoutUNet(["ship", "plane", "car"], ["other", "toy"], shape_prior=True, **SMALL)
    before = prediction(new, "ship")
    copy_weights(new, old)
    assert torch.allclose(prediction(new, "ship"), prediction(old, "ship"), atol=1e-5)
    assert torch.allclose(prediction(new, "car"), prediction(old, "car"), atol=1e-5)
    assert not torch.allclose(prediction(new, "car"), prediction(old, "ship"), atol=1e-5), (
        "control: rows are matched by name"
    )
    assert not torch.allclose(before, prediction(old, "ship"), atol=1e-2), "mutation: without copied weights"


def test_a_decoder_with_classes_starts_from_one_without():
    torch.manual_seed(0)
    old = ThumbnailDecoder(domains=["toy"], block_out_channels=(16, 32)).eval()
    new = ThumbnailDecoder(domains=["toy"], block_out_channels=(16, 32), classes=["car"]).eval()
    images, thumbnails = torch.randn(1, 3, 32, 32), torch.randn(1, 3, 4, 4)
    rasters = torch.zeros(1, 3, 32, 32, dtype=torch.int8)
    inputs = images, torch.tensor([500.0]), thumbnails, torch.tensor([0])
    copy_weights(new, old)
    with torch.no_grad():
        assert torch.allclose(new(*inputs, rasters), old(*inputs), atol=1e-5)
