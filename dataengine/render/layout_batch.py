"""Layouts as tensors for the whole-image denoiser."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from dataengine import geometry
from dataengine.data.layout import Layout, acquisition_values

Precision = Literal["exact", "grid"]  # coordinates as they are, or cut to whole cells of the latent grid, as AeroGen's
PADDED_TO = 32  # boxes: few sizes of tensors, for which a compiled model is compiled anew


def grid_corners(layout: Layout, grid: int) -> np.ndarray:
    """Corners (N, 4, 2) in cells of a grid x grid raster, cut to integers in [0, grid - 1], as AeroGen's code does."""
    cells = geometry.to_corners(layout.boxes) / np.float32(layout.size) * grid
    return np.clip(np.trunc(cells), 0, grid - 1).astype(np.float32)


def box_features(layout: Layout, angle: bool = True) -> np.ndarray:
    """(N, 12) float32: the 8 corner coordinates over the image size at full precision, sine and cosine of twice
    the angle (a box turned by half a turn is the same box), and log sizes; (N, 8) without angle."""
    corners = (geometry.to_corners(layout.boxes) / np.float32(layout.size)).reshape(-1, 8)
    if not angle:
        return corners.astype(np.float32)
    theta = layout.boxes[:, 4]
    sizes = np.log2(np.maximum(layout.boxes[:, 2:4], 1) / max(layout.size)) / 4
    twice = np.stack([np.sin(2 * theta), np.cos(2 * theta)], 1)
    return np.concatenate([corners, twice, sizes], 1).astype(np.float32)


def coverage(layout: Layout, grid: int, supersample: int = 4) -> np.ndarray:
    """Share of each cell of a grid x grid raster that each box covers, (N, grid, grid) float32, by point sampling."""
    n = grid * supersample
    centres = (np.arange(n, dtype=np.float32) + 0.5) / n
    x, y = centres[None, None] * layout.size[0], centres[None, :, None] * layout.size[1]
    cx, cy, w, h, theta = (layout.boxes[:, i, None, None] for i in range(5))
    along = (x - cx) * np.cos(theta) + (y - cy) * np.sin(theta)
    across = -(x - cx) * np.sin(theta) + (y - cy) * np.cos(theta)
    inside = (np.abs(along) <= w / 2) & (np.abs(across) <= h / 2)
    covered = inside.reshape(-1, grid, supersample, grid, supersample).mean((2, 4), dtype=np.float32)
    # a box that falls between the sample points still belongs to the cell of its centre
    ix = np.clip((layout.boxes[:, 0] / layout.size[0] * grid).astype(int), 0, grid - 1)
    iy = np.clip((layout.boxes[:, 1] / layout.size[1] * grid).astype(int), 0, grid - 1)
    index = np.arange(len(layout))
    covered[index, iy, ix] = np.maximum(covered[index, iy, ix], 1 / supersample**2)
    return covered


def grid_masks(layout: Layout, grid: int) -> np.ndarray:
    """0 or 1 for each cell, (N, grid, grid) float32, by AeroGen's integer corners: a cell belongs to a box when the
    cell's index lies inside the polygon of the cut corners, by the even-odd rule, which leaves out half of the border.
    So boxes thinner than a cell have no cell at all."""
    first = grid_corners(layout, grid)[..., None, None]  # (N, 4, 2, 1, 1)
    second = np.roll(first, -1, 1)
    y, x = np.mgrid[:grid, :grid].astype(np.float32)
    (x1, y1), (x2, y2) = (np.moveaxis(point, 2, 0) for point in (first, second))  # (N, 4, 1, 1) each
    spans = (y1 > y) != (y2 > y)
    crossing = (x2 - x1) * (y - y1) / np.where(y1 == y2, 1, y2 - y1) + x1
    return ((spans & (x < crossing)).sum(1) % 2).astype(np.float32)


@dataclass(frozen=True)
class LayoutBatch:
    """Layouts as tensors, padded to one number of boxes N.

    features (B, N, F), labels (B, N) int64, coverage (B, N, G, G) with 0 in padding, counts (B,) int64: boxes before
    the padding, known (B,) bool: False is the null layout (unknown, not empty), fields (B, number of fields),
    domains (B,) int64, references (B, R, E) with `nan` where unknown, shapes (B, S, S) in [0, 1].
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
        """The same on another device."""
        return LayoutBatch(**{name: value.to(device) for name, value in vars(self).items()})

    def unknown(self) -> LayoutBatch:
        """The same with the null layout: nothing is said of boxes; fields, domain and references stay."""
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
    """Pad layouts into tensors; `LayoutUNet.layout_batch` calls it in a model's own form.

    labels[i] are the layout's labels in the model's numbering; grid is the side of the raster of latents or patches;
    N is the largest number of boxes, brought up to a multiple of padded_to; references (B, R, E) float32.
    """
    b, most = len(layouts), max([1, *(len(layout) for layout in layouts)])
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
        torch.tensor([len(layout) for layout in layouts]),
        torch.ones(b, dtype=torch.bool),
        torch.from_numpy(np.stack(values)),
        torch.as_tensor(np.asarray(domains), dtype=torch.int64),
        torch.zeros(b, 0, 0) if references is None else torch.from_numpy(np.asarray(references, np.float32)),
        torch.zeros(b, 0, 0) if shapes is None else torch.from_numpy(np.asarray(shapes, np.float32)),
    )
