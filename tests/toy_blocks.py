"""Images of random bright and dark blocks, which thumbnails do not show, and a small decoder trained on them."""

from __future__ import annotations

import numpy as np
import torch

from dataengine.render.layout_batch import NOTHING
from dataengine.render.thumbnail_decoder import ThumbnailDecoder, decode_thumbnails, thumbnails_of
from dataengine.train.decoder import crop_example
from dataengine.train.flow_loss import flow_loss


def blocks(rng: np.random.Generator, n: int) -> dict[str, torch.Tensor]:
    """A batch of crops of 32 pixels; the mean of all possible images is grey."""
    pixels = np.where(rng.random((n, 1, 16, 16)) < 0.5, 0.7, -0.7).repeat(2, 2).repeat(2, 3).astype(np.float32)
    rasters = torch.zeros(n, 3, 32, 32, dtype=torch.int8)
    rasters[:, 0] = NOTHING
    images = torch.from_numpy(pixels).expand(-1, 3, -1, -1).contiguous()
    return {"images": images, "domains": torch.zeros(n, dtype=torch.int64), "rasters": rasters}


def trained() -> ThumbnailDecoder:
    """A decoder trained by flow matching, so that it predicts the mean in one step."""
    torch.manual_seed(0)
    model = ThumbnailDecoder(domains=["toy"], block_out_channels=(32, 48))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    generator, rng = torch.Generator().manual_seed(0), np.random.default_rng(0)
    for _ in range(150):
        flow_loss(crop_example)(model, blocks(rng, 16), generator)["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()


def decoded(model: ThumbnailDecoder) -> torch.Tensor:
    """16 images (16, 3, 32, 32), always from the same noise, in one step."""
    batch = blocks(np.random.default_rng(1), 16)
    generators = [torch.Generator().manual_seed(i) for i in range(16)]
    thumbnails = thumbnails_of(batch["images"])
    return decode_thumbnails(model, thumbnails, batch["domains"], generators=generators, steps=1, few=True)
