"""Known data sets: `configs/datasets/<name>.yaml`, validated on load, and where to find them on this machine."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from dataengine.data import dior, formats
from dataengine.data.layout import Dataset, Kind, class_key
from dataengine.errors import UserError, first_fault, shown
from dataengine.files import read_yaml

PACKAGE = Path(__file__).parents[1]


class Preset(BaseModel):
    """A known data set. `image_size` is None where sizes differ; `tile_size` is None where images need no tiling;
    `format` is None where it is to be recognised."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    title: str
    format: str | None = None
    kind: Kind = "obb"
    classes: tuple[str, ...] = Field(min_length=1)
    image_size: tuple[int, int] | None = None
    tile_size: int | None = Field(None, gt=0)
    tile_overlap: int = Field(0, ge=0)
    licence: str = ""
    source: str = ""
    places: tuple[str, ...] = Field((), description="folders to look in, the first that exists is taken")

    @model_validator(mode="before")
    @classmethod
    def _titled(cls, values):
        return {"title": values.get("name"), **values} if isinstance(values, dict) else values

    @field_validator("format")
    @classmethod
    def _known(cls, value: str | None) -> str | None:
        if value is not None and value not in formats.FORMATS:
            raise ValueError(f"{value!r} is no known format; choose one of {', '.join(formats.FORMATS)}")
        return value

    @field_validator("classes")
    @classmethod
    def _distinct(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len({class_key(name) for name in value}) != len(value):
            raise ValueError("a class is listed twice")
        return value


def configs(kind: str) -> Path:
    """The folder of packaged YAML files of a kind, such as "datasets": inside the package in a wheel, beside it in a
    checkout."""
    inside = PACKAGE / "configs" / kind
    return inside if inside.is_dir() else PACKAGE.parent / "configs" / kind


def config_file(kind: str, name: str) -> Path | None:
    """The packaged YAML file of that name, None where there is none."""
    file = configs(kind) / f"{name.lower()}.yaml"
    return file if os.path.isfile(file) else None


def preset_names() -> tuple[str, ...]:
    """Names of all presets."""
    return tuple(sorted(file.stem for file in configs("datasets").glob("*.yaml")))


def load_preset(name: str) -> Preset:
    """A preset by its name, or from a YAML file of your own. Raises `UserError` that names the field at fault."""
    own = name.endswith((".yaml", ".yml"))
    file = Path(name) if own else configs("datasets") / f"{name.lower()}.yaml"
    if not os.path.isfile(file):  # unlike `Path`, not troubled by a name that is none
        if own:
            raise UserError(f"--dataset {file}: there is no such file; check the spelling.")
        raise UserError(
            f"{shown(name)} is no known data set; choose one of {', '.join(preset_names())}, or give a YAML file"
        )
    try:
        return Preset.model_validate(read_yaml(file))
    except ValidationError as error:
        raise UserError(f"{file}: {first_fault(error, Preset.model_fields)}") from None


def preset_of(dataset: Dataset, path: str | Path) -> Preset:
    """A preset for a data set that has none: named for its folder, with its own classes and kind of boxes."""
    name = Path(path).resolve().stem
    return Preset(name=name, format=dataset.format, kind=dataset.kind, classes=dataset.classes, places=(str(path),))


def find_dataset(preset: Preset, path: str | Path | None = None) -> Path:
    """Where the data set lies: `path`, else `$DATAENGINE_DATA/<name>`, else the first of the preset's places.

    Raises `UserError` that lists every place looked at, and where to get the data.
    """
    if path is not None:
        if not Path(path).exists():
            raise UserError(f"{path} does not exist; give the folder of {preset.title}")
        return Path(path)
    places = [Path(place) for place in preset.places]
    if os.environ.get("DATAENGINE_DATA"):
        base = Path(os.environ["DATAENGINE_DATA"])
        places = [base / name for name in dict.fromkeys((preset.name, *(place.name for place in places)))] + places
    for place in places:
        if place.is_dir():
            return place
    looked = f"is in none of {', '.join(map(str, places))}" if places else "has no place where it is looked for"
    source = f", or get it from {preset.source}" if preset.source else ""
    raise UserError(f"{preset.title} {looked}; give its folder with --data{source}")


def read_dataset(preset: Preset, path: str | Path | None = None, *, split: str | None = None) -> Dataset:
    """Read a preset's data set with its class list, licence and source; what a sample says of itself comes first.

    A `path` may hold the data set converted to another format, which is recognised.
    """
    place = find_dataset(preset, path)
    format = preset.format
    if path is not None or format is None:
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
