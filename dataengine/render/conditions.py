"""Embedding of continuous conditions, each with a learned null (contract 7)."""

from __future__ import annotations

import torch
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from torch import nn


class FieldEmbedding(nn.Module):
    """Sum of one sinusoidal embedding and MLP a field, as DiffusionSat adds its metadata to the time embedding
    (Khanna et al. 2024, section 3.2), but with a learned vector, not the number zero, where a field is unknown.
    """

    def __init__(self, n_fields: int, width: int):
        super().__init__()
        self.wave = Timesteps(64, flip_sin_to_cos=True, downscale_freq_shift=0, scale=100)
        self.fields = nn.ModuleList(TimestepEmbedding(64, width) for _ in range(n_fields))
        self.nulls = nn.Parameter(torch.zeros(n_fields, width))

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """(B, n_fields) of order one, `nan` where unknown -> (B, width)."""
        known = ~values.isnan()
        values = values.nan_to_num(0.0)
        total = 0
        for i, mlp in enumerate(self.fields):
            embedded = mlp(self.wave(values[:, i]).to(self.nulls.dtype))
            total = total + torch.where(known[:, i, None], embedded, self.nulls[i].to(embedded.dtype))
        return total
