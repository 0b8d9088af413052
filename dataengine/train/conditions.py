"""Conditions of a training batch replaced by their null, in place (contract 7)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from dataengine.data.layout import drop_fields
from dataengine.render.layout_batch import LayoutBatch


def forget_layouts(batch: LayoutBatch, which: np.ndarray) -> None:
    """Make some layouts, bool (B,), unknown."""
    chosen = torch.from_numpy(which)
    batch.known[chosen] = False
    batch.shapes[chosen] = 0


def drop_metadata(batch: LayoutBatch, fields: Sequence[str], probability: float, rng: np.random.Generator) -> None:
    """Make each field of the acquisition unknown with a probability; nothing for a model without fields."""
    if fields:
        batch.fields.copy_(torch.from_numpy(drop_fields(batch.fields.numpy(), fields, probability, rng)))


def drop_domains(batch: LayoutBatch, unknown: int, probability: float, rng: np.random.Generator) -> None:
    """Give each image the number of the unknown data set with a probability."""
    batch.domains[torch.from_numpy(rng.random(len(batch.domains)) < probability)] = unknown
