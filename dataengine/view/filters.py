"""The filter in a page's address, and the images that match it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from dataengine.data.layout import class_key
from dataengine.errors import UserError, first_fault
from dataengine.view.index import Index

if TYPE_CHECKING:
    from dataengine.view.choices import Choices

_NUMBER = r"-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?"


def _low_and_high(text) -> tuple[float, float]:
    found = re.fullmatch(rf"({_NUMBER})?\.\.({_NUMBER})?", text) if isinstance(text, str) else None
    if found is None:
        raise ValueError("give low..high, such as 0.1..0.5 or ..0.5")
    low, high = found.groups()
    return -np.inf if low is None else float(low), np.inf if high is None else float(high)


Range = Annotated[tuple[float, float] | None, BeforeValidator(_low_and_high)]
SORTS = ("index", "score", "-score", "objects", "-objects", "name")
DECISIONS = ("used", "accepted", "rejected", "corrected", "decided", "undecided")
IMAGE_COLUMNS = {"count": "objects", "altitude": "altitude", "gsd": "gsd", "camera_angle": "camera_angle"}


class Filter(BaseModel):
    """Conditions for an image. Ranges include both ends; unknown values match no range.

    cls, score, size: the image has an object of one of these classes, with a detector score and a longer side (pixels)
    in these ranges. One object must meet all three conditions; objects that a scene had before painting have no score.
    verdict: of the filter. decision: of a person; "used" are the images that exports contain. tag: the image has all of
    these.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    cls: tuple[str, ...] = Field((), alias="class")
    score: Range = None
    size: Range = None
    verdict: Literal["kept", "dropped"] | None = None
    decision: Literal[DECISIONS] | None = None
    tag: tuple[str, ...] = ()
    reason: str | None = None
    count: Range = None
    altitude: Range = None
    gsd: Range = None
    camera_angle: Range = None
    daylight: Literal["day", "night"] | None = Field(None, alias="taken")
    q: str = Field("", max_length=200)
    sort: Literal[SORTS] = "index"


def read_filter(values: Mapping[str, list[str]]) -> Filter:
    """The filter of an address's parameters, each a list of texts. Raises UserError with the invalid parameter.

    >>> read_filter({"class": ["car"], "score": ["..0.5"]}).score
    (-inf, 0.5)
    """
    given: dict = {}
    for name, texts in values.items():
        if name in ("class", "tag"):
            given[name] = tuple(texts)
        elif texts[-1] != "":
            given[name] = texts[-1]
    try:
        return Filter.model_validate(given)
    except ValidationError as error:
        names = [field.alias or name for name, field in Filter.model_fields.items()]
        raise UserError(f"{first_fault(error, names)}.") from None


def matching_images(index: Index, query: Filter, choices: Choices | None = None) -> np.ndarray:
    """Indices int64 (K,) of the images that match, in the filter's order; ties are in file order. choices: of a
    person, None where nothing can be decided."""
    mask = _mask(index, query)
    if query.decision is not None or query.tag:
        mask &= _decided(index, query, choices)
    ids = np.flatnonzero(mask)
    descending, key = query.sort.startswith("-"), query.sort.lstrip("-")
    if key == "index":
        return ids
    if key == "name":
        return np.array(sorted(ids.tolist(), key=lambda i: index.names[i]), np.int64)
    values = getattr(index.columns, key)[ids].astype(np.float64)
    # unknown values come last in both orders
    return ids[np.argsort(np.where(np.isnan(values), np.inf, -values if descending else values), kind="stable")]


def matching_objects(index: Index, query: Filter) -> np.ndarray:
    """Bool (M,): objects with the filter's class, score and size; conditions on images are ignored."""
    columns = index.columns
    keep = np.ones(len(columns.image), bool)
    if query.cls:
        numbers = {class_key(name): i for i, name in enumerate(index.classes)}
        keep &= np.isin(columns.label, [numbers.get(class_key(name), -1) for name in query.cls])
    if query.score is not None:
        keep &= _within(columns.object_score, query.score)
    if query.size is not None:
        keep &= _within(np.maximum(columns.box_w, columns.box_h), query.size)
    return keep


def _mask(index: Index, query: Filter) -> np.ndarray:
    columns = index.columns
    keep = np.ones(len(index), bool)
    if query.cls or query.score is not None or query.size is not None:
        keep = np.bincount(columns.image[matching_objects(index, query)], minlength=len(index)) > 0
    if query.verdict is not None:
        keep &= columns.kept == (query.verdict == "kept")
    if query.reason is not None:
        keep &= columns.reason == (index.reasons.index(query.reason) if query.reason in index.reasons else -1)
    if query.daylight is not None:
        keep &= columns.night == (query.daylight == "night")
    for name, column in IMAGE_COLUMNS.items():
        if (limits := getattr(query, name)) is not None:
            keep &= _within(getattr(columns, column), limits)
    if text := query.q.strip().lower():
        for i in np.flatnonzero(keep):
            keep[i] = text in index.texts[i]
    return keep


def _decided(index: Index, query: Filter, choices: Choices | None) -> np.ndarray:
    """Bool (N,): images with the filter's decision and tags."""
    nothing = np.zeros(len(index), bool)
    accepted = np.full(len(index), -1, np.int8) if choices is None else choices.accepted
    corrected = nothing if choices is None else choices.corrected
    decided = (accepted >= 0) | corrected | np.any([nothing, *(choices.tagged.values() if choices else ())], axis=0)
    keep = {
        None: ~nothing, "used": (accepted == 1) | ((accepted == -1) & (index.columns.kept != 0)),
        "accepted": accepted == 1, "rejected": accepted == 0, "corrected": corrected, "decided": decided,
        "undecided": ~decided,
    }[query.decision]  # fmt: skip
    for tag in query.tag:
        keep = keep & (choices.tagged.get(tag, nothing) if choices else nothing)
    return keep


def _within(values: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
    """Bool; False for NaN. Limits are float32 like the values, so that a value lies within its own limits."""
    low, high = np.float32(limits[0]), np.float32(limits[1])
    return (values >= low) & (values <= high)
