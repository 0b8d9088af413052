"""Layers in plain torch for those that mmcv implements for CUDA only. Configs exported with --cpu use them.

Importing this module needs mmrotate, whose registry it extends.
"""

from __future__ import annotations

import math

import torch
from mmcv.ops import RiRoIAlignRotated, roi_align_rotated
from mmrotate.models.roi_heads.roi_extractors import RotatedSingleRoIExtractor
from mmrotate.registry import MODELS


def corners_of(boxes: torch.Tensor) -> torch.Tensor:
    """Boxes cx, cy, w, h, theta (..., 5) -> corners (..., 4, 2)."""
    centre, size, theta = boxes[..., None, :2], boxes[..., None, 2:4], boxes[..., 4]
    signs = boxes.new_tensor([[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]])
    x, y = (signs * size).unbind(-1)  # (..., 4)
    cos, sin = theta.cos()[..., None], theta.sin()[..., None]
    return centre + torch.stack([x * cos - y * sin, x * sin + y * cos], -1)


@MODELS.register_module()
class CornerLoss(torch.nn.Module):
    """Mean L1 distance of corners over the size of the target, for the best of the four orders of the corners.

    It replaces the losses of mmrotate: RotatedIoULoss has no CPU kernel, "kld" gives NaN, and Gaussian losses do not
    depend on the angle of a square, which the box of an airplane nearly is. With the best order, width and height, and
    theta and theta + pi / 2, are exchangeable, so the loss is continuous at the ends of the range of theta.
    """

    def __init__(self, loss_weight: float = 1.0):
        super().__init__()
        self.loss_weight = loss_weight

    def forward(self, boxes, targets, weight=None, avg_factor=None, **_) -> torch.Tensor:
        """boxes, targets (N, 5) decoded; weight (N,). The mean, or the sum divided by `avg_factor`."""
        orders = torch.stack([corners_of(targets).roll(k, 1) for k in range(4)], 1)  # (N, 4, 4, 2)
        distance = (corners_of(boxes)[:, None] - orders).abs().sum(-1).mean(-1).amin(1)  # (N,)
        loss = distance / targets[:, 2:4].prod(-1).sqrt().clamp(min=1)
        loss = loss if weight is None else loss * weight.reshape(-1)
        return self.loss_weight * (loss.mean() if avg_factor is None else loss.sum() / avg_factor)


class RotationInvariantRoIAlign(RiRoIAlignRotated):
    """RiRoI Align of ReDet (Han et al. 2021, Section 3.3): rotated RoI align, then a cyclic shift of the orientation
    channels of each field by the angle of the region, with linear interpolation, as in the CUDA kernel of mmcv."""

    def forward(self, features: torch.Tensor, rois: torch.Tensor) -> torch.Tensor:
        """features (B, F * O, H, W), rois (N, 6) as image, cx, cy, w, h, theta -> (N, F * O, out, out)."""
        size = torch.nn.modules.utils._pair(self.out_size)
        aligned = roi_align_rotated(features, rois, size, self.spatial_scale, self.num_samples, False, self.clockwise)
        fields = aligned.view(len(rois), -1, self.num_orientations, *size)  # (N, F, O, h, w)
        turns = rois[:, 5] * self.num_orientations / (2 * math.pi)  # in steps of one orientation
        whole = turns.floor()
        orientation = torch.arange(self.num_orientations, device=rois.device)
        source = (orientation - whole.long()[:, None]) % self.num_orientations  # (N, O)
        after = (source + 1) % self.num_orientations
        share = (turns - whole).view(-1, 1, 1, 1, 1)
        shifted = (1 - share) * _reordered(fields, source) + share * _reordered(fields, after)
        return shifted.reshape(aligned.shape)


def _reordered(fields: torch.Tensor, orientation: torch.Tensor) -> torch.Tensor:
    """fields (N, F, O, h, w), orientation (N, O) -> the orientations in that order."""
    return fields.gather(2, orientation[:, None, :, None, None].expand_as(fields))


@MODELS.register_module()
class RotationInvariantRoIExtractor(RotatedSingleRoIExtractor):
    """The extractor of mmrotate with `RotationInvariantRoIAlign`."""

    def build_roi_layers(self, layer_cfg: dict, featmap_strides: list[int]) -> torch.nn.ModuleList:
        settings = {name: value for name, value in layer_cfg.items() if name != "type"}
        return torch.nn.ModuleList(
            RotationInvariantRoIAlign(spatial_scale=1 / stride, **settings) for stride in featmap_strides
        )
