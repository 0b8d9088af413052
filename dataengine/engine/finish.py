"""Figures of a run, and what is written when it has enough images: data sets, contact sheets, report, manifest.

Everything is read from the manifest as it is written, so that memory does not grow with the run.
"""

from __future__ import annotations

import io
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from dataengine.data import coco, dota
from dataengine.data.draw import contact_sheet, draw
from dataengine.data.layout import Dataset, Problem, Sample, restrict_layout
from dataengine.data.pixel_range import in_8_bits
from dataengine.data.staging import IMAGE_SKIPPED, Place
from dataengine.engine.changes import write_changes
from dataengine.engine.decided import decide
from dataengine.engine.decisions import Decision, counts, fold, read_changes
from dataengine.engine.picture_recipe import PictureRecipe
from dataengine.engine.recipe import Recipe
from dataengine.engine.record import Record
from dataengine.engine.run_folder import RunFolder, RunSamples, StoredRecipe, read_records
from dataengine.errors import UserError, one_line
from dataengine.files import write_whole
from dataengine.judge.calibration import Calibration
from dataengine.judge.verdict import without_counts
from dataengine.layouts.balance import shares_of

if TYPE_CHECKING:
    from dataengine.engine.parts import Parts

ON_SHEET, SHEET_SIDE_PX = 36, 640  # images on a contact sheet, and the longer side to which larger ones are reduced


@dataclass(frozen=True)
class ClassRow:
    """asked: objects in the layouts of all attempts; found: those the filter's detector found; kept: objects in
    accepted images, of which `difficult` are marked so; erased: taken out of accepted images again."""

    name: str
    asked: int
    found: int
    erased: int
    kept: int
    difficult: int


@dataclass
class Tally:
    """calibration: None without a filter; classes: of the run. The rest is counted by `add`: images tried and accepted,
    reasons of rejection, classes and kind of the accepted images' labels, scenes that could not be read,
    objects that were left out."""

    calibration: Calibration | None
    classes: tuple[str, ...]
    tried: int = 0
    accepted: int = 0
    kind: str | None = None
    dropped_for: Counter = field(default_factory=Counter)
    left_out: int = 0
    unreadable_scenes: set[str] = field(default_factory=set)
    asked: Counter = field(default_factory=Counter)
    found: Counter = field(default_factory=Counter)
    erased: Counter = field(default_factory=Counter)
    kept: Counter = field(default_factory=Counter)
    difficult: Counter = field(default_factory=Counter)
    label_classes: dict[str, None] = field(default_factory=dict)

    def add(self, record: Record) -> None:
        """Count one more record; call it in order of attempt."""
        labels, verdict = record.labels, record.verdict
        self.tried += 1
        self.left_out += record.left_out
        self.unreadable_scenes.update(record.provenance.unreadable)
        names, asked = labels.names(), record.asked.names()
        self.asked.update(asked)
        self.erased.update(asked[k] for k in record.erased)
        if self.calibration is not None:
            # painted objects come first; those that the scene held before, and repaired ones, follow
            scores = np.array(verdict.scores[: record.n_painted], np.float32)
            judged = labels.select(np.arange(len(scores)))
            found = self.calibration.found(judged, scores) & (scores > 0)
            self.found.update(judged.select(found).names())
        if not verdict.kept:
            self.dropped_for[without_counts(verdict.reason)] += 1
            return
        self.accepted += 1
        self.kind = self.kind or labels.kind
        self.kept.update(names)
        self.difficult.update(name for name, d in zip(names, labels.difficult, strict=True) if d)
        self.label_classes.update(dict.fromkeys(labels.classes))

    @property
    def all_classes(self) -> tuple[str, ...]:
        """The run's classes, then those that scenes brought along."""
        return tuple(dict.fromkeys((*self.classes, *self.label_classes)))

    def class_table(self) -> list[ClassRow]:
        """Acceptance per class, in class order; a class that was never asked for has zeros."""
        every = dict.fromkeys((*self.classes, *self.asked))
        counters = self.asked, self.found, self.erased, self.kept, self.difficult
        return [ClassRow(n, *(counted[n] for counted in counters)) for n in every]


