"""Which images are wanted, as the page's address says it, and which those are."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from dataengine.data.layout import class_key
from dataengine.errors import UserError, first_fault
from dataengine.view.index import Index

_NUMBER = r"-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?"


def _low_and_high(text) -> tuple[float, float]:
    found = re.fullmatch(rf"({_NUMBER})?\.\.({_NUMBER})?", text) if isinstance(text, str) else None
    if found is None:
        raise ValueError("give low..high, such as 0.1..0.5, or ..0.5")
    low, high = found.groups()
    return -np.inf if low is None else float(low), np.inf if high is None else float(high)


Range = Annotated[tuple[float, float] | None, BeforeValidator(_low_and_high)]
SORTS = ("index", "score", "-score", "objects", "-objects", "name")
OF_PICTURES = {"count": "objects", "altitude": "altitude", "gsd": "gsd", "camera_angle": "camera_angle"}


class Filter(BaseModel):
    """What is asked of an image. Ranges hold both ends; what is unknown lies in no range.

    cls, score, size: the image has an object, not the scene's own if `score` is given, of one of these classes, with
    a detector's score and a longer side (pixels) within these ranges, all of the same object.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    cls: tuple[str, ...] = Field((), alias="class")
    score: Range = None
    size: Range = None
    verdict: Literal["kept", "dropped"] | None = None
    reason: str | None = None
    count: Range = None
    altitude: Range = None
    gsd: Range = None
    camera_angle: Range = None
    taken: Literal["day", "night"] | None = None
    q: str = Field("", max_length=200)
    sort: Literal[SORTS] = "index"


def read_filter(values: Mapping[str, list[str]]) -> Filter:
    """The filter of an address's parameters, each a list of texts. Raises UserError that names the one at fault."""
    given: dict = {}
    for name, texts in values.items():
        if name == "class":
            given[name] = tuple(texts)
        elif texts[-1] != "":
            given[name] = texts[-1]
    try:
        return Filter.model_validate(given)
    except ValidationError as error:
        names = [field.alias or name for name, field in Filter.model_fields.items()]
        raise UserError(f"{first_fault(error, names)}.") from None


def chosen(index: Index, wanted: Filter) -> np.ndarray:
    """Indices int64 (K,) of the images that pass, in the order asked for; equal ones stay in the file's order."""
    ids = np.flatnonzero(_mask(index, wanted))
    descending, key = wanted.sort.startswith("-"), wanted.sort.lstrip("-")
    if key == "index":
        return ids
    if key == "name":
        return np.array(sorted(ids.tolist(), key=lambda i: index.names[i]), np.int64)
    values = getattr(index.columns, key)[ids].astype(np.float64)
    # what is unknown comes last in both orders
    return ids[np.argsort(np.where(np.isnan(values), np.inf, -values if descending else values), kind="stable")]


def objects_chosen(index: Index, wanted: Filter) -> np.ndarray:
    """Bool (M,): objects that have the class, score and size asked for, whatever their images are like."""
    columns = index.columns
    keep = np.ones(len(columns.image), bool)
    if wanted.cls:
        numbers = {class_key(name): i for i, name in enumerate(index.classes)}
        keep &= np.isin(columns.label, [numbers.get(class_key(name), -1) for name in wanted.cls])
    if wanted.score is not None:
        keep &= _within(columns.object_score, wanted.score)
    if wanted.size is not None:
        keep &= _within(np.maximum(columns.box_w, columns.box_h), wanted.size)
    return keep


def _mask(index: Index, wanted: Filter) -> np.ndarray:
    columns = index.columns
    keep = np.ones(len(index), bool)
    if wanted.cls or wanted.score is not None or wanted.size is not None:
        keep = np.bincount(columns.image[objects_chosen(index, wanted)], minlength=len(index)) > 0
    if wanted.verdict is not None:
        keep &= columns.kept == (wanted.verdict == "kept")
    if wanted.reason is not None:
        keep &= columns.reason == (index.reasons.index(wanted.reason) if wanted.reason in index.reasons else -1)
    if wanted.taken is not None:
        keep &= columns.night == (wanted.taken == "night")
    for name, column in OF_PICTURES.items():
        if (limits := getattr(wanted, name)) is not None:
            keep &= _within(getattr(columns, column), limits)
    if text := wanted.q.strip().lower():
        for i in np.flatnonzero(keep):
            keep[i] = text in index.texts[i]
    return keep


def _within(values: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
    """Bool; False for nan. Limits meet float32 values as float32, so that a value lies within its own limits."""
    low, high = np.float32(limits[0]), np.float32(limits[1])
    return (values >= low) & (values <= high)
