"""Do re-rendered pictures hold their objects, and do they look as asked? HIT-UAV's held-out flights, day and night.

    python tools/bench/rerender.py --images 40 --out work/rerender

Windows of 256 pixels by day are re-rendered as by night, and the reverse. Objects: rotated IoU of what the packaged
detector finds before and after, 0 where it finds nothing any more; only objects that it finds in the real picture.
Look: share that a linear classifier of real training windows calls as asked. Controls: a copy of the input (must fail
the look), a picture from the layout alone (must fail the IoU), asked conditions shuffled, and objects not held.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from acquisition import NightClassifier
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from sample_splits import DEFAULT_DATA, WINDOW, hit_uav_splits, load

from dataengine import geometry, weights
from dataengine.data.layout import Dataset, Layout
from dataengine.judge.detector import load_detector
from dataengine.judge.verdict import match
from dataengine.layouts.windows import cut
from dataengine.render import rerender as rerendering
from dataengine.render.renderer import load_renderer

MIN_SCORE = 0.3  # of a detection in the real picture, from which its object counts
TRAINING_WINDOWS = 700
MIN_HELD, MIN_CALLED = 0.9, 0.8  # shares from which a way of re-rendering passes


def windows_of(dataset: Dataset, n: int, rng: np.random.Generator, each: bool) -> tuple[list[np.ndarray], list[Layout]]:
    """A window with an object in the middle part of up to n pictures; n by day and n by night with `each`."""
    images, layouts, count = [], [], {True: 0, False: 0}
    for i in rng.permutation(len(dataset)):
        sample = dataset.samples[i]
        night = bool(sample.layout.acquisition.night)
        if not len(sample.layout) or (count[night] if each else len(images)) >= n:
            continue
        centre = sample.layout.boxes[rng.integers(len(sample.layout)), :2]
        left, top = np.clip((centre - WINDOW / 2).astype(int), 0, np.array(sample.layout.size) - WINDOW)
        images.append(np.ascontiguousarray(load(sample)[top : top + WINDOW, left : left + WINDOW]))
        layouts.append(cut(sample.layout, left, top, (WINDOW, WINDOW)))
        count[night] += 1
    return images, layouts


def nights(layouts: list[Layout]) -> np.ndarray:
    return np.array([bool(layout.acquisition.night) for layout in layouts])


def asked_of(layouts: list[Layout], night: np.ndarray) -> list[Layout]:
    return [
        replace(layout, acquisition=layout.acquisition.model_copy(update={"night": bool(value)}))
        for layout, value in zip(layouts, night, strict=True)
    ]


def ious(before: list, after: list, layouts: list[Layout], classes: tuple[str, ...]) -> np.ndarray:
    """Rotated IoU of each object's detection before and after; 0 where it is not found any more."""
    values = []
    for a, b, layout in zip(before, after, layouts, strict=True):
        first, second = match(a, layout, classes), match(b, layout, classes)
        for k in np.flatnonzero(first.scores >= MIN_SCORE):
            boxes = a.boxes[first.detections[k]][None], b.boxes[second.detections[k]][None]
            values.append(geometry.iou(*boxes)[0, 0] if second.detections[k] >= 0 else 0.0)
    return np.array(values)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA)
    parser.add_argument("--images", type=int, default=40, help="by day, and as many by night")
    parser.add_argument("--strengths", type=float, nargs="+", default=[0.4, 0.8, 1.0, 0.6], help="controls at the last")
    parser.add_argument("--out", type=Path, default=Path("work/rerender"))
    arguments = parser.parse_args()
    rng, parts = np.random.default_rng(0), hit_uav_splits(arguments.data)
    images, layouts = windows_of(parts["train"], TRAINING_WINDOWS, rng, each=False)
    classifier = NightClassifier(images, nights(layouts))
    images, layouts = windows_of(parts["test"], arguments.images, rng, each=True)
    own = nights(layouts)
    pipeline = load_renderer(weights.packaged("whole"), "whole")
    detector = load_detector(weights.packaged("detector"), threads=1)
    before = detector.detect(images)
    rows, asked = {}, ~own

    def nightly(pictures: list[np.ndarray]) -> np.ndarray:
        return classifier._features(pictures) @ classifier.w  # above 0: night

    def measure(name: str, pictures: list[np.ndarray], wanted: np.ndarray) -> None:
        found, score = ious(before, detector.detect(pictures), layouts, detector.classes), nightly(pictures)
        night, shift = score > 0, (score - nightly(images)) * np.where(wanted, 1, -1)
        rows[name] = {
            "objects": len(found), "iou_0.8": round(float((found >= 0.8).mean()), 3),
            "iou_0.5": round(float((found >= 0.5).mean()), 3), "lost": round(float((found == 0).mean()), 3),
            "day_called_night": round(float(night[wanted & ~own].mean()), 3) if (wanted & ~own).any() else None,
            "night_called_day": round(float((~night)[~wanted & own].mean()), 3) if (~wanted & own).any() else None,
            "shift": round(float(shift.mean()), 3), "shift_error": round(float(shift.std() / len(shift) ** 0.5), 3),
            "called_as_asked": round(float((night == wanted).mean()), 3),
        }  # fmt: skip
        rows[name]["passes"] = rows[name]["iou_0.8"] >= MIN_HELD and rows[name]["called_as_asked"] >= MIN_CALLED
        print(name, rows[name], flush=True)

    def drawn(strength: float, wanted: np.ndarray) -> list[np.ndarray]:
        targets = asked_of(layouts, wanted)
        taken = [layout.acquisition for layout in layouts]
        return rerendering.rerender(pipeline, images, targets, range(len(images)), "hit-uav", strength, taken)

    real = nightly(images) > 0
    rows["real"] = {
        "day_called_day": round(float((~real)[~own].mean()), 3), "night_called_night": round(float(real[own].mean()), 3)
    }  # fmt: skip
    measure("copy of the input", images, asked)
    for strength in arguments.strengths:
        pictures = drawn(strength, asked)
        measure(f"re-rendered, strength {strength}", pictures, asked)
    middle, shown = arguments.strengths[-1], pictures
    measure(f"shuffled acquisition, strength {middle}", drawn(middle, rng.permutation(asked)), asked)
    fresh = pipeline(asked_of(layouts, asked), range(len(images)), "hit-uav")
    measure("no source picture", fresh, asked)
    held, rerendering.held = rerendering.held, lambda change, layout: change
    measure(f"objects not held, strength {middle}", drawn(middle, asked), asked)
    rerendering.held = held
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "result.json").write_text(json.dumps(rows, indent=2) + "\n")
    sheet = [np.concatenate(some[:10], 1) for some in (images, shown, fresh)]
    sheet += [np.concatenate(some[-10:], 1) for some in (images, shown, fresh)]
    Image.fromarray(np.concatenate(sheet)).save(arguments.out / "pictures.png")
    print(json.dumps(rows, indent=2))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
