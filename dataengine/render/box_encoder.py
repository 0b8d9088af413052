"""Boxes to tokens."""

from __future__ import annotations

import torch
from torch import nn

from dataengine.render.layout_batch import Precision

N_FREQUENCIES = 8


class BoxEncoder(nn.Module):
    """Box features and class to one token a box (AeroGen, section 3.2): Fourier features of the 8 corner coordinates
    with the class embedding through a three-layer MLP.

    corners "exact": features of order one, themselves and in waves of frequencies pi 2^k. "grid": AeroGen's own,
    integers on the latent grid in waves of frequencies 100^(k/8) alone, and learned nulls where there is no box.
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
