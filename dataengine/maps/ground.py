"""Classes of the ground: which features of a map are road, water or forest, and how wide its lines are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import shapely
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dataengine.data.presets import config_file
from dataengine.errors import UserError, first_fault
from dataengine.files import read_yaml
from dataengine.maps.features import MapFeature
from dataengine.maps.tags import count, metres

UNMAPPED = "unmapped"  # ground of which the map says nothing; the class of number 0
ROAD, RAIL = "road", "rail"
Values = tuple[str, ...] | str


class GroundClass(BaseModel):
    """areas: {key: values} of polygons, "*" for any. lines: {key: {value: width in metres}}. direction: whether its
    lines give the raster a direction. colour: red, green, blue of the drawn raster, 0 to 255."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    colour: tuple[int, int, int]
    areas: dict[str, Values] = {}
    lines: dict[str, dict[str, float]] = {}
    direction: bool = False


class Ground(BaseModel):
    """A table such as configs/maps/osm.yaml. classes: in the order of painting, later ones on top. hidden: tags of what
    is not seen from above."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    classes: dict[str, GroundClass] = Field(min_length=1)
    hidden: dict[str, Values] = {}
    lane_width_m: float = Field(3.25, gt=0)

    @property
    def names(self) -> tuple[str, ...]:
        """Names by number: `UNMAPPED`, then those of the table."""
        return (UNMAPPED, *self.classes)

    def visible(self, feature: MapFeature) -> bool:
        """Whether it is seen from above."""
        return not feature.has(self.hidden)

    def width_m(self, feature: MapFeature, name: str) -> float | None:
        """Width in metres of a line in a class: its own tag, its lanes, or the table's; None where it is none of it."""
        for key, widths in self.classes[name].lines.items():
            if (value := feature.tags.get(key)) in widths:
                own = metres(feature.tags.get("width"))
                lanes = count(feature.tags.get("lanes")) if name == ROAD else None
                return own or (lanes * self.lane_width_m if lanes else None) or widths[value]
        return None

    def shape(self, feature: MapFeature, name: str, gsd_m: float) -> shapely.Geometry | None:
        """What a feature, in pixels, covers as a class: its polygon, or its line at its width; None where it is none of
        the class or not seen."""
        if not self.visible(feature):
            return None
        if feature.is_area:
            return feature.geometry if feature.has(self.classes[name].areas) else None
        width = self.width_m(feature, name) if feature.is_line else None
        return None if width is None else feature.geometry.buffer(width / gsd_m / 2, cap_style="flat")


@dataclass(frozen=True)
class Surface:
    """What a class covers of a grid, by feature. shapes: in pixels; features: of the same order."""

    shapes: tuple[shapely.Geometry, ...]
    features: tuple[MapFeature, ...]


def surfaces(features: Sequence[MapFeature], ground: Ground, gsd_m: float) -> dict[str, Surface]:
    """{class: its surface} of features on a grid."""
    found = {}
    for name in ground.classes:
        pairs = [(shape, f) for f in features if (shape := ground.shape(f, name, gsd_m)) is not None]
        found[name] = Surface(tuple(shape for shape, _ in pairs), tuple(f for _, f in pairs))
    return found


@cache
def load_ground(name: str = "osm") -> Ground:
    """A packaged table (configs/maps) or a YAML file. Raises UserError, with the field, for a wrong one.

    >>> "road" in load_ground().names
    True
    """
    file = Path(name) if name.endswith((".yaml", ".yml")) else config_file("maps", name)
    if file is None or not file.exists():
        raise UserError(f"--ground-classes {name}: no such table; give osm or a YAML file (configs/maps/osm.yaml).")
    try:
        return Ground.model_validate(read_yaml(file))
    except ValidationError as error:
        raise UserError(f"{file}: {first_fault(error, [*Ground.model_fields, *GroundClass.model_fields])}.") from None
