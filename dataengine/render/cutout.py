"""Which part of its box an object fills: GrabCut (Rother et al. 2004), begun from the boxes, and what else differs."""

from __future__ import annotations

import numpy as np

ITERATIONS = 2  # more of them take what is faint, such as the ends of wings, for ground
CORE = 0.2  # of the box's sides: what lies in the middle is the object
LEAST = 0.15  # of the box is the object's, or it was not found
# unlike the ground, from not at all to wholly, is what differs from its mean over FAR pixels (standard deviation) by so
# many times what the ground itself does, all but a tenth of it, or by so many times this share of what the object does
UNLIKE, MOST, FAR, FAINT = (0.8, 1.6), 0.9, 20.0, 0.1
GAP = 0.06  # of the box's long side: narrower gaps in an object are closed
EDGE = 1.0  # pixels (standard deviation) over which it ends
RIM, SEAM = 4, 5.0  # along the box's edge: the last pixels inside, and (standard deviation) the first outside,
SAME = 15.0  # which differ by less than so many levels of 255, where there is ground that goes on beyond the box
LEAK, PANE = 0.2, 0.5  # of such ground is taken for the object's, at most, by GrabCut, and in all


def cutout(frame: np.ndarray, box: np.ndarray, objects: np.ndarray) -> np.ndarray | None:
    """Share of each pixel that is the object's in a box, float32 (F, F) in [0, 1]; None where it cannot be told.

    frame: uint8 (F, F, 3). box, objects: bool (F, F), pixels of its box and of the boxes of all objects that are to be
    seen, beyond which there is ground alone. The object is what GrabCut finds, without islands and holes, and all else
    in the box that is unlike the ground: ends of wings, wheels, the bright seam that a camera's sharpening makes. Where
    GrabCut takes the ground along, which then goes on beyond the box as between those of a row, the latter alone.
    """
    import cv2

    if box.all() or (box | objects).all() or not box.any():
        return None
    left, top, right, bottom = extent(box)
    width, height = right - left, bottom - top
    y, x = np.indices(box.shape)
    core = np.hypot((x + 0.5 - left - width / 2) / width, (y + 0.5 - top - height / 2) / height) < CORE / 2
    mask = np.where(box | objects, cv2.GC_PR_FGD, cv2.GC_BGD).astype(np.uint8)
    mask[core & box] = cv2.GC_FGD
    cv2.setRNGSeed(0)  # its clusters begin at random
    bgr = np.ascontiguousarray(frame[..., ::-1])
    cv2.grabCut(bgr, mask, None, np.zeros((1, 65)), np.zeros((1, 65)), ITERATIONS, cv2.GC_INIT_WITH_MASK)
    found = (mask == cv2.GC_FGD) | (mask == cv2.GC_PR_FGD)
    found = _whole((found & box).astype(np.uint8), max(1, round(GAP * max(width, height))))
    unlike = _unlike_ground(frame, box, ~(box | objects)) * box
    if _leak(frame, found & box, box) <= LEAK:
        share = np.maximum(unlike, cv2.GaussianBlur(found.astype(np.float32), (0, 0), EDGE) * box)
    else:
        share, found = unlike, core & box
    share *= _beside(share > 0.5, found)
    told = share.sum() > LEAST * box.sum() and _leak(frame, share > 0.5, box) <= PANE
    return share if told else None


def _ground(frame: np.ndarray, where: np.ndarray, reach: float) -> np.ndarray:
    """Colours (F, F, 3) float32 of the ground `where` (F, F) bool, blurred over the rest by as many pixels."""
    import cv2

    share = where.astype(np.float32)
    colours = cv2.GaussianBlur(frame * share[..., None], (0, 0), reach)
    return colours / np.maximum(cv2.GaussianBlur(share, (0, 0), reach), 1e-3)[..., None]


def _unlike_ground(frame: np.ndarray, box: np.ndarray, free: np.ndarray) -> np.ndarray:
    """How unlike the ground around its box, `free` bool (F, F), each pixel of a frame is: (F, F) float32 in [0, 1]."""
    import cv2

    difference = np.abs(cv2.GaussianBlur(frame.astype(np.float32), (0, 0), EDGE) - _ground(frame, free, FAR)).max(2)
    usual = max(np.quantile(difference[free], MOST), FAINT * np.quantile(difference[box], MOST))
    x = np.clip((difference / max(usual, 1.0) - UNLIKE[0]) / (UNLIKE[1] - UNLIKE[0]), 0, 1)
    return x * x * (3 - 2 * x)


def _beside(mask: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Bool (F, F): the parts of a mask that hang together with what was found, and the pixels at their edge."""
    import cv2

    _, parts = cv2.connectedComponents((mask | found).astype(np.uint8))
    kept = np.isin(parts, np.unique(parts[found]))
    return cv2.dilate(kept.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0


def _leak(frame: np.ndarray, found: np.ndarray, box: np.ndarray) -> float:
    """Share of what goes on beyond the box, along its edge, that was taken for the object's all the same."""
    import cv2

    edge = box & (cv2.erode(box.astype(np.uint8), np.ones((2 * RIM + 1,) * 2, np.uint8)) == 0)
    alike = edge & (np.abs(frame - _ground(frame, ~box, SEAM)).mean(2) < SAME)
    return float((found & alike).sum() / max(alike.sum(), 1))


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
