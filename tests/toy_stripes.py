"""Pictures with stripes that thumbnails do not show, and a small decoder trained on them."""

from __future__ import annotations

import numpy as np
import torch

from dataengine.render.layout_raster import NOTHING
from dataengine.render.thumbnail import thumbnails_of
from dataengine.render.thumbnail_decoder import ThumbnailDecoder, decode_thumbnails
from dataengine.train.decoder import crop_example
from dataengine.train.flow_loss import flow_loss


def striped(rng: np.random.Generator, n: int, period: int = 6) -> dict[str, torch.Tensor]:
    """Pictures with bright and dark stripes: upright or lying, at any phase. Thumbnails show little of those of 6
    pixels, and nothing of those of 4."""
    x = np.arange(32)
    waves = np.sin(2 * np.pi * (x / period + rng.uniform(0, 1, (n, 1)))) > 0
    pictures = np.where(waves, 0.7, -0.7)[:, None, None].repeat(32, 2)
    turned = rng.random(n) < 0.5
    pictures[turned] = pictures[turned].swapaxes(2, 3)
    rasters = torch.zeros(n, 3, 32, 32, dtype=torch.int8)
    rasters[:, 0] = NOTHING
    images = torch.from_numpy(pictures.astype(np.float32)).expand(-1, 3, -1, -1).contiguous()
    return {"images": images, "domains": torch.zeros(n, dtype=torch.int64), "rasters": rasters}


def trained(period: int = 6) -> ThumbnailDecoder:
    """By flow matching, so that it needs many steps."""
    torch.manual_seed(0)
    model = ThumbnailDecoder(domains=["toy"], block_out_channels=(32, 48))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    generator, rng = torch.Generator().manual_seed(0), np.random.default_rng(0)
    for _ in range(250):
        flow_loss(crop_example)(model, striped(rng, 16, period), generator)["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()


def drawn(model: ThumbnailDecoder, steps: int, period: int = 6) -> torch.Tensor:
    """16 pictures (16, 3, 32, 32), always of the same noise."""
    batch = striped(np.random.default_rng(1), 16, period)
    generators = [torch.Generator().manual_seed(i) for i in range(16)]
    return decode_thumbnails(
        model, thumbnails_of(batch["images"]), batch["domains"], generators=generators, steps=steps
    )
