"""Cutting an object out of its box with GrabCut (Rother et al. 2004), and joining an image part to another image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

GRABCUT_ITERATIONS = 2  # with more, faint parts such as wing tips become background
CORE_SHARE = 0.2  # of the box's sides: an ellipse this large in the middle is surely object
MIN_OBJECT_SHARE = 0.1  # of the box: a smaller object was not found
MIN_EXTENT_SHARE = 0.75  # of the width and height of what differs from the ground: less, and parts were missed
MIN_REACH_SHARE = 0.5  # of the way from the box's centre to each side: what ends before is only part of the object
# A pixel differs from the ground if its contrast exceeds this share of the object's median contrast, and this quantile
# of the ground's own contrast; the ground is estimated by a blur of this width (standard deviation).
MIN_CONTRAST_SHARE, GROUND_QUANTILE, GROUND_BLUR_PX = 0.25, 0.9, 20.0
GAP_SHARE = 0.06  # of the box's long side: narrower gaps in an object are closed
EDGE_BLUR_PX = 1.0  # standard deviation of the mask's soft edge
# The object leaks out of its box where the box's last pixels (a rim this wide) look like the ground just outside it
# (blurred this much), within this many levels of 255, for a larger share of the rim than this.
RIM_PX, OUTSIDE_BLUR_PX, MAX_LEAK_LEVELS, MAX_LEAK_SHARE = 4, 5.0, 15.0, 0.15
MAX_EDGE_DEVIATIONS = 2.0  # median absolute deviations at which differences along an edge are clipped


@dataclass(frozen=True)
class Cutout:
    """An object without its background, in its frame.

    share: float32 (F, F) in [0, 1], of each pixel that belongs to the object.
    bounds: left, top, right, bottom in pixels, of the box that the object fills as far as it fills its label's box.
    """

    share: np.ndarray
    bounds: np.ndarray


def cutout(frame: np.ndarray, box: np.ndarray, objects: np.ndarray) -> Cutout | None:
    """The object in a box, or None where it cannot be separated from the ground.

    frame: uint8 (F, F, 3). box, objects: bool (F, F), pixels of the object's box and of all visible objects' boxes; the
    rest is ground. Inside the box, pixels like the ground are left out; islands and holes are not. What continues
    beyond the box is ground too, such as the strip between the objects of a row; then nothing is returned. Thin parts
    need resolution: wings are found in few boxes of 25 pixels and in most of 75, even if these are interpolated.
    Wing tips are often lost, and some labels are wider than their object. `bounds` distinguishes the two: beyond a lost
    tip there are pixels that differ from the ground, and in the margin of a wide label there are none.
    """
    import cv2

    if box.all() or (box | objects).all() or not box.any():
        return None
    bounds = np.reshape(extent(box), (2, 2))
    (left, top), (width, height) = bounds[0], np.ptp(bounds, axis=0)
    y, x = np.indices(box.shape)
    core = np.hypot((x + 0.5 - left - width / 2) / width, (y + 0.5 - top - height / 2) / height) < CORE_SHARE / 2
    mask = np.where(box | objects, cv2.GC_PR_FGD, cv2.GC_BGD).astype(np.uint8)
    mask[core & box] = cv2.GC_FGD
    cv2.setRNGSeed(0)  # GrabCut initialises its clusters at random
    bgr = np.ascontiguousarray(frame[..., ::-1])
    cv2.grabCut(bgr, mask, None, np.zeros((1, 65)), np.zeros((1, 65)), GRABCUT_ITERATIONS, cv2.GC_INIT_WITH_MASK)
    foreground = (mask == cv2.GC_FGD) | (mask == cv2.GC_PR_FGD)
    foreground = _largest_part((foreground & box).astype(np.uint8), max(1, round(GAP_SHARE * max(width, height))))
    inside = foreground & box
    if foreground.sum() < MIN_OBJECT_SHARE * box.sum() or _leak_share(frame, inside, box) > MAX_LEAK_SHARE:
        return None
    found = np.reshape(extent(inside), (2, 2))
    expected = np.reshape(extent(_unlike_ground(frame, foreground, box, objects)), (2, 2))
    share, half = np.ptp(found, axis=0) / np.ptp(expected, axis=0), np.ptp(bounds, axis=0) / 2
    reach = np.minimum(bounds.mean(0) - expected[0], expected[1] - bounds.mean(0))
    if (share < MIN_EXTENT_SHARE).any() or (reach < MIN_REACH_SHARE * half).any():
        return None
    bounds = found[0] + (bounds - expected[0]) * share
    return Cutout(cv2.GaussianBlur(foreground.astype(np.float32), (0, 0), EDGE_BLUR_PX) * box, bounds.ravel())


def _ground(frame: np.ndarray, where: np.ndarray, blur_px: float) -> np.ndarray:
    """Ground colours (F, F, 3) float32: pixels `where`, bool (F, F), blurred over the rest of the frame."""
    import cv2

    share = where.astype(np.float32)
    colours = cv2.GaussianBlur(frame * share[..., None], (0, 0), blur_px)
    return colours / np.maximum(cv2.GaussianBlur(share, (0, 0), blur_px), 1e-3)[..., None]


def _unlike_ground(frame: np.ndarray, foreground: np.ndarray, box: np.ndarray, objects: np.ndarray) -> np.ndarray:
    """Bool (F, F): the foreground, and all pixels of its box that are connected with it and differ from the ground."""
    import cv2

    free = ~(box | objects)
    smooth = cv2.GaussianBlur(frame.astype(np.float32), (0, 0), EDGE_BLUR_PX)
    contrast = np.abs(smooth - _ground(frame, free, GROUND_BLUR_PX)).max(2)
    least = max(MIN_CONTRAST_SHARE * np.median(contrast[foreground]), np.quantile(contrast[free], GROUND_QUANTILE))
    _, parts = cv2.connectedComponents((((contrast > least) | foreground) & box).astype(np.uint8))
    return np.isin(parts, np.unique(parts[foreground & box]))


def _leak_share(frame: np.ndarray, foreground: np.ndarray, box: np.ndarray) -> float:
    """Share of the box's rim where the foreground ends with the box although the same colours continue outside."""
    import cv2

    rim = box & (cv2.erode(box.astype(np.uint8), np.ones((2 * RIM_PX + 1,) * 2, np.uint8)) == 0)
    alike = np.abs(frame - _ground(frame, ~box, OUTSIDE_BLUR_PX)).mean(2) < MAX_LEAK_LEVELS
    return float((foreground & rim & alike).sum() / rim.sum())


