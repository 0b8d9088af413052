"""Calibrates the filter on real held-out images, so that a stated share of them passes (contract 10)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from dataengine.data.layout import Layout
from dataengine.data.split import MIN_HELD_OUT
from dataengine.errors import UserError, listed
from dataengine.judge.calibration import Calibration, at_class, crowded, exceeds, limits, sides
from dataengine.judge.controls import blur_objects, paint_controls
from dataengine.judge.detector import Detector
from dataengine.judge.observed import (
    MIN_CLASS_OBJECTS,
    Observed,
    check_controls,
    found_of,
    found_shares,
    observe,
    with_other_class,
)
from dataengine.judge.verdict import class_map

MIN_IMAGES = MIN_HELD_OUT  # with objects
MIN_THRESHOLD = 0.02  # above 0, the score of an object that is not found
# lowest thresholds to choose from: a quantile next to 0 would let nearly any detection count as the object
STRONGER = "train it longer (--steps), or let a smaller share of the real images pass (--pass-share)"
LOWEST_THRESHOLDS = (MIN_THRESHOLD, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3)
MIN_GROUP_OBJECTS, MAX_GROUPS = 40, 6  # the objects of a class are grouped by size
SMALLEST_RANK = 5  # objects smaller than this real object of the class, from the smallest, are not judged
EXTRA_PRECISION = 0.5  # a detection counts as extra from the score at which this share of detections is right
REPAIR_PRECISION = 0.9  # a detection repairs labels from the score at which this share of detections is right
REPAIR_IOU_QUANTILE = 0.05  # a box is moved when its IoU is below this quantile of the real boxes
MAX_SHUFFLED_PASS = 0.5  # a calibration fails when a larger share of images with wrong layouts passes
CONTROL_IMAGES = 60  # spread over the data set, whose objects are replaced by painted controls
SHUFFLE_SHIFTS = (0.25, 0.5, 0.75)  # of the list of layouts, for the control with the layout of another image

# the grid of rules
SCORE_QUANTILES = (0.3, 0.25, 0.2, 0.15, 0.1, 0.05, 0.02, 0.0)
# at most half: extra detections also reveal a wrong layout, but only missed objects reveal an image without objects
MISSED_SHARES = (0.0, 0.1, 0.2, 0.25, 0.34, 0.5)
EXTRA_OBJECTS = (0, 1, 2, 3, 4, 6)


def calibrate(
    detector: Detector,
    images: Sequence[Callable[[], np.ndarray]],
    layouts: Sequence[Layout],
    dataset_name: str,
    pass_share: float = 0.95,
    progress: Callable[[Sequence], Iterable] = lambda x: x,
) -> Calibration:
    """The rule that lets `pass_share` of these real images pass and as few controls as possible.

    images: functions that load uint8 (H, W, 3), so that a large set need not fit into memory; their size should be that
    of the images to judge. layouts: the labels of these images.

    Of the rules that let enough real images pass, the chosen one lets the fewest controls pass: images with the layout
    of another image, and images with blurred objects. Among equals, the strictest rule is chosen. The thresholds of a
    class are quantiles of the scores of its real objects of similar size, since small objects score lower, and so do
    objects that touch another one, which are often detected together. Sizes of which the detector misses a larger share
    than the largest quantile are not judged. `extra_share` is that of the real images, since a dense image has more
    extra detections.

    Raises UserError with fewer than `MIN_IMAGES` images with objects, for a class that the detector does not know, when
    no rule lets enough images pass, when that rule lets most images with wrong layouts pass too, and when painted
    controls (`paint_controls`), or objects of other classes, count as found nearly as often as real objects.

    >>> val = read("data/hit-uav", split="val")  # doctest: +SKIP
    >>> load = [lambda file=s.image: np.asarray(Image.open(file)) for s in val]  # doctest: +SKIP
    >>> calibration = calibrate(detector, load, [sample.layout for sample in val], "hit-uav")  # doctest: +SKIP
    >>> calibration.save("calibration.json")  # doctest: +SKIP
    """
    usable = [i for i, layout in enumerate(layouts) if (~layout.difficult).any()]
    if len(usable) < MIN_IMAGES:
        names = ", ".join(layouts[0].classes) if layouts else "none"
        raise UserError(
            f"{dataset_name}: {len(usable)} images with objects ({names}) are too few to calibrate on; give "
            f"{MIN_IMAGES} or more."
        )
    classes = layouts[usable[0]].classes
    known = class_map(classes, detector.classes)
    unknown = [name for i, name in enumerate(classes) if i not in known and any(i in layouts[k].labels for k in usable)]
    if unknown:
        rest = [name for i, name in enumerate(classes) if i in known]
        fewer = f", or leave them out (--classes {','.join(rest)})" if rest else ""
        raise UserError(
            f"{dataset_name}: the detector does not know {', '.join(unknown)}; it knows {', '.join(detector.classes)}. "
            f"Give a detector that is trained on them (--detector){fewer}."
        )
    truths = [layouts[i] for i in usable]
    seen, smudged, painted = [], [], []
    with_controls = {usable[k] for k in np.linspace(0, len(usable) - 1, CONTROL_IMAGES).astype(int)}
    for i in progress(usable):
        image = images[i]()
        seen.append(detector.detect([image])[0])
        if i in with_controls:
            control = paint_controls(image, layouts[i], np.random.default_rng(i))
            painted.append(observe(detector.detect([control])[0], layouts[i], detector.classes))
        blurred = detector.detect([blur_objects(image, layouts[i])])[0]
        smudged.append(observe(blurred, layouts[i], detector.classes))
    real = [observe(d, layout, detector.classes) for d, layout in zip(seen, truths, strict=True)]
    steps = sorted({max(1, round(share * len(truths))) for share in SHUFFLE_SHIFTS})
    shuffled = [
        observe(d, truths[(k + step) % len(truths)], detector.classes) for step in steps for k, d in enumerate(seen)
    ]
    statistics = _statistics(real, classes)
    renamed = [with_other_class(layout, statistics.scores) for layout in truths]
    renamed = [observe(d, layout, detector.classes) for d, layout in zip(seen, renamed, strict=True) if layout]
    chosen = _choose_rule(real, (shuffled, smudged), painted, renamed, statistics, pass_share, dataset_name)
    draft = Calibration(
        detector=detector.identity,
        dataset=dataset_name,
        images=len(real),
        objects={name: len(scores) for name, scores in statistics.scores.items()},
        pass_share=0,
        shuffled_pass_share=0,
        smudged_pass_share=0,
        extra_scores=statistics.extra_scores,
        repair_scores=statistics.repair_scores,
        repair_ious=statistics.repair_ious,
        **chosen,
    )
    shares = {
        "pass_share": _pass_share(real, draft),
        "shuffled_pass_share": _pass_share(shuffled, draft),
        "smudged_pass_share": _pass_share(smudged, draft),
    }
    if shares["shuffled_pass_share"] > MAX_SHUFFLED_PASS:
        raise UserError(
            f"{dataset_name}: a rule that lets {pass_share:.0%} of the real images pass also lets "
            f"{shares['shuffled_pass_share']:.0%} of them pass with the labels of another image; the detector is too "
            f"weak on this imagery{_hardly_found(statistics)}: {STRONGER}."
        )
    controls = {"noise, chequers and grey blobs in boxes of": painted, "other objects that are named": renamed}
    check_controls(draft, real, controls, dataset_name)
    shares["control_found_share"] = round(found_shares(painted, draft)[1], 4)
    return draft.model_copy(update=shares | _judged_and_found(real, draft))


def _judged_and_found(real: Sequence[Observed], rule: Calibration) -> dict[str, dict[str, int]]:
    """`judged_objects` and `found_objects` of a rule: real objects by class."""
    judged, found = dict.fromkeys(rule.objects, 0), dict.fromkeys(rule.objects, 0)
    for one in real:
        limits = rule.limits(one.layout)
        of_judged = one.counted & (limits > 0)
        for name, seen in zip(
            np.array(one.layout.names())[of_judged], (one.match.scores >= limits)[of_judged], strict=True
        ):
            judged[str(name)] += 1
            found[str(name)] += int(seen)
    return {"judged_objects": judged, "found_objects": found}


@dataclass(frozen=True)
class _Statistics:
    """What the rules are made from, for each class name."""

    scores: dict[str, np.ndarray]  # matched score of each real object
    sides: dict[str, np.ndarray]
    crowded: dict[str, np.ndarray]
    extra_scores: dict[str, float]
    repair_scores: dict[str, float]
    repair_ious: dict[str, float]

    def thresholds(
        self, quantile: float, lowest: float = MIN_THRESHOLD
    ) -> dict[str, dict[str, list[tuple[float, float]]]]:
        """`thresholds` and `crowded_thresholds` of a Calibration, `lowest` or above. A class with few crowded objects
        has no `crowded_thresholds`; one with few objects uses those of all classes together."""
        each = {name: (self.scores[name], self.sides[name], self.crowded[name]) for name in self.scores}
        pooled = tuple(map(np.concatenate, zip(*each.values(), strict=True)))
        apart, close = {}, {}
        for name, own in each.items():
            scores, side, near = own if len(own[0]) >= MIN_CLASS_OBJECTS else pooled
            if near.sum() >= MIN_CLASS_OBJECTS and (~near).sum() >= MIN_CLASS_OBJECTS:
                close[name] = _steps(scores[near], side[near], quantile, lowest)
                scores, side = scores[~near], side[~near]
            # where the detector misses too many objects of every size, all sizes are judged
            apart[name] = _steps(scores, side, quantile, lowest, always=True)
        return {"thresholds": apart, "crowded_thresholds": close}


def _steps(
    scores: np.ndarray, side: np.ndarray, quantile: float, lowest: float, always: bool = False
) -> list[tuple[float, float]]:
    """The quantile of the scores (N,) of objects, or `lowest` if that is higher, in steps of the side of their boxes
    (N,): [(side, threshold)]. Sizes of which too many are missed get the threshold 0; with `always`, not if that
    applies to all of them."""
    groups = int(np.clip(len(scores) // MIN_GROUP_OBJECTS, 1, MAX_GROUPS))
    smallest = np.sort(side)[min(SMALLEST_RANK, len(side)) - 1]
    inner = np.quantile(side, np.arange(1, groups) / groups)
    edges = np.unique(np.floor(np.concatenate([[smallest], inner[inner > smallest]]) * 10) / 10)
    of_group = np.maximum(np.searchsorted(edges, side, "right") - 1, 0)
    each = [scores[of_group == group] for group in np.unique(of_group)]
    edges = edges[np.unique(of_group)]
    found = np.array([np.quantile(group, max(SCORE_QUANTILES)) >= MIN_THRESHOLD for group in each])
    limits = [max(lowest, _rounded_down(np.quantile(group, quantile))) for group in each]
    judged = ~found if always and not found.any() else found
    steps = [(float(edge), limit if j else 0.0) for edge, limit, j in zip(edges, limits, judged, strict=True)]
    return [(0.0, 0.0), *steps]


def _statistics(real: Sequence[Observed], classes: Sequence[str]) -> _Statistics:
    names = np.array([name for one in real for name in one.layout.names()])
    counted = np.concatenate([one.counted for one in real])
    scores = np.concatenate([one.match.scores for one in real])
    ious = np.concatenate([one.match.ious for one in real])
    wrong_names = np.array([name for one in real for name in one.extra_names])
    wrong = np.concatenate([one.extra_scores for one in real])
    side, near = (np.concatenate([of(one.layout) for one in real]) for of in (sides, crowded))
    objects, lengths, close, extra_scores, repair_scores, repair_ious = {}, {}, {}, {}, {}, {}
    for name in classes:
        own, own_wrong = counted & (names == name), wrong_names == name
        objects[name], lengths[name], close[name] = scores[own], side[own], near[own]
        if own.sum() < MIN_CLASS_OBJECTS:
            own, own_wrong = counted, np.ones(len(wrong), bool)
        right = scores[own & (scores > 0)]
        extra_scores[name] = score_at_precision(right, wrong[own_wrong], EXTRA_PRECISION)
        repair_scores[name] = score_at_precision(right, wrong[own_wrong], REPAIR_PRECISION)
        matched = ious[own & (scores > 0)]
        repair_ious[name] = _rounded_down(np.quantile(matched, REPAIR_IOU_QUANTILE)) if len(matched) else 0.0
    return _Statistics(objects, lengths, close, extra_scores, repair_scores, repair_ious)


def score_at_precision(right: np.ndarray, wrong: np.ndarray, precision: float) -> float:
    """The lowest score at which the precision is reached, 1.0 if it never is.

    right, wrong: float (N,), (M,) scores of true and false detections. The precision at each score is the isotonic
    (rising) fit to right = 1 and wrong = 0, with one more wrong detection above all others, so that a few right
    detections are not certainty.

    >>> score_at_precision(np.array([0.6, 0.7, 0.8, 0.9]), np.array([0.1, 0.2]), 0.5)
    0.6
    """
    from scipy.optimize import isotonic_regression

    scores = np.concatenate([right, wrong])
    order = np.argsort(scores, kind="stable")
    outcome = np.concatenate([np.ones(len(right)), np.zeros(len(wrong))])[order]
    share = isotonic_regression(np.append(outcome, 0.0)).x[:-1]
    reached = np.flatnonzero(share >= precision)
    return _rounded_down(scores[order][reached[0]]) if len(reached) else 1.0


def _rounded_down(value: float) -> float:
    """Rounded down to four digits: a threshold that is rounded up would exclude the object that sets it."""
    return float(np.floor(float(value) * 1e4) / 1e4)


def _missed_and_extra(one: Observed, thresholds: np.ndarray | float, extra_scores: dict) -> tuple[int, int, int]:
    """(objects, missed objects, extra detections) of an image; thresholds: of each object (N,)."""
    missed = one.counted & (one.match.scores < thresholds)
    extra = one.extra_scores >= at_class(extra_scores, one.extra_names)
    return int(one.counted.sum()), int(missed.sum()), int(extra.sum())


def _pass_share(observed: Sequence[Observed], calibration: Calibration) -> float:
    extra_scores = calibration.extra_scores
    counts = [_missed_and_extra(one, calibration.limits(one.layout), extra_scores) for one in observed]
    return float(np.mean([not calibration.failure(*each) for each in counts]))


def _hardly_found(statistics: _Statistics) -> str:
    """The classes of which fewer than half of the real objects are detected, as part of a sentence; else ""."""
    found = {name: int((scores >= MIN_THRESHOLD).sum()) for name, scores in statistics.scores.items()}
    weak = [
        f"{found[name]} of {len(scores)} {name}"
        for name, scores in statistics.scores.items()
        if 2 * found[name] < len(scores)
    ]
    return f" (found: {listed(weak)})" if weak else ""


def extra_share(objects: np.ndarray, extra: np.ndarray, pass_share: float) -> float:
    """Extra detections for each object, in the `pass_share` of the real images with the fewest of them.

    objects (at least 1), extra: int (N,), of each image.

    >>> extra_share(np.array([2, 2, 2, 2]), np.array([0, 1, 1, 8]), 0.75)
    0.3333
    """
    passing = np.argsort(extra / objects, kind="stable")[: int(np.ceil(pass_share * len(objects)))]
    return round(float(extra[passing].sum() / objects[passing].sum()), 4)


def _choose_rule(
    real, controls, painted, renamed, statistics: _Statistics, pass_share: float, dataset_name: str
) -> dict:
    """The fields of a Calibration that make up the rule. real, controls, painted, renamed: `Observed` of each image;
    controls are lists of images that should fail, painted and renamed have objects that should not be found."""
    objects, _, extra = np.array([_missed_and_extra(one, 0.0, statistics.extra_scores) for one in real]).T
    usual = extra_share(objects, extra, pass_share)
    best, best_key, most_lenient = None, None, 0.0
    for quantile, lowest in product(SCORE_QUANTILES, LOWEST_THRESHOLDS):
        steps = statistics.thresholds(quantile, lowest)
        counts, *wrong = (
            np.array([_missed_and_extra(one, limits(one.layout, **steps), statistics.extra_scores) for one in some])
            for some in (real, *controls)
        )
        found_controls = 0.0
        for some in (painted, renamed):
            _, found = found_of(some, [limits(one.layout, **steps) for one in some])
            found_controls += float(found.mean()) if len(found) else 0.0
        for missed_share, extra_objects in product(MISSED_SHARES, EXTRA_OBJECTS):

            def share(table: np.ndarray, limits=(missed_share, extra_objects, usual)) -> float:
                n, missed, extra = table.T
                fails = exceeds(missed, n, limits[0]) | exceeds(extra, n, limits[2], limits[1])
                return float((~fails).mean())

            passed = share(counts)
            most_lenient = max(most_lenient, passed)
            if passed < pass_share:
                continue
            key = (sum(map(share, wrong)) + found_controls, missed_share, -quantile, -lowest, extra_objects)
            if best_key is None or key < best_key:
                best_key = key
                best = {**steps, "missed_share": missed_share}
                best |= {"extra_objects": extra_objects, "extra_share": usual}
    if best is None:
        raise UserError(
            f"{dataset_name}: even the most lenient rule lets only {most_lenient:.0%} of the real images pass, not "
            f"{pass_share:.0%}; the detector is too weak on this imagery{_hardly_found(statistics)}: {STRONGER}."
        )
    return best
