"""Labelled objects one by one: those that match a filter, in an order, and their crops."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from dataengine.data.images import rgb
from dataengine.data.pixel_range import PixelRange
from dataengine.errors import UserError
from dataengine.view.filters import Filter, matching_objects
from dataengine.view.gallery import Gallery
from dataengine.view.images import NotServedError, encoded

ORDERS = ("", "score", "-score", "size", "-size", "class", "near", "-near")
MAX_PAGE_SIZE = 200
MAX_CROP_PX = 2048
MAX_HELD_PIXELS = 24_000_000  # of a decoded image that is kept for its other crops
BACKGROUND = (36, 39, 42)  # outside of the image


def starts(gallery: Gallery) -> np.ndarray:
    """Index int64 (N + 1,) in the columns of the first object of each image; the last one is the number of objects."""
    return np.concatenate([[0], np.cumsum(gallery.index.columns.objects, dtype=np.int64)])


def selected(gallery: Gallery, query: Filter) -> np.ndarray:
    """Indices int64 (K,) in the columns of the objects that match, in images that match."""
    index = gallery.index
    images = np.zeros(len(index), bool)
    images[gallery.matches(query.model_copy(update={"sort": "index"}))] = True
    return np.flatnonzero(matching_objects(index, query) & images[index.columns.image])


def ordered(gallery: Gallery, objects: np.ndarray, order: str, near: np.ndarray | None) -> np.ndarray:
    """The objects in an order of ORDERS; unknown values come last. near: float32 (M,), distance of each object to the
    nearest real one, NaN where unknown."""
    if order not in ORDERS:
        raise UserError(f"order: must be one of {', '.join(ORDERS[1:])}, not {order!r}.")
    columns, key = gallery.index.columns, order.removeprefix("-")
    if not key:
        return objects
    if key == "size":
        values = np.maximum(columns.box_w[objects], columns.box_h[objects])
    elif key == "class":
        values = columns.label[objects].astype(np.float32)
    elif key == "near":
        values = np.full(len(objects), np.nan, np.float32) if near is None else near[objects]
    else:
        values = columns.object_score[objects]
    values = np.where(np.isnan(values), np.inf, -values if order.startswith("-") else values)
    return objects[np.argsort(values, kind="stable")]


class ObjectList:
    """Objects of a gallery for the page, with cached orders."""

    def __init__(self, gallery: Gallery):
        self.gallery = gallery
        self._ordered = lru_cache(maxsize=8)(self._sort)

    def _sort(self, query: Filter, order: str, near_version: int, near, version: int) -> np.ndarray:
        return ordered(self.gallery, selected(self.gallery, query), order, None if near is None else near())

    def page(self, query: Filter, order: str, start: int, n: int, near_version: int = 0, near=None) -> dict:
        """`total`, and `items`: at most n objects from position `start` on. near: () -> float32 (M,), see `ordered`;
        near_version: changes with its values."""
        found = self._ordered(query, order, near_version, near, self.gallery.version)
        shown = found[max(0, start) : max(0, start) + min(n, MAX_PAGE_SIZE)]
        distances = None if near is None else near()
        return {"total": len(found), "start": start, "items": self.items(shown.tolist(), distances)}

    def items(self, objects: list[int], near: np.ndarray | None = None) -> list[dict]:
        """Tiles of objects by their index in the columns."""
        gallery, columns = self.gallery, self.gallery.index.columns
        first, entries, items = starts(gallery), {}, []
        for m in objects:
            i = int(columns.image[m])
            entry = entries.get(i) or entries.setdefault(i, gallery.index.entry(i))
            k = m - int(first[i])
            labels = entry.labels
            item = {
                "object": m, "id": i, "k": k, "name": entry.name, "class": labels.classes[labels.labels[k]],
                "box": [round(float(v), 3) for v in labels.boxes[k]], "size": labels.size,
                "difficult": bool(labels.difficult[k]),
            }  # fmt: skip
            if not np.isnan(columns.object_score[m]):
                item["score"] = round(float(columns.object_score[m]), 4)
            if entry.record is not None:
                item |= {"kept": entry.record.accepted, "own": bool(columns.own[m])}
            if near is not None and not np.isnan(near[m]):
                item["near"] = round(float(near[m]), 3)
            items.append(item)
        return items


@lru_cache(maxsize=8)
def _pixels(file: Path, modified_ns: int, pixel_range: PixelRange | None) -> np.ndarray:
    return rgb(file, pixel_range)


def pixels_of(gallery: Gallery, i: int) -> np.ndarray:
    """Pixels uint8 (H, W, 3) of image i. Raises IndexError, and NotServedError for a broken image."""
    file, pixel_range = gallery.file(i), gallery.pixel_range(i)
    width, height = gallery.index.columns.width[i], gallery.index.columns.height[i]
    try:
        if int(width) * int(height) > MAX_HELD_PIXELS:
            return rgb(file, pixel_range)
        return _pixels(file, file.stat().st_mtime_ns, pixel_range)
    except (ValueError, Image.DecompressionBombError) as error:
        raise NotServedError(str(error)) from None


def crop_bytes(gallery: Gallery, i: int, centre: tuple[float, float], side: float, out: int) -> bytes:
    """PNG of the square of `side` pixels around a point of image i, scaled to `out` pixels; grey outside the image.

    Raises UserError for values out of range.
    """
    if not (1 <= side <= MAX_CROP_PX and 8 <= out <= 512 and all(abs(v) < 1e6 for v in centre)):
        raise UserError(f"crop: give a side of 1 to {MAX_CROP_PX} pixels and a result of 8 to 512.")
    image = Image.fromarray(pixels_of(gallery, i))
    left, top = centre[0] - side / 2, centre[1] - side / 2
    # Pillow's transform samples at the exact position, also at parts of a pixel
    resample = Image.Resampling.BICUBIC if out >= side else Image.Resampling.BILINEAR
    shrink = max(1, int(side / out))
    if shrink > 1:
        edges = max(0, left), max(0, top), min(image.width, left + side), min(image.height, top + side)
        box = tuple(map(int, edges))
        if box[2] <= box[0] or box[3] <= box[1]:
            return encoded(Image.new("RGB", (out, out), BACKGROUND))
        image = image.crop(box).reduce(shrink)
        left, top, side = (left - box[0]) / shrink, (top - box[1]) / shrink, side / shrink
    step = side / out
    cropped = image.transform(
        (out, out), Image.Transform.AFFINE, (step, 0, left, 0, step, top), resample, fillcolor=BACKGROUND
    )
    return encoded(cropped)
