"""The filter's rule, set so that a stated share of real held-out images would pass (contract 10)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from dataengine.data.layout import Layout
from dataengine.errors import UserError
from dataengine.judge.calibration import Calibration, at_class, crowded, exceeds, limits, sides
from dataengine.judge.detector import Detections, Detector
from dataengine.judge.matching import Match, class_map, match
from dataengine.judge.smudge import smudge

FEWEST_IMAGES = 20
FEW = 20  # a class with fewer real objects than this takes the figures of all classes together
FLOOR = 0.02  # an object that was not found scores 0: a threshold must ask for a detection, however weak
GROUP, GROUPS = 40, 6  # objects of a class are taken by size, in groups of at least so many, in at most so many
SEEN = 5  # what is smaller than all but so few real objects of its class is not judged
COUNTS = 0.5  # a detection counts as an object nobody asked for when on real images this share of its like is right
SURE = 0.9  # a label is repaired only by a detection of whose like this share is right
USUAL_IOU = 0.05  # a box is moved when it fits its detection worse than all but this share of real boxes
BLIND = 0.5  # a filter that lets this share of images pass with wrong labels judges nothing
SHIFTS = (0.25, 0.5, 0.75)  # of the list of layouts, for the control with another image's layout

# the rules that are tried
QUANTILES = (0.3, 0.25, 0.2, 0.15, 0.1, 0.05, 0.02, 0.0)
# never more than half: shuffled labels are also told by extra detections, but a picture that shows nothing is only told
# by what is missed
MISSED_SHARES = (0.0, 0.1, 0.2, 0.25, 0.34, 0.5)
EXTRA_OBJECTS = (0, 1, 2, 3, 4, 6)


@dataclass(frozen=True)
class _Observed:
    """One image's detections against one layout; names and scores of all detections that lie on nothing excused."""

    layout: Layout
    match: Match
    extra_names: list[str]
    extra_scores: np.ndarray

    @property
    def counted(self) -> np.ndarray:
        return ~self.layout.difficult


def _observe(detections: Detections, layout: Layout, detector_classes: Sequence[str]) -> _Observed:
    found = match(detections, layout, detector_classes)
    labels = class_map(layout.classes, detector_classes)[detections.labels[found.extra]]
    return _Observed(layout, found, [layout.classes[i] for i in labels], detections.scores[found.extra])


def calibrate(
    detector: Detector,
    images: Sequence[Callable[[], np.ndarray]],
    layouts: Sequence[Layout],
    dataset_name: str,
    pass_share: float = 0.95,
    progress: Callable[[Sequence], Iterable] = lambda x: x,
) -> Calibration:
    """The rule under which `pass_share` of these real images pass, and the fewest of the controls.

    images: functions that load uint8 (H, W, 3), so that a large set need not fit into memory; they should have the
    size of the images to be judged. Of the rules that let enough real images pass, the one is taken under which the
    fewest controls pass, which are images with the layout of another, and images with smudged objects; among equals,
    the strictest. Thresholds of a class are quantiles of the scores of its real objects of like size, for what is small
    scores less, real or not, and so does what touches another, of which two are often seen as one; what the detector
    misses more of than the largest quantile tried is not judged.
    `extra_share` is what real images have, for a dense image has more of everything.
    Raises UserError with fewer than 20 images that show objects, for a class that the detector does not know, and when
    no rule lets enough pass or every such rule lets most images pass with wrong labels too.

    >>> val = read("data/hit-uav", split="val")  # doctest: +SKIP
    >>> load = [lambda file=s.image: np.asarray(Image.open(file)) for s in val]  # doctest: +SKIP
    >>> calibration = calibrate(detector, load, [sample.layout for sample in val], "hit-uav")  # doctest: +SKIP
    >>> calibration.save("calibration.json")  # doctest: +SKIP
    """
    usable = [i for i, layout in enumerate(layouts) if (~layout.difficult).any()]
    if len(usable) < FEWEST_IMAGES:
        raise UserError(
            f"{dataset_name}: {len(usable)} images with objects are too few to calibrate on; "
            f"give {FEWEST_IMAGES} or more."
        )
    classes = layouts[usable[0]].classes
    known = class_map(classes, detector.classes)
    unknown = [name for i, name in enumerate(classes) if i not in known and any(i in layouts[k].labels for k in usable)]
    if unknown:
        raise UserError(
            f"{dataset_name}: the detector does not know {', '.join(unknown)}; it knows {', '.join(detector.classes)}. "
            "Leave these classes out, or give a detector that was trained on them."
        )
    truths = [layouts[i] for i in usable]
    seen, smudged = [], []
    for i in progress(usable):
        image = images[i]()
        seen.append(detector.detect([image])[0])
        blots = detector.detect([smudge(image, layouts[i])])[0]
        smudged.append(_observe(blots, layouts[i], detector.classes))
    real = [_observe(d, layout, detector.classes) for d, layout in zip(seen, truths, strict=True)]
    steps = sorted({max(1, round(share * len(truths))) for share in SHIFTS})
    shuffled = [
        _observe(d, truths[(k + step) % len(truths)], detector.classes) for step in steps for k, d in enumerate(seen)
    ]
    figures = _figures(real, classes)
    chosen = _strictest(real, (shuffled, smudged), figures, pass_share, dataset_name)
    draft = Calibration(
        detector=detector.identity,
        dataset=dataset_name,
        images=len(real),
        objects={name: len(scores) for name, scores in figures.scores.items()},
        pass_share=0,
        shuffled_pass_share=0,
        smudged_pass_share=0,
        extra_scores=figures.extra_scores,
        repair_scores=figures.repair_scores,
        repair_ious=figures.repair_ious,
        **chosen,
    )
    shares = {
        "pass_share": _pass_share(real, draft),
        "shuffled_pass_share": _pass_share(shuffled, draft),
        "smudged_pass_share": _pass_share(smudged, draft),
    }
    if shares["shuffled_pass_share"] > BLIND:
        raise UserError(
            f"{dataset_name}: a rule that lets {pass_share:.0%} of the real images pass lets "
            f"{shares['shuffled_pass_share']:.0%} pass with another image's labels too; this detector does not know "
            "this imagery: train it longer, or ask for a smaller share."
        )
    return draft.model_copy(update=shares)


