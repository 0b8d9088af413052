"""Measure an exported detector on held-out images, and write its model card.

    python tools/measure_detector.py work/export/filter configs/detectors/filter.py --trained work/filter

Average precision on the test flights and scenes; how many real test images pass a filter that was calibrated on the
calibration part, and how many with another image's labels. Writes metrics.json and README.md into the folder.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

import numpy as np
from rich.progress import track
from sample_splits import DEFAULT_DATA, WINDOW, load, splits, windows

from dataengine.data.layout import Dataset, Layout
from dataengine.errors import UserError
from dataengine.evaluate.average_precision import average_precision
from dataengine.judge.calibrate import calibrate
from dataengine.judge.detector import OnnxDetector
from dataengine.judge.verdict import judge

CARD = """---
license: cc-by-4.0
---
# {title}

{architecture}

Trained for {steps} steps of {batch_size} tiles of {image_size} pixels on {threads} (bf16 arithmetic, random
start, no other weights), on the training parts of HIT-UAV (Suo et al., Scientific Data 10, 227, 2023; CC BY 4.0;
thermal, rotated boxes) and HRPlanes v2 (CC BY 4.0; optical, horizontal boxes). HIT-UAV is split by flight, so that no
held-out image shows ground that was trained on. Turned, mirrored, scaled, re-lit; regions to be ignored painted over.

`model.onnx`: `images` float32 (1, 3, {image_size}, {image_size}), RGB in [0, 255] -> `boxes` (1, P, 5), `scores`
(1, P, {n_classes}). Weights are stored as fp16. Classes: {classes}.

## Measured on held-out images
Whole images in windows, DOTA's way of counting; difficult objects and regions to be ignored do not count.

| data set | class | objects | AP50 | AP50:95 |
|---|---|---|---|---|
{rows}

As a filter, calibrated on the calibration parts for 95 %, in windows of {window} pixels: share of test images that pass

| data set | with their labels | with another image's labels |
|---|---|---|
{pass_rows}

## Limits
Few OtherVehicle objects were there to learn from ({rare} in all parts together). The detector has seen one thermal
camera at 60 to 130 m and airports from above; elsewhere, train another.
"""


def measured_ap(detector: OnnxDetector, dataset: Dataset) -> dict[str, dict[str, float]]:
    """{class: {objects, ap50, ap}} and the mean."""
    seen = [detector.detect([load(sample)])[0] for sample in track(dataset.samples, f"{dataset.name} test")]
    result = average_precision(seen, [sample.layout for sample in dataset], detector.classes)
    table = {
        name: {"objects": int(n), "ap50": round(float(column[0]), 4), "ap": round(float(column.mean()), 4)}
        for name, n, column in zip(result.classes, result.objects, result.values.T, strict=True)
        if n
    }
    return table | {"mean": {"objects": int(result.objects.sum()), "ap50": result.mean(0.5), "ap": result.mean()}}


def measured_filter(detector: OnnxDetector, parts: dict[str, Dataset]) -> dict[str, float] | str:
    """Shares of test windows that pass with their own and with another image's labels, or why there is no filter."""
    pictures, layouts = windows(parts["calibration"])
    try:
        rule = calibrate(
            detector, [lambda p=p: p for p in pictures], layouts, parts["calibration"].name, progress=track
        )
    except UserError as error:
        return str(error)
    pictures, layouts = windows(parts["test"])
    seen = [detector.detect([picture])[0] for picture in pictures]

    def share(truths: list[Layout]) -> float:
        pairs = zip(seen, truths, strict=True)
        return float(np.mean([judge(found, truth, detector.classes, rule)[1].kept for found, truth in pairs]))

    half = len(layouts) // 2
    return {"windows": len(layouts), "real": share(layouts), "shuffled": share(layouts[half:] + layouts[:half])}


def card(folder: Path, config: Path, trained: Path, metrics: dict, rare: int) -> str:
    """The model card's text."""
    from runpy import run_path

    settings = run_path(str(config))
    comment = " ".join(line[2:] for line in config.read_text().splitlines() if re.match(r"# (?!ruff)", line))
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
        steps=json.loads((trained / "state.json").read_text())["step"],
        batch_size=settings["training"]["batch_size"],
        image_size=settings["image_size"],
        threads="one CPU core",
        n_classes=len(settings["classes"]),
        classes=", ".join(settings["classes"]),
        rows="\n".join(rows),
        pass_rows="\n".join(pass_rows),
        window=WINDOW,
        rare=rare,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="model.onnx and config.json")
    parser.add_argument("config", type=Path)
    parser.add_argument("--trained", type=Path, required=True, help="folder of train_detector.py")
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    detector = OnnxDetector(arguments.folder, arguments.threads)
    every = splits(arguments.data)
    metrics = {
        name: {"ap": measured_ap(detector, parts["test"]), "filter": measured_filter(detector, parts)}
        for name, parts in every.items()
    }
    rare = sum(s.layout.names().count("OtherVehicle") for part in every["hit-uav"].values() for s in part)
    (arguments.folder / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    text = card(arguments.folder, arguments.config, arguments.trained, metrics, rare)
    (arguments.folder / "README.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
