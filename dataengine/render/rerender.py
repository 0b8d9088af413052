"""Real pictures under other acquisition conditions, their objects where they are (SDEdit, Meng et al. 2022).

The packaged whole-image model denoises the picture's thumbnail from partial noise, under the layout and the new
conditions. What changes is added to the picture: its own detail, edges and objects stay by construction. Inside boxes
the change is a smooth surface from their surroundings, so that an object keeps its form and its contrast to the ground.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np
import torch

from dataengine import geometry
from dataengine.data.layout import Acquisition, Layout, restrict_layout
from dataengine.data.tile import crop_layout, windows
from dataengine.render.flow import Start, draw_noise, sample
from dataengine.render.layout_batch import LayoutBatch
from dataengine.render.layout_pipeline import LayoutPipeline
from dataengine.render.placement import class_numbers
from dataengine.render.precision import fast_autocast
from dataengine.render.thumbnail_decoder import THUMBNAIL_RATIO, thumbnail_pixels, thumbnails_of
from dataengine.seeds import Noise, noise_seed

GUIDANCE = 3.0  # from what a picture is to what it is asked to be; at 1, the condition hardly acts at partial noise
MIN_VISIBLE = 0.3  # of an object, in a window of the model, from which the window's layout has it
HELD_PX = 8.0  # around an object, that changes with it
SURROUNDINGS_PX = 24.0  # standard deviation of the mean over what is around an object
EDGE_PX = 2.0  # standard deviation of the transition around held objects

# names of `Acquisition` by the names of a model's conditions, without what follows "/"
FIELDS = {
    "altitude": "altitude_m", "camera_angle": "camera_angle_deg", "night": "night", "gsd": "gsd_m", "year": "date",
    "season": "date", "longitude": "longitude_deg", "latitude": "latitude_deg", "cloud": "cloud",
    "sun": "sun_elevation_deg",
}  # fmt: skip


def conditions_of(fields: Sequence[str]) -> frozenset[str]:
    """Fields of `Acquisition` that a model with these conditions follows.

    >>> sorted(conditions_of(("night", "season/sin", "season/cos")))
    ['date', 'night']
    """
    return frozenset(FIELDS[name.partition("/")[0]] for name in fields)


@torch.no_grad()
def rerender(
    pipeline: LayoutPipeline,
    pictures: Sequence[np.ndarray],
    layouts: Sequence[Layout],
    seeds: Sequence[int],
    domain: str | None = None,
    strength: float = 0.6,
    own: Sequence[Acquisition] | None = None,
    guidance_scale: float = GUIDANCE,
) -> list[np.ndarray]:
    """Pictures uint8 (H, W, 3), of any size, under the acquisitions of their layouts.

    layouts: of the pictures, with the acquisition asked for. strength: noise level from which their thumbnails are
    denoised, in (0, 1]; 1 leaves only their detail. own: acquisitions of the pictures as they are, from which guidance
    leads away: `own + guidance_scale * (asked - own)`; none where own is None, or is what is asked for. The noise of
    picture i depends on seeds[i] only (contract 4).
    """
    number = pipeline.domain_number(domain)
    grey = domain in pipeline.config.grey_domains
    results = []
    for k, (picture, layout, seed) in enumerate(zip(pictures, layouts, seeds, strict=True)):
        away = None if own is None or own[k] == layout.acquisition else replace(layout, acquisition=own[k])
        results.append(_rerendered(pipeline, picture, layout, away, seed, number, strength, guidance_scale, grey))
    return results


def _rerendered(
    pipeline,
    picture: np.ndarray,
    layout: Layout,
    away: Layout | None,
    seed: int,
    domain: int,
    strength: float,
    guidance_scale: float,
    grey: bool,
) -> np.ndarray:
    height, width = picture.shape[:2]
    clean = pixels_of(padded(picture, pipeline.size)).to(pipeline.unet.device)
    before = thumbnails_of(clean)
    side = pipeline.unet.config.sample_size
    places = list(windows(before.shape[:1:-1], side, side // 2))  # (x, y, side, side) in thumbnail pixels
    batch = _windows_batch(pipeline, layout, places, domain).to(pipeline.unet.device)
    null = None if away is None else _windows_batch(pipeline, away, places, domain).to(pipeline.unet.device)
    weights = torch.from_numpy(_weights(side)).to(clean.device)

    def velocity(x: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
        """Mean of the velocities of overlapping windows (MultiDiffusion, Bar-Tal et al. 2023, eq. 5)."""
        parts = torch.cat([x[..., top : top + side, left : left + side] for left, top, _, _ in places])
        found = pipeline.unet(parts, times.expand(len(parts)), batch).float()
        if null is not None:
            without = pipeline.unet(parts, times.expand(len(parts)), null).float()
            found = without + guidance_scale * (found - without)
        total, share = torch.zeros_like(x), torch.zeros_like(x[:, :1])
        for one, (left, top, _, _) in zip(found, places, strict=True):
            total[..., top : top + side, left : left + side] += one * weights
            share[..., top : top + side, left : left + side] += weights
        return total / share

    generator = torch.Generator().manual_seed(noise_seed(seed, Noise.WHOLE_IMAGE))
    noise = draw_noise([generator], tuple(before.shape[1:]), clean.device)
    with fast_autocast(clean.device):
        after = sample(
            velocity, noise, pipeline.steps, few=bool(pipeline.few_steps), scheduler=pipeline.scheduler,
            start=Start(before, strength),
        )  # fmt: skip
    change = ((thumbnail_pixels(after) - thumbnail_pixels(before)) * 127.5)[0, :, :height, :width]
    change = change.permute(1, 2, 0).cpu().numpy()
    if grey:
        change = np.repeat(change.mean(2, keepdims=True), 3, 2)
    return np.clip(np.rint(picture + held(change, layout)), 0, 255).astype(np.uint8)


def held(change: np.ndarray, layout: Layout) -> np.ndarray:
    """A change (H, W, C) float32 that moves each object as a whole: in and around boxes and ignored regions it is the
    mean of the change around them.

    >>> change = np.zeros((64, 64, 1), np.float32)
    >>> change[:, 32:] = 50
    >>> surface = held(change, Layout([[32, 32, 12, 8, 0]], [0], ("car",), (64, 64)))
    >>> bool(np.abs(np.diff(surface[28:36, 26:38], axis=1)).max() < 3), float(surface[0, 0, 0])
    (True, 0.0)
    """
    boxes = np.concatenate([layout.boxes, layout.ignored])
    if not len(boxes):
        return change
    grown = boxes + np.float32([0, 0, 2 * HELD_PX, 2 * HELD_PX, 0])
    mask = np.zeros(change.shape[:2], np.float32)
    for corners in geometry.to_corners(grown):
        cv2.fillPoly(mask, [np.rint(corners - 0.5).astype(np.int32)], 1.0)
    around = _blurred(1 - mask, SURROUNDINGS_PX)[..., None]
    surface = _blurred(change * (1 - mask[..., None]), SURROUNDINGS_PX) / np.maximum(around, 1e-4)
    share = np.maximum(mask, _blurred(mask, EDGE_PX))[..., None]
    return change * (1 - share) + surface * share


def _blurred(values: np.ndarray, sigma: float) -> np.ndarray:
    blurred = cv2.GaussianBlur(values, (0, 0), sigma)
    return blurred if blurred.ndim == values.ndim else blurred[..., None]  # OpenCV drops a single channel


def _weights(side: int) -> np.ndarray:
    """Weight of each position of a window, (side, side) float32: it falls towards the edge, which the network pads."""
    rise = np.minimum(np.arange(side) + 0.5, side - np.arange(side) - 0.5).astype(np.float32)
    return rise[:, None] * rise


def _windows_batch(pipeline, layout: Layout, places: Sequence[tuple], domain: int) -> LayoutBatch:
    """The layouts of windows of thumbnails, with the classes that the model knows."""
    known = restrict_layout(layout, pipeline.classes)
    parts = [crop_layout(known, tuple(THUMBNAIL_RATIO * v for v in place), MIN_VISIBLE) for place in places]
    return pipeline.unet.layout_batch(parts, [class_numbers(p, pipeline.classes) for p in parts], [domain] * len(parts))


def pixels_of(picture: np.ndarray) -> torch.Tensor:
    """A picture uint8 (H, W, 3) as a tensor (1, 3, H, W) in [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1)[None] / 127.5 - 1


def padded(picture: np.ndarray, least: int, multiple: int = 2 * THUMBNAIL_RATIO) -> np.ndarray:
    """The picture, mirrored at its right and lower edge to at least `least` pixels a side, and a multiple of pixels.

    >>> padded(np.zeros((100, 300, 3), np.uint8), 256).shape
    (256, 304, 3)
    """
    sides = [max(least, -(-side // multiple) * multiple) - side for side in picture.shape[:2]]
    return np.pad(picture, ((0, sides[0]), (0, sides[1]), (0, 0)), "symmetric")