@dataclass(frozen=True)
class _Figures:
    scores: dict[str, np.ndarray]  # matched score of each real object
    sides: dict[str, np.ndarray]
    crowded: dict[str, np.ndarray]
    extra_scores: dict[str, float]
    repair_scores: dict[str, float]
    repair_ious: dict[str, float]

    def thresholds(self, quantile: float) -> dict[str, dict[str, list[tuple[float, float]]]]:
        """`thresholds` and `crowded_thresholds` of a Calibration. A class with few crowded objects knows no
        difference; one with few objects takes those of all classes together."""
        each = {name: (self.scores[name], self.sides[name], self.crowded[name]) for name in self.scores}
        pooled = tuple(map(np.concatenate, zip(*each.values(), strict=True)))
        apart, close = {}, {}
        for name, own in each.items():
            scores, side, near = own if len(own[0]) >= FEW else pooled
            if near.sum() >= FEW and (~near).sum() >= FEW:
                close[name] = _steps(scores[near], side[near], quantile)
                scores, side = scores[~near], side[~near]
            # a detector that knows no size is told by the share that it misses
            apart[name] = _steps(scores, side, quantile, always=True)
        return {"thresholds": apart, "crowded_thresholds": close}


def _steps(scores: np.ndarray, side: np.ndarray, quantile: float, always: bool = False) -> list[tuple[float, float]]:
    """The quantile of scores (N,) of objects whose boxes have these sides (N,), in steps of side. Sizes of which too
    many are missed are not judged; with `always`, unless that were all of them."""
    groups = int(np.clip(len(scores) // GROUP, 1, GROUPS))
    smallest = np.sort(side)[min(SEEN, len(side)) - 1]
    inner = np.quantile(side, np.arange(1, groups) / groups)
    edges = np.unique(np.floor(np.concatenate([[smallest], inner[inner > smallest]]) * 10) / 10)
    of_group = np.maximum(np.searchsorted(edges, side, "right") - 1, 0)
    each = [scores[of_group == group] for group in np.unique(of_group)]
    edges = edges[np.unique(of_group)]
    seen = np.array([np.quantile(some, max(QUANTILES)) >= FLOOR for some in each])
    limits = [max(FLOOR, _rounded_down(np.quantile(some, quantile))) for some in each]
    judged = ~seen if always and not seen.any() else seen
    steps = [(float(edge), limit if j else 0.0) for edge, limit, j in zip(edges, limits, judged, strict=True)]
    return [(0.0, 0.0), *steps]


def _figures(real: Sequence[_Observed], classes: Sequence[str]) -> _Figures:
    names = np.array([name for one in real for name in one.layout.names()])
    counted = np.concatenate([one.counted for one in real])
    scores = np.concatenate([one.match.scores for one in real])
    ious = np.concatenate([one.match.ious for one in real])
    wrong_names = np.array([name for one in real for name in one.extra_names])
    wrong = np.concatenate([one.extra_scores for one in real])
    side, near = (np.concatenate([of(one.layout) for one in real]) for of in (sides, crowded))
    objects, lengths, close, extra_scores, repair_scores, repair_ious = {}, {}, {}, {}, {}, {}
    for name in classes:
        mine, theirs = counted & (names == name), wrong_names == name
        objects[name], lengths[name], close[name] = scores[mine], side[mine], near[mine]
        if mine.sum() < FEW:
            mine, theirs = counted, np.ones(len(wrong), bool)
        right = scores[mine & (scores > 0)]
        extra_scores[name] = score_at_precision(right, wrong[theirs], COUNTS)
        repair_scores[name] = score_at_precision(right, wrong[theirs], SURE)
        matched = ious[mine & (scores > 0)]
        repair_ious[name] = _rounded_down(np.quantile(matched, USUAL_IOU)) if len(matched) else 0.0
    return _Figures(objects, lengths, close, extra_scores, repair_scores, repair_ious)


def score_at_precision(right: np.ndarray, wrong: np.ndarray, precision: float) -> float:
    """The lowest score from which on this share of detections is right, 1 where no score is.

    The share at each score is the isotonic (rising) fit to right = 1, wrong = 0, with one more wrong detection put
    above them all, so that a handful of right ones is not taken for certainty.
    """
    from scipy.optimize import isotonic_regression

    scores = np.concatenate([right, wrong])
    order = np.argsort(scores, kind="stable")
    outcome = np.concatenate([np.ones(len(right)), np.zeros(len(wrong))])[order]
    share = isotonic_regression(np.append(outcome, 0.0)).x[:-1]
    reached = np.flatnonzero(share >= precision)
    return _rounded_down(scores[order][reached[0]]) if len(reached) else 1.0


def _rounded_down(value: float) -> float:
    """To four digits; a threshold rounded up would shut out the object that set it."""
    return float(np.floor(float(value) * 1e4) / 1e4)


def _missed_and_extra(one: _Observed, least: np.ndarray | float, extra_scores: dict) -> tuple[int, int, int]:
    """(objects, missed objects, extra detections) of an image; least: threshold of each object (N,)."""
    missed = one.counted & (one.match.scores < least)
    extra = one.extra_scores >= at_class(extra_scores, one.extra_names)
    return int(one.counted.sum()), int(missed.sum()), int(extra.sum())


def _pass_share(observed: Sequence[_Observed], calibration: Calibration) -> float:
    extra_scores = calibration.extra_scores
    counts = [_missed_and_extra(one, calibration.limits(one.layout), extra_scores) for one in observed]
    return float(np.mean([not calibration.failure(*each) for each in counts]))


def extra_share(objects: np.ndarray, extra: np.ndarray, pass_share: float) -> float:
    """Detections nobody asked for, for each object, in those real images that are to pass: all but the worst.

    objects (at least 1), extra: int (N,), of each image.
    """
    passing = np.argsort(extra / objects, kind="stable")[: int(np.ceil(pass_share * len(objects)))]
    return round(float(extra[passing].sum() / objects[passing].sum()), 4)


def _strictest(real, controls, figures: _Figures, pass_share: float, dataset_name: str) -> dict:
    """The rule's fields of a Calibration."""
    objects, _, extra = np.array([_missed_and_extra(one, 0.0, figures.extra_scores) for one in real]).T
    usual = extra_share(objects, extra, pass_share)
    best, best_key, laxest = None, None, 0.0
    for quantile in QUANTILES:
        steps = figures.thresholds(quantile)
        counts, *wrong = (
            np.array([_missed_and_extra(one, limits(one.layout, **steps), figures.extra_scores) for one in some])
            for some in (real, *controls)
        )
        for missed_share, extra_objects in product(MISSED_SHARES, EXTRA_OBJECTS):

            def share(table: np.ndarray, limits=(missed_share, extra_objects, usual)) -> float:
                n, missed, extra = table.T
                fails = exceeds(missed, n, limits[0]) | exceeds(extra, n, limits[2], limits[1])
                return float((~fails).mean())

            passed = share(counts)
            laxest = max(laxest, passed)
            if passed < pass_share:
                continue
            key = (sum(map(share, wrong)), missed_share, -quantile, extra_objects)
            if best_key is None or key < best_key:
                best_key = key
                best = {**steps, "missed_share": missed_share}
                best |= {"extra_objects": extra_objects, "extra_share": usual}
    if best is None:
        raise UserError(
            f"{dataset_name}: even the laxest rule lets only {laxest:.0%} of the real images pass, not "
            f"{pass_share:.0%}; this detector does not know this imagery: train it longer, or ask for a smaller share."
        )
    return best
