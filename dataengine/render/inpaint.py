"""In-painting real images with whole-image models: known pixels are put back at every step.

Blended diffusion (Avrahami et al. 2022) in a model's own latents; models trained to in-paint see the known latents and
the mask, too. At the end the image's own pixels are put back, so that nothing changes outside the mask. Label effect:
keeps, of both the old objects and the new.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch

from dataengine.data.layout import Layout
from dataengine.render.frame import covered, greyed, matte

MARGIN_SHARE, MARGIN_PX = 0.25, 4.0  # around a new object: share of its long side, and pixels
FEATHER_PX = 3  # pixels inside the mask over which new and old are blended


@dataclass(frozen=True)
class Known:
    """clean (B, C, S, S): the image in a model's latents; mask (B, 1, S, S): 1 where it is to be painted."""

    clean: torch.Tensor
    mask: torch.Tensor

    def put_back(self, x: torch.Tensor, noisy: torch.Tensor) -> torch.Tensor:
        """x with what is known, at x's share of noise, everywhere outside the mask."""
        return self.mask * x + (1 - self.mask) * noisy

    def channels(self) -> torch.Tensor:
        """Input (B, C + 1, S, S) of models that in-paint: what is known, zeros elsewhere, and the mask.

        >>> Known(torch.full((1, 1, 1, 2), 5.0), torch.tensor([[[[0.0, 1.0]]]])).channels().tolist()
        [[[[5.0, 0.0]], [[0.0, 1.0]]]]
        """
        return torch.cat([self.clean * (1 - self.mask), self.mask], 1)


def paint_mask(new: Layout, existing: Layout) -> np.ndarray:
    """1 where the new objects and a margin around them are, but nothing that is labelled already, uint8 (H, W)."""
    shape, grown = new.size[::-1], new.boxes.copy()
    grown[:, 2:4] += 2 * (MARGIN_SHARE * new.boxes[:, 2:3] + MARGIN_PX)
    taken = np.concatenate([existing.boxes, existing.ignored])
    return (covered(grown, shape) & ~covered(taken, shape)).astype(np.uint8)


def composite(before: np.ndarray, drawn: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The image `before` with `drawn` inside the mask, blended over its outermost pixels; uint8 (H, W, 3).

    Where the model painted the same ground, the image keeps its own. Outside the mask every pixel keeps
    its value; inside, the drawn part is brought to the brightness of its surroundings.
    """
    kernel = np.ones((2 * FEATHER_PX + 1, 2 * FEATHER_PX + 1), np.uint8)
    inner = cv2.erode(mask, kernel, borderType=cv2.BORDER_REPLICATE)
    weight = cv2.GaussianBlur(inner.astype(np.float32), (0, 0), FEATHER_PX / 2) * mask
    old, new = before.astype(np.float32), drawn.astype(np.float32)
    if np.ptp(before, axis=2).max() == 0:  # a one-channel sensor stays one
        new = greyed(new)
    new = new + _offset(old, new, mask)
    weight = (weight * matte(new, old))[..., None]
    return np.clip(np.rint(old + weight * (new - old)), 0, 255).astype(np.uint8)


def _offset(old: np.ndarray, new: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """What the drawn part lacks of the picture's brightness along each border of the mask, spread over its inside."""
    rim = mask - cv2.erode(mask, np.ones((3, 3), np.uint8), borderType=cv2.BORDER_REPLICATE)
    _, parts = cv2.connectedComponents(mask, connectivity=8)
    out = np.zeros_like(old)
    for part in range(1, parts.max() + 1):
        inside = parts == part
        border = inside & (rim > 0)
        if border.any():
            out[inside] = np.median((old - new)[border], axis=0)
    return out
