"""The statistics of the layouts of a data set, as a readable JSON file of quantiles that contains no real layout.

The model is a layout grown from a first object: each further object is a step away from an existing one, in the frame
of that object and in units of both sizes. "Next to it, parallel, a quarter apart" is then the same step for a car of
any size and heading, and a row is a repeated step. `prior_fit.fit` fits a `Prior`, `PriorSampler` samples from it.
"""

from __future__ import annotations

import json
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from dataengine.data.layout import Acquisition, Kind
from dataengine.errors import UserError, first_fault
from dataengine.files import read_text, write_whole


def _ascending(values: tuple[float, ...]) -> tuple[float, ...]:
    if any(b < a for a, b in pairwise(values)):
        raise ValueError("quantiles must not decrease")
    return values


# values at evenly spaced probabilities from 0 to 1
Quantiles = Annotated[tuple[float, ...], Field(min_length=2), AfterValidator(_ascending)]
Share = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(ge=0)]


STANCES = ("lying", "standing", "slanting")  # in the order of `growth.stance`


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class SceneType(_Part):
    """Layouts with the same classes and a similar number of objects.

    counts: objects of each class. scale: log of the factor by which objects are larger than their class and acquisition
            predict.
    taken:  frequency of each of the prior's acquisitions, by index.
    """

    weight: Weight
    counts: dict[str, Quantiles]
    scale: Quantiles
    taken: dict[int, Weight] = Field(min_length=1)


class SizeModel(_Part):
    """Log side (square root of the area, in pixels, or in metres where the GSD is known) of a class.

    log side = log_side + per_log_altitude * (log altitude - mean) + per_cos_angle * (cos(camera angle) - mean)
    + the scene's scale + a residual; an unknown field counts as its mean.
    """

    log_side: float
    per_log_altitude: float
    per_cos_angle: float
    residual: Quantiles


class ObjectPrior(_Part):
    """Size, shape, heading and position of one class.

    aspect:      log(w / h) >= 0 of lying (within 22.5 degrees), standing and slanting boxes.
    upright:     share of boxes at exactly 0 or 90 degrees; standing is the share of 90 degrees among them.
    heading:     theta in radians of the other boxes.
    places:      share of centres in each cell of a grid over the image, rows from the top.
    cut:         share of objects that the border cuts.
    overlap:     largest overlap of an object with an earlier one, as a share of the smaller box.
    """

    size: SizeModel
    aspect: dict[Literal["lying", "standing", "slanting"], Quantiles]
    upright: Share
    standing: Share
    heading: Quantiles
    places: tuple[tuple[Weight, ...], ...]
    cut: Share
    overlap: Quantiles


class Step(_Part):
    """One kind of step, whose numbers are independent of one another.

    along, across: log(1 + u), log(1 + v); u and v as in `growth.steps`. turn: change of heading in radians.
    larger, longer: log ratio of the side, and of w / h, to those of the first object.
    """

    weight: Weight
    along: Quantiles
    across: Quantiles
    turn: Quantiles
    larger: Quantiles
    longer: Quantiles

    @model_validator(mode="after")
    def _even(self) -> Step:
        if len({len(values) for values in self.numbers()}) > 1:
            raise ValueError("a step's lists must have the same length")
        return self

    def numbers(self) -> tuple[Quantiles, ...]:
        """The five distributions in the order of their names."""
        return self.along, self.across, self.turn, self.larger, self.longer


class Row(_Part):
    """Steps that repeat the previous step, among three consecutive objects of a class.

    share:  of repeating steps, after a step that does not repeat and after one that does.
    wobble: deviation from the previous step, in units of its length, along and across it.
    turn, larger, longer: as in `Step`.
    """

    share: tuple[Share, Share]
    wobble: Quantiles
    turn: Quantiles
    larger: Quantiles
    longer: Quantiles


