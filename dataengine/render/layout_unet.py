"""The whole-image model's network: diffusers' conditional U-Net with attention to boxes, and its sampler."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from diffusers import ConfigMixin, FlowMatchEulerDiscreteScheduler, ModelMixin, UNet2DConditionModel
from diffusers.configuration_utils import register_to_config
from diffusers.models.attention import FeedForward
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from torch import nn
from torch.nn import functional as F

from dataengine.data.layout import Layout
from dataengine.render.control import Control
from dataengine.render.flow import draw_noise, preconditioned_velocity, sample, velocity_of
from dataengine.render.in_scene import FieldEmbedding
from dataengine.render.inpaint import Known
from dataengine.render.layout_batch import PADDED_TO, LayoutBatch, Precision, layout_batch, shape_raster

N_FREQUENCIES = 8


class BoxEncoder(nn.Module):
    """Encodes each box as one token (AeroGen, section 3.2): Fourier features of the 8 corner coordinates, concatenated
    with the class embedding, through a three-layer MLP.

    corners: "exact" takes features of order one, raw and at frequencies pi 2^k; "grid" is AeroGen's encoding of
    integers on the latent grid, at frequencies 100^(k/8) only. nulls: learned vectors where there is no box.
    """

    def __init__(
        self,
        n_classes: int,
        width: int,
        category_width: int,
        hidden: int,
        n_features: int,
        corners: Precision,
        nulls: bool,
    ):
        super().__init__()
        self.exact = corners == "exact"
        position = n_features * (2 * N_FREQUENCIES + self.exact)
        self.classes = nn.Embedding(n_classes, category_width)
        self.mlp = nn.Sequential(
            nn.Linear(position + category_width, hidden),
            nn.SiLU(),
            nn.Linear(hidden, hidden),
            nn.SiLU(),
            nn.Linear(hidden, width),
        )
        self.null_category = nn.Parameter(torch.zeros(category_width)) if nulls else None
        self.null_position = nn.Parameter(torch.zeros(position)) if nulls else None

    def waves(self, features: torch.Tensor) -> torch.Tensor:
        """Fourier features: (B, N, F) -> (B, N, position)."""
        k = torch.arange(N_FREQUENCIES, device=features.device)
        if self.exact:
            waves = features[..., None] * (torch.pi * 2.0**k)  # (B, N, F, K)
            return torch.cat([features, waves.sin().flatten(2), waves.cos().flatten(2)], -1)
        waves = features[:, :, None] * (100.0 ** (k / N_FREQUENCIES))[:, None]  # (B, N, K, F)
        return torch.stack([waves.sin(), waves.cos()], 3).flatten(2)

    def forward(self, features: torch.Tensor, categories: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        """features (B, N, F), categories (B, N, category_width), valid (B, N) bool -> (B, N, width)."""
        position = self.waves(features)
        if self.null_category is not None:
            categories = torch.where(valid[..., None], categories, self.null_category)
            position = torch.where(valid[..., None], position, self.null_position)
        return self.mlp(torch.cat([position, categories], -1))


class SelfAttention(AttnProcessor2_0):
    """diffusers' processor, which ignores the keywords of `BoxAttention`: diffusers passes them to all processors."""

    def __call__(self, attn, hidden_states, *args, box_tokens=None, box_bias=None, **kwargs) -> torch.Tensor:
        return super().__call__(attn, hidden_states, *args, **kwargs)


class BoxAttention(nn.Module):
    """Dual cross-attention (AeroGen, section 3.3): softmax(Q K_text) V_text + softmax(Q K_box) V_box with the same
    queries. A diffusers attention processor that holds the second key and value projections.

    With a bias, a pixel attends to a background token and to the boxes that cover it, weighted by their coverage;
    without one, as in AeroGen's code, every pixel attends to every token.
    """

    def __init__(self, hidden: int, cross_attention_dim: int):
        super().__init__()
        self.to_k_box = nn.Linear(cross_attention_dim, hidden, bias=False)
        self.to_v_box = nn.Linear(cross_attention_dim, hidden, bias=False)

    def __call__(
        self,
        attn: Attention,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        *,
        box_tokens: torch.Tensor,
        box_bias: dict[int, torch.Tensor] | None,
    ) -> torch.Tensor:
        """hidden_states (B, L, C); box_tokens (B, T, D); box_bias maps L to (B, L, T)."""

        def heads(x: torch.Tensor) -> torch.Tensor:
            return x.unflatten(-1, (attn.heads, -1)).transpose(1, 2)  # (B, H, L, C / H)

        query = heads(attn.to_q(hidden_states))
        text = F.scaled_dot_product_attention(
            query, heads(attn.to_k(encoder_hidden_states)), heads(attn.to_v(encoder_hidden_states))
        )
        bias = None if box_bias is None else box_bias[hidden_states.shape[1]].to(query.dtype)[:, None]  # (B, 1, L, T)
        boxes = F.scaled_dot_product_attention(
            query, heads(self.to_k_box(box_tokens)), heads(self.to_v_box(box_tokens)), attn_mask=bias
        )
        out = (text + boxes).transpose(1, 2).flatten(2)
        return attn.to_out[1](attn.to_out[0](out))


