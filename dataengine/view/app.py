"""The page's addresses. Everything is read by number from an index; no address holds a path of the disk."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from dataengine.errors import UserError
from dataengine.view.detections import Looker
from dataengine.view.gallery import Gallery, wanted_of
from dataengine.view.images import NotServedError, encoded, picture
from dataengine.view.neighbours import Neighbours
from dataengine.view.security import Guard

STATIC = Path(__file__).parent / "static"
SIDES = ("made", "real")


@dataclass
class Site:
    """What is shown. made: the run or data set looked at; real: the one beside it; studio: where layouts are drawn
    (`studio.Studio`). Each may be None, not all of them."""

    made: Gallery | None = None
    real: Gallery | None = None
    looker: Looker | None = None
    neighbours: Neighbours | None = None
    studio: object | None = None
    token: str = field(default_factory=lambda: secrets.token_urlsafe(32))


def make_app(site: Site) -> Guard:
    """The ASGI application of a site."""
    page = Endpoints(site)
    routes = [
        Route("/", lambda request: FileResponse(STATIC / "index.html")),
        Route("/api/site", page.site),
        Route("/api/{side}/pictures", page.pictures),
        Route("/api/{side}/pictures/{i:int}", page.one),
        Route("/api/{side}/pictures/{i:int}/detections", page.detections),
        Route("/api/made/pictures/{i:int}/neighbours", page.neighbours),
        Route("/api/{side}/statistics", page.statistics),
        Route("/image/window/{k:int}", page.window),
        Route("/image/{side}/{i:int}", page.image),
        Mount("/static", StaticFiles(directory=STATIC)),
    ]
    if site.studio is not None:
        from dataengine.view.studio_routes import studio_routes

        routes = studio_routes(site.studio) + routes  # first, since /image/{side} would take theirs
    handlers = {
        UserError: lambda request, error: JSONResponse({"error": str(error)}, 400),
        NotServedError: lambda request, error: JSONResponse({"error": str(error)}, 404),
        HTTPException: lambda request, error: JSONResponse({"error": error.detail}, error.status_code),
    }
    return Guard(Starlette(routes=routes, exception_handlers=handlers), site.token)


def lists(request: Request) -> dict[str, list[str]]:
    """The address's parameters, each with all its values."""
    return {name: request.query_params.getlist(name) for name in request.query_params}


class Endpoints:
    """Plain functions, so that Starlette runs each in a thread."""

    def __init__(self, site: Site):
        self._site = site

    def _gallery(self, request: Request) -> Gallery:
        gallery = getattr(self._site, request.path_params["side"], None) if self._known(request) else None
        if gallery is None:
            raise HTTPException(404, "there is no such side of the page")
        return gallery

    def _known(self, request: Request) -> bool:
        return request.path_params["side"] in SIDES

    def site(self, request: Request) -> Response:
        shown = self._site
        first = shown.made.index.classes if shown.made is not None else ()
        found = {side: gallery.summary(first) for side in SIDES if (gallery := getattr(shown, side)) is not None}
        studio = shown.studio.summary() if shown.studio is not None else None
        return JSONResponse({**found, "studio": studio, "token": shown.token})

    def pictures(self, request: Request) -> Response:
        start, n = (_whole(request, name, default) for name, default in (("start", 0), ("n", 60)))
        return JSONResponse(self._gallery(request).page(wanted_of(lists(request)), start, n))

    def one(self, request: Request) -> Response:
        try:
            return JSONResponse(self._gallery(request).one(request.path_params["i"], wanted_of(lists(request))))
        except IndexError:
            raise HTTPException(404, "there is no such image") from None

    def statistics(self, request: Request) -> Response:
        return JSONResponse(self._gallery(request).figures(wanted_of(lists(request))))

    def detections(self, request: Request) -> Response:
        gallery, file = self._gallery(request), self._file(request)
        labels = gallery.index.record(request.path_params["i"])["labels"]
        return JSONResponse(self._site.looker.look(file, labels))

    def neighbours(self, request: Request) -> Response:
        search = self._site.neighbours
        if search is None:
            raise HTTPException(404, "there are no real images beside these; give them with --real")
        request.path_params["side"] = "made"
        file = self._file(request)
        search.start()
        with Image.open(file) as image:
            found = search.nearest(np.asarray(image.convert("RGB")))
        rows = [
            {
                "window": k,
                "picture": search.of_picture[k],
                "name": search.real.names[search.of_picture[k]],
                "distance": round(distance, 3),
                "corner": [*search.windows[k].corner],
                "size": [*search.windows[k].layout.size],
            }
            for distance, k in found
        ]
        return JSONResponse({"done": search.done, "total": len(search.windows), "error": search.error, "nearest": rows})

    def image(self, request: Request) -> Response:
        side = _whole(request, "side", 0)
        return _picture(*picture(self._file(request), min(side, 2048) or None))

    def window(self, request: Request) -> Response:
        search = self._site.neighbours
        k = request.path_params["k"]
        if search is None or k >= len(search.windows):
            raise HTTPException(404, "there is no such window")
        return _picture(encoded(Image.fromarray(search.windows[k].pixels())), "image/png")

    def _file(self, request: Request) -> Path:
        try:
            return self._gallery(request).file(request.path_params["i"])
        except IndexError:
            raise HTTPException(404, "there is no such image") from None


def _picture(content: bytes, media_type: str) -> Response:
    # addresses hold the source's fingerprint, so that another image has another address
    return Response(content, media_type=media_type, headers={"Cache-Control": "private, max-age=86400"})


def _whole(request: Request, name: str, default: int) -> int:
    text = request.query_params.get(name, str(default))
    if not text.isdecimal() or len(text) > 9:
        raise UserError(f"{name}: give a whole number, not {text!r}.")
    return int(text)
