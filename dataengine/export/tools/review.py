"""Images of a run for review in another tool, and what a person changed there as changes of the run's decisions."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from dataengine import geometry
from dataengine.data.layout import Layout, class_key
from dataengine.engine.decided import checked_objects, decide, sha_of
from dataengine.engine.decisions import Change, EditedObject, read_decisions
from dataengine.engine.record import Record
from dataengine.engine.run_folder import RunFolder
from dataengine.errors import UserError

VERDICTS = {"accepted": True, "rejected": False}  # tags of an image that are a decision
SAME_PX = 0.06  # corners that come back within this distance are those that were given: tools round


@dataclass(frozen=True)
class Given:
    """An image as a tool gets it. numbers: of its labels in the manifest, None for those that a person added.
    accepted: by hand, None where the filter decided. kept: whether it is in the data set."""

    name: str
    file: Path
    labels: Layout
    numbers: tuple[int | None, ...]
    accepted: bool | None
    tags: tuple[str, ...]
    kept: bool

    @property
    def words(self) -> tuple[str, ...]:
        """Its tags, and "accepted" or "rejected" where a person decided so."""
        verdict = [word for word, value in VERDICTS.items() if value is self.accepted]
        return (*verdict, *self.tags)


@dataclass(frozen=True)
class Back:
    """An image as it comes back. words: tags of the image."""

    name: str
    objects: tuple[EditedObject, ...]
    words: tuple[str, ...] = ()


@dataclass
class Review:
    """What a person changed: `changes` to append, and notes for the user."""

    changes: list[Change] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def given_images(run: RunFolder, all_attempts: bool = False) -> tuple[list[Given], tuple[str, ...]]:
    """The images of a finished run after what a person decided, and the run's classes.

    Those that the filter kept, and all that were decided about; with all_attempts also the others that it dropped.
    """
    found, classes = [], dict.fromkeys(run.stored_recipe().classes)
    for record in run.decided():
        if not (all_attempts or record.accepted or record.by_hand is not None):
            continue
        classes.update(dict.fromkeys(record.labels.classes))
        by_hand = record.by_hand
        numbers = tuple(range(len(record.labels))) if by_hand is None or by_hand.was is None else by_hand.was
        found.append(Given(
            record.name, run.image(record), record.labels, numbers, by_hand and by_hand.accepted,
            by_hand.tags if by_hand else (), record.accepted,
        ))  # fmt: skip
    if not found:
        raise UserError(f"{run.path}: no image of this run was accepted; --all-attempts includes dropped images.")
    return found, tuple(classes)


def review(run: RunFolder, back: Iterable[Back], by: str) -> Review:
    """The changes that make the run's decisions those that came back. Images that did not come back stay as they are.

    by: the tool. Raises UserError for an image that the run does not have, and for labels that it cannot have.
    """
    decisions, found = read_decisions(run), Review()
    records = {record.name: record for record in run.records()}
    classes = run.stored_recipe().classes
    seen: set[str] = set()
    for one in back:
        record = records.get(one.name)
        if record is None:
            raise UserError(f"{run.path}: has no image {one.name}; give the file of images that were exported from it.")
        if one.name in seen:
            raise UserError(f"{one.name} comes twice; keep one of them.")
        seen.add(one.name)
        now = decide(record, decisions.get(record.index))
        images = ((record.index, sha_of(record)),)
        objects = _objects(one.objects, record.labels, now)
        if objects is not None:
            checked_objects(objects, record.labels, classes)
            found.changes.append(Change(do="correct", images=images, objects=objects, by=by))
        found.changes += _verdict_and_tags(one, now, images, by)
    if missing := len([name for name, record in records.items() if record.accepted and name not in seen]):
        found.notes.append(f"{missing} accepted images of the run are not in the file and stay as they are")
    return found


def _verdict_and_tags(one: Back, now: Record, images, by: str) -> list[Change]:
    words = dict.fromkeys(word.strip() for word in one.words)
    verdicts = [value for word, value in VERDICTS.items() if word in words]
    if len(verdicts) > 1:
        raise UserError(f"{one.name} is both accepted and rejected; keep one of the two.")
    before = now.by_hand.accepted if now.by_hand else None
    accepted = verdicts[0] if verdicts else None
    changes = []
    if accepted is not before:
        changes.append(Change(do={True: "accept", False: "reject", None: "filter"}[accepted], images=images, by=by))
    tags, had = [word for word in words if word not in VERDICTS], now.by_hand.tags if now.by_hand else ()
    changes += [Change(do="tag", tag=tag, images=images, by=by) for tag in tags if tag not in had]
    return changes + [Change(do="untag", tag=tag, images=images, by=by) for tag in had if tag not in tags]


def _objects(back: Sequence[EditedObject], made: Layout, now: Record) -> tuple[EditedObject, ...] | None:
    """The labels that came back, those that only a tool rounded as they were; None where nothing changed."""
    was = now.by_hand.was if now.by_hand is not None and now.by_hand.was is not None else range(len(now.labels))
    before = {
        (number, k) if number is None else number: EditedObject(
            of=number, cls=now.labels.classes[label], box=tuple(map(float, box)), difficult=bool(difficult)
        )
        for k, (number, label, box, difficult) in enumerate(
            zip(was, now.labels.labels, now.labels.boxes, now.labels.difficult, strict=True)
        )
    }
    found, used = [], set()
    for one in back:
        number = one.of if one.of in before and one.of not in used and one.of is not None else None
        # an added label has no number: it is known by its place
        key = number if number is not None else _same_place(one, before, used)
        used.add(key)
        same = before.get(key)
        if same is not None and class_key(same.cls) == class_key(one.cls) and _near(same.box, one.box):
            found.append(same.model_copy(update={"difficult": one.difficult}))
        else:
            found.append(one.model_copy(update={"of": key if isinstance(key, int) else None}))
    order = lambda one: (math.inf if one.of is None else one.of, one.box)  # noqa: E731
    if sorted(found, key=order) == sorted(before.values(), key=order):
        return None
    return tuple(found)


def _same_place(one: EditedObject, before: dict, used: set):
    return next((key for key, other in before.items() if key not in used and _near(other.box, one.box)), None)


def _near(a: Sequence[float], b: Sequence[float]) -> bool:
    """Whether two boxes have the same corners, in any order, as far as tools keep them."""
    first, second = (geometry.to_corners(geometry.regularize(np.float32([box])))[0] for box in (a, b))
    far = np.linalg.norm(first[:, None] - second[None], axis=2)
    return bool((far.min(1) < SAME_PX).all() and (far.min(0) < SAME_PX).all())
