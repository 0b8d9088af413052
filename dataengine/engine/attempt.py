"""The life of one image, from top to bottom: layout and canvas, place, paint, judge, record.

Images go through in batches. No random number depends on the batch; its size may change the rounding of a network's
sums, and so a pixel by a grey level.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from PIL import Image

from dataengine.data.layout import Layout
from dataengine.engine.parts import Parts
from dataengine.engine.picture_recipe import PictureRecipe
from dataengine.engine.recipe import Recipe
from dataengine.engine.record import Record
from dataengine.engine.run_folder import image_name
from dataengine.judge.detector import Detections
from dataengine.judge.verdict import Repair, Verdict, judge, match, repair
from dataengine.render.canvas import Canvas, Painted
from dataengine.render.placement import beside
from dataengine.seeds import Stream, generator, image_seed


def sample_layouts(parts: Parts, recipe: Recipe, indices: range) -> list[Layout]:
    """Layouts of these attempts; each depends on (run seed, index) only."""
    return [parts.sampler.sample(generator(image_seed(recipe.seed, i), Stream.LAYOUT)) for i in indices]


def paint(parts: Parts, recipe: Recipe, indices: range) -> list[Painted]:
    """Sample the layouts of a batch, find a canvas for each, and paint them."""
    if isinstance(recipe, PictureRecipe):
        return paint_pictures(parts, recipe, indices)
    seeds = [image_seed(recipe.seed, i) for i in indices]
    canvases = parts.canvases.draw(sample_layouts(parts, recipe, indices), seeds)
    canvases = [place(parts, recipe, canvas, seed) for canvas, seed in zip(canvases, seeds, strict=True)]
    with_room = [k for k, canvas in enumerate(canvases) if len(canvas.new)]
    painted = {}
    if with_room:
        asked = [canvases[k] for k in with_room], [seeds[k] for k in with_room]
        painted = dict(zip(with_room, parts.renderer.paint(*asked, parts.paint_settings(recipe)), strict=True))
    return [painted[k] if k in painted else canvas.untouched() for k, canvas in enumerate(canvases)]


def paint_pictures(parts: Parts, recipe: PictureRecipe, indices: range) -> list[Painted]:
    """Pictures of a data set, painted again. All dates of a sequence have the seed of its first."""
    dates = len(recipe.task.targets)
    seeds = [image_seed(recipe.seed, i - i % dates) for i in indices]
    canvases = parts.canvases.numbered(indices, seeds)
    return parts.renderer.paint(canvases, seeds, parts.paint_settings(recipe))


def judged_picture(parts: Parts, recipe: PictureRecipe, painted: Painted) -> tuple[Painted, Verdict]:
    """What the filter makes of a picture. Its labels hold only where an object was found; others become difficult. An
    object that was painted over and is still found makes the labels wrong, so the picture is dropped."""
    gone = painted.canvas.existing
    if painted.canvas.provenance.unreadable:
        return painted, Verdict(False, "the picture cannot be read", [], [], [])
    detections = detect(parts, painted.image)
    labels, verdict = judge_labels(parts, recipe, painted, detections)
    scores = match(detections, gone, parts.detector.classes).scores
    if verdict.kept and (seen := int((parts.calibration.found(gone, scores) & (scores > 0)).sum())):
        labels = painted.labels
        verdict = replace(verdict, kept=False, reason=f"{seen} of {len(gone)} vanished objects still found")
    return replace(painted, labels=labels), verdict


def place(parts: Parts, recipe: Recipe, canvas: Canvas, seed: int) -> Canvas:
    """The canvas with its new objects where they are to be painted: at likely places, if those are known. Where images
    are few or places matter, new objects leave room to all that are there; else these make room for new ones."""
    if parts.places is not None:
        canvas = canvas.keep(parts.places.placed(canvas, canvas.new, generator(seed, Stream.PLACE)))
    elif not recipe.augment_scenes or recipe.into is not None or canvas.blank:
        return canvas
    return canvas.keep(beside(canvas.window().existing, canvas.new, parts.renderer.margin))


def judged(parts: Parts, recipe: Recipe, painted: Painted, seed: int) -> tuple[Painted, Verdict]:
    """What the filters make of a painted image, and what they say. A dropped one stays as it was."""
    if isinstance(recipe, PictureRecipe):
        return judged_picture(parts, recipe, painted)
    asked = len(painted.canvas.new)
    if not asked:
        return painted, Verdict(False, "no room left", [], [], [])
    detections = detect(parts, painted.image)
    labels, verdict = judge_labels(parts, recipe, painted, detections)
    if recipe.filter != "erase" or not verdict.missed:
        return replace(painted, labels=labels), verdict
    erased, repairs, detections = without_missed(parts, recipe, painted, seed, detections)
    reason = f"{len(repairs)} of {len(repairs)} objects not found"
    if len(repairs) < asked and not _any_judged(parts, erased):
        reason = "only objects left of sizes that are not judged"
    elif len(repairs) < asked:
        labels, after = judge_labels(parts, recipe, erased, detections)
        if after.kept:
            return replace(erased, labels=labels), replace(after, repairs=repairs)
        reason = after.reason
    return painted, replace(verdict, kept=False, reason=reason)


def _any_judged(parts: Parts, painted: Painted) -> bool:
    """Whether the filter judges any of the painted objects. Those of sizes without a threshold count as found, which
    says nothing of an image whose other objects were all missed."""
    new = ~painted.held_before & ~painted.labels.difficult
    return bool((parts.calibration.limits(painted.labels)[new] > 0).any())


def detect(parts: Parts, image: np.ndarray) -> Detections | None:
    """What the filter's detector finds; None without one."""
    return None if parts.detector is None else parts.detector.detect([image])[0]


