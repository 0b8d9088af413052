"""A CLIP tokenizer of a few letters."""

from __future__ import annotations

import json
from pathlib import Path


def toy_tokenizer(folder: Path, length: int = 16):
    """Reads words letter by letter; 60 tokens, the last two begin and end a text."""
    from transformers import CLIPTokenizer

    letters = "abcdefghijklmnopqrstuvwxyz:,"
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), "?", "<|unk|>", "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return CLIPTokenizer.from_pretrained(folder, model_max_length=length)


def toy_stable_diffusion(folder: Path) -> Path:
    """A Stable Diffusion pipeline's parts, random and tiny: latents 1/2 of the pixels, text of 16 tokens."""
    import torch
    from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(0)
    (folder / "tokenizer").mkdir(parents=True)
    toy_tokenizer(folder / "tokenizer").save_pretrained(folder / "tokenizer")
    UNet2DConditionModel(
        sample_size=16, block_out_channels=(32, 64), layers_per_block=1, cross_attention_dim=32, attention_head_dim=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    ).save_pretrained(folder / "unet")  # fmt: skip
    AutoencoderKL(
        block_out_channels=(32, 32), down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2, latent_channels=4,
    ).save_pretrained(folder / "vae")  # fmt: skip
    config = CLIPTextConfig(
        vocab_size=60, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=16, bos_token_id=58, eos_token_id=59, pad_token_id=59,
    )  # fmt: skip
    CLIPTextModel(config).save_pretrained(folder / "text_encoder")
    DDPMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type="epsilon"
    ).save_pretrained(folder / "scheduler")
    return folder


def toy_satellite_model(folder: Path) -> Path:
    """A single-image model of DiffusionSat with random weights, as its authors' training saves it."""
    import torch
    from diffusers import DDIMScheduler

    from dataengine.render.diffusionsat import SatUNet

    toy_stable_diffusion(folder)
    torch.manual_seed(1)
    unet = SatUNet(
        sample_size=16, block_out_channels=(32, 64), layers_per_block=1, cross_attention_dim=32, attention_head_dim=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    )  # fmt: skip
    unet.save_pretrained(folder / "unet")
    DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False,
        steps_offset=1,
    ).save_pretrained(folder / "scheduler")  # fmt: skip
    return folder


def toy_clip(folder: Path) -> Path:
    """A random CLIP that reads pictures of 32 px and texts of 40 tokens."""
    import torch
    from transformers import CLIPConfig, CLIPModel

    folder.mkdir(parents=True, exist_ok=True)
    toy_tokenizer(folder, 40).save_pretrained(folder)
    size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = size | {"vocab_size": 60, "max_position_embeddings": 40, "eos_token_id": 59, "bos_token_id": 58,
                   "pad_token_id": 59}  # fmt: skip
    torch.manual_seed(0)
    config = CLIPConfig(text_config=text, vision_config=size | {"image_size": 32, "patch_size": 16}, projection_dim=16)
    CLIPModel(config).save_pretrained(folder)
    return folder
