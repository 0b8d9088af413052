"""Small data sets made for each test, and comparison of boxes by position."""

from __future__ import annotations

import datetime
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dataengine.data.layout import Acquisition, Dataset, Layout, Sample

CLASSES = ("plane", "large ship", "Car")
TAKEN = Acquisition(gsd_m=0.5, altitude_m=80, camera_angle_deg=60, night=True, date=datetime.date(2021, 1, 14))


def corners_of(box) -> np.ndarray:
    """Corners by the definition of le90, without dataengine."""
    cx, cy, w, h, theta = map(float, box)
    c, s = math.cos(theta), math.sin(theta)
    signs = ((-1, -1), (1, -1), (1, 1), (-1, 1))
    return np.array([(cx + a * w / 2 * c - b * h / 2 * s, cy + a * w / 2 * s + b * h / 2 * c) for a, b in signs])


def same_place(first, second, tolerance: float) -> bool:
    """Whether two boxes cover the same area, whichever corner is first (the angle may flip at pi/2)."""
    a, b = corners_of(first), corners_of(second)
    return min(float(np.abs(a - np.roll(b, turn, axis=0)).max()) for turn in range(4)) <= tolerance


@pytest.fixture(scope="session")
def same():
    return same_place


@pytest.fixture(scope="session")
def true_corners():
    return corners_of


@pytest.fixture(scope="session")
def make_dataset():
    """`make(folder, boxes of each image)`: textured images with these boxes, labels in turn."""

    def make(
        folder: Path,
        boxes: list,
        *,
        size=(200, 150),
        classes=CLASSES,
        kind="obb",
        suffix=".png",
        mode="RGB",
        acquisition=TAKEN,
        ignored=(),
    ) -> Dataset:
        folder.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(0)
        samples = []
        for i, rows in enumerate(boxes):
            pixels = rng.integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
            path = folder / f"image_{i}{suffix}"
            Image.fromarray(pixels).convert(mode).save(path)
            rows = np.array(rows, np.float32).reshape(-1, 5)
            labels = np.arange(len(rows)) % len(classes)
            layout = Layout(
                rows, labels, classes, size, kind, labels == 1, None, np.array(ignored, np.float32), acquisition
            )
            samples.append(Sample(f"image_{i}", path, layout, "drone", "CC BY 4.0"))
        return Dataset(classes, samples, kind, "made", "")

    return make
