"""Regions that an in-painting model is trained to generate, on the raster of its latents."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from dataengine.data.layout import Layout
from dataengine.render.layout_batch import coverage

KINDS = {"whole": 0.4, "objects": 0.3, "outside": 0.15, "blocks": 0.15}  # kind of region: its share of the examples
# around an object: share of its long side, and pixels; the encoder carries a tenth of an object's trace into the
# neighbouring cell, and a fiftieth into the next
MARGIN_SHARE, MARGIN_PX = (0.1, 0.6), (8.0, 28.0)
MAX_BLOCKS = 4
BLOCK_SHARE = (0.1, 0.5)  # side of a block, of the image's


def around_objects(layout: Layout, grid: int, margin_share: float, margin_px: float) -> np.ndarray:
    """Cells that the layout's objects with a margin around them touch, bool (grid, grid).

    >>> layout = Layout([[4, 4, 4, 4, 0]], [0], ("car",), (16, 16))
    >>> int(around_objects(layout, 4, 0.0, 0.0).sum()), int(around_objects(layout, 4, 0.0, 6.0).sum())
    (4, 9)
    """
    if not len(layout):
        return np.zeros((grid, grid), bool)
    grown = layout.boxes.copy()
    grown[:, 2:4] += 2 * (margin_share * layout.boxes[:, 2:3] + margin_px)
    return (coverage(replace(layout, boxes=grown), grid) > 0).any(0)


def blocks(grid: int, rng: np.random.Generator, count: int) -> np.ndarray:
    """Cells of random rectangles, bool (grid, grid)."""
    cells = np.zeros((grid, grid), bool)
    for _ in range(count):
        height, width = np.maximum(1, (rng.uniform(*BLOCK_SHARE, 2) * grid).astype(int))
        top, left = rng.integers(0, grid - height + 1), rng.integers(0, grid - width + 1)
        cells[top : top + height, left : left + width] = True
    return cells


def outside(grid: int, rng: np.random.Generator) -> np.ndarray:
    """All cells but one side of the picture, or but a rectangle inside it, bool (grid, grid)."""
    if rng.random() < 0.5:
        return ~blocks(grid, rng, 1)
    edge = rng.integers(grid // 4, 3 * grid // 4 + 1)
    return np.rot90(np.broadcast_to(np.arange(grid) >= edge, (grid, grid)), rng.integers(4)).copy()


def random_region(layout: Layout, grid: int, rng: np.random.Generator) -> np.ndarray:
    """A random region of the kinds `KINDS`, bool (grid, grid): True where the model generates.

    "objects" are a random choice of the layout's objects; where there are none, the region is a block, so that a hole
    does not reveal that there is an object.
    """
    kind = rng.choice(list(KINDS), p=list(KINDS.values()))
    if kind == "whole":
        return np.ones((grid, grid), bool)
    if kind == "outside":
        return outside(grid, rng)
    if kind == "objects" and len(layout):
        chosen = rng.permutation(len(layout))[: rng.integers(1, len(layout) + 1)]
        cells = around_objects(layout.select(chosen), grid, rng.uniform(*MARGIN_SHARE), rng.uniform(*MARGIN_PX))
        return cells if rng.random() < 0.5 else cells | blocks(grid, rng, 1)
    return blocks(grid, rng, int(rng.integers(1, MAX_BLOCKS + 1)))


def regions_text() -> str:
    """What the random regions depend on, as part of a recipe."""
    return f"regions={KINDS} {MARGIN_SHARE} {MARGIN_PX} {MAX_BLOCKS} {BLOCK_SHARE}"
