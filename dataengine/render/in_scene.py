"""The in-scene renderer's network: paints one object into its frame, given what surrounds it."""

from __future__ import annotations

import numpy as np
import torch
from diffusers import ConfigMixin, FlowMatchEulerDiscreteScheduler, ModelMixin, UNet2DModel
from diffusers.configuration_utils import register_to_config
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from torch import nn
from torch.nn import functional as F

from dataengine.data.layout import Layout, acquisition_values
from dataengine.render.flow import Start, draw_noise, sample, velocity_of
from dataengine.render.frame import FrameSpec, frame_angles, frame_sides

# Continuous conditions of an object, in the order of their columns; `nan` is unknown (contract 7)
FIELDS = ("aspect", "scale", "angle_sin", "angle_cos", "altitude", "camera_angle", "night", "gsd")


def object_fields(layout: Layout, spec: FrameSpec, context: float | None = None) -> np.ndarray:
    """Continuous conditions of the objects, (N, len(FIELDS)) float32, each column of order one.

    aspect and scale: log2 of w/h and of image pixels per frame pixel. The frame's angle (as sine and cosine) is a
    condition because light and camera tilt have a direction in the image that an upright frame does not show.
    """
    n = len(layout)
    out = np.full((n, len(FIELDS)), np.nan, np.float32)
    angle = frame_angles(layout.boxes, layout.kind)
    out[:, 0] = np.log2(np.maximum(layout.boxes[:, 2], 1) / np.maximum(layout.boxes[:, 3], 1))
    out[:, 1] = np.log2(frame_sides(layout.boxes, spec, context) / spec.size)
    out[:, 2], out[:, 3] = np.sin(angle), np.cos(angle)
    out[:, 4:] = acquisition_values(layout.acquisition, FIELDS[4:])
    return out


def without_angle(fields: np.ndarray) -> np.ndarray:
    """Conditions (N, len(FIELDS)) of objects whose heading is unknown, though others of the class have one."""
    out = fields.copy()
    out[:, 2:4] = np.nan
    return out


class FieldEmbedding(nn.Module):
    """Embedding of continuous conditions: the sum over fields of a sinusoidal embedding through an MLP, as DiffusionSat
    adds metadata to the time embedding (Khanna et al. 2024, section 3.2). An unknown field has a learned vector in
    place of zero (contract 7)."""

    def __init__(self, n_fields: int, width: int):
        super().__init__()
        self.wave = Timesteps(64, flip_sin_to_cos=True, downscale_freq_shift=0, scale=100)
        self.fields = nn.ModuleList(TimestepEmbedding(64, width) for _ in range(n_fields))
        self.nulls = nn.Parameter(torch.zeros(n_fields, width))

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """(B, n_fields) of order one, `nan` where unknown -> (B, width)."""
        known = ~values.isnan()
        values = values.nan_to_num(0.0)
        total = 0
        for i, mlp in enumerate(self.fields):
            embedded = mlp(self.wave(values[:, i]).to(self.nulls.dtype))
            total = total + torch.where(known[:, i, None], embedded, self.nulls[i].to(embedded.dtype))
        return total


class InSceneUNet(ModelMixin, ConfigMixin):
    """diffusers' `UNet2DModel` over pixel-unshuffled frames, with the conditions added to the time embedding.

    Returns the flow-matching velocity `noise - image` (Lipman et al. 2023, in diffusers' sign). The network itself
    predicts the clean image, which is easier to learn from patches because it is smooth and noise is not (Li and He
    2025, "Back to basics": x-prediction).

    classes: names the model can paint. Two embeddings follow them: "nothing" (empty ground, to paint over objects) and
    the learned null of an unknown class (contract 7). headed: those painted along a heading (`heading`) where their box
    is horizontal.
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
        headed: tuple[str, ...] = (),
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
        """Geometry of this model's frames."""
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
        """Velocity (B, 3, F, F) of noisy frames (B, 3, F, F) at timesteps (B,) in [0, 1000].

        surroundings: (B, 3, F, F) in [-1, 1], 0 inside the hole. hole, box: (B, 1, F, F) in [0, 1], see `frame.masks`.
        labels: (B,) int64. fields: (B, len(FIELDS)), `nan` where unknown.
        """
        x = torch.cat([frames, surroundings, hole, box], 1)  # (B, 8, F, F)
        x = F.pixel_unshuffle(x, self.config.patch).contiguous(memory_format=torch.channels_last)
        embedding = self.class_embedding(labels) + self.field_embedding(fields)
        clean = F.pixel_shuffle(self.unet(x, timesteps, class_labels=embedding).sample, self.config.patch)
        return velocity_of(frames, clean, timesteps)


@torch.no_grad()
def sample_frames(
    model: InSceneUNet,
    surroundings: torch.Tensor,
    hole: torch.Tensor,
    box: torch.Tensor,
    labels: torch.Tensor,
    fields: torch.Tensor,
    *,
    generators: list[torch.Generator],
    steps: int = 12,
    guidance_scale: float = 1.0,
    scheduler: FlowMatchEulerDiscreteScheduler | None = None,
    few: bool = False,
    start: Start | None = None,
) -> torch.Tensor:
    """Paint B frames; returns (B, 3, F, F) float32 in about [-1, 1].

    The noise of frame i comes from generators[i] alone (CPU), so it does not depend on its batch (contract 4). Guidance
    is `null + guidance_scale * (class - null)` on the class label; 1 needs a single pass. few: sample as few-step
    models need it (`flow.sample_few`). start: frames to start from. The other arguments are those of
    `InSceneUNet.forward`.
    """
    size = model.config.frame_size

    noise = draw_noise(generators, (3, size, size), surroundings.device)

    def velocity(x: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
        with_class = model(x, times, surroundings, hole, box, labels, fields)
        if guidance_scale == 1.0:
            return with_class
        null = model(x, times, surroundings, hole, box, torch.full_like(labels, model.null), fields)
        return null + guidance_scale * (with_class - null)

    return sample(velocity, noise, steps, few=few, scheduler=scheduler, start=start)
