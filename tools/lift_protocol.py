"""The protocols HIT-UAV-100 and HRPlanes-100, after AeroGen's HRSC-100: the benefit for a detector of synthetic images
that are generated from 100 labelled real images only.

    python tools/lift_protocol.py hit-uav --work work/hit-uav-100            # in an environment with mmrotate

The renderer is trained on all 100 images, the filter's detector on 80 of them, and the filter is calibrated on the
other 20; none of them sees another label. The run `synthetic` is compared with variants (`RUNS`): ablations, and a run
that also uses the other training images, labelled by the filter's detector. The arm `more real` has the labels of all
training images. Each step is a public command, and the same call continues an interrupted protocol. `--scale` shortens
it; the detector needs some hundreds of steps (0.3) before it can be calibrated.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from sample_splits import DEFAULT_DATA, splits

from dataengine.data import coco
from dataengine.data.layout import Dataset
from dataengine.render.placement import empty_layout

DETECTOR_SHARE = 0.8  # of the labelled images; the others are for the calibration
SIZES = 500, 2000, 5000
RUNS = {
    "synthetic": (),
    "unfiltered": ("--filter", "off"),
    "likely-places": ("--likely-places",),
    "without-rows": ("--rows", 0),
    "plain-layouts": ("--no-enhance", "--rows", 0),
    "bootstrapped": ("--data", "{work}/bootstrapped-real"),
}
OTHER_SIZE = 2000  # images of every run but the first
RENDERER_STEPS, DISTILL_STEPS = 1500, 300
PASS_SHARE = 0.7  # the largest share of real images that a detector trained on 80 images passes
STRENGTH = 0.3  # repaints real objects: 100 images are too few to paint objects from noise
ROWS = 0.3  # share of objects in rows: scenes have too little room for objects close together
MIN_LABEL_SCORE, MIN_DOUBTFUL_SCORE = 0.42, 0.3  # of labels for the other training images
# shares of classes, closer to equal; not OtherVehicle, of which there are only six objects
BALANCE = {"hit-uav": ("--balance", "Car=0.3,Bicycle=0.25"), "hrplanes": ()}
FILTER_STEPS, STEPS, BATCH_SIZE, TILE_SIZE = 1200, 4000, 8, 256
PASTED = 5000
DETECTOR = "rtmdet-r"
CONFIGS = Path(__file__).resolve().parents[1] / "configs" / "detectors"
FILTER_PRESET = "lite0"
# of the lift: airplanes are recognisable at half size, where training from scratch converges
LIFT = {
    "hit-uav": ("--options", CONFIGS / "lite0-rtmdet-r.yaml"),
    "hrplanes": ("--options", CONFIGS / "tiny-rtmdet-r.yaml", "--scale", 0.5),
}


def write_parts(name: str, data: Path, work: Path, labelled: int) -> None:
    """Write the data sets: random labelled training images (fewer are a subset of more), their 80 % and 20 % parts, all
    training images, the unlabelled ones, and the test part."""
    parts = splits(data)[name]
    chosen = np.random.default_rng(100).permutation(len(parts["train"]))[:labelled]
    for_detector = round(DETECTOR_SHARE * labelled)

    def write(numbers: np.ndarray, source: Dataset, folder: str) -> None:
        if not (work / folder).exists():
            coco.write(replace(source, samples=[source.samples[i] for i in np.sort(numbers)]), work / folder)

    write(chosen, parts["train"], "real")
    write(chosen[:for_detector], parts["train"], "for-detector")
    write(chosen[for_detector:], parts["train"], "for-calibration")
    write(np.arange(len(parts["train"])), parts["train"], "more-real")
    write(np.arange(len(parts["test"])), parts["test"], "test")
    bare = [replace(sample, layout=empty_layout(sample.layout)) for sample in parts["train"].samples]
    others = np.setdiff1d(np.arange(len(bare)), chosen)
    write(others, replace(parts["train"], samples=bare), "unlabelled")


def command(*words: object, made: Path | None = None) -> None:
    """Run `dataengine WORDS` unless `made` exists. Commands that continue by themselves have no `made`."""
    if made is not None and made.exists():
        return
    words = [str(word) for word in words]
    print("dataengine", shlex.join(words), flush=True)
    subprocess.run([sys.executable, "-m", "dataengine", *words], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", choices=("hit-uav", "hrplanes"))
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA)
    parser.add_argument("--labelled", type=int, default=100, help="real images whose labels are used")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--runs", nargs="+", choices=RUNS, default=list(RUNS), help="runs to generate and measure")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="images of the arms of the first run")
    parser.add_argument("--steps", type=int, default=STEPS, help="of the optimiser, in every arm")
    parser.add_argument("--workers", type=int, default=2, help="trainings at a time")
    parser.add_argument("--scale", type=float, default=1.0, help="of steps and numbers of images")
    arguments = parser.parse_args()
    work, scale = arguments.work, arguments.scale

    def scaled(n: int, least: int = 2) -> int:
        return max(least, round(n * scale))

    write_parts(arguments.dataset, arguments.data, work, arguments.labelled)
    real, slow, quick = work / "real", work / "renderer", work / "quick"
    command("train", "renderer", real, "--out", slow, "--steps", scaled(RENDERER_STEPS), "--copies", 9,
            made=slow / "pipeline")  # fmt: skip
    command("train", "fewer-steps", real, "--model", slow / "pipeline", "--guidance", 1, "--out", quick,
            "--steps", scaled(DISTILL_STEPS), made=quick / "pipeline")  # fmt: skip
    onnx, rule = work / "judge" / "detector", work / "calibration.json"
    filtered = any("off" not in RUNS[name] for name in arguments.runs)  # a few dozen images are too few for a filter
    if filtered:
        command("train", "detector", work / "for-detector", "--out", work / "judge", "--preset", FILTER_PRESET,
                "--steps", scaled(FILTER_STEPS, 10), "--batch-size", BATCH_SIZE, "--tile-size", TILE_SIZE,
                "--seed", 100, made=onnx)  # fmt: skip
        command("filter", "calibrate", work / "for-calibration", "--detector", onnx, "--out", rule,
                "--pass-share", PASS_SHARE, made=rule)  # fmt: skip
    for name in arguments.runs:
        if name == "bootstrapped":
            labelled, both = work / "labelled", work / "bootstrapped-real"
            command("filter", "label", work / "unlabelled", "--detector", onnx, "--calibration", rule,
                    "--min-score", MIN_LABEL_SCORE, "--doubtful-score", MIN_DOUBTFUL_SCORE, "--keep-doubtful",
                    "--out", labelled, made=labelled)  # fmt: skip
            command("data", "merge", real, labelled, "--out", both, made=both)
        sizes = [scaled(n) for n in (arguments.sizes if name == arguments.runs[0] else [OTHER_SIZE])]
        changes = [str(word).format(work=work) for word in RUNS[name]]
        judge = () if "off" in RUNS[name] else ("--detector", onnx, "--calibration", rule)
        command("synth", "--data", real, "--model", quick / "pipeline", *judge, "--n", max(sizes),
                *BALANCE[arguments.dataset], "--strength", STRENGTH, "--rows", ROWS, "--augment-scenes",
                *changes, "--out", work / name)  # fmt: skip
        command("evaluate", "lift", work / name, "--real", real, "--test", work / "test", "--out", work / "lift",
                "--more-real", work / "more-real", *(word for n in sizes for word in ("--images", n)),
                "--seeds", arguments.seeds, "--workers", arguments.workers, "--steps", scaled(arguments.steps, 10),
                "--batch-size", BATCH_SIZE, "--tile-size", TILE_SIZE, "--detector", DETECTOR,
                "--pasted", scaled(PASTED), "--cpu", *LIFT[arguments.dataset])  # fmt: skip


if __name__ == "__main__":
    main()