def report(
    recipe: Recipe, notes: Sequence[str], tally: Tally, datasets: bool, decided: dict[str, int] | None = None
) -> dict:
    """Figures of a run as plain values. notes: sentences for the user. datasets: whether it has DOTA and COCO
    folders. decided: numbers of changes by hand that its data sets contain, and of the images they concern."""
    table = tally.class_table()
    by_hand = {"by_hand": decided} if decided else {}
    task = {"task": recipe.task.kind} if isinstance(recipe, PictureRecipe) else {}
    return {
        **by_hand,
        **task,
        "wanted": recipe.n,
        "accepted": tally.accepted,
        "tried": tally.tried,
        "acceptance": round(tally.accepted / max(1, tally.tried), 4),
        "classes": [vars(row) for row in table],
        "never_kept": [row.name for row in table if not row.kept],
        "below_balance": below_balance(recipe, table),
        "dropped_for": dict(tally.dropped_for.most_common()),
        "real_images_that_would_pass": tally.calibration.pass_share if tally.calibration else None,
        "left_out": tally.left_out,
        "unreadable_scenes": sorted(tally.unreadable_scenes),
        "datasets": datasets,
        "notes": [*notes],
    }


def below_balance(recipe: Recipe, table: Sequence[ClassRow]) -> dict[str, float]:
    """{class: its share of the kept objects}, of those that are below the share that --balance states."""
    names, kept = tuple(row.name for row in table), np.array([row.kept for row in table])
    share = kept / max(1, kept.sum())
    short = np.flatnonzero(share < shares_of(recipe.balance, names))
    return {names[k]: round(float(share[k]), 4) for k in short}


def finish(recipe: Recipe, parts: Parts, run: RunFolder, tally: Tally, stored: StoredRecipe) -> None:
    """Write everything that is derived from the shards. Can be interrupted and repeated.

    tally: has counted all records in the unfinished manifest, which becomes the manifest.
    """
    for folder in (run.dota, run.coco, run.mixed, run.changes):
        shutil.rmtree(folder, ignore_errors=True)
    write_derived(run, run.unfinished_manifest, recipe, stored, tally, parts.real, run)
    os.replace(run.unfinished_manifest, run.manifest)


def write_derived(
    run: RunFolder,
    manifest: Path,
    recipe: Recipe,
    stored: StoredRecipe,
    tally: Tally,
    real: Dataset | None,
    out: RunFolder,
    place: Place | None = None,
    n_changes: int | None = None,
) -> None:
    """Write what follows from the manifest of `run`, and from what a person decided, to `out`: data sets, contact
    sheets and report. The sheets and the figures of the report are those of the filter.

    `finish` writes them into the run, `verify` next to it to compare. tally: has counted the manifest. real: images
    that --mix joins. place: in place of copying images into the DOTA and COCO folders (`staging.placed`). n_changes:
    how many of the changes in decisions.jsonl to apply, None for all.
    """
    changes = read_changes(run.decisions, n_changes)
    decisions = fold(changes)
    samples, decided = _decided_samples(run, manifest, tally, decisions)
    problems: list[Problem] = []  # the last data set has those of the others, too
    if len(samples) and stored.datasets:
        dataset = Dataset(samples.classes, samples, tally.kind, name=f"synthetic {stored.dataset_name}")
        for module, folder in ((dota, out.dota), (coco, out.coco)):
            problems = module.write(dataset, folder, split="train", place=place)
            if skipped := [problem for problem in problems if problem.message.endswith(IMAGE_SKIPPED)]:
                raise _damaged(skipped[0].path, skipped[0].message)
        if real is not None:
            with TemporaryDirectory(prefix=".mixed-", dir=out.path) as work:
                problems = coco.write(mixed(in_8_bits(real, Path(work)), dataset), out.mixed, split="train")
    if isinstance(recipe, PictureRecipe) and recipe.task.kind == "sequence" and len(samples):
        records = (decide(record, decisions.get(record.index)) for record in read_records(manifest))
        write_changes(records, len(recipe.task.targets), out.changes)
    _sheets(run, manifest, tally, samples.classes, out)
    notes = [*stored.notes]
    if problems:
        notes.append(f"{len(problems)} problems in the data sets, such as {_within(run, problems[0])}")
    figures = report(recipe, notes, tally, stored.datasets, {"changes": len(changes), **decided} if changes else None)
    write_whole(out.report, json.dumps(figures, indent=2) + "\n")