def judge_labels(
    parts: Parts, recipe: Recipe, painted: Painted, detections: Detections | None
) -> tuple[Layout, Verdict]:
    """What the filters say of an image, and its labels after them. Painted objects are judged; those that the image
    held before have true labels, whether the detector finds them or not."""
    layout = painted.labels
    if detections is None:
        labels, verdict = layout, Verdict(True, "", [], [], [])
    else:
        own = painted.held_before
        asked = replace(layout, difficult=layout.difficult | own)
        labels, verdict = judge(detections, asked, parts.detector.classes, parts.calibration, recipe.filter)
        added = (0, len(labels) - len(layout))
        before = np.pad(layout.difficult, added)
        labels = replace(labels, difficult=np.where(np.pad(own, added), before, labels.difficult))
    if verdict.kept and parts.semantic is not None and (reason := parts.semantic.failure(painted.image, layout)):
        verdict = replace(verdict, kept=False, reason=reason)
    return labels, verdict


def without_missed(
    parts: Parts, recipe: Recipe, painted: Painted, seed: int, detections: Detections
) -> tuple[Painted, list[Repair], Detections]:
    """The image without the painted objects that the detector does not find, what was removed, and what the detector
    finds then. It looks again until it finds all that are left: one may have been found because of another."""
    erased: list[Repair] = []
    while True:
        labels, numbers = painted.labels, painted.numbers
        own = painted.held_before
        scores = match(detections, replace(labels, difficult=labels.difficult | own), parts.detector.classes).scores
        missed = ~own & ~labels.difficult & ~parts.calibration.found(labels, scores)
        if not missed.any():
            return painted, erased, detections
        for k in np.flatnonzero(missed):
            erased.append(repair("erased", numbers[k], labels.boxes[k], None, scores[k]))
        painted = parts.renderer.remove(painted, missed, seed, parts.paint_settings(recipe))
        detections = detect(parts, painted.image)


def record(recipe: Recipe, shard: int, index: int, painted: Painted, verdict: Verdict) -> tuple[Record, bytes]:
    """The record of an attempt, and its image as a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(painted.image).save(buffer, "PNG")
    canvas = painted.canvas
    made = Record(
        index=index,
        seed=image_seed(recipe.seed, index),
        image=image_name(shard, index),
        sha256=hashlib.sha256(buffer.getvalue()).hexdigest(),
        provenance=canvas.provenance,
        layout_from=canvas.new.origins,
        left_out=canvas.left_out,
        asked=canvas.new,
        labels=painted.labels,
        verdict=verdict,
        objects_from=canvas.starts,
    )
    return made, buffer.getvalue()


def attempt(parts: Parts, recipe: Recipe, indices: range) -> list[tuple[Painted, Verdict]]:
    """Paint and judge these attempts."""
    return [
        judged(parts, recipe, painted, image_seed(recipe.seed, index))
        for index, painted in zip(indices, paint(parts, recipe, indices), strict=True)
    ]


def batches(recipe: Recipe, number: int, batch_size: int) -> Sequence[range]:
    """The attempts of shard `number`, at most `batch_size` together."""
    first, end = number * recipe.shard_size, min((number + 1) * recipe.shard_size, recipe.budget)
    return [range(start, min(start + batch_size, end)) for start in range(first, end, batch_size)]