class RegionalAttention(nn.Module):
    """AeroGen's regional attention (section 3.3): adds each object's category to the features under its mask M_i,
    through attention and feed-forward: `strength * sum_i M_i f(x, c_i) + (1 - strength) x` at timesteps from
    `threshold`.

    A softmax over one key is 1, so attention adds the category's value vector to every pixel and needs neither queries
    nor keys. f acts on each pixel alone, so it is computed only where a mask is not zero.
    """

    def __init__(self, channels: int, category_width: int, strength: float = 0.2, threshold: int = 200):
        super().__init__()
        self.strength, self.threshold = strength, threshold
        self.proj_in = nn.Linear(channels, channels)
        self.to_v = nn.Linear(category_width, channels, bias=False)
        self.to_out = nn.Linear(channels, channels)
        self.norm = nn.LayerNorm(channels)
        self.ffn = FeedForward(channels)
        self.proj_out = nn.Linear(channels, channels)
        nn.init.zeros_(self.proj_out.weight), nn.init.zeros_(self.proj_out.bias)

    def forward(
        self, features: torch.Tensor, categories: torch.Tensor, masks: torch.Tensor, timesteps: torch.Tensor
    ) -> torch.Tensor:
        """features (B, C, H, W), categories (B, N, D), masks (B, N, H, W) in [0, 1], timesteps (B,) -> (B, C, H, W)."""
        image, item, row, column = masks.nonzero(as_tuple=True)  # (K,) each: an object and one of its pixels
        x = self.proj_in(features[image, :, row, column])  # (K, C)
        values = self.to_out(self.to_v(categories))  # (B, N, C)
        x = x + values[image, item]
        x = x + self.ffn(self.norm(x))
        x = self.proj_out(x) * masks[image, item, row, column, None].to(x.dtype)
        total = torch.zeros_like(features).permute(0, 2, 3, 1).contiguous()
        total = total.index_put((image, row, column), x.to(total.dtype), accumulate=True).permute(0, 3, 1, 2)
        early = (timesteps >= self.threshold)[:, None, None, None]
        return torch.where(early, self.strength * total + (1 - self.strength) * features, features)


