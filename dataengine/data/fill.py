"""Ignored regions of data sets that cannot say so: their pixels are replaced, so that nothing unlabelled is shown."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dataengine import geometry
from dataengine.data import images
from dataengine.data.layout import Layout

if TYPE_CHECKING:
    from PIL.Image import Image

    from dataengine.data.pixel_range import PixelRange

RING_PX = 4  # width of the ring around a region whose mean colour fills it


def place_filled(source: Path, layout: Layout, target: Path, pixel_range: PixelRange | None = None) -> None:
    """Write the image `source` to `target`, of any suffix, with the ignored regions of its layout filled. Without
    ignored regions, this is `images.place`.

    pixel_range: of deeper values than `target` can hold. Raises ValueError if the source is missing or cannot be
    decoded.
    """
    if not len(layout.ignored):
        images.place(source, target, pixel_range)
        return
    picture = images.for_suffix(source, target.suffix, pixel_range)
    if isinstance(picture, np.ndarray):
        filled = fill_regions(picture, layout.ignored, layout.boxes)
    else:
        filled = _filled(picture, layout)
    target.parent.mkdir(parents=True, exist_ok=True)
    images.save(filled, target, target.suffix)


def _filled(image: Image, layout: Layout) -> Image:
    from PIL.Image import fromarray

    if image.mode not in ("L", "RGB", "RGBA"):  # values that are no colours, or others than of RGB
        image = image.convert({"1": "L", "LA": "RGBA", "PA": "RGBA"}.get(image.mode, "RGB"))
    return fromarray(fill_regions(np.asarray(image), layout.ignored, layout.boxes))


def fill_regions(pixels: np.ndarray, regions: np.ndarray, objects: np.ndarray) -> np.ndarray:
    """A copy of `pixels` in which each region has the mean colour of the pixels around it. Pixels of objects stay.

    pixels: (H, W) or (H, W, C) of any numeric type. regions: boxes (M, 5). objects: labelled boxes (N, 5).

    >>> pixels = np.full((20, 20), 50, np.uint8)
    >>> pixels[8:12, 8:12] = 200
    >>> bool((fill_regions(pixels, np.array([[10, 10, 4, 4, 0]]), np.zeros((0, 5))) == 50).all())
    True
    """
    labelled = _covered(objects, pixels.shape[:2])
    hidden = _widened(_covered(regions, pixels.shape[:2]), 1)
    out = pixels.copy()
    for region in np.asarray(regions, np.float32).reshape(-1, 5):
        # around the region only, as an image may have many of them
        left, top, right, bottom = geometry.to_aabb(region)[0] + RING_PX * np.array([-2, -2, 2, 2])
        window = np.s_[max(0, int(top)) : max(0, int(bottom) + 1), max(0, int(left)) : max(0, int(right) + 1)]
        x, y = window[1].start, window[0].start
        shape = out[window].shape[:2]
        mask = _widened(_covered(region - np.float32([x, y, 0, 0, 0]), shape), 1)
        ring = _widened(mask, RING_PX) & ~hidden[window] & ~labelled[window]
        around = pixels[window][ring] if ring.any() else pixels.reshape(-1, *pixels.shape[2:])
        colour = around.mean(axis=0)
        whole = np.issubdtype(pixels.dtype, np.integer)
        out[window][mask & ~labelled[window]] = np.round(colour) if whole else colour
    return out


def _widened(mask: np.ndarray, by: int) -> np.ndarray:
    """A bool mask (H, W) widened by some pixels."""
    import cv2

    return cv2.dilate(mask.astype(np.uint8), np.ones((2 * by + 1,) * 2, np.uint8)).astype(bool)


def _covered(boxes: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """bool (H, W): the pixels that boxes (N, 5) cover."""
    import cv2

    mask = np.zeros(shape, np.uint8)
    for corners in geometry.to_corners(boxes):
        cv2.fillConvexPoly(mask, np.round(corners - 0.5).clip(-32_000, 32_000).astype(np.int32), 1)
    return mask.astype(bool)
