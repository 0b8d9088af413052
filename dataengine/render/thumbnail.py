"""Thumbnails: what lies where in a picture, at the size of its latents."""

from __future__ import annotations

import torch
from torch.nn import functional as F

THUMBNAIL_RATIO = 8
SCALE = 2.0  # brings thumbnails of aerial pictures, which are pale, to about unit spread


def thumbnails_of(images: torch.Tensor) -> torch.Tensor:
    """Means over squares of THUMBNAIL_RATIO pixels, (B, 3, H, W) in [-1, 1] -> (B, 3, H / 8, W / 8) of order one."""
    return F.avg_pool2d(images, THUMBNAIL_RATIO) * SCALE


def thumbnail_pixels(thumbnails: torch.Tensor) -> torch.Tensor:
    """Back to [-1, 1], (B, 3, h, w)."""
    return (thumbnails / SCALE).clamp(-1, 1)
