"""The filter's rule: the score from which an object counts as found, and how many missed and extra ones are allowed."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from dataengine import geometry
from dataengine.data.layout import Layout, model_key
from dataengine.errors import UserError
from dataengine.files import MAX_CONFIG_BYTES, read_json_as, write_whole
from dataengine.judge.detector import Detector

NEAR_ZERO = 0.05  # a threshold up to this lets nearly any detection count as found,
MIN_CONTROL_FOUND = 0.05  # which matters where the detector finds such a share of painted controls;
MIN_UNSEEN_OBJECTS = 3  # judged real objects of a class that say whether the detector finds it
MIN_FOUND_SHARE = 1 / 3  # of the real objects of a class; where fewer are found, that is reported
MANY_CONTROLS_FOUND = 0.25  # this share of them is reported whatever the thresholds are
Threshold = float | Annotated[list[tuple[float, float]], Field(min_length=1)]


class Calibration(BaseModel):
    """The rule by which an image passes.

    An object is found when its score reaches the threshold of its class and size, or the crowded threshold if its box
    touches another one. An image passes when at most `missed_share` of its objects are missed and it has at most
    `extra_objects` + `extra_share` times its objects of extra detections. For each class: only detections from
    `extra_scores` on count as extra; those from `repair_scores` on repair labels, and boxes whose IoU with the
    detection is below `repair_ious` are moved.

    thresholds: a number, or steps (side, threshold from that side on); side is the square root of the box area in
    pixels. The threshold is 0 for sizes that are not judged: the calibration images have too few such objects, or the
    detector misses too many of them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    detector: str = Field(description="identity of the detector that was calibrated")
    dataset: str
    images: int
    objects: dict[str, int]
    pass_share: float = Field(description="measured share of real images that pass")
    shuffled_pass_share: float = Field(description="the same with the layout of another image")
    smudged_pass_share: float = Field(description="the same with blurred objects")
    judged_objects: dict[str, int] | None = Field(None, description="of `objects`, those of sizes that are judged")
    found_objects: dict[str, int] | None = Field(None, description="of `judged_objects`, those that count as found")
    control_found_share: float | None = Field(None, description="share of painted controls that count as found")
    thresholds: dict[str, Threshold]
    crowded_thresholds: dict[str, Threshold] = {}
    missed_share: float
    extra_scores: dict[str, float]
    extra_objects: int
    extra_share: float
    repair_scores: dict[str, float]
    repair_ious: dict[str, float]

    def to_json(self) -> str:
        """The text of the file that `save` writes."""
        return self.model_dump_json(indent=2, exclude_none=True) + "\n"

    def save(self, path: str | Path) -> None:
        """Write as JSON, atomically."""
        write_whole(path, self.to_json())

    @classmethod
    def load(cls, path: str | Path) -> Calibration:
        """Read a file written by `save`. Raises UserError when it is missing or damaged."""
        if not Path(path).exists():
            raise UserError(f"{path}: no such calibration; make one with: dataengine filter calibrate")
        return read_json_as(path, cls.model_validate, cls.model_fields, "calibrate again", MAX_CONFIG_BYTES)

    def check(self, detector: Detector) -> None:
        """Raises UserError when this calibration belongs to another detector."""
        if detector.identity != self.detector:
            raise UserError(
                f"the filter was calibrated for detector {self.detector}, not {detector.identity}; "
                "calibrate it again with: dataengine filter calibrate"
            )

    def check_classes(self, names: Iterable[str]) -> None:
        """Raises UserError for names without a threshold, whose objects would always count as missed."""
        known = {model_key(name) for name in self.thresholds}
        unknown = [name for name in names if model_key(name) not in known]
        if unknown:
            raise UserError(
                f"the calibration has no threshold for {', '.join(unknown)}; it has {', '.join(self.thresholds)}. "
                "Leave the others out with --classes, or calibrate on images that show them."
            )

    def limits(self, layout: Layout) -> np.ndarray:
        """float32 (N,): the threshold of each object, infinite for classes without one."""
        return limits(layout, self.thresholds, self.crowded_thresholds)

    def found(self, layout: Layout, scores: np.ndarray) -> np.ndarray:
        """Bool (N,): objects whose matched score reaches their threshold."""
        return scores >= self.limits(layout)

    @property
    def rule(self) -> str:
        """What an accepted image may lack and hold besides, as a phrase."""
        extra = f"{self.extra_objects} + {self.extra_share:.0%} of their number"
        return f"up to {self.missed_share:.0%} of its objects may be missed, and {extra} found besides"

    def weak_classes(self) -> dict[str, float]:
        """{class: its lowest threshold} of the classes with one next to zero, unless painted controls are known to get
        no score at all. Where real objects are not judged, the threshold is 0, which is another matter.
        """
        if self.control_found_share is not None and self.control_found_share < MIN_CONTROL_FOUND:
            return {}
        lowest = {}
        for name, threshold in self.thresholds.items():
            steps = threshold if isinstance(threshold, list) else [(0.0, threshold)]
            judged = [score for _, score in steps if score > 0]
            if judged and min(judged) <= NEAR_ZERO:
                lowest[name] = min(judged)
        return lowest

    def unseen_classes(self) -> list[str]:
        """The classes of which the detector finds less than a third of the real objects that are judged, so that the
        filter takes most painted ones for missed, however good they are; [] for a file of before they were counted.
        """
        judged, found = self.judged_objects or {}, self.found_objects or {}
        return [
            name for name, n in judged.items() if n >= MIN_UNSEEN_OBJECTS and found.get(name, 0) < MIN_FOUND_SHARE * n
        ]

    def warning(self) -> str:
        """Sentences on classes that the detector hardly finds, and on thresholds next to zero and their cause, or else
        on controls that are found; "" where none is the case."""
        return ". ".join(filter(None, (self._unseen_warning(), self._weak_warning())))

    def _unseen_warning(self) -> str:
        unseen = self.unseen_classes()
        if not unseen:
            return ""
        counts = ", ".join(f"{self.found_objects[name]} of {self.judged_objects[name]} {name}" for name in unseen)
        rest = [name for name in self.objects if name not in unseen]
        without = f", or leave such classes out (--classes {shlex.quote(','.join(rest))})" if rest else ""
        return (
            f"weak filter: of real objects the detector finds {counts}, so most painted ones will count as missed; "
            f"train it longer{without}"
        )

    def _weak_warning(self) -> str:
        weak, controls = self.weak_classes(), self.control_found_share or 0.0
        if not weak and controls < MANY_CONTROLS_FOUND:
            return ""
        if not weak:
            return (
                f"weak filter: {controls:.0%} of noise, chequers and grey blobs in place of objects count as found; "
                "look at the images, or give a detector of such images (--detector)"
            )
        return (
            f"weak filter: nearly any detection counts as {', '.join(f'{n} (from {s:.2f})' for n, s in weak.items())}, "
            "because the detector scores many real ones next to zero; it was trained on other images or too briefly, "
            "or these objects are too small for it. A detector of such images filters better (--detector)"
        )

    def failure(self, n: int, missed: int, extra: int) -> str:
        """Why an image with n objects, of which some are missed, and with extra detections fails; "" if it passes."""
        if exceeds(missed, n, self.missed_share):
            return f"{missed} of {n} objects not found"
        if exceeds(extra, n, self.extra_share, self.extra_objects):
            return f"{extra} objects found that were not asked for"
        return ""


