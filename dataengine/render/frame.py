"""The frame of one object: upright, scaled to a fixed size, with a margin of context.

The box is centred and its first side lies along x, whatever its position, angle and size in the image, so that a model
of frames need not learn orientation and scale. The first side is the long one, except along a heading (`heading`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dataengine import geometry
from dataengine.data.layout import Kind

MATTE_LOW, MATTE_HIGH = 5.0, 18.0  # levels of 255 between which a change fades in; shadows differ by 20 or more


@dataclass(frozen=True)
class FrameSpec:
    """How frames are cut.

    size:        side of the square frame, in frame pixels.
    context:     side of the frame / long side of the box.
    min_side:    smallest side of a frame in image pixels, so that tiny objects have surroundings too.
    hole_margin: how far the painted area extends beyond the box, as a share of the box's long side, for shadows.
    hole_pixels: the least extent beyond the box, in image pixels.
    """

    size: int = 48
    context: float = 1.8
    min_side: float = 28.0
    hole_margin: float = 0.12
    hole_pixels: float = 2.0


def frame_angles(boxes: np.ndarray, kind: Kind) -> np.ndarray:
    """Rotation of each frame in radians, (N,) float32; 0 for horizontal boxes, whose heading is unknown."""
    return np.zeros(len(boxes), np.float32) if kind == "hbb" else boxes[:, 4].astype(np.float32)


def frame_sides(boxes: np.ndarray, spec: FrameSpec, context: float | None = None) -> np.ndarray:
    """Side of each frame in image pixels, (N,) float32.

    >>> frame_sides(np.float32([[0, 0, 40, 10, 0], [0, 0, 4, 2, 0]]), FrameSpec(context=2, min_side=28)).tolist()
    [80.0, 28.0]
    """
    long_sides = boxes[:, 2:4].max(1)
    return np.maximum(long_sides * (spec.context if context is None else context), spec.min_side).astype(np.float32)


def frame_matrices(boxes: np.ndarray, kind: Kind, spec: FrameSpec, context: float | None = None) -> np.ndarray:
    """Similarity transforms from continuous frame coordinates to image coordinates, (N, 2, 3) float32."""
    scale = frame_sides(boxes, spec, context) / spec.size
    angle = frame_angles(boxes, kind)
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    half = spec.size / 2
    matrices = np.empty((len(boxes), 2, 3), np.float32)
    matrices[:, 0, 0], matrices[:, 0, 1] = cos, -sin
    matrices[:, 1, 0], matrices[:, 1, 1] = sin, cos
    matrices[:, 0, 2] = boxes[:, 0] - half * (cos - sin)
    matrices[:, 1, 2] = boxes[:, 1] - half * (sin + cos)
    return matrices


def _pixel_centres(matrix: np.ndarray) -> np.ndarray:
    """The same transform between pixel indices: the centre of pixel 0 is at 0 in OpenCV, at 0.5 here."""
    out = matrix.astype(np.float64)
    out[:, 2] += 0.5 * (matrix[:, 0] + matrix[:, 1]) - 0.5
    return out


def cut(image: np.ndarray, matrix: np.ndarray, size: int) -> np.ndarray:
    """Sample a frame (size, size, C) from an image (H, W, C) of the same dtype; the image is mirrored at its border.

    Cubic interpolation, as in `paste`: with linear, a small object would lose a fifth of its sharpness on a round trip.
    """
    import cv2

    image = _smoothed(image, np.hypot(matrix[0, 0], matrix[1, 0]))
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    out = cv2.warpAffine(image, _pixel_centres(matrix), (size, size), flags=flags, borderMode=cv2.BORDER_REFLECT_101)
    return out.reshape(size, size, -1)


def greyed(frame: np.ndarray) -> np.ndarray:
    """A frame (H, W, 3) float32 with the mean of its channels in all three, as from a one-channel sensor."""
    return np.repeat(frame.mean(2, keepdims=True), 3, 2)


def resized(frame: np.ndarray, size: int) -> np.ndarray:
    """A frame (F, F) or (F, F, C) float32 at another size: area-averaged when smaller, interpolated when larger."""
    import cv2

    if len(frame) == size:
        return frame
    return cv2.resize(frame, (size, size), interpolation=cv2.INTER_AREA if size < len(frame) else cv2.INTER_LINEAR)


def finer_mask(mask: np.ndarray, size: int) -> np.ndarray:
    """A mask (F, F) at K times the resolution, (size, size), size = K F; its outline stays exactly the same.

    >>> finer_mask(np.array([[0, 1]]), 2).tolist()
    [[0, 0, 1, 1], [0, 0, 1, 1]]
    """
    times = size // len(mask)
    return mask.repeat(times, 0).repeat(times, 1)


def _smoothed(image: np.ndarray, shrink: float) -> np.ndarray:
    """The image blurred against aliasing when it is sampled at 1 / shrink of its size."""
    import cv2

    return cv2.GaussianBlur(image, (0, 0), 0.4 * shrink) if shrink > 1.5 else image


def box_coverage(width: float, height: float, size: int) -> np.ndarray:
    """Share of each frame pixel that a centred upright box covers, (size, size) float32 in [0, 1].

    >>> box_coverage(3, 2, 4).tolist()[1]
    [0.5, 1.0, 1.0, 0.5]
    """
    edges = np.arange(size + 1) - size / 2
    rows, columns = np.clip(edges, -height / 2, height / 2), np.clip(edges, -width / 2, width / 2)
    return np.outer(np.diff(rows), np.diff(columns)).astype(np.float32)


def covered(boxes: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Bool (H, W): pixels of an image of `shape` (H, W, ...) that any of the boxes (N, 5) touches."""
    import cv2

    mask = np.zeros(shape[:2], np.uint8)
    for corners in geometry.to_corners(boxes):
        cv2.fillPoly(mask, [np.rint(corners - 0.5).astype(np.int32)], 1)
    return mask > 0


