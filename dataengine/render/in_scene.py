"""The in-scene denoiser: paints one object into its frame, given what surrounds it."""

from __future__ import annotations

import torch
from diffusers import ConfigMixin, ModelMixin, UNet2DModel
from diffusers.configuration_utils import register_to_config
from torch import nn
from torch.nn import functional as F

from dataengine.render.conditions import FieldEmbedding
from dataengine.render.fields import FIELDS
from dataengine.render.flow import velocity_of
from dataengine.render.frame import FrameSpec


class InSceneUNet(ModelMixin, ConfigMixin):
    """diffusers' `UNet2DModel` over pixel-unshuffled frames, with the conditions added to the time embedding.

    Gives the flow-matching velocity `noise - image` (Lipman et al. 2023, in diffusers' sign). The network itself
    predicts the clean image, which is smooth where noise is not, and so is learned sooner from patches (Li and He
    2025, "Back to basics": x-prediction).

    classes: names the model can paint. Two more embeddings follow them: "nothing" (empty ground, used to paint
    objects over) and the learned null that stands for an unknown class (contract 7).
    """

    @register_to_config
    def __init__(
        self,
        classes: list[str],
        frame_size: int = 96,
        context: float = 1.8,
        min_side: float = 28.0,
        hole_margin: float = 0.12,
        hole_pixels: float = 2.0,
        block_out_channels: tuple[int, ...] = (64, 128, 192),
        layers_per_block: int = 1,
        patch: int = 6,
    ):
        super().__init__()
        levels = len(block_out_channels)
        self.unet = UNet2DModel(
            sample_size=frame_size // patch,
            in_channels=8 * patch**2,  # noisy RGB, surroundings RGB, hole, box
            out_channels=3 * patch**2,
            block_out_channels=block_out_channels,
            layers_per_block=layers_per_block,
            down_block_types=("DownBlock2D",) * (levels - 1) + ("AttnDownBlock2D",),
            up_block_types=("AttnUpBlock2D",) + ("UpBlock2D",) * (levels - 1),
            norm_num_groups=16,
            attention_head_dim=32,
            class_embed_type="identity",
        )
        width = block_out_channels[0] * 4
        self.class_embedding = nn.Embedding(len(classes) + 2, width)
        self.field_embedding = FieldEmbedding(len(FIELDS), width)

    @property
    def spec(self) -> FrameSpec:
        """How this model's frames are cut."""
        c = self.config
        return FrameSpec(c.frame_size, c.context, c.min_side, c.hole_margin, c.hole_pixels)

    @property
    def nothing(self) -> int:
        """Label of empty ground."""
        return len(self.config.classes)

    @property
    def null(self) -> int:
        """Label of an unknown class."""
        return len(self.config.classes) + 1

    def forward(
        self,
        frames: torch.Tensor,
        timesteps: torch.Tensor,
        surroundings: torch.Tensor,
        hole: torch.Tensor,
        box: torch.Tensor,
        labels: torch.Tensor,
        fields: torch.Tensor,
    ) -> torch.Tensor:
        """Velocity (B, 3, F, F) for noisy frames (B, 3, F, F) at timesteps (B,) in [0, 1000].

        labels (B,) int64; fields (B, len(FIELDS)), `nan` where unknown.

        surroundings: (B, 3, F, F) in [-1, 1], 0 inside the hole. hole, box: (B, 1, F, F) in [0, 1].
        """
        x = torch.cat([frames, surroundings, hole, box], 1)  # (B, 8, F, F)
        x = F.pixel_unshuffle(x, self.config.patch).contiguous(memory_format=torch.channels_last)
        embedding = self.class_embedding(labels) + self.field_embedding(fields)
        clean = F.pixel_shuffle(self.unet(x, timesteps, class_labels=embedding).sample, self.config.patch)
        return velocity_of(frames, clean, timesteps)
