"""Do a run's images look like real ones, and is none of them a copy of a training image?

    python tools/bench/realism.py runs/hit-uav --dataset hit-uav [--all-attempts]

Frechet distance between embeddings (the packaged encoder's, averaged over each image: 96 numbers) of as many of the
run's images as of real held-out windows; beside it, that between two halves of the real data, divided by flight or
image, and that of plain means of the same windows, which have lost all detail (control: must be far greater).

Near copies: the distance of each image to its nearest training window, in embeddings of 4 x 4 parts, against the same
distance of real held-out windows. A generator that copies has images nearer than any real one is; the control, training
windows under slight noise, shows that copies are found.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch
from layout_score import run_images
from torchmetrics.image.fid import FrechetInceptionDistance

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from sample_splits import DEFAULT_DATA, splits, windows

from dataengine import weights
from dataengine.data.layout import Dataset
from dataengine.data.split import flight_key, split_by_group
from dataengine.render.reference import load_encoder

PARTS = 4
FIRST_PERCENT = 1.0


class Embedded(torch.nn.Module):
    """What torchmetrics takes for the network: its "images" are embeddings already."""

    def __init__(self, width: int):
        super().__init__()
        self.num_features = width

    def forward(self, embeddings: torch.Tensor) -> torch.Tensor:
        return embeddings


def frechet(a: np.ndarray, b: np.ndarray, n: int) -> float:
    """Frechet distance of n random ones of the embeddings (N, E) and of (M, E)."""
    metric = FrechetInceptionDistance(feature=Embedded(a.shape[1]))
    metric.set_dtype(torch.float64)
    rng = np.random.default_rng(0)
    for embeddings, real in ((a, True), (b, False)):
        chosen = embeddings[rng.permutation(len(embeddings))[:n]]
        metric.update(torch.from_numpy(chosen).double(), real=real)
    return round(float(metric.compute()), 4)


def nearest(embeddings: np.ndarray, training: np.ndarray) -> np.ndarray:
    """Distance (N,) of each embedding to the nearest of the training's."""
    return torch.cdist(torch.from_numpy(embeddings), torch.from_numpy(training)).amin(1).numpy()


def halves(dataset: Dataset, name: str) -> list[Dataset]:
    """Two halves that share no flight, or no image where flights are not known."""
    key = flight_key(dataset) if name == "hit-uav" else lambda sample: sample.name
    return split_by_group(dataset, (0.5, 0.5), seed=0, key=key)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--dataset", required=True, choices=("hit-uav", "hrplanes"))
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA)
    parser.add_argument("--all-attempts", action="store_true", help="dropped images too")
    parser.add_argument("--out", type=Path, help="append the result as a line of JSON")
    arguments = parser.parse_args()
    encode = load_encoder(weights.packaged("encoder") / "model.onnx", grid=PARTS)

    def embed(images: list[np.ndarray]) -> np.ndarray:
        """(N, PARTS ** 2, E) float32."""
        return np.concatenate([encode(images[i : i + 32]) for i in range(0, len(images), 32)])

    made, _ = run_images(arguments.run, arguments.all_attempts)
    parts = splits(arguments.data)[arguments.dataset]
    held_out, trained = windows(parts["test"])[0], windows(parts["train"])[0]
    everything = replace(parts["train"], samples=[s for part in parts.values() for s in part])
    first, second = (embed(windows(half)[0]).mean(1) for half in halves(everything, arguments.dataset))
    blurred = [cv2.resize(cv2.resize(x, None, fx=1 / 8, fy=1 / 8, interpolation=cv2.INTER_AREA), x.shape[1::-1])
               for x in held_out]  # fmt: skip
    noise = np.random.default_rng(0)
    copies = [np.clip(x + noise.normal(0, 4, x.shape), 0, 255).astype(np.uint8) for x in trained[:100]]
    own, real, training = embed(made), embed(held_out), embed(trained)
    n = min(len(own), len(real), len(first), len(second))  # as many in every row, since the distance falls with them
    between = {
        "run": (real.mean(1), own.mean(1)),
        "real_halves": (first, second),
        "held_out_blurred": (real.mean(1), embed(blurred).mean(1)),
    }
    distances = {
        name: nearest(x.reshape(len(x), -1), training.reshape(len(training), -1))
        for name, x in (("run", own), ("held_out", real), ("noisy_copies", embed(copies)))
    }
    limit = np.percentile(distances["held_out"], FIRST_PERCENT)
    result = {
        "run": arguments.run.name,
        "images": n,
        "frechet": {name: frechet(*pair, n) for name, pair in between.items()},
        "nearest_training_window": {name: round(float(np.median(d)), 3) for name, d in distances.items()},
        "nearer_than_99_percent_of_held_out": {
            name: round(float((d < limit).mean()), 3) for name, d in distances.items()
        },
    }
    result["frechet"]["ratio"] = round(result["frechet"]["run"] / result["frechet"]["real_halves"], 2)
    print(json.dumps(result, indent=2))
    if arguments.out:
        with open(arguments.out, "a") as file:
            file.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
