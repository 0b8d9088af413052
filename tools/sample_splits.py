"""Splits of the sample data that the packaged models are trained, calibrated and judged on; none of them leaks.

python tools/sample_splits.py hit-uav test --out work/hit-uav-test     # as a COCO data set, such as for --scenes
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np

from dataengine.data import coco, hit_uav
from dataengine.data.images import read_or_fail
from dataengine.data.layout import Dataset, Layout, Sample
from dataengine.data.split import flight_key, split_by_group
from dataengine.errors import UserError
from dataengine.evaluate.windows import cut_windows as pictures_of

DEFAULT_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
WINDOW = 256
WINDOWS_OF_EACH = 2
PARTS = ("train", "calibration", "test")


def hit_uav_splits(data: Path = DEFAULT_DATA) -> dict[str, Dataset]:
    """80 / 10 / 10 % of all published frames by flight, since the official split divides flights."""
    dataset = hit_uav.read(data / "hit-uav")
    parts = split_by_group(dataset, (0.8, 0.1, 0.1), seed=0, key=flight_key(dataset))
    return {name: replace(part, name="hit-uav") for name, part in zip(PARTS, parts, strict=True)}


def hrplanes_splits(data: Path = DEFAULT_DATA) -> dict[str, Dataset]:
    """The official train split, and the official val split halved by image."""
    held_out = coco.read(data / "hrplanes-v2", split="val")
    halves = split_by_group(held_out, (0.5, 0.5), seed=0, key=lambda sample: sample.name)
    parts = (coco.read(data / "hrplanes-v2", split="train"), *halves)
    return {name: replace(part, name="hrplanes") for name, part in zip(PARTS, parts, strict=True)}


def splits(data: Path = DEFAULT_DATA) -> dict[str, dict[str, Dataset]]:
    """{data set: {"train" | "calibration" | "test": Dataset}} of both packaged data sets."""
    return {"hit-uav": hit_uav_splits(data), "hrplanes": hrplanes_splits(data)}


def load(sample: Sample) -> np.ndarray:
    """uint8 (H, W, 3)."""
    return read_or_fail(sample)


def windows(dataset: Dataset) -> tuple[list[np.ndarray], list[Layout]]:
    """Random windows of each image that show an object, at most the image's own size."""
    pictures = pictures_of(dataset, (WINDOW, WINDOW), of_each=WINDOWS_OF_EACH)
    return [picture.pixels() for picture in pictures], [picture.layout for picture in pictures]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", choices=("hit-uav", "hrplanes"))
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA)
    arguments = parser.parse_args()
    try:
        coco.write(splits(arguments.data)[arguments.dataset][arguments.part], arguments.out)
    except UserError as error:
        parser.error(f"{error}; --data is the folder that holds hit-uav and hrplanes-v2.")
