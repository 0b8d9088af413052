"""What painting into real pictures changes: pixels outside the new objects, and how its border looks.

    dataengine synth --dataset hit-uav --data DATA/hit-uav --into DATA/hit-uav --n 40 --out runs/into
    python tools/bench/into.py runs/into --data DATA/hit-uav

For every attempt with a new object: the largest change outside the margin of the new objects (of 255), labels of the
original that are still there to the thousandth of a pixel, and the mean step of brightness across the border of what
was changed, over that across the same places before, and over that elsewhere in the same picture.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from dataengine.data import formats
from dataengine.engine.run_folder import RunFolder
from dataengine.render.inpaint import paint_mask


def steps_across(grey: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Steps of brightness between neighbours of which one is inside the mask, and between all others."""
    border, other = [], []
    for axis in (0, 1):
        step, crossing = np.abs(np.diff(grey, axis=axis)), np.diff(mask.astype(int), axis=axis) != 0
        border.append(step[crossing]), other.append(step[~crossing])
    return np.concatenate(border), np.concatenate(other)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="the data set that was painted into")
    arguments = parser.parse_args()
    originals = {sample.name: sample for sample in formats.read(arguments.data)}
    run = RunFolder(arguments.run)
    outside, kept_labels, before_border, after_border, elsewhere, objects = 0, 0, [], [], [], 0
    records = [record for record in run.records() if len(record.asked)]
    for record in records:
        name, left, top = record.provenance.name, record.provenance.left, record.provenance.top
        with Image.open(originals[name].image) as file:
            before = np.asarray(file.convert("RGB")).astype(float)
        after = np.asarray(Image.open(run.image(record)).convert("RGB")).astype(float)
        asked, labels = record.asked, record.labels
        mask, part = np.zeros(before.shape[:2], np.uint8), paint_mask(asked, asked.select([]))
        mask[top : top + part.shape[0], left : left + part.shape[1]] = part
        changed = np.abs(after - before).max(2)
        outside = max(outside, float(changed[mask == 0].max()))
        own = originals[name].layout.boxes
        still = labels.boxes[record.n_painted :]
        kept_labels += len(still) == len(own) and np.allclose(still, own, atol=2e-3)
        objects += len(asked)
        touched = cv2.morphologyEx((changed > 0).astype(np.uint8), cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8))
        border, other = steps_across(after.mean(2), touched)
        after_border.append(border), elsewhere.append(other)
        before_border.append(steps_across(before.mean(2), touched)[0])
    mean = {"before": before_border, "after": after_border, "elsewhere": elsewhere}
    mean = {key: float(np.concatenate(values).mean()) for key, values in mean.items()}
    print(json.dumps({
        "pictures": len(records), "new_objects": objects, "largest_change_outside_of_255": outside,
        "pictures_with_all_their_labels": int(kept_labels),
        "border_step_over_the_same_place_before": round(mean["after"] / mean["before"], 3),
        "border_step_over_elsewhere": round(mean["after"] / mean["elsewhere"], 3),
    }, indent=2))  # fmt: skip


if __name__ == "__main__":
    main()
