"""What is written when a run has enough images: DOTA and COCO data sets, contact sheets, report, manifest.

Everything is read from the manifest's lines as it is written, so that memory does not grow with the run.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from dataengine.data import coco, dota
from dataengine.data.draw import contact_sheet, draw
from dataengine.data.layout import Dataset, layout_from_json, restrict_layout
from dataengine.engine.manifest import MANIFEST, AcceptedSamples, JoinedSamples, read_manifest
from dataengine.engine.parts import Parts
from dataengine.engine.recipe import Recipe
from dataengine.engine.records import painted
from dataengine.engine.tally import ClassRow, Tally
from dataengine.files import write_whole
from dataengine.judge.calibration import Calibration
from dataengine.layouts.balance import shares_of

ON_SHEET = 36


def report(recipe: Recipe, parts: Parts, tally: Tally, datasets: bool) -> dict:
    """Figures of a run as plain values. datasets: whether it has DOTA and COCO folders."""
    table = tally.class_table()
    return {
        "wanted": recipe.n,
        "accepted": tally.accepted,
        "tried": tally.tried,
        "acceptance": round(tally.accepted / max(1, tally.tried), 4),
        "classes": [vars(row) for row in table],
        "never_kept": [row.name for row in table if not row.kept],
        "below_balance": below_balance(recipe, table),
        "dropped_for": dict(tally.dropped_for.most_common()),
        "real_images_that_would_pass": parts.calibration.pass_share if parts.calibration else None,
        "left_out": tally.left_out,
        "unreadable_scenes": sorted(tally.unreadable_scenes),
        "datasets": datasets,
        "notes": parts.notes,
    }


def below_balance(recipe: Recipe, table: Sequence[ClassRow]) -> dict[str, float]:
    """{class: its share of the kept objects}, of those that are below the share that --balance states."""
    names, kept = tuple(row.name for row in table), np.array([row.kept for row in table])
    share = kept / max(1, kept.sum())
    short = np.flatnonzero(share < shares_of(recipe.balance, names))
    return {names[k]: round(float(share[k]), 4) for k in short}


def finish(recipe: Recipe, parts: Parts, out: Path, tally: Tally, lines: Path, datasets: bool = True) -> None:
    """Write everything that is derived from the shards. Can be broken off and repeated.

    tally: has counted all records in the file `lines`, which becomes the manifest. datasets: False leaves DOTA and COCO
    folders out, and removes those of before.
    """
    kind, name = tally.kind or parts.preset.kind, f"synthetic {parts.preset.name}"
    samples = AcceptedSamples(out, lines, tally.all_classes, tally.accepted)
    dataset = Dataset(samples.classes, samples, kind, name=name)
    for module, folder in ((dota, "dota"), (coco, "coco")):
        shutil.rmtree(out / folder, ignore_errors=True)
        if len(dataset) and datasets:
            module.write(dataset, out / folder, split="train")
    shutil.rmtree(out / "mixed", ignore_errors=True)
    if len(dataset) and datasets and parts.real is not None:
        coco.write(mixed(parts.real, dataset), out / "mixed", split="train")
    _sheets(out, lines, tally, samples.classes)
    write_whole(out / "report.json", json.dumps(report(recipe, parts, tally, datasets), indent=2) + "\n")
    os.replace(lines, out / MANIFEST)


def mixed(real: Dataset, synthetic: Dataset) -> Dataset:
    """Real and synthetic images as one data set, as AeroGen trains its detectors; names say which is which."""
    classes = tuple(dict.fromkeys((*real.classes, *synthetic.classes)))
    samples = JoinedSamples((("real", real), ("synthetic", synthetic)), classes)
    return Dataset(classes, samples, synthetic.kind, name=f"{real.name} with synthetic images")


def _sheets(out: Path, lines: Path, tally: Tally, classes: tuple[str, ...]) -> None:
    """Contact sheets of accepted and of dropped pictures with their boxes, spread evenly over the run; the reason below
    where there is one."""
    totals = {True: tally.accepted, False: tally.tried - tally.accepted}
    wanted = {
        kept: set(np.linspace(0, n - 1, ON_SHEET).astype(int).tolist()) if n else set() for kept, n in totals.items()
    }
    seen, chosen = {True: 0, False: 0}, {True: [], False: []}
    for record in read_manifest(lines):
        kept = record["verdict"]["kept"]
        if seen[kept] in wanted[kept]:
            chosen[kept].append(record)
        seen[kept] += 1
    _sheet(out, chosen[True], classes, out / "kept.png", tally.calibration)
    _sheet(out, chosen[False], classes, out / "dropped.png", tally.calibration)


def missed(record: dict, calibration: Calibration | None) -> np.ndarray:
    """Bool (N,): the labels of an image that its detector was asked for and did not find."""
    labels, scores = layout_from_json(record["labels"]), np.array(record["verdict"]["scores"], np.float32)
    if calibration is None or len(scores) < len(labels):
        return np.zeros(len(labels), bool)
    return ~calibration.found(labels, scores[: len(labels)]) & (np.arange(len(labels)) < painted(record))


def _sheet(
    out: Path, records: list[dict], classes: tuple[str, ...], path: Path, calibration: Calibration | None
) -> None:
    """One contact sheet; none without records. Objects for which a picture was dropped are drawn as doubtful ones."""
    if not records:
        path.unlink(missing_ok=True)
        return
    pictures = []
    for record in records:
        labels = layout_from_json(record["labels"])
        if not record["verdict"]["kept"]:
            labels = replace(labels, difficult=labels.difficult | missed(record, calibration))
        with Image.open(out / record["image"]) as image:
            pictures.append(draw(image, restrict_layout(labels, classes)))
    captions = [record["verdict"]["reason"] or f"{record['index']:08d}" for record in records]
    fresh = path.with_name(f".{path.name}")
    contact_sheet(pictures, captions, classes=classes).save(fresh, "PNG")
    fresh.replace(path)
