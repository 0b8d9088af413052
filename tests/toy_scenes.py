"""Layouts and pictures that tests can check by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from dataengine import geometry
from dataengine.data.layout import Dataset, Layout, Sample
from dataengine.render.canvas import Canvas, Painted, Provenance
from dataengine.render.placement import empty_layout


def paint(layout: Layout, rng: np.random.Generator) -> np.ndarray:
    """A noisy ground with a bright upright or turned rectangle for each object, uint8 (H, W, 3)."""
    width, height = layout.size
    image = rng.normal(90, 6, (height, width, 3)).clip(0, 255).astype(np.uint8)
    for corners, label in zip(geometry.to_corners(layout.boxes), layout.labels, strict=True):
        colour = ((230, 60, 60), (60, 60, 230))[label % 2]
        cv2.fillPoly(image, [np.rint(corners - 0.5).astype(np.int32)], colour)
    return image


def ground(seed: int, side: int = 320) -> np.ndarray:
    """A made-up ground with detail of all sizes, uint8 (side, side, 3)."""
    rng, total = np.random.default_rng(seed), np.zeros((side, side, 3), np.float32)
    for cells in (5, 11, 23, 47, 95):
        total += cv2.resize(rng.normal(size=(cells, cells, 3)).astype(np.float32), (side, side)) / np.sqrt(cells)
    return np.clip(128 + 90 * total, 0, 255).astype(np.uint8)


def random_layout(rng: np.random.Generator, size: int = 96, kind: str = "obb") -> Layout:
    """Three cars in a grid of places, turned at random for obb."""
    places = rng.permutation(9)[:3]
    centres = (np.stack([places % 3, places // 3], 1) + 0.5) * size / 3
    theta = rng.uniform(-1.5, 1.5, 3) if kind == "obb" else np.zeros(3)
    boxes = np.column_stack([centres, rng.uniform(18, 24, 3), rng.uniform(9, 12, 3), theta])
    return Layout(boxes, rng.integers(0, 2, 3), ("car", "van"), (size, size), kind)


def scenes(folder: Path, n: int, seed: int, size: int = 96, mode: str = "RGB", classes=("car", "van")) -> Dataset:
    """n painted images of `size` pixels with three turned objects each."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    samples = []
    for i in range(n):
        layout = replace(random_layout(rng, size), classes=classes)
        file = folder / f"{seed}_{i}.png"
        Image.fromarray(paint(layout, rng)).convert(mode).save(file)
        samples.append(Sample(file.stem, file, layout))
    return Dataset(classes, samples, "obb", name="toy")


def canvas(
    image: np.ndarray, new: Layout, existing: Layout | None = None, provenance: Provenance | None = None
) -> Canvas:
    """A canvas of the real image "scene", or of another provenance; without labelled objects unless some are given."""
    existing = empty_layout(new) if existing is None else existing
    return Canvas(image, existing, new, provenance or Provenance("window", "scene"))


def images_and_labels(painted: list[Painted]) -> tuple[list[np.ndarray], list[Layout]]:
    """What of each is to be seen, and its labels."""
    return [one.image for one in painted], [one.labels for one in painted]
