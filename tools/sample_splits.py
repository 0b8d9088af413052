"""Splits of the sample data that the packaged models are trained, calibrated and judged on; none of them leaks.

python tools/sample_splits.py hit-uav test --out work/hit-uav-test     # as a COCO data set, such as for --scenes
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np

from dataengine.data import coco, hit_uav, voc, yolo
from dataengine.data.images import measure, read_or_fail
from dataengine.data.layout import Acquisition, Dataset, Layout, Sample, class_key
from dataengine.data.split import flight_key, split_by_group
from dataengine.errors import UserError
from dataengine.evaluate.windows import cut_windows as pictures_of
from dataengine.files import parse_json, read_text
from dataengine.train.latent_windows import Source

DEFAULT_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
WINDOW = 256
WINDOWS_OF_EACH = 2
PARTS = ("train", "calibration", "test")
CLASSES = ("Person", "Car", "Bicycle", "OtherVehicle", "airplane", "bus", "boat", "jetski", "dock", "lift")
SAME_CLASS = {"minibus": "Car", "cyclist": "Bicycle"}
SHARES = {"hit-uav": 0.36, "hrplanes": 0.28, "naip-urban-ca": 0.22, "aerial-maritime": 0.09, "kit-ais-cars": 0.05}
KIT_GSD_M = 0.13
MARITIME_GSD_M = 0.037  # a car of 4.8 m is 130 pixels long, a jetski of 3.1 m 81 (medians)


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


def with_classes(dataset: Dataset, name: str, gsd_m: float | None = None) -> Dataset:
    """The data set with CLASSES, a name and, if it is known, a ground sample distance; objects of other classes become
    ignored regions."""
    number = {class_key(c): i for i, c in enumerate(CLASSES)}
    row = np.array([number.get(class_key(SAME_CLASS.get(c, c)), -1) for c in dataset.classes], np.int64)

    def converted(layout: Layout) -> Layout:
        labels = row[layout.labels]
        ignored = np.concatenate([layout.ignored, layout.boxes[labels < 0]])
        layout = replace(layout, labels=labels, classes=CLASSES, ignored=ignored).select(labels >= 0)
        if gsd_m is None:
            return layout
        return replace(layout, acquisition=layout.acquisition.model_copy(update={"gsd_m": gsd_m}))

    samples = [replace(sample, layout=converted(sample.layout)) for sample in dataset]
    return replace(dataset, name=name, classes=CLASSES, samples=samples)


def naip_scenes(data: Path, part: str) -> Dataset:
    """Unlabelled images with their ground sample distances."""
    folder, samples = data / "naip-urban-ca", []
    for entry in parse_json(read_text(folder / f"{part}.json")):
        image = folder / entry["file"]
        acquisition = Acquisition(gsd_m=entry["gsd_m"])
        layout = Layout([], [], CLASSES, measure(image), "hbb", acquisition=acquisition)
        samples.append(Sample(image.stem, image, layout))
    return Dataset(CLASSES, samples, "hbb", "naip-urban-ca")


def sources(data: Path, part: str) -> list[Source]:
    """The packaged training data; part is "train" or "val". No scene is in both."""
    named = splits(data)
    datasets = [
        with_classes(named[name]["train" if part == "train" else "calibration"], name)
        for name in ("hit-uav", "hrplanes")
    ]
    datasets += [
        naip_scenes(data, part),
        with_classes(voc.read(data / "aerial-maritime" / part), "aerial-maritime", MARITIME_GSD_M),
        with_classes(yolo.read(data / "kit-ais-cars", split=part), "kit-ais-cars", KIT_GSD_M),
    ]
    return [Source(dataset, SHARES[dataset.name], dataset.name != "naip-urban-ca") for dataset in datasets]


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
