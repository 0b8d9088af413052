"""Does the picture follow how it is said to be taken? Cars by altitude and camera angle, day and night, on HIT-UAV.

    python tools/bench/acquisition.py --work work/acquisition  # 50 minutes on one core; goes on where it was cut off

The packaged kind of model, `LayoutUNet`, learns windows around a car with no layout at all, only the acquisition, so
what it draws is its own choice. The packaged detector, which had no part in it, measures the drawn cars;
their lengths are compared with those of the data set's labels (Spearman over altitudes, each the mean over camera
angles, and over all pairs of altitude and camera angle). Night is told from day by a linear classifier of embeddings
of real windows. Controls: the acquisitions shuffled among the same pictures, the acquisition unknown, and the detector
on real windows.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import cv2
import numpy as np
import torch
from ablation import to_images
from rich.progress import track
from scipy.stats import spearmanr

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from sample_splits import DEFAULT_DATA, hit_uav_splits, load

from dataengine import weights
from dataengine.data.layout import Acquisition, Dataset, Layout
from dataengine.judge.detector import OnnxDetector
from dataengine.layouts.windows import cut, scaled
from dataengine.render.layout_batch import LayoutBatch
from dataengine.render.layout_unet import LayoutUNet, sample_latents
from dataengine.render.reference import load_encoder
from dataengine.train.flow_loss import flow_loss
from dataengine.train.loop import TrainSettings, model_settings_text, train
from dataengine.train.thumbnails import Windows, make_batch, window_example

WINDOW, SIZE = 192, 48  # pixels of the picture, and of what is drawn
JITTER = 24  # pixels of the picture, of the car about the middle
FEWEST_REAL = 25  # cars in a cell (camera angle, altitude) that is compared; fewer are a parking lot, not a trend
FEWEST = 8  # measured ones
GUIDANCE = 2.0  # away from the unknown acquisition
MEASURED_FROM = 50  # degrees; below, a car's length depends on where in the picture it stands
MEASURED_AT, SCORE = 128, 0.3  # side in pixels at which, and score from which, the detector's cars follow the labels
MODEL = {
    "sample_size": SIZE, "patch": 4, "latent_channels": 1, "block_out_channels": (64, 128), "layers_per_block": 1,
    "fields": ("altitude", "camera_angle", "night"),
}  # fmt: skip
Cell = tuple[float, float]  # camera angle, altitude


def cars(dataset: Dataset, rng: np.random.Generator) -> tuple[list[np.ndarray], list[Layout], np.ndarray]:
    """Windows (SIZE, SIZE, 3) with a whole car about the middle, their layouts, and the car's length in the picture."""
    images, layouts, lengths = [], [], []
    for sample in track(list(dataset), "cutting windows"):
        image, layout = load(sample), sample.layout
        for i in np.flatnonzero((np.array(layout.names()) == "Car") & (layout.visible > 0.99)):
            corner = layout.boxes[i, :2] - WINDOW / 2 + rng.uniform(-JITTER, JITTER, 2)
            left, top = np.clip(corner.astype(int), 0, np.array(layout.size) - WINDOW)
            window = image[top : top + WINDOW, left : left + WINDOW]
            images.append(cv2.resize(window, (SIZE, SIZE), interpolation=cv2.INTER_AREA))
            layouts.append(scaled(cut(layout, left, top, (WINDOW, WINDOW)), SIZE / WINDOW))
            lengths.append(layout.boxes[i, 2])
    return images, layouts, np.array(lengths)


def cells_of(layouts: list[Layout]) -> list[Cell]:
    return [(x.acquisition.camera_angle_deg, x.acquisition.altitude_m) for x in layouts]


def medians(cells: list[Cell], lengths: np.ndarray, fewest: int = FEWEST) -> dict[Cell, float]:
    """Median length of each cell with so many of them; nan is a picture in which no car was found."""
    found: dict[Cell, list[float]] = {}
    for cell, length in zip(cells, lengths, strict=True):
        if not np.isnan(length):
            found.setdefault(cell, []).append(length)
    return {cell: float(np.median(v)) for cell, v in sorted(found.items()) if len(v) >= fewest}


