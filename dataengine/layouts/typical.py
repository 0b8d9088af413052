"""Layouts from typical sizes of objects, for classes of which no labelled image is at hand.

The sizes are in `configs/layouts/typical-sizes.yaml`, in metres. They come from general knowledge, not from a data set,
so such layouts say nothing about how often classes occur or stand together.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from dataengine import geometry
from dataengine.data.layout import Acquisition, Layout, model_key
from dataengine.data.presets import config_file
from dataengine.errors import UserError, first_fault
from dataengine.files import read_yaml

SIDE_PX = 800  # of the images, as DIOR's
GSD_M = (0.3, 30.0)  # limits of metres per pixel
OBJECT_SHARE = (0.05, 0.45)  # length of an image's main objects as a share of its side
MIN_SIDE_PX = 8.0  # other objects with a shorter side are left out
TRIALS = 40  # places for an object before it is left out
SPREAD = 0.1  # standard deviation of the log length of objects of one class in one image
HEADING_SPREAD_RAD = 0.15
ROOM = 0.15  # of an object's long side, kept free between two objects
SEED = 0x51E5

Limits = tuple[float, float]


class TypicalObject(BaseModel):
    """length: metres of the long side, low and high; aspect: long to short side; count: objects of an image; beside:
    other classes of the same image."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    length: Limits
    aspect: Limits
    count: tuple[int, int]
    beside: tuple[str, ...] = ()


_TABLE = TypeAdapter(dict[str, TypicalObject])


def sizes_file() -> Path:
    """The table of sizes; its hash belongs to a run's identity."""
    file = config_file("layouts", "typical-sizes")
    if file is None:
        raise UserError("this installation has no configs/layouts/typical-sizes.yaml; reinstall dataengine.")
    return file


@cache
def typical_objects() -> dict[str, TypicalObject]:
    """The table of sizes by `model_key`. Raises UserError, with the field, if the file was damaged."""
    try:
        return {model_key(name): each for name, each in _TABLE.validate_python(read_yaml(sizes_file())).items()}
    except ValidationError as error:
        raise UserError(f"{sizes_file()}: {first_fault(error, TypicalObject.model_fields)}") from None


def known_classes(classes: Sequence[str]) -> tuple[str, ...]:
    """Those of the classes whose sizes are known.

    >>> known_classes(["plane", "tennis-court", "unicorn"])
    ('plane', 'tennis-court')
    """
    return tuple(name for name in classes if model_key(name) in typical_objects())


def typical_layouts(classes: Sequence[str], n: int = 400) -> list[Layout]:
    """n layouts of `SIDE_PX` pixels with rotated boxes; each class is the main one of about as many. The same classes
    give the same layouts. Raises UserError for a class whose size is not known.

    >>> layouts = typical_layouts(["tenniscourt", "ship"], n=4)
    >>> layouts[0].names()[0], layouts[1].names()[0], layouts[0].size
    ('tenniscourt', 'ship', (800, 800))
    """
    unknown = sorted({*classes} - {*known_classes(classes)})
    if unknown:
        raise UserError(f"no typical size is known of {', '.join(unknown)}; leave them out with --classes.")
    names = tuple(classes)
    return [_layout(names, i % len(names), np.random.default_rng((SEED, i))) for i in range(n)]


def _layout(classes: tuple[str, ...], main: int, rng: np.random.Generator) -> Layout:
    kinds = [typical_objects()[model_key(name)] for name in classes]
    numbers = {model_key(name): i for i, name in enumerate(classes)}
    length = _log_uniform(kinds[main].length, rng)
    gsd = float(np.clip(length / (SIDE_PX * _log_uniform(OBJECT_SHARE, rng)), *GSD_M))
    boxes, labels = np.zeros((0, 5)), []
    others = [numbers[key] for name in kinds[main].beside if (key := model_key(name)) in numbers]
    for label in (main, *others):
        kind = kinds[label]
        metres = length if label == main else _log_uniform(kind.length, rng)
        heading = rng.uniform(-np.pi / 2, np.pi / 2)
        for _ in range(rng.integers(kind.count[0], kind.count[1] + 1)):
            long = np.clip(metres * np.exp(rng.normal(0, SPREAD)), *kind.length) / gsd
            short = long / rng.uniform(*kind.aspect)
            if label != main and short < MIN_SIDE_PX:
                continue
            box = _placed(long, short, heading + rng.normal(0, HEADING_SPREAD_RAD), boxes, rng)
            if box is not None:
                boxes, labels = np.concatenate([boxes, box[None]]), [*labels, label]
    return Layout(
        geometry.regularize(boxes), labels, classes, (SIDE_PX, SIDE_PX), "obb", acquisition=Acquisition(gsd_m=gsd)
    )


def _placed(long: float, short: float, theta: float, placed: np.ndarray, rng: np.random.Generator) -> np.ndarray | None:
    """A box (5,) inside the image that keeps clear of those placed before (N, 5); None where no place is found. The
    first object always has one."""
    cos, sin = abs(np.cos(theta)), abs(np.sin(theta))
    extent = np.array([long * cos + short * sin, long * sin + short * cos])
    if extent.max() > SIDE_PX:
        return None
    free = SIDE_PX - extent
    for _ in range(TRIALS):
        centre = SIDE_PX / 2 + (rng.random(2) - 0.5) * free
        room = np.array([*centre, long * (1 + ROOM), short + ROOM * long, theta])
        if not (geometry.intersection(room[None], placed) > 0).any():
            return np.array([*centre, long, short, theta])
    return None


def _log_uniform(limits: Limits, rng: np.random.Generator) -> float:
    return float(np.exp(rng.uniform(*np.log(limits))))
