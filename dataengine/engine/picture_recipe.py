"""Settings of `dataengine rerender`, `sequence` and `superres`: a recipe, and what is done to pictures of --data."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from dataengine.data.layout import UNKNOWN, Acquisition
from dataengine.engine.recipe import Recipe


class PictureTask(BaseModel):
    """What is done to a data set's own pictures.

    targets: what is asked of the acquisition, at each date of a sequence; all unknown where a picture stays as it was
    taken. strength: highest noise level of pictures; None for the model's own. present: share of the objects that can
    vanish, that are there at each date. factor: of super-resolution. images: only the first so many pictures; None for
    all. painter: folder of the in-scene renderer whose ground objects vanish under; None for the packaged one.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    kind: Literal["rerender", "sequence", "superres"]
    targets: tuple[Acquisition, ...] = Field((UNKNOWN,), min_length=1)
    strength: float | None = Field(None, gt=0, le=1)
    present: float = Field(1.0, gt=0, le=1)
    factor: Literal[1, 2, 4, 8] = 1
    images: int | None = Field(None, gt=0)
    painter: Path | None = None


class PictureRecipe(Recipe):
    """A recipe over the pictures of a data set. `n` is their number times the dates of a sequence, once they are known
    (`pictures.load_picture_parts`)."""

    task: PictureTask

    @model_validator(mode="before")
    @classmethod
    def _whole(cls, values):
        return {"renderer": "whole", **values} if isinstance(values, dict) else values

    @model_validator(mode="after")
    def _verified(self) -> PictureRecipe:
        if self.filter != "difficult":
            raise ValueError(
                f"filter: {self.filter}: labels of such pictures hold only where a detector has found their objects; "
                "give filter: difficult"
            )
        return self

    @property
    def budget(self) -> int:
        """Each picture is tried once."""
        return self.n


def recipe_of(values: dict) -> Recipe:
    """The recipe that a run stores, of its own kind. Raises pydantic's ValidationError for other values."""
    return (PictureRecipe if isinstance(values, dict) and "task" in values else Recipe).model_validate(values)