def _decided_samples(
    run: RunFolder, manifest: Path, tally: Tally, decisions: dict[int, Decision]
) -> tuple[RunSamples, dict[str, int]]:
    """The accepted images after what a person decided, and numbers of the decisions on images of this manifest."""
    if not decisions:
        return RunSamples(run, manifest, tally.all_classes, tally.accepted), counts({})
    classes, n, used = dict.fromkeys(tally.all_classes), 0, {}
    for record in read_records(manifest):
        decision = decisions.get(record.index)
        record = decide(record, decision)
        if decision is not None:
            used[record.index] = decision
        if record.accepted:
            tally.kind = tally.kind or record.labels.kind
            classes.update(dict.fromkeys(record.labels.classes))
            n += 1
    return RunSamples(run, manifest, tuple(classes), n, decisions), counts(used)


def _within(run: RunFolder, problem: Problem) -> Problem:
    """The problem with its path from the run folder on, so that a report is the same wherever the run lies."""
    inside = problem.path.is_relative_to(run.path)
    return replace(problem, path=problem.path.relative_to(run.path)) if inside else problem


@dataclass(frozen=True)
class JoinedSamples:
    """Samples of one collection after those of another, with a word before each one's name, and labels in `classes`."""

    parts: tuple[tuple[str, Iterable[Sample]], ...]
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return sum(len(samples) for _, samples in self.parts)

    def __iter__(self) -> Iterator[Sample]:
        for word, samples in self.parts:
            for sample in samples:
                labels = np.array([self.classes.index(name) for name in sample.layout.names()], np.int64)
                layout = replace(sample.layout, labels=labels, classes=self.classes)
                yield replace(sample, name=f"{word}/{sample.name}", layout=layout)


def mixed(real: Dataset, synthetic: Dataset) -> Dataset:
    """Real and synthetic images as one data set, as AeroGen trains its detectors; names say which is which."""
    classes = tuple(dict.fromkeys((*real.classes, *synthetic.classes)))
    samples = JoinedSamples((("real", real), ("synthetic", synthetic)), classes)
    return Dataset(classes, samples, synthetic.kind, name=f"{real.name} with synthetic images")


def _sheets(run: RunFolder, manifest: Path, tally: Tally, classes: tuple[str, ...], out: RunFolder) -> None:
    """Contact sheets of accepted and of dropped images with their boxes, spread evenly over the run; the reason below
    where there is one."""
    totals = {True: tally.accepted, False: tally.tried - tally.accepted}
    wanted = {
        kept: set(np.linspace(0, n - 1, ON_SHEET).astype(int).tolist()) if n else set() for kept, n in totals.items()
    }
    seen, chosen = {True: 0, False: 0}, {True: [], False: []}
    for record in read_records(manifest):
        if seen[record.accepted] in wanted[record.accepted]:
            chosen[record.accepted].append(record)
        seen[record.accepted] += 1
    _sheet(run, chosen[True], classes, out.kept_sheet, tally.calibration)
    _sheet(run, chosen[False], classes, out.dropped_sheet, tally.calibration)


def missed(record: Record, calibration: Calibration | None) -> np.ndarray:
    """Bool (N,): the labels of an image that its detector was asked for and did not find."""
    labels, scores = record.labels, np.array(record.verdict.scores, np.float32)
    if calibration is None or len(scores) < len(labels):
        return np.zeros(len(labels), bool)
    return ~calibration.found(labels, scores[: len(labels)]) & (np.arange(len(labels)) < record.n_painted)


def _damaged(image: Path, reason: str) -> UserError:
    return UserError(f"{image}: was damaged while the run was at work ({reason}); the same command makes it again.")


def _sheet(
    run: RunFolder, records: list[Record], classes: tuple[str, ...], path: Path, calibration: Calibration | None
) -> None:
    """One contact sheet; none without records. Objects for which an image was dropped are drawn as doubtful ones. Where
    images held objects before, new ones have a mark."""
    if not records:
        path.unlink(missing_ok=True)
        return
    pictures, marked = [], any(len(record.labels) > record.n_painted for record in records)
    for record in records:
        labels = record.labels
        if not record.accepted:
            labels = replace(labels, difficult=labels.difficult | missed(record, calibration))
        try:
            with Image.open(run.image(record)) as image:
                labels = restrict_layout(labels, classes)
                new = np.arange(len(labels)) < record.n_painted if marked else None
                pictures.append(draw(image, labels, min(1, SHEET_SIDE_PX / max(image.size)), new))
        except (OSError, ValueError, SyntaxError) as error:  # Pillow raises all of them for broken images
            raise _damaged(run.image(record), one_line(error)) from None
    captions = [record.verdict.reason or record.name for record in records]
    content = io.BytesIO()
    contact_sheet(pictures, captions, classes=classes, marked=marked).save(content, "PNG")
    write_whole(path, content.getvalue())
