"""Layers of the whole-image model that process boxes: encoding to tokens, and attention of pixels to them."""

from __future__ import annotations

import torch
from diffusers.models.attention import FeedForward
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from torch import nn
from torch.nn import functional as F

from dataengine.render.layout_batch import Precision

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
