"""Do re-rendered pictures hold their objects, and do they look as asked? HIT-UAV's held-out flights, day and night.

    python tools/bench/rerender.py --images 25 --out work/rerender

Windows of 256 pixels by day are re-rendered as by night, and the reverse. Objects: rotated IoU of what the packaged
detector finds before and after, 0 where it finds nothing any more; only objects that it finds in the real picture.
Look: share that a classifier of real pictures calls as asked (`NightClassifier`; the renderer has no part in it).
Its accuracy is measured on real pictures of held-out flights, and of held-out dates, since flights of one date show the
same places. Controls: a copy of the input (must fail the look), a picture from the layout alone (must fail the IoU),
asked conditions shuffled (must lose the look), and the change not sharpened to edges.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from sample_splits import DEFAULT_DATA, WINDOW, hit_uav_splits, load

from dataengine import geometry, weights
from dataengine.data.layout import Dataset, Layout, Sample
from dataengine.data.split import flight_key
from dataengine.imagenet import ImageNetEmbedding
from dataengine.judge.detector import load_detector
from dataengine.judge.verdict import match
from dataengine.layouts.windows import cut
from dataengine.render import rerender as rerendering
from dataengine.render.renderer import load_renderer

MIN_SCORE = 0.3  # of a detection in the real picture, from which its object counts
PICTURES_PER_FLIGHT = 3  # to train the classifier on
OBJECTS, OBJECT_WINDOW_PX, EMBEDDED_PX = 4, 96, 128  # of a picture, that the classifier sees
RIDGE = 1.0
MIN_HELD, MIN_CALLED = 0.9, 0.8  # shares from which a way of re-rendering passes


class NightClassifier:
    """Night or day, as the mean over windows around objects of a ridge regression on EfficientNet-Lite2's (ImageNet)
    embeddings; there it shows whether cars are warmer or colder than the ground."""

    def __init__(self, samples: list[Sample]):
        """samples: of training flights."""
        self.network = ImageNetEmbedding("lite2")
        self.embedded = [self.embeddings(load(sample), sample.layout) for sample in samples]
        self.night = nights([sample.layout for sample in samples])
        self.dates = np.array([sample.layout.acquisition.date.toordinal() for sample in samples])
        self.weights = self._fit(np.ones(len(samples), bool))

    @torch.no_grad()
    def embeddings(self, image: np.ndarray, layout: Layout) -> np.ndarray:
        """(N, 1280) of up to OBJECTS windows."""
        side = OBJECT_WINDOW_PX
        framed = np.pad(image, ((side, side), (side, side), (0, 0)), "symmetric")
        chosen = np.random.default_rng(0).permutation(len(layout))[:OBJECTS]
        corners = np.rint(layout.boxes[chosen, :2]).astype(int) + side // 2
        windows = [cv2.resize(framed[y : y + side, x : x + side], (EMBEDDED_PX, EMBEDDED_PX)) for x, y in corners]
        return self.network(torch.from_numpy(np.stack(windows)).permute(0, 3, 1, 2).float()).numpy()

    def _fit(self, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Mean, spread and weights, from some of the training pictures; each half counts the same."""
        parts = [part for part, used in zip(self.embedded, chosen, strict=True) if used]
        x, y = np.concatenate(parts), np.repeat(self.night[chosen], [len(part) for part in parts])
        mean, spread = x.mean(0), x.std(0) + 1e-6
        z = np.c_[(x - mean) / spread, np.ones(len(x))]
        weight = np.where(y, 1 / y.sum(), 1 / (~y).sum())
        return (
            mean,
            spread,
            np.linalg.solve(z.T @ (weight[:, None] * z) + RIDGE * np.eye(z.shape[1]), z.T @ (weight * (2 * y - 1))),
        )

    @staticmethod
    def _score(weights: tuple, embeddings: np.ndarray) -> float:
        mean, spread, w = weights
        return float((np.c_[(embeddings - mean) / spread, np.ones(len(embeddings))] @ w).mean())

    def __call__(self, images: list[np.ndarray], layouts: list[Layout]) -> np.ndarray:
        """Scores; above 0: night."""
        return np.array(
            [self._score(self.weights, self.embeddings(*pair)) for pair in zip(images, layouts, strict=True)]
        )

    def by_date(self) -> np.ndarray:
        """Scores of the training pictures, each of a classifier trained on the other dates."""
        scores = np.zeros(len(self.embedded))
        for date in np.unique(self.dates):
            weights = self._fit(self.dates != date)
            for i in np.flatnonzero(self.dates == date):
                scores[i] = self._score(weights, self.embedded[i])
        return scores


def right(scores: np.ndarray, night: np.ndarray) -> dict[str, float]:
    """Shares of pictures by day and by night that are called what they are."""
    return {
        "pictures": len(night), "day_called_day": round(float((scores[~night] <= 0).mean()), 3),
        "night_called_night": round(float((scores[night] > 0).mean()), 3),
    }  # fmt: skip


