"""The decisions on a run's images as columns beside its index, and changes of them from the page."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Literal

import numpy as np

from dataengine.engine.decided import SHA_LENGTH, checked_objects, corrected
from dataengine.engine.decisions import Change, Decision, append, changes_in, counts, effective, fold, read_changes
from dataengine.errors import UserError, counted
from dataengine.view.index import Columns, Index

OBJECT_COLUMNS = ("image", "label", "box_w", "box_h", "theta", "object_score", "own")


class Choices:
    """accepted int8 (N,): 1 accepted, 0 rejected by hand, -1 the filter decides. tagged: bool (N,) of each tag.
    corrected bool (N,). changes: all of the file. version: rises with every change.

    `refresh` follows the file when another program has written to it. The index then has the corrected labels in its
    columns and entries.
    """

    def __init__(self, index: Index):
        self.index, self.run, self.version = index, index.source.run, 0
        self._made = index.columns  # as the manifest has them
        self._writing, self._stamp = threading.RLock(), None
        self._position: dict[int, int] | None = None
        self._take([])
        self.refresh()

    def refresh(self) -> bool:
        """Read the file if it has changed; whether it had. Raises UserError for a damaged one."""
        with self._writing:
            stamp = self._now()
            if stamp == self._stamp:
                return False
            self._take(read_changes(self.run.decisions))
            self._stamp = stamp
            return True

    def decide(self, change: Change, ids: Sequence[int] | np.ndarray) -> None:
        """Make a change of the images with these positions in the index. Raises UserError for an invalid one."""
        columns = self._made
        with self._writing:
            if change.objects is not None:
                if len(ids) != 1:
                    raise UserError("a correction is of the labels of one image; open it.")
                made = self.index.made(int(ids[0]))
                checked_objects(change.objects, made.labels, self.index.classes)
            ids = np.asarray(ids, np.int64)
            shas = [f"{sha:0{SHA_LENGTH}x}" for sha in columns.sha[ids].tolist()]
            images = tuple(zip(columns.number[ids].tolist(), shas, strict=True))
            self._append(change.model_copy(update={"images": images}))

    def step(self, do: Literal["undo", "redo"]) -> None:
        """Undo the last change, or make it again. Raises UserError where there is none."""
        with self._writing:
            self._append(Change(do=do))

    def _append(self, change: Change) -> None:
        known = None if self._stamp is None else (self._stamp[0], self.changes)
        self._take(append(self.run, [change], known))
        self._stamp = self._now()

    def _now(self) -> tuple[int, int] | None:
        file = self.run.decisions
        return (file.stat().st_size, file.stat().st_mtime_ns) if file.exists() else None

    def summary(self) -> dict:
        """Numbers of decisions, of images with each tag, and whether there is something to undo and to redo."""
        past, undone = effective(self.changes)
        tags = {tag: int(mask.sum()) for tag, mask in sorted(self.tagged.items())}
        last = past[-1] if past else None
        return {
            **counts(self.index.decisions),
            "tags": {tag: n for tag, n in tags.items() if n},
            "undo": None if last is None else said(last),
            "redo": said(undone[-1]) if undone else None,
            "version": self.version,
        }

    def notes(self) -> list[str]:
        """Sentences for the page about decisions that count for nothing, or that the run's own data sets lack."""
        found = []
        if self.void:
            name = self.run.decisions.name
            found.append(f"{self.void} decisions in {name} are about images that are not in this run any more.")
        if (later := len(self.changes) - changes_in(self.index.source.report)) > 0:
            found.append(
                f"dota/ and coco/ in the run folder lack {later} changes; dataengine run update writes them again. "
                "Exports contain them."
            )
        return found

    def of(self, i: int) -> dict | None:
        """The decision on image i for the page, None without one."""
        decision = self.index.decisions.get(int(self._made.number[i]))
        if decision is None:
            return None
        return {
            "accepted": decision.accepted, "tags": list(decision.tags), "corrected": decision.objects is not None,
        }  # fmt: skip

    def _take(self, changes: list[Change]) -> None:
        decisions = fold(changes)
        n = len(self.index)
        self.changes, self.version = changes, self.version + 1
        self.accepted, self.corrected = np.full(n, -1, np.int8), np.zeros(n, bool)
        self.tagged: dict[str, np.ndarray] = {}
        self.void = 0  # decisions on images that are not here
        used: dict[int, Decision] = {}
        edits: dict[int, Decision] = {}
        for number, decision in decisions.items():
            i = self._positions().get(number)
            if i is None or int(self._made.sha[i]) != int(decision.sha, 16):
                self.void += 1  # beyond the end of the run, or its file was replaced
                continue
            used[number] = decision
            if decision.accepted is not None:
                self.accepted[i] = decision.accepted
            for tag in decision.tags:
                self.tagged.setdefault(tag, np.zeros(n, bool))[i] = True
            if decision.objects is not None:
                self.corrected[i] = True
                edits[i] = decision
        self.index.decisions = used
        self.index.columns = _edited(self.index, self._made, edits)

    def _positions(self) -> dict[int, int]:
        if self._position is None:
            self._position = {number: i for i, number in enumerate(self._made.number.tolist())}
        return self._position


