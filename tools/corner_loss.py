"""Distance of corners between boxes: the regression loss of both packaged detectors."""

from __future__ import annotations

import torch


def corners_of(boxes: torch.Tensor) -> torch.Tensor:
    """cx, cy, w, h, theta (..., 5) -> corners (..., 4, 2)."""
    centre, size, theta = boxes[..., None, :2], boxes[..., None, 2:4], boxes[..., 4]
    signs = boxes.new_tensor([[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]])
    x, y = (signs * size).unbind(-1)  # (..., 4)
    cos, sin = theta.cos()[..., None], theta.sin()[..., None]
    return centre + torch.stack([x * cos - y * sin, x * sin + y * cos], -1)


class CornerLoss(torch.nn.Module):
    """Mean L1 distance of corners in units of the target's size, at the best of the four ways to number them.

    Why not mmrotate's: RotatedIoULoss has no CPU kernel, "kld" gave NaN, and Gaussian losses cannot see the angle of a
    square, while an airplane's box is nearly one. Numbering at best makes width and height, and theta and
    theta + pi / 2, exchangeable, so there is no jump at the end of the angle's range.
    """

    def __init__(self, loss_weight: float):
        super().__init__()
        self.loss_weight = loss_weight

    def forward(self, boxes, targets, weight=None, avg_factor=None, **_) -> torch.Tensor:
        """boxes, targets (N, 5) decoded; weight (N,). Mean over N, or sum over `avg_factor`."""
        found, wanted = corners_of(boxes), corners_of(targets)
        numberings = torch.stack([wanted.roll(k, 1) for k in range(4)], 1)  # (N, 4, 4, 2)
        distance = (found[:, None] - numberings).abs().sum(-1).mean(-1).amin(1)  # (N,)
        loss = distance / targets[:, 2:4].prod(-1).sqrt().clamp(min=1)
        loss = loss if weight is None else loss * weight.reshape(-1)
        return self.loss_weight * (loss.mean() if avg_factor is None else loss.sum() / avg_factor)
