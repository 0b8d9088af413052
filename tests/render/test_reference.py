from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from toy_scenes import random_layout

from dataengine.errors import UserError
from dataengine.render.layout_unet import LayoutUNet
from dataengine.render.reference import ReferenceSampler, load_encoder


@pytest.fixture(scope="module")
def encoder_file(tmp_path_factory):
    """An encoder whose feature map is the mean colour of 8 x 8 squares."""
    file = tmp_path_factory.mktemp("encoder") / "colours.onnx"
    node = helper.make_node("AveragePool", ["images"], ["features"], kernel_shape=[8, 8], strides=[8, 8])
    shapes = {"images": [1, 3, 32, 32], "features": [1, 3, 4, 4]}
    inputs, outputs = (helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in shapes.items())
    model = helper.make_model(
        helper.make_graph([node], "g", [inputs], [outputs]), opset_imports=[helper.make_opsetid("", 17)]
    )
    model.ir_version = 9
    onnx.save(model, file)
    return file


def test_an_onnx_encoder_gives_one_token_for_each_part_of_the_image(encoder_file):
    image = np.zeros((64, 64, 3), np.uint8)
    image[:32, 32:] = (200, 0, 0)
    image[32:, :32] = (0, 100, 0)
    tokens = load_encoder(encoder_file, grid=2)([image])
    assert tokens.shape == (1, 4, 3)
    assert np.allclose(tokens[0], [[0, 0, 0], [200, 0, 0], [0, 100, 0], [0, 0, 0]], atol=1)
    assert np.allclose(load_encoder(encoder_file)([image])[0, 0], [50, 25, 0], atol=1)


def test_a_transformers_model_is_an_encoder(tmp_path):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.ViTConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
                                    image_size=32, patch_size=16)  # fmt: skip
    transformers.ViTModel(config).save_pretrained(tmp_path)
    one, other = np.zeros((40, 40, 3), np.uint8), np.full((40, 40, 3), 255, np.uint8)
    tokens = load_encoder(tmp_path)([one, other])
    assert tokens.shape == (2, 1, 16)
    assert np.abs(tokens[0] - tokens[1]).max() > 1e-3


def test_an_invalid_encoder_is_refused(tmp_path):
    with pytest.raises(UserError, match="no encoder"):
        load_encoder(tmp_path)
    with pytest.raises(UserError, match="does not exist"):
        load_encoder(tmp_path / "missing.onnx")


def test_sampled_references_resemble_the_real_ones_without_copying_them():
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(3, 12))
    real = (rng.normal(size=(300, 3)) * [3, 1, 0.3] @ mixing + 5).reshape(300, 1, 12).astype(np.float32)
    sampled = ReferenceSampler(real).draw(range(600))
    assert sampled.shape == (600, 1, 12)
    a, b = real.reshape(300, -1), sampled.reshape(600, -1)
    assert np.abs(a.mean(0) - b.mean(0)).max() < 0.35 * a.std(0).max()
    assert np.allclose(np.cov(a.T).diagonal(), np.cov(b.T).diagonal(), rtol=0.35)
    shuffled = np.stack([rng.permutation(column) for column in a.T], 1)  # control: the same numbers, unrelated
    assert (
        np.abs(np.corrcoef(a.T) - np.corrcoef(b.T)).max()
        < 0.2
        < np.abs(np.corrcoef(a.T) - np.corrcoef(shuffled.T)).max()
    )
    assert min(np.abs(b[:50, None] - a[None]).max(2).min(1)) > 1e-3, "none is a copy"
    again = ReferenceSampler(real).draw([3])
    assert np.array_equal(again[0], sampled[3]), "each depends on its seed alone"
    with pytest.raises(UserError, match="at least 3"):
        ReferenceSampler(real[:2])


@torch.no_grad()
def test_a_reference_changes_the_prediction_and_an_unknown_one_uses_the_learned_null():
    torch.manual_seed(0)
    model = LayoutUNet(["car", "van"], ["toy"], sample_size=16, block_out_channels=(16, 32), cross_attention_dim=16,
                       attention_head_dim=8, reference_width=3).eval()  # fmt: skip
    layout, x, t = random_layout(np.random.default_rng(0)), torch.randn(1, 3, 16, 16), torch.tensor([500.0])

    def out(references) -> torch.Tensor:
        return model(x, t, model.layout_batch([layout], [layout.labels], [0], references))

    dark, bright, unknown = out(np.zeros((1, 1, 3))), out(np.ones((1, 1, 3))), out(None)
    assert (dark - bright).abs().max() > 1e-4
    assert (dark - unknown).abs().max() > 1e-4, "unknown is not zero"
    model.reference_null += 1
    assert torch.equal(dark, out(np.zeros((1, 1, 3)))), "control: the null has no effect on a known reference"
    assert (unknown - out(None)).abs().max() > 1e-4
    layout = replace(layout, boxes=layout.boxes + np.float32([4, 0, 0, 0, 0]))
    assert (dark - out(np.zeros((1, 1, 3)))).abs().max() > 1e-4, "the layout still has an effect"
