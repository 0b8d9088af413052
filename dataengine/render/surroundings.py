"""What is to be seen around a box: colour and texture of the ground in rings, and how much of it other objects hide."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dataengine.render.frame import covered

RINGS = (0.5, 1.2, 2.5)  # distances from the box, in halves of its diagonal,
LEAST_HALF = 8.0  # or of so many pixels, if that is more
POINTS = 16  # of a ring
FEWEST_POINTS = 3  # of a ring that show ground, or its colours are unknown
COLOUR, TEXTURE = 1.5, 3.0  # pixels (standard deviation) over which a point's are taken,
BEYOND = 2  # pixels: none of them that near to a labelled object, or real ones would be told by their own colours
CONTRAST = 40.0  # standard deviation to which a picture's lightness is brought: thermal cameras differ in their gain


@dataclass(frozen=True)
class Look:
    """A picture as its ground looks. ground: float32 (H, W, 4), colour (CIE Lab, less the ground's median) and texture
    (mean gradient of lightness) around each pixel; labelled: bool (H, W), pixels of objects, which tell nothing."""

    ground: np.ndarray
    labelled: np.ndarray

    def around(self, boxes: np.ndarray) -> np.ndarray:
        """Of boxes (N, 5) that stand there together: float32 (N, 9 len(RINGS)), for each ring mean and standard
        deviation of the ground's look, nan where hardly any is to be seen, and the share that objects hide."""
        height, width = self.labelled.shape
        half = boxes[:, None, 2:4] / 2
        reach = np.maximum(np.linalg.norm(half, axis=2, keepdims=True), LEAST_HALF)
        sides = half + np.array(RINGS)[:, None] * reach  # (N, R, 2)
        angles = np.linspace(0, 2 * np.pi, POINTS, endpoint=False)
        outward = np.column_stack([np.cos(angles), np.sin(angles)])  # (P, 2)
        ends = outward / (np.abs(outward) / sides[:, :, None]).max(3, keepdims=True)  # (N, R, P, 2), on grown boxes
        cos, sin = np.cos(boxes[:, 4])[:, None, None], np.sin(boxes[:, 4])[:, None, None]
        x = np.floor(boxes[:, 0, None, None] + cos * ends[..., 0] - sin * ends[..., 1]).astype(int)
        y = np.floor(boxes[:, 1, None, None] + sin * ends[..., 0] + cos * ends[..., 1]).astype(int)
        inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
        x, y = np.clip(x, 0, width - 1), np.clip(y, 0, height - 1)
        hidden = inside & (self.labelled | covered(boxes, self.labelled.shape))[y, x]
        seen = (inside & ~hidden)[..., None]
        values, count = self.ground[y, x], seen.sum(2)  # (N, R, P, 4), (N, R, 1)
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = (values * seen).sum(2) / count
            spread = np.sqrt(((values - mean[:, :, None]) ** 2 * seen).sum(2) / count)
            share = (hidden.sum(2) / inside.sum(2))[..., None]
        told = np.where(count >= FEWEST_POINTS, np.concatenate([mean, spread], 2), np.nan)
        return np.concatenate([told, share], 2).reshape(len(boxes), -1).astype(np.float32)


def look_of(picture: np.ndarray, objects: np.ndarray) -> Look:
    """The look of an image (H, W, 3) uint8 with these boxes (N, 5) of objects in it."""
    import cv2

    labelled = covered(objects, picture.shape)
    lab = cv2.cvtColor(picture, cv2.COLOR_RGB2LAB).astype(np.float32)
    near = cv2.dilate(labelled.astype(np.uint8), np.ones((2 * BEYOND + 1,) * 2, np.uint8))
    free = (near == 0).astype(np.float32)
    colours = lab[near == 0] if free.any() else lab.reshape(-1, 3)
    lab -= np.median(colours, 0)
    lab[..., 0] *= CONTRAST / max(float(colours[:, 0].std()), 1.0)
    slope = np.hypot(*(cv2.Sobel(lab[..., 0], cv2.CV_32F, *along) for along in ((1, 0), (0, 1))))

    def over_ground(values: np.ndarray, reach: float) -> np.ndarray:
        share = np.maximum(cv2.GaussianBlur(free, (0, 0), reach), 1e-6)
        return cv2.GaussianBlur(values * free[..., None], (0, 0), reach).reshape(*free.shape, -1) / share[..., None]

    return Look(np.dstack([over_ground(lab, COLOUR), over_ground(slope[..., None], TEXTURE)]), labelled)
