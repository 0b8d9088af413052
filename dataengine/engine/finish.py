"""What is written when a run has enough images: manifest, DOTA and COCO data sets, contact sheets, report."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from dataengine.data import coco, dota
from dataengine.data.draw import contact_sheet, draw
from dataengine.data.layout import Dataset, Sample
from dataengine.data.layout_json import layout_from_json
from dataengine.data.restrict import restrict_layout
from dataengine.engine.parts import Parts
from dataengine.engine.recipe import Recipe
from dataengine.files import write_whole

ON_SHEET = 36


@dataclass(frozen=True)
class ClassRow:
    """asked: objects in the layouts of all attempts; found: those the filter's detector found; kept: objects in
    accepted images, of which `difficult` are marked so."""

    name: str
    asked: int
    found: int
    kept: int
    difficult: int


def class_table(records: list[dict], calibration, classes: tuple[str, ...]) -> list[ClassRow]:
    """Acceptance per class, in class order; a class that was never asked for has zeros."""
    asked, found, kept, difficult = Counter(), Counter(), Counter(), Counter()
    for record in records:
        labels = record["labels"]
        names = [labels["classes"][i] for i in labels["labels"]]
        # the objects asked for come first; those that the scene held before, and repaired ones, follow
        judged = names[: len(record["asked"]["labels"])]
        asked.update(judged)
        scores = zip(judged, record["verdict"]["scores"], strict=False)
        if calibration is not None:
            found.update(name for name, score in scores if score >= calibration.thresholds.get(name, np.inf))
        if record["verdict"]["kept"]:
            kept.update(names)
            difficult.update(name for name, d in zip(names, labels["difficult"], strict=True) if d)
    every = dict.fromkeys((*classes, *asked))
    return [ClassRow(n, asked[n], found[n], kept[n], difficult[n]) for n in every]


def report(recipe: Recipe, parts: Parts, records: list[dict]) -> dict:
    """Figures of a run as plain values."""
    kept = [record for record in records if record["verdict"]["kept"]]
    reasons = Counter(" ".join(r["verdict"]["reason"].split()[-3:]) for r in records if not r["verdict"]["kept"])
    table = class_table(records, parts.calibration, parts.classes)
    return {
        "wanted": recipe.n,
        "accepted": len(kept),
        "tried": len(records),
        "acceptance": round(len(kept) / max(1, len(records)), 4),
        "classes": [vars(row) for row in table],
        "never_kept": [row.name for row in table if not row.kept],
        "dropped_for": dict(reasons.most_common()),
        "real_images_that_would_pass": parts.calibration.pass_share if parts.calibration else None,
        "unreadable_scenes": sorted({name for record in records for name in record["unreadable_scenes"]}),
        "notes": parts.notes,
    }


def finish(recipe: Recipe, parts: Parts, out: Path, records: list[dict]) -> None:
    """Write everything that is derived from the shards. Can be broken off and repeated."""
    samples = [
        Sample(f"{record['index']:08d}", out / record["image"], layout_from_json(record["labels"]), "dataengine", "")
        for record in records
        if record["verdict"]["kept"]
    ]
    classes = tuple(dict.fromkeys((*parts.classes, *(name for s in samples for name in s.layout.classes))))
    kind = samples[0].layout.kind if samples else parts.preset.kind
    dataset = Dataset(
        classes, [_with_classes(s, classes) for s in samples], kind, name=f"synthetic {parts.preset.name}"
    )
    for module, name in ((dota, "dota"), (coco, "coco")):
        shutil.rmtree(out / name, ignore_errors=True)
        if samples:
            module.write(dataset, out / name, split="train")
    shutil.rmtree(out / "mixed", ignore_errors=True)
    if samples and parts.real is not None:
        coco.write(mixed(parts.real, dataset), out / "mixed", split="train")
    for kept, name in ((True, "kept.png"), (False, "dropped.png")):
        _sheet(out, [r for r in records if r["verdict"]["kept"] == kept], classes, out / name)
    write_whole(out / "report.json", json.dumps(report(recipe, parts, records), indent=2) + "\n")
    write_whole(out / "manifest.jsonl", "".join(json.dumps(record) + "\n" for record in records))


def mixed(real: Dataset, synthetic: Dataset) -> Dataset:
    """Real and synthetic images as one data set, as AeroGen trains its detectors; names say which is which."""
    classes = tuple(dict.fromkeys((*real.classes, *synthetic.classes)))
    samples = [replace(_with_classes(s, classes), name=f"real/{s.name}") for s in real]
    samples += [replace(_with_classes(s, classes), name=f"synthetic/{s.name}") for s in synthetic]
    return Dataset(classes, samples, synthetic.kind, name=f"{real.name} with synthetic images")


def _with_classes(sample: Sample, classes: tuple[str, ...]) -> Sample:
    layout = sample.layout
    labels = np.array([classes.index(name) for name in layout.names()], np.int64)
    return replace(sample, layout=replace(layout, labels=labels, classes=classes))


def _sheet(out: Path, records: list[dict], classes: tuple[str, ...], path: Path) -> None:
    """Contact sheet of pictures with their boxes, spread evenly over the run; the reason below where there is one."""
    if not records:
        path.unlink(missing_ok=True)
        return
    chosen = [records[i] for i in np.unique(np.linspace(0, len(records) - 1, ON_SHEET).astype(int))]
    pictures = []
    for record in chosen:
        with Image.open(out / record["image"]) as image:
            pictures.append(draw(image, restrict_layout(layout_from_json(record["labels"]), classes)))
    captions = [record["verdict"]["reason"] or f"{record['index']:08d}" for record in chosen]
    fresh = path.with_name(f".{path.name}")
    contact_sheet(pictures, captions, classes=classes).save(fresh, "PNG")
    fresh.replace(path)
