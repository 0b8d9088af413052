"""Values that flow through the engine: `Acquisition`, `Layout`, `Sample`, `Dataset`, `Problem`."""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from dataengine import geometry

Kind = Literal["hbb", "obb"]
NADIR_DEG = 80.0  # from this camera angle on, a turned picture is as likely as the picture


def class_key(name: str) -> str:
    """The form in which class names are compared everywhere: case, blanks, underscores and hyphens do not count.

    >>> class_key("Small_Vehicle") == class_key("small vehicle") == "small-vehicle"
    True
    """
    return re.sub(r"[\s_]+", "-", name.strip().lower())


class Acquisition(BaseModel):
    """How a picture was taken. `None` means unknown, which is not zero (contracts 7 and 9)."""

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
        """Whether the picture may be turned: taken straight down, or nothing said to the contrary."""
        return self.camera_angle_deg is None or self.camera_angle_deg >= NADIR_DEG

    @property
    def tells_scale(self) -> bool:
        """Whether anything says how large objects are in pixels."""
        return self.altitude_m is not None or self.gsd_m is not None


UNKNOWN = Acquisition()


@dataclass(frozen=True)
class Layout:
    """What is to be seen in one image, and where.

    boxes:      float32 (N, 5), `cx, cy, w, h, theta` in pixels and radians, le90 (see `geometry`).
                Pixel (0, 0) covers the square from 0 to 1: coordinates are continuous, not indices.
    labels:     int64 (N,), indices into `classes`.
    classes:    class names; shared by all layouts of a data set.
    size:       (width, height) of the image in pixels.
    kind:       "hbb" when every box is axis-aligned by definition, else "obb".
    difficult:  bool (N,), objects that a metric should not count.
    visible:    float32 (N,), share of the object's area inside the image, in (0, 1].
    ignored:    float32 (M, 5), regions whose content is unknown (crowds, "don't care").
    silhouettes: float32 (K, 2) for each object, its outline in the frame of its box, -1 to 1 along the sides; (0, 2)
                where unknown. None where no data set told, or where objects were added.
    origins:    names of the real images that the layout was made from, where it is a changed real one.
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

    def __post_init__(self) -> None:
        boxes = np.asarray(self.boxes, np.float32).reshape(-1, 5)
        n = len(boxes)
        arrays = {
            "boxes": boxes,
            "labels": np.asarray(self.labels, np.int64).reshape(-1),
            "difficult": np.zeros(n, bool) if self.difficult is None else np.asarray(self.difficult, bool),
            "visible": np.ones(n, np.float32) if self.visible is None else np.asarray(self.visible, np.float32),
            "ignored": np.asarray([] if self.ignored is None else self.ignored, np.float32).reshape(-1, 5),
        }
        for name, value in arrays.items():
            object.__setattr__(self, name, value)
        if self.silhouettes is not None and len(self.silhouettes) != n:
            object.__setattr__(self, "silhouettes", None)
        assert len(self.labels) == len(self.difficult) == len(self.visible) == n, "parallel arrays differ in length"

    def __len__(self) -> int:
        return len(self.boxes)

    def select(self, keep: np.ndarray) -> Layout:
        """The same layout with only the objects that `keep` (bool mask or indices) names."""
        return replace(
            self,
            boxes=self.boxes[keep],
            labels=self.labels[keep],
            difficult=self.difficult[keep],
            visible=self.visible[keep],
            silhouettes=self.silhouettes and tuple(self.silhouettes[i] for i in np.arange(len(self))[keep]),
        )

    def joined(self, other: Layout) -> Layout:
        """The same picture with the objects and ignored regions of another layout of it, which come last.

        Class names of both are joined, its own first. `other` is of the same kind.
        """
        classes = tuple(dict.fromkeys((*self.classes, *other.classes)))
        renumbered = np.array([classes.index(name) for name in other.classes], np.int64)[other.labels]
        return replace(
            self,
            boxes=np.concatenate([self.boxes, other.boxes]),
            labels=np.concatenate([self.labels, renumbered]),
            difficult=np.concatenate([self.difficult, other.difficult]),
            visible=np.concatenate([self.visible, other.visible]),
            ignored=np.concatenate([self.ignored, other.ignored]),
            classes=classes,
        )

    def in_kind(self, kind: Kind) -> Layout:
        """The same picture beside layouts of that kind: for horizontal boxes, the smallest around oriented ones; for
        oriented ones as it is, since horizontal boxes are oriented ones of angle 0."""
        if kind in ("obb", self.kind):
            return self
        hulls = {"boxes": geometry.hulls(self.boxes), "ignored": geometry.hulls(self.ignored)}
        return replace(self, kind="hbb", **hulls).with_outlines(self.outlines())

    def outlines(self) -> list[np.ndarray]:
        """Known outline of each object in pixels, float32 (K, 2); (0, 2) where unknown."""
        if self.silhouettes is None:
            return [np.zeros((0, 2), np.float32)] * len(self)
        return [geometry.from_frame(points, box) for points, box in zip(self.silhouettes, self.boxes, strict=True)]

    def with_outlines(self, outlines: Iterable[np.ndarray]) -> Layout:
        """The same layout with these outlines in pixels, one (K, 2) or empty (0, 2) for each object."""
        found = tuple(geometry.to_frame(points, box) for points, box in zip(outlines, self.boxes, strict=True))
        return replace(self, silhouettes=found if any(map(len, found)) else None)

    def names(self) -> list[str]:
        """Class name of each object."""
        return [self.classes[i] for i in self.labels]


@dataclass(frozen=True)
class Problem:
    """Something wrong in an input file: where, and in one sentence what, with the mend."""

    path: Path
    line: int | None
    message: str

    def __str__(self) -> str:
        where = f"{self.path}:{self.line}" if self.line is not None else str(self.path)
        return f"{where}: {self.message}"


@dataclass(frozen=True)
class Sample:
    """One labelled image on disk. `name` is its path without suffix, relative to the image folder, '/' as separator."""

    name: str
    image: Path
    layout: Layout
    source: str = ""
    license: str = ""


@dataclass
class Dataset:
    """Labelled images with one class list, and what was wrong with the rest. Readers give `samples` as a list; writers
    only go through it, so that it may be a collection that makes them as it goes."""

    classes: tuple[str, ...]
    samples: list[Sample]
    kind: Kind = "obb"
    name: str = ""
    format: str = ""
    problems: list[Problem] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.samples)

    def __iter__(self) -> Iterator[Sample]:
        return iter(self.samples)


def restrict(dataset: Dataset, classes: tuple[str, ...]) -> Dataset:
    """The data set with only these classes; objects of other classes become ignored regions, since they are seen."""
    if tuple(dataset.classes) == classes:
        return dataset
    samples = [replace(sample, layout=restrict_layout(sample.layout, classes)) for sample in dataset]
    return replace(dataset, classes=classes, samples=samples)


def restrict_layout(layout: Layout, classes: tuple[str, ...]) -> Layout:
    """The layout with labels in `classes`, matched by name without regard to case."""
    number = {class_key(name): i for i, name in enumerate(classes)}
    labels = np.array([number.get(class_key(name), -1) for name in layout.names()], np.int64)
    inside = layout.select(labels >= 0)
    ignored = np.concatenate([layout.ignored, layout.boxes[labels < 0]])
    return replace(inside, labels=labels[labels >= 0], classes=classes, ignored=ignored)


def layout_to_json(layout: Layout) -> dict:
    """The layout as plain values; boxes rounded to 1/1000 pixel, angles to 1e-6."""
    return {
        "size": list(layout.size),
        "kind": layout.kind,
        "classes": list(layout.classes),
        "labels": layout.labels.tolist(),
        "boxes": [[*(round(float(v), 3) for v in box[:4]), round(float(box[4]), 6)] for box in layout.boxes],
        "difficult": layout.difficult.tolist(),
        "visible": [round(float(v), 4) for v in layout.visible],
        "ignored": [[round(float(v), 3) for v in box] for box in layout.ignored],
        "acquisition": layout.acquisition.model_dump(mode="json", exclude_none=True),
    }


def layout_from_json(values: dict) -> Layout:
    """What `layout_to_json` wrote. Raises ValueError, TypeError, KeyError or AssertionError for anything else."""
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
    )


# every number that a model can be conditioned on; those of one stem (before the "/") are known or unknown together
ACQUISITION_FIELDS = (
    "altitude", "camera_angle", "night", "gsd", "year", "season/sin", "season/cos",
    "longitude/sin", "longitude/cos", "latitude", "cloud", "sun",
)  # fmt: skip
DAYS_PER_YEAR = 365.25


def acquisition_values(a: Acquisition, fields: Sequence[str] = ACQUISITION_FIELDS) -> np.ndarray:
    """(len(fields),) float32. Unlike DiffusionSat's metadata (Khanna et al. 2024, section 3.2), 31 December lies beside
    1 January, 180 degrees east beside 180 west, and unknown is not zero (contract 7)."""
    season = None if a.date is None else 2 * math.pi * (a.date.timetuple().tm_yday - 1) / DAYS_PER_YEAR
    east = None if a.longitude_deg is None else math.radians(a.longitude_deg)

    def known(value, number) -> float:
        return math.nan if value is None else float(number(value))

    values = {
        "altitude": known(a.altitude_m, lambda x: x / 100),
        "camera_angle": known(a.camera_angle_deg, lambda x: x / 90),
        "night": known(a.night, float),
        "gsd": known(a.gsd_m, math.log2),
        "year": known(a.date, lambda x: (x.year - 2015) / 10),
        "season/sin": known(season, math.sin),
        "season/cos": known(season, math.cos),
        "longitude/sin": known(east, math.sin),
        "longitude/cos": known(east, math.cos),
        "latitude": known(a.latitude_deg, lambda x: x / 90),
        "cloud": known(a.cloud, float),
        "sun": known(a.sun_elevation_deg, lambda x: x / 90),
    }
    return np.array([values[name] for name in fields], np.float32)


def drop_fields(values: np.ndarray, fields: Sequence[str], probability: float, rng: np.random.Generator) -> np.ndarray:
    """(B, len(fields)) with each field, sine and cosine together, unknown with this probability, each on its own."""
    stems = [name.split("/")[0] for name in fields]
    order = list(dict.fromkeys(stems))
    forgotten = rng.random((len(values), len(order))) < probability
    return np.where(forgotten[:, [order.index(stem) for stem in stems]], np.float32(np.nan), values)
