"""A detector "training" of a fraction of a second that does learn from its data: the colours of the labelled objects.

Like a real one it varies with the seed, becomes better with more labelled objects, and worse with wrong labels.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper
from toy_detector import save_detector

from dataengine.data import formats
from dataengine.data.images import read_or_fail

START, START_WEIGHT = np.array([-60.0, 120.0, -60.0]), 14  # green, and how many objects it takes to unlearn half of it
NOISE = 12.0  # standard deviation over seeds


def train_fake(real: Path, out: Path, *, extra: Path | None, seed: int, **settings: object) -> Path:
    """The colour of each class, less its grey part. It begins with green, which every object corrects a little."""
    classes = formats.read(real).classes
    colours: list[list[np.ndarray]] = [[] for _ in classes]
    for path in (real, *([extra] if extra else [])):
        for sample in formats.read(path, classes=classes):
            image = read_or_fail(sample)
            for box, label in zip(sample.layout.boxes, sample.layout.labels, strict=True):
                x, y = np.clip(box[:2].astype(int), 2, np.array(sample.layout.size) - 3)
                colours[label].append(image[y - 2 : y + 3, x - 2 : x + 3].reshape(-1, 3).mean(0))
    rng, directions = np.random.default_rng(seed), []
    for of_class in colours:
        coloured = np.array(of_class) - np.mean(of_class, 1, keepdims=True)
        mean = (coloured.sum(0) + START_WEIGHT * START) / (len(of_class) + START_WEIGHT) + rng.normal(0, NOISE, 3)
        direction = mean - mean.mean()
        directions.append(direction / np.linalg.norm(direction))
    out.mkdir(parents=True, exist_ok=True)
    save_detector(out, classes, stride=4)
    model = onnx.load(out / "model.onnx")
    for tensor in model.graph.initializer:
        if tensor.name == "mix":
            tensor.CopyFrom(numpy_helper.from_array(np.float32(directions)[:, :, None, None], "mix"))
    onnx.save(model, out / "model.onnx")
    return out


def train_blind(real: Path, out: Path, *, extra: Path | None, **settings) -> Path:
    """The same, of real images alone: more data bring nothing."""
    return train_fake(real, out, extra=None, **settings)
