"""Pictures of a dark road through a bright field, with cars that stand on the road alone, or anywhere."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from dataengine import geometry
from dataengine.data.layout import UNKNOWN, Acquisition, Dataset, Layout, Sample
from dataengine.layouts.constraints import apart

SIDE, ROAD, FIELD = 160, 60, 150


def ground(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A picture uint8 (SIDE, SIDE, 3) with a road across it, and bool (SIDE, SIDE), where the road is."""
    road = np.zeros((SIDE, SIDE), bool)
    start = int(rng.integers(10, SIDE - 60))
    road[:, start : start + 50] = True
    road = np.rot90(road, int(rng.integers(2)))
    image = np.where(road, ROAD, FIELD)[..., None] + rng.normal(0, 6, (SIDE, SIDE, 3))
    return image.clip(0, 255).astype(np.uint8), road


def boxes_anywhere(count: int, rng: np.random.Generator) -> np.ndarray:
    centres = rng.uniform(14, SIDE - 14, (count, 2))
    return np.column_stack([centres, np.full(count, 14), np.full(count, 8), rng.uniform(-1.5, 1.5, count)])


def boxes_apart(count: int, rng: np.random.Generator) -> np.ndarray:
    """Those of so many that touch none before."""
    boxes = boxes_anywhere(count, rng)
    return boxes[apart(boxes, 0.0)]


def cars(boxes: np.ndarray, taken: Acquisition = UNKNOWN) -> Layout:
    return Layout(boxes, np.zeros(len(boxes)), ("car",), (SIDE, SIDE), acquisition=taken)


def on_road(layout: Layout, road: np.ndarray) -> np.ndarray:
    x, y = layout.boxes[:, :2].astype(int).T
    return road[y, x]


def roads(folder: Path, where: str, images: int = 20) -> Dataset:
    """Pictures with some green cars each, which stand on the "road" or "anywhere"."""
    rng, samples = np.random.default_rng(5), []
    for i in range(images):
        image, road = ground(rng)
        layout = cars(boxes_apart(40, rng))
        if where == "road":
            layout = layout.select(on_road(layout, road))
        layout = layout.select(np.arange(len(layout)) < 5)
        for corners in geometry.to_corners(layout.boxes):
            cv2.fillPoly(image, [np.rint(corners - 0.5).astype(np.int32)], (40, 200, 40))
        file = folder / f"{where}-{i:02d}.png"
        Image.fromarray(image).save(file)
        samples.append(Sample(file.stem, file, layout))
    return Dataset(("car",), samples)
