"""What a detector finds in the calibration images and their controls, and whether it tells the two apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from dataengine.data.layout import Layout
from dataengine.errors import UserError
from dataengine.judge.calibration import Calibration
from dataengine.judge.detector import Detections
from dataengine.judge.verdict import Match, class_map, match

MIN_CLASS_OBJECTS = 20  # a class with fewer real objects uses the statistics of all classes together
MAX_CONTROL_RATIO = 0.8  # a calibration fails when so many controls are found for each real object of a class


@dataclass(frozen=True)
class Observed:
    """The detections of one image matched with one layout; class names and scores of the extra detections."""

    layout: Layout
    match: Match
    extra_names: list[str]
    extra_scores: np.ndarray

    @property
    def counted(self) -> np.ndarray:
        return ~self.layout.difficult


def observe(detections: Detections, layout: Layout, detector_classes: Sequence[str]) -> Observed:
    found = match(detections, layout, detector_classes)
    labels = class_map(layout.classes, detector_classes)[detections.labels[found.extra]]
    return Observed(layout, found, [layout.classes[i] for i in labels], detections.scores[found.extra])


def with_other_class(layout: Layout, scores: dict[str, np.ndarray]) -> Layout | None:
    """The layout with each object named as the next class that has objects; None where there is only one such class."""
    present = [layout.classes.index(name) for name in layout.classes if len(scores[name])]
    if len(present) < 2:
        return None
    following = dict(zip(present, [*present[1:], present[0]], strict=True))
    return replace(layout, labels=np.array([following.get(label, label) for label in layout.labels], np.int64))


def found_of(observed: Sequence[Observed], thresholds: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Class names (N,) of the judged objects of all images, and bool (N,) whether their scores reach the thresholds."""
    judged = [one.counted & (limit > 0) for one, limit in zip(observed, thresholds, strict=True)]
    found = [(one.match.scores >= limit)[j] for one, limit, j in zip(observed, thresholds, judged, strict=True)]
    names = [name for one, j in zip(observed, judged, strict=True) for name in one.layout.select(j).names()]
    return np.array(names), np.concatenate([np.zeros(0, bool), *found])


def found_shares(observed: Sequence[Observed], calibration: Calibration) -> tuple[dict[str, float], float]:
    """The share of the judged objects that count as found: of each class with enough of them, and of all."""
    names, found = found_of(observed, [calibration.limits(one.layout) for one in observed])
    enough = [name for name in calibration.thresholds if (names == name).sum() >= MIN_CLASS_OBJECTS]
    return {name: float(found[names == name].mean()) for name in enough}, float(found.mean()) if len(found) else 0.0


def check_controls(
    calibration: Calibration, real: Sequence[Observed], controls: dict[str, list[Observed]], dataset_name: str
) -> None:
    """Raises UserError where thresholds cannot tell controls from real objects, with the classes that are concerned."""
    for what, observed in controls.items():
        (each, every), (true, all_true) = (found_shares(some, calibration) for some in (observed, real))
        blind = {name: share for name, share in each.items() if share > MAX_CONTROL_RATIO * true.get(name, all_true)}
        if not blind and every <= MAX_CONTROL_RATIO * all_true:
            continue
        parts = [f"{share:.0%} of {what} {n} (real ones: {true.get(n, all_true):.0%})" for n, share in blind.items()]
        rest = [name for name in each if name not in blind]
        fewer = f", or leave these classes out (--classes {','.join(rest)})" if blind and rest else ""
        found = ", ".join(parts) or f"{every:.0%} of {what} objects"
        raise UserError(
            f"{dataset_name}: the detector's scores do not tell objects from what is none: it finds {found}. It was "
            f"trained on other images than these, or too briefly: give a detector of such images (--detector){fewer}; "
            "in a run, --filter off goes without."
        )