class LayoutUNet(ModelMixin, ConfigMixin):
    """Denoiser of latents (B, C, S, S) given a `LayoutBatch` of grid G = S / patch.

    Covers the small packaged model (the defaults) and AeroGen's (configs/models/aerogen.yaml), which is Stable
    Diffusion 1.5's U-Net with three additions; every difference between them is an argument.

    classes: names it can render, in its own numbering.
    domains: data sets it was trained on, each a sensor and an appearance.
    prediction: "flow", the velocity `noise - latents`, for which the network predicts the clean latents from patches
        (Li and He 2025, "Back to basics": x-prediction) as `InSceneUNet` does; "preconditioned", the velocity from a
        correction of a linear guess (`preconditioned_velocity`); or "epsilon", the noise.
    attention_levels: levels where pixels attend to text and boxes; all but the finest if None.
    masked_attention: a pixel attends only to boxes that cover it; otherwise to all, as in AeroGen's code.
    corners, areas: "exact", or on the latent grid as in AeroGen.
    angle: adds the angle's sine and cosine, and sizes, to the tokens.
    painted_channels: width of each patch's mean box token, an extra input.
    regional: AeroGen's regional attention.
    shape_prior: silhouettes as an extra input (`layout_raster`).
    fields: names from `ACQUISITION_FIELDS`.
    reference_width: of embeddings of reference images, 0 for none.
    category_width, box_hidden: widths of the class embedding and the box encoder; if None, 1 and 2 times
        cross_attention_dim.
    heads: attention heads at all levels, or of each; if None, one per attention_head_dim channels.
    linear_projection: of Stable Diffusion 2's transformer blocks.
    padded_to: box tokens per image are a multiple of this.
    inpaints: its input has the known latents and their mask, too, as Stable Diffusion's in-painting models (Rombach et
        al. 2022, section 4.5).
    """

    @register_to_config
    def __init__(
        self,
        classes: list[str],
        domains: list[str],
        sample_size: int = 32,
        latent_channels: int = 3,
        patch: int = 2,
        block_out_channels: tuple[int, ...] = (64, 128, 160),
        layers_per_block: int = 1,
        cross_attention_dim: int = 128,
        attention_head_dim: int = 32,
        heads: int | tuple[int, ...] | None = None,
        norm_num_groups: int = 16,
        attention_levels: tuple[bool, ...] | None = None,
        prediction: Literal["flow", "preconditioned", "epsilon"] = "flow",
        masked_attention: bool = True,
        corners: Precision = "exact",
        areas: Precision = "exact",
        angle: bool = True,
        painted_channels: int = 16,
        regional: bool = False,
        shape_prior: bool = False,
        fields: tuple[str, ...] = ("altitude", "camera_angle", "night", "gsd"),
        reference_width: int = 0,
        category_width: int | None = None,
        box_hidden: int | None = None,
        padded_to: int = PADDED_TO,
        inpaints: bool = False,
        linear_projection: bool = False,
    ):
        super().__init__()
        # attention at the finest level would take most of the time; boxes are painted into the input instead
        attends = attention_levels or (False, *(True,) * (len(block_out_channels) - 1))
        conditioned = bool(fields or domains)
        extra = painted_channels + (patch**2 if shape_prior else 0)
        extra += (latent_channels + 1) * patch**2 if inpaints else 0
        self.unet = UNet2DConditionModel(
            sample_size=sample_size // patch,
            in_channels=latent_channels * patch**2 + extra,
            out_channels=latent_channels * patch**2,
            block_out_channels=block_out_channels,
            layers_per_block=layers_per_block,
            down_block_types=tuple("CrossAttnDownBlock2D" if a else "DownBlock2D" for a in attends),
            up_block_types=tuple("CrossAttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attends)),
            mid_block_type="UNetMidBlock2DCrossAttn",
            cross_attention_dim=cross_attention_dim,
            # diffusers calls the number of heads "attention_head_dim" here
            attention_head_dim=_heads(heads, block_out_channels, attention_head_dim),
            use_linear_projection=linear_projection,
            norm_num_groups=norm_num_groups,
            class_embed_type="identity" if conditioned else None,
        )
        first, category = block_out_channels[0], category_width or cross_attention_dim
        if conditioned:
            self.field_embedding = FieldEmbedding(len(fields), first * 4)
            self.domain_embedding = nn.Embedding(len(domains) + 1, first * 4)  # the last one is the learned null
        self.box_encoder = BoxEncoder(
            len(classes),
            cross_attention_dim,
            category,
            box_hidden or 2 * cross_attention_dim,
            8 if corners == "grid" or not angle else 12,
            corners,
            nulls=not masked_attention,
        )
        if masked_attention:
            self.background = nn.Parameter(torch.randn(cross_attention_dim) * 0.02)
            self.unknown = nn.Parameter(torch.randn(cross_attention_dim) * 0.02)
        if painted_channels:
            self.painted = nn.Linear(cross_attention_dim, painted_channels)
        if regional:  # goes between the first convolution and the rest, so the convolution is taken out of the U-Net
            self.conv_in, self.unet.conv_in = self.unet.conv_in, nn.Identity()
            self.regional_attention = RegionalAttention(first, category)
        if reference_width:
            self.register_buffer("reference_mean", torch.zeros(reference_width))
            self.register_buffer("reference_spread", torch.ones(reference_width))
            self.reference = nn.Linear(reference_width, cross_attention_dim)
            self.reference_null = nn.Parameter(torch.randn(cross_attention_dim) * 0.02)
        if prediction == "preconditioned":
            self.register_buffer("latent_axes", torch.eye(latent_channels * patch**2))
            self.register_buffer("latent_power", torch.ones(latent_channels * patch**2))
        self.text_null = nn.Parameter(torch.randn(cross_attention_dim) * 0.02)
        processors = {}
        for name in self.unet.attn_processors:
            hidden = self.unet.get_submodule(name.removesuffix(".processor")).to_q.out_features
            processors[name] = BoxAttention(hidden, cross_attention_dim) if "attn2" in name else SelfAttention()
        self.unet.set_attn_processor(processors)

    @property
    def grid(self) -> int:
        """Side of the raster of patches, at which pixels attend to boxes."""
        return self.config.sample_size // self.config.patch

    def standardise_references(self, embeddings: np.ndarray) -> None:
        """Set mean and spread from the training embeddings (M, R, E), to standardise all later ones."""
        flat = torch.from_numpy(embeddings.reshape(-1, embeddings.shape[-1])).float()
        self.reference_mean.copy_(flat.mean(0))
        self.reference_spread.copy_(flat.std(0).clamp(min=1e-6))

    def fit_guess(self, latents: torch.Tensor) -> None:
        """Set the covariance of patches from training latents (M, C, S, S), for "preconditioned" prediction."""
        patches = F.pixel_unshuffle(latents.float(), self.config.patch).transpose(0, 1).flatten(1)  # (D, M L)
        power, axes = torch.linalg.eigh(patches @ patches.T / patches.shape[1])
        self.latent_power.copy_(power.clamp(min=1e-3)), self.latent_axes.copy_(axes)

    def add_classes(self, names: Sequence[str], vectors: torch.Tensor) -> None:
        """Append classes with their embeddings (len(names), category_width)."""
        before = self.box_encoder.classes.weight
        weight = torch.cat([before.detach(), vectors.to(before)])
        self.box_encoder.classes = nn.Embedding.from_pretrained(weight, freeze=not before.requires_grad)
        self.register_to_config(classes=[*self.config.classes, *names])

    def layout_batch(
        self,
        layouts: Sequence[Layout],
        labels: Sequence[np.ndarray],
        domains: Sequence[int] | None = None,
        references: np.ndarray | None = None,
    ) -> LayoutBatch:
        """Layouts as tensors in this model's form; domains and references are unknown if None."""
        c = self.config
        if c.reference_width and references is None:
            references = np.full((len(layouts), 1, c.reference_width), np.nan, np.float32)
        shapes = np.stack([shape_raster(layout, c.sample_size) for layout in layouts]) if c.shape_prior else None
        return layout_batch(
            layouts, labels, [len(c.domains)] * len(layouts) if domains is None else domains, self.grid,
            corners=c.corners, areas=c.areas, angle=c.angle, padded_to=c.padded_to, fields=c.fields,
            references=references, shapes=shapes,
        )  # fmt: skip

    def box_tokens(self, batch: LayoutBatch) -> torch.Tensor:
        """(B, T, D): one token per box. With masked attention, preceded by the background token, or the null of an
        unknown layout; without, padded by AeroGen's learned nulls."""
        index = torch.arange(batch.labels.shape[1], device=batch.labels.device)
        valid = (index < batch.counts[:, None]) & batch.known[:, None]
        tokens = self.box_encoder(batch.features, self.box_encoder.classes(batch.labels), valid)
        if not self.config.masked_attention:
            return tokens
        first = torch.where(batch.known[:, None], self.background, self.unknown)[:, None]
        return torch.cat([first, tokens], 1)

    def box_bias(self, batch: LayoutBatch) -> dict[int, torch.Tensor]:
        """Half the log of the box coverage at each resolution of the U-Net: {number of pixels L: (B, L, 1 + N)}."""
        bias, covered = {}, batch.coverage * batch.known[:, None, None, None]
        for _ in self.config.block_out_channels:
            log = covered.flatten(2).transpose(1, 2).clamp(min=1e-30).log()  # (B, L, N)
            log = torch.where(log < -60, torch.full_like(log, float("-inf")), log * 0.5)
            bias[log.shape[1]] = F.pad(log, (1, 0), value=-1.0)  # the background token counts e^-1 everywhere
            covered = F.max_pool2d(covered, 2, ceil_mode=True)  # so that small boxes stay visible at coarse levels
        return bias

    def paint(self, tokens: torch.Tensor, batch: LayoutBatch) -> torch.Tensor:
        """Coverage-weighted mean of the projected tokens of each patch's boxes, (B, painted_channels, G, G)."""
        covered = batch.coverage * batch.known[:, None, None, None]
        if self.config.masked_attention:  # the first token, background or unknown, covers all
            covered = F.pad(covered, (0, 0, 0, 0, 1, 0), value=0.1)
        share = covered / covered.sum(1, keepdim=True).clamp(min=1e-6)
        return torch.einsum("bnhw,bnc->bchw", share, self.painted(tokens))

    def context(self, latents: torch.Tensor, batch: LayoutBatch, text: torch.Tensor | None) -> torch.Tensor:
        """Tokens (B, T, D) that every pixel attends to: text or its learned null, then those of reference images."""
        if text is None:
            text = self.text_null.expand(len(latents), 1, -1)
        if not self.config.reference_width:
            return text
        known = ~batch.references.isnan().any(-1, keepdim=True)
        standard = (batch.references.nan_to_num() - self.reference_mean) / self.reference_spread
        references = torch.where(known, self.reference(standard.to(text.dtype)), self.reference_null)
        return torch.cat([text, references.to(text.dtype)], 1)

    def forward(
        self,
        latents: torch.Tensor,
        timesteps: torch.Tensor,
        batch: LayoutBatch,
        text: torch.Tensor | None = None,
        known: Known | None = None,
        control: Control | None = None,
    ) -> torch.Tensor:
        """Prediction (B, C, S, S) at timesteps (B,) in [0, 1000]. text: (B, T, D), or None for its learned null. known:
        for models that in-paint; None if nothing is known. control: makes the ground follow a map."""
        c, condition = self.config, None
        if c.fields or c.domains:
            condition = self.field_embedding(batch.fields) + self.domain_embedding(batch.domains)
        tokens = self.box_tokens(batch)
        keywords = {"box_tokens": tokens, "box_bias": self.box_bias(batch) if c.masked_attention else None}
        x = F.pixel_unshuffle(latents, c.patch)
        if c.painted_channels:
            x = torch.cat([x, self.paint(tokens, batch)], 1)
        if c.shape_prior:
            x = torch.cat([x, F.pixel_unshuffle(batch.shapes[:, None].to(x.dtype), c.patch)], 1)
        if c.inpaints:
            known = known or Known(torch.zeros_like(latents), torch.ones_like(latents[:, :1]))
            x = torch.cat([x, F.pixel_unshuffle(known.channels().to(x.dtype), c.patch)], 1)
        x = x.contiguous(memory_format=torch.channels_last)
        if c.regional:
            masks = batch.coverage * batch.known[:, None, None, None]
            categories = self.box_encoder.classes(batch.labels)
            x = self.regional_attention(self.conv_in(x), categories, masks, timesteps)
        context = self.context(latents, batch, text)
        side = (
            {}
            if control is None
            else control.residuals(F.pixel_unshuffle(latents, c.patch), timesteps, context, condition)
        )
        out = self.unet(x, timesteps, context, class_labels=condition, cross_attention_kwargs=keywords, **side).sample
        if c.prediction == "preconditioned":
            patches = F.pixel_unshuffle(latents, c.patch)
            out = preconditioned_velocity(patches, out, timesteps, self.latent_axes, self.latent_power)
            return F.pixel_shuffle(out, c.patch)
        out = F.pixel_shuffle(out, c.patch)
        return velocity_of(latents, out, timesteps) if c.prediction == "flow" else out


def _heads(given: int | Sequence[int] | None, widths: Sequence[int], head_width: int) -> tuple[int, ...]:
    """Number of attention heads of each level."""
    if given is None or isinstance(given, int):
        return tuple(given or width // head_width for width in widths)
    return tuple(given)


@torch.no_grad()
def sample_latents(
    model: LayoutUNet,
    layouts: LayoutBatch,
    *,
    generators: list[torch.Generator],
    steps: int = 20,
    guidance_scale: float = 1.0,
    null: LayoutBatch | None = None,
    scheduler: FlowMatchEulerDiscreteScheduler | None = None,
    known: Known | None = None,
    few: bool = False,
    control: Control | None = None,
) -> torch.Tensor:
    """Sample latents (B, C, S, S) float32. The noise of image i comes from generators[i] alone (CPU; contract 4).

    Guidance: `null + guidance_scale * (layout - null)`; in the default null only the boxes are unknown. known: latents
    to keep outside a mask. few: sample as few-step models need it (`flow.sample_few`). control: applies with and
    without the boxes.
    """
    config = model.config
    shape = (config.latent_channels, config.sample_size, config.sample_size)
    layouts = layouts.to(model.device)
    null = layouts.unknown() if null is None else null.to(model.device)

    noise = draw_noise(generators, shape, model.device)
    conditions = {name: value for name, value in (("known", known), ("control", control)) if value is not None}

    def velocity(x: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
        with_layout = model(x, times, layouts, **conditions)
        if guidance_scale == 1.0:
            return with_layout
        without = model(x, times, null, **conditions)
        return without + guidance_scale * (with_layout - without)

    return sample(velocity, noise, steps, few=few, scheduler=scheduler, known=known)
