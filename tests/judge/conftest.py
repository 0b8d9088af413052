"""A detector with known errors, and images of labelled squares for it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
from toy_detector import unpainted

from dataengine.data.layout import Layout
from dataengine.judge.detector import Detections

CLASSES = ("car", "ship", "rare")


@dataclass
class Oracle:
    """Knows the objects of each image by the number in its first pixel, and makes errors at given rates. What stands in
    place of an object, on plain ground, is none."""

    truths: list[Layout]
    seed: int = 0
    recall: float = 0.97
    false_alarms: float = 0.2  # in an image
    jitter: float = 1.0  # pixels
    classes: tuple[str, ...] = CLASSES
    identity: str = "oracle"
    knows_controls: bool = True
    asked: list[int] = field(default_factory=list)

    def detect(self, images):
        return [self._detect(int(image[0, 0, 0]) * 256 + int(image[0, 0, 1]), image) for image in images]

    def _detect(self, k: int, image: np.ndarray) -> Detections:
        self.asked.append(k)
        rng, truth = np.random.default_rng((self.seed, k)), self.truths[k]
        seen = rng.random(len(truth)) < self.recall
        if self.knows_controls and image.shape[0] > 1:
            seen &= unpainted(image, truth)
        boxes = truth.boxes[seen] + rng.normal(0, self.jitter, (int(seen.sum()), 5)) * [1, 1, 1, 1, 0]
        n_wrong = rng.poisson(self.false_alarms)
        wrong = np.column_stack([rng.uniform(20, 180, (n_wrong, 2)), np.full((n_wrong, 2), 14), np.zeros(n_wrong)])
        scores = np.concatenate([rng.beta(8, 2, len(boxes)), rng.beta(2, 6, n_wrong)]).astype(np.float32)
        labels = np.concatenate([truth.labels[seen], rng.integers(0, 2, n_wrong)])
        order = np.argsort(-scores)
        every = np.concatenate([boxes, wrong]).astype(np.float32)
        return Detections(every[order], scores[order], labels[order])


def random_layouts(rng: np.random.Generator, n: int, kind: str = "obb") -> list[Layout]:
    layouts = []
    for _ in range(n):
        count = int(rng.integers(1, 7))
        cells = rng.permutation(64)[:count]
        angle = rng.uniform(-1.5, 1.5, count) if kind == "obb" else np.zeros(count)
        boxes = np.column_stack(
            [cells % 8 * 25 + 12, cells // 8 * 25 + 12, *np.full((2, count), 20) - [[0], [6]], angle]
        )
        labels = rng.choice(3, count, p=[0.6, 0.38, 0.02])
        layouts.append(Layout(boxes, labels, CLASSES, (200, 200), kind=kind))
    return layouts


def numbered_pictures(n: int):
    return [lambda k=k: np.full((200, 200, 3), [k // 256, k % 256, 0], np.uint8) for k in range(n)]


@pytest.fixture
def oracle():
    """`make(n, seed=0, **errors)` -> detector, image loaders, layouts."""

    def make(n: int, seed: int = 0, kind: str = "obb", **errors):
        layouts = random_layouts(np.random.default_rng(seed), n, kind)
        return Oracle(layouts, seed, **errors), numbered_pictures(n), layouts

    return make


@pytest.fixture
def found():
    """`found(boxes, scores, labels=zeros)` -> Detections."""

    def make(boxes, scores, labels=None) -> Detections:
        boxes = np.asarray(boxes, np.float32).reshape(-1, 5)
        labels = np.zeros(len(boxes)) if labels is None else labels
        return Detections(boxes, np.asarray(scores, np.float32), np.asarray(labels, np.int64))

    return make
