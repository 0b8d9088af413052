"""The whole-image denoiser: diffusers' conditional U-Net whose pixels attend to the boxes that cover them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from diffusers import ConfigMixin, ModelMixin, UNet2DConditionModel
from diffusers.configuration_utils import register_to_config
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from torch import nn
from torch.nn import functional as F

from dataengine import geometry
from dataengine.data.layout import Layout
from dataengine.render.conditions import FieldEmbedding
from dataengine.render.flow import velocity_of

ACQUISITION_FIELDS = ("altitude", "camera_angle", "night", "gsd")
N_FREQUENCIES = 8
PAINTED_CHANNELS = 16
PADDED_TO = 32  # boxes: few sizes of tensors, for which a compiled model is compiled anew


def acquisition_fields(layout: Layout) -> np.ndarray:
    """(len(ACQUISITION_FIELDS),) float32 of order one, `nan` where unknown."""
    a = layout.acquisition
    values = (
        None if a.altitude_m is None else a.altitude_m / 100,
        None if a.camera_angle_deg is None else a.camera_angle_deg / 90,
        None if a.night is None else float(a.night),
        None if a.gsd_m is None else float(np.log2(a.gsd_m)),
    )
    return np.array([np.nan if v is None else v for v in values], np.float32)


def box_features(layout: Layout) -> np.ndarray:
    """(N, 12) float32: the 8 corner coordinates over the image size at full precision, sine and cosine of twice
    the angle (a box turned by half a turn is the same box), and log sizes."""
    corners = geometry.to_corners(layout.boxes) / np.float32(layout.size)  # (N, 4, 2)
    theta = layout.boxes[:, 4]
    sizes = np.log2(np.maximum(layout.boxes[:, 2:4], 1) / max(layout.size)) / 4
    twice = np.stack([np.sin(2 * theta), np.cos(2 * theta)], 1)
    return np.concatenate([corners.reshape(-1, 8), twice, sizes], 1).astype(np.float32)


def coverage(layout: Layout, grid: int, supersample: int = 4) -> np.ndarray:
    """Share of each cell of a grid x grid raster that each box covers, (N, grid, grid) float32, by point sampling."""
    n = grid * supersample
    centres = (np.arange(n, dtype=np.float32) + 0.5) / n
    x, y = centres[None, None] * layout.size[0], centres[None, :, None] * layout.size[1]
    cx, cy, w, h, theta = (layout.boxes[:, i, None, None] for i in range(5))
    along = (x - cx) * np.cos(theta) + (y - cy) * np.sin(theta)
    across = -(x - cx) * np.sin(theta) + (y - cy) * np.cos(theta)
    inside = (np.abs(along) <= w / 2) & (np.abs(across) <= h / 2)
    covered = inside.reshape(-1, grid, supersample, grid, supersample).mean((2, 4), dtype=np.float32)
    # a box that falls between the sample points still belongs to the cell of its centre
    ix = np.clip((layout.boxes[:, 0] / layout.size[0] * grid).astype(int), 0, grid - 1)
    iy = np.clip((layout.boxes[:, 1] / layout.size[1] * grid).astype(int), 0, grid - 1)
    index = np.arange(len(layout))
    covered[index, iy, ix] = np.maximum(covered[index, iy, ix], 1 / supersample**2)
    return covered


@dataclass(frozen=True)
class LayoutBatch:
    """Layouts as tensors, padded to one number of boxes N, a multiple of PADDED_TO.

    features (B, N, 12), labels (B, N) int64, coverage (B, N, G, G) with 0 in padding, known (B,) bool: False is the
    null layout (unknown, not empty), fields (B, len(ACQUISITION_FIELDS)), domains (B,) int64.
    """

    features: torch.Tensor
    labels: torch.Tensor
    coverage: torch.Tensor
    known: torch.Tensor
    fields: torch.Tensor
    domains: torch.Tensor

    def to(self, device: torch.device) -> LayoutBatch:
        """The same on another device."""
        return LayoutBatch(**{name: value.to(device) for name, value in vars(self).items()})


def layout_batch(layouts: list[Layout], labels: list[np.ndarray], domains: list[int], grid: int) -> LayoutBatch:
    """Pad layouts into tensors. labels[i] are the layout's labels in the model's numbering; grid is the latent side."""
    b, most = len(layouts), max([1, *(len(layout) for layout in layouts)])
    n = -(-most // PADDED_TO) * PADDED_TO
    features, numbers = np.zeros((b, n, 12), np.float32), np.zeros((b, n), np.int64)
    covered = np.zeros((b, n, grid, grid), np.float32)
    for i, layout in enumerate(layouts):
        k = len(layout)
        if k:
            features[i, :k], numbers[i, :k], covered[i, :k] = box_features(layout), labels[i], coverage(layout, grid)
    return LayoutBatch(
        torch.from_numpy(features),
        torch.from_numpy(numbers),
        torch.from_numpy(covered),
        torch.ones(b, dtype=torch.bool),
        torch.from_numpy(np.stack([acquisition_fields(layout) for layout in layouts])),
        torch.as_tensor(domains, dtype=torch.int64),
    )


class BoxEncoder(nn.Module):
    """Box features and class to one token a box (AeroGen, section 3.2: Fourier features of the 8 corner coordinates
    with the class embedding through a three-layer MLP), at full precision and with frequencies 2^k."""

    def __init__(self, n_classes: int, width: int):
        super().__init__()
        self.classes = nn.Embedding(n_classes, width)
        self.mlp = nn.Sequential(
            nn.Linear(12 * (2 * N_FREQUENCIES + 1) + width, 2 * width),
            nn.SiLU(),
            nn.Linear(2 * width, 2 * width),
            nn.SiLU(),
            nn.Linear(2 * width, width),
        )

    def forward(self, features: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """(B, N, 12), (B, N) -> (B, N, width)."""
        frequencies = torch.pi * 2.0 ** torch.arange(N_FREQUENCIES, device=features.device)
        waves = features[..., None] * frequencies  # (B, N, 12, K)
        fourier = torch.cat([features, waves.sin().flatten(2), waves.cos().flatten(2)], -1)
        return self.mlp(torch.cat([fourier, self.classes(labels)], -1))


class SelfAttention(AttnProcessor2_0):
    """diffusers' own, told of the keywords that are meant for `BoxAttention`: diffusers hands them to all."""

    def __call__(self, attn, hidden_states, *args, box_tokens=None, box_bias=None, **kwargs) -> torch.Tensor:
        return super().__call__(attn, hidden_states, *args, **kwargs)


