"""Windows of a given size cut out of the layouts of large images, at native resolution."""

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
    """The part of a layout inside the window of `size` (width, height) whose top left corner is at (left, top).

    border, min_visible: see `constraints.cut_by_border`.

    >>> layout = Layout([[50, 60, 10, 6, 0]], [0], ("car",), (200, 200))
    >>> cut(layout, 30, 20, (100, 100)).boxes.tolist()
    [[20.0, 40.0, 10.0, 6.0, 0.0]]
    """
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
    """Up to `n` windows at random whole-pixel positions of each layout, without those with fewer than `min_objects`.

    A layout that is not larger than the window yields itself once, at its own size.
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
    """The layout of the image resized by `scale`: boxes and size are multiplied, the ground sample distance divided."""
    if scale == 1:
        return layout
    factor = np.float32([scale, scale, scale, scale, 1])
    acquisition = layout.acquisition
    if acquisition.gsd_m is not None:
        acquisition = acquisition.model_copy(update={"gsd_m": acquisition.gsd_m / scale})
    size = tuple(round(side * scale) for side in layout.size)
    boxes, ignored = layout.boxes * factor, layout.ignored * factor
    return replace(layout, boxes=boxes, ignored=ignored, size=size, acquisition=acquisition)
