"""The latents of the whole-image renderer: thumbnails, which show what lies where.

Encoding is a mean, the same for all imagery, with nothing to be learnt. Decoding is what has to be learnt: a diffusion
model (`thumbnail_decoder`) makes up the detail that the mean has lost.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F

THUMBNAIL_RATIO = 8
SCALE = 2.0  # brings thumbnails of aerial pictures, which are pale, to about unit spread


def thumbnails_of(images: torch.Tensor) -> torch.Tensor:
    """Means over squares of THUMBNAIL_RATIO pixels, (B, 3, H, W) in [-1, 1] -> (B, 3, H / 8, W / 8) of order one."""
    return F.avg_pool2d(images, THUMBNAIL_RATIO) * SCALE


def thumbnail_pixels(thumbnails: torch.Tensor) -> torch.Tensor:
    """Thumbnails (B, 3, h, w) enlarged smoothly to pixels (B, 3, 8 h, 8 w) in [-1, 1]."""
    large = F.interpolate(thumbnails / SCALE, scale_factor=THUMBNAIL_RATIO, mode="bicubic", align_corners=False)
    return large.clamp(-1, 1)