class BoxAttention(nn.Module):
    """Dual cross-attention (AeroGen, section 3.3): softmax(Q K_text) V_text + softmax(Q K_box) V_box with the same
    queries. The box softmax runs over the boxes that cover the pixel, weighed by how much of it they cover, and a
    background token. An attention processor of diffusers that holds the second key and value projections.
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
        box_bias: dict[int, torch.Tensor],
    ) -> torch.Tensor:
        """hidden_states (B, L, C); box_tokens (B, 1 + N, D); box_bias maps L to (B, L, 1 + N)."""

        def heads(x: torch.Tensor) -> torch.Tensor:
            return x.unflatten(-1, (attn.heads, -1)).transpose(1, 2)  # (B, H, L, C / H)

        query = heads(attn.to_q(hidden_states))
        text = F.scaled_dot_product_attention(
            query, heads(attn.to_k(encoder_hidden_states)), heads(attn.to_v(encoder_hidden_states))
        )
        bias = box_bias[hidden_states.shape[1]].to(query.dtype)[:, None]  # (B, 1, L, 1 + N)
        boxes = F.scaled_dot_product_attention(
            query, heads(self.to_k_box(box_tokens)), heads(self.to_v_box(box_tokens)), attn_mask=bias
        )
        out = (text + boxes).transpose(1, 2).flatten(2)
        return attn.to_out[1](attn.to_out[0](out))


class LayoutUNet(ModelMixin, ConfigMixin):
    """Denoiser of latents (B, C, S, S) given a `LayoutBatch` of grid G = S / patch.

    Gives the flow-matching velocity `noise - latents`. The network itself predicts the clean latents from patches of
    them (Li and He 2025, "Back to basics": x-prediction), as `InSceneUNet` does.

    classes: names it can draw, in its own numbering. domains: the data sets it was trained on (a sensor and a look).
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
    ):
        super().__init__()
        levels = len(block_out_channels)
        self.unet = UNet2DConditionModel(
            sample_size=sample_size // patch,
            in_channels=latent_channels * patch**2 + PAINTED_CHANNELS,
            out_channels=latent_channels * patch**2,
            block_out_channels=block_out_channels,
            layers_per_block=layers_per_block,
            # attention at the finest level would take most of the time; there, boxes are painted into the input
            down_block_types=("DownBlock2D", *("CrossAttnDownBlock2D",) * (levels - 1)),
            up_block_types=(*("CrossAttnUpBlock2D",) * (levels - 1), "UpBlock2D"),
            mid_block_type="UNetMidBlock2DCrossAttn",
            cross_attention_dim=cross_attention_dim,
            # diffusers calls the number of heads "attention_head_dim" here
            attention_head_dim=tuple(width // attention_head_dim for width in block_out_channels),
            norm_num_groups=16,
            class_embed_type="identity",
        )
        width = block_out_channels[0] * 4
        self.field_embedding = FieldEmbedding(len(ACQUISITION_FIELDS), width)
        self.domain_embedding = nn.Embedding(len(domains) + 1, width)  # the last one is the learned null
        self.box_encoder = BoxEncoder(len(classes), cross_attention_dim)
        self.background = nn.Parameter(torch.randn(cross_attention_dim) * 0.02)
        self.unknown = nn.Parameter(torch.randn(cross_attention_dim) * 0.02)
        self.painted = nn.Linear(cross_attention_dim, PAINTED_CHANNELS)
        self.text_null = nn.Parameter(torch.randn(cross_attention_dim) * 0.02)
        processors = {}
        for name in self.unet.attn_processors:
            hidden = self.unet.get_submodule(name.removesuffix(".processor")).to_q.out_features
            processors[name] = BoxAttention(hidden, cross_attention_dim) if "attn2" in name else SelfAttention()
        self.unet.set_attn_processor(processors)

    @property
    def grid(self) -> int:
        """Side of the raster of patches, on which boxes are attended to."""
        return self.config.sample_size // self.config.patch

    def box_tokens(self, batch: LayoutBatch) -> torch.Tensor:
        """(B, 1 + N, D): the background token (or the null of an unknown layout), then one token a box."""
        first = torch.where(batch.known[:, None], self.background, self.unknown)[:, None]
        return torch.cat([first, self.box_encoder(batch.features, batch.labels)], 1)

    def box_bias(self, batch: LayoutBatch) -> dict[int, torch.Tensor]:
        """For each resolution of the U-Net, by its number of pixels L: log of the box coverage, (B, L, 1 + N)."""
        bias, covered = {}, batch.coverage * batch.known[:, None, None, None]
        for _ in self.config.block_out_channels:
            log = covered.flatten(2).transpose(1, 2).clamp(min=1e-30).log()  # (B, L, N)
            log = torch.where(log < -60, torch.full_like(log, float("-inf")), log * 0.5)
            bias[log.shape[1]] = F.pad(log, (1, 0), value=-1.0)  # the background token is always there, at e^-1
            covered = F.max_pool2d(covered, 2, ceil_mode=True)  # a small box stays visible at coarse levels
        return bias

    def paint(self, tokens: torch.Tensor, batch: LayoutBatch) -> torch.Tensor:
        """Each patch's boxes, as the mean of their tokens by coverage, (B, PAINTED_CHANNELS, G, G)."""
        covered = F.pad(batch.coverage * batch.known[:, None, None, None], (0, 0, 0, 0, 1, 0), value=0.1)
        share = covered / covered.sum(1, keepdim=True)  # the first token, background or unknown, is everywhere
        return torch.einsum("bnhw,bnc->bchw", share, self.painted(tokens))

    def forward(self, latents: torch.Tensor, timesteps: torch.Tensor, batch: LayoutBatch) -> torch.Tensor:
        """Velocity (B, C, S, S) at timesteps (B,) in [0, 1000]."""
        condition = self.field_embedding(batch.fields) + self.domain_embedding(batch.domains)
        text = self.text_null.expand(len(latents), 1, -1)
        tokens = self.box_tokens(batch)
        keywords = {"box_tokens": tokens, "box_bias": self.box_bias(batch)}
        x = torch.cat([F.pixel_unshuffle(latents, self.config.patch), self.paint(tokens, batch)], 1)
        x = x.contiguous(memory_format=torch.channels_last)
        out = self.unet(x, timesteps, text, class_labels=condition, cross_attention_kwargs=keywords).sample
        return velocity_of(latents, F.pixel_shuffle(out, self.config.patch), timesteps)
