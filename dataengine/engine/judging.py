"""What the filters make of rendered images: kept or dropped, with labels marked, mended or taken out of the picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from dataengine.data.layout import Layout
from dataengine.engine.parts import Parts
from dataengine.engine.recipe import Recipe, image_seed
from dataengine.engine.shard import Attempt, Rendered, drawing_settings, render_batch
from dataengine.judge.detector import Detections
from dataengine.judge.matching import match
from dataengine.judge.verdict import Repair, Verdict, judge, repair
from dataengine.render.erase import erase
from dataengine.render.scene import Scene


def attempt(parts: Parts, recipe: Recipe, indices: range) -> list[Attempt]:
    """Draw, render and judge a batch."""
    return judge_batch(parts, recipe, render_batch(parts, recipe, indices))


def judge_batch(parts: Parts, recipe: Recipe, rendered: Sequence[Rendered]) -> list[Attempt]:
    """What the filters say of each image of a batch."""
    results = []
    for one in rendered:
        image, labels, verdict = one.image, one.labels, Verdict(False, "no room for anything new", [], [], [])
        if len(one.asked):
            image, labels, verdict = judged(parts, recipe, one)
        scene = one.scene
        told = ("", "", "", ()) if scene is None else (scene.name, scene.license, scene.source, scene.unreadable)
        results.append(Attempt(one.index, one.asked, image, labels, *told, verdict, one.left_out))
    return results


def judged(parts: Parts, recipe: Recipe, one: Rendered) -> tuple[np.ndarray, Layout, Verdict]:
    """An image and its labels after the filters, and what they say. A dropped one stays as it was."""
    detections = detect(parts, one.image)
    labels, verdict = judged_labels(parts, recipe, one.image, one.labels, len(one.asked), detections)
    if recipe.filter != "erase" or not verdict.missed:
        return one.image, labels, verdict
    image, labels, erased, detections = without_missed(parts, recipe, one, detections)
    reason = f"{len(erased)} of {len(erased)} objects not found"
    if left := len(one.asked) - len(erased):
        labels, after = judged_labels(parts, recipe, image, labels, left, detections)
        if after.kept:
            return image, labels, replace(after, repairs=erased)
        reason = after.reason
    return one.image, one.labels, replace(verdict, kept=False, reason=reason)


def detect(parts: Parts, image: np.ndarray) -> Detections | None:
    """What the filter's detector sees; None without one."""
    return None if parts.detector is None else parts.detector.detect([image])[0]


def without_missed(
    parts: Parts, recipe: Recipe, one: Rendered, detections: Detections
) -> tuple[np.ndarray, Layout, list[Repair], Detections]:
    """Image and labels without the painted objects that the detector does not find, what was taken out, and what the
    detector sees then. It looks again until it finds all that are left: one may have been seen for another's sake."""
    image, labels, numbers, erased = one.image, one.labels, np.arange(len(one.asked)), []
    calibration, classes = parts.calibration, parts.detector.classes
    while True:
        painted = np.arange(len(labels)) < len(numbers)
        scores = match(detections, replace(labels, difficult=labels.difficult | ~painted), classes).scores
        missed = painted & ~labels.difficult & ~calibration.found(labels, scores)
        if not missed.any():
            return image, labels, erased, detections
        for k in np.flatnonzero(missed):
            erased.append(repair("erased", numbers[k], labels.boxes[k], None, scores[k]))
        if one.bare is not None:
            image = erase(image, one.bare, labels, missed, parts.pipeline.unet.spec)
        else:
            scene, which = Scene(image, labels, one.scene.name), numbers[missed[: len(numbers)]]
            seed, settings = image_seed(recipe.seed, one.index), drawing_settings(parts, recipe)
            image = parts.pipeline.paint_over(scene, missed, seed, which, **settings).image
        labels, numbers = labels.select(~missed), numbers[~missed[: len(numbers)]]
        detections = detect(parts, image)


def judged_labels(
    parts: Parts, recipe: Recipe, image: np.ndarray, layout: Layout, painted: int, detections: Detections | None
) -> tuple[Layout, Verdict]:
    """What the filters say of an image, and its labels after them. Of the objects the first `painted` are judged; the
    others are a real picture's own, whose labels are true whether the detector sees them or not."""
    if detections is None:
        labels, verdict = layout, Verdict(True, "", [], [], [])
    else:
        own = np.arange(len(layout)) >= painted
        asked = replace(layout, difficult=layout.difficult | own)
        labels, verdict = judge(detections, asked, parts.detector.classes, parts.calibration, recipe.filter)
        own = np.pad(own, (0, len(labels) - len(layout)))
        before = np.pad(layout.difficult, (0, len(labels) - len(layout)))
        labels = replace(labels, difficult=np.where(own, before, labels.difficult))
    if verdict.kept and parts.semantic is not None and (reason := parts.semantic.failure(image, layout)):
        verdict = replace(verdict, kept=False, reason=reason)
    return labels, verdict
