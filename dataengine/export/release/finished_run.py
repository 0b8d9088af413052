"""A finished run as a release needs it: accepted images with their labels, and whose data went into them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from dataengine import weights
from dataengine.data.images import named_file
from dataengine.data.layout import Kind, Layout, layout_from_json, restrict_layout
from dataengine.data.presets import Preset, load_preset
from dataengine.engine.manifest import MANIFEST, read_manifest
from dataengine.errors import UserError
from dataengine.export.release.licenses import Source
from dataengine.files import read_text
from dataengine.render.scene import GENERATED

# whatever records trip that are none, and names that no file can have
BROKEN = (
    ValueError, TypeError, LookupError, AttributeError, AssertionError, OverflowError, RecursionError, OSError,
)  # fmt: skip
NEEDED = ("layout_from", "scene_license", "scene_source")  # of each record; runs of earlier versions lack them


@dataclass(frozen=True)
class FinishedRun:
    """recipe, parts, report, calibration: as the run stored them, paths shortened to their last part. records: manifest
    lines of the accepted images. classes: those of the run, then others that its images show."""

    folder: Path
    recipe: dict
    parts: dict[str, str]
    identity: str
    report: dict
    calibration: dict | None
    records: list[dict]
    classes: tuple[str, ...]
    kind: Kind
    sources: list[Source]

    @property
    def name(self) -> str:
        """The data set that the run was made like."""
        return str(self.recipe["dataset"] or self.recipe["data"]).removesuffix(".yaml")

    def labels(self, record: dict) -> Layout:
        """Labels of an accepted image, in the numbering of `classes`. Raises UserError where they are damaged."""
        try:
            return restrict_layout(layout_from_json(record["labels"]), self.classes)
        except BROKEN:
            raise UserError(
                f"{self.folder}: the labels of image {record.get('index')} are damaged; dataengine run verify says "
                "more, and the same dataengine synth command mends it."
            ) from None


def read_run(folder: Path, source_license: str = "") -> FinishedRun:
    """Read a run folder of `dataengine synth`.

    source_license: of all that went in and does not say its own. Raises UserError for a folder that holds no run, or
    one that is not finished, damaged, of an earlier version, or without accepted images.
    """
    if not (folder / "recipe.json").exists():
        raise UserError(f"{folder}: no run of dataengine synth; give the folder that has recipe.json in it.")
    if not (folder / MANIFEST).exists() or not (folder / "report.json").exists():
        raise UserError(f"{folder}: the run is not finished; continue it with the same dataengine synth command.")
    try:
        return _read(folder, source_license)
    except BROKEN as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise UserError(
            f"{folder}: the run is damaged ({reason}); the same dataengine synth command mends it."
        ) from None


def _read(folder: Path, source_license: str) -> FinishedRun:
    stored = json.loads(read_text(folder / "recipe.json"))
    recipe, parts, identity, own = (stored[key] for key in ("recipe", "parts", "identity", "classes"))
    report = json.loads(read_text(folder / "report.json"))
    calibration = folder / "calibration.json"
    calibration = json.loads(read_text(calibration)) if calibration.exists() else None
    accepted = (record for record in read_manifest(folder / MANIFEST) if record["verdict"]["kept"])
    records = [_licensed(record, source_license) for record in accepted]
    if not records:
        raise UserError(f"{folder}: no image of this run was accepted, so there is nothing to release.")
    if lacking := [name for name in NEEDED if any(name not in record for record in records)]:
        raise UserError(
            f"{folder}: made by an earlier version, which did not store {', '.join(lacking)} of each image, so nothing "
            "says what must stay together; make the run again."
        )
    for record in records:  # a manifest from elsewhere may name any file of this machine
        named_file(folder, [folder], record["image"])
    classes = tuple(dict.fromkeys((*own, *(name for record in records for name in record["labels"]["classes"]))))
    return FinishedRun(
        folder, {key: _shortened(value) for key, value in recipe.items()}, parts, identity, report, calibration,
        records, classes, records[0]["labels"]["kind"], _sources(recipe, records, source_license),
    )  # fmt: skip


def is_generated(record: dict) -> bool:
    """Whether every pixel of an image is generated; else objects were painted into a real picture."""
    return not record["scene"] or record["scene"].startswith(GENERATED)


def _licensed(record: dict, source_license: str) -> dict:
    """The record with the scene's licence, as the user stated it where the run knows none."""
    stated = "" if is_generated(record) else source_license
    return {**record, "scene_license": record.get("scene_license") or stated} if "scene_license" in record else record


def _sources(recipe: dict, records: list[dict], source_license: str) -> list[Source]:
    """All that went into the images, each once: models, layouts, scenes. The filter's detector did but judge."""
    preset = _preset(recipe)
    known = (preset.licence, preset.source) if preset is not None else ("", "")
    title = preset.title if preset is not None else Path(recipe["data"]).name
    found = [_model("renderer", recipe["model"], recipe["renderer"], source_license)]
    if any(record["scene"].startswith(GENERATED) for record in records):
        found.append(_model("scene renderer", None, "whole", source_license))
    if recipe["layout_model"] is not None:
        found.append(_model("layout model", recipe["layout_model"], "", source_license))
    license = known[0] or _own_license(recipe, records) or source_license
    found.append(Source("layouts", title, license, known[1]))
    if recipe.get("strength", 1) < 1:
        found.append(Source("real objects to begin from", title, license, known[1]))
    for record in records:
        if not is_generated(record):
            name = record["scene_source"] or Path(recipe["scenes"] or recipe["into"] or recipe["data"] or title).name
            url = known[1] if name == title else ""
            found.append(Source("scenes", name, record["scene_license"], url))
    return list(dict.fromkeys(found))


def _own_license(recipe: dict, records: list[dict]) -> str:
    """The one licence that the images of --data carry where scenes are of them, too; "" where they do not say so."""
    if recipe["scenes"] or recipe["into"]:
        return ""
    licenses = {record["scene_license"] for record in records if not is_generated(record)}
    return licenses.pop() if len(licenses) == 1 else ""


def _model(what: str, folder: str | None, packaged: str, source_license: str) -> Source:
    """A model with the licence in the front matter of its card."""
    place = weights.packaged(packaged) if folder is None else Path(folder)
    name = f"dataengine's packaged {packaged} model" if folder is None else place.name
    card = place / "README.md"
    license = ""
    if card.is_file():
        from huggingface_hub import ModelCard

        try:
            license = ModelCard(read_text(card)).data.license or ""
        except ValueError:  # front matter that is no YAML: as if it said nothing
            license = ""
    return Source(what, name, license if isinstance(license, str) and license else source_license)


def _preset(recipe: dict) -> Preset | None:
    """The data set's preset, None for one without. A file of one's own may be gone, with what it said."""
    try:
        return load_preset(recipe["dataset"]) if recipe["dataset"] is not None else None
    except UserError:
        return None


def _shortened(value):
    """A path without its folders, which are nobody else's business."""
    return Path(value).name if isinstance(value, str) and ("/" in value or "\\" in value) else value
