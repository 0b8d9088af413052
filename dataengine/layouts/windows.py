"""Layouts of large images cut into layouts of a given size, at native resolution."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from dataengine.data.layout import Layout
from dataengine.layouts.constraints import MIN_VISIBLE, Border, cut_by_border


def cut(
    layout: Layout,
    left: float,
    top: float,
    size: tuple[int, int],
    border: Border = "clip",
    min_visible: float = MIN_VISIBLE,
) -> Layout:
    """The part of a layout inside the window of `size` (width, height) whose corner is at (left, top)."""
    shift = np.array([left, top, 0, 0, 0], np.float32)
    moved = replace(layout, boxes=layout.boxes - shift, ignored=layout.ignored - shift, size=size)
    return cut_by_border(moved, border, min_visible)


def random_windows(
    layouts: Iterable[Layout],
    size: tuple[int, int],
    rng: np.random.Generator,
    n: int = 4,
    border: Border = "clip",
    min_objects: int = 1,
) -> list[Layout]:
    """Up to `n` windows at whole pixels from each layout, those with fewer than `min_objects` left out.

    A layout not larger than the window gives itself once, at its own size.
    """
    windows = []
    for layout in layouts:
        free = layout.size[0] - size[0], layout.size[1] - size[1]
        if max(free) <= 0:
            corners, inside = [(0, 0)], layout.size
        else:
            corners = [tuple(rng.integers(0, max(slack, 0) + 1) for slack in free) for _ in range(n)]
            inside = min(size[0], layout.size[0]), min(size[1], layout.size[1])
        cuts = (cut(layout, left, top, inside, border) for left, top in corners)
        windows += [window for window in cuts if len(window) >= min_objects]
    return windows


def scaled(layout: Layout, scale: float) -> Layout:
    """The layout as its picture, enlarged by `scale`, would show it; the ground sample distance follows."""
    if scale == 1:
        return layout
    factor = np.float32([scale, scale, scale, scale, 1])
    taken = layout.acquisition
    if taken.gsd_m is not None:
        taken = taken.model_copy(update={"gsd_m": taken.gsd_m / scale})
    size = tuple(round(side * scale) for side in layout.size)
    return replace(layout, boxes=layout.boxes * factor, ignored=layout.ignored * factor, size=size, acquisition=taken)
