"""A data set of red and blue squares on grey ground in three parts, which `fake_training` learns from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from toy_scenes import paint, random_layout

from dataengine.data import formats
from dataengine.data.layout import Dataset, Sample

PARTS = {"train": 12, "val": 24, "test": 12}


def squares(folder: Path, n: int, seed: int) -> Dataset:
    """Images of 96 px with three squares each, on grounds of several brightnesses."""
    rng, samples = np.random.default_rng(seed), []
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(n):
        layout = random_layout(rng, kind="hbb")
        layout.boxes[:, 2:4] = 14
        image = paint(layout, rng).astype(int) + (0, 0, 0, 40)[i % 4]
        file = folder / f"{seed}-{i:02d}x.png"
        Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(file)
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
