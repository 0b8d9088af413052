"""Which part of its box an object fills: GrabCut (Rother et al. 2004), begun from the boxes."""

from __future__ import annotations

import numpy as np

ITERATIONS = 4
LEAST = 0.1  # of the box is the object's, and it reaches
REACH = 0.75  # so far of the box's width and of its height, or it was not found
GAP = 0.06  # of the box's long side: narrower gaps in an object are closed
EDGE = 0.7  # pixels (standard deviation) over which it ends


def cutout(frame: np.ndarray, box: np.ndarray, objects: np.ndarray) -> np.ndarray | None:
    """Share of each pixel (F, F) float32 in [0, 1] that belongs to the object in a box; None where it cannot be told
    from the ground.

    frame: uint8 (F, F, 3). box, objects: bool (F, F), pixels of its box and of the boxes of all objects that are to be
    seen, beyond which there is ground alone. Of the box, ground like that is left out, islands and holes are not.
    """
    import cv2

    if box.all() or (box | objects).all() or not box.any():
        return None
    mask = np.where(box | objects, cv2.GC_PR_FGD, cv2.GC_BGD).astype(np.uint8)
    cv2.setRNGSeed(0)  # its clusters begin at random
    bgr = np.ascontiguousarray(frame[..., ::-1])
    cv2.grabCut(bgr, mask, None, np.zeros((1, 65)), np.zeros((1, 65)), ITERATIONS, cv2.GC_INIT_WITH_MASK)
    height, width = _extent(box)
    found = _whole(((mask == cv2.GC_PR_FGD) & box).astype(np.uint8), max(1, round(GAP * max(width, height))))
    reach = _extent(found)
    if found.sum() < LEAST * box.sum() or reach[0] < REACH * height or reach[1] < REACH * width:
        return None
    return cv2.GaussianBlur(found.astype(np.float32), (0, 0), EDGE) * box


def _extent(mask: np.ndarray) -> tuple[int, int]:
    """Height and width that a bool mask (F, F) spans."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return (int(np.ptp(rows)) + 1, int(np.ptp(columns)) + 1) if len(rows) else (0, 0)


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
