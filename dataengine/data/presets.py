"""Presets of known data sets, `configs/datasets/<name>.yaml`, and where to find their files on this machine."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from dataengine.data.commands import FormatName
from dataengine.data.layout import Dataset, Kind, class_key
from dataengine.data.records import MAX_CLASSES, ClassName
from dataengine.errors import UserError, first_fault, shown
from dataengine.files import read_yaml

PACKAGE = Path(__file__).parents[1]
UNUSED_FIELDS = {"image_size", "tile_size", "tile_overlap"}  # of presets of version 0.1.0


class Preset(BaseModel):
    """A known data set. `format` None means that it is recognised from its files."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    title: str
    format: str | None = None
    kind: Kind = "obb"
    classes: tuple[ClassName, ...] = Field(min_length=1, max_length=MAX_CLASSES)
    licence: str = ""
    source: str = ""
    places: tuple[str, ...] = Field((), description="folders to search; the first that exists is used")

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, values):
        """The name as default title, and without fields of version 0.1.0 that had no effect."""
        if not isinstance(values, dict):
            return values
        values = {"title": values.get("name"), **values}
        for name in UNUSED_FIELDS:
            values.pop(name, None)
        return values

    @field_validator("format")
    @classmethod
    def _known(cls, value: str | None) -> str | None:
        if value is not None and value not in get_args(FormatName):
            raise ValueError(f"{value!r} is not a known format; choose one of {', '.join(get_args(FormatName))}")
        return value

    @field_validator("classes")
    @classmethod
    def _distinct(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len({*map(class_key, value)}) != len(value):
            raise ValueError("a class is listed twice")
        return value


def configs(kind: str) -> Path:
    """The folder of packaged YAML files of a kind such as "datasets", in the package of a wheel or next to it in a
    checkout."""
    inside = PACKAGE / "configs" / kind
    return inside if inside.is_dir() else PACKAGE.parent / "configs" / kind


def config_file(kind: str, name: str) -> Path | None:
    """The packaged YAML file of that kind and name, or None."""
    file = configs(kind) / f"{name.lower()}.yaml"
    return file if os.path.isfile(file) else None


def preset_names() -> tuple[str, ...]:
    """Names of all presets."""
    return tuple(sorted(file.stem for file in configs("datasets").glob("*.yaml")))


def load_preset(name: str) -> Preset:
    """A packaged preset by name, or a preset from a YAML file. Raises UserError, with the field, for invalid ones."""
    is_file = name.endswith((".yaml", ".yml"))
    file = Path(name) if is_file else configs("datasets") / f"{name.lower()}.yaml"
    if not os.path.isfile(file):  # unlike `Path.is_file`, False for invalid names too
        if is_file:
            raise UserError(f"--dataset {file}: there is no such file; check the spelling.")
        names = ", ".join(preset_names())
        raise UserError(f"{shown(name)} is not a known data set; choose one of {names}, or give a YAML file")
    try:
        return Preset.model_validate(read_yaml(file))
    except ValidationError as error:
        raise UserError(f"{file}: {first_fault(error, Preset.model_fields)}") from None


def preset_of(dataset: Dataset, path: str | Path) -> Preset:
    """A preset for a data set without one: the name of its folder, its classes and its kind of boxes."""
    name = Path(path).resolve().stem
    return Preset(name=name, format=dataset.format, kind=dataset.kind, classes=dataset.classes, places=(str(path),))


def _places(preset: Preset) -> list[Path]:
    """Where the data set of a preset may lie: `$DATAENGINE_DATA/<name>`, then the preset's places."""
    places = list(map(Path, preset.places))
    if os.environ.get("DATAENGINE_DATA"):
        base = Path(os.environ["DATAENGINE_DATA"])
        places = [base / name for name in dict.fromkeys((preset.name, *(place.name for place in places)))] + places
    return places


def search_dataset(preset: Preset) -> Path | None:
    """The folder of a preset's data set, the first that exists of the places where it may lie; None without one."""
    return next((place for place in _places(preset) if place.is_dir()), None)


def find_dataset(preset: Preset, path: str | Path | None = None) -> Path:
    """The folder of a data set: `path`, or else `search_dataset`.

    Raises UserError with all places searched and the source of the data if there is none.
    """
    if path is not None:
        if not Path(path).exists():
            raise UserError(f"{path} does not exist; give the folder of {preset.title}")
        return Path(path)
    found = search_dataset(preset)
    if found is not None:
        return found
    places = _places(preset)
    searched = f"is in none of {', '.join(map(str, places))}" if places else "has no default folder"
    source = f", or get it from {preset.source}" if preset.source else ""
    raise UserError(f"{preset.title} {searched}; give its folder with --data{source}")


def read_dataset(
    preset: Preset, path: str | Path | None = None, format: str | None = None, *, split: str | None = None
) -> Dataset:
    """Read the data set of a preset with its class list. Samples without source and licence get those of the preset.

    If `path` has the data set in another format than the preset, that format is recognised, unless `format` states it.
    """
    from dataengine.data import dior, formats  # all readers, which a sentence about missing data does not need

    place = find_dataset(preset, path)
    stated, format = format, format or preset.format
    if stated is None and (path is not None or format is None):
        try:
            format = formats.recognize(place)
        except UserError:
            if format is None:
                raise
    if format == dior.NAME:
        dataset = dior.read(place, split=split, classes=preset.classes, kind=preset.kind)
    else:
        dataset = formats.read(place, format, split=split, classes=preset.classes)
    samples = [
        replace(sample, source=sample.source or preset.title, license=sample.license or preset.licence)
        for sample in dataset
    ]
    return replace(dataset, samples=samples, name=preset.name)
