"""A backbone for mmrotate's detectors that has seen ImageNet, as detectors of the field have, without a model hub."""

from __future__ import annotations

import torch
from mmrotate.registry import MODELS
from torch import nn

from dataengine.imagenet import ImageNetFeatures


@MODELS.register_module()
class EfficientNetLite0(nn.Module):
    """Feature maps (24, 40 and 112 channels at 1/4, 1/8 and 1/16) of pictures that were normalised by mean 127 and
    deviation 128. Weights learn on from `first` (a block's number) on; batch statistics stay those of ImageNet.

    Raises UserError where the package of the weights is not installed.
    """

    def __init__(self, first: int = 0):
        super().__init__()
        self.features = ImageNetFeatures("lite0")
        for block in self.features.blocks[first:]:
            block.requires_grad_(True)

    def init_weights(self) -> None:
        """They are ImageNet's."""

    def forward(self, pictures: torch.Tensor) -> list[torch.Tensor]:
        return self.features(pictures)[1:]