def said(change: Change) -> str:
    """A change in words, such as "reject 10 images"."""
    n = len(change.images)
    images = counted(n, "image")
    match change.do:
        case "tag" | "untag":
            return f"{'tag' if change.do == 'tag' else 'remove the tag from'} {images}: {change.tag}"
        case "filter":
            return f"leave {images} to the filter"
        case "correct":
            return "correct the labels of 1 image"
        case "restore":
            return f"restore the labels of {images}"
    return f"{change.do} {images}"


def _edited(index: Index, made: Columns, edits: dict[int, Decision]) -> Columns:
    """The columns with the corrected labels of images in place of those of the manifest. edits: by position."""
    if not edits:
        return made
    positions = np.array(sorted(edits), np.int64)
    numbers = {name: number for number, name in enumerate(index.classes)}
    rows: dict[str, list] = {name: [] for name in OBJECT_COLUMNS}
    objects, asked_for, score = made.objects.copy(), made.asked_for.copy(), made.score.copy()
    for i in positions.tolist():
        record = index.made(i).record
        labels, was = corrected(record.labels, edits[i].objects)
        scores = [record.verdict.scores[k] if k is not None and k < len(record.verdict.scores) else np.nan for k in was]
        scores = np.array([np.nan if value is None else value for value in scores], np.float32)
        painted = np.array([k is not None and k < record.n_painted for k in was], bool)
        scores[~painted] = np.nan
        objects[i], asked_for[i] = len(labels), painted.sum()
        score[i] = np.nanmin(scores) if np.isfinite(scores).any() else np.nan
        for name in labels.classes:
            if name not in numbers:
                raise UserError(f"decisions.jsonl: image {record.index} has the class {name}, which the run does not.")
        of = np.array([numbers[name] for name in labels.classes], np.int32)
        rows["image"].append(np.full(len(labels), i)), rows["label"].append(of[labels.labels])
        rows["box_w"].append(labels.boxes[:, 2]), rows["box_h"].append(labels.boxes[:, 3])
        rows["theta"].append(labels.boxes[:, 4]), rows["object_score"].append(scores), rows["own"].append(~painted)
    keep = ~np.isin(made.image, positions)
    joined = {
        name: np.concatenate([getattr(made, name)[keep], *rows[name]]).astype(getattr(made, name).dtype)
        for name in OBJECT_COLUMNS
    }
    order = np.argsort(joined["image"], kind="stable")
    columns = {field.name: getattr(made, field.name) for field in fields(Columns)}
    columns |= {name: values[order] for name, values in joined.items()}
    return replace(Columns(**columns), objects=objects, asked_for=asked_for, score=score)
