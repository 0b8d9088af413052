"""Pictures at a finer ground sample distance: the decoder of thumbnails as a super-resolver of 2, 4 or 8 times.

The decoder adds the detail that a mean over squares has lost, from little noise on the picture enlarged by bicubic
interpolation: from pure noise it would invent more than a detector can use. After each step, what it has drawn is
corrected so that its means over squares are the pixels of the picture (null-space projection, Wang et al. 2023,
"Zero-shot image restoration using denoising diffusion null-space model", eq. 13).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch.nn import functional as F

from dataengine.render.flow import Start, draw_noise, sample
from dataengine.render.layout_pipeline import LayoutPipeline
from dataengine.render.precision import fast_autocast
from dataengine.render.rerender import padded, pixels_of
from dataengine.render.thumbnail_decoder import THUMBNAIL_RATIO, THUMBNAIL_SCALE, with_noise
from dataengine.seeds import Noise, noise_seed

FACTORS = (2, 4, 8)
STRENGTH = 0.15  # noise level to start from: detectors find more than in bicubic pictures (tools/bench/superres.py)
CORRECTIONS = 4  # rounds; a round leaves about a quarter of the difference


@torch.no_grad()
def superresolve(
    pipeline: LayoutPipeline,
    pictures: Sequence[np.ndarray],
    seeds: Sequence[int],
    factor: int,
    domain: str | None = None,
    strength: float = STRENGTH,
) -> list[np.ndarray]:
    """Pictures uint8 (H, W, 3) enlarged `factor` times, one of FACTORS. Noise of picture i depends on seeds[i] only.

    The means over squares of `factor` pixels are those of the picture, to about a grey level.
    """
    grey = domain in pipeline.config.grey_domains
    looks = list(pipeline.decoder.config.domains)
    look = looks.index(domain) if domain in looks else len(looks)
    return [_enlarged(pipeline, *each, factor, look, grey, strength) for each in zip(pictures, seeds, strict=True)]


def _enlarged(
    pipeline, picture: np.ndarray, seed: int, factor: int, look: int, grey: bool, strength: float
) -> np.ndarray:
    height, width = picture.shape[:2]
    decoder = pipeline.decoder
    pooled = THUMBNAIL_RATIO // factor  # pixels of the picture in a thumbnail's pixel
    coarse = pixels_of(padded(picture, 2 * pooled, 2 * pooled)).to(decoder.device)
    generator = torch.Generator().manual_seed(noise_seed(seed, Noise.WHOLE_IMAGE))
    thumbnails = F.avg_pool2d(coarse, pooled) * THUMBNAIL_SCALE
    noisy_thumbnails = with_noise(thumbnails, draw_noise([generator], tuple(thumbnails.shape[1:]), decoder.device)())
    domains = torch.tensor([look], device=decoder.device)

    def velocity(x: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
        sigma = times[:, None, None, None] / 1000
        clean = corrected(x - sigma * decoder(x, times, noisy_thumbnails, domains).float(), coarse, factor)
        return (x - clean) / sigma

    large = F.interpolate(coarse, scale_factor=factor, mode="bicubic", align_corners=False).clamp(-1, 1)
    few = pipeline.config.decoder_few_steps
    with fast_autocast(decoder.device):
        drawn = sample(
            velocity, draw_noise([generator], tuple(large.shape[1:]), decoder.device),
            few or pipeline.config.decoder_steps, few=bool(few), scheduler=pipeline.scheduler,
            start=Start(large, strength),
        )  # fmt: skip
    drawn = drawn[0, :, : factor * height, : factor * width]
    if grey:
        drawn = drawn.mean(0, keepdim=True).expand_as(drawn)
    return ((drawn + 1) * 127.5).round().clamp(0, 255).byte().permute(1, 2, 0).cpu().numpy()


def corrected(fine: torch.Tensor, coarse: torch.Tensor, factor: int) -> torch.Tensor:
    """An image (B, C, f H, f W) with a smooth correction after which its means over squares are `coarse` (B, C, H, W).

    >>> fine, coarse = torch.rand(1, 3, 32, 32), torch.rand(1, 3, 8, 8)
    >>> bool((F.avg_pool2d(corrected(fine, coarse, 4), 4) - coarse).abs().max() < 0.05)
    True
    """
    for _ in range(CORRECTIONS):
        missing = coarse - F.avg_pool2d(fine, factor)
        fine = fine + F.interpolate(missing, scale_factor=factor, mode="bicubic", align_corners=False)
    return fine