def by_altitude(lengths: dict[Cell, float], cells: set[Cell]) -> dict[float, float]:
    """Mean over these cells of each altitude."""
    altitudes = sorted({cell[1] for cell in cells})
    return {a: round(float(np.mean([lengths[c] for c in sorted(cells) if c[1] == a])), 1) for a in altitudes}


def compared(drawn: dict[Cell, float], real: dict[Cell, float]) -> dict:
    """Spearman of the drawn lengths with the real ones, over the cells that both have."""
    cells = {cell for cell in drawn if cell in real and cell[0] >= MEASURED_FROM}
    if len(cells) < 5:
        return {"cells": len(cells)}
    mine, theirs = by_altitude(drawn, cells), by_altitude(real, cells)
    pairs = [(drawn[c], real[c]) for c in sorted(cells)]
    return {
        "cells": len(cells), "drawn": mine, "real": theirs,
        "spearman_over_altitudes": round(float(spearmanr([*mine.values()], [*theirs.values()]).statistic), 3),
        "spearman_over_cells": round(float(spearmanr(*zip(*pairs, strict=True)).statistic), 3),
    }  # fmt: skip


def mean_of(results: list[dict], key: str) -> float | None:
    """Mean of a figure over the results that have it."""
    values = [result[key] for result in results if key in result]
    return round(float(np.mean(values)), 3) if values else None


def measured(images: list[np.ndarray], detector: OnnxDetector) -> np.ndarray:
    """Median length, in pixels of the picture, of the cars found in each image; nan where there is none."""
    car, found = detector.classes.index("Car"), []
    for start in range(0, len(images), 64):
        enlarged = [cv2.resize(image, (MEASURED_AT, MEASURED_AT)) for image in images[start : start + 64]]
        for d in detector.detect(enlarged):
            lengths = d.boxes[(d.labels == car) & (d.scores >= SCORE), 2]
            found.append(np.median(lengths) * WINDOW / MEASURED_AT if len(lengths) else np.nan)
    return np.array(found)


def draw(model: LayoutUNet, taken: list[Acquisition], first_seed: int) -> list[np.ndarray]:
    """One image (SIZE, SIZE, 3) each, of an unknown layout."""
    images, nothing = [], np.zeros(0, np.int64)

    def batch(some: list[Acquisition]) -> LayoutBatch:
        layouts = [Layout([], [], ("Car",), (SIZE, SIZE), acquisition=a) for a in some]
        return model.layout_batch(layouts, [nothing] * len(some), [0] * len(some)).unknown()

    for start in track(range(0, len(taken), 64), "drawing"):
        part = taken[start : start + 64]
        generators = [torch.Generator().manual_seed(first_seed + start + i) for i in range(len(part))]
        null = batch([Acquisition()] * len(part))
        images += to_images(
            sample_latents(model, batch(part), generators=generators, guidance_scale=GUIDANCE, null=null)
        )
    return images


class NightClassifier:
    """Ridge regression of night (1) or day (-1) on the packaged encoder's embeddings of real windows."""

    def __init__(self, images: list[np.ndarray], night: np.ndarray):
        self.encode = load_encoder(weights.packaged("encoder") / "model.onnx")
        x = self._features(images)
        weight = np.where(night, 1 / night.sum(), 1 / (~night).sum())[:, None]  # each half counts the same
        self.w = np.linalg.solve(x.T @ (weight * x) + 1e-3 * np.eye(x.shape[1]), x.T @ (weight[:, 0] * (2 * night - 1)))

    def _features(self, images: list[np.ndarray]) -> np.ndarray:
        parts = [self.encode(images[i : i + 64])[:, 0] for i in range(0, len(images), 64)]
        x = np.concatenate(parts).astype(np.float64)
        return np.concatenate([x, np.ones((len(x), 1))], 1)

    def accuracy(self, images: list[np.ndarray], night: np.ndarray) -> float:
        """Share that is told rightly, day and night counting the same."""
        right = (self._features(images) @ self.w > 0) == night
        return round(float((right[night].mean() + right[~night].mean()) / 2), 3)


