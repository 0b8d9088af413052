"""Real pictures under other acquisition conditions, their objects where they are (FlowEdit, Kulikov et al. 2024).

The packaged whole-image model says, for a picture's thumbnail at falling noise levels, how its flow under the new
conditions differs from that under the picture's own. Only this difference is followed, so nothing changes where nothing
else is asked for. It is added to the picture along the picture's own edges (a guided filter): edges and detail stay.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import cv2
import numpy as np
import torch

from dataengine.data.layout import Acquisition, Layout, restrict_layout
from dataengine.data.tile import crop_layout, windows
from dataengine.render.flow import draw_noise
from dataengine.render.layout_batch import LayoutBatch
from dataengine.render.layout_pipeline import LayoutPipeline
from dataengine.render.placement import class_numbers
from dataengine.render.precision import fast_autocast
from dataengine.render.thumbnail_decoder import THUMBNAIL_RATIO, thumbnail_pixels, thumbnails_of
from dataengine.seeds import Noise, noise_seed

STRENGTH, GUIDANCE = 0.75, 1.0  # chosen on flights that are not those of docs/rerender.md
STEPS = 5  # noise levels
MIN_VISIBLE = 0.3  # of an object, in a window of the model, from which the window's layout has it
GUIDE_RADIUS_PX = 6  # of the squares in which the change is an affine function of the picture
GUIDE_LEVELS = 5.5  # standard deviation in such a square, in levels of 255, from which it follows the picture's edges

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
    own: Sequence[Acquisition],
    seeds: Sequence[int],
    domain: str | None = None,
    strength: float = STRENGTH,
    guidance_scale: float = GUIDANCE,
) -> list[np.ndarray]:
    """Pictures uint8 (H, W, 3), of any size, under the acquisitions of their layouts.

    layouts: of the pictures, with the acquisition asked for. own: acquisitions of the pictures as they are; where it is
    the one asked for, the picture stays as it is. strength: highest noise level of their thumbnails, in (0, 1]; more
    changes more. guidance_scale: conditions are followed as `own + guidance_scale * (asked - own)`. The noise of
    picture i depends on seeds[i] only (contract 4).
    """
    number = pipeline.domain_number(domain)
    grey = domain in pipeline.config.grey_domains
    results = []
    for picture, layout, before, seed in zip(pictures, layouts, own, seeds, strict=True):
        if before == layout.acquisition:
            results.append(picture.copy())
            continue
        as_taken = replace(layout, acquisition=before)
        results.append(_rerendered(pipeline, picture, layout, as_taken, seed, number, strength, guidance_scale, grey))
    return results


def _rerendered(
    pipeline,
    picture: np.ndarray,
    layout: Layout,
    as_taken: Layout,
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
    asked, own = (_windows_batch(pipeline, x, places, domain).to(pipeline.unet.device) for x in (layout, as_taken))
    weights = torch.from_numpy(_weights(side)).to(clean.device)

    def velocity(x: torch.Tensor, sigma: float, batch: LayoutBatch) -> torch.Tensor:
        """Mean of the velocities of overlapping windows (MultiDiffusion, Bar-Tal et al. 2023, eq. 5)."""
        parts = torch.cat([x[..., top : top + side, left : left + side] for left, top, _, _ in places])
        found = pipeline.unet(parts, torch.full((len(parts),), 1000 * sigma, device=x.device), batch).float()
        total, share = torch.zeros_like(x), torch.zeros_like(x[:, :1])
        for one, (left, top, _, _) in zip(found, places, strict=True):
            total[..., top : top + side, left : left + side] += one * weights
            share[..., top : top + side, left : left + side] += weights
        return total / share

    generator = torch.Generator().manual_seed(noise_seed(seed, Noise.WHOLE_IMAGE))
    noise = draw_noise([generator], tuple(before.shape[1:]), clean.device)
    sigmas = np.linspace(strength, 0, STEPS + 1).tolist()
    change = torch.zeros_like(before)
    with fast_autocast(clean.device):
        for sigma, following in pairwise(sigmas):  # algorithm 1, with the change in place of the edited image
            noisy = (1 - sigma) * before + sigma * noise()
            towards = velocity(noisy + change, sigma, asked)
            difference = towards - velocity(noisy, sigma, own)
            if guidance_scale != 1:
                there = towards - velocity(noisy + change, sigma, own)
                difference = difference + (guidance_scale - 1) * there
            change = change + (following - sigma) * difference
    added = ((thumbnail_pixels(before + change) - thumbnail_pixels(before)) * 127.5)[0, :, :height, :width]
    added = added.permute(1, 2, 0).cpu().numpy()
    if grey:
        added = np.repeat(added.mean(2, keepdims=True), 3, 2)
    return np.clip(np.rint(picture + along_edges(added, picture)), 0, 255).astype(np.uint8)


def along_edges(change: np.ndarray, picture: np.ndarray) -> np.ndarray:
    """A change (H, W, 3) float32 of few pixels, sharpened to the edges of the picture uint8 (H, W, 3) it is for, by the
    guided filter (He et al. 2013, eq. 5, 6 and 8, the guide being the mean of the channels).

    >>> picture = np.zeros((64, 64, 3), np.uint8)
    >>> picture[:, 32:] = 100
    >>> blurred = np.tile(np.linspace(0, 50, 64, dtype=np.float32)[:, None], (64, 1, 3))
    >>> across = np.diff(along_edges(blurred, picture)[32, :, 0])
    >>> int(across.argmax()), bool(across[31] > 3 * across[8])
    (31, True)
    """

    def mean(values: np.ndarray) -> np.ndarray:
        size = 2 * GUIDE_RADIUS_PX + 1
        return cv2.blur(values, (size, size), borderType=cv2.BORDER_REFLECT)

    guide = picture.astype(np.float32).mean(2)
    level, variance = mean(guide)[..., None], mean(guide**2)[..., None] - mean(guide)[..., None] ** 2
    guide = guide[..., None]
    slope = (mean(guide * change) - level * mean(change)) / (variance + GUIDE_LEVELS**2)
    return mean(slope) * guide + mean(mean(change) - slope * level)


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
