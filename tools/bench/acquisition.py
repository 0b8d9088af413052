"""Does the picture follow how it is said to be taken? Cars by altitude, brightness by day and night, on HIT-UAV.

    python tools/bench/acquisition.py --out work/acquisition.json

The model gets no layout (its null), only the acquisition, so what it draws is its own choice. Car lengths are measured
in the drawn pixels by the packaged evaluation detector and compared with those of the data set's labels at the same
altitude (Spearman). Control: the same pictures with their altitudes shuffled. Second control: the altitude unknown.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from rich.progress import track
from scipy.stats import spearmanr

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from sample_splits import DEFAULT_DATA, hit_uav_splits, load

from dataengine import weights
from dataengine.data.layout import Acquisition, Layout
from dataengine.judge.detector import OnnxDetector
from dataengine.render.load import load_renderer

FEWEST = 12  # real cars, or drawn ones, at an altitude that is compared
SCORE = 0.3  # of detections that are measured


def real_trend(data: Path) -> dict[float, float]:
    """Median length of whole cars in pixels at each altitude, from the training labels."""
    lengths: dict[float, list[float]] = {}
    for sample in hit_uav_splits(data)["train"]:
        layout = sample.layout
        cars = (np.array(layout.names()) == "Car") & (layout.visible > 0.99)
        lengths.setdefault(layout.acquisition.altitude_m, []).extend(layout.boxes[cars, 2].tolist())
    return {a: float(np.median(v)) for a, v in sorted(lengths.items()) if len(v) >= FEWEST}


def draw(pipeline, taken: list[Acquisition], first: int) -> list[np.ndarray]:
    """One picture each, from the null layout: guidance `null + 0 * (layout - null)`."""
    images = []
    for start in track(range(0, len(taken), 8), "drawing"):
        part = taken[start : start + 8]
        layouts = [Layout([], [], pipeline.classes, (pipeline.size, pipeline.size), acquisition=a) for a in part]
        seeds = list(range(first + start, first + start + len(part)))
        images += pipeline(layouts, seeds, "hit-uav", num_inference_steps=20, guidance_scale=0.0)
    return images


def car_lengths(images: list[np.ndarray], detector: OnnxDetector) -> list[np.ndarray]:
    """Lengths in pixels of the cars found in each picture that no border cuts."""
    car, found = detector.classes.index("Car"), []
    for image, d in zip(images, detector.detect(images), strict=True):
        inside = (np.abs(d.boxes[:, :2] - image.shape[1] / 2) + d.boxes[:, 2:3] / 2 < image.shape[1] / 2).all(1)
        found.append(d.boxes[(d.labels == car) & (d.scores >= SCORE) & inside, 2])
    return found


def trend(lengths: list[np.ndarray], altitudes: np.ndarray) -> dict[float, float]:
    """Median length at each altitude with enough cars."""
    every = {a: np.concatenate([x for x, b in zip(lengths, altitudes, strict=True) if b == a]) for a in set(altitudes)}
    return {float(a): float(np.median(v)) for a, v in sorted(every.items()) if len(v) >= FEWEST}


def correlation(found: dict[float, float], real: dict[float, float]) -> float | None:
    """Spearman of the two trends over the altitudes that both have; None for fewer than four."""
    shared = [a for a in found if a in real]
    if len(shared) < 4:
        return None
    return round(float(spearmanr([found[a] for a in shared], [real[a] for a in shared]).statistic), 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a whole-image renderer; the packaged one if not given")
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA)
    parser.add_argument("--images", type=int, default=32, help="at each altitude")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    pipeline = load_renderer(arguments.model or weights.packaged("whole"), "whole")
    detector = OnnxDetector(weights.packaged("evaluation-detector"))
    real = real_trend(arguments.data)
    altitudes = np.repeat(list(real), arguments.images)
    images = draw(pipeline, [Acquisition(altitude_m=a, camera_angle_deg=90, night=True) for a in altitudes], 0)
    lengths = car_lengths(images, detector)
    rng = np.random.default_rng(0)
    shuffled = [correlation(trend(lengths, rng.permutation(altitudes)), real) for _ in range(20)]
    unknown = car_lengths(draw(pipeline, [Acquisition(camera_angle_deg=90, night=True)] * len(altitudes), 0), detector)
    found, without = trend(lengths, altitudes), trend(unknown, altitudes)
    light = {}
    for night in (False, True):
        taken = [Acquisition(altitude_m=80, camera_angle_deg=90, night=night)] * (2 * arguments.images)
        light["night" if night else "day"] = [float(i.mean()) for i in draw(pipeline, taken, 10_000)]
    samples = [s for s in hit_uav_splits(arguments.data)["train"] if s.layout.acquisition.camera_angle_deg == 90]
    truth = {
        name: [float(load(s).mean()) for s in samples if s.layout.acquisition.night is night][:200]
        for name, night in (("day", False), ("night", True))
    }
    every = np.array(light["day"] + light["night"])
    mixed = rng.permutation(every)
    half = len(every) // 2
    result = {
        "real_length": real, "drawn_length": found, "spearman": correlation(found, real),
        "spearman_shuffled_mean": round(float(np.mean([s for s in shuffled if s is not None])), 3),
        "spearman_altitude_unknown": correlation(without, real),
        "brightness_real": {k: round(float(np.mean(v)), 1) for k, v in truth.items()},
        "brightness_drawn": {k: round(float(np.mean(v)), 1) for k, v in light.items()},
        "brightness_difference_in_standard_errors": round(
            float((np.mean(light["night"]) - np.mean(light["day"])) / (every.std() * np.sqrt(2 / half))), 1
        ),
        "of_shuffled": round(float((mixed[:half].mean() - mixed[half:].mean()) / (every.std() * np.sqrt(2 / half))), 1),
    }  # fmt: skip
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
