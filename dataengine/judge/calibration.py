"""Thresholds of the filter, set so that a stated share of real held-out images would pass (contract 10)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dataengine.data.layout import Layout
from dataengine.errors import UserError
from dataengine.judge.detector import Detector
from dataengine.judge.matching import Match, match

HALLUCINATION_SCORE = 0.3  # a detection nobody asked for counts from this score on


class Calibration(BaseModel):
    """What an image must show to pass.

    quantile: the share of a class's real objects that fall below its threshold. An object is found when its score
    reaches its class's threshold; an image passes when at most `missed_share` of its objects are not found and at
    most `extra_objects` + `extra_share` times its objects are found beside them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    detector: str = Field(description="identity of the detector that was calibrated")
    dataset: str
    images: int
    objects: dict[str, int]
    pass_share: float = Field(description="share of real images that pass, as measured")
    shuffled_pass_share: float = Field(description="the same for real images with another image's layout")
    thresholds: dict[str, float]
    missed_share: float
    extra_score: float
    extra_objects: int
    extra_share: float

    def save(self, path: str | Path) -> None:
        """Write as JSON."""
        Path(path).write_text(self.model_dump_json(indent=2) + "\n")

    @classmethod
    def load(cls, path: str | Path) -> Calibration:
        """Read what `save` wrote. Raises UserError for a missing or damaged file."""
        try:
            return cls.model_validate_json(Path(path).read_text())
        except FileNotFoundError:
            raise UserError(f"{path}: no such calibration; make one with: dataengine filter calibrate") from None
        except ValidationError as error:
            first = error.errors()[0]
            raise UserError(f"{path}: field {'.'.join(map(str, first['loc']))}: {first['msg']}.") from None

    def check(self, detector: Detector) -> None:
        """Raises UserError when this calibration belongs to another detector."""
        if detector.identity != self.detector:
            raise UserError(
                f"the filter was calibrated for detector {self.detector}, not {detector.identity}; "
                "calibrate it again with: dataengine filter calibrate"
            )

    def found(self, layout: Layout, scores: np.ndarray) -> np.ndarray:
        """Bool (N,): objects whose matched score reaches the threshold of their class."""
        limits = np.array([self.thresholds.get(name, np.inf) for name in layout.names()], np.float32)
        return scores >= limits

    def allowed_missed(self, n: int) -> float:
        """How many of n objects may be missed."""
        return self.missed_share * n

    def allowed_extra(self, n: int) -> float:
        """How many detections an image of n objects may show beside them."""
        return self.extra_objects + self.extra_share * n


@dataclass(frozen=True)
class _Rule:
    quantile: float
    missed_share: float
    extra_objects: int
    extra_share: float


def _passes(layout: Layout, found: Match, extra_scores: np.ndarray, thresholds: dict[str, float], rule: _Rule) -> bool:
    counted = ~layout.difficult
    limits = np.array([thresholds[name] for name in layout.names()], np.float32)
    missed = int((counted & (found.scores < limits)).sum())
    n = int(counted.sum())
    return missed <= rule.missed_share * n and len(extra_scores) <= rule.extra_objects + rule.extra_share * n


def calibrate(
    detector: Detector,
    images: Sequence[Callable[[], np.ndarray]],
    layouts: Sequence[Layout],
    dataset_name: str,
    pass_share: float = 0.95,
    progress: Callable[[Sequence], Sequence] = lambda x: x,
) -> Calibration:
    """The strictest rule under which `pass_share` of these real images pass.

    images: functions that load uint8 (H, W, 3), so that a large set need not fit into memory. One family of rules is
    tried from strict to lax: class thresholds at a falling quantile of the real objects' matched scores, with the
    misses and extra detections that real images show at that quantile; the first that lets enough images pass is
    taken. As the control, every image is judged by the next image's layout too.
    Raises UserError with fewer than 20 images that show objects.
    """
    matches, shuffled, extras, shuffled_extras = [], [], [], []
    usable = [i for i, layout in enumerate(layouts) if (~layout.difficult).any()]
    if len(usable) < 20:
        raise UserError(
            f"{dataset_name}: {len(usable)} images with objects are too few to calibrate on; give 20 or more."
        )
    layouts = [layouts[i] for i in usable]
    for k, i in enumerate(progress(usable)):
        detections = detector.detect([images[i]()])[0]
        other = layouts[(k + len(usable) // 2) % len(usable)]
        for layout, into, scores in ((layouts[k], matches, extras), (other, shuffled, shuffled_extras)):
            found = match(detections, layout, detector.classes)
            into.append(found)
            extra = detections.scores[found.extra]
            scores.append(extra[extra >= HALLUCINATION_SCORE])
    by_class: dict[str, list[float]] = {}
    for layout, found in zip(layouts, matches, strict=True):
        for name, score, difficult in zip(layout.names(), found.scores, layout.difficult, strict=True):
            if not difficult:
                by_class.setdefault(name, []).append(float(score))

    def thresholds_at(quantile: float) -> dict[str, float]:
        # an object that was not found at all scores 0: a threshold must ask for a detection, however weak
        return {name: max(0.05, float(np.quantile(scores, quantile))) for name, scores in by_class.items()}

    def share(rule: _Rule) -> float:
        limits = thresholds_at(rule.quantile)
        return float(np.mean([_passes(*one, limits, rule) for one in zip(layouts, matches, extras, strict=True)]))

    rules = [
        _Rule(quantile, missed, extra, extra_share)
        for missed, extra, extra_share in (
            (0.0, 0, 0.0),
            (0.0, 1, 0.0),
            (0.1, 1, 0.1),
            (0.2, 1, 0.2),
            (0.25, 2, 0.25),
            (0.34, 2, 0.34),
            (0.5, 2, 0.5),
            (0.5, 3, 1.0),
            (0.67, 4, 1.0),
            (0.8, 6, 1.0),
        )
        for quantile in (0.3, 0.25, 0.2, 0.15, 0.1, 0.05, 0.02, 0.01)
    ]
    chosen = next((rule for rule in rules if share(rule) >= pass_share), None)
    if chosen is None:
        best = max(map(share, rules))
        raise UserError(
            f"{dataset_name}: even the laxest rule lets only {best:.0%} of the real images pass, not {pass_share:.0%}; "
            "this detector does not know this imagery: train it longer, or ask for a smaller share."
        )
    limits = thresholds_at(chosen.quantile)
    control = [_passes(*one, {n: limits.get(n, 1.0) for n in limits}, chosen) for one in zip(
        [layouts[(k + len(layouts) // 2) % len(layouts)] for k in range(len(layouts))], shuffled, shuffled_extras,
        strict=True)]  # fmt: skip
    return Calibration(
        detector=detector.identity,
        dataset=dataset_name,
        images=len(layouts),
        objects={name: len(scores) for name, scores in sorted(by_class.items())},
        pass_share=share(chosen),
        shuffled_pass_share=float(np.mean(control)),
        thresholds=limits,
        missed_share=chosen.missed_share,
        extra_score=HALLUCINATION_SCORE,
        extra_objects=chosen.extra_objects,
        extra_share=chosen.extra_share,
    )
