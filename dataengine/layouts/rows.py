"""Rows: alike objects side by side, as cars are parked and airplanes stand, at distances that real ones keep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy.spatial import cKDTree

from dataengine.data.layout import Layout

NEAR = 1.5  # neighbours are at most so many mean long sides apart, centre to centre
ALIKE = 1.25  # largest ratio of their long sides
PARALLEL = np.radians(15)  # largest angle between them
FEWEST = 5  # pairs of a class, or nothing is known of its rows
LOOKED_AT = 9  # nearest objects, itself among them
LONGEST = 5  # objects of a row


def neighbours(layouts: Sequence[Layout]) -> dict[str, np.ndarray]:
    """By class name, float64 (K, 2): of each object with a like and parallel one near it, where the nearest of these
    is, in the box's own frame and in units of its sides; of classes with a few at least."""
    found: dict[str, list[np.ndarray]] = {}
    for layout in layouts:
        for label in np.unique(layout.labels):
            boxes = layout.boxes[(layout.labels == label) & (layout.visible > 0.99)].astype(np.float64)
            if len(boxes) < 2:
                continue
            distance, beside = cKDTree(boxes[:, :2]).query(boxes[:, :2], k=min(LOOKED_AT, len(boxes)))  # (N, K)
            long, turned = boxes[:, 2], boxes[beside, 4] - boxes[:, None, 4]
            fits = distance < NEAR * (long[beside] + long[:, None]) / 2
            fits &= np.abs(np.log(long[beside] / long[:, None])) < np.log(ALIKE)
            if layout.kind == "obb":
                fits &= np.abs(turned - np.pi * np.round(turned / np.pi)) < PARALLEL
            fits &= beside != np.arange(len(boxes))[:, None]
            some = np.flatnonzero(fits.any(1))
            nearest = beside[some, fits[some].argmax(1)]  # they come by distance
            steps = _into_frame(boxes[nearest, :2] - boxes[some, :2], boxes[some])
            found.setdefault(layout.classes[label], []).append(steps)
    joined = {name: np.concatenate(steps) for name, steps in found.items()}
    return {name: steps for name, steps in joined.items() if len(steps) >= FEWEST}


def with_rows(layout: Layout, steps: dict[str, np.ndarray], share: float, rng: np.random.Generator) -> Layout:
    """The layout with rows of 2 to LONGEST in place of this share of the objects of classes with `neighbours`.

    A row may reach others or beyond the border: what has no place there is the caller's to leave out."""
    for k in range(len(layout) if share else 0):
        known = steps.get(layout.classes[layout.labels[k]])
        if known is None or rng.random() >= share:
            continue
        box = layout.boxes[k].astype(np.float64)
        step = _out_of_frame(known[rng.integers(len(known))], box)
        copies = int(rng.integers(1, LONGEST))
        row = np.tile(box, (copies, 1))
        row[:, :2] += step * np.arange(1, copies + 1)[:, None] * rng.choice((-1, 1))
        one = layout.select(np.full(copies, k))
        layout = layout.joined(replace(one, boxes=row, visible=None, ignored=None))
    return layout


def _into_frame(steps: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Vectors (K, 2) in pixels, in the frames of boxes (K, 5) and units of their sides."""
    cos, sin = np.cos(boxes[:, 4]), np.sin(boxes[:, 4])
    turned = np.column_stack([cos * steps[:, 0] + sin * steps[:, 1], -sin * steps[:, 0] + cos * steps[:, 1]])
    return turned / boxes[:, 2:4]


def _out_of_frame(step: np.ndarray, box: np.ndarray) -> np.ndarray:
    """A vector (2,) in the frame of a box (5,) and units of its sides, in pixels."""
    along, across = step * box[2:4]
    cos, sin = np.cos(box[4]), np.sin(box[4])
    return np.array([cos * along - sin * across, sin * along + cos * across])
