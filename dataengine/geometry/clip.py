"""Boxes at the border of the image."""

from __future__ import annotations

import numpy as np

from dataengine.geometry.boxes import from_aabb, from_corners, to_aabb, to_corners
from dataengine.geometry.iou import containment


def visible_fraction(boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Share of each box's area inside an image of size (width, height), float64 (N,) in [0, 1]."""
    return containment(boxes, from_aabb(np.array([[0, 0, *size]])))[:, 0]


def clip(boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Minimum-area rectangle of the part of each box inside the image, le90 float32 (N, 5).

    Boxes wholly inside come back as they are; a box wholly outside gets no width and height.
    """
    import cv2
    import shapely

    out = np.array(boxes, np.float32).reshape(-1, 5)
    around = to_aabb(out)
    cut = (around[:, :2] < 0).any(1) | (around[:, 2:] > np.float32(size)).any(1)
    window = shapely.box(0, 0, *size)
    for i in np.flatnonzero(cut):
        part = shapely.intersection(shapely.Polygon(to_corners(out[i : i + 1])[0]), window)
        if part.geom_type != "Polygon" or part.is_empty:
            out[i, 2:4] = 0
            continue
        points = np.asarray(part.exterior.coords, np.float64)
        centre = points.mean(0)
        rectangle = cv2.boxPoints(cv2.minAreaRect((points - centre).astype(np.float32)))
        out[i] = from_corners((rectangle + centre)[None])[0]
    return out


def clip_aabb(boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Upright boxes cut at the image's border, le90 float32 (N, 5); one wholly outside gets no area."""
    upright = to_aabb(boxes)
    limit = np.array([*size, *size], np.float32)
    return from_aabb(np.clip(upright, 0, limit))
