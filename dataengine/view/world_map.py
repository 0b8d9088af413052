"""`dataengine view` of a world: a zoomable map with its labels."""

from __future__ import annotations

import io
import secrets
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from dataengine import geometry
from dataengine.engine.world_folder import StoredWorld, WorldFolder, labels_at
from dataengine.errors import UserError
from dataengine.view.app import STATIC
from dataengine.view.json_response import Json
from dataengine.view.security import Guard
from dataengine.world.export import NAME, load_rasterio

TILE_PX = 512
KEPT_TILES = 256


def is_world(folder: Path) -> bool:
    """Whether a folder is that of a world."""
    return (folder / "world.json").is_file()


def serve_map(folder: Path, port: int, open: bool) -> None:
    """Serve the map of a world until Ctrl-C."""
    import typer

    from dataengine.view.serve import serve

    def started(address: str) -> None:
        typer.echo(f"{address}/   (Ctrl-C stops it)")
        if open:
            typer.launch(address)

    serve(make_map(folder), port, started)


def make_map(path: Path) -> Guard:
    """The ASGI application of a finished world. Raises UserError for one that is not finished or damaged."""
    stored = StoredWorld.load(WorldFolder(path).world)
    folder = WorldFolder(path, stored.levels)
    picture = folder.level(0) / "images" / f"{NAME}.tif"
    load_rasterio()
    if not picture.is_file():
        raise UserError(f"{path}: this world is not finished; continue it with the same dataengine world command.")
    layout, ids = labels_at(folder, stored, 0)
    corners = geometry.to_corners(layout.boxes).round(2)
    labels = [
        {"id": ids[i], "class": name, "difficult": bool(layout.difficult[i]), "corners": corners[i].tolist()}
        for i, name in enumerate(layout.names())
    ]
    about = {"size": stored.size, "levels": stored.levels, "gsd_m": stored.gsd_m, "tile": TILE_PX,
             "name": path.resolve().name, "classes": stored.classes}  # fmt: skip

    @lru_cache(maxsize=KEPT_TILES)
    def tile(halvings: int, column: int, row: int) -> bytes:
        return tile_bytes(picture, stored.size, halvings, column, row)

    def one(request: Request) -> Response:
        place = (request.path_params[name] for name in ("halvings", "column", "row"))
        try:
            return Response(tile(*place), media_type="image/jpeg", headers={"Cache-Control": "no-cache"})
        except IndexError:
            raise HTTPException(404, "there is no such tile") from None

    routes = [
        Route("/", lambda request: FileResponse(STATIC / "world" / "index.html")),
        Route("/api/world", lambda request: Json(about)),
        Route("/api/labels", lambda request: Json(labels)),
        Route("/tile/{halvings:number}/{column:number}/{row:number}", one),
        Mount("/static", StaticFiles(directory=STATIC)),
    ]
    handlers = {HTTPException: lambda request, error: Json({"error": error.detail}, error.status_code)}
    return Guard(Starlette(routes=routes, exception_handlers=handlers), secrets.token_urlsafe(32))


def tile_bytes(picture: Path, size: int, halvings: int, column: int, row: int) -> bytes:
    """A tile of TILE_PX pixels as JPEG, of the picture after some halvings of its resolution, from its overviews.

    Raises IndexError where the picture has no such tile.
    """
    rasterio = load_rasterio()
    from rasterio.enums import Resampling
    from rasterio.windows import Window

    if halvings > size.bit_length() or not (0 <= column << halvings < size and 0 <= row << halvings < size):
        raise IndexError
    side = TILE_PX << halvings
    left, top = column * side, row * side
    if left >= size or top >= size:
        raise IndexError
    width, height = min(side, size - left), min(side, size - top)
    shape = (3, max(1, -(-height >> halvings)), max(1, -(-width >> halvings)))
    with rasterio.open(picture) as file:
        pixels = file.read(window=Window(left, top, width, height), out_shape=shape, resampling=Resampling.average)
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0))).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()
