"""Training of the full-size renderer (AeroGen's model, or ours) on the latents of Stable Diffusion's autoencoder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from accelerate import PartialState
from diffusers import AutoencoderKL, DDPMScheduler, DPMSolverMultistepScheduler, UNet2DConditionModel
from torch.nn import functional as F

from dataengine.data.images import read_or_fail
from dataengine.data.layout import Dataset, Layout
from dataengine.data.presets import config_file
from dataengine.errors import UserError, install
from dataengine.files import read_yaml
from dataengine.layouts.windows import scaled
from dataengine.render.augment import augment, random_window
from dataengine.render.latent_pipeline import LatentPipeline
from dataengine.render.layout_batch import LayoutBatch
from dataengine.render.layout_unet import LayoutUNet
from dataengine.render.placement import class_numbers
from dataengine.render.text import check_tokenizer, embed_names, padding_of, prompt_of, words
from dataengine.train.conditions import drop_metadata, forget_layouts
from dataengine.train.loop import TrainSettings, model_settings_text, save_once, train

Trainable = Literal["paper", "all", "lora"]
# parameters that Stable Diffusion does not have: AeroGen's, and those of our other forms
NEW_PARAMETERS = ("box_encoder", "regional_attention", "processor", "background", "unknown", "painted",
"field_embedding",
       "domain_embedding", "reference", "conv_in")  # fmt: skip


@dataclass(frozen=True)
class Base:
    """The parts of a Stable Diffusion pipeline."""

    unet: UNet2DConditionModel
    vae: AutoencoderKL
    text_encoder: torch.nn.Module
    tokenizer: object
    scheduler: DDPMScheduler


def load_base(source: str) -> Base:
    """Load a Stable Diffusion 1.x or 2.x pipeline from a folder or a hub id. Raises UserError if a part is missing."""
    try:
        from transformers import CLIPTextModel, CLIPTokenizer
    except ImportError:
        raise UserError(f"full-size training needs: {install('text')}.") from None
    try:
        base = Base(
            UNet2DConditionModel.from_pretrained(source, subfolder="unet", use_safetensors=True),
            AutoencoderKL.from_pretrained(source, subfolder="vae", use_safetensors=True).eval().requires_grad_(False),
            CLIPTextModel.from_pretrained(source, subfolder="text_encoder", use_safetensors=True)
            .eval()
            .requires_grad_(False),
            CLIPTokenizer.from_pretrained(source, subfolder="tokenizer"),
            DDPMScheduler.from_pretrained(source, subfolder="scheduler"),
        )
    except (OSError, ValueError, TypeError, KeyError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"--base {source}: is no Stable Diffusion pipeline ({reason}); use a folder or a hub id "
                        "such as stable-diffusion-v1-5/stable-diffusion-v1-5.") from None  # fmt: skip
    reader = base.text_encoder.config
    check_tokenizer(base.tokenizer, reader.vocab_size, f"--base {source}", padding_of(reader))
    return base


def model_arguments(form: str) -> dict:
    """Arguments of `LayoutUNet` from a packaged preset (configs/models) or a YAML file."""
    file = Path(form) if form.endswith((".yaml", ".yml")) else config_file("models", form)
    if file is None or not file.exists():
        raise UserError(f"--form {form}: no such model; use aerogen, full, or a YAML file.")
    return read_yaml(file)


def from_base(base: Base, classes: list[str], domains: list[str], form: dict, sample_size: int) -> LayoutUNet:
    """A `LayoutUNet` of this form, initialised with the base's weights. Parameters that the base lacks start at zero or
    at random. Class vectors come from the text encoder and stay fixed, so that classes can be added later."""
    c = base.unet.config
    if base.scheduler.config.get("prediction_type", "epsilon") != "epsilon":
        raise UserError(
            f"--base: it predicts {base.scheduler.config.prediction_type}, not noise, as Stable Diffusion 2.1 of 768 "
            "px does; use a 1.x model, or stable-diffusion-2-1-base."
        )
    heads = c.attention_head_dim
    model = LayoutUNet(
        classes,
        domains if form.get("fields") else [],
        sample_size=sample_size,
        latent_channels=c.in_channels,
        block_out_channels=list(c.block_out_channels),
        layers_per_block=c.layers_per_block,
        cross_attention_dim=c.cross_attention_dim,
        category_width=c.cross_attention_dim,
        heads=heads if isinstance(heads, int) else list(heads),
        linear_projection=bool(c.use_linear_projection),
        norm_num_groups=c.norm_num_groups,
        attention_levels=["CrossAttn" in name for name in c.down_block_types],
        **form,
    )
    weights = base.unet.state_dict()
    expected = model.unet.state_dict()
    first = model.conv_in if form.get("regional") else model.unet.conv_in
    with torch.no_grad():
        first.weight.zero_()  # channels that the base lacks, such as painted boxes
        first.weight[:, : c.in_channels] = weights.pop("conv_in.weight")
        first.bias.copy_(weights.pop("conv_in.bias"))
    missing = [n for n in expected if n not in weights and not n.startswith("conv_in") and "processor" not in n]
    if missing:
        raise UserError(f"--base: its denoiser lacks {missing[0]}; use a Stable Diffusion 1.x or 2.x pipeline.")
    model.unet.load_state_dict({n: v for n, v in weights.items() if n in expected}, strict=False)
    vectors = embed_names([words(name) for name in classes], base.tokenizer, base.text_encoder)
    model.box_encoder.classes.weight.data.copy_(vectors)
    return model


def set_trainable(model: LayoutUNet, which: Trainable, rank: int = 16) -> None:
    """Set which parameters are trained. paper: new ones and all transformer blocks. all: every one. lora: new ones, and
    low-rank updates (peft) of the attention projections. Class vectors are never trained."""
    if which == "lora":
        try:
            from peft import LoraConfig
        except ImportError:
            raise UserError(f"LoRA needs: {install('lora')}.") from None
        targets = ["to_q", "to_k", "to_v", "to_out.0"]
        model.unet.add_adapter(
            LoraConfig(r=rank, lora_alpha=rank, init_lora_weights="gaussian", target_modules=targets)
        )
    parts = (*NEW_PARAMETERS, *{"paper": ("transformer_blocks",), "lora": ("lora_",), "all": ("",)}[which])
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(any(part in name for part in parts))
    model.box_encoder.classes.weight.requires_grad_(False)
    model.text_null.requires_grad_(False)  # the null text is the empty prompt


def window_sampler(
    datasets: list[Dataset], size: int, scale: float
) -> Callable[[np.random.Generator], tuple[np.ndarray, Layout, int]]:
    """A function rng -> window: pixels uint8 (size, size, 3), layout, and number of the data set.

    scale: applied to images before a window is cut; 0.64 fits DIOR's 800 pixels into 512, as in AeroGen.
    """
    import cv2

    samples = [(number, sample) for number, dataset in enumerate(datasets) for sample in dataset]
    if not samples:
        raise UserError("the training data has no images.")

    def sample_window(rng: np.random.Generator) -> tuple[np.ndarray, Layout, int]:
        number, sample = samples[rng.integers(len(samples))]
        pixels = read_or_fail(sample)
        layout = scaled(sample.layout, scale)
        if scale != 1:
            pixels = cv2.resize(pixels, layout.size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
        pixels, layout = augment(pixels, layout, rng, scale=(1.0, 1.0)) if rng.random() < 0.5 else (pixels, layout)
        return *random_window(pixels, layout, size, rng), number

    return sample_window


def snr_weight(scheduler: DDPMScheduler, timesteps: torch.Tensor, gamma: float) -> torch.Tensor:
    """Min-SNR weight of a noise-prediction loss, min(SNR, gamma) / SNR (Hang et al. 2023, eq. 5), (B,)."""
    alphas = scheduler.alphas_cumprod.to(timesteps.device)[timesteps]
    snr = alphas / (1 - alphas)
    return snr.clamp(max=gamma) / snr


def noise_loss(base: Base, foreground_weight: float, snr_gamma: float | None):
    """Mean squared error of the predicted noise, weighted by foreground and by min-SNR (`snr_weight`)."""

    def loss(model: torch.nn.Module, batch: dict[str, torch.Tensor], generator: torch.Generator) -> dict:
        batch = dict(batch)
        pixels, tokens = batch.pop("pixels"), batch.pop("tokens")
        layouts = LayoutBatch(**batch)
        with torch.no_grad():
            posterior = base.vae.encode(pixels).latent_dist
            latents = posterior.sample(generator) * base.vae.config.scaling_factor
            text = base.text_encoder(tokens).last_hidden_state
        noise = torch.randn(latents.shape, generator=generator, device=latents.device)
        n_timesteps = base.scheduler.config.num_train_timesteps
        timesteps = torch.randint(0, n_timesteps, (len(latents),), generator=generator, device=latents.device)
        noisy = base.scheduler.add_noise(latents, noise, timesteps)
        error = (model(noisy, timesteps, layouts, text).float() - noise).square().mean(1)  # (B, S, S)
        weight = (
            1
            + (foreground_weight - 1)
            * F.interpolate(layouts.coverage.amax(1, keepdim=True), size=error.shape[-2:])[:, 0]
        )
        each = (weight * error).sum((1, 2)) / weight.sum((1, 2))
        if snr_gamma is not None:
            each = each * snr_weight(base.scheduler, timesteps, snr_gamma)
        return {"loss": each.mean(), "mse": error.mean()}

    return loss


def make_batch(
    model: LayoutUNet,
    sample_window: Callable,
    tokenizer,
    length: int,
    batch_size: int,
    null_layout: float,
    null_text: float = 0.1,
) -> Callable[[np.random.Generator], dict[str, torch.Tensor]]:
    """A function rng -> batch; each condition is independently replaced by its null (contract 7)."""

    def batch(rng: np.random.Generator) -> dict[str, torch.Tensor]:
        pixels, layouts, numbers = zip(*(sample_window(rng) for _ in range(batch_size)), strict=True)
        labels = [class_numbers(layout, model.config.classes) for layout in layouts]
        tensors = model.layout_batch(layouts, labels, numbers if model.config.domains else None)
        forget_layouts(tensors, rng.random(batch_size) < null_layout)
        drop_metadata(tensors, model.config.fields, 0.1, rng)
        prompts = ["" if rng.random() < null_text else prompt_of(layout) for layout in layouts]
        tokens = tokenizer(prompts, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
        images = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2) / 127.5 - 1
        return {"pixels": images, "tokens": tokens.input_ids, **vars(tensors)}

    return batch


def train_latents(
    datasets: list[Dataset],
    classes: list[str],
    base: Base,
    form: dict,
    out: Path,
    settings: TrainSettings,
    *,
    size: int = 512,
    scale: float = 1.0,
    trainable: Trainable = "paper",
    rank: int = 16,
    gradient_checkpointing: bool = False,
    snr_gamma: float | None = 5.0,
    foreground_weight: float = 2.0,
    null_layout: float = 0.1,
) -> LatentPipeline:
    """Train a model and write a `LatentPipeline` to `out/pipeline`.

    null_layout: probability of the null layout; 0 in AeroGen. foreground_weight: 1 in AeroGen. scale, size: see
    `window_sampler`. Runs on several GPUs under `accelerate launch`; the batch size is then per process.
    """
    ratio = 2 ** (len(base.vae.config.block_out_channels) - 1)
    if size % (8 * ratio):
        raise UserError(f"--size {size}: must be a multiple of {8 * ratio}.")
    torch.manual_seed(settings.seed)
    names = [dataset.name for dataset in datasets]
    model = from_base(base, classes, names, form, size // ratio)
    set_trainable(model, trainable, rank)
    if gradient_checkpointing:
        model.unet.enable_gradient_checkpointing()
    device = PartialState().device  # this process's, of several GPUs
    base.vae.to(device), base.text_encoder.to(device)
    length = base.text_encoder.config.max_position_embeddings
    sample_window = window_sampler(datasets, size, scale)
    batch = make_batch(model, sample_window, base.tokenizer, length, settings.batch_size, null_layout)
    recipe = f"latents {model_settings_text(model)} size={size} scale={scale} trainable={trainable} rank={rank} "
    recipe += f"snr={snr_gamma} foreground={foreground_weight} null={null_layout} "
    train(model, batch, noise_loss(base, foreground_weight, snr_gamma), out, settings, recipe)
    if trainable == "lora":
        model.unet.fuse_lora()
        model.unet.unload_lora()
    scheduler = DPMSolverMultistepScheduler.from_config(base.scheduler.config, algorithm_type="dpmsolver++")
    pipeline = LatentPipeline(
        model, base.vae, base.text_encoder, base.tokenizer, scheduler,
        dropped_in_training=["text", "layout"] if null_layout else ["text"], classes_from_text=True,
    )  # fmt: skip
    save_once(pipeline, out / "pipeline")
    return pipeline
