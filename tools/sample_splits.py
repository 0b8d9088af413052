"""Splits of the sample data that the packaged models are trained, calibrated and judged on; none of them leaks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from dataengine.data import coco, hit_uav
from dataengine.data.layout import Dataset
from dataengine.data.split import flight_key, split_by_group

DEFAULT_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
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
