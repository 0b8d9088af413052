"""A backbone for detectors of mmrotate, pretrained on ImageNet, whose weights come as a Python package."""

from __future__ import annotations

import torch
from mmrotate.registry import MODELS
from torch import nn

from dataengine.imagenet import ImageNetFeatures


@MODELS.register_module()
class EfficientNetLite0(nn.Module):
    """Feature maps (24, 40 and 112 channels at 1/4, 1/8 and 1/16) of images normalised by mean 127 and deviation 128.

    first: number of the first block that is trained; batch statistics stay those of ImageNet. Raises UserError when the
    package of the weights is not installed.
    """

    def __init__(self, first: int = 0):
        super().__init__()
        self.features = ImageNetFeatures("lite0")
        for block in self.features.blocks[first:]:
            block.requires_grad_(True)

    def init_weights(self) -> None:
        """Does nothing: the weights are those of ImageNet."""

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        return self.features(images)[1:]
