from __future__ import annotations

import numpy as np
import pytest
import torch

from dataengine.data.layout import Layout
from dataengine.errors import UserError

pytest.importorskip("transformers")
from toy_text import toy_tokenizer

from dataengine.judge.semantic import CLIP_MEAN, CLIP_STD, SemanticFilter
from dataengine.render.text import prompt_of

CLASSES = ("car", "ship")


def picture(label: int, rng: np.random.Generator) -> tuple[np.ndarray, Layout]:
    """Grey ground around a car, blue water around a ship."""
    image = rng.normal((110, 40)[label], 12, (32, 32, 3))
    image[..., 2] += (0, 120)[label]
    layout = Layout([[16, 16, 8, 4, 0]], [label], CLASSES, (32, 32))
    return image.clip(0, 255).astype(np.uint8), layout


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny CLIP, trained until it distinguishes the two kinds of images."""
    from transformers import CLIPConfig, CLIPModel

    folder = tmp_path_factory.mktemp("clip")
    tokenizer = toy_tokenizer(folder, 40)
    tokenizer.save_pretrained(folder)
    size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = size | {"vocab_size": 60, "max_position_embeddings": 40, "eos_token_id": 59, "bos_token_id": 58,
                   "pad_token_id": 59}  # fmt: skip
    torch.manual_seed(0)
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=size | {"image_size": 32, "patch_size": 16},
                                 projection_dim=16))  # fmt: skip
    optimizer = torch.optim.Adam(model.parameters(), 5e-4)
    rng = np.random.default_rng(0)
    for _ in range(80):
        pairs = [picture(label, rng) for label in (0, 1)]
        pixels = (np.stack([p / 255 for p, _ in pairs]) - CLIP_MEAN) / CLIP_STD
        pixels = torch.from_numpy(pixels).float().permute(0, 3, 1, 2)
        tokens = tokenizer([prompt_of(x) for _, x in pairs], padding="max_length", max_length=40, return_tensors="pt")
        loss = model(pixel_values=pixels, input_ids=tokens.input_ids, attention_mask=tokens.attention_mask,
                     return_loss=True).loss  # fmt: skip
        optimizer.zero_grad(), loss.backward(), optimizer.step()
    model.save_pretrained(folder)
    return folder


def test_real_images_pass_and_those_with_another_prompt_do_not(folder):
    rng = np.random.default_rng(1)
    semantic = SemanticFilter(folder)
    semantic.calibrate(*zip(*(picture(i % 2, rng) for i in range(40)), strict=True), pass_share=0.95)
    fresh = [picture(i % 2, rng) for i in range(20)]
    right = [semantic.failure(image, layout) for image, layout in fresh]
    wrong = [semantic.failure(image, fresh[i - 1][1]) for i, (image, _) in enumerate(fresh)]
    assert sum(not reason for reason in right) >= 16
    assert sum(not reason for reason in wrong) <= 4, "control: the prompt of the other kind"
    assert all(reason.startswith("CLIP") for reason in wrong if reason)
    semantic.threshold = -1.0
    assert not any(semantic.failure(image, fresh[i - 1][1]) for i, (image, _) in enumerate(fresh)), "mutation: off"


def test_too_few_real_images_or_a_missing_model_is_one_sentence(folder, tmp_path):
    with pytest.raises(UserError, match="20 or more real images"):
        SemanticFilter(folder).calibrate([], [], 0.95)
    with pytest.raises(UserError, match="cannot load a CLIP model"):
        SemanticFilter(tmp_path)
