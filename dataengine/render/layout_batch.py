"""Layouts as tensors for the whole-image denoiser."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import torch

from dataengine import geometry
from dataengine.data.layout import Layout, acquisition_values, model_key

Precision = Literal["exact", "grid"]  # full precision, or AeroGen's whole cells of the latent grid
CORNER_DECIMALS = 3  # of pixels, to which corners are exact in float32: 100 px of 800 are cell 8 of 64, and not 7
PADDED_TO = 32  # boxes; few tensor sizes, because a compiled model is recompiled for each


def grid_corners(layout: Layout, grid: int) -> np.ndarray:
    """Corners (N, 4, 2) float32 in whole cells of a grid x grid raster, as AeroGen's training code has them.

    They go clockwise from the leftmost corner, of two such from the upper one, and are truncated, not clipped: 0 to
    `grid`, and beyond for boxes that cross the border.

    >>> layout = Layout([[30, 20, 20, 10, 0], [54, 40, 20, 8, -np.pi / 4]], [0, 0], ("car",), (64, 64))
    >>> grid_corners(layout, 16).tolist()[0]
    [[5.0, 3.0], [10.0, 3.0], [10.0, 6.0], [5.0, 6.0]]
    >>> grid_corners(layout, 16).tolist()[1]
    [[11.0, 11.0], [14.0, 7.0], [15.0, 8.0], [12.0, 12.0]]
    """
    corners = np.round(geometry.to_corners(layout.boxes).astype(np.float64), CORNER_DECIMALS)  # clockwise
    first = np.lexsort((corners[..., 1], corners[..., 0]))[:, :1]
    corners = np.take_along_axis(corners, ((first + np.arange(4)) % 4)[..., None], 1)
    return np.trunc(corners * grid / np.array(layout.size, np.float64)).astype(np.float32)


def box_features(layout: Layout, angle: bool = True) -> np.ndarray:
    """(N, 12) float32: the 8 corner coordinates divided by the image size, sine and cosine of twice the angle (a box
    rotated by half a turn is the same box), and log sizes. Without angle only the corners, (N, 8)."""
    corners = (geometry.to_corners(layout.boxes) / np.float32(layout.size)).reshape(-1, 8)
    if not angle:
        return corners.astype(np.float32)
    theta = layout.boxes[:, 4]
    sizes = np.log2(np.maximum(layout.boxes[:, 2:4], 1) / max(layout.size)) / 4
    twice = np.stack([np.sin(2 * theta), np.cos(2 * theta)], 1)
    return np.concatenate([corners, twice, sizes], 1).astype(np.float32)


def coverage(layout: Layout, grid: int, supersample: int = 4) -> np.ndarray:
    """Share of each cell of a grid x grid raster that each box covers, (N, grid, grid) float32, by point sampling.

    >>> coverage(Layout([[32, 16, 32, 16, 0]], [0], ("car",), (64, 64)), 4)[0].tolist()[:2]
    [[0.0, 0.5, 0.5, 0.0], [0.0, 0.5, 0.5, 0.0]]
    """
    n = grid * supersample
    centres = (np.arange(n, dtype=np.float32) + 0.5) / n
    x, y = centres[None, None] * layout.size[0], centres[None, :, None] * layout.size[1]
    cx, cy, w, h, theta = layout.boxes.T[..., None, None]
    along = (x - cx) * np.cos(theta) + (y - cy) * np.sin(theta)
    across = -(x - cx) * np.sin(theta) + (y - cy) * np.cos(theta)
    inside = (np.abs(along) <= w / 2) & (np.abs(across) <= h / 2)
    covered = inside.reshape(-1, grid, supersample, grid, supersample).mean((2, 4), dtype=np.float32)
    # a box that falls between the sample points still covers a little of its centre's cell
    ix = np.clip((layout.boxes[:, 0] / layout.size[0] * grid).astype(int), 0, grid - 1)
    iy = np.clip((layout.boxes[:, 1] / layout.size[1] * grid).astype(int), 0, grid - 1)
    index = np.arange(len(layout))
    covered[index, iy, ix] = np.maximum(covered[index, iy, ix], 1 / supersample**2)
    return covered


def grid_masks(layout: Layout, grid: int) -> np.ndarray:
    """AeroGen's coverage, 0 or 1 for each cell, (N, grid, grid) float32: the polygon of `grid_corners`, its border
    included, so that every box inside the image has at least one cell.

    >>> int(grid_masks(Layout([[30, 18, 20, 1, 0]], [0], ("car",), (64, 64)), 16).sum())
    6
    """
    masks = np.zeros((len(layout), grid, grid), np.uint8)
    for mask, polygon in zip(masks, grid_corners(layout, grid).astype(np.int32), strict=True):
        cv2.fillPoly(mask, [polygon], 1)
    return masks.astype(np.float32)


@dataclass(frozen=True)
class LayoutBatch:
    """Layouts as tensors, padded to the same number of boxes N.

    features: (B, N, F). labels: (B, N) int64. coverage: (B, N, G, G), 0 in padding. counts: (B,) int64, boxes without
    padding. known: (B,) bool, False for the null layout (unknown, not empty). fields: (B, number of fields). domains:
    (B,) int64. references: (B, R, E), `nan` where unknown. shapes: (B, S, S) in [0, 1].
    """

    features: torch.Tensor
    labels: torch.Tensor
    coverage: torch.Tensor
    counts: torch.Tensor
    known: torch.Tensor
    fields: torch.Tensor
    domains: torch.Tensor
    references: torch.Tensor
    shapes: torch.Tensor

    def to(self, device: torch.device) -> LayoutBatch:
        """A copy on another device."""
        return LayoutBatch(**{name: value.to(device) for name, value in vars(self).items()})

    def unknown(self) -> LayoutBatch:
        """A copy with the null layout: boxes are unknown; fields, domains and references stay."""
        nothing = {"known": torch.zeros_like(self.known), "shapes": torch.zeros_like(self.shapes)}
        return LayoutBatch(**(vars(self) | nothing))


def layout_batch(
    layouts: Sequence[Layout],
    labels: Sequence[np.ndarray],
    domains: Sequence[int],
    grid: int,
    *,
    corners: Precision = "exact",
    areas: Precision = "exact",
    angle: bool = True,
    padded_to: int = PADDED_TO,
    fields: Sequence[str] = (),
    references: np.ndarray | None = None,
    shapes: np.ndarray | None = None,
) -> LayoutBatch:
    """Layouts as padded tensors; `LayoutUNet.layout_batch` calls this in a model's own form.

    labels[i]: the layout's labels in the model's numbering. grid: side of the raster of latents or patches. padded_to:
    N is a multiple of this. references: (B, R, E) float32.
    """
    b, most = len(layouts), max([1, *map(len, layouts)])
    n = -(-most // padded_to) * padded_to
    width = 8 if corners == "grid" or not angle else 12
    features, numbers = np.zeros((b, n, width), np.float32), np.zeros((b, n), np.int64)
    covered = np.zeros((b, n, grid, grid), np.float32)
    for i, layout in enumerate(layouts):
        k = len(layout)
        if k:
            exact = corners == "exact"
            features[i, :k] = box_features(layout, angle) if exact else grid_corners(layout, grid).reshape(-1, 8)
            covered[i, :k] = coverage(layout, grid) if areas == "exact" else grid_masks(layout, grid)
            numbers[i, :k] = labels[i]
    values = [acquisition_values(layout.acquisition, fields) for layout in layouts]
    return LayoutBatch(
        torch.from_numpy(features),
        torch.from_numpy(numbers),
        torch.from_numpy(covered),
        torch.tensor([*map(len, layouts)]),
        torch.ones(b, dtype=torch.bool),
        torch.from_numpy(np.stack(values)),
        torch.as_tensor(np.asarray(domains), dtype=torch.int64),
        torch.zeros(b, 0, 0) if references is None else torch.from_numpy(np.asarray(references, np.float32)),
        torch.zeros(b, 0, 0) if shapes is None else torch.from_numpy(np.asarray(shapes, np.float32)),
    )


UNKNOWN, NOTHING = -1, -2  # in the first channel, in addition to the numbers of classes
PLACE_LEVELS = 127  # int8 levels of positions in [-1, 1]


def layout_raster(layout: Layout, classes: Sequence[str]) -> np.ndarray:
    """Class and position in the box of each pixel of the layout, (3, H, W) int8.

    Channel 0 holds the class's number in `classes`, UNKNOWN for other classes, NOTHING where there is no box; channels
    1 and 2 the position along and across the box, -127 to 127, 0 without a box. Where boxes overlap, the smallest is on
    top. At most 128 classes.

    >>> layout_raster(Layout([[3, 1, 4, 2, 0]], [0], ("car",), (6, 2)), ["car"])[:2, 0].tolist()
    [[-2, 0, 0, 0, 0, -2], [0, -95, -32, 32, 95, 0]]
    """
    width, height = layout.size
    raster = np.zeros((3, height, width), np.int8)
    raster[0] = NOTHING
    numbers = {model_key(name): i for i, name in enumerate(classes)}
    corners = geometry.to_corners(layout.boxes)
    names = layout.names()
    for i in np.argsort(-layout.boxes[:, 2] * layout.boxes[:, 3], kind="stable"):
        cx, cy, w, h, theta = layout.boxes[i]
        left, top = np.maximum(np.floor(corners[i].min(0)).astype(int), 0)
        right, bottom = np.minimum(np.ceil(corners[i].max(0)).astype(int), (width, height))
        if right <= left or bottom <= top:
            continue
        x = np.arange(left, right, dtype=np.float32)[None] + 0.5 - cx
        y = np.arange(top, bottom, dtype=np.float32)[:, None] + 0.5 - cy
        along = (x * np.cos(theta) + y * np.sin(theta)) * (2 / w)
        across = (y * np.cos(theta) - x * np.sin(theta)) * (2 / h)
        inside = (np.abs(along) <= 1) & (np.abs(across) <= 1)
        part = raster[:, top:bottom, left:right]
        part[0][inside] = numbers.get(model_key(names[i]), UNKNOWN)
        part[1][inside] = np.rint(along * PLACE_LEVELS)[inside]
        part[2][inside] = np.rint(across * PLACE_LEVELS)[inside]
    return raster


def layout_rasters(layouts: Sequence[Layout], classes: Sequence[str]) -> np.ndarray:
    """`layout_raster` of layouts of one size, (B, 3, H, W) int8."""
    return np.stack([layout_raster(layout, classes) for layout in layouts])


# Outlines in [-1, 1] along the long and the short side of the box. After OF-Diff, whose shape masks from instance masks
# lower FID from 42.6 to 24.9: where a data set has only boxes, its objects get a template of their class, or an
# ellipse.
AIRPLANE = np.float32([
    (1, 0), (0.8, 0.12), (0.3, 0.14), (-0.2, 1), (-0.4, 1), (-0.15, 0.14), (-0.7, 0.1), (-0.9, 0.4), (-1, 0.4),
    (-0.92, 0), (-1, -0.4), (-0.9, -0.4), (-0.7, -0.1), (-0.15, -0.14), (-0.4, -1), (-0.2, -1), (0.3, -0.14),
    (0.8, -0.12),
])  # fmt: skip
HULL = np.float32([(1, 0), (0.6, 0.8), (0, 1), (-0.9, 0.9), (-1, 0), (-0.9, -0.9), (0, -1), (0.6, -0.8)])
BLOCK = np.float32([(1, 0.7), (0.85, 1), (-0.85, 1), (-1, 0.7), (-1, -0.7), (-0.85, -1), (0.85, -1), (1, -0.7)])
ELLIPSE = np.float32([(np.cos(t), np.sin(t)) for t in np.linspace(0, 2 * np.pi, 24, endpoint=False)])
TEMPLATES = {
    "airplane": AIRPLANE,
    **dict.fromkeys(("ship", "boat"), HULL),
    **dict.fromkeys(
        ("car", "vehicle", "othervehicle", "smallvehicle", "largevehicle", "truck", "van", "bridge", "tenniscourt",
         "basketballcourt", "soccerballfield", "harbor", "trainstation"), BLOCK,
    ),
}  # fmt: skip
SUPERSAMPLE = 4


def outlines(layout: Layout) -> list[np.ndarray]:
    """One polygon (K, 2) per box, in pixels: the object's outline if known, else the class's template in its box."""
    known = layout.outlines()
    return [
        points if len(points) else geometry.from_frame(TEMPLATES.get(model_key(name), ELLIPSE), box)
        for points, box, name in zip(known, layout.boxes, layout.names(), strict=True)
    ]


def shape_raster(layout: Layout, grid: int) -> np.ndarray:
    """Share of each cell of a grid x grid raster that silhouettes cover, (grid, grid) float32 in [0, 1]."""
    n = grid * SUPERSAMPLE
    canvas = np.zeros((n, n), np.float32)
    for polygon in outlines(layout):
        points = polygon / np.float32(layout.size) * n - 0.5
        cv2.fillPoly(canvas, [np.rint(points * 16).astype(np.int32)], 1.0, shift=4)
    return cv2.resize(canvas, (grid, grid), interpolation=cv2.INTER_AREA)
