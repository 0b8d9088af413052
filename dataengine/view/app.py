"""The page's addresses. Images are addressed by number; no address contains a file path."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image
from starlette.applications import Starlette
from starlette.convertors import Convertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from dataengine.data.images import rgb
from dataengine.data.pixel_range import PixelRange
from dataengine.errors import UserError
from dataengine.view.address import lists
from dataengine.view.decide_routes import decide_routes
from dataengine.view.detections import LazyDetector
from dataengine.view.gallery import Gallery, pairs_of, query_of
from dataengine.view.images import NotServedError, encoded, image_bytes
from dataengine.view.json_response import Json
from dataengine.view.neighbours import Neighbours
from dataengine.view.object_routes import ObjectRoutes
from dataengine.view.security import Guard

STATIC = Path(__file__).parent / "static"
SIDES = ("made", "real", "other")


@dataclass
class Site:
    """Content of the page. made: the viewed run or data set. real: real images to compare with. other: another run or
    data set to compare with, picture by picture. studio: for drawing layouts (`studio.Studio`). At least one of these
    is given. stoppers: called at the end. frame_ancestors: pages that may show this one, see `security`."""

    made: Gallery | None = None
    real: Gallery | None = None
    other: Gallery | None = None
    detector: LazyDetector | None = None
    neighbours: Neighbours | None = None
    studio: object | None = None
    stoppers: list[Callable[[], None]] = field(default_factory=list)
    frame_ancestors: str = "'none'"
    token: str = field(default_factory=lambda: secrets.token_urlsafe(32))


class Number(Convertor):
    """A whole number in an address. Others, such as one of thousands of digits, are addresses of nothing."""

    regex = "[0-9]{1,18}"

    def convert(self, value: str) -> int:
        return int(value)

    def to_string(self, value: int) -> str:
        return str(value)


register_url_convertor("number", Number())


def make_app(site: Site) -> Guard:
    """The ASGI application of a site."""
    page = Endpoints(site)
    routes = [
        Route("/", lambda request: FileResponse(STATIC / "index.html")),
        Route("/api/site", page.site),
        Route("/api/{side}/pictures", page.pictures),
        Route("/api/{side}/pictures/{i:number}", page.one),
        Route("/api/{side}/pictures/{i:number}/detections", page.detections),
        Route("/api/made/pictures/{i:number}/neighbours", page.neighbours),
        Route("/api/pairs", page.pairs),
        Route("/api/{side}/statistics", page.statistics),
        Route("/image/window/{k:number}", page.window),
        Route("/image/{side}/{i:number}", page.image),
        Mount("/static", StaticFiles(directory=STATIC)),
    ]
    galleries = {side: gallery for side in SIDES if (gallery := getattr(site, side)) is not None}
    if site.detector is None:
        site.detector = LazyDetector(None)
    objects = ObjectRoutes(site, galleries)
    site.stoppers.append(objects.stop)
    routes = objects.routes() + routes
    if site.made is not None:
        routes = decide_routes(site.made) + routes
    if site.studio is not None:
        from dataengine.view.studio_routes import studio_routes

        routes = studio_routes(site.studio) + routes  # first: /image/{side} would match their addresses
    handlers = {
        UserError: lambda request, error: Json({"error": str(error)}, 400),
        NotServedError: lambda request, error: Json({"error": str(error)}, 404),
        HTTPException: lambda request, error: Json({"error": error.detail}, error.status_code),
    }
    return Guard(Starlette(routes=routes, exception_handlers=handlers), site.token, site.frame_ancestors)


class Endpoints:
    """Plain functions, so that Starlette runs each in a thread."""

    def __init__(self, site: Site):
        self._site = site

    def _gallery(self, request: Request) -> Gallery:
        gallery = getattr(self._site, request.path_params["side"], None) if self._known(request) else None
        if gallery is None:
            raise HTTPException(404, "this page has no such side")
        return gallery

    def _known(self, request: Request) -> bool:
        return request.path_params["side"] in SIDES

    def site(self, request: Request) -> Response:
        shown = self._site
        first = shown.made.index.classes if shown.made is not None else ()
        sides = {side: gallery.summary(first) for side in SIDES if (gallery := getattr(shown, side)) is not None}
        studio = shown.studio.summary() if shown.studio is not None else None
        return Json({**sides, "studio": studio, "token": shown.token})

    def pictures(self, request: Request) -> Response:
        start, n = (_integer(request, name, default) for name, default in (("start", 0), ("n", 60)))
        return Json(self._gallery(request).page(query_of(lists(request)), start, n))

    def one(self, request: Request) -> Response:
        try:
            return Json(self._gallery(request).one(request.path_params["i"], query_of(lists(request))))
        except IndexError:
            raise HTTPException(404, "there is no such image") from None

    def pairs(self, request: Request) -> Response:
        """Images of the same name on both sides, by `pairs_of`."""
        shown = self._site
        if shown.made is None or shown.other is None:
            raise HTTPException(404, "there is nothing to compare with; give a run or data set with --compare")
        start, n = (_integer(request, name, default) for name, default in (("start", 0), ("n", 60)))
        return Json(pairs_of(shown.made, shown.other, query_of(lists(request)), start, n))

    def statistics(self, request: Request) -> Response:
        return Json(self._gallery(request).statistics(query_of(lists(request))))

    def detections(self, request: Request) -> Response:
        gallery, file = self._gallery(request), self._file(request)
        entry = gallery.index.entry(request.path_params["i"])
        return Json(self._site.detector.detect(file, entry.labels, entry.pixel_range))

    def neighbours(self, request: Request) -> Response:
        search = self._site.neighbours
        if search is None:
            raise HTTPException(404, "there are no real images to compare with; give them with --real")
        request.path_params["side"] = "made"
        file = self._file(request)
        search.start()
        try:
            found = search.nearest(rgb(file, self._site.made.pixel_range(request.path_params["i"])))
        except ValueError as error:
            raise NotServedError(str(error)) from None
        rows = [
            {
                "window": k,
                "picture": search.image_of[k],
                "name": search.real.names[search.image_of[k]],
                "distance": round(distance, 3),
                "corner": [*search.windows[k].corner],
                "size": [*search.windows[k].layout.size],
            }
            for distance, k in found
        ]
        return Json({"done": search.done, "total": len(search.windows), "error": search.error, "nearest": rows})

    def image(self, request: Request) -> Response:
        side = _integer(request, "side", 0)
        return _image(*image_bytes(self._file(request), min(side, 2048) or None, self._pixel_range(request)))

    def window(self, request: Request) -> Response:
        search = self._site.neighbours
        k = request.path_params["k"]
        if search is None or k >= len(search.windows):
            raise HTTPException(404, "there is no such window")
        return _image(encoded(Image.fromarray(search.windows[k].pixels())), "image/png")

    def _pixel_range(self, request: Request) -> PixelRange | None:
        return self._gallery(request).pixel_range(request.path_params["i"])

    def _file(self, request: Request) -> Path:
        try:
            return self._gallery(request).file(request.path_params["i"])
        except IndexError:
            raise HTTPException(404, "there is no such image") from None


def _image(content: bytes, media_type: str) -> Response:
    # addresses contain the source's fingerprint, so a changed image has another address
    return Response(content, media_type=media_type, headers={"Cache-Control": "private, max-age=86400"})


def _integer(request: Request, name: str, default: int) -> int:
    text = request.query_params.get(name, str(default))
    if not text.isdecimal() or len(text) > 9:
        raise UserError(f"{name}: give an integer, not {text!r}.")
    return int(text)