def train_model(windows: Windows, work: Path, steps: int) -> LayoutUNet:
    torch.manual_seed(0)
    model = LayoutUNet(["Car"], ["hit-uav"], **MODEL)
    settings = TrainSettings(
        steps=steps, batch_size=32, learning_rate=8e-4, ema_decay=0.998, warmup_steps=min(100, steps),
        checkpoint_minutes=5,
    )  # fmt: skip
    batch = make_batch(windows, model, settings.batch_size, null_probability=1.0)
    train(model, batch, flow_loss(window_example), work, settings, f"acquisition {model_settings_text(model)}")
    model.save_pretrained(work / "model")
    return model.eval()


def picture(images: list[np.ndarray], cells: list[Cell], chosen: list[Cell], columns: int = 12) -> np.ndarray:
    """A row of images for each chosen cell."""
    rows = []
    for cell in chosen:
        own = [image for image, c in zip(images, cells, strict=True) if c == cell][:columns]
        rows.append(np.concatenate(own + [np.full_like(images[0], 255)] * (columns - len(own)), 1))
    return np.concatenate(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--images", type=int, default=24, help="in each cell of camera angle and altitude")
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    parts = hit_uav_splits(arguments.data)
    images, layouts, lengths = cars(parts["train"], rng)
    both = images + [np.ascontiguousarray(image[:, ::-1]) for image in images]  # no one asks where things stand
    latents = ((np.stack(both)[:, None, :, :, 0] / 127.5 - 1) * 2).astype(np.float16)
    labels = [np.zeros(0, np.int64)] * len(both)
    bare = [layout.select(np.zeros(len(layout), bool)) for layout in layouts] * 2
    windows = Windows(latents, bare, labels, np.zeros(len(both), np.int64))
    model = train_model(windows, arguments.work, arguments.steps)

    detector = OnnxDetector(weights.packaged("detector"))
    real_cells, real = cells_of(layouts), medians(cells_of(layouts), lengths, FEWEST_REAL)
    cells = [cell for cell in real for _ in range(arguments.images)]
    night = np.arange(len(cells)) % 2 == 1
    taken = [
        Acquisition(camera_angle_deg=a, altitude_m=h, night=bool(n)) for (a, h), n in zip(cells, night, strict=True)
    ]
    drawn = draw(model, taken, 0)
    found = measured(drawn, detector)
    unknown = measured(draw(model, [Acquisition()] * len(cells), 0), detector)
    order = rng.permutation(len(cells))
    shuffles = [rng.permutation(len(cells)) for _ in range(20)]
    shuffled = [compared(medians([cells[i] for i in p], found), real) for p in shuffles]
    # As many real windows of each cell, so that both are measured alike.
    some = np.concatenate(
        [rng.permutation([i for i, c in enumerate(real_cells) if c == cell])[: arguments.images] for cell in real]
    )
    found_real = measured([images[i] for i in some], detector)

    real_night = np.array([bool(layout.acquisition.night) for layout in layouts])
    classifier = NightClassifier(images, real_night)
    test_images, test_layouts, _ = cars(parts["test"], rng)
    test_night = np.array([bool(layout.acquisition.night) for layout in test_layouts])
    result = {
        "car_length_px": compared(medians(cells, found), real) | {"found": round(1 - float(np.isnan(found).mean()), 3)},
        "detector_on_real_windows": compared(medians([real_cells[i] for i in some], found_real), real)
        | {"found": round(1 - float(np.isnan(found_real).mean()), 3)},
        "shuffled": {key: mean_of(shuffled, key) for key in ("spearman_over_altitudes", "spearman_over_cells")},
        "acquisition_unknown": compared(medians(cells, unknown), real),
        "night_told_from_day": {
            "real_held_out": classifier.accuracy(test_images, test_night), "drawn": classifier.accuracy(drawn, night),
            "shuffled": classifier.accuracy(drawn, night[order]),
        },
    }  # fmt: skip
    (arguments.work / "result.json").write_text(json.dumps(result, indent=2) + "\n")
    rows = [cell for cell in ((90.0, 60.0), (90.0, 100.0), (90.0, 130.0), (50.0, 60.0), (50.0, 130.0)) if cell in real]
    cv2.imwrite(str(arguments.work / "drawn.png"), picture(drawn, cells, rows))
    cv2.imwrite(str(arguments.work / "real.png"), picture(images, real_cells, rows))
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
