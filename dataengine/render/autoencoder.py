"""Autoencoder of aerial images: pixels to latents at an eighth of the side, and back."""

from __future__ import annotations

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import nn
from torch.nn import functional as F

LATENT_RATIO = 8  # pixels of a side per latent
LATENT_LIMIT = 3.0  # a soft limit of latents before decoding


def _convolution(inputs: int, outputs: int, kernel: int = 3) -> nn.Conv2d:
    """A convolution that replicates border pixels: with zero padding the network could recognise the border."""
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, padding_mode="replicate")


class ResidualBlock(nn.Module):
    """Two convolutions added to their input. Without normalisation, so that distant pixels do not affect each other."""

    def __init__(self, width: int):
        super().__init__()
        self.first, self.second = _convolution(width, width), _convolution(width, width)
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(self.second.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.second(F.silu(self.first(F.silu(x))))


def _blocks(width: int, count: int) -> list[nn.Module]:
    return [ResidualBlock(width) for _ in range(count)]


class Autoencoder(ModelMixin, ConfigMixin):
    """Encodes images (B, 3, H, W) in [-1, 1], H and W multiples of 8, to latents (B, latent_channels, H / 8, W / 8) of
    about unit spread, and decodes them.

    Fully convolutional and local: a pixel depends on a bounded neighbourhood, so images may have any size, and windows
    of one image agree where they overlap. widths, blocks: channels and residual blocks at 1/2, 1/4 and 1/8 of the side;
    the encoder has no blocks at 1/2.

    >>> model = Autoencoder(latent_channels=4, widths=(8, 8, 8), blocks=(1, 1, 1))
    >>> model.decode(model.encode(torch.zeros(1, 3, 64, 48))).shape
    torch.Size([1, 3, 64, 48])
    """

    @register_to_config
    def __init__(
        self,
        latent_channels: int = 32,
        widths: tuple[int, int, int] = (48, 96, 160),
        blocks: tuple[int, int, int] = (2, 2, 2),
    ):
        super().__init__()
        half, quarter, eighth = widths
        self.encoder = nn.Sequential(
            nn.PixelUnshuffle(4),
            _convolution(48, quarter),
            *_blocks(quarter, blocks[1]),
            nn.PixelUnshuffle(2),
            _convolution(4 * quarter, eighth, 1),
            *_blocks(eighth, blocks[2]),
            nn.SiLU(),
            _convolution(eighth, latent_channels),
        )
        self.decoder = nn.Sequential(
            _convolution(latent_channels, eighth),
            *_blocks(eighth, blocks[2]),
            _convolution(eighth, 4 * quarter, 1),
            nn.PixelShuffle(2),
            *_blocks(quarter, blocks[1]),
            _convolution(quarter, 4 * half, 1),
            nn.PixelShuffle(2),
            *_blocks(half, blocks[0]),
            nn.SiLU(),
            _convolution(half, 12),
            nn.PixelShuffle(2),
        )

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """Latents of images in [-1, 1]."""
        return self.encoder(images.contiguous(memory_format=torch.channels_last))

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Images, about in [-1, 1], from latents."""
        bounded = LATENT_LIMIT * torch.tanh(latents / LATENT_LIMIT)
        return self.decoder(bounded.contiguous(memory_format=torch.channels_last))

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(latents, decoded images)."""
        latents = self.encode(images)
        return latents, self.decode(latents)
