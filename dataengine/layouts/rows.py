"""Rows of similar objects side by side, such as parked cars and airplanes, at spacings found in real layouts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy.spatial import cKDTree

from dataengine import geometry
from dataengine.data.layout import Layout

MAX_DISTANCE = 1.5  # of the centres of neighbours, in mean long sides of the two
MAX_LENGTH_RATIO = 1.25  # of the long sides of neighbours
MAX_ANGLE_RAD = np.radians(15)  # between neighbours
MIN_PAIRS = 5  # a class with fewer pairs of neighbours gets no rows
N_NEAREST = 9  # objects searched for a neighbour, the object itself included
MAX_ROW_LENGTH = 5  # objects


def neighbours(layouts: Sequence[Layout]) -> dict[str, np.ndarray]:
    """{class name: float64 (K, 2)}: for each object with a parallel neighbour of like size, the position of the nearest
    such neighbour in the frame of the object's box (`geometry.to_frame`). Classes with fewer than `MIN_PAIRS` are
    omitted."""
    found: dict[str, list[np.ndarray]] = {}
    for layout in layouts:
        for label in np.unique(layout.labels):
            boxes = layout.boxes[(layout.labels == label) & (layout.visible > 0.99)].astype(np.float64)
            if len(boxes) < 2:
                continue
            distance, near = cKDTree(boxes[:, :2]).query(boxes[:, :2], k=min(N_NEAREST, len(boxes)))  # (N, K)
            long, turn = boxes[:, 2], boxes[near, 4] - boxes[:, None, 4]
            fits = distance < MAX_DISTANCE * (long[near] + long[:, None]) / 2
            fits &= np.abs(np.log(long[near] / long[:, None])) < np.log(MAX_LENGTH_RATIO)
            if layout.kind == "obb":
                fits &= np.abs(turn - np.pi * np.round(turn / np.pi)) < MAX_ANGLE_RAD
            fits &= near != np.arange(len(boxes))[:, None]
            in_row = np.flatnonzero(fits.any(1))
            nearest = near[in_row, fits[in_row].argmax(1)]  # `near` is sorted by distance
            steps = [geometry.to_frame(boxes[j, :2], boxes[i]) for i, j in zip(in_row, nearest, strict=True)]
            found.setdefault(layout.classes[label], []).extend(steps)
    return {name: np.stack(steps) for name, steps in found.items() if len(steps) >= MIN_PAIRS}


def with_rows(layout: Layout, steps: dict[str, np.ndarray], share: float, rng: np.random.Generator) -> Layout:
    """The layout in which a `share` of the objects is extended to rows of 2 to `MAX_ROW_LENGTH` objects.

    steps: from `neighbours`; objects of other classes stay single. A row may overlap other objects or extend beyond
    the border: the caller removes what does not fit."""
    for k, name in enumerate(layout.names()):
        known = steps.get(name)
        if known is None or rng.random() >= share:
            continue
        step, box = known[rng.integers(len(known))], layout.boxes[k]
        copies = int(rng.integers(1, MAX_ROW_LENGTH))
        row = np.tile(box, (copies, 1))
        row[:, :2] = geometry.from_frame(step * np.arange(1, copies + 1)[:, None] * rng.choice((-1, 1)), box)
        one = layout.select(np.full(copies, k))
        layout = layout.joined(replace(one, boxes=row, visible=None, ignored=None))
    return layout
