"""Training tiles for detectors: randomly warped images and boxes."""

from __future__ import annotations

import cv2
import numpy as np

from dataengine import geometry

FILL_GREY = 110  # outside of images, and in regions with unknown content
MIN_VISIBLE = 0.35  # objects with a smaller share inside the tile are painted over
OBJECT_SHARE = 0.75  # of the tiles are placed around an object, more often of a rare class
MAX_OBLIQUE_TURN_RAD = np.deg2rad(12)  # of oblique images


class Tiles:
    """Random tiles from a file written by `pack_images.py`."""

    def __init__(self, path: str, size: int):
        with np.load(path) as packed:
            self.packed = {name: packed[name] for name in packed.files}
        self.size = size
        self.classes = tuple(str(name) for name in self.packed["classes"])
        labels = self.packed["boxes"][:, 5].astype(int)
        weight = 1 / np.sqrt(np.maximum(np.bincount(labels, minlength=len(self.classes)), 25))[labels]
        self.cumulative = np.cumsum(weight / weight.sum())
        self.owner = np.repeat(np.arange(len(self.packed["down"])), np.diff(self.packed["first"]))

    def sample(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Image float32 (S, S, 3) in [0, 255] RGB, boxes float32 (N, 6): le90 and the class index."""
        p, centre = self.packed, None
        if rng.random() < OBJECT_SHARE:
            which = min(int(np.searchsorted(self.cumulative, rng.random())), len(self.owner) - 1)
            i, centre = self.owner[which], p["boxes"][which, :2]
        else:
            i = rng.integers(len(p["down"]))
        image = cv2.imdecode(p["data"][p["start"][i] : p["start"][i + 1]], cv2.IMREAD_COLOR)[..., ::-1]
        matrix = self._matrix(rng, image.shape, bool(p["down"][i]), bool(p["upright"][i]), centre)
        shifted = matrix.copy()
        shifted[:, 2] += matrix[:, :2] @ (0.5, 0.5) - 0.5  # OpenCV counts pixel centres from 0, boxes from 0.5
        tile = cv2.warpAffine(image, shifted, (self.size,) * 2, borderValue=(FILL_GREY,) * 3)
        boxes = p["boxes"][p["first"][i] : p["first"][i + 1]]
        ignored = p["ignored"][p["ignored_first"][i] : p["ignored_first"][i + 1]]
        return self._relight(*self._place(tile, boxes, ignored, matrix, bool(p["upright"][i])), rng)

    def _matrix(self, rng, shape, down: bool, upright: bool, centre) -> np.ndarray:
        """Transform from image to tile, float64 (2, 3): mirroring, turn, scale and position of the tile."""
        turn = rng.uniform(-MAX_OBLIQUE_TURN_RAD, MAX_OBLIQUE_TURN_RAD)
        if upright:
            turn = rng.integers(4) * np.pi / 2
        elif down:
            turn = rng.uniform(-np.pi, np.pi)
        scale = np.exp(rng.uniform(np.log(0.75), np.log(1.35)))
        mirror = rng.choice([-1.0, 1.0])
        cos, sin = np.cos(turn), np.sin(turn)
        linear = scale * np.array([[cos, -sin], [sin, cos]]) @ np.diag([mirror, 1.0])
        half = self.size / 2 / scale
        extent = np.array([shape[1], shape[0]], float)
        jitter = rng.uniform(-0.85, 0.85, 2) * half
        middle = rng.uniform(0, 1, 2) * extent if centre is None else centre + jitter
        inner = np.minimum(half, extent / 2)
        middle = np.clip(middle, inner, extent - inner)
        return np.column_stack([linear, self.size / 2 - linear @ middle])

    def _place(self, tile, boxes, ignored, matrix, upright: bool) -> tuple[np.ndarray, np.ndarray]:
        size = (self.size, self.size)
        moved = geometry.transform(boxes[:, :5], matrix) if len(boxes) else boxes[:, :5]
        visible = geometry.visible_fraction(moved, size) if len(moved) else np.zeros(0)
        keep = visible >= MIN_VISIBLE
        unknown = [moved[(visible > 0) & ~keep]]
        if len(ignored):
            unknown.append(geometry.transform(ignored, matrix))
        corners = geometry.to_corners(np.concatenate(unknown)) - 0.5
        for region in corners:
            cv2.fillConvexPoly(tile, np.round(region).astype(np.int32), (FILL_GREY,) * 3)
        inside = moved[keep]
        if len(inside):
            inside = geometry.clip_aabb(inside, size) if upright else geometry.clip(inside, size)
        return tile, np.column_stack([inside, boxes[keep, 5]]).astype(np.float32).reshape(-1, 6)

    @staticmethod
    def _relight(tile, boxes, rng) -> tuple[np.ndarray, np.ndarray]:
        if rng.random() < 0.25:
            tile = cv2.GaussianBlur(tile, (0, 0), rng.uniform(0.4, 1.2))
        image = (tile.astype(np.float32) - FILL_GREY) * rng.uniform(0.7, 1.35) + FILL_GREY + rng.uniform(-25, 25)
        image += rng.uniform(-8, 8, 3).astype(np.float32)
        if rng.random() < 0.3:
            image += rng.normal(0, rng.uniform(2, 8), image.shape[:2]).astype(np.float32)[..., None]
        return np.clip(image, 0, 255), boxes