def extent(mask: np.ndarray) -> tuple[int, int, int, int]:
    """Left, top, right and bottom, in pixels, of the true pixels of a bool mask (H, W), which must have some.

    >>> mask = np.zeros((5, 6), bool)
    >>> mask[1:3, 2:6] = True
    >>> extent(mask)
    (2, 1, 6, 3)
    """
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _largest_part(mask: np.ndarray, gap: int) -> np.ndarray:
    """The largest connected part of a mask (F, F) uint8, with narrow gaps closed and holes filled; bool."""
    import cv2

    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * gap + 1, 2 * gap + 1))
    mask = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, kernel)
    count, parts, statistics, _ = cv2.connectedComponentsWithStats(mask)
    if count < 2:
        return mask > 0
    largest = (parts == 1 + statistics[1:, cv2.CC_STAT_AREA].argmax()).astype(np.uint8)
    outlines, _ = cv2.findContours(largest, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return cv2.drawContours(largest, outlines, -1, 1, cv2.FILLED) > 0


def membrane(difference: np.ndarray, part: np.ndarray) -> np.ndarray:
    """What to add to an image part so that it meets its surroundings without a seam (Pérez et al. 2003).

    difference: float (F, F, C), surroundings minus part. part: bool (F, F), not all true. Returns float32 (F, F, C):
    inside the part, the mean difference along its edge, weighted by the inverse square of the distance, which
    approximates the harmonic function of Poisson editing; elsewhere the edge's median. Outliers along the edge, such as
    the next object of a row, are clipped: OpenCV's `seamlessClone` would spread their colour over the object.

    >>> part = np.zeros((8, 8), bool)
    >>> part[2:6, 2:6] = True
    >>> float(membrane(np.full((8, 8, 1), 7.0), part)[3, 3, 0])
    7.0
    """
    import cv2

    edge = (cv2.dilate(part.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0) & ~part
    along = difference[edge]
    middle = np.median(along, 0)
    limit = MAX_EDGE_DEVIATIONS * np.median(np.abs(along - middle), 0)
    along = np.clip(along, middle - limit, middle + limit)
    offsets = np.argwhere(part)[:, None] - np.argwhere(edge)
    weights = 1 / (offsets**2).sum(2)
    result = np.broadcast_to(middle, difference.shape).astype(np.float32)
    result[part] = weights @ along / weights.sum(1, keepdims=True)
    return result
