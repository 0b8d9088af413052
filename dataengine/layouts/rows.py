"""Rows: alike objects side by side, as cars are parked and airplanes stand, at distances that real ones keep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy.spatial import cKDTree

from dataengine import geometry
from dataengine.data.layout import Layout

NEAR = 1.5  # neighbours are at most so many mean long sides apart, centre to centre
ALIKE = 1.25  # largest ratio of their long sides
PARALLEL = np.radians(15)  # largest angle between them
FEWEST = 5  # pairs of a class, or nothing is known of its rows
LOOKED_AT = 9  # nearest objects, itself among them
LONGEST = 5  # objects of a row


def neighbours(layouts: Sequence[Layout]) -> dict[str, np.ndarray]:
    """By class name, float32 (K, 2): of each object with a like and parallel one near it, where the nearest of these
    is, in the box's own frame (`geometry.to_frame`); of classes with a few at least."""
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
            steps = [geometry.to_frame(boxes[j, :2], boxes[i]) for i, j in zip(some, nearest, strict=True)]
            found.setdefault(layout.classes[label], []).extend(steps)
    return {name: np.stack(steps) for name, steps in found.items() if len(steps) >= FEWEST}


def with_rows(layout: Layout, steps: dict[str, np.ndarray], share: float, rng: np.random.Generator) -> Layout:
    """The layout with rows of 2 to LONGEST in place of this share of the objects of classes with `neighbours`.

    A row may reach others or beyond the border: what has no place there is the caller's to leave out."""
    for k, name in enumerate(layout.names()):
        known = steps.get(name)
        if known is None or rng.random() >= share:
            continue
        step, box = known[rng.integers(len(known))], layout.boxes[k]
        copies = int(rng.integers(1, LONGEST))
        row = np.tile(box, (copies, 1))
        row[:, :2] = geometry.from_frame(step * np.arange(1, copies + 1)[:, None] * rng.choice((-1, 1)), box)
        one = layout.select(np.full(copies, k))
        layout = layout.joined(replace(one, boxes=row, visible=None, ignored=None))
    return layout
