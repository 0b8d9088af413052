"""Addresses that change decisions: all are POST requests (see `security`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from dataengine.engine.decisions import Change, EditedObject
from dataengine.errors import UserError, first_fault
from dataengine.view.filters import read_filter
from dataengine.view.json_response import Json

if TYPE_CHECKING:
    from dataengine.view.gallery import Gallery


class DecideRequest(BaseModel):
    """do, tag, objects: as in `Change`. ids: of images, or else filter: all that match it, as in the page's address."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    do: Literal["accept", "reject", "filter", "tag", "untag", "correct", "restore"]
    ids: list[Annotated[int, Field(ge=0)]] | None = None
    filter: dict[str, list[str]] | None = None
    tag: str = ""
    objects: tuple[EditedObject, ...] | None = None


def decide_routes(gallery: Gallery) -> list[Route]:
    """Routes to decide about the images of a run, and to undo that."""

    def now(ids: list[int]) -> Response:
        shown = {str(i): gallery.choices.of(i) for i in ids[:200]}
        return Json({"decisions": gallery.choices.summary(), "changed": len(ids), "images": shown})

    def apply(body: bytes) -> Response:
        choices = _choices(gallery)
        try:
            asked = DecideRequest.model_validate_json(body)
            ids = asked.ids
            if ids is None:
                ids = gallery.matches(read_filter(asked.filter or {})).tolist()
            if not ids:
                raise UserError("no image is selected.")
            if max(ids) >= len(gallery.index):
                raise UserError("there is no such image; reload the page.")
            change = Change(do=asked.do, images=((0, ""),), tag=asked.tag.strip(), objects=asked.objects)
        except ValidationError as error:
            raise UserError(f"{first_fault(error, DecideRequest.model_fields)}.") from None
        choices.decide(change, ids)
        return now(ids)

    async def decide(request: Request) -> Response:
        return await run_in_threadpool(apply, await request.body())

    def step(request: Request) -> Response:
        do = request.path_params["do"]
        if do not in ("undo", "redo"):
            raise HTTPException(404, "there is no such step")
        choices = _choices(gallery)
        choices.step(do)
        return now([])

    def summary(request: Request) -> Response:
        choices = _choices(gallery)
        choices.refresh()
        return Json(choices.summary())

    return [
        Route("/api/made/decisions", summary),
        Route("/api/made/decide", decide, methods=["POST"]),
        Route("/api/made/decisions/{do}", step, methods=["POST"]),
    ]


def _choices(gallery: Gallery):
    if gallery.choices is None:
        raise UserError("decisions are made about the images of a run; this is a data set or was drawn by hand.")
    return gallery.choices
