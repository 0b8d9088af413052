"""Labels for real pictures that have none, where a calibrated detector leaves no doubt (self-training)."""

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
from dataengine.judge.matching import class_map


def label(
    detections: Detections,
    layout: Layout,
    detector_classes: tuple[str, ...],
    calibration: Calibration,
    sure: float | None = None,
    doubt: float | None = None,
) -> Layout:
    """The layout with every sure detection as an object and every doubtful one as an ignored region.

    layout: the picture's own, without objects; detections of classes that it lacks are passed over. Sure are detections
    that score `sure` or more, or where that is None, of whose like nine in ten were right on the calibration's real
    images (`repair_scores`). Doubtful are weaker ones that score `doubt` or more, or where that is None, those of which
    half were right (`extra_scores`). What the detector sees less clearly than that stays unlabelled: labels are no more
    complete than it is.
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
    """The same pictures with the labels that `label` gives them, of the classes that detector and calibration know.

    Pictures that cannot be read become problems. Raises UserError when one has labels already.
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