class Steps(_Part):
    """Steps from objects of class `of` to objects of class `to`.

    share:         of all steps.
    upright_after: share of upright boxes after a slanted box and after an upright one.
    """

    of: str
    to: str
    share: Share
    upright_after: tuple[Share, Share]
    kinds: tuple[Step, ...] = Field(min_length=1)
    row: Row | None = None


class Prior(_Part):
    """The layouts of a data set. size: (width, height) in pixels of the windows that the prior was fitted on."""

    format: Literal["dataengine-prior-1"] = "dataengine-prior-1"
    name: str
    kind: Kind
    classes: tuple[str, ...]
    size: tuple[int, int]
    n_layouts: int
    n_objects: int
    mean_log_altitude: float
    mean_cos_angle: float
    follows: Share = Field(description="share of steps that start at the object placed last")
    acquisitions: tuple[Acquisition, ...] = Field(min_length=1)
    scenes: tuple[SceneType, ...] = Field(min_length=1)
    objects: dict[str, ObjectPrior]
    steps: tuple[Steps, ...]

    @model_validator(mode="after")
    def _names_fit(self) -> Prior:
        used = {name for scene in self.scenes for name in scene.counts}
        used |= {name for step in self.steps for name in (step.of, step.to)}
        missing = sorted(used - set(self.objects)) + sorted(set(self.objects) - set(self.classes))
        if missing:
            raise ValueError(f"class {missing[0]!r} is used but not described")
        if any(not 0 <= index < len(self.acquisitions) for scene in self.scenes for index in scene.taken):
            raise ValueError("a scene names an acquisition that is not in the list")
        return self

    def save(self, path: str | Path) -> None:
        """Write as JSON, one short list for each line, atomically. Raises UserError when the file cannot be written."""
        write_whole(path, _readable(self.model_dump(mode="json", exclude_none=True)) + "\n")

    @classmethod
    def load(cls, path: str | Path) -> Prior:
        """Read and validate a file. Raises UserError, which names the wrong field."""
        path = Path(path)
        if not path.is_file():
            raise UserError(f"{path} does not exist; fit a prior with: dataengine layout fit DATASET --out {path}")
        try:
            return cls.model_validate_json(read_text(path))
        except ValidationError as error:
            raise UserError(
                f"{path}: {first_fault(error, cls.model_fields)}; fix the file or fit it again: dataengine layout fit"
            ) from error


def quantiles(values: np.ndarray, n: int) -> tuple[float, ...]:
    """`n` quantiles at evenly spaced probabilities from 0 to 1, rounded to four digits; values (N,) with N >= 1.

    >>> quantiles(np.arange(11), 3)
    (0.0, 5.0, 10.0)
    """
    found = np.quantile(np.asarray(values, float), np.linspace(0, 1, n))
    return tuple(float(f"{value:.4g}") for value in np.maximum.accumulate(found))


@lru_cache(maxsize=4096)
def _knots(quantiles: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
    return np.linspace(0, 1, len(quantiles)), np.array(quantiles)


def at(quantiles: tuple[float, ...], probability: np.ndarray | float) -> np.ndarray:
    """Values at the given probabilities, linear between quantiles.

    >>> float(at((0.0, 5.0, 10.0), 0.25))
    2.5
    """
    return np.interp(probability, *_knots(quantiles))


def _readable(value: object, indent: int = 0, width: int = 118) -> str:
    """JSON text in which a value that fits on one line is on one line."""
    flat = json.dumps(value)
    if indent + len(flat) <= width or not isinstance(value, dict | list):
        return flat
    pad = " " * (indent + 1)
    if isinstance(value, dict):
        inner = [f"{pad}{json.dumps(key)}: {_readable(item, indent + 1, width)}" for key, item in value.items()]
        return "{\n" + ",\n".join(inner) + "\n" + " " * indent + "}"
    if all(isinstance(item, int | float) for item in value):
        return flat
    return "[\n" + ",\n".join(pad + _readable(item, indent + 1, width) for item in value) + "\n" + " " * indent + "]"
