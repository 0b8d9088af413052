from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from dataengine.render.layout_raster import NOTHING
from dataengine.render.thumbnail import thumbnails_of
from dataengine.render.thumbnail_decoder import ThumbnailDecoder, decode_thumbnails
from dataengine.train.decoder import crop_example
from dataengine.train.distil import distil_model
from dataengine.train.flow_loss import flow_loss
from dataengine.train.loop import TrainSettings


def striped(rng: np.random.Generator, n: int) -> dict[str, torch.Tensor]:
    """Pictures with bright and dark stripes, which thumbnails do not show: upright or lying, at any phase."""
    x = np.arange(32)
    waves = np.sin(2 * np.pi * (x / 6 + rng.uniform(0, 1, (n, 1)))) > 0
    pictures = np.where(waves, 0.7, -0.7)[:, None, None].repeat(32, 2)
    turned = rng.random(n) < 0.5
    pictures[turned] = pictures[turned].swapaxes(2, 3)
    rasters = torch.zeros(n, 3, 32, 32, dtype=torch.int8)
    rasters[:, 0] = NOTHING
    images = torch.from_numpy(pictures.astype(np.float32)).expand(-1, 3, -1, -1).contiguous()
    return {"images": images, "domains": torch.zeros(n, dtype=torch.int64), "rasters": rasters}


@pytest.fixture(scope="module")
def teacher() -> ThumbnailDecoder:
    torch.manual_seed(0)
    model = ThumbnailDecoder(domains=["toy"], block_out_channels=(32, 48))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    generator, rng = torch.Generator().manual_seed(0), np.random.default_rng(0)
    for _ in range(250):
        flow_loss(crop_example)(model, striped(rng, 16), generator)["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()


def drawn(model: ThumbnailDecoder, steps: int) -> torch.Tensor:
    batch = striped(np.random.default_rng(1), 16)
    generators = [torch.Generator().manual_seed(i) for i in range(16)]
    return decode_thumbnails(
        model, thumbnails_of(batch["images"]), batch["domains"], generators=generators, steps=steps
    )


def test_a_student_draws_in_two_steps_what_its_teacher_draws_in_many(teacher, tmp_path):
    student = copy.deepcopy(teacher)
    settings = TrainSettings(steps=200, batch_size=16, learning_rate=1e-3, warmup_steps=10, ema_decay=0.98)
    done = distil_model(student, lambda rng: striped(rng, 16), crop_example, tmp_path, settings, steps=2)
    assert done
    wanted = drawn(teacher, 12)
    own, undistilled = ((drawn(model, 2) - wanted).abs().mean() for model in (student, teacher))
    assert own < 0.6 * undistilled, "mutation: the teacher itself in two steps"
    assert own < 0.6 * (drawn(student, 2) - wanted.roll(1, 0)).abs().mean(), "control: another picture's noise"
