"""The encoder of TAEF2, a pretrained tiny autoencoder, as a teacher: its weights stay where they are.

Layers and their order are those that its README describes (`../shared/weights/taef2`); names of parameters are those of
its file.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

from dataengine.train.autoencoder import Teacher

WIDTH, LATENT_CHANNELS = 64, 32


class Block(nn.Module):
    """relu(conv(x) + x); with a pool, pool(x) is added to x before."""

    def __init__(self, pooled: bool):
        super().__init__()
        convolutions = [nn.Conv2d(WIDTH, WIDTH, 3, padding=1) for _ in range(3)]
        self.conv = nn.Sequential(convolutions[0], nn.ReLU(), convolutions[1], nn.ReLU(), convolutions[2])
        self.pool = None
        if pooled:
            wide = 4 * WIDTH
            parts = [nn.Conv2d(WIDTH, wide, 1, bias=False), nn.GroupNorm(4, wide), nn.ReLU()]
            self.pool = nn.Sequential(*parts, nn.Conv2d(wide, WIDTH, 1, bias=False))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.pool is not None:
            x = x + self.pool(x)
        return torch.relu(self.conv(x) + x)


def load_teacher(folder: Path) -> Teacher:
    """The encoder in `folder/encoder.safetensors`: (B, 3, H, W) in [-1, 1] to latents (B, 32, H / 8, W / 8)."""
    layers: list[nn.Module] = [nn.Conv2d(3, WIDTH, 3, padding=1), Block(False)]
    for level in range(3):
        layers.append(nn.Conv2d(WIDTH, WIDTH, 3, stride=2, padding=1, bias=False))
        layers += [Block(level == 2) for _ in range(3)]
    layers.append(nn.Conv2d(WIDTH, LATENT_CHANNELS, 3, padding=1))
    encoder = nn.Sequential(*layers)
    encoder.load_state_dict({name: value.float() for name, value in load_file(folder / "encoder.safetensors").items()})
    encoder.eval().requires_grad_(False).to(memory_format=torch.channels_last)
    return lambda images: encoder(((images + 1) / 2).contiguous(memory_format=torch.channels_last))
