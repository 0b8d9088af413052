"""Do pictures show their labels? Average precision of a detector that had no part in making them (the YOLO score of
the literature), beside real pictures, labels of another picture, and objects without their detail."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dataengine.data.layout import Layout, class_key, restrict_layout
from dataengine.errors import UserError
from dataengine.evaluate.average_precision import COCO_THRESHOLDS, AveragePrecision, average_precision
from dataengine.evaluate.coco_average_precision import coco_average_precision
from dataengine.evaluate.pictures import LEAST, Picture
from dataengine.evaluate.results import Column, Figure, Result, Role, Row, bootstrap
from dataengine.judge.detector import Detections, Detector
from dataengine.judge.smudge import smudge

RESAMPLES = 100
SIZES = {"small": (0.0, 16.0**2), "medium": (16.0**2, 32.0**2), "large": (32.0**2, float("inf"))}  # square pixels
COLUMNS = {
    "AP50": Column("AP50, DOTA", "higher", "as DOTA's evaluation counts: boxes as they are, IoU 0.5"),
    "AP": Column("AP, DOTA", "higher", "the same, mean over IoU 0.5 to 0.95"),
    "COCO AP50": Column("AP50, COCO", "higher", "as COCO's evaluation counts: upright hulls, IoU 0.5"),
    "COCO AP": Column("AP, COCO", "higher", "the same, mean over IoU 0.5 to 0.95"),
}


@dataclass(frozen=True)
class Seen:
    """A row to be: what a detector found in pictures, and the labels that it is held against."""

    name: str
    role: Role
    detections: list[Detections]
    layouts: list[Layout]


def shared_classes(layouts: Sequence[Layout], detector: Detector) -> tuple[tuple[str, ...], list[str]]:
    """Classes that have objects and that the detector knows, and the names of those that it does not know.

    Raises UserError where it knows none.
    """
    shown = tuple(dict.fromkeys(name for layout in layouts for name in layout.names()))
    known = {class_key(name) for name in detector.classes}
    shared = tuple(name for name in shown if class_key(name) in known)
    if not shared:
        raise UserError(
            f"the detector knows none of the classes shown ({', '.join(shown) or 'there are no labels'}); it knows "
            f"{', '.join(detector.classes)}. Give one that was trained on real pictures of these classes (--detector)."
        )
    return shared, [name for name in shown if name not in shared]


def layout_score(
    made: Sequence[Picture], real: Sequence[Picture], detector: Detector, seed: int = 0, bar=lambda x, title: x
) -> list[Result]:
    """The score as a whole, and by class and size of object (AP50, DOTA's way), of as many generated as real pictures.

    Objects of classes that the detector does not know become ignored regions. bar: wraps a sequence to show progress.
    Raises UserError for classes or pictures that are too few.
    """
    n = min(len(made), len(real))
    if n < LEAST:
        raise UserError(f"only {n} pictures a side have labels to score; {LEAST} are the least, some hundreds wanted.")
    rng = np.random.default_rng(seed)
    made, real = ([pictures[i] for i in np.sort(rng.permutation(len(pictures))[:n])] for pictures in (made, real))
    classes, unknown = shared_classes([picture.layout for picture in made], detector)
    layouts, real_layouts = ([restrict_layout(x.layout, classes) for x in pictures] for pictures in (made, real))
    found = [detector.detect([x.pixels()])[0] for x in bar(made, "detecting in generated pictures")]
    in_real = [detector.detect([x.pixels()])[0] for x in bar(real, "detecting in real pictures")]
    smudged = [detector.detect([smudge(x.pixels(), x.layout)])[0] for x in bar(made, "detecting in smudged pictures")]
    rows = [
        Seen("generated", "measured", found, layouts),
        Seen("real", "reference", in_real, real_layouts),
        Seen("labels of another picture", "control", found, layouts[n // 2 :] + layouts[: n // 2]),
        Seen("objects smudged", "control", smudged, layouts),
    ]
    notes = [f"left out, since the detector does not know them: {', '.join(unknown)}"] if unknown else []
    return [_whole(rows, detector, rng, notes), _by_class(rows, detector, classes)]


def _whole(rows: list[Seen], detector: Detector, rng: np.random.Generator, notes: list[str]) -> Result:
    return Result(
        "layout",
        "Do they show their labels?",
        COLUMNS,
        [Row(row.name, row.role, len(row.layouts), _figures(row, detector, rng)) for row in rows],
        {"detector": f"{', '.join(detector.classes)} ({detector.identity})"},
        interval="95 %, by resampling pictures",
        notes=notes,
    )


def _figures(row: Seen, detector: Detector, rng: np.random.Generator) -> dict[str, Figure]:
    def score(order: np.ndarray, thresholds: Sequence[float]) -> AveragePrecision:
        seen, layouts = [row.detections[i] for i in order], [row.layouts[i] for i in order]
        return average_precision(seen, layouts, detector.classes, thresholds)

    n = len(row.layouts)
    whole, coco = score(np.arange(n), COCO_THRESHOLDS), coco_average_precision(
        row.detections, row.layouts, detector.classes
    )  # fmt: skip
    resampled = [score(rng.integers(0, n, n), (0.5,)).mean() for _ in range(RESAMPLES)]
    return {
        "AP50": bootstrap(whole.mean(0.5), resampled),
        "AP": Figure(whole.mean()),
        "COCO AP50": Figure(coco["AP50"]),
        "COCO AP": Figure(coco["AP"]),
    }


def _by_class(rows: list[Seen], detector: Detector, classes: tuple[str, ...]) -> Result:
    """A row for each class and each size of its objects; a column for each row of the whole."""
    areas = {"": (0.0, float("inf")), **{f", {size}": limits for size, limits in SIZES.items()}}
    scores = {
        suffix: [average_precision(x.detections, x.layouts, detector.classes, (0.5,), limits) for x in rows]
        for suffix, limits in areas.items()
    }
    table = []
    for i, name in enumerate(classes):
        for suffix, found in scores.items():
            values = {x.name: Figure(score.values[0, i]) for x, score in zip(rows, found, strict=True)}
            if objects := int(found[0].objects[i]):
                table.append(Row(name + suffix, "measured", objects, values))
    columns = {x.name: Column(x.name if x.role != "control" else f"control: {x.name}", "higher") for x in rows}
    title = "AP50 by class and size of object (up to 16 x 16, up to 32 x 32 square pixels, larger)"
    return Result("layout by class", title, columns, table, counted="objects generated")
