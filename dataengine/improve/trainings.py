"""Detectors that `improve` trains, and what each finds on a part of the data."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Protocol

import numpy as np

from dataengine.data import formats
from dataengine.data.images import read_or_fail
from dataengine.data.layout import Dataset, Layout
from dataengine.evaluate.average_precision import Matched, matched
from dataengine.files import write_whole
from dataengine.judge.detector import Detections, load_detector

IOU = 0.5


class TrainDetector(Protocol):
    """Trains a detector into `out`, or continues, and returns the folder that `judge.detector.load_detector` loads.

    real, extra: labelled data sets; extra images, if any, fill 1 - real_share of every batch. steps, tile_size: None
    for those of the preset. scale: resize factor of all images.
    """

    def __call__(
        self,
        real: Path,
        out: Path,
        *,
        extra: Path | None,
        preset: str,
        steps: int | None,
        seed: int,
        real_share: float,
        tile_size: int | None,
        scale: float,
    ) -> Path: ...


@dataclass(frozen=True)
class Part:
    """A part of the data: train, val or test."""

    path: Path
    dataset: Dataset

    @classmethod
    def read(cls, path: Path) -> Part:
        """The part that `write_parts` wrote."""
        return cls(path, formats.read(path, "coco"))

    @property
    def names(self) -> list[str]:
        """Names of the images."""
        return [sample.name for sample in self.dataset]

    @property
    def layouts(self) -> list[Layout]:
        """Labels of the images."""
        return [sample.layout for sample in self.dataset]

    @property
    def images(self) -> list[Callable[[], np.ndarray]]:
        """Functions that load the images, uint8 (H, W, 3) RGB."""
        return [partial(read_or_fail, sample) for sample in self.dataset]


@dataclass(frozen=True)
class Training:
    """A trained detector and its detections on the images of a part. folder: of the detector; file: of detections."""

    folder: Path
    file: Path
    detections: list[Detections]
    classes: tuple[str, ...]
    part: Part

    @cached_property
    def matched(self) -> Matched:
        """Its detections compared with the labels at IoU 0.5."""
        return matched(self.detections, self.part.layouts, self.classes, (IOU,))

    @cached_property
    def ap50(self) -> float:
        """Mean over classes."""
        return self.matched.average_precision().mean(IOU)


@dataclass(frozen=True)
class Arm:
    """Trainings with one set of data, one for each seed. runs: of the synthetic images; () for real images alone."""

    name: str
    runs: tuple[Path, ...]
    trainings: tuple[Training, ...]

    @property
    def best(self) -> Training:
        """The training with the highest AP50."""
        return max(self.trainings, key=lambda training: training.ap50)

    @property
    def matched(self) -> list[Matched]:
        """Of each training, in order of seed."""
        return [training.matched for training in self.trainings]


def detect(folder: Path, part: Part, file: Path) -> None:
    """Run a detector on a part, and store its detections in `file` (.npz)."""
    detector = load_detector(folder)
    found = [detector.detect([load()])[0] for load in part.images]
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        counts=np.array([len(each) for each in found], np.int64),
        boxes=np.concatenate([np.zeros((0, 5), np.float32), *(each.boxes for each in found)]),
        scores=np.concatenate([np.zeros(0, np.float32), *(each.scores for each in found)]),
        labels=np.concatenate([np.zeros(0, np.int64), *(each.labels for each in found)]),
        classes=np.array(detector.classes),
    )
    write_whole(file, buffer.getvalue())


def read_training(folder: Path, part: Part, file: Path) -> Training:
    """A training with the detections that `detect` stored."""
    with np.load(file, allow_pickle=False) as stored:
        ends = np.cumsum(stored["counts"])[:-1]
        arrays: Sequence[list[np.ndarray]] = [np.split(stored[name], ends) for name in ("boxes", "scores", "labels")]
        classes = tuple(stored["classes"].tolist())
    return Training(folder, file, [Detections(*each) for each in zip(*arrays, strict=True)], classes, part)
