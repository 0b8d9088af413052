"""Names and shapes of AeroGen's checkpoint at any width."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch


def _norm(name: str, width: int) -> dict:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def _linear(name: str, n_in: int, n_out: int, bias: bool = True) -> dict:
    return {f"{name}.weight": (n_out, n_in)} | ({f"{name}.bias": (n_out,)} if bias else {})


def _conv(name: str, n_in: int, n_out: int, kernel: int = 3) -> dict:
    return {f"{name}.weight": (n_out, n_in, kernel, kernel), f"{name}.bias": (n_out,)}


def _resblock(name: str, n_in: int, n_out: int, time: int) -> dict:
    shapes = _norm(f"{name}.in_layers.0", n_in) | _conv(f"{name}.in_layers.2", n_in, n_out)
    shapes |= _linear(f"{name}.emb_layers.1", time, n_out)
    shapes |= _norm(f"{name}.out_layers.0", n_out) | _conv(f"{name}.out_layers.3", n_out, n_out)
    return shapes | (_conv(f"{name}.skip_connection", n_in, n_out, 1) if n_in != n_out else {})


def _feed_forward(name: str, width: int) -> dict:
    return _linear(f"{name}.net.0.proj", width, 8 * width) | _linear(f"{name}.net.2", 4 * width, width)


def _transformer(name: str, width: int, context: int) -> dict:
    block = f"{name}.transformer_blocks.0"
    shapes = _norm(f"{name}.norm", width) | _conv(f"{name}.proj_in", width, width, 1)
    shapes |= _conv(f"{name}.proj_out", width, width, 1) | _feed_forward(f"{block}.ff", width)
    for attention, keys in (("attn1", width), ("attn2", context)):
        shapes |= _linear(f"{block}.{attention}.to_q", width, width, bias=False)
        for part in ("to_k", "to_v", "to_k_control", "to_v_control"):
            shapes |= _linear(f"{block}.{attention}.{part}", keys, width, bias=False)
        shapes |= _linear(f"{block}.{attention}.to_out.0", width, width)
    for i in (1, 2, 3):
        shapes |= _norm(f"{block}.norm{i}", width)
    return shapes


def unet_shapes(width: int, context: int) -> dict:
    name, time = "model.diffusion_model", 4 * width
    widths, regional = [width, 2 * width, 4 * width, 4 * width], "model.diffusion_model.maskcrossattention"
    shapes = _linear(f"{name}.time_embed.0", width, time) | _linear(f"{name}.time_embed.2", time, time)
    shapes |= _conv(f"{name}.input_blocks.0.0", 4, width)
    for i in (1, 2, 3):
        shapes |= _norm(f"{regional}.norm{i}", width)
    shapes |= _feed_forward(f"{regional}.ffn", width) | _linear(f"{regional}.proj_in", width, width)
    shapes |= _linear(f"{regional}.proj_out", width, width)
    shapes |= _linear(f"{regional}.crossattn.to_q", width, width, bias=False)
    for part in ("to_k", "to_v"):
        shapes |= _linear(f"{regional}.crossattn.{part}", context, width, bias=False)
    shapes |= _linear(f"{regional}.crossattn.to_out.0", width, width)
    kept, now, i = [width], width, 1
    for level, out in enumerate(widths):
        for _ in range(2):
            shapes |= _resblock(f"{name}.input_blocks.{i}.0", now, out, time)
            if level < 3:
                shapes |= _transformer(f"{name}.input_blocks.{i}.1", out, context)
            now, i = out, i + 1
            kept.append(now)
        if level < 3:
            shapes |= _conv(f"{name}.input_blocks.{i}.0.op", now, now)
            kept.append(now)
            i += 1
    for part in (0, 2):
        shapes |= _resblock(f"{name}.middle_block.{part}", now, now, time)
    shapes |= _transformer(f"{name}.middle_block.1", now, context)
    i = 0
    for level, out in reversed(list(enumerate(widths))):
        for k in range(3):
            shapes |= _resblock(f"{name}.output_blocks.{i}.0", now + kept.pop(), out, time)
            now = out
            if level < 3:
                shapes |= _transformer(f"{name}.output_blocks.{i}.1", now, context)
            if level and k == 2:
                shapes |= _conv(f"{name}.output_blocks.{i}.{2 if level < 3 else 1}.conv", now, now)
            i += 1
    return shapes | _norm(f"{name}.out.0", now) | _conv(f"{name}.out.2", now, 4)


def box_shapes(category: int, hidden: int, context: int) -> dict:
    name = "condition_tokenizer"
    shapes = {f"{name}.null_text_feature": (category,), f"{name}.null_position_feature": (128,)}
    shapes |= _linear(f"{name}.linears.0", category + 128, hidden) | _linear(f"{name}.linears.2", hidden, hidden)
    return shapes | _linear(f"{name}.linears.4", hidden, context)


def _vae_resblock(name: str, n_in: int, n_out: int) -> dict:
    shapes = _norm(f"{name}.norm1", n_in) | _conv(f"{name}.conv1", n_in, n_out)
    shapes |= _norm(f"{name}.norm2", n_out) | _conv(f"{name}.conv2", n_out, n_out)
    return shapes | (_conv(f"{name}.nin_shortcut", n_in, n_out, 1) if n_in != n_out else {})


def _vae_middle(name: str, width: int) -> dict:
    shapes = _vae_resblock(f"{name}.block_1", width, width) | _vae_resblock(f"{name}.block_2", width, width)
    shapes |= _norm(f"{name}.attn_1.norm", width)
    for part in ("q", "k", "v", "proj_out"):
        shapes |= _conv(f"{name}.attn_1.{part}", width, width, 1)
    return shapes


def vae_shapes(width: int) -> dict:
    name, widths = "first_stage_model", [width, 2 * width, 4 * width, 4 * width]
    shapes = _conv(f"{name}.encoder.conv_in", 3, width)
    now = width
    for level, out in enumerate(widths):
        for block in range(2):
            shapes |= _vae_resblock(f"{name}.encoder.down.{level}.block.{block}", now, out)
            now = out
        if level < 3:
            shapes |= _conv(f"{name}.encoder.down.{level}.downsample.conv", now, now)
    shapes |= _vae_middle(f"{name}.encoder.mid", now) | _norm(f"{name}.encoder.norm_out", now)
    shapes |= _conv(f"{name}.encoder.conv_out", now, 8) | _conv(f"{name}.decoder.conv_in", 4, now)
    shapes |= _vae_middle(f"{name}.decoder.mid", now)
    for level, out in reversed(list(enumerate(widths))):
        for block in range(3):
            shapes |= _vae_resblock(f"{name}.decoder.up.{level}.block.{block}", now, out)
            now = out
        if level:
            shapes |= _conv(f"{name}.decoder.up.{level}.upsample.conv", now, now)
    shapes |= _norm(f"{name}.decoder.norm_out", now) | _conv(f"{name}.decoder.conv_out", now, 3)
    return shapes | _conv(f"{name}.quant_conv", 8, 8, 1) | _conv(f"{name}.post_quant_conv", 4, 4, 1)


def text_shapes(width: int, layers: int, words: int, length: int) -> dict:
    name = "cond_stage_model.transformer.text_model"
    shapes = {
        f"{name}.embeddings.token_embedding.weight": (words, width),
        f"{name}.embeddings.position_embedding.weight": (length, width),
        f"{name}.embeddings.position_ids": (1, length),
    }
    for i in range(layers):
        one = f"{name}.encoder.layers.{i}"
        for part in ("k_proj", "v_proj", "q_proj", "out_proj"):
            shapes |= _linear(f"{one}.self_attn.{part}", width, width)
        shapes |= _norm(f"{one}.layer_norm1", width) | _norm(f"{one}.layer_norm2", width)
        shapes |= _linear(f"{one}.mlp.fc1", width, 4 * width) | _linear(f"{one}.mlp.fc2", 4 * width, width)
    return shapes | _norm(f"{name}.final_layer_norm", width)


def published_shapes() -> dict:
    """Those of the published checkpoint."""
    shapes = unet_shapes(320, 768) | box_shapes(768, 512, 768) | vae_shapes(128)
    return shapes | text_shapes(768, 12, 49408, 77)


def tiny_shapes(width: int = 32, context: int = 64) -> dict:
    shapes = unet_shapes(width, context) | box_shapes(context, 24, context) | vae_shapes(32)
    return shapes | text_shapes(context, 2, 60, 16)


def write_tiny(folder: Path, checkpoint: str = "aerogen.ckpt", vectors: str = "category_embeddings.npy") -> None:
    """A checkpoint of `tiny_shapes` and class vectors of AeroGen's 20 classes, both random."""
    torch.save({"state_dict": random_state(tiny_shapes())}, folder / checkpoint)
    np.save(folder / vectors, np.random.default_rng(0).normal(size=(20, 64)).astype(np.float32))


def import_tiny(folder: Path):
    """The pipeline of `write_tiny`, of images of 128 px."""
    from toy_text import toy_tokenizer

    from dataengine.render.aerogen_import import import_aerogen

    write_tiny(folder)
    (folder / "tokenizer").mkdir()
    tokenizer = toy_tokenizer(folder / "tokenizer")
    return import_aerogen(folder / "aerogen.ckpt", folder / "category_embeddings.npy", tokenizer, 16)


def random_state(shapes: dict, seed: int = 0) -> dict[str, torch.Tensor]:
    """Values of a size that keeps the numbers of a deep network of order one."""
    g, state = torch.Generator().manual_seed(seed), {}
    for name, shape in shapes.items():
        if name.endswith("position_ids"):
            state[name] = torch.arange(shape[-1])[None]
        elif len(shape) == 1 and name.endswith("weight"):  # a norm's
            state[name] = 1 + 0.1 * torch.randn(shape, generator=g)
        else:
            fan_in = torch.Size(shape[1:]).numel() if len(shape) > 1 else 100
            state[name] = torch.randn(shape, generator=g) / fan_in**0.5
    return state
