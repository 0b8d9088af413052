"""A small diffusion model of layouts: a transformer that denoises a set of boxes.

AeroGen's layout model is a DDPM of label maps, H x W x N (its paper, section Pipeline): a third of a million numbers
for a dozen boxes, from which axis-aligned boxes are extracted. Here each box is one token of a dozen numbers, which
keeps the angle and sub-pixel position and does not limit the number of boxes.
"""

from __future__ import annotations

import numpy as np
import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from torch import nn

from dataengine.data.layout import Kind, Layout

GEOMETRY = 7  # cx, cy, log w, log h, sin and cos of twice the angle, upright
UPRIGHT_TOLERANCE_DEG = 0.5  # a box nearer to an axis counts as annotated upright
N_FREQUENCIES = 6


class LayoutDenoiser(ModelMixin, ConfigMixin):
    """Predicts the clean set of boxes from a noisy one, (B, N, 7 + classes), conditioned on the acquisition.

    size: side of the layouts in pixels. occasions: (number of boxes, acquisition as JSON) of real layouts, one of which
    is chosen for each sampled layout. log_size: mean and standard deviation of the log sides. n_conditions: number of
    acquisition fields. max_overlap: largest overlap of the boxes of a sampled layout, as a share of the smaller box.
    """

    @register_to_config
    def __init__(
        self,
        classes: list[str],
        kind: Kind,
        size: int,
        occasions: list[tuple[int, str]],
        log_size: tuple[float, float],
        n_conditions: int,
        max_overlap: float = 0.0,
        width: int = 128,
        layers: int = 4,
        heads: int = 4,
    ):
        super().__init__()
        channels = GEOMETRY + len(classes)
        self.tokens = nn.Linear(channels + 4 * N_FREQUENCIES, width)
        self.time = nn.Sequential(Timesteps(width, True, 0), TimestepEmbedding(width, width))
        self.conditions = nn.Sequential(nn.Linear(2 * n_conditions + 1, width), nn.SiLU(), nn.Linear(width, width))
        layer = nn.TransformerEncoderLayer(width, heads, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(layer, layers, norm=nn.LayerNorm(width), enable_nested_tensor=False)
        self.out = nn.Linear(width, channels)

    def forward(
        self, x: torch.Tensor, timesteps: torch.Tensor, conditions: torch.Tensor, present: torch.Tensor
    ) -> torch.Tensor:
        """x (B, N, 7 + classes), timesteps (B,) in [0, 1000], conditions (B, n_conditions) with `nan` for unknown
        fields, present bool (B, N) -> the predicted clean x (B, N, 7 + classes)."""
        waves = x[..., :2, None] * (torch.pi * 2.0 ** torch.arange(N_FREQUENCIES, device=x.device))  # (B, N, 2, K)
        tokens = self.tokens(torch.cat([x, waves.sin().flatten(2), waves.cos().flatten(2)], -1))
        count = present.sum(1, keepdim=True).log()
        known = torch.cat([conditions.nan_to_num(), conditions.isnan().to(x.dtype), count], 1)
        tokens = tokens + (self.time(timesteps) + self.conditions(known))[:, None]
        return self.out(self.blocks(tokens, src_key_padding_mask=~present))


def to_numbers(layout: Layout, log_size: tuple[float, float]) -> np.ndarray:
    """A layout as float32 (N, 7 + classes) of order one: centre in [-1, 1], standardised log sides, sine and cosine of
    twice the angle, then 1 or -1 for upright and for each class.

    >>> to_numbers(Layout([[50, 50, 10, 10, 0]], [0], ("car",), (100, 100)), (np.log(10), 1.0)).tolist()
    [[0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0]]
    """
    b, mean, spread = layout.boxes.astype(np.float64), *log_size
    turn = np.abs(np.degrees(b[:, 4])) % 90
    upright = np.minimum(turn, 90 - turn) < UPRIGHT_TOLERANCE_DEG
    side = np.float64(layout.size)
    geometry = np.column_stack([
        b[:, :2] / side * 2 - 1,
        (np.log(b[:, 2:4]) - mean) / spread,
        np.sin(2 * b[:, 4]),
        np.cos(2 * b[:, 4]),
        np.where(upright, 1.0, -1.0),
    ])  # fmt: skip
    classes = np.where(layout.labels[:, None] == np.arange(len(layout.classes)), 1.0, -1.0)
    return np.concatenate([geometry, classes], 1).astype(np.float32)


def from_numbers(x: np.ndarray, log_size: tuple[float, float], side: int) -> tuple[np.ndarray, np.ndarray]:
    """The inverse of `to_numbers`: boxes float32 (N, 5) le90 and labels int64 (N,), for an image of `side` pixels."""
    mean, spread = log_size
    centre = (x[:, :2] + 1) / 2 * side
    w, h = np.exp(np.clip(x[:, 2:4], -4, 4) * spread + mean).T
    theta = np.arctan2(x[:, 4], x[:, 5]) / 2
    theta = np.where(x[:, 6] > 0, np.round(theta / (np.pi / 2)) * np.pi / 2, theta)
    swap = h > w
    w, h, theta = np.where(swap, h, w), np.where(swap, w, h), np.where(swap, theta + np.pi / 2, theta)
    theta = (theta + np.pi / 2) % np.pi - np.pi / 2
    boxes = np.column_stack([centre, w, h, theta]).astype(np.float32)
    return boxes, x[:, GEOMETRY:].argmax(1).astype(np.int64)
