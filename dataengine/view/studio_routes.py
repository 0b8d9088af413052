"""Addresses of the drawing part of the page."""

from __future__ import annotations

from PIL import Image
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from dataengine.data.layout_json import layout_to_json
from dataengine.errors import UserError, first_fault
from dataengine.view.images import encoded, inside, picture
from dataengine.view.studio import Job, Order, Studio


def studio_routes(studio: Studio) -> list[Route]:
    """Routes that show, render and keep. All that changes anything is a POST (see security)."""

    def summary(request: Request) -> Response:
        return JSONResponse(studio.summary())

    def sampled(request: Request) -> Response:
        return JSONResponse(layout_to_json(studio.sampled(request.path_params["seed"])))

    def opened(request: Request) -> Response:
        scene = studio.opened((request.path_params["side"], request.path_params["i"]))
        return JSONResponse(layout_to_json(scene.layout))

    def opened_image(request: Request) -> Response:
        scene = studio.opened((request.path_params["side"], request.path_params["i"]))
        return Response(encoded(Image.fromarray(scene.image)), media_type="image/png")

    async def render(request: Request) -> Response:
        try:
            order = Order.model_validate_json(await request.body())
        except ValidationError as error:
            raise UserError(f"{first_fault(error, Order.model_fields)}.") from None
        return JSONResponse(_job(await run_in_threadpool(studio.submit, order)))

    def job(request: Request) -> Response:
        return JSONResponse(_job(_found(studio, request)))

    def rendered(request: Request) -> Response:
        result = _found(studio, request).result
        if result is None:
            raise HTTPException(404, "this image is not rendered yet")
        return Response(encoded(Image.fromarray(result.image)), media_type="image/png")

    def keep(request: Request) -> Response:
        index = studio.keep(request.path_params["number"])
        return JSONResponse({"index": index, "kept": studio.kept.indices()})

    def remove(request: Request) -> Response:
        _ready(studio).remove(request.path_params["index"])
        return JSONResponse({"kept": studio.kept.indices()})

    def kept(request: Request) -> Response:
        file = inside(_ready(studio).out.resolve(), f"drawn/{request.path_params['index']:08d}.png")
        return Response(picture(file)[0], media_type="image/png")

    return [
        Route("/api/draw", summary),
        Route("/api/draw/sampled/{seed:int}", sampled),
        Route("/api/draw/opened/{side}/{i:int}", opened),
        Route("/image/opened/{side}/{i:int}", opened_image),
        Route("/api/draw/render", render, methods=["POST"]),
        Route("/api/draw/render/{number:int}", job),
        Route("/image/render/{number:int}", rendered),
        Route("/api/draw/keep/{number:int}", keep, methods=["POST"]),
        Route("/api/draw/remove/{index:int}", remove, methods=["POST"]),
        Route("/image/kept/{index:int}", kept),
    ]


def _ready(studio: Studio):
    if studio.kept is None:
        raise HTTPException(409, "the models are still being loaded")
    return studio.kept


def _found(studio: Studio, request: Request) -> Job:
    job = studio.jobs.get(request.path_params["number"])
    if job is None:
        raise HTTPException(404, "there is no such image; render it again")
    return job


def _job(job: Job) -> dict:
    """What the page is told: the state and, once done, labels, verdict and what the detector saw."""
    told = {"number": job.number, "state": job.state, "error": job.error}
    if (made := job.result) is None:
        return told
    seen = made.detections
    return {
        **told,
        "labels": layout_to_json(made.labels),
        "asked": layout_to_json(made.asked),
        "scene": made.scene,
        "verdict": {
            "kept": made.verdict.kept,
            "reason": made.verdict.reason,
            "scores": made.verdict.scores,
            "found": made.found,
            "extra": made.verdict.extra,
        },
        "detections": [] if seen is None else [
            [int(label), round(float(score), 3), *(round(float(v), 3) for v in box)]
            for label, score, box in zip(seen.labels, seen.scores, seen.boxes, strict=True)
        ],
    }  # fmt: skip