def calibration_hash(calibration: Calibration | None) -> str:
    """Hash of the content of a calibration, 16 hexadecimal digits; "none" for None."""
    if calibration is None:
        return "none"
    return hashlib.sha256(calibration.model_dump_json(exclude_none=True).encode()).hexdigest()[:16]


def exceeds(count, objects, share: float, allowance: int = 0):
    """Whether a count is more than this share of the objects plus an allowance; ints or arrays of ints.

    A tolerance of 1e-9 keeps rounding from mattering.

    >>> exceeds(1, 5, 0.2), exceeds(2, 5, 0.2), exceeds(2, 5, 0.2, allowance=1)
    (False, True, False)
    """
    return count > allowance + share * objects + 1e-9


def at_class(values: dict[str, float], names: Sequence[str]) -> np.ndarray:
    """float32 (N,): the value of each named class (compared by `model_key`); infinite for classes without one.

    >>> at_class({"car": 0.5}, ["Car", "ship"]).tolist()
    [0.5, inf]
    """
    by_key = {model_key(name): value for name, value in values.items()}
    return np.array([by_key.get(model_key(name), np.inf) for name in names], np.float32)


def limits(layout: Layout, thresholds: dict[str, Threshold], crowded_thresholds: dict[str, Threshold]) -> np.ndarray:
    """float32 (N,): the threshold of each object by class (compared by `model_key`), by whether its box touches another
    one, and by size; infinite for unknown classes."""
    by_key, close = ({model_key(name): t for name, t in each.items()} for each in (thresholds, crowded_thresholds))
    result = np.full(len(layout), np.inf, np.float32)
    near = crowded(layout) if close else np.zeros(len(layout), bool)
    for i, (name, side, touches) in enumerate(zip(layout.names(), sides(layout), near, strict=True)):
        name = model_key(name)
        steps = close[name] if touches and name in close else by_key.get(name, np.inf)
        if isinstance(steps, list):
            steps = max((step for step in steps if step[0] <= side), default=steps[0])[1]
        result[i] = steps
    return result


def crowded(layout: Layout) -> np.ndarray:
    """Bool (N,): objects whose box intersects that of another object."""
    return (geometry.intersection(layout.boxes, layout.boxes) > 0).sum(1) > 1


def sides(layout: Layout) -> np.ndarray:
    """float64 (N,): square root of the area of each box, in pixels."""
    return np.sqrt(geometry.area(layout.boxes)).astype(np.float64)
