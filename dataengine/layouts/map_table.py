"""What objects are on a map, and how large: configs/maps/objects.yaml."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from dataengine.data.layout import model_key
from dataengine.data.presets import config_file
from dataengine.errors import UserError, first_fault
from dataengine.files import read_yaml

Tags = dict[str, tuple[str, ...]]
Limits = tuple[float, float]
Place = Literal["road", "parking", "path", "rail", "pier", "water", "apron", "helipad"]


class _Rule(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Mapped(_Rule):
    """A thing that is on the map itself; the fields are explained at the head of the table."""

    areas: Tags = {}
    points: Tags = {}
    lines: Tags = {}
    closed: Tags = {}
    rings: Tags = {}
    require: Tags = {}
    crossing: Literal["water", "road"] | None = None
    unit: Limits | None = None
    size: Limits | None = None
    size_tag: str = ""
    width: float = 3.0
    join: float = 0.0
    length: Limits

    @model_validator(mode="after")
    def _points_have_a_size(self) -> Mapped:
        if self.points and self.size is None and not self.size_tag:
            raise ValueError("points need a size or a size_tag")
        return self


class Standing(_Rule):
    """A thing that stands on the map."""

    places: tuple[Place, ...]
    length: Limits
    aspect: Limits


class MapObjects(_Rule):
    """The table, by `model_key` of the class."""

    mapped: dict[str, Mapped]
    standing: dict[str, Standing]


@cache
def map_objects() -> MapObjects:
    """The packaged table. Raises UserError, with the field, if it was damaged."""
    file = config_file("maps", "objects")
    if file is None:
        raise UserError("this installation has no configs/maps/objects.yaml; reinstall dataengine.")
    try:
        table = MapObjects.model_validate(read_yaml(file))
    except ValidationError as error:
        raise UserError(f"{file}: {first_fault(error, [*Mapped.model_fields, *Standing.model_fields])}") from None
    return MapObjects(
        mapped={model_key(name): rule for name, rule in table.mapped.items()},
        standing={model_key(name): rule for name, rule in table.standing.items()},
    )


def on_maps(classes: Sequence[str]) -> tuple[str, ...]:
    """Those of the classes that a map can give.

    >>> on_maps(["tennis-court", "Plane", "small vehicle", "unicorn"])
    ('tennis-court', 'Plane', 'small vehicle')
    """
    table = map_objects()
    return tuple(name for name in classes if model_key(name) in table.mapped | table.standing)
