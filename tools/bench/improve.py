"""Does `dataengine improve` help? Against real images alone, copy-paste, and plain synthetic images, at equal steps.

    python tools/bench/improve.py hrplanes --work work/improve-hrplanes --preset tiny --steps 1500

hit-uav, hrplanes: 100 labelled training images at random, as in `tools/lift_protocol.py`; the calibration part of
`sample_splits` is the validation part that `improve` decides with, and the test part is looked at once. maritime: the
tiles of 100 training images, and its own val part, halved by photograph.

Arms: `real`, the baseline of `improve`; `copy-paste`; `plain synth`, its first round, which is what `synth` makes with
default choices, kept or not; `improve`, the detectors that it hands back. Each has the same seeds, steps and preset.
The same call continues. Figures: WORK/figures.json, and a table on standard output.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from sample_splits import DEFAULT_DATA, splits

from dataengine.data import coco, voc
from dataengine.data.layout import Dataset
from dataengine.data.split import split_by_group
from dataengine.evaluate.copy_paste import write_copy_paste
from dataengine.evaluate.lift import interval
from dataengine.files import write_whole
from dataengine.improve.gain import gain
from dataengine.improve.trainings import Part, Training, detect, read_training
from dataengine.train.detector import PRESETS, train_detector

LABELLED = 100
PASTED = 2000
REAL_SHARE = 0.5


def parts_of(name: str, data: Path) -> dict[str, Dataset]:
    """The parts train, val and test."""
    if name == "maritime":
        root = data / "aerial-maritime"
        held_out = voc.read(root / "val")
        halves = split_by_group(held_out, (0.5, 0.5), seed=0, key=lambda sample: sample.name.split("_")[0])
        parts = {"train": voc.read(root / "train"), "val": halves[0], "test": halves[1]}
    else:
        found = splits(data)[name]
        parts = {"train": found["train"], "val": found["calibration"], "test": found["test"]}
    chosen = np.sort(np.random.default_rng(100).permutation(len(parts["train"]))[:LABELLED])
    return parts | {"train": replace(parts["train"], samples=[parts["train"].samples[i] for i in chosen])}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", choices=("hit-uav", "hrplanes", "maritime"))
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA)
    parser.add_argument("--preset", choices=PRESETS, default="tiny")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--renderer-steps", type=int, default=1500)
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    work = arguments.work
    for name, part in parts_of(arguments.dataset, arguments.data).items():
        if not (work / "data" / name).exists():
            coco.write(part, work / "data" / name, split=name)
    options = {
        name.replace("_", "-"): getattr(arguments, name)
        for name in ("preset", "steps", "scale", "renderer_steps", "images", "rounds", "seeds")
    }
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    command = [sys.executable, "-m", "dataengine", "improve", work / "data", "--out", work / "improve", *words]
    subprocess.run([str(word) for word in command], check=True)

    train, test = (Part.read(work / "improve" / "parts" / name) for name in ("train", "test"))
    pasted = work / "copy-paste"
    if not pasted.exists():
        write_copy_paste(train.dataset, PASTED, 256, pasted)
    for seed in range(arguments.seeds):
        train_detector(
            train.path, work / "with-pasted" / f"seed-{seed}" / "training", extra=pasted, preset=arguments.preset,
            steps=arguments.steps, seed=seed, real_share=REAL_SHARE, scale=arguments.scale,
        )  # fmt: skip
    journal = json.loads((work / "improve" / "improve.json").read_text())["stages"]
    handed_back = [stage.removeprefix("handed back: ") for stage in journal if stage.startswith("handed back: ")][-1]

    def of_improve(arm: str) -> list[Path]:
        return [work / "improve" / journal[f"{arm}, seed {seed}"]["detector"] for seed in range(arguments.seeds)]

    folders = {
        "real": of_improve("real images alone"),
        "copy-paste": [
            work / "with-pasted" / f"seed-{seed}" / "training" / "detector" for seed in range(arguments.seeds)
        ],
        "plain synth": of_improve("round 1"),
        "improve": of_improve(handed_back),
    }
    tested = {name: [on_test(folder, test) for folder in each] for name, each in folders.items()}
    figures = {name: _figures(each, tested["real"], tested["copy-paste"]) for name, each in tested.items()}
    write_whole(work / "figures.json", json.dumps({"settings": options, "kept": handed_back} | figures, indent=2))
    for name, values in figures.items():
        print(name, json.dumps(values))


def on_test(folder: Path, test: Part) -> Training:
    """A detector's detections on the test part, found once."""
    file = folder.with_name("bench-test.npz")
    if not file.exists():
        detect(folder, test, file)
    return read_training(folder, test, file)


def _figures(trainings: list[Training], real: list[Training], pasted: list[Training]) -> dict:
    """AP50 of each seed, its mean with interval, and what is gained over two arms, in all and by class."""
    matched = [training.matched for training in trainings]
    out = {"AP50": [round(t.ap50, 4) for t in trainings], "mean": str(interval([t.ap50 for t in trainings]))}
    for name, base in (("real", real), ("copy-paste", pasted)):
        if trainings is not base:
            gained = gain(matched, [training.matched for training in base])
            out[f"over {name}"] = str(gained.mean)
            out[f"over {name}, by class"] = {label: str(figure) for label, figure in gained.by_class.items()}
    return out


if __name__ == "__main__":
    main()