def box_in_frame(box: np.ndarray, kind: Kind, spec: FrameSpec, context: float | None = None) -> tuple[float, float]:
    """Width and height of the box along the frame's axes, in frame pixels."""
    scale = spec.size / float(frame_sides(box[None], spec, context)[0])
    if kind == "hbb":
        x1, y1, x2, y2 = geometry.to_aabb(box[None])[0]
        return float(x2 - x1) * scale, float(y2 - y1) * scale
    return float(box[2]) * scale, float(box[3]) * scale


def hole_reach(boxes: np.ndarray, spec: FrameSpec) -> np.ndarray:
    """How far the area to paint extends beyond each box (N, 5), in image pixels, (N,)."""
    return np.maximum(spec.hole_margin * boxes[:, 2], spec.hole_pixels)


def masks(box: np.ndarray, kind: Kind, spec: FrameSpec, context: float | None = None) -> tuple[np.ndarray, np.ndarray]:
    """`(hole, box)`, each (size, size) float32: the area to paint (0 or 1), and the label's box (coverage)."""
    width, height = box_in_frame(box, kind, spec, context)
    scale = spec.size / float(frame_sides(box[None], spec, context)[0])
    margin = max(spec.hole_margin * max(width, height), spec.hole_pixels * scale)
    limit = spec.size - 2.0  # a rim of one pixel is always context
    hole = box_coverage(min(width + 2 * margin, limit), min(height + 2 * margin, limit), spec.size)
    return (hole > 0).astype(np.float32), box_coverage(width, height, spec.size)


def hole_in_frame(box: np.ndarray, matrix: np.ndarray, spec: FrameSpec) -> np.ndarray:
    """The area to paint of a horizontal box (5,), seen in a frame that lies askew: (size, size) float32, 0 or 1."""
    import cv2

    grown = box.copy()
    grown[2:4] += 2 * hole_reach(box[None], spec)
    to_frame = cv2.invertAffineTransform(matrix.astype(np.float64))
    corners = geometry.to_corners(grown[None])[0] @ to_frame[:, :2].T + to_frame[:, 2]
    hole = np.zeros((spec.size, spec.size), np.uint8)
    cv2.fillPoly(hole, [np.rint((corners - 0.5) * 16).astype(np.int32)], 1, shift=4)
    return hole.astype(np.float32)


def matte(patch: np.ndarray, ground: np.ndarray) -> np.ndarray:
    """How much a painted frame changes each pixel of the ground, (size, size) float32 in [0, 1].

    patch, ground: (size, size, C) float32 in [0, 255]. Where both are alike up to a few levels after a small blur, the
    matte is 0, so that the scene keeps its own, sharper ground.
    """
    import cv2

    difference = np.abs(cv2.GaussianBlur(patch - ground, (0, 0), 1.0)).reshape(*patch.shape[:2], -1).max(2)
    x = np.clip((difference - MATTE_LOW) / (MATTE_HIGH - MATTE_LOW), 0, 1)
    return cv2.dilate((x * x * (3 - 2 * x)).astype(np.float32), np.ones((3, 3), np.uint8))


def paste(
    image: np.ndarray, patch: np.ndarray, hole: np.ndarray, matrix: np.ndarray, changed: np.ndarray | float = 1.0
) -> None:
    """Blend a painted frame (size, size, C) float32 into the float32 image (H, W, C), in place.

    The weight is `changed` (size, size), such as a `matte`, inside the hole, and falls to 0 over its three outermost
    frame pixels, so that no seam shows. In the last of them it is 0, so interpolation never reaches pixels outside the
    hole: they keep their exact value.
    """
    import cv2

    size = len(patch)
    inner = cv2.erode(hole, np.ones((3, 3), np.uint8))
    weight = cv2.GaussianBlur(cv2.erode(inner, np.ones((3, 3), np.uint8)) * changed, (0, 0), 0.8) * inner
    corners = np.array([[0, 0], [size, 0], [size, size], [0, size]], np.float32) @ matrix[:, :2].T + matrix[:, 2]
    x1, y1 = np.maximum(np.floor(corners.min(0)).astype(int), 0)
    x2, y2 = np.minimum(np.ceil(corners.max(0)).astype(int), (image.shape[1], image.shape[0]))
    if x2 <= x1 or y2 <= y1:
        return
    local = matrix.copy()
    local[:, 2] -= (x1, y1)
    to_frame = cv2.invertAffineTransform(_pixel_centres(local))
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    target = (int(x2 - x1), int(y2 - y1))
    warped = cv2.warpAffine(
        _smoothed(patch, 1 / np.hypot(matrix[0, 0], matrix[1, 0])),
        to_frame,
        target,
        flags=flags,
        borderMode=cv2.BORDER_REPLICATE,
    )
    alpha = cv2.warpAffine(weight, to_frame, target, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    alpha = np.clip(alpha, 0, 1)[..., None]
    region = image[y1:y2, x1:x2]
    region += alpha * (warped.reshape(region.shape) - region)
