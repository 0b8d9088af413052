"""Is a run what was made? Every checksum again, and everything that is derived from the shards against them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import numpy as np
from pydantic import ValidationError

from dataengine import geometry, weights
from dataengine.data import coco, dota, images
from dataengine.data.border import inside_image
from dataengine.data.layout import Layout, class_key
from dataengine.data.staging import MARKER
from dataengine.engine.recipe import Recipe, folder_hash
from dataengine.engine.record import Record
from dataengine.engine.run_folder import RunFolder, StoredRecipe
from dataengine.errors import UserError
from dataengine.files import lock, read_text
from dataengine.judge.calibration import Calibration, calibration_hash
from dataengine.seeds import image_seed

AGAIN = "the same `dataengine synth` command makes it again"
NEAR = 0.02  # pixels: label files are rounded to 1/10000, the manifest to 1/1000 and its angles to 1e-6


@dataclass(frozen=True)
class Fault:
    """What is wrong, in one sentence, and how to fix it."""

    message: str
    fix: str = AGAIN


@dataclass
class Findings:
    """notes: what could not be compared here, which is no fault; images: those of the manifest that were compared with
    their checksum."""

    faults: list[Fault] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    images: int = 0
    accepted: int = 0

    def add(self, message: str, fix: str = AGAIN) -> None:
        """One more fault."""
        self.faults.append(Fault(message, fix))


def verify(out: Path, progress: Callable[[int], None] = lambda images: None) -> Findings:
    """Compare a run's folder with itself, and with the parts that its recipe names as far as they are here.

    progress: called with the number of images compared so far. Raises UserError where there is no run, its recipe
    cannot be read, or a run is at work in the folder.
    """
    run = RunFolder(Path(out))
    if not run.recipe.exists():
        raise UserError(f"{run.path}: no {run.recipe.name} here; give the folder of a run of dataengine synth.")
    _refuse_while_at_work(run)
    stored, found = run.stored_recipe(), Findings()
    try:
        recipe = Recipe.model_validate(stored.recipe)
    except ValidationError as error:
        raise UserError(f"{run.recipe}: no recipe of this version ({error.errors()[0]['msg']}).") from None
    _compare_parts(run, recipe, stored, found)
    kept = {record.name: record for record in _compare_manifest(run, recipe, found, progress) if record.accepted}
    found.accepted = len(kept)
    if run.manifest.exists():
        if _compare_report(run, found):
            brought = (name for record in kept.values() for name in record.labels.classes)  # by scenes
            classes = list(dict.fromkeys((*stored.classes, *brought))) if stored.classes else None
            for module, folder in ((dota, run.dota), (coco, run.coco)):
                _compare_data_set(folder, module, "", kept, found, classes)
            if recipe.mix:
                _compare_data_set(run.mixed, coco, "synthetic/", kept, found)
        else:
            found.notes.append("this run was made without DOTA and COCO folders (--no-datasets)")
    return found


def _refuse_while_at_work(run: RunFolder) -> None:
    try:
        lock(run.lock, shared=True).close()
    except FileNotFoundError:  # a copy of the folder without hidden files
        pass
    except BlockingIOError:
        raise UserError(f"{run.path}: a run is at work in this folder; wait for it, then verify.") from None


def _compare_parts(run: RunFolder, recipe: Recipe, stored: StoredRecipe, found: Findings) -> None:
    """recipe.json against itself, the stored calibration, and the parts that lie on this machine."""
    if recipe.identity(stored.parts) != stored.identity:
        found.add(
            f"{run.recipe} was changed: it is not the recipe that its identity was taken of",
            "put recipe.json back from a copy",
        )
    if stored.calibration is None:
        found.notes.append("this run was begun before calibrations had a checksum, so its calibration was not compared")
    elif stored.calibration != "none":
        try:
            same = calibration_hash(Calibration.load(run.calibration)) == stored.calibration
        except UserError:
            same = False
        if not same:
            fix = "remove it: the same `dataengine synth` command makes it again"
            found.add(f"{run.calibration} is missing, damaged or another than the run was begun with", fix)
    for name, now in _parts_here(recipe, stored):
        if now is None:
            found.notes.append(f"the {name} of this run is not on this machine, so it was not compared")
        elif now != stored.parts[name]:
            found.add(
                f"the {name} has changed since this run was made ({now}, not {stored.parts[name]})",
                "put the earlier part back; the run stays as it is, but cannot be continued",
            )


def _parts_here(recipe: Recipe, stored: StoredRecipe) -> Iterator[tuple[str, str | None]]:
    """(name, hash of its content now) of each part that recipe.json names; None where it is not on this machine."""
    from dataengine.judge.detector import identity_of

    folders = {
        "model": recipe.model or weights.packaged(recipe.renderer),
        "layout model": recipe.layout_model,
        "scenes": weights.packaged("whole"),
    }
    for name, before in stored.parts.items():
        if before in ("none", "data"):
            continue
        if name == "detector":
            try:
                yield name, identity_of(recipe.detector or weights.packaged("detector"))  # a stranger's: never loaded
            except (UserError, OSError):
                yield name, None
        elif name == "layouts":
            yield name, _layouts_here(recipe, stored.classes)
        elif name in folders:
            folder = folders[name]
            yield name, folder_hash(folder) if folder is not None and folder.exists() else None


def _layouts_here(recipe: Recipe, classes: Sequence[str]) -> str | None:
    from dataengine.data.layout import restrict
    from dataengine.engine.parts import find_data
    from dataengine.engine.samplers import find_layouts

    named = {new: old for old, new in recipe.draw_as.items()}
    wanted = tuple(named.get(name, name) for name in classes)
    try:
        preset, dataset = find_data(recipe)
        return find_layouts(preset, restrict(dataset, wanted) if dataset is not None else None, wanted)[1]
    except UserError:
        return None


def _compare_manifest(
    run: RunFolder, recipe: Recipe, found: Findings, progress: Callable[[int], None]
) -> Iterator[Record]:
    """The records of the run's shards, up to the last one that counts, each compared with its manifest line."""
    out, manifest, finished = run.path, run.manifest, run.manifest.exists()
    lines = read_text(manifest).splitlines() if finished else []
    if not finished:
        found.add(f"{out}: this run is not finished, it has no manifest", "the same `dataengine synth` command goes on")
    present = run.present_shards()
    accepted = tried = 0
    whole = True  # else it is not known how many of the images count
    for number in range(-(-recipe.budget // recipe.shard_size)):
        expected = range(number * recipe.shard_size, min((number + 1) * recipe.shard_size, recipe.budget))
        over = expected[0] >= len(lines) and not (whole and finished)
        if accepted == recipe.n or (over and number > max(present, default=-1)):
            break
        if number not in present:
            if finished:
                found.add(f"{run.shard(number)} is missing")
            whole = False
            continue
        shard = run.examine_shard(number)
        for fault in shard.faults:
            found.add(fault)
        if [record.index for record in shard.records] != list(expected):
            whole = False
            if not shard.faults:
                found.add(f"{run.shard(number)} does not hold images {expected[0]} to {expected[-1]}")
            continue
        for line, record in zip(shard.lines, shard.records, strict=True):
            if accepted == recipe.n:
                break
            if record.seed != image_seed(recipe.seed, record.index):
                found.add(f"{out}: image {record.index} was not made from this run's seed", "give another --out")
            tried = record.index + 1
            if finished and not (tried <= len(lines) and lines[tried - 1] == line):
                found.add(f"{manifest}: line {tried} is missing, cut off or not what the shard says")
            accepted += record.accepted
            found.images += 1
            yield record
        progress(found.images)
    if whole and len(lines) > tried:
        found.add(f"{manifest} has {len(lines) - tried} lines more than this run has images")


def _compare_data_set(
    folder: Path,
    module: ModuleType,
    prefix: str,
    kept: dict[str, Record],
    found: Findings,
    classes: Sequence[str] | None = None,
) -> None:
    """A written data set against the accepted images: all there, nothing else, pixels and boxes the same; and
    against the run's classes where they are given."""
    if not kept:
        if folder.exists():
            found.add(f"{folder} is there, though no image was accepted")
        return
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            dataset = module.read(folder)
    except UserError as error:
        found.add(f"{folder} cannot be read: {error}")
        return
    for problem in dataset.problems:
        found.add(str(problem))
    if classes is not None and list(dataset.classes) != list(classes):
        found.add(f"{folder} has the classes {', '.join(dataset.classes)}, the run {', '.join(classes)}")
    samples = {s.name.removeprefix(prefix): s for s in dataset if s.name.startswith(prefix)}
    for name in sorted(kept.keys() - samples.keys()):
        found.add(f"{folder} lacks image {name}, which was accepted")
    for name in sorted(samples.keys() - kept.keys()):
        found.add(f"{folder} holds image {name}, which was not accepted")
    for name in sorted(samples.keys() & kept.keys()):
        sample, one = samples[name], kept[name]
        if hashlib.sha256(sample.image.read_bytes()).hexdigest() != one.sha256:
            found.add(f"{sample.image} is not the image that the shard holds")
        difference = _difference(sample.layout, inside_image(one.labels)[0])
        if difference:
            found.add(f"{folder}: of image {name}, {difference} the manifest's")
    if not prefix:
        own = {"classes.txt", MARKER, "train.json"} | {f"{name}{end}" for name in kept for end in (".png", ".txt")}
        for file in sorted(f for f in folder.rglob("*") if f.is_file() and f.name not in own):
            found.add(f"{file} does not belong to this run")


def _difference(written: Layout, kept: Layout) -> str:
    """What of a written layout is not as it was kept; "" where nothing is."""
    if len(written) != len(kept):
        return f"{len(written)} objects are written, which are not"
    if [class_key(name) for name in written.names()] != [class_key(name) for name in kept.names()]:
        return "the class names are not"
    if not np.array_equal(written.difficult, kept.difficult):
        return "the marks of difficult objects are not"
    a, b = geometry.to_corners(written.boxes), geometry.to_corners(kept.boxes)  # (N, 4, 2)
    # a square's corners may begin anywhere
    far = np.min([np.abs(a - np.roll(b, turn, axis=1)).max((1, 2)) for turn in range(4)], axis=0) if len(a) else a
    return "the boxes are not" if (far > NEAR).any() else ""


def _compare_report(run: RunFolder, found: Findings) -> bool:
    """Whether the run was made with data sets; yes where nothing says so."""
    try:
        report = json.loads(read_text(run.report))
        stated = report["accepted"]
    except (UserError, ValueError, KeyError, TypeError, RecursionError):
        found.add(f"{run.report} is missing or damaged")
        return True
    if stated != found.accepted:
        found.add(f"{run.report} counts {stated} accepted images, the shards of {found.accepted}")
    for sheet in [run.kept_sheet] * (found.accepted > 0) + [run.dropped_sheet] * (report.get("tried") != stated):
        try:
            images.decode(sheet)
        except ValueError as error:
            found.add(f"{sheet}: {error}")
    return report.get("datasets") is not False
