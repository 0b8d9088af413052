"""Where a detector fails: objects that it misses and false alarms, by class, size, crowding, acquisition and ground."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from dataengine.data.layout import Layout
from dataengine.evaluate.average_precision import Matched, average_precision, matched
from dataengine.evaluate.layout_score import SIZES
from dataengine.evaluate.results import Column, Figure, Result, Row, bootstrap
from dataengine.improve.aspects import Aspects
from dataengine.judge.detector import Detections
from dataengine.judge.verdict import class_map, match, overlaps

IOU = 0.5
MIN_PART_IOU = 0.1  # of a false alarm with an object of its class, which it then shows in part
N_RESAMPLES = 1000


@dataclass(frozen=True)
class Miss:
    """An object that is not found. image: number of its image. box: float32 (5,)."""

    image: int
    box: np.ndarray
    groups: dict[str, str]


@dataclass(frozen=True)
class FalseAlarm:
    """A detection that matches no object. lies_on: another object, part of one, or a kind of ground."""

    image: int
    box: np.ndarray
    score: float
    groups: dict[str, str]
    lies_on: str


@dataclass(frozen=True)
class Group:
    """Objects and false alarms that have an aspect in common. recall: with its 95 % interval (bootstrap over images).
    ap50: of classes, sizes and acquisitions; else NaN."""

    aspect: str
    name: str
    objects: int
    found: int
    recall: Figure
    false_alarms: int
    ap50: float


@dataclass(frozen=True)
class Failures:
    """groups: by aspect and name. misses, false_alarms: in order of image, and by descending score. recall: share of
    all objects that is found. thresholds: the score of each class from which a detection counts here. images: how many.
    """

    groups: list[Group]
    misses: list[Miss]
    false_alarms: list[FalseAlarm]
    recall: float
    thresholds: dict[str, float]
    images: int


def find_failures(
    detections: Sequence[Detections],
    layouts: Sequence[Layout],
    images: Sequence[Callable[[], np.ndarray]],
    detector_classes: Sequence[str],
    aspects: Aspects,
) -> Failures:
    """Compare the detections of each image with its layout at IoU 0.5, from the score of each class at which F1 is
    highest. images: functions that load uint8 (H, W, 3) RGB. Difficult objects and ignored regions do not count.
    """
    classes = layouts[0].classes
    thresholds = working_points(matched(detections, layouts, detector_classes, (IOU,)))
    to_layout = class_map(classes, detector_classes)
    misses, alarms = [], []
    objects: list[list[tuple[dict[str, str], bool]]] = []  # of each image: groups of an object, and whether it is found
    for i, (seen, layout, load) in enumerate(zip(detections, layouts, images, strict=True)):
        labels = to_layout[seen.labels]
        limits = np.array([thresholds[classes[k]] if k >= 0 else np.inf for k in labels], np.float64)
        sure = seen.select(seen.scores >= limits)
        found = match(sure, layout, detector_classes, IOU)
        image = load() if len(layout) or len(found.extra) else None
        groups = aspects.of(image, layout, layout.boxes, layout.names()) if len(layout) else []
        counted = ~layout.difficult
        objects.append([(groups[k], bool(found.detections[k] >= 0)) for k in np.flatnonzero(counted)])
        lost = np.flatnonzero(counted & (found.detections < 0))
        misses += [Miss(i, layout.boxes[k], groups[k]) for k in lost]
        wrong = sure.select(found.extra)
        names = [classes[k] for k in to_layout[wrong.labels]]
        wrong_groups = aspects.of(image, layout, wrong.boxes, names) if len(wrong) else []
        places = _places(wrong, layout, names, wrong_groups)
        alarms += [
            FalseAlarm(i, box, float(score), group, place)
            for box, score, group, place in zip(wrong.boxes, wrong.scores, wrong_groups, places, strict=True)
        ]
    found_groups = _groups(objects, alarms)
    ap50 = _ap50(detections, layouts, detector_classes, aspects)
    rows = [
        Group(*key, n, found, recall, false, ap50.get(key, np.nan)) for key, (n, found, recall, false) in found_groups
    ]
    outcomes = [hit for of_image in objects for _, hit in of_image]
    recall = float(np.mean(outcomes)) if outcomes else float("nan")
    return Failures(rows, misses, sorted(alarms, key=lambda alarm: -alarm.score), recall, thresholds, len(layouts))


def working_points(found: Matched) -> dict[str, float]:
    """The score of each class at which F1 is highest at the first IoU threshold; infinite where nothing is found.

    >>> found = Matched(("car",), (0.5,), np.array([[2]]), [np.zeros(3, int)], [np.array([0.9, 0.5, 0.2])],
    ...                 [np.array([[1], [1], [-1]])])
    >>> working_points(found)
    {'car': 0.5}
    """
    points = {}
    for c, name in enumerate(found.classes):
        order = np.argsort(-found.scores[c], kind="stable")
        outcome = found.outcomes[c][order, 0]
        right, wrong = np.cumsum(outcome > 0), np.cumsum(outcome < 0)
        f1 = 2 * right / np.maximum(right + wrong + found.objects[:, c].sum(), 1)
        points[name] = float(found.scores[c][order][f1.argmax()]) if len(f1) and f1.max() > 0 else np.inf
    return points


def _places(wrong: Detections, layout: Layout, names: Sequence[str], groups: Sequence[dict[str, str]]) -> list[str]:
    """What each false alarm lies on."""
    iou = overlaps(layout, wrong.boxes)  # (N, D)
    places = []
    for k, (name, group) in enumerate(zip(names, groups, strict=True)):
        best = int(iou[:, k].argmax()) if len(layout) else -1
        if best < 0 or iou[best, k] < MIN_PART_IOU:
            places.append(f"ground ({group['ground']})")
        elif layout.names()[best] == name:
            places.append(f"part of {name}, or more than it")
        else:
            places.append(f"another object ({layout.names()[best]})")
    return places


def _groups(objects: list[list[tuple[dict, bool]]], alarms: Sequence[FalseAlarm]):
    """((aspect, name), (objects, found, recall, false alarms)) of each group, by aspect and name."""
    keys = {key: None for of_image in objects for groups, _ in of_image for key in groups.items()}
    keys |= {key: None for alarm in alarms for key in alarm.groups.items()}
    false = Counter(key for alarm in alarms for key in alarm.groups.items())
    aspects = list(dict.fromkeys(aspect for aspect, _ in keys))
    times = np.random.default_rng(0).multinomial(len(objects), [1 / len(objects)] * len(objects), N_RESAMPLES)
    for key in sorted(keys, key=lambda key: (aspects.index(key[0]), key[1])):
        hits = [[hit for groups, hit in of_image if groups.get(key[0]) == key[1]] for of_image in objects]
        n, found = np.array([len(each) for each in hits]), np.array([sum(each) for each in hits])
        with np.errstate(invalid="ignore"):
            resampled = (times @ found) / (times @ n)
        recall = bootstrap(found.sum() / n.sum(), resampled) if n.sum() else Figure(np.nan)
        yield key, (int(n.sum()), int(found.sum()), recall, false[key])


def _ap50(detections, layouts, detector_classes, aspects: Aspects) -> dict[tuple[str, str], float]:
    """AP50 of each class, size and acquisition, at all scores."""

    def of(chosen: Sequence[int], areas: tuple[float, float] = (0.0, float("inf"))):
        some = [detections[i] for i in chosen], [layouts[i] for i in chosen]
        return average_precision(*some, detector_classes, (IOU,), areas)

    every = range(len(layouts))
    found = {("class", name): value for name, value in of(every).at(IOU).items()}
    for size, areas in SIZES.items():
        found |= {("size", f"{name}, {size}"): value for name, value in of(every, areas).at(IOU).items()}
    members: dict[tuple[str, str], list[int]] = {}
    for i, layout in enumerate(layouts):
        for key in aspects.of_image(layout.acquisition).items():
            members.setdefault(key, []).append(i)
    return found | {key: of(chosen).mean() for key, chosen in members.items()}


def failure_tables(failures: Failures) -> list[Result]:
    """Two tables for a report: recall and false alarms of every group, and what false alarms lie on."""
    columns = {
        "recall": Column("recall", "higher", "share of the objects found at IoU 0.5, from the score of best F1 on"),
        "false": Column("false alarms an image", "lower", "detections from that score on that match no object"),
        "AP50": Column("AP50", "higher", "at all scores"),
    }
    rows = [
        Row(
            f"{group.aspect}: {group.name}", "measured", group.objects,
            {
                "recall": group.recall,
                "false": Figure(group.false_alarms / failures.images),
                "AP50": Figure(group.ap50),
            },
        )
        for group in failures.groups
    ]  # fmt: skip
    how = "95 %, bootstrap over images"
    places = Counter((alarm.groups["class"], alarm.lies_on) for alarm in failures.false_alarms)
    alarms = [
        Row(f"{name} on {place}", "measured", n, {"share": Figure(n / len(failures.false_alarms))})
        for (name, place), n in places.most_common()
    ]
    share = {"share": Column("share of all", "lower")}
    return [
        Result("failures", "Objects and false alarms by group", columns, rows, counted="objects", interval=how),
        Result("false alarms", "What false alarms lie on", share, alarms, counted="false alarms"),
    ]
