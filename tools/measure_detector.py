"""Measure an exported detector on held-out images and write its model card.

    python tools/measure_detector.py work/export/filter configs/detectors/small-rtmdet-r.yaml --trained work/filter

Measures average precision on the test flights and scenes, and the shares of real test images that pass a filter
calibrated on the calibration part, with their labels and with those of another image. Writes metrics.json and README.md
into the folder.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from rich.progress import track
from sample_splits import DEFAULT_DATA, WINDOW, load, splits, windows

from dataengine.data.layout import Dataset, Layout
from dataengine.errors import UserError
from dataengine.evaluate.average_precision import average_precision
from dataengine.judge.calibrate import calibrate
from dataengine.judge.detector import OnnxDetector, read_config
from dataengine.judge.verdict import judge

CARD = """---
license: cc-by-4.0
---
# {title}

{architecture}

Trained for {steps} steps of {batch_size} tiles of {image_size} pixels on {threads} (bf16 arithmetic, randomly
initialised), on the training parts of HIT-UAV (Suo et al., Scientific Data 10, 227, 2023; CC BY 4.0;
thermal, rotated boxes) and HRPlanes v2 (CC BY 4.0; optical, horizontal boxes). HIT-UAV is split by flight, so that no
held-out image shows ground of a training image. Augmentation: turns and mirroring; ignored regions
are filled.

`model.onnx`: `images` float32 (1, 3, {image_size}, {image_size}), RGB in [0, 255] -> `boxes` (1, P, 5), `scores`
(1, P, {n_classes}). Weights are stored as fp16. Classes: {classes}.

## Measured on held-out images
Whole images in windows, evaluated as DOTA does; difficult objects and ignored regions do not count.

| data set | class | objects | AP50 | AP50:95 |
|---|---|---|---|---|
{rows}

As a filter, calibrated on the calibration parts for 95 %, in windows of {window} pixels: share of test images that pass

| data set | with their labels | with the labels of another image |
|---|---|---|
{pass_rows}

## Limits
The training data have few OtherVehicle objects ({rare} in all parts together), one thermal camera at 60 to 130 m, and
airports in nadir view. For other imagery, train another detector.
"""


def measured_ap(detector: OnnxDetector, dataset: Dataset) -> dict[str, dict[str, float]]:
    """{class: {objects, ap50, ap}} with the mean over classes as "mean"."""
    detections = [detector.detect([load(sample)])[0] for sample in track(dataset.samples, f"{dataset.name} test")]
    result = average_precision(detections, [sample.layout for sample in dataset], detector.classes)
    table = {
        name: {"objects": int(n), "ap50": round(float(column[0]), 4), "ap": round(float(column.mean()), 4)}
        for name, n, column in zip(result.classes, result.objects, result.values.T, strict=True)
        if n
    }
    return table | {"mean": {"objects": int(result.objects.sum()), "ap50": result.mean(0.5), "ap": result.mean()}}


def measured_filter(detector: OnnxDetector, parts: dict[str, Dataset]) -> dict[str, float] | str:
    """Shares of test windows that pass with their labels and with those of another image, or why calibration fails."""
    images, layouts = windows(parts["calibration"])
    try:
        rule = calibrate(detector, [lambda p=p: p for p in images], layouts, parts["calibration"].name, progress=track)
    except UserError as error:
        return str(error)
    images, layouts = windows(parts["test"])
    detections = [detector.detect([image])[0] for image in images]

    def share(truths: list[Layout]) -> float:
        pairs = zip(detections, truths, strict=True)
        return float(np.mean([judge(found, truth, detector.classes, rule)[1].kept for found, truth in pairs]))

    half = len(layouts) // 2
    return {"windows": len(layouts), "real": share(layouts), "shuffled": share(layouts[half:] + layouts[:half])}


def card(folder: Path, config: Path, trained: Path, metrics: dict, rare: int) -> str:
    """The text of the model card."""
    state = json.loads((trained / "training" / "training.json").read_text())
    detector = read_config(folder)
    comment = " ".join(line[2:] for line in config.read_text().splitlines() if line.startswith("# "))
    rows, pass_rows = [], []
    for dataset, figures in metrics.items():
        for name, row in figures["ap"].items():
            rows.append(f"| {dataset} | {name} | {row['objects']} | {row['ap50']:.3f} | {row['ap']:.3f} |")
        shares = figures["filter"]
        pass_rows.append(
            f"| {dataset} | none: {shares} | |" if isinstance(shares, str)
            else f"| {dataset} | {shares['real']:.1%} | {shares['shuffled']:.1%} |"
        )  # fmt: skip
    return CARD.format(
        title=f"Oriented detector: {folder.name}",
        architecture=comment,
        steps=state["step"],
        batch_size=state["settings"]["batch_size"],
        image_size=detector.image_size,
        threads="one CPU core",
        n_classes=len(detector.classes),
        classes=", ".join(detector.classes),
        rows="\n".join(rows),
        pass_rows="\n".join(pass_rows),
        window=WINDOW,
        rare=rare,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="model.onnx and config.json")
    parser.add_argument("config", type=Path)
    parser.add_argument("--trained", type=Path, required=True, help="output folder of dataengine train detector")
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    detector = OnnxDetector(arguments.folder, arguments.threads)
    data_sets = splits(arguments.data)
    metrics = {
        name: {"ap": measured_ap(detector, parts["test"]), "filter": measured_filter(detector, parts)}
        for name, parts in data_sets.items()
    }
    rare = sum(s.layout.names().count("OtherVehicle") for part in data_sets["hit-uav"].values() for s in part)
    (arguments.folder / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    text = card(arguments.folder, arguments.config, arguments.trained, metrics, rare)
    (arguments.folder / "README.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
