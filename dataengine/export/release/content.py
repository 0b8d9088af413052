"""`release.json`: what a release says of itself, and what of that follows from the records of its images."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dataengine.engine.picture_recipe import recipe_of
from dataengine.engine.record import Record
from dataengine.errors import UserError, first_fault
from dataengine.export.release.archives import MIN_ARCHIVE_BYTES
from dataengine.export.release.card import limits
from dataengine.export.release.finished_run import FinishedRun
from dataengine.export.release.labels import FORMATS
from dataengine.export.release.licenses import LICENSES, License, Source, conflicts
from dataengine.files import parse_json, read_text

CONTENT = "release.json"
RECORDS = "records"  # the folder of the images' records, a file for each split
LIBRARIES = {  # which write these files in one form or another by their version
    "README.md": ("huggingface_hub", "jinja2"),
    "croissant.json": ("mlcroissant",),
    "samples.jpg": ("pillow",),
}
NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}"
VERSION = r"\d+\.\d+\.\d+"
DATE = r"\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])"
USED_SETTINGS = {"dataset", "data", "filter", "model", "seed"}  # of the recipe, which follow into other files
Split = Literal["train", "val"]
Count = Annotated[int, Field(ge=0)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class _LeftOut(_Strict):
    leaks: Count
    copies: Count
    outside: Count


class _ByHand(_Strict):
    rejected: Count
    accepted: Count
    corrected: Count
    objects: Count


class _ClassRow(_Strict):
    name: str
    asked: Count
    found: Count
    erased: Count = 0
    kept: Count
    difficult: Count


class _Report(_Strict):
    accepted: Count
    tried: Count
    acceptance: float
    dropped_for: dict[str, Count]
    classes: list[_ClassRow]


class _Calibration(_Strict):
    images: Count
    pass_share: float
    shuffled_pass_share: float
    smudged_pass_share: float


class _Source(_Strict):
    what: str
    name: str
    license: str
    url: str


class _Parts(_Strict):
    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, str]
    model: str
    layouts: str


class Content(_Strict):
    """The fields of `release.json`. splits, objects: number of images, and of objects of each class, in each split.
    group: the regular expression of --group, which is never compiled again. archive_size: bytes of the largest archive
    that was asked for. records: SHA-256 of `records/<split>.jsonl`. libraries: versions that LIBRARIES names. by_hand:
    numbers of a person's decisions, left out where there are none."""

    name: Annotated[str, Field(pattern=f"^{NAME}$")]
    version: Annotated[str, Field(pattern=f"^{VERSION}$")]
    date: Annotated[str, Field(pattern=f"^{DATE}$")] | None
    license: Literal[*LICENSES]
    synthetic: Literal[True]
    dataengine: str
    libraries: dict[str, str]
    classes: Annotated[list[str], Field(min_length=1)]
    kind: Literal["hbb", "obb"]
    formats: Annotated[list[Literal[*FORMATS]], Field(min_length=1)]
    splits: dict[Split, Annotated[int, Field(gt=0)]]
    objects: dict[Split, dict[str, Count]]
    val: Annotated[float, Field(ge=0, le=0.5)]
    group: str | None
    left_out: _LeftOut
    recipe: dict
    parts: _Parts
    identity: str
    sources: list[_Source]
    against_licenses: list[str]
    copies: list[dict]
    limits: list[str]
    report: _Report
    calibration: _Calibration | None
    archive_size: Annotated[int, Field(ge=MIN_ARCHIVE_BYTES)] | None
    records: dict[Split, Sha256]
    by_hand: _ByHand | None = None


def by_hand(records: Sequence[Record], rejected: int) -> dict:
    """{"by_hand": numbers of a person's decisions on the released images, and of images rejected}, {} without any.

    rejected: images that the filter had kept. accepted: images that it had dropped. corrected: images with other labels
    than in the manifest. objects: labels of these that were moved, renamed, marked difficult, added or removed.
    """
    decided = [record.by_hand for record in records if record.by_hand is not None]
    if not (decided or rejected):
        return {}
    return {
        "by_hand": {
            "rejected": rejected,
            "accepted": sum(one.accepted is True and one.dropped_for != "" for one in decided),
            "corrected": sum(bool(one.changed or one.removed) for one in decided),
            "objects": sum(len(one.changed) + one.removed for one in decided),
        }
    }


def figures(run: FinishedRun) -> dict:
    """What the card says of a run's report and calibration, as in `release.json`. Raises UserError where a figure is
    missing."""
    try:
        report = {name: run.report[name] for name in _Report.model_fields}
        calibration = run.calibration and {name: run.calibration[name] for name in _Calibration.model_fields}
    except KeyError as error:
        raise UserError(
            f"{run.folder}: the run is damaged (no {error}); repair it with the same dataengine synth command."
        ) from None
    return {"report": report, "calibration": calibration}


def libraries() -> dict[str, str]:
    """Versions of the libraries that write a release's files."""
    return {name: version(name) for names in LIBRARIES.values() for name in names}


def follows(run: FinishedRun, splits: dict[str, list[Record]], license: License, val: float, formats) -> dict:
    """The fields of `release.json` that follow from records, sources and options."""
    return {
        "splits": {split: len(part) for split, part in splits.items()},
        "objects": {split: _counts(run, part) for split, part in splits.items()},
        "against_licenses": conflicts(run.sources, license),
        "limits": limits(run, splits, val, formats),
    }


def _counts(run: FinishedRun, records: Sequence[Record]) -> dict[str, int]:
    """Number of objects of each class."""
    labels = np.concatenate([run.labels(record).labels for record in records])
    return dict(zip(run.classes, np.bincount(labels, minlength=len(run.classes)).tolist(), strict=True))


def to_text(content: dict) -> str:
    """The text of `release.json`."""
    return json.dumps(content, indent=2) + "\n"


def read_content(folder: Path) -> dict:
    """What `release.json` says. Raises UserError for anything but what this version writes."""
    file = folder / CONTENT
    try:
        content = parse_json(read_text(file))
        if isinstance(content, dict) and RECORDS not in content:
            raise UserError(
                f"{file}: made by an earlier version, which did not keep the records that its images, labels and card "
                "follow from; verify it with that version, or make the release again."
            )
        Content.model_validate(content)
        recipe_of(content["recipe"])
        if missing := sorted(USED_SETTINGS - content["recipe"].keys()):
            raise ValueError(f"has no {', '.join(missing)} in its recipe")
    except ValidationError as error:
        raise UserError(f"{file} is damaged: {first_fault(error)}; make the release again.") from None
    except ValueError as error:
        raise UserError(f"{file} is damaged: it {error}; make the release again.") from None
    if not content["splits"].keys() == content["objects"].keys() == content["records"].keys():
        raise UserError(f"{file} is damaged: it does not say the same splits everywhere; make the release again.")
    return content


def as_run(folder: Path, content: dict, records: list[Record]) -> FinishedRun:
    """The run that was released, as far as a release knows it."""
    return FinishedRun(
        folder, content["recipe"], content["parts"], content["identity"], content["report"], content["calibration"],
        records, tuple(content["classes"]), content["kind"], [Source(**source) for source in content["sources"]],
        content["dataengine"],
    )  # fmt: skip


def source_values(run: FinishedRun) -> list[dict]:
    """The sources of a run as plain values."""
    return [asdict(source) for source in run.sources]
