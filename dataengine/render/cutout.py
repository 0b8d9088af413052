"""Which part of its box an object fills: GrabCut (Rother et al. 2004), begun from the boxes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

ITERATIONS = 2  # more of them take what is faint, such as the ends of wings, for ground
CORE = 0.2  # of the box's sides: what lies in the middle is the object
LEAST = 0.1  # of the box is the object's, or it was not found
REACH = 0.75  # of the width and height of what is unlike the ground, or part of the object was not found
FILL = 0.5  # of the way from the box's middle to each of its sides: what ends before is part of what the label means
# unlike the ground is what differs from it by this share of the object's own difference, and by more than this share
# of the ground itself, which is taken over so many pixels (standard deviation)
FAINT, AMID, FAR = 0.25, 0.9, 20.0
GAP = 0.06  # of the box's long side: narrower gaps in an object are closed
EDGE = 1.0  # pixels (standard deviation) over which it ends
RIM, SEAM = 4, 5.0  # where it ends with its box: the last pixels inside, and (standard deviation) the first outside,
SAME = 15.0  # which differ by so many levels of 255, or it goes on beyond the box, as ground does,
LEAK = 0.15  # for a larger share of the box's edge
CROSSING = 2.0  # times the usual difference from the edge's median: beyond, something crosses the edge


@dataclass(frozen=True)
class Cutout:
    """share: float32 (F, F) in [0, 1], of each pixel that belongs to the object. bounds: left, top, right and bottom,
    in pixels, of the box that this share fills as far as the whole object fills its own."""

    share: np.ndarray
    bounds: np.ndarray


def cutout(frame: np.ndarray, box: np.ndarray, objects: np.ndarray) -> Cutout | None:
    """The object in a box; None where it cannot be told from the ground.

    frame: uint8 (F, F, 3). box, objects: bool (F, F), pixels of its box and of the boxes of all objects that are to be
    seen, beyond which there is ground alone. Of the box, ground like that is left out, islands and holes are not. What
    goes on beyond the box is ground as well, that of a row between its objects; with it, nothing can be told. Thin
    parts want some pixels: wings are found in few boxes of 25 pixels, in most of 75, though these be interpolated.
    Their ends are lost even so, and some labels are wider than what they mean: `bounds` tells one from the other, for
    at the ends of wings there is something unlike the ground, and in the margin of a wide label there is not.
    """
    import cv2

    if box.all() or (box | objects).all() or not box.any():
        return None
    bounds = np.reshape(extent(box), (2, 2))
    (left, top), (width, height) = bounds[0], np.ptp(bounds, axis=0)
    y, x = np.indices(box.shape)
    core = np.hypot((x + 0.5 - left - width / 2) / width, (y + 0.5 - top - height / 2) / height) < CORE / 2
    mask = np.where(box | objects, cv2.GC_PR_FGD, cv2.GC_BGD).astype(np.uint8)
    mask[core & box] = cv2.GC_FGD
    cv2.setRNGSeed(0)  # its clusters begin at random
    bgr = np.ascontiguousarray(frame[..., ::-1])
    cv2.grabCut(bgr, mask, None, np.zeros((1, 65)), np.zeros((1, 65)), ITERATIONS, cv2.GC_INIT_WITH_MASK)
    found = (mask == cv2.GC_FGD) | (mask == cv2.GC_PR_FGD)
    found = _whole((found & box).astype(np.uint8), max(1, round(GAP * max(width, height))))
    inside = found & box
    if found.sum() < LEAST * box.sum() or _leak(frame, inside, box) > LEAK:
        return None
    mine = np.reshape(extent(inside), (2, 2))
    whole = np.reshape(extent(_unlike_ground(frame, found, box, objects)), (2, 2))
    part, half = np.ptp(mine, axis=0) / np.ptp(whole, axis=0), np.ptp(bounds, axis=0) / 2
    reached = np.minimum(bounds.mean(0) - whole[0], whole[1] - bounds.mean(0))
    if (part < REACH).any() or (reached < FILL * half).any():
        return None
    bounds = mine[0] + (bounds - whole[0]) * part
    return Cutout(cv2.GaussianBlur(found.astype(np.float32), (0, 0), EDGE) * box, bounds.ravel())


def _ground(frame: np.ndarray, where: np.ndarray, reach: float) -> np.ndarray:
    """Colours (F, F, 3) float32 of the ground `where` (F, F) bool, blurred over the rest by as many pixels."""
    import cv2

    share = where.astype(np.float32)
    colours = cv2.GaussianBlur(frame * share[..., None], (0, 0), reach)
    return colours / np.maximum(cv2.GaussianBlur(share, (0, 0), reach), 1e-3)[..., None]


def _unlike_ground(frame: np.ndarray, found: np.ndarray, box: np.ndarray, objects: np.ndarray) -> np.ndarray:
    """Bool (F, F): what was found, and what in its box hangs together with it and is unlike the ground around."""
    import cv2

    free = ~(box | objects)
    difference = np.abs(cv2.GaussianBlur(frame.astype(np.float32), (0, 0), EDGE) - _ground(frame, free, FAR)).max(2)
    unlike = difference > max(FAINT * np.median(difference[found]), np.quantile(difference[free], AMID))
    _, parts = cv2.connectedComponents(((unlike | found) & box).astype(np.uint8))
    return np.isin(parts, np.unique(parts[found & box]))


def _leak(frame: np.ndarray, found: np.ndarray, box: np.ndarray) -> float:
    """Share of the box's edge at which what was found ends with it, though beyond there is the same to be seen."""
    import cv2

    edge = box & (cv2.erode(box.astype(np.uint8), np.ones((2 * RIM + 1,) * 2, np.uint8)) == 0)
    alike = np.abs(frame - _ground(frame, ~box, SEAM)).mean(2) < SAME
    return float((found & edge & alike).sum() / edge.sum())


def extent(mask: np.ndarray) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of what a bool mask (F, F) holds, in pixels; it must hold something."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _whole(mask: np.ndarray, gap: int) -> np.ndarray:
    """The largest part of a mask (F, F) uint8, with narrow gaps closed and holes filled; bool."""
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
    """What is to be added within a part, so that it ends as its surroundings begin.

    difference: float (F, F, C), of the surroundings from the part. part: bool (F, F), not all of it. Returns float32
    (F, F, C): in the part the mean of the difference along its edge, weighted by the inverse square of the distance,
    much as the harmonic function that Poisson editing solves for; elsewhere the edge's median. What crosses the edge,
    such as the next of a row, counts no more than what is usual there: OpenCV's `seamlessClone` would carry its
    colour into the object.
    """
    import cv2

    edge = (cv2.dilate(part.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0) & ~part
    along = difference[edge]
    middle = np.median(along, 0)
    usual = CROSSING * np.median(np.abs(along - middle), 0)
    along = np.clip(along, middle - usual, middle + usual)
    apart = np.argwhere(part)[:, None] - np.argwhere(edge)
    weights = 1 / (apart**2).sum(2)
    result = np.broadcast_to(middle, difference.shape).astype(np.float32)
    result[part] = weights @ along / weights.sum(1, keepdims=True)
    return result
