"""What the layouts of a data set are like, as a readable JSON file of quantiles: no layout of the data set is in it.

A layout is thought of as grown from a first object: each further one stands a step away from one that is there, seen
in that one's frame and in units of both sizes, so that "beside it, parallel, a quarter apart" is the same step for a
car of any size and heading, and a row is a step repeated. `prior_fit.fit` makes a `Prior`, `prior_sampler` draws.
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


# Values at evenly spaced probabilities from 0 to 1
Quantiles = Annotated[tuple[float, ...], Field(min_length=2), AfterValidator(_ascending)]
Share = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(ge=0)]


STANCES = ("lying", "standing", "slanting")  # as `growth.stance` counts them


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class SceneType(_Part):
    """Layouts with the same classes and about as many objects.

    counts: objects of each class. scale: log of how much larger objects are than their class and acquisition say.
    taken:  how often each of the prior's acquisitions (by its index) occurs.
    """

    weight: Weight
    counts: dict[str, Quantiles]
    scale: Quantiles
    taken: dict[int, Weight] = Field(min_length=1)


class SizeModel(_Part):
    """Log of the side (square root of the area, in pixels, or in metres where the GSD is known) of a class.

    log side = log_side + per_log_altitude * (log altitude - mean) + per_cos_angle * (cos(camera angle) - mean)
    + the scene's scale + a residual; an unknown field counts as its mean.
    """

    log_side: float
    per_log_altitude: float
    per_cos_angle: float
    residual: Quantiles


class ObjectPrior(_Part):
    """One class: size, shape, heading, place.

    aspect:      log(w / h) >= 0 of boxes that lie (within 22.5 degrees), stand, or slant in the image.
    upright:     share of boxes at exactly 0 or 90 degrees; standing is the share of 90 degrees among them.
    heading:     theta in radians of the other boxes.
    places:      share of centres in each cell of a grid over the image, rows from the top.
    cut:         share of objects that the border cuts.
    overlap:     the largest share by which objects cover an earlier one or are covered.
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
    """One kind of step, each number independent of the others.

    along, across: log(1 + u), log(1 + v); u and v as in `growth.steps`. turn: change of heading in radians.
    larger, longer: log of the side, and of w / h, over those of the first object.
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
    """Steps that repeat the one before, among three of a class in turn.

    share:  of steps that do, after a step that did not, and after one that did.
    wobble: by how much they differ, in units of the step, along it and across it.
    turn, larger, longer: as for other steps.
    """

    share: tuple[Share, Share]
    wobble: Quantiles
    turn: Quantiles
    larger: Quantiles
    longer: Quantiles


class Steps(_Part):
    """How objects of class `to` stand beside objects of class `of`.

    share:         of all steps.
    upright_after: share of upright boxes when the first is slanted, and when it is upright.
    """

    of: str
    to: str
    share: Share
    upright_after: tuple[Share, Share]
    kinds: tuple[Step, ...] = Field(min_length=1)
    row: Row | None = None


class Prior(_Part):
    """The layouts of a data set. `size` (width, height) is that of the images or windows it was fitted on."""

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
        """Write as JSON, one short list a line. The file appears whole or not at all; `UserError` if it cannot."""
        write_whole(path, _readable(self.model_dump(mode="json", exclude_none=True)) + "\n")

    @classmethod
    def load(cls, path: str | Path) -> Prior:
        """Read and validate. Raises `UserError` naming the field at fault."""
        path = Path(path)
        if not path.is_file():
            raise UserError(f"{path} does not exist; make a prior with `dataengine layout fit DATASET --out {path}`")
        try:
            return cls.model_validate_json(read_text(path))
        except ValidationError as error:
            raise UserError(
                f"{path}: {first_fault(error, cls.model_fields)}; mend it or make it again with `dataengine layout fit`"
            ) from error


def quantiles(values: np.ndarray, n: int) -> tuple[float, ...]:
    """`n` quantiles at evenly spaced probabilities, rounded to four digits; values must not be empty."""
    found = np.quantile(np.asarray(values, float), np.linspace(0, 1, n))
    return tuple(float(f"{value:.4g}") for value in np.maximum.accumulate(found))


@lru_cache(maxsize=4096)
def _knots(quantiles: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
    return np.linspace(0, 1, len(quantiles)), np.array(quantiles)


def at(quantiles: tuple[float, ...], probability: np.ndarray | float) -> np.ndarray:
    """Values at the given probabilities, linear between quantiles."""
    return np.interp(probability, *_knots(quantiles))


def _readable(value: object, indent: int = 0, width: int = 118) -> str:
    """JSON with what fits a line on one line."""
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
