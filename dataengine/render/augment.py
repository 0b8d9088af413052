"""Augmentation with albumentations that moves boxes exactly with the pixels.

albumentations 2.0.8 has no oriented boxes, so the four corners are passed as keypoints. Every transform used here is a
similarity, so a box stays a box. Label effect: moves.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from functools import lru_cache

import numpy as np

from dataengine import geometry
from dataengine.data.layout import Layout
from dataengine.layouts.constraints import MIN_VISIBLE
from dataengine.layouts.windows import cut


@lru_cache
def _pipeline(rotate: bool, quarter_turns: bool, scale: tuple[float, float]):
    import albumentations as A
    import cv2

    steps = [A.HorizontalFlip(p=0.5)]
    if quarter_turns:
        steps.append(A.RandomRotate90(p=1.0))
    angle = (-45.0, 45.0) if rotate else (0.0, 0.0)
    # border: with reflection, albumentations 2.0.8 also returns reflected copies of the keypoints
    # cubic interpolation: with linear, scenes would be softer than real images
    steps.append(
        A.Affine(
            scale=scale, rotate=angle, keep_ratio=True, border_mode=cv2.BORDER_REPLICATE,
            interpolation=cv2.INTER_CUBIC, p=1.0,
        )
    )  # fmt: skip
    steps.append(A.RandomBrightnessContrast(0.12, 0.12, p=0.7))
    keypoints = A.KeypointParams(format="xy", remove_invisible=False)
    return A.Compose(steps, keypoint_params=keypoints)


SCALE_RANGE = (0.85, 1.15)
AXIS_PX = 1000.0  # length of the axes whose images tell how a picture was turned
MIN_WINDOW_SCALE, MAX_WINDOW_SCALE = 0.5, 1.25  # beyond these, resampling is visible


def augment(
    image: np.ndarray, layout: Layout, rng: np.random.Generator, scale: tuple[float, float] = SCALE_RANGE
) -> tuple[np.ndarray, Layout]:
    """A copy of an image (H, W, 3) uint8 and its layout: flipped, rotated, scaled, with other brightness and contrast.

    Oblique images are not rotated: objects would stand on walls. Horizontal boxes are rotated by quarter turns only:
    other angles would loosen them. The ground sample distance follows the scale. Objects that leave the image are
    dropped; those cut by the border keep their visible share.
    """
    return _augment(image, layout, rng, scale)[:2]


def _augment(
    image: np.ndarray, layout: Layout, rng: np.random.Generator, scale: tuple[float, float] = SCALE_RANGE
) -> tuple[np.ndarray, Layout, np.ndarray]:
    """As `augment`, and how the image was turned, float64 (2, 2): orthogonal, without the scale."""
    down = layout.acquisition.looks_down
    pipeline = _pipeline(down and layout.kind == "obb", down, scale)
    pipeline.set_random_seed(int(rng.integers(2**31)))
    boxes = np.concatenate([layout.boxes, layout.ignored])
    # pixel centres: at 0 in albumentations, at 0.5 here
    corners = geometry.to_corners(boxes).reshape(-1, 2) - 0.5
    outlines = layout.outlines()
    axes = np.float32([[0, 0], [AXIS_PX, 0], [0, AXIS_PX]])
    out = pipeline(image=image, keypoints=np.concatenate([corners, *(points - 0.5 for points in outlines), axes]))
    points, axes = np.split(np.asarray(out["keypoints"], np.float32).reshape(-1, 2) + 0.5, [-len(axes)])
    turn = (axes[1:] - axes[0]).T.astype(np.float64)
    lengths = np.linalg.norm(turn, axis=0)
    turn /= lengths
    moved = points[: len(corners)].reshape(-1, 4, 2)
    ends = len(corners) + np.cumsum([0, *map(len, outlines)])
    moved_boxes = geometry.from_corners(moved) if len(moved) else boxes
    height, width = out["image"].shape[:2]
    n = len(layout)
    inside = geometry.visible_fraction(moved_boxes, (width, height)) if len(moved_boxes) else np.zeros(0)
    acquisition = layout.acquisition
    if acquisition.gsd_m is not None:
        growth = float(lengths.mean()) / AXIS_PX
        acquisition = acquisition.model_copy(update={"gsd_m": acquisition.gsd_m / growth})
    result = replace(
        layout,
        boxes=moved_boxes[:n],
        visible=layout.visible * inside[:n].astype(np.float32),
        ignored=moved_boxes[n:][inside[n:] > 0],
        size=(width, height),
        acquisition=acquisition,
    )
    if layout.silhouettes is not None:
        result = result.with_outlines(points[start:end] for start, end in itertools.pairwise(ends))
    return out["image"], result.select(inside[:n] > 0), turn


def random_window(
    image: np.ndarray,
    layout: Layout,
    size: int,
    rng: np.random.Generator,
    around: np.ndarray | None = None,
    min_visible: float = MIN_VISIBLE,
) -> tuple[np.ndarray, Layout]:
    """A random size x size window of an image (H, W, 3), with the objects that are visible to at least `min_visible`.

    around: a point (2,) in pixels that lies in the middle half of the window, as far as the border allows. Smaller
    images are padded by mirroring, and the mirrored part is marked as ignored.
    """
    height, width = image.shape[:2]
    pad_x, pad_y = max(0, size - width), max(0, size - height)
    if pad_x or pad_y:
        image = np.pad(image, ((0, pad_y), (0, pad_x), (0, 0)), mode="symmetric")
        mirrored = np.float32([[width, 0, width + pad_x, height + pad_y], [0, height, width, height + pad_y]])
        mirrored = geometry.from_aabb(mirrored[[pad_x > 0, pad_y > 0]])
        layout = replace(layout, ignored=np.concatenate([layout.ignored, mirrored]))
    corner = np.array(image.shape[1::-1]) - size  # of the last window
    if around is None:
        left, top = (int(rng.integers(0, last + 1)) for last in corner)
    else:
        left, top = np.clip((around - size * rng.uniform(0.25, 0.75, 2)).astype(int), 0, corner).tolist()
    return image[top : top + size, left : left + size], cut(layout, left, top, (size, size), min_visible=min_visible)


def turned_freely(layout: Layout) -> bool:
    """Whether augmented copies are rotated by any angle, so that a window must be cut from a larger one."""
    return layout.acquisition.looks_down and layout.kind == "obb"


def window_scales(image_size: tuple[int, int], size: int, turned: bool) -> tuple[float, float]:
    """Smallest and largest `scale` of augmented windows, rotated freely or not, that stay inside an image (width,
    height); (1, 1) for images too small for a choice.

    >>> window_scales((259, 400), 128, turned=False)
    (0.5, 1.25)
    >>> window_scales((100, 100), 128, turned=False)
    (1.0, 1.0)
    """
    smallest = size * (np.sqrt(2) if turned else 1) / (min(image_size) - 3)
    return (max(smallest, MIN_WINDOW_SCALE), MAX_WINDOW_SCALE) if smallest < 1 else (1.0, 1.0)


def augmented_window(
    image: np.ndarray,
    layout: Layout,
    size: int,
    rng: np.random.Generator,
    around: np.ndarray | None = None,
    scale: float = 1.0,
    min_visible: float = MIN_VISIBLE,
) -> tuple[np.ndarray, Layout]:
    """A random size x size window of an augmented copy of an image (H, W, 3) uint8 that stays inside the image.

    A window large enough for any rotation is cut first. around: a point (2,) in pixels that lies in the middle half of
    that window. scale: approximate magnification, see `window_scales`. min_visible: visible share an object needs to
    keep its label. In images too small for that, corners of the window may be filled from the border.
    """
    return turned_window(image, layout, size, rng, around, scale, min_visible)[:2]


def turned_window(
    image: np.ndarray,
    layout: Layout,
    size: int,
    rng: np.random.Generator,
    around: np.ndarray | None = None,
    scale: float = 1.0,
    min_visible: float = MIN_VISIBLE,
) -> tuple[np.ndarray, Layout, np.ndarray]:
    """As `augmented_window`, and how the image was turned, float64 (2, 2): orthogonal, without the scale."""
    turned = turned_freely(layout)
    least = window_scales(layout.size, size, turned)[0]
    smallest, largest = max(SCALE_RANGE[0] * scale, least), max(SCALE_RANGE[1] * scale, least)
    side = int(np.ceil(size / min(smallest, 1) * (np.sqrt(2) if turned else 1))) + 2
    if side > min(image.shape[:2]):
        *augmented, turn = _augment(image, layout, rng)
        return *random_window(*augmented, size, rng, min_visible=min_visible), turn
    larger = random_window(image, layout, side, rng, around, min_visible)
    augmented, moved, turn = _augment(*larger, rng, (smallest, largest))
    start = (side - size) // 2
    inside = cut(moved, start, start, (size, size), min_visible=min_visible)
    return augmented[start : start + size, start : start + size], inside, turn
