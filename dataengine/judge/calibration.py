"""The filter's rule: from which score on an object counts as found, and how much may be missed or found beside it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dataengine import geometry
from dataengine.data.layout import Layout, class_key
from dataengine.errors import UserError, first_fault
from dataengine.files import parse_json, read_text, write_whole
from dataengine.judge.detector import Detector

Threshold = float | Annotated[list[tuple[float, float]], Field(min_length=1)]


class Calibration(BaseModel):
    """What an image must show to pass: an object is found when its score reaches the threshold of its class and size,
    or, where its box touches another's, that of such objects, if there were enough real ones;
    an image passes when at most `missed_share` of its objects are not found, and at most `extra_objects` +
    `extra_share` times its objects are found beside them. Per class: detections below `extra_scores` are not held
    against an image; labels are repaired from `repair_scores` on, and boxes moved when their IoU with the detection is
    below `repair_ious`.

    thresholds: a number, or steps of side (square root of the area in pixels) and threshold from there on. It is 0 for
    sizes that are not judged: no such real objects were seen, or the detector missed too many of them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    detector: str = Field(description="identity of the detector that was calibrated")
    dataset: str
    images: int
    objects: dict[str, int]
    pass_share: float = Field(description="share of real images that pass, as measured")
    shuffled_pass_share: float = Field(description="the same for real images with another image's layout")
    smudged_pass_share: float = Field(description="the same for real images whose objects are blurred to blots")
    thresholds: dict[str, Threshold]
    crowded_thresholds: dict[str, Threshold] = {}
    missed_share: float
    extra_scores: dict[str, float]
    extra_objects: int
    extra_share: float
    repair_scores: dict[str, float]
    repair_ious: dict[str, float]

    def save(self, path: str | Path) -> None:
        """Write as JSON, whole or not at all."""
        write_whole(path, self.model_dump_json(indent=2) + "\n")

    @classmethod
    def load(cls, path: str | Path) -> Calibration:
        """Read what `save` wrote. Raises UserError for a missing or damaged file."""
        try:
            if not Path(path).exists():
                raise UserError(f"{path}: no such calibration; make one with: dataengine filter calibrate")
            return cls.model_validate(parse_json(read_text(path)))
        except ValidationError as error:
            raise UserError(f"{path}: {first_fault(error, cls.model_fields)}; calibrate again.") from None
        except ValueError as error:
            raise UserError(f"{path} {error}; calibrate again.") from None

    def check(self, detector: Detector) -> None:
        """Raises UserError when this calibration belongs to another detector."""
        if detector.identity != self.detector:
            raise UserError(
                f"the filter was calibrated for detector {self.detector}, not {detector.identity}; "
                "calibrate it again with: dataengine filter calibrate"
            )

    def check_classes(self, names: Iterable[str]) -> None:
        """Raises UserError for names without a threshold: whatever an image shows, they would all count as missed."""
        known = {class_key(name) for name in self.thresholds}
        unknown = [name for name in names if class_key(name) not in known]
        if unknown:
            raise UserError(
                f"the calibration has no threshold for {', '.join(unknown)}; it has {', '.join(self.thresholds)}. "
                "Leave the others out with --classes, or calibrate on images that show them."
            )

    def limits(self, layout: Layout) -> np.ndarray:
        """float32 (N,): the threshold of each object, infinite for classes that were never calibrated."""
        return limits(layout, self.thresholds, self.crowded_thresholds)

    def found(self, layout: Layout, scores: np.ndarray) -> np.ndarray:
        """Bool (N,): objects whose matched score reaches their threshold."""
        return scores >= self.limits(layout)

    def failure(self, n: int, missed: int, extra: int) -> str:
        """Why an image fails of whose n objects some are missed, and beside which others are found; "" if it passes."""
        if exceeds(missed, n, self.missed_share):
            return f"{missed} of {n} objects not found"
        if exceeds(extra, n, self.extra_share, self.extra_objects):
            return f"{extra} objects found that were not asked for"
        return ""


def calibration_hash(calibration: Calibration | None) -> str:
    """Hash of what a calibration says, 16 hexadecimal digits; "none" for none."""
    return hashlib.sha256(calibration.model_dump_json().encode()).hexdigest()[:16] if calibration else "none"


def exceeds(count, objects, share: float, beside: int = 0):
    """Whether a count is more than this share of the objects and so many beside; ints or arrays of ints.

    Compared with a hair's slack, so that 0.2 of 5 is 1 whatever floats say.
    """
    return count > beside + share * objects + 1e-9


def at_class(figures: dict[str, float], names: Sequence[str]) -> np.ndarray:
    """float32 (N,): the figure of each named class, in any case; infinite for classes that were never calibrated."""
    lower = {class_key(name): figure for name, figure in figures.items()}
    return np.array([lower.get(class_key(name), np.inf) for name in names], np.float32)


def limits(layout: Layout, thresholds: dict[str, Threshold], crowded_thresholds: dict[str, Threshold]) -> np.ndarray:
    """float32 (N,): the threshold of each object, by class (in any case), by whether its box touches another's, and by
    size; infinite for unknown classes."""
    lower, close = ({class_key(name): t for name, t in each.items()} for each in (thresholds, crowded_thresholds))
    found = np.full(len(layout), np.inf, np.float32)
    near = crowded(layout) if close else np.zeros(len(layout), bool)
    for i, (name, side, touches) in enumerate(zip(layout.names(), sides(layout), near, strict=True)):
        name = class_key(name)
        steps = close[name] if touches and name in close else lower.get(name, np.inf)
        if isinstance(steps, list):
            steps = max((step for step in steps if step[0] <= side), default=steps[0])[1]
        found[i] = steps
    return found


def crowded(layout: Layout) -> np.ndarray:
    """Bool (N,): objects whose box shares some of its area with another's."""
    return (geometry.intersection(layout.boxes, layout.boxes) > 0).sum(1) > 1


def sides(layout: Layout) -> np.ndarray:
    """float64 (N,): square root of each box's area in pixels."""
    return np.sqrt(geometry.area(layout.boxes)).astype(np.float64)
