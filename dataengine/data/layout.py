"""The values of the engine: `Acquisition`, `Layout`, `Sample`, `Dataset`, `Problem`, and their forms.

A layout is also a JSON value in manifests (`layout_to_json`), and its acquisition a vector for networks
(`acquisition_values`).
"""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from dataengine import geometry
from dataengine.errors import printable

if TYPE_CHECKING:
    from dataengine.data.pixel_range import PixelRange

Kind = Literal["hbb", "obb"]
NADIR_DEG = 80.0  # least camera angle at which a rotated image is as plausible as the image itself


def class_key(name: str) -> str:
    """The form in which class names are compared everywhere: case, blanks, underscores and hyphens do not matter, so
    that DOTA's "tennis-court" is DIOR's "tenniscourt". Next to a digit, they separate: "type 1 1" is not "type 11".

    >>> class_key("Small_Vehicle") == class_key("small vehicle") == class_key("small-vehicle") == "smallvehicle"
    True
    >>> class_key("Type 1_1"), class_key("Type 11")
    ('type-1-1', 'type-11')
    """
    return re.sub(r"(?<=[^\W\d])-(?=[^\W\d])", "", re.sub(r"[\s_-]+", "-", name.strip().lower()))


_SAME_OBJECT = {"plane": "airplane", "aeroplane": "airplane"}


def model_key(name: str) -> str:
    """The form in which class names are compared with those of a model: as `class_key`, and DOTA's "plane" is
    "airplane". Classes of one data set are compared by `class_key` alone, since it may have both.

    >>> model_key("Plane") == model_key("airplane")
    True
    """
    key = class_key(name)
    return _SAME_OBJECT.get(key, key)


