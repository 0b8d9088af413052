"""The labels and the verdict of an image after what a person decided about it (`decisions`)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from dataengine import geometry
from dataengine.data.layout import Layout, class_key
from dataengine.engine.decisions import Decision, EditedObject
from dataengine.engine.record import ByHand, Record
from dataengine.errors import UserError

SHA_LENGTH = 16  # characters of an image's SHA-256 that a change states
MIN_VISIBLE = 0.1  # share of a corrected box that must lie inside its image
REJECTED = "rejected by hand"


def sha_of(record: Record) -> str:
    """How a change names the image's file."""
    return record.sha256[:SHA_LENGTH]


def checked_objects(objects: Sequence[EditedObject], labels: Layout, classes: Sequence[str]) -> None:
    """Whether these can be the labels of an image. labels: those of the manifest. classes: of the run. Raises UserError
    with the number of the first object, from 1, that has an unknown class, is one of the labels twice or none of them,
    or lies outside the image."""
    known, used = {class_key(name) for name in (*classes, *labels.classes)}, set()
    visible = geometry.visible_fraction(_boxes(objects, labels), labels.size)
    for number, (one, share) in enumerate(zip(objects, visible, strict=True), 1):
        if class_key(one.cls) not in known:
            raise UserError(f"object {number}: there is no class {one.cls}; choose one of {', '.join(classes)}.")
        if one.of is not None and (one.of >= len(labels) or one.of in used):
            raise UserError(f"object {number}: the image has no label {one.of}, or it is named twice; reload the page.")
        unchanged = one.of is not None and np.allclose(_boxes([one], labels)[0], labels.boxes[one.of], atol=1e-3)
        if share < MIN_VISIBLE and not unchanged:
            raise UserError(f"object {number}: only {share:.0%} of it lies inside the image; move or remove it.")
        used.add(one.of)


def _boxes(objects: Sequence[EditedObject], labels: Layout) -> np.ndarray:
    """le90, float32 (N, 5); upright in an image of horizontal boxes."""
    boxes = geometry.regularize(np.array([one.box for one in objects], np.float32).reshape(-1, 5))
    return geometry.hulls(boxes) if labels.kind == "hbb" else boxes


def corrected(labels: Layout, objects: Sequence[EditedObject]) -> tuple[Layout, tuple[int | None, ...]]:
    """The labels of an image after a correction, and the number that each had before, None for added ones, which come
    last. A box within a thousandth of a pixel of its own label is that label, to the last bit."""
    objects = sorted(objects, key=lambda one: math.inf if one.of is None else one.of)
    names = {class_key(name): name for name in labels.classes}
    classes = dict.fromkeys((*labels.classes, *(names.get(class_key(one.cls), one.cls) for one in objects)))
    numbers = {class_key(name): number for number, name in enumerate(classes)}
    boxes = _boxes(objects, labels)
    visible = geometry.visible_fraction(boxes, labels.size).astype(np.float32)
    outlines = list(labels.silhouettes or [np.zeros((0, 2), np.float32)] * len(labels))
    kept_outlines = []
    for k, one in enumerate(objects):
        same = one.of is not None and np.allclose(boxes[k], labels.boxes[one.of], atol=1e-3)
        if same:
            boxes[k], visible[k] = labels.boxes[one.of], labels.visible[one.of]
        kept_outlines.append(outlines[one.of] if same else np.zeros((0, 2), np.float32))
    layout = replace(
        labels,
        boxes=boxes,
        labels=np.array([numbers[class_key(one.cls)] for one in objects], np.int64),
        classes=tuple(classes),
        difficult=np.array([one.difficult for one in objects], bool),
        visible=visible,
        silhouettes=tuple(kept_outlines) if any(map(len, kept_outlines)) else None,
    )
    return layout, tuple(one.of for one in objects)


def decide(record: Record, decision: Decision | None) -> Record:
    """The record with what a person decided about it; unchanged without a decision. Raises UserError where the decision
    is about another image."""
    if decision is None or decision.empty:
        return record
    if sha_of(record) != decision.sha:
        raise UserError(
            f"decisions.jsonl: image {record.index} is another one than was decided on (its checksum differs); put the "
            "run back from a copy, or remove decisions.jsonl."
        )
    verdict, labels = record.verdict, record.labels
    by_hand = ByHand(decision.accepted, decision.tags, verdict.reason)
    if decision.objects is not None:
        if any(one.of is not None and one.of >= len(labels) for one in decision.objects):
            raise UserError(
                f"decisions.jsonl: image {record.index} has {len(labels)} labels, fewer than are corrected."
            )
        labels, was = corrected(labels, decision.objects)
        verdict = replace(verdict, scores=[verdict.scores[i] for i in was if i is not None and i < len(verdict.scores)])
        changed = tuple(k for k, i in enumerate(was) if i is None or not _same(labels, k, record.labels, i))
        by_hand = replace(by_hand, was=was, changed=changed, removed=len(record.labels) - len(was) + was.count(None))
    if decision.accepted is not None:
        verdict = replace(verdict, kept=decision.accepted, reason="" if decision.accepted else REJECTED)
    return replace(record, labels=labels, verdict=verdict, by_hand=by_hand)


def _same(labels: Layout, k: int, before: Layout, i: int) -> bool:
    """Whether object k of the labels is object i of those before."""
    same = labels.classes[labels.labels[k]] == before.classes[before.labels[i]]
    return same and labels.difficult[k] == before.difficult[i] and bool((labels.boxes[k] == before.boxes[i]).all())
