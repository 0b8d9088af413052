"""A small diffusion model over layouts: a transformer that turns noise into a set of boxes.

AeroGen draws label maps, H x W x N, by a DDPM (its paper, section Pipeline): a third of a million numbers for a dozen
boxes, from which the boxes have to be found again, without angle. Here each box is one token of a dozen numbers, so
angle and sub-pixel place are kept, and there is no cap on their number.
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
UPRIGHT_DEG = 0.5  # a box this near to an axis was annotated as upright
N_FREQUENCIES = 6


class LayoutDenoiser(ModelMixin, ConfigMixin):
    """Predicts the clean set of boxes from a noisy one, (B, N, 7 + classes), given how the picture was taken.

    size: side of the layouts in pixels. occasions: [number of boxes, acquisition as JSON] of real layouts, from which
    each new layout takes its own. log_size: mean and spread of the log sides.
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
        """x (B, N, 7 + classes), timesteps (B,) in [0, 1000], conditions (B, n_conditions), `nan` where unknown,
        present (B, N) bool -> the clean x."""
        waves = x[..., :2, None] * (torch.pi * 2.0 ** torch.arange(N_FREQUENCIES, device=x.device))  # (B, N, 2, K)
        tokens = self.tokens(torch.cat([x, waves.sin().flatten(2), waves.cos().flatten(2)], -1))
        count = present.sum(1, keepdim=True).log()
        known = torch.cat([conditions.nan_to_num(), conditions.isnan().to(x.dtype), count], 1)
        tokens = tokens + (self.time(timesteps) + self.conditions(known))[:, None]
        return self.out(self.blocks(tokens, src_key_padding_mask=~present))


def to_numbers(layout: Layout, log_size: tuple[float, float]) -> np.ndarray:
    """A layout as (N, 7 + classes) float32 of order one."""
    b, mean, spread = layout.boxes.astype(np.float64), *log_size
    turn = np.abs(np.degrees(b[:, 4])) % 90
    upright = np.minimum(turn, 90 - turn) < UPRIGHT_DEG
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
    """What `to_numbers` made: boxes float32 (N, 5) le90 and labels int64 (N,)."""
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
