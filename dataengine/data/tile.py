"""Cutting large images into overlapping tiles, with the visible part of each object."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dataengine import geometry
from dataengine.data import images
from dataengine.data.layout import Dataset, Layout, Problem, Sample
from dataengine.data.staging import check_empty
from dataengine.data.tiled_tiff import open_tiled
from dataengine.errors import UserError

if TYPE_CHECKING:
    from PIL.Image import Image

Window = tuple[int, int, int, int]  # x, y, width, height
MIN_VISIBLE = 0.7  # fraction of an object's area in a tile from which it is an object of the tile
UNCUT_VISIBLE = 0.999  # visible fraction above which an object counts as uncut, up to float32 rounding


def windows(image_size: tuple[int, int], size: int, overlap: int) -> Iterator[tuple[int, int, int, int]]:
    """(x, y, width, height) of the tiles of an image, `size - overlap` apart. The last tile of a row or column is moved
    back to end with the image. A smaller image is a smaller tile, without padding.

    >>> list(windows((250, 100), size=100, overlap=20))
    [(0, 0, 100, 100), (80, 0, 100, 100), (150, 0, 100, 100)]
    """
    width, height = image_size
    for y in _starts(height, size, overlap):
        for x in _starts(width, size, overlap):
            yield x, y, min(size, width), min(size, height)


def _starts(length: int, size: int, overlap: int) -> list[int]:
    if length <= size:
        return [0]
    return [*range(0, length - size, size - overlap), length - size]


def crop_layout(layout: Layout, window: tuple[int, int, int, int], min_visible: float) -> Layout:
    """The layout of the window (x, y, width, height).

    Objects with at least `min_visible` of their area inside are clipped to the minimum-area box of the part inside, and
    their `visible` is multiplied by that fraction. The parts inside of other objects become ignored regions.
    """
    x, y, width, height = window
    size, shift = (width, height), np.array([x, y, 0, 0, 0], np.float32)
    boxes = layout.boxes - shift
    fraction = geometry.visible_fraction(boxes, size) * layout.visible if len(boxes) else np.zeros(0, np.float32)
    keep, cut = fraction >= max(min_visible, 1e-6), (fraction > 1e-6) & (fraction < min_visible)
    ignored = np.concatenate([_clip(boxes[cut], size, layout.kind), _clip(layout.ignored - shift, size, layout.kind)])
    kept = layout.select(keep)
    visible = np.where(fraction[keep] > UNCUT_VISIBLE, 1, fraction[keep]).astype(np.float32)
    return replace(kept, boxes=_clip(boxes[keep], size, layout.kind), visible=visible, size=size, ignored=ignored)


def _clip(boxes: np.ndarray, size: tuple[int, int], kind: str) -> np.ndarray:
    """Boxes clipped to the image: boxes inside are unchanged, boxes outside are dropped."""
    if not len(boxes):
        return boxes
    fraction = geometry.visible_fraction(boxes, size)
    cut = (fraction > 1e-6) & (fraction <= UNCUT_VISIBLE)
    result = boxes.copy()
    if cut.any():
        result[cut] = (geometry.clip_aabb if kind == "hbb" else geometry.clip)(boxes[cut], size)
    return result[fraction > 1e-6]


def tile(
    dataset: Dataset,
    out: str | Path,
    size: int = 1024,
    overlap: int = 200,
    min_visible: float = MIN_VISIBLE,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Dataset:
    """Write tiles as PNG into the folder `out` and return the data set of tiles.

    size:        side of a tile in pixels. overlap: pixels shared by neighbouring tiles, less than `size`.
    min_visible: minimum fraction of an object's area in a tile, in (0, 1], for it to be an object of the tile.
    progress:    called with (images done, number of images).

    One source image is in memory at a time; of a tiled TIFF, such as a Cloud-Optimized GeoTIFF, parts of it. Values of
    16 bits are kept; those that no PNG can hold are scaled to 8 bits by the pixel range of the data set. Tiles are
    named `<image>__<size>__<x>___<y>` as by mmrotate's splitter, so that its tools can merge detections. An image that
    cannot be decoded becomes a problem of the result.
    Raises UserError for invalid sizes and fractions, and if `out` is not empty.
    """
    out = Path(out)
    if size <= 0 or not 0 <= overlap < size:
        raise UserError(f"tiles of {size} pixels cannot overlap by {overlap}; the overlap must be at least 0 and less")
    if not 0 < min_visible <= 1:
        raise UserError(f"min_visible is {min_visible}; give a fraction above 0 and up to 1")
    check_empty(out, "tiles")
    samples: list[Sample] = []
    problems = list(dataset.problems)
    for done, sample in enumerate(dataset, 1):
        try:
            samples += _tile_image(sample, out, size, overlap, min_visible)
        except ValueError as error:
            problems.append(Problem(sample.image, None, f"{error}; the image is skipped"))
        if progress is not None:
            progress(done, len(dataset))
    return replace(dataset, samples=samples, problems=problems)


def _tile_image(sample: Sample, out: Path, size: int, overlap: int, min_visible: float) -> list[Sample]:
    with open_tiled(sample.image) as tiled:
        if tiled is not None:
            return cut(sample, out, tiled.size, tiled.part, size, overlap, min_visible)
    picture = images.for_suffix(sample.image, ".png", sample.pixel_range)
    if isinstance(picture, np.ndarray):

        def part(window: Window) -> np.ndarray:
            x, y, width, height = window
            return np.ascontiguousarray(picture[y : y + height, x : x + width])

        return cut(sample, out, picture.shape[1::-1], part, size, overlap, min_visible)

    def crop(window: Window) -> Image:
        x, y, width, height = window
        return picture.crop((x, y, x + width, y + height))

    return cut(sample, out, picture.size, crop, size, overlap, min_visible)


def cut(
    sample: Sample,
    out: Path,
    full: tuple[int, int],
    part: Callable[[Window], np.ndarray | Image],
    size: int,
    overlap: int,
    min_visible: float,
) -> list[Sample]:
    """The tiles of one image, written as PNG into the folder `out`.

    full: its (width, height). part: the pixels of a window. The others are as of `tile`.
    """
    tiles = []
    for window in windows(full, size, overlap):
        name = f"{sample.name}__{size}__{window[0]}___{window[1]}"
        path = out / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        images.save(part(window), path, ".png", compress_level=1)
        tiles.append(replace(sample, name=name, image=path, layout=crop_layout(sample.layout, window, min_visible)))
    return tiles