def training_pictures(dataset: Dataset, rng: np.random.Generator) -> list[Sample]:
    """Pictures with objects, a few of each flight: neighbouring frames are nearly the same."""
    key, flights = flight_key(dataset), {}
    for sample in dataset:
        if len(sample.layout):
            flights.setdefault(key(sample), []).append(sample)
    return [flight[i] for flight in flights.values() for i in rng.permutation(len(flight))[:PICTURES_PER_FLIGHT]]


def windows_of(dataset: Dataset, n: int, rng: np.random.Generator) -> tuple[list[np.ndarray], list[Layout]]:
    """A window around an object of n pictures by day and n by night."""
    images, layouts, count = [], [], {True: 0, False: 0}
    for i in rng.permutation(len(dataset)):
        sample = dataset.samples[i]
        night = bool(sample.layout.acquisition.night)
        if not len(sample.layout) or count[night] >= n:
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
    parser.add_argument("--strengths", type=float, nargs="+", default=[0.85, 0.75], help="controls at the last")
    parser.add_argument("--guidance-scale", type=float, default=rerendering.GUIDANCE)
    parser.add_argument("--out", type=Path, default=Path("work/rerender"))
    arguments = parser.parse_args()
    rng, parts = np.random.default_rng(0), hit_uav_splits(arguments.data)
    classifier = NightClassifier(training_pictures(parts["train"], rng))
    held_out = [sample for sample in parts["test"] if len(sample.layout)]
    held_layouts = [sample.layout for sample in held_out]
    held_scores = classifier([load(sample) for sample in held_out], held_layouts)
    images, layouts = windows_of(parts["test"], arguments.images, rng)
    own = nights(layouts)
    real = classifier(images, layouts)
    rows = {
        "classifier": {
            "held_out_flights": right(held_scores, nights(held_layouts)),
            "held_out_dates": right(classifier.by_date(), classifier.night), "these_windows": right(real, own),
        }
    }  # fmt: skip
    print(rows, flush=True)
    pipeline = load_renderer(weights.packaged("whole"), "whole")
    detector = load_detector(weights.packaged("detector"), threads=1)
    before, asked = detector.detect(images), ~own

    def measure(name: str, pictures: list[np.ndarray], wanted: np.ndarray) -> None:
        found, score = ious(before, detector.detect(pictures), layouts, detector.classes), classifier(pictures, layouts)
        night, shift = score > 0, (score - real) * np.where(wanted, 1, -1)
        rows[name] = {
            "objects": len(found), "iou_0.8": round(float((found >= 0.8).mean()), 3),
            "iou_0.5": round(float((found >= 0.5).mean()), 3), "lost": round(float((found == 0).mean()), 3),
            "day_called_night": round(float(night[wanted & ~own].mean()), 3),
            "night_called_day": round(float((~night)[~wanted & own].mean()), 3),
            "shift": round(float(shift.mean()), 3), "shift_error": round(float(shift.std() / len(shift) ** 0.5), 3),
            "called_as_asked": round(float((night == wanted).mean()), 3),
        }  # fmt: skip
        rows[name]["passes"] = rows[name]["iou_0.8"] >= MIN_HELD and rows[name]["called_as_asked"] >= MIN_CALLED
        print(name, rows[name], flush=True)

    def drawn(strength: float, wanted: np.ndarray) -> list[np.ndarray]:
        targets, taken = asked_of(layouts, wanted), [layout.acquisition for layout in layouts]
        return rerendering.rerender(
            pipeline, images, targets, taken, range(len(images)), "hit-uav", strength, arguments.guidance_scale
        )

    measure("copy of the input", images, asked)
    for strength in arguments.strengths:
        pictures = drawn(strength, asked)
        measure(f"re-rendered, strength {strength}", pictures, asked)
    middle, shown = arguments.strengths[-1], pictures
    measure(f"shuffled acquisition, strength {middle}", drawn(middle, rng.permutation(asked)), asked)
    fresh = pipeline(asked_of(layouts, asked), range(len(images)), "hit-uav")
    measure("no source picture", fresh, asked)
    sharpened, rerendering.along_edges = rerendering.along_edges, lambda change, picture: change
    measure(f"not along edges, strength {middle}", drawn(middle, asked), asked)
    rerendering.along_edges = sharpened
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "result.json").write_text(json.dumps(rows, indent=2) + "\n")
    sheet = [np.concatenate(some[:10], 1) for some in (images, shown, fresh)]
    sheet += [np.concatenate(some[-10:], 1) for some in (images, shown, fresh)]
    Image.fromarray(np.concatenate(sheet)).save(arguments.out / "pictures.png")
    print(json.dumps(rows, indent=2))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
