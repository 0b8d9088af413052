"""Training of the layout model: flow matching on sets of boxes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from dataengine.data.layout import ACQUISITION_FIELDS, Dataset, acquisition_values
from dataengine.errors import UserError
from dataengine.layouts.denoiser import GEOMETRY, LayoutDenoiser, to_numbers
from dataengine.layouts.reuse import ReuseSampler
from dataengine.layouts.windows import random_windows
from dataengine.train.loop import TrainSettings, model_settings_text, save_once, train

MAX_EXAMPLES = 512  # real windows whose counts and acquisitions the model stores
MIN_WINDOWS = 20
PADDED_TO = 8  # boxes of a batch are a multiple of this
NULL_PROBABILITY = 0.1  # of each condition


def train_layouts(
    dataset: Dataset, out: Path, settings: TrainSettings, size: int = 256, windows: int = 6, width: int = 128
) -> LayoutDenoiser:
    """Train a model on windows of size x size pixels, and on layouts that `ReuseSampler` makes from them, and write it
    to `out/model`. Raises UserError when too few windows contain an object."""
    real = random_windows(
        (s.layout for s in dataset), (size, size), np.random.default_rng((settings.seed, 1)), n=windows
    )
    real = [layout for layout in real if layout.size == (size, size)]
    if len(real) < MIN_WINDOWS:
        raise UserError(
            f"only {len(real)} windows of {size}x{size} pixels contain an object; at least {MIN_WINDOWS} are needed."
        )
    rng = np.random.default_rng((settings.seed, 2))
    reuse = ReuseSampler(dataset, (size, size), merge=0.0, scale=(0.9, 1.1))
    layouts = real + [reuse.sample(rng) for _ in range(len(real))]
    sides = np.log(np.concatenate([layout.boxes[:, 2:4] for layout in real]))
    log_size = (float(sides.mean()), max(float(sides.std()), 1e-2))
    chosen = rng.permutation(len(real))[:MAX_EXAMPLES]
    torch.manual_seed(settings.seed)
    model = LayoutDenoiser(
        list(dataset.classes),
        dataset.kind,
        size,
        [(len(real[i]), real[i].acquisition.model_dump_json(exclude_none=True)) for i in chosen],
        log_size,
        len(ACQUISITION_FIELDS),
        reuse.max_overlap,
        width,
    )
    numbers = [to_numbers(layout, log_size) for layout in layouts]
    conditions = np.stack([acquisition_values(layout.acquisition, ACQUISITION_FIELDS) for layout in layouts])

    def batch(rng: np.random.Generator) -> dict[str, torch.Tensor]:
        index = rng.integers(0, len(layouts), settings.batch_size)
        most = max(len(numbers[i]) for i in index)
        n = -(-most // PADDED_TO) * PADDED_TO
        x = np.zeros((len(index), n, numbers[0].shape[1]), np.float32)
        present = np.zeros((len(index), n), bool)
        for row, i in enumerate(index):
            x[row, : len(numbers[i])], present[row, : len(numbers[i])] = numbers[i], True
        known = conditions[index]
        known[rng.random(len(index)) < NULL_PROBABILITY] = np.nan
        return {"x": torch.from_numpy(x), "present": torch.from_numpy(present), "conditions": torch.from_numpy(known)}

    recipe = f"layouts {model_settings_text(model)} windows={len(layouts)} "
    train(model, batch, set_loss, out, settings, recipe)
    save_once(model, out / "model")
    return model


def set_loss(model: torch.nn.Module, batch: dict[str, torch.Tensor], generator: torch.Generator) -> dict:
    """Flow matching on sets: squared error of the clean boxes, weighted by 1 / (sigma^2 + 0.1)."""
    x, present = batch["x"], batch["present"]
    noise = torch.randn(x.shape, generator=generator, device=x.device)
    sigma = torch.sigmoid(torch.randn(len(x), generator=generator, device=x.device))
    s = sigma[:, None, None]
    clean = model((1 - s) * x + s * noise, sigma * 1000, batch["conditions"], present)
    error = ((clean - x) ** 2) / (s**2 + 0.1)
    error = torch.cat([error[..., :GEOMETRY].mean(-1, True), error[..., GEOMETRY:].mean(-1, True)], -1).mean(-1)
    return {"loss": (error * present).sum() / present.sum()}
