"""A finished run as input of a release: accepted images with their labels, and the sources of models and data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dataengine import __version__, weights
from dataengine.data.border import inside_image
from dataengine.data.layout import Kind, Layout, restrict_layout
from dataengine.data.presets import Preset, load_preset
from dataengine.engine.record import MALFORMED, Record
from dataengine.engine.run_folder import RunFolder
from dataengine.errors import UserError
from dataengine.export.release.licenses import Source
from dataengine.files import parse_json, read_text


@dataclass(frozen=True)
class FinishedRun:
    """recipe, parts, report, calibration: as stored in the run, with paths shortened to their last part. records: the
    accepted images, after what a person decided. classes: those of the run, then any others in its images. version: of
    dataengine, as the release states it. rejected: images that the filter kept and a person rejected."""

    folder: Path
    recipe: dict
    parts: dict[str, str]
    identity: str
    report: dict
    calibration: dict | None
    records: list[Record]
    classes: tuple[str, ...]
    kind: Kind
    sources: list[Source]
    version: str = __version__
    rejected: int = 0

    @property
    def name(self) -> str:
        """Name of the real data set that the run imitates."""
        return str(self.recipe["dataset"] or self.recipe["data"]).removesuffix(".yaml")

    def labels(self, record: Record) -> Layout:
        """Labels of an accepted image, numbered in `classes`: what its border leaves of them."""
        return inside_image(restrict_layout(record.labels, self.classes))[0]

    def outside(self, records: Sequence[Record]) -> int:
        """How many objects of these images are not released, since they lie outside their image."""
        return sum(len(inside_image(restrict_layout(record.labels, self.classes))[1]) for record in records)


def read_run(folder: Path, source_license: str = "") -> FinishedRun:
    """Read a run folder of `dataengine synth`.

    source_license: of all sources without a stated licence. Raises UserError for a folder without a run, and for a run
    that is unfinished, damaged, of an earlier version, or without accepted images.
    """
    run = RunFolder(folder)
    if not run.recipe.exists():
        raise UserError(f"{folder}: no run of dataengine synth; give a folder with {run.recipe.name}.")
    if not run.manifest.exists() or not run.report.exists():
        raise UserError(f"{folder}: the run is not finished; continue it with the same dataengine synth command.")
    stored = run.stored_recipe()
    records, rejected = [], 0
    for record in run.decided():
        by_hand = record.by_hand
        rejected += by_hand is not None and by_hand.accepted is False and not by_hand.dropped_for
        if record.accepted:
            records.append(_licensed(record, source_license))
    if not records:
        raise UserError(f"{folder}: no image of this run was accepted, so there is nothing to release.")
    if any(record.layout_from is None for record in records):
        raise UserError(
            f"{folder}: made by an earlier version, which did not store layout_from of each image, so related images "
            "cannot be kept in one split; make the run again."
        )
    try:
        for record in records:  # a manifest from elsewhere may name any file of this machine
            run.image(record)
        report = _object(run.report)
        calibration = _object(run.calibration) if run.calibration.exists() else None
        sources = _sources(stored.recipe, records, source_license)
    except (*MALFORMED, OSError) as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise UserError(
            f"{folder}: the run is damaged ({reason}); repair it with the same dataengine synth command."
        ) from None
    classes = tuple(dict.fromkeys((*stored.classes, *(name for record in records for name in record.labels.classes))))
    recipe = {key: _shortened(value) for key, value in stored.recipe.items()}
    return FinishedRun(
        folder, recipe, stored.parts, stored.identity, report, calibration, records, classes, records[0].labels.kind,
        sources, rejected=rejected,
    )  # fmt: skip


def _object(file: Path) -> dict:
    """A JSON file that holds an object."""
    value = parse_json(read_text(file))
    if not isinstance(value, dict):
        raise ValueError(f"{file.name} holds no object")
    return value


def _licensed(record: Record, source_license: str) -> Record:
    """The record with `source_license` where a real scene has no licence."""
    scene = record.provenance
    if scene.generated or scene.license:
        return record
    return replace(record, provenance=replace(scene, license=source_license))


def _sources(recipe: dict, records: list[Record], source_license: str) -> list[Source]:
    """Sources of the images, each once: models, layouts, scenes. The filter's detector adds nothing to an image."""
    preset = _preset(recipe)
    known = (preset.licence, preset.source) if preset is not None else ("", "")
    title = preset.title if preset is not None else Path(recipe["data"]).name
    sources = [_model("renderer", recipe["model"], recipe["renderer"], source_license)]
    if any(record.provenance.kind == "generated" for record in records):
        sources.append(_model("scene renderer", None, "whole", source_license))
    if recipe["layout_model"] is not None:
        sources.append(_model("layout model", recipe["layout_model"], "", source_license))
    license = known[0] or _own_license(recipe, records) or source_license
    sources.append(Source("layouts", title, license, known[1]))
    if recipe.get("strength", 1) < 1:
        sources.append(Source("repainted real objects", title, license, known[1]))
    for record in records:
        scene = record.provenance
        if not scene.generated:
            name = scene.source or Path(recipe["scenes"] or recipe["into"] or recipe["data"] or title).name
            sources.append(Source("scenes", name, scene.license, known[1] if name == title else ""))
    return list(dict.fromkeys(sources))


def _own_license(recipe: dict, records: list[Record]) -> str:
    """The licence of the images of --data, where all scenes come from them and have the same licence; else ""."""
    if recipe["scenes"] or recipe["into"]:
        return ""
    licenses = {record.provenance.license for record in records if not record.provenance.generated}
    return licenses.pop() if len(licenses) == 1 else ""


def _model(what: str, folder: str | None, packaged: str, source_license: str) -> Source:
    """A model with the licence stated in its card."""
    place = weights.packaged(packaged) if folder is None else Path(folder)
    name = f"dataengine's packaged {packaged} model" if folder is None else place.name
    card = place / "README.md"
    license = ""
    if card.is_file():
        from huggingface_hub import ModelCard

        try:
            license = ModelCard(read_text(card)).data.license or ""
        except ValueError:  # front matter that is not YAML counts as none
            license = ""
    return Source(what, name, license if isinstance(license, str) and license else source_license)


def _preset(recipe: dict) -> Preset | None:
    """The data set's preset; None without one, or where the user's file is gone."""
    try:
        return load_preset(recipe["dataset"]) if recipe["dataset"] is not None else None
    except UserError:
        return None


def _shortened(value):
    """A path without its folders, which are private."""
    return Path(value).name if isinstance(value, str) and ("/" in value or "\\" in value) else value
