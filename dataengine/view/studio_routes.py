"""Addresses of the page for drawing layouts."""

from __future__ import annotations

import time

from PIL import Image
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from dataengine.data.layout import layout_to_json
from dataengine.errors import UserError, first_fault
from dataengine.render.canvas import Provenance
from dataengine.view.hand_drawn import image_name
from dataengine.view.images import encoded, image_bytes, inside
from dataengine.view.json_response import Json
from dataengine.view.studio import Job, RenderRequest, Studio


def studio_routes(studio: Studio) -> list[Route]:
    """Routes to render and keep layouts. All changes are POST requests (see `security`)."""

    def summary(request: Request) -> Response:
        return Json(studio.summary())

    def sampled(request: Request) -> Response:
        return Json(layout_to_json(studio.sample(request.path_params["seed"])))

    def opened(request: Request) -> Response:
        canvas = studio.open_image((request.path_params["side"], request.path_params["i"]))
        return Json({**layout_to_json(canvas.existing), "origin": origin_words(canvas.provenance)})

    def opened_image(request: Request) -> Response:
        canvas = studio.open_image((request.path_params["side"], request.path_params["i"]))
        return Response(encoded(Image.fromarray(canvas.image)), media_type="image/png")

    async def render(request: Request) -> Response:
        try:
            render_request = RenderRequest.model_validate_json(await request.body())
        except ValidationError as error:
            raise UserError(f"{first_fault(error, RenderRequest.model_fields)}.") from None
        return Json(_job(await run_in_threadpool(studio.submit, render_request)))

    def job(request: Request) -> Response:
        return Json(_job(_found(studio, request)))

    def rendered(request: Request) -> Response:
        result = _found(studio, request).result
        if result is None:
            raise HTTPException(404, "this image is not rendered yet")
        return Response(encoded(Image.fromarray(result.image)), media_type="image/png")

    def keep(request: Request) -> Response:
        index = studio.keep(request.path_params["number"])
        return Json({"index": index, "kept": studio.folder.indices()})

    def remove(request: Request) -> Response:
        _ready(studio).remove(request.path_params["index"])
        return Json({"kept": studio.folder.indices()})

    def kept(request: Request) -> Response:
        file = inside(_ready(studio).run.path.resolve(), image_name(request.path_params["index"]))
        return Response(image_bytes(file)[0], media_type="image/png")

    return [
        Route("/api/draw", summary),
        Route("/api/draw/sampled/{seed:number}", sampled),
        Route("/api/draw/opened/{side}/{i:number}", opened),
        Route("/image/opened/{side}/{i:number}", opened_image),
        Route("/api/draw/render", render, methods=["POST"]),
        Route("/api/draw/render/{number:number}", job),
        Route("/image/render/{number:number}", rendered),
        Route("/api/draw/keep/{number:number}", keep, methods=["POST"]),
        Route("/api/draw/remove/{index:number}", remove, methods=["POST"]),
        Route("/image/kept/{index:number}", kept),
    ]


def origin_words(provenance: Provenance) -> str:
    """Where a ground comes from, as a phrase.

    >>> origin_words(Provenance("window", "harbour", 40, 120, license="CC-BY-4.0"))
    'part of harbour from 40, 120 on (CC-BY-4.0)'
    >>> origin_words(Provenance("generated", seed=7))
    'generated from seed 7'
    """
    match provenance.kind:
        case "blank":
            return "generated with the objects"
        case "generated":
            return f"generated from seed {provenance.seed}"
    part = "turned and scaled part of" if provenance.kind == "augmented" else "part of"
    whole = provenance.kind == "window" and provenance.left is None
    place = "" if provenance.left is None else f" from {provenance.left}, {provenance.top} on"
    facts = ", ".join(filter(None, (provenance.source, provenance.license)))
    return f"{'the image' if whole else part} {provenance.name}{place}{f' ({facts})' if facts else ''}"


def _ready(studio: Studio):
    if studio.folder is None:
        raise HTTPException(409, "the models are still loading")
    return studio.folder


def _found(studio: Studio, request: Request) -> Job:
    job = studio.jobs.get(request.path_params["number"])
    if job is None:
        raise HTTPException(404, "there is no such image; render it again")
    return job


def _job(job: Job) -> dict:
    """A job for the page: its state and, once done, labels, verdict and detections."""
    seconds = time.monotonic() - job.began if job.state == "rendering" else 0.0
    state = {
        "number": job.number, "state": job.state, "error": job.error, "stage": job.stage, "seconds": round(seconds, 1),
        "usual": job.usual_s,
    }  # fmt: skip
    if (result := job.result) is None:
        return state
    detections = result.detections
    return {
        **state,
        "labels": layout_to_json(result.labels),
        "asked": layout_to_json(result.asked),
        "scene": origin_words(result.provenance),
        "verdict": {
            "kept": result.verdict.kept,
            "reason": result.verdict.reason,
            "scores": result.verdict.scores,
            "found": result.found,
            "extra": result.verdict.extra,
            "rule": result.rule,
        },
        "detections": [] if detections is None else [
            [int(label), round(float(score), 3), *(round(float(v), 3) for v in box)]
            for label, score, box in zip(detections.labels, detections.scores, detections.boxes, strict=True)
        ],
    }  # fmt: skip