class Acquisition(BaseModel):
    """How and when an image was acquired. `None` means unknown, which is not zero."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    gsd_m: float | None = Field(None, gt=0, le=1000, description="metres per pixel")
    altitude_m: float | None = Field(None, gt=0, le=1_000_000, description="metres above ground")
    camera_angle_deg: float | None = Field(None, ge=0, le=90, description="90 looks straight down")
    night: bool | None = None
    date: datetime.date | None = None
    longitude_deg: float | None = Field(None, ge=-180, le=180)
    latitude_deg: float | None = Field(None, ge=-90, le=90)
    cloud: float | None = Field(None, ge=0, le=1, description="fraction of the image")
    sun_elevation_deg: float | None = Field(None, ge=-90, le=90)

    @property
    def looks_down(self) -> bool:
        """Whether the image may be rotated: the camera looks straight down, or its angle is unknown."""
        return self.camera_angle_deg is None or self.camera_angle_deg >= NADIR_DEG

    @property
    def has_scale(self) -> bool:
        """Whether altitude or ground sample distance fix the size of objects in pixels."""
        return self.altitude_m is not None or self.gsd_m is not None


UNKNOWN = Acquisition()
_NO_POINTS, _NO_BOXES = np.zeros((0, 2), np.float32), np.zeros((0, 5), np.float32)


@dataclass(frozen=True)
class Layout:
    """The labelled objects of one image. Arrays are converted to the dtypes below.

    boxes:      float32 (N, 5), `cx, cy, w, h, theta` in pixels and radians, le90 (see `geometry`).
                Coordinates are continuous: pixel (0, 0) covers the square from 0 to 1.
    labels:     int64 (N,), indices into `classes`.
    classes:    class names, the same for all layouts of a data set.
    size:       (width, height) of the image in pixels.
    kind:       "hbb" if all boxes are axis-aligned by definition, else "obb".
    difficult:  bool (N,), objects that metrics do not count.
    visible:    float32 (N,), fraction of the object's area inside the image, in (0, 1].
    ignored:    float32 (M, 5), regions with unknown content (crowds, "don't care").
    silhouettes: float32 (K, 2) for each object, its outline in the frame of its box, -1 to 1 along the sides; (0, 2)
                where unknown. None if all are unknown.
    origins:    names of the real images, or of the part of a map, that the layout is derived from; empty for others.
    features:   for each object the id of the map feature that it is or stands on, such as "way/123", "" for one that
                comes from no map; None where none does.

    >>> layout = Layout([[5, 5, 4, 2, 0], [9, 3, 2, 2, 0]], [0, 1], ("car", "ship"), size=(16, 16))
    >>> len(layout), layout.names(), layout.boxes.dtype
    (2, ['car', 'ship'], dtype('float32'))
    """

    boxes: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]
    size: tuple[int, int]
    kind: Kind = "obb"
    difficult: np.ndarray = None  # type: ignore[assignment]
    visible: np.ndarray = None  # type: ignore[assignment]
    ignored: np.ndarray = None  # type: ignore[assignment]
    acquisition: Acquisition = UNKNOWN
    silhouettes: tuple[np.ndarray, ...] | None = None
    origins: tuple[str, ...] = ()
    features: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        boxes = np.asarray(self.boxes, np.float32).reshape(-1, 5)
        n = len(boxes)
        none_ignored = self.ignored is None or len(self.ignored) == 0
        arrays = {
            "boxes": boxes,
            "labels": np.asarray(self.labels, np.int64).reshape(-1),
            "difficult": np.zeros(n, bool) if self.difficult is None else np.asarray(self.difficult, bool),
            "visible": np.ones(n, np.float32) if self.visible is None else np.asarray(self.visible, np.float32),
            "ignored": _NO_BOXES if none_ignored else np.asarray(self.ignored, np.float32).reshape(-1, 5),
        }
        for name, value in arrays.items():
            object.__setattr__(self, name, value)
        if self.silhouettes is not None and len(self.silhouettes) != n:
            object.__setattr__(self, "silhouettes", None)
        if self.features is not None:  # objects that were appended come from no map
            names = self.features if n else ()
            assert len(names) <= n, "parallel arrays differ in length"
            object.__setattr__(self, "features", (*names, *("",) * (n - len(names))))
        assert len(self.labels) == len(self.difficult) == len(self.visible) == n, "parallel arrays differ in length"

    def __len__(self) -> int:
        return len(self.boxes)

    def select(self, keep: np.ndarray) -> Layout:
        """The layout with only the objects that `keep` selects, a bool mask (N,) or indices.

        >>> layout = Layout([[5, 5, 4, 2, 0], [9, 3, 2, 2, 0]], [0, 1], ("car", "ship"), (16, 16))
        >>> layout.select(layout.labels == 1).names()
        ['ship']
        """
        return replace(
            self,
            boxes=self.boxes[keep],
            labels=self.labels[keep],
            difficult=self.difficult[keep],
            visible=self.visible[keep],
            silhouettes=self.silhouettes and tuple(self.silhouettes[i] for i in np.arange(len(self))[keep]),
            features=self.features and tuple(self.features[i] for i in np.arange(len(self))[keep]),
        )

    def joined(self, other: Layout) -> Layout:
        """The layout with the objects, ignored regions and classes of another layout of the same image appended.

        Both have the same kind of boxes.

        >>> a = Layout([[5, 5, 4, 2, 0]], [0], ("car",), (16, 16))
        >>> b = Layout([[9, 3, 2, 2, 0]], [1], ("car", "ship"), (16, 16))
        >>> a.joined(b).names(), a.joined(b).classes
        (['car', 'ship'], ('car', 'ship'))
        """
        classes = tuple(dict.fromkeys((*self.classes, *other.classes)))
        renumbered = np.array(list(map(classes.index, other.classes)), np.int64)[other.labels]
        return replace(
            self,
            boxes=np.concatenate([self.boxes, other.boxes]),
            labels=np.concatenate([self.labels, renumbered]),
            difficult=np.concatenate([self.difficult, other.difficult]),
            visible=np.concatenate([self.visible, other.visible]),
            ignored=np.concatenate([self.ignored, other.ignored]),
            classes=classes,
            features=_joined_features(self, other),
        )

    def in_kind(self, kind: Kind) -> Layout:
        """The layout in a data set of that kind: as "hbb", oriented boxes become the axis-aligned boxes around them;
        as "obb", it is unchanged, since a horizontal box is an oriented one with angle 0."""
        if kind in ("obb", self.kind):
            return self
        hulls = {"boxes": geometry.hulls(self.boxes), "ignored": geometry.hulls(self.ignored)}
        return replace(self, kind="hbb", **hulls).with_outlines(self.outlines())

    def outlines(self) -> list[np.ndarray]:
        """Outline of each object in pixels, float32 (K, 2); (0, 2) where unknown."""
        if self.silhouettes is None:
            return [np.zeros((0, 2), np.float32)] * len(self)
        return [geometry.from_frame(points, box) for points, box in zip(self.silhouettes, self.boxes, strict=True)]

    def with_outlines(self, outlines: Iterable[np.ndarray]) -> Layout:
        """The layout with these outlines in pixels, (K, 2) for each object, (0, 2) where unknown."""
        pairs = zip(outlines, self.boxes, strict=True)
        silhouettes = tuple(geometry.to_frame(points, box) if len(points) else _NO_POINTS for points, box in pairs)
        return replace(self, silhouettes=silhouettes if any(map(len, silhouettes)) else None)

    def names(self) -> list[str]:
        """Class name of each object."""
        return [self.classes[i] for i in self.labels]


def _joined_features(one: Layout, other: Layout) -> tuple[str, ...] | None:
    """Ids of map features of both layouts, "" for objects that come from no map."""
    if one.features is None and other.features is None:
        return None
    return tuple(name for part in (one, other) for name in (part.features or ("",) * len(part)))


@dataclass(frozen=True)
class Problem:
    """A fault of an input file: its place, and one sentence that describes it and what becomes of it.

    objects: number of objects in the file that are skipped because of it. unknown_class: the class of a skipped object
    that is not in the class list.
    """

    path: Path
    line: int | None
    message: str
    objects: int = 0
    unknown_class: str = ""

    def __str__(self) -> str:
        where = f"{self.path}:{self.line}" if self.line is not None else str(self.path)
        return printable(f"{where}: {self.message}")


@dataclass(frozen=True)
class Sample:
    """A labelled image on disk. `name` is its path without suffix, relative to the image folder, '/' as separator.

    layout: of the upright picture. pixel_range: of the data set, None if all of its images have 8 bits.
    """

    name: str
    image: Path
    layout: Layout
    source: str = ""
    license: str = ""
    pixel_range: PixelRange | None = None


@dataclass
class Dataset:
    """Labelled images with one class list, and the problems found while reading them.

    notes: what a reader decided by evidence, such as the unit of angles, one sentence each.
    Readers return `samples` as a list. Writers only iterate over it, so any sized iterable of samples can be written.
    notes: sentences that say how the files were understood where they leave it open.
    """

    classes: tuple[str, ...]
    samples: list[Sample]
    kind: Kind = "obb"
    name: str = ""
    format: str = ""
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.samples)

    def __iter__(self) -> Iterator[Sample]:
        return iter(self.samples)


def restrict(dataset: Dataset, classes: tuple[str, ...]) -> Dataset:
    """The data set with only these classes; visible objects of other classes become ignored regions."""
    if tuple(dataset.classes) == classes:
        return dataset
    samples = [replace(sample, layout=restrict_layout(sample.layout, classes)) for sample in dataset]
    return replace(dataset, classes=classes, samples=samples)


def restrict_layout(layout: Layout, classes: tuple[str, ...]) -> Layout:
    """The layout with only these classes, compared by `class_key`; objects of other classes become ignored regions.

    >>> layout = Layout([[5, 5, 4, 2, 0], [9, 3, 2, 2, 0]], [0, 1], ("car", "Small Ship"), (16, 16))
    >>> restricted = restrict_layout(layout, ("small-ship",))
    >>> restricted.names(), restricted.ignored.tolist()
    (['small-ship'], [[5.0, 5.0, 4.0, 2.0, 0.0]])
    """
    index = {class_key(name): i for i, name in enumerate(classes)}
    labels = np.array([index.get(class_key(name), -1) for name in layout.classes], np.int64)[layout.labels]
    matches = labels >= 0
    ignored = np.concatenate([layout.ignored, layout.boxes[~matches]])
    return replace(layout.select(matches), labels=labels[matches], classes=classes, ignored=ignored)


def layout_to_json(layout: Layout) -> dict:
    """The layout as a JSON value; pixels are rounded to 1/1000, angles to 1e-6. Silhouettes and origins are skipped.

    >>> layout = Layout([[5, 5, 4, 2, 0.5]], [0], ("car",), (16, 16))
    >>> layout_to_json(layout)["boxes"]
    [[5.0, 5.0, 4.0, 2.0, 0.5]]
    """
    # rounded in float64, where products of float32 and a power of ten are exact
    boxes, ignored = layout.boxes.astype(np.float64), layout.ignored.astype(np.float64)
    values = {
        "size": list(layout.size),
        "kind": layout.kind,
        "classes": list(layout.classes),
        "labels": layout.labels.tolist(),
        "boxes": np.column_stack([boxes[:, :4].round(3), boxes[:, 4].round(6)]).tolist(),
        "difficult": layout.difficult.tolist(),
        "visible": layout.visible.astype(np.float64).round(4).tolist(),
        "ignored": ignored.round(3).tolist(),
        "acquisition": layout.acquisition.model_dump(mode="json", exclude_none=True),
    }
    return values if layout.features is None else values | {"features": list(layout.features)}


def layout_from_json(values: dict) -> Layout:
    """The inverse of `layout_to_json`. Raises ValueError, TypeError, KeyError or AssertionError for other values."""
    if not all(isinstance(name, str) for name in values["classes"]):
        raise ValueError("a class has no name")
    return Layout(
        boxes=np.array(values["boxes"], np.float32).reshape(-1, 5),
        labels=np.array(values["labels"]),
        classes=tuple(values["classes"]),
        size=tuple(values["size"]),
        kind=values["kind"],
        difficult=np.array(values["difficult"], bool),
        visible=np.array(values["visible"], np.float32),
        ignored=np.array(values["ignored"], np.float32).reshape(-1, 5),
        acquisition=Acquisition.model_validate(values["acquisition"]),
        features=_features_from(values),
    )


def _features_from(values: dict) -> tuple[str, ...] | None:
    names = values.get("features")
    if names is None:
        return None
    if not isinstance(names, list) or len(names) != len(values["labels"]) or not all(isinstance(n, str) for n in names):
        raise ValueError("features are not one text for each object")
    return tuple(names)


# The numbers that a model can be conditioned on. Those with one stem (before the "/") are known or unknown together.
ACQUISITION_FIELDS = (
    "altitude", "camera_angle", "night", "gsd", "year", "season/sin", "season/cos",
    "longitude/sin", "longitude/cos", "latitude", "cloud", "sun",
)  # fmt: skip
DAYS_PER_YEAR = 365.25


def acquisition_values(acquisition: Acquisition, fields: Sequence[str] = ACQUISITION_FIELDS) -> np.ndarray:
    """Acquisition as a vector for networks, float32 (len(fields),): values of order one, `nan` where unknown.

    Cyclic quantities are sine and cosine, unlike in DiffusionSat (Khanna et al. 2024, section 3.2): 31 December lies
    next to 1 January, and 180 degrees east next to 180 degrees west.

    >>> acquisition_values(Acquisition(altitude_m=50, night=True), ("altitude", "night", "cloud")).tolist()
    [0.5, 1.0, nan]
    """
    known = {name: math.nan if value is None else value for name, value in acquisition}
    year = season = math.nan
    if acquisition.date is not None:
        year = (acquisition.date.year - 2015) / 10
        season = 2 * math.pi * (acquisition.date.timetuple().tm_yday - 1) / DAYS_PER_YEAR
    east = math.radians(known["longitude_deg"])
    values = {
        "altitude": known["altitude_m"] / 100,
        "camera_angle": known["camera_angle_deg"] / 90,
        "night": known["night"],
        "gsd": math.log2(known["gsd_m"]),
        "year": year,
        "season/sin": math.sin(season),
        "season/cos": math.cos(season),
        "longitude/sin": math.sin(east),
        "longitude/cos": math.cos(east),
        "latitude": known["latitude_deg"] / 90,
        "cloud": known["cloud"],
        "sun": known["sun_elevation_deg"] / 90,
    }
    return np.array([values[name] for name in fields], np.float32)


def drop_fields(values: np.ndarray, fields: Sequence[str], probability: float, rng: np.random.Generator) -> np.ndarray:
    """Condition dropout: `values` (B, len(fields)) with fields set to `nan` independently with this probability, sine
    and cosine of a field together."""
    stems = [name.split("/")[0] for name in fields]
    order = list(dict.fromkeys(stems))
    dropped = rng.random((len(values), len(order))) < probability
    return np.where(dropped[:, [order.index(stem) for stem in stems]], np.float32(np.nan), values)
