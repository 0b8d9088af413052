"""Layout score: AP50 on a run's images, against their labels, of a detector that had no part in making them.

    python tools/bench/layout_score.py runs/hit-uav --dataset hit-uav
    python tools/bench/layout_score.py runs/hit-uav --dataset hit-uav --all-attempts     # before filtering

Beside it, by the same detector in the same run: real held-out windows (the most that can be hoped for), and the
control, in which every image is scored against the labels of another one (must be near zero).

Only painted objects are scored: those that the scene held before count neither way.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from sample_splits import DEFAULT_DATA, splits, windows

from dataengine import weights
from dataengine.data.layout import Layout
from dataengine.engine.shard import layout_from_json
from dataengine.evaluate.average_precision import average_precision
from dataengine.judge.detector import OnnxDetector

SIZES = {"small": (0.0, 16.0**2), "medium": (16.0**2, 32.0**2), "large": (32.0**2, float("inf"))}  # square pixels


def run_images(run: Path, every: bool) -> tuple[list[np.ndarray], list[Layout]]:
    """Images of a run with their labels; of all attempts, dropped ones too, if `every`."""
    records = [json.loads(line) for line in (run / "manifest.jsonl").read_text().splitlines()]
    chosen = [r for r in records if every or r["verdict"]["kept"]]
    images = [np.asarray(Image.open(run / r["image"]).convert("RGB")) for r in chosen]
    return images, [painted_only(layout_from_json(r["labels"]), len(r["asked"]["labels"])) for r in chosen]


def painted_only(layout: Layout, painted: int) -> Layout:
    """The layout whose objects after the first `painted`, which are the scene's own, are difficult."""
    return replace(layout, difficult=layout.difficult | (np.arange(len(layout)) >= painted))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--dataset", required=True, choices=("hit-uav", "hrplanes"))
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA)
    parser.add_argument("--detector", type=Path, help="folder; the packaged evaluation detector if not given")
    parser.add_argument("--all-attempts", action="store_true", help="score dropped images too")
    parser.add_argument("--out", type=Path, help="append the result as a line of JSON")
    arguments = parser.parse_args()
    detector = OnnxDetector(arguments.detector or weights.packaged("evaluation-detector"))
    run, layouts = run_images(arguments.run, arguments.all_attempts)
    real, real_layouts = windows(splits(arguments.data)[arguments.dataset]["test"])
    detections = detector.detect(run)
    half = len(layouts) // 2
    result = {"run": arguments.run.name, "dataset": arguments.dataset, "images": len(run), "real_images": len(real)}
    rows = {
        "synthetic": (detections, layouts),
        "real": (detector.detect(real), real_layouts),
        "shuffled": (detections, layouts[half:] + layouts[:half]),
    }
    for name, (found, wanted) in rows.items():
        score = average_precision(found, wanted, detector.classes, (0.5,))
        result[name] = {"AP50": round(score.mean(0.5), 4)} | {k: round(v, 4) for k, v in score.at(0.5).items()}
        for size, areas in SIZES.items():
            of_size = average_precision(found, wanted, detector.classes, (0.5,), areas)
            result[name][size] = {k: round(v, 4) for k, v in of_size.at(0.5).items()}
    result["ratio"] = round(result["synthetic"]["AP50"] / max(result["real"]["AP50"], 1e-9), 4)
    print(json.dumps(result, indent=2))
    if arguments.out:
        with open(arguments.out, "a") as file:
            file.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
