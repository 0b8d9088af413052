"""Pseudo-labels for unlabelled real images from a calibrated detector (self-training)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import numpy as np

from dataengine import geometry
from dataengine.data.images import read_picture
from dataengine.data.layout import Dataset, Kind, Layout, Problem, Sample, class_key
from dataengine.errors import UserError
from dataengine.judge.calibration import Calibration, at_class
from dataengine.judge.detector import Detections, Detector
from dataengine.judge.verdict import class_map


def label(
    detections: Detections,
    layout: Layout,
    detector_classes: tuple[str, ...],
    calibration: Calibration,
    sure: float | None = None,
    doubt: float | None = None,
) -> Layout:
    """The layout with confident detections as objects and doubtful ones as ignored regions.

    layout: that of the image, without objects; detections of classes that it does not have are ignored.
    sure:   least score of an object; None for the scores at which nine in ten detections are right on the calibration
            images (`repair_scores`).
    doubt:  least score of an ignored region; None for the scores at which half of the detections are right
            (`extra_scores`).

    Objects that the detector misses stay unlabelled.
    """
    labels = class_map(layout.classes, detector_classes)[detections.labels]
    detections, labels = detections.select(labels >= 0), labels[labels >= 0]
    names = [layout.classes[i] for i in labels]
    objects = detections.scores >= (at_class(calibration.repair_scores, names) if sure is None else sure)
    doubtful = ~objects & (detections.scores >= (at_class(calibration.extra_scores, names) if doubt is None else doubt))
    boxes = geometry.hulls(detections.boxes) if layout.kind == "hbb" else detections.boxes
    return replace(
        layout,
        boxes=boxes[objects],
        labels=labels[objects],
        difficult=None,
        visible=None,
        ignored=np.concatenate([layout.ignored, boxes[doubtful]]),
    )


def label_pictures(
    pictures: Dataset,
    detector: Detector,
    calibration: Calibration,
    kind: Kind = "obb",
    sure: float | None = None,
    doubt: float | None = None,
    progress: Callable[[Sequence[Sample]], Iterable[Sample]] = lambda x: x,
) -> Dataset:
    """The images with labels from `label`, for the classes that both the detector and the calibration know.

    Images that cannot be read become problems of the data set. Raises UserError when an image has labels already.
    """
    known = {class_key(name) for name in calibration.thresholds}
    classes = tuple(name for name in detector.classes if class_key(name) in known)
    labelled = next((sample for sample in pictures if len(sample.layout)), None)
    if labelled is not None:
        raise UserError(f"{labelled.image} has labels already; give images that have none.")
    samples, problems = [], list(pictures.problems)
    for sample in progress(pictures.samples):
        picture = read_picture(sample)
        if picture is None:
            problems.append(Problem(sample.image, None, "it cannot be read; it is left out"))
            continue
        empty = replace(sample.layout, classes=classes, kind=kind)
        layout = label(detector.detect([picture])[0], empty, detector.classes, calibration, sure, doubt)
        samples.append(replace(sample, layout=layout))
    return replace(pictures, classes=classes, samples=samples, kind=kind, problems=problems)
