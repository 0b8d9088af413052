"""Addresses of objects: their list and crops, similar ones, maps of embeddings, and outcomes of detections."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from dataengine.errors import UserError
from dataengine.view.address import lists
from dataengine.view.embeddings import Embeddings, Item
from dataengine.view.gallery import Gallery, query_of
from dataengine.view.json_response import Json
from dataengine.view.objects import ObjectList, crop_bytes, starts
from dataengine.view.outcomes import KINDS, Outcomes

if TYPE_CHECKING:
    from dataengine.view.app import Site


class ObjectRoutes:
    """The state behind the addresses: lists, embeddings and outcomes, each made when first asked for."""

    def __init__(self, site: Site, galleries: dict[str, Gallery]):
        self.site, self.galleries = site, galleries
        self.lists = {side: ObjectList(gallery) for side, gallery in galleries.items()}
        compared = {side: gallery for side, gallery in galleries.items() if side != "other"}
        self.embeddings = {kind: Embeddings(compared, kind) for kind in ("objects", "pictures")} if compared else {}
        self.outcomes = {side: Outcomes(gallery, site.detector) for side, gallery in galleries.items()}

    def stop(self) -> None:
        """Stop all background work."""
        for one in (*self.embeddings.values(), *self.outcomes.values()):
            one.stop()

    def routes(self) -> list[Route]:
        """The addresses. All are read only."""
        return [
            Route("/api/map/{kind}", self.map),  # first: the next one would match it
            Route("/api/{side}/objects", self.objects),
            Route("/api/{side}/objects/{m:number}/similar", self.similar),
            Route("/api/{side}/objects/{m:number}/crop", self.object_crop),
            Route("/api/{side}/outcomes", self.confusion),
            Route("/api/{side}/outcomes/list", self.outcome_list),
            Route("/image/crop/{side}/{i:number}", self.crop),
        ]

    def _side(self, request: Request) -> str:
        side = request.path_params["side"]
        if side not in self.galleries:
            raise HTTPException(404, "this page has no such side")
        return side

    def objects(self, request: Request) -> Response:
        side, values = self._side(request), lists(request)
        order = request.query_params.get("order", "")
        near, version = self._near(side) if order.endswith("near") else (None, 0)
        start, n = _number(request, "start", 0), _number(request, "n", 60)
        found = self.lists[side].page(query_of(_without(values, "order")), order, int(start), int(n), version, near)
        if near is not None:
            found["progress"] = self._progress("objects")
        return Json(found)

    def _near(self, side: str) -> tuple[Callable[[], np.ndarray], int]:
        if "real" not in self.galleries or side == "real":
            raise UserError("the distance to real objects needs real images beside the run; give them with --real.")
        embeddings = self.embeddings["objects"]
        embeddings.start()
        return lambda: embeddings.near(side, "real"), embeddings.done

    def _progress(self, kind: str) -> dict:
        embeddings = self.embeddings[kind]
        return {"done": embeddings.done, "total": len(embeddings.items), "error": embeddings.error}

    def crop(self, request: Request) -> Response:
        gallery = self.galleries[self._side(request)]
        x, y, side, out = (
            _number(request, name, default) for name, default in (("x", 0), ("y", 0), ("w", 64), ("out", 160))
        )
        try:
            content = crop_bytes(gallery, request.path_params["i"], (x, y), side, int(out))
        except IndexError:
            raise HTTPException(404, "there is no such image") from None
        return Response(content, media_type="image/png", headers={"Cache-Control": "private, max-age=86400"})

    def object_crop(self, request: Request) -> Response:
        side, m = self._side(request), request.path_params["m"]
        if m >= len(self.galleries[side].index.columns.image):
            raise HTTPException(404, "there is no such object")
        item = self.lists[side].items([m])[0]
        x, y, w, h, _ = item["box"]
        width = max(16, 1.6 * max(w, h))
        content = crop_bytes(
            self.galleries[side], item["id"], (x, y), min(width, 2048), int(_number(request, "out", 96))
        )
        return Response(content, media_type="image/png")

    def similar(self, request: Request) -> Response:
        side, m = self._side(request), request.path_params["m"]
        gallery = self.galleries[side]
        if m >= len(gallery.index.columns.image):
            raise HTTPException(404, "there is no such object")
        i = int(gallery.index.columns.image[m])
        embeddings = self.embeddings["objects"]
        embeddings.start()
        found = embeddings.similar(Item(side, m, i, m - int(starts(gallery)[i]))) if side in embeddings.sides else []
        rows = [{"side": one.side, "distance": round(far, 3), **self._tile(one)} for far, one in found]
        return Json({**self._progress("objects"), "asked": self.lists[side].items([m])[0], "items": rows})

    def _tile(self, item: Item) -> dict:
        return self.lists[item.side].items([item.m])[0]

    def map(self, request: Request) -> Response:
        kind = request.path_params["kind"]
        if kind not in self.embeddings:
            raise HTTPException(404, "there is no such map")
        embeddings = self.embeddings[kind]
        embeddings.start()
        known, places, share = embeddings.map()
        items = [embeddings.items[j] for j in known]
        rows = {
            "side": [one.side for one in items],
            "id": [one.i for one in items],
            "object": [one.m for one in items],
            "x": np.round(places[:, 0], 4).tolist(),
            "y": np.round(places[:, 1], 4).tolist(),
            "class": [self._class(one) for one in items],
            "state": [self._state(one) for one in items],
        }
        return Json({**self._progress(kind), "share": round(share, 3), "points": rows})

    def _class(self, item: Item) -> str:
        if item.m < 0:
            return ""
        index = self.galleries[item.side].index
        return index.classes[int(index.columns.label[item.m])] if item.m < len(index.columns.label) else ""

    def _state(self, item: Item) -> str:
        gallery = self.galleries[item.side]
        kept, by_hand = gallery.index.columns.kept[item.i], -1
        if gallery.choices is not None:
            by_hand = gallery.choices.accepted[item.i]
        if item.side == "real" or kept < 0:
            return "real" if item.side == "real" else "kept"
        return "kept" if by_hand == 1 or (by_hand == -1 and kept == 1) else "dropped"

    def _kept(self, request: Request, side: str) -> np.ndarray:
        """Bool (N,): images that match the filter."""
        keep = np.zeros(len(self.galleries[side].index), bool)
        keep[self.galleries[side].matches(query_of(_without(lists(request), "least", "kind", "true", "seen")))] = True
        return keep

    def _least(self, request: Request) -> float:
        return _number(request, "least", 0.3)

    def confusion(self, request: Request) -> Response:
        side = self._side(request)
        outcomes = self.outcomes[side]
        outcomes.start()
        matrix = outcomes.counts(self._least(request), self._kept(request, side))
        n = len(outcomes.classes)
        kinds = {
            "true": int(np.trace(matrix[:n, :n])),
            "confused": int(matrix[:n, :n].sum() - np.trace(matrix[:n, :n])),
            "false": int(matrix[n, :n].sum()),
            "missed": int(matrix[:n, n].sum()),
        }
        return Json({
            "done": outcomes.done, "total": len(outcomes.ids), "error": outcomes.error, "classes": outcomes.classes,
            "detector": outcomes.detector.name, "matrix": matrix.tolist(), "kinds": kinds,
        })  # fmt: skip

    def outcome_list(self, request: Request) -> Response:
        side = self._side(request)
        outcomes, gallery = self.outcomes[side], self.galleries[side]
        kind = request.query_params.get("kind", "all")
        if kind not in (*KINDS, "all"):
            raise UserError(f"kind: must be one of {', '.join(KINDS)}, or all, not {kind!r}.")
        true, seen = (
            int(_number(request, name, 0)) if name in request.query_params else None for name in ("true", "seen")
        )
        rows = outcomes.rows(kind, self._least(request), self._kept(request, side), true, seen)
        start, n = int(_number(request, "start", 0)), int(_number(request, "n", 60))
        first, items = starts(gallery), []
        for row in rows[start : start + min(n, 200)]:
            entry = gallery.index.entry(row["i"])
            box = row["box"] or [round(float(v), 3) for v in entry.labels.boxes[row["k"]]]
            label = None if row["k"] < 0 else [round(float(v), 3) for v in entry.labels.boxes[row["k"]]]
            names = [*outcomes.classes, "nothing"]
            items.append({
                "id": row["i"], "k": row["k"], "object": int(first[row["i"]]) + row["k"] if row["k"] >= 0 else -1,
                "name": entry.name, "class": names[row["true"] if row["k"] >= 0 else row["seen"]], "box": label or box,
                "seen": None if row["box"] is None else box, "size": entry.labels.size, "kind": row["kind"],
                "words": _words(row, names), "score": row["score"] or None,
            })  # fmt: skip
        return Json({"total": len(rows), "start": start, "items": items})


def _words(row: dict, names: list[str]) -> str:
    """An outcome in words, such as "car, seen as van"."""
    match row["kind"]:
        case "true":
            return f"{names[row['true']]}, found"
        case "missed":
            return f"{names[row['true']]}, missed"
        case "false":
            return f"{names[row['seen']]}, no label there"
    return f"{names[row['true']]}, seen as {names[row['seen']]}"


def _without(values: dict, *names: str) -> dict:
    return {name: value for name, value in values.items() if name not in names}


def _number(request: Request, name: str, default: float) -> float:
    text = request.query_params.get(name, str(default))
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or not 0 <= abs(value) < 1e9 or len(text) > 24:
        raise UserError(f"{name}: give a number, not {text[:40]!r}.")
    return value
