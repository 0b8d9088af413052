"""What the drawing page asks to be rendered."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from dataengine.data.layout import UNKNOWN, Acquisition

MAX_BOXES = 500


def _within_limits(value: float) -> float:
    if abs(value) > 1e6:
        raise ValueError("is too large")
    return value


Number = Annotated[float, Field(allow_inf_nan=False), AfterValidator(_within_limits)]


class Box(BaseModel):
    """One drawn box: class by name, pixels, radians; sides in any order."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    cls: str = Field(alias="class")
    cx: Number
    cy: Number
    w: Annotated[Number, Field(ge=1)]
    h: Annotated[Number, Field(ge=1)]
    theta: Number = 0.0


class RenderRequest(BaseModel):
    """A layout to render. ground: "drawn" is a scene of the run, generated for `ground_boxes` (by default `boxes`) and
    `ground_seed`; "picture" is the opened image, whose objects stay unchanged."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    boxes: tuple[Box, ...] = Field(min_length=1, max_length=MAX_BOXES)
    seed: int = Field(ge=0, lt=2**62)  # as text in JSON, since JavaScript's numbers end at 2^53
    ground: Literal["drawn", "picture"] = "drawn"
    ground_boxes: tuple[Box, ...] | None = Field(None, max_length=MAX_BOXES)
    ground_seed: int | None = Field(None, ge=0, lt=2**62)
    picture: tuple[Literal["made", "real", "file"], int] | None = None
    acquisition: Acquisition = UNKNOWN
    steps: int | None = Field(None, gt=0, le=1000)
    guidance_scale: float | None = Field(None, ge=0, le=50)
