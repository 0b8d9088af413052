from __future__ import annotations

import numpy as np
import pytest
import torch

from dataengine.data.layout import Layout
from dataengine.render.layout_batch import NOTHING, layout_rasters
from dataengine.render.thumbnail_decoder import ThumbnailDecoder, decode_thumbnails, thumbnail_pixels, thumbnails_of


def gradient(height: int = 64, width: int = 64) -> torch.Tensor:
    """An image (1, 3, H, W) with a gradient from left to right in red and from top to bottom in blue."""
    red, blue = torch.linspace(-0.8, 0.8, width), torch.linspace(-0.8, 0.8, height)
    return torch.stack([red.expand(height, -1), torch.zeros(height, width), blue[:, None].expand(-1, width)])[None]


def test_a_smooth_image_is_recovered_from_its_thumbnail():
    image = gradient()
    small = thumbnails_of(image)
    assert small.shape == (1, 3, 8, 8)
    inner = (slice(None), slice(None), slice(8, -8), slice(8, -8))
    assert (thumbnail_pixels(small) - image)[inner].abs().max() < 0.02


@pytest.fixture(scope="module")
def trained() -> ThumbnailDecoder:
    """A small decoder trained on images of a single colour."""
    torch.manual_seed(0)
    model = ThumbnailDecoder(domains=["toy"], block_out_channels=(16, 32))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    from dataengine.train.decoder import crop_example
    from dataengine.train.flow_loss import flow_loss

    generator = torch.Generator().manual_seed(0)
    for _ in range(150):
        colours = torch.rand(16, 3, 1, 1, generator=generator) * 1.6 - 0.8
        batch = {"images": colours.expand(-1, -1, 32, 32), "domains": torch.zeros(16, dtype=torch.int64)}
        batch["rasters"] = torch.full((16, 3, 32, 32), NOTHING, dtype=torch.int8)
        loss = flow_loss(crop_example)(model, batch, generator)["loss"]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()


def decode(model, images, seeds) -> torch.Tensor:
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    domains = torch.zeros(len(images), dtype=torch.int64)
    return decode_thumbnails(model, thumbnails_of(images), domains, generators=generators, steps=8)


def test_decoded_images_have_the_colours_of_their_thumbnails(trained):
    images = torch.tensor([[0.6, -0.6, 0.0], [-0.5, 0.5, 0.5]])[:, :, None, None].expand(-1, -1, 32, 32)
    colours = decode(trained, images, [1, 2]).mean((2, 3))
    assert (colours - images.mean((2, 3))).abs().max() < 0.2
    assert (colours - images.flip(0).mean((2, 3))).abs().max() > 0.8, "control: the other image's thumbnail"


def test_images_of_other_shapes_than_in_training_are_decoded(trained):
    assert decode(trained, gradient(32, 96), [0]).shape == (1, 3, 32, 96)


def test_an_image_depends_on_its_own_seed_only(trained):
    images = gradient(32, 32).expand(2, -1, -1, -1)
    pair, alone = decode(trained, images, [1, 2]), decode(trained, images[:1], [2])
    assert torch.allclose(pair[1], alone[0], atol=1e-4)
    assert (pair[0] - pair[1]).abs().max() > 1e-3


def boxed_pictures(rng: np.random.Generator, n: int) -> tuple[torch.Tensor, torch.Tensor, list[Layout]]:
    """Grey pictures (n, 3, 32, 32) with a bright car or a dark ship in a turned box; their rasters and layouts."""
    layouts = []
    for _ in range(n):
        box = [*rng.uniform(10, 22, 2), rng.uniform(12, 16), rng.uniform(5, 8), rng.uniform(-np.pi / 2, np.pi / 2)]
        layouts.append(Layout(np.float32([box]), [rng.integers(2)], ("car", "ship"), (32, 32)))
    rasters = torch.from_numpy(layout_rasters(layouts, ["car", "ship"]))
    shade = torch.tensor([0.8, -0.8, 0.0])[rasters[:, 0].long()]  # the last one for NOTHING
    return shade[:, None].expand(-1, 3, -1, -1).contiguous(), rasters, layouts


@pytest.fixture(scope="module")
def told_of_boxes() -> ThumbnailDecoder:
    torch.manual_seed(0)
    from dataengine.train.decoder import crop_example
    from dataengine.train.flow_loss import flow_loss

    model = ThumbnailDecoder(domains=["toy"], block_out_channels=(32, 48), classes=["car", "ship"])
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    generator, rng = torch.Generator().manual_seed(0), np.random.default_rng(0)
    for _ in range(300):
        images, rasters, _ = boxed_pictures(rng, 16)
        batch = {"images": images, "rasters": rasters, "domains": torch.zeros(16, dtype=torch.int64)}
        flow_loss(crop_example)(model, batch, generator)["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()


def test_objects_fill_their_boxes_to_the_pixel(told_of_boxes):
    images, rasters, _ = boxed_pictures(np.random.default_rng(1), 8)

    def error(given: torch.Tensor) -> float:
        generators = [torch.Generator().manual_seed(i) for i in range(8)]
        domains = torch.zeros(8, dtype=torch.int64)
        drawn = decode_thumbnails(
            told_of_boxes, thumbnails_of(images), domains, generators=generators, steps=8, rasters=given
        )
        return float((drawn - images).abs()[images != 0].mean())

    nothing = torch.zeros_like(rasters)
    nothing[:, 0] = NOTHING
    own, shuffled, without = error(rasters), error(rasters.roll(1, 0)), error(nothing)
    assert own < 0.25
    assert own < 0.5 * shuffled, "control: the boxes of another picture"
    assert own < 0.85 * without, "mutation: thumbnails alone"
