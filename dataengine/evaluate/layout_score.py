"""Do images show their labels? Average precision of an independent detector on generated images (the YOLO score of the
literature), compared with real images, labels of another image, and blurred objects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dataengine.data.layout import Layout, model_key, restrict_layout
from dataengine.errors import UserError
from dataengine.evaluate.average_precision import COCO_THRESHOLDS, average_precision, matched
from dataengine.evaluate.coco_average_precision import coco_average_precision
from dataengine.evaluate.results import Column, Figure, Result, Role, Row, bias_corrected
from dataengine.evaluate.windows import MIN_IMAGES, Window
from dataengine.judge.calibrate import blur_objects
from dataengine.judge.detector import Detections, Detector

N_RESAMPLES = 400
MIN_CLASS_OBJECTS, MIN_CLASS_IMAGES = 20, 10  # of a class, below which its AP50 is mostly chance
SIZES = {"small": (0.0, 16.0**2), "medium": (16.0**2, 32.0**2), "large": (32.0**2, float("inf"))}  # square pixels
COLUMNS = {
    "AP50": Column("AP50, DOTA", "higher", "DOTA's evaluation: oriented boxes, IoU 0.5"),
    "AP": Column("AP, DOTA", "higher", "DOTA's evaluation, mean over IoU 0.5 to 0.95"),
    "COCO AP50": Column("AP50, COCO", "higher", "COCO's evaluation: upright hulls, IoU 0.5"),
    "COCO AP": Column("AP, COCO", "higher", "COCO's evaluation, mean over IoU 0.5 to 0.95"),
}


@dataclass(frozen=True)
class ScoredImages:
    """The input of one row: detections in a set of images, and the labels to compare them with."""

    name: str
    role: Role
    detections: list[Detections]
    layouts: list[Layout]


def shared_classes(layouts: Sequence[Layout], detector: Detector) -> tuple[tuple[str, ...], list[str]]:
    """Classes of the objects that the detector knows, and the classes that it does not know.

    Raises UserError where it knows none.
    """
    present = tuple(dict.fromkeys(name for layout in layouts for name in layout.names()))
    known = {model_key(name) for name in detector.classes}
    shared = tuple(name for name in present if model_key(name) in known)
    if not shared:
        raise UserError(
            f"the detector knows none of the classes in the images ({', '.join(present) or 'no labels'}); it knows "
            f"{', '.join(detector.classes)}. Give a detector trained on real images of these classes (--detector)."
        )
    return shared, [name for name in present if name not in shared]


def layout_score(
    generated: Sequence[Window], real: Sequence[Window], detector: Detector, seed: int = 0, bar=lambda x, title: x
) -> list[Result]:
    """Layout score overall and by class and object size (AP50 of DOTA), on equally many generated and real images.

    Objects of classes that the detector does not know become ignored regions. bar: wraps a sequence to show progress.
    Raises UserError for too few images or no shared class.
    """
    n = min(len(generated), len(real))
    if n < MIN_IMAGES:
        raise UserError(
            f"only {n} images per side have labels to score; the minimum is {MIN_IMAGES}, some hundreds are better."
        )
    rng = np.random.default_rng(seed)
    generated, real = (
        [windows[i] for i in np.sort(rng.permutation(len(windows))[:n])] for windows in (generated, real)
    )
    classes, unknown = shared_classes([window.layout for window in generated], detector)
    layouts, real_layouts = ([restrict_layout(x.layout, classes) for x in windows] for windows in (generated, real))
    detected = [detector.detect([x.pixels()])[0] for x in bar(generated, "detecting in generated images")]
    real_detected = [detector.detect([x.pixels()])[0] for x in bar(real, "detecting in real images")]
    blurred = [
        detector.detect([blur_objects(x.pixels(), x.layout)])[0] for x in bar(generated, "detecting blurred objects")
    ]
    rows = [
        ScoredImages("generated", "measured", detected, layouts),
        ScoredImages("real", "reference", real_detected, real_layouts),
        ScoredImages("labels of another image", "control", detected, layouts[n // 2 :] + layouts[: n // 2]),
        ScoredImages("objects blurred", "control", blurred, layouts),
    ]
    notes = [f"classes that the detector does not know: {', '.join(unknown)}"] if unknown else []
    notes += [*rare_classes(layouts, "generated"), *rare_classes(real_layouts, "real")]
    return [_whole(rows, detector, rng, notes), _by_class(rows, detector, classes)]


def rare_classes(layouts: Sequence[Layout], what: str) -> list[str]:
    """A sentence on the classes of which there are too few objects, or in too few images, for a figure of their own:
    they weigh as much in the mean as any other, and no interval covers what they might have been.

    >>> rare = Layout([[9, 9, 8, 4, 0]], [1], ("car", "ship"), (99, 99))
    >>> cars = [Layout([[9, 9, 8, 4, 0]] * 2, [0, 0], ("car", "ship"), (99, 99))] * 10
    >>> rare_classes([rare, *cars], "real")
    ['too few to tell: ship has 1 object in 1 of 11 real images, and weighs 1/2 of their AP']
    """
    classes = layouts[0].classes if layouts else ()
    counts = np.array([np.bincount(x.labels[~x.difficult], minlength=len(classes)) for x in layouts])  # (I, C)
    objects, images = counts.sum(0), (counts > 0).sum(0)
    rare = np.flatnonzero((objects > 0) & ((objects < MIN_CLASS_OBJECTS) | (images < MIN_CLASS_IMAGES)))
    if not len(rare):
        return []
    each = [f"{classes[c]} has {objects[c]} object{'s' * int(objects[c] > 1)} in {images[c]}" for c in rare]
    weight = f"weigh{'s' * int(len(rare) == 1)} {len(rare)}/{(objects > 0).sum()} of their AP"
    return [f"too few to tell: {', '.join(each)} of {len(layouts)} {what} images, and {weight}"]


def _whole(rows: list[ScoredImages], detector: Detector, rng: np.random.Generator, notes: list[str]) -> Result:
    return Result(
        "layout",
        "Do they show their labels?",
        COLUMNS,
        [Row(row.name, row.role, len(row.layouts), _figures(row, detector, rng)) for row in rows],
        {"detector": f"{', '.join(detector.classes)} ({detector.identity})"},
        interval="95 %, by resampling images; always over the same classes",
        notes=notes,
    )


def _figures(row: ScoredImages, detector: Detector, rng: np.random.Generator) -> dict[str, Figure]:
    found = matched(row.detections, row.layouts, detector.classes, COCO_THRESHOLDS)
    at_50 = matched(row.detections, row.layouts, detector.classes, (0.5,))
    whole, coco = found.average_precision(), coco_average_precision(row.detections, row.layouts, detector.classes)
    return {
        "AP50": bias_corrected(whole.mean(0.5), at_50.resampled_means(N_RESAMPLES, rng)),
        "AP": Figure(whole.mean()),
        "COCO AP50": Figure(coco["AP50"]),
        "COCO AP": Figure(coco["AP"]),
    }


def _by_class(rows: list[ScoredImages], detector: Detector, classes: tuple[str, ...]) -> Result:
    """A row for each class and object size; a column for each row of the overall table."""
    areas = {"": (0.0, float("inf")), **{f", {size}": limits for size, limits in SIZES.items()}}
    scores = {
        suffix: [average_precision(x.detections, x.layouts, detector.classes, (0.5,), limits) for x in rows]
        for suffix, limits in areas.items()
    }
    table = []
    for i, name in enumerate(classes):
        for suffix, detected in scores.items():
            values = {x.name: Figure(score.values[0, i]) for x, score in zip(rows, detected, strict=True)}
            if objects := int(detected[0].objects[i]):
                table.append(Row(name + suffix, "measured", objects, values))
    columns = {x.name: Column(x.name if x.role != "control" else f"control: {x.name}", "higher") for x in rows}
    title = "AP50 by class and object size (small: up to 16 x 16 square pixels, medium: up to 32 x 32, large)"
    return Result("layout by class", title, columns, table, counted="generated objects")
