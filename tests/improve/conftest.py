"""A data set of red, blue and other squares on grey ground in three parts, which `fake_training` learns from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dataengine.data import formats
from dataengine.data.layout import Dataset, Layout, Sample

PARTS = {"train": 12, "val": 24, "test": 12}


def squares(folder: Path, n: int, seed: int) -> Dataset:
    """Images of 96 px with three labelled squares each, red cars and blue vans, and three of other colours."""
    rng, samples = np.random.default_rng(seed), []
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(n):
        places = (np.stack(np.divmod(rng.permutation(9)[:6], 3), 1) + 0.5) * 32
        boxes = np.column_stack([places, np.full((6, 2), 14), np.zeros(6)])
        labels = rng.integers(0, 2, 3)
        image = rng.normal(90, 6, (96, 96, 3))
        for k, (x, y) in enumerate(places.astype(int)):
            colour = rng.uniform(40, 220, 3) if k >= 3 else ((220, 70, 70), (70, 70, 220))[labels[k]]
            image[y - 7 : y + 7, x - 7 : x + 7] = colour + rng.normal(0, 25, 3)
        file = folder / f"{seed}-{i:02d}x.png"
        Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(file)
        layout = Layout(boxes[:3], labels, ("car", "van"), (96, 96), "hbb")
        samples.append(Sample(file.stem, file, layout))
    return Dataset(("car", "van"), samples, "hbb", name="squares")


@pytest.fixture(scope="session")
def squares_folder(tmp_path_factory) -> Path:
    """The data set in three splits."""
    root = tmp_path_factory.mktemp("squares")
    for seed, (name, n) in enumerate(PARTS.items()):
        dataset = replace(squares(root / "raw" / name, n, seed), name="squares")
        formats.write(dataset, root / "coco", "coco", split=name)
    return root / "coco"
