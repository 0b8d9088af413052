"""Controls of the filter's calibration: what stands in the boxes of real objects and is none."""

from __future__ import annotations

import numpy as np

from dataengine import geometry
from dataengine.data.layout import Layout

GRAIN_PX, SQUARE_PX = 2, 4  # of the noise, and of the chequers
CHEQUERS = (60.0, 190.0)  # levels of 255
BLUR_SIGMA_SHARE = 0.3  # standard deviation of the blur over the short side of the box: no parts remain visible
BLURRED_BOX_SCALE = 1.1  # the blurred region over the box, so that the outline disappears too
GREY, BLOB_SHARE = 128.0, 0.8  # level of the blob, and its axes as a share of the box's sides


def paint_controls(image: np.ndarray, layout: Layout, rng: np.random.Generator) -> np.ndarray:
    """A copy of an image (H, W, 3) uint8 in which the box of each object shows noise, chequers or a grey blob instead.

    A detector that finds these as often as the objects says nothing about objects. Which one a box shows follows from
    `rng`; blobs lie on the mean colour of their box's rim.

    >>> one = Layout([[16, 16, 12, 8, 0]], [0], ("car",), (32, 32))
    >>> image = np.full((32, 32, 3), 90, np.uint8)
    >>> painted = paint_controls(image, one, np.random.default_rng(0))
    >>> bool((painted[14:18, 13:19] != 90).all()), bool((painted[:10] == 90).all())
    (True, True)
    """
    out = image.copy()
    for box, kind in zip(layout.boxes, rng.integers(0, 3, len(layout)), strict=True):
        _paint(out, box, (_noise, _chequers, _blob)[kind], rng)
    return out


def _paint(image: np.ndarray, box: np.ndarray, pattern, rng: np.random.Generator) -> None:
    """Fill the box (5,) of an image (H, W, 3) with a pattern, in place."""
    import cv2

    corners = geometry.to_corners(box[None])[0] - 0.5
    low = np.maximum(np.floor(corners.min(0)).astype(int), 0)
    high = np.minimum(np.ceil(corners.max(0)).astype(int) + 1, image.shape[1::-1])
    if (high <= low).any():
        return
    part = image[low[1] : high[1], low[0] : high[0]]
    mask = np.zeros(part.shape[:2], np.uint8)
    cv2.fillConvexPoly(mask, np.rint(corners - low).astype(np.int32), 1)
    if mask.any():
        part[mask > 0] = pattern(part.astype(np.float32), mask, box - np.float32([*low, 0, 0, 0]), rng)[mask > 0]


def _noise(part: np.ndarray, mask: np.ndarray, box: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    height, width = mask.shape
    grains = rng.uniform(0, 255, (-(-height // GRAIN_PX), -(-width // GRAIN_PX)))
    return _grey(grains.repeat(GRAIN_PX, 0).repeat(GRAIN_PX, 1)[:height, :width])


def _chequers(part: np.ndarray, mask: np.ndarray, box: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    rows, columns = np.indices(mask.shape) // SQUARE_PX
    return _grey(np.where((rows + columns) % 2, *CHEQUERS))


def _blob(part: np.ndarray, mask: np.ndarray, box: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    import cv2

    rim = (mask > 0) & (cv2.erode(mask, np.ones((3, 3), np.uint8), borderValue=0) == 0)
    y, x = np.indices(mask.shape)
    cos, sin = np.cos(box[4]), np.sin(box[4])
    along = ((x - box[0]) * cos + (y - box[1]) * sin) / max(box[2] * BLOB_SHARE / 2, 1)
    across = ((y - box[1]) * cos - (x - box[0]) * sin) / max(box[3] * BLOB_SHARE / 2, 1)
    inside = np.clip(4 * (1 - np.hypot(along, across)), 0, 1)[..., None]  # a soft edge
    return part[rim].mean(0) * (1 - inside) + GREY * inside


def _grey(levels: np.ndarray) -> np.ndarray:
    return np.repeat(levels[..., None], 3, 2)


def blur_objects(image: np.ndarray, layout: Layout) -> np.ndarray:
    """The blurred-object control, the hardest of the filter: every object becomes a blot of its colour at its place.

    image: uint8 (H, W, 3). Returns a copy in which each object, difficult ones included, is blurred within its box.
    """
    import cv2

    out = image.astype(np.float32)
    for box in layout.boxes:
        sigma = max(1.0, BLUR_SIGMA_SHARE * float(box[3]))
        grown = box * np.float32([1, 1, BLURRED_BOX_SCALE, BLURRED_BOX_SCALE, 1])
        corners = geometry.to_corners(grown[None])[0] - 0.5
        reach = int(np.ceil(3 * sigma))
        x1, y1 = np.maximum(np.floor(corners.min(0)).astype(int) - reach, 0)
        x2, y2 = np.minimum(np.ceil(corners.max(0)).astype(int) + reach + 1, (image.shape[1], image.shape[0]))
        if x2 <= x1 or y2 <= y1:
            continue
        part = out[y1:y2, x1:x2]
        mask = np.zeros(part.shape[:2], np.float32)
        cv2.fillConvexPoly(mask, np.rint(corners - (x1, y1)).astype(np.int32), 1.0)
        mask = cv2.GaussianBlur(mask, (0, 0), 1.0)[..., None]  # a soft edge, unlike that of an object
        part += mask * (cv2.GaussianBlur(part, (0, 0), sigma) - part)
    return np.clip(np.rint(out), 0, 255).astype(np.uint8)
