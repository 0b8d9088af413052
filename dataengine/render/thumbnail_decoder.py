"""Thumbnails, the latents of the whole-image renderer, and the diffusion decoder from them to pixels.

Encoding is a mean over squares, the same for all imagery, and needs no training. The decoder generates the detail that
the mean has lost (Chen et al. 2025, "Diffusion autoencoders are scalable image tokenizers"). It is fully convolutional,
so images may have any size.
"""

from __future__ import annotations

import torch
from diffusers import ConfigMixin, FlowMatchEulerDiscreteScheduler, ModelMixin, UNet2DModel
from diffusers.configuration_utils import register_to_config
from torch import nn
from torch.nn import functional as F

from dataengine.render.flow import draw_noise, sample, velocity_of
from dataengine.render.inpaint import Known
from dataengine.render.layout_batch import NOTHING, PLACE_LEVELS

THUMBNAIL_RATIO = 8  # pixels of a side per thumbnail pixel
THUMBNAIL_SCALE = 2.0  # scales thumbnails of aerial images, which have low contrast, to about unit spread
THUMBNAIL_NOISE = (
    0.1  # conditioning augmentation: the decoder tolerates errors of generated thumbnails (Ho et al. 2022)
)
OBJECT_NOISE = 0.4  # the same inside boxes, where the class and place of each pixel are conditions too


def thumbnails_of(images: torch.Tensor) -> torch.Tensor:
    """Means over squares of THUMBNAIL_RATIO pixels, (B, 3, H, W) in [-1, 1] -> (B, 3, H / 8, W / 8) of order one.

    >>> thumbnails_of(torch.full((1, 3, 16, 24), 0.5)).shape
    torch.Size([1, 3, 2, 3])
    """
    return F.avg_pool2d(images, THUMBNAIL_RATIO) * THUMBNAIL_SCALE


def thumbnail_pixels(thumbnails: torch.Tensor) -> torch.Tensor:
    """Thumbnails (B, 3, h, w) enlarged by bicubic interpolation to pixels (B, 3, 8 h, 8 w) in [-1, 1]."""
    large = F.interpolate(
        thumbnails / THUMBNAIL_SCALE, scale_factor=THUMBNAIL_RATIO, mode="bicubic", align_corners=False
    )
    return large.clamp(-1, 1)


class ThumbnailDecoder(ModelMixin, ConfigMixin):
    """Denoiser of pixels (B, 3, H, W), H and W multiples of 16, conditioned on their thumbnails.

    Returns the flow-matching velocity `noise - image`; the network itself predicts the clean image, like `InSceneUNet`.
    domains: data sets it was trained on, each a sensor and an appearance; one more embedding is the learned null.
    classes: of the boxes it is conditioned on; if empty, thumbnails are its only condition. padding: of the
    convolutions in torch's names; with "zeros" a network can recognise the border and generates what is typical there.
    """

    @register_to_config
    def __init__(
        self,
        domains: list[str],
        patch: int = 4,
        block_out_channels: tuple[int, ...] = (64, 128, 192),
        layers_per_block: int = 1,
        classes: list[str] = (),
        class_width: int = 16,
        padding: str = "zeros",
    ):
        super().__init__()
        levels = len(block_out_channels)
        self.unet = UNet2DModel(
            # noisy RGB, enlarged thumbnail; box or not, position along and across it
            in_channels=(9 * patch**2 + class_width) if classes else 6 * patch**2,
            out_channels=3 * patch**2,
            block_out_channels=block_out_channels,
            layers_per_block=layers_per_block,
            down_block_types=("DownBlock2D",) * levels,
            up_block_types=("UpBlock2D",) * levels,
            add_attention=False,
            norm_num_groups=16,
            class_embed_type="identity",
        )
        for module in self.unet.modules():
            if isinstance(module, nn.Conv2d) and max(module.padding) > 0:
                module.padding_mode = padding
        self.domain_embedding = nn.Embedding(len(domains) + 1, block_out_channels[0] * 4)
        if classes:
            self.class_embedding = nn.Embedding(len(classes) + 2, class_width)  # then nothing, unknown

    def forward(
        self,
        images: torch.Tensor,
        timesteps: torch.Tensor,
        thumbnails: torch.Tensor,
        domains: torch.Tensor,
        rasters: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Velocity (B, 3, H, W) of noisy images at timesteps (B,) in [0, 1000].

        thumbnails: (B, 3, H / 8, W / 8), noisy (`with_noise`). domains: (B,) int64. rasters: (B, 3, H, W) int8
        (`layout_raster`), for a decoder with classes.
        """
        patch = self.config.patch
        x = F.pixel_unshuffle(torch.cat([images, thumbnail_pixels(thumbnails)], 1), patch)
        if self.config.classes:
            numbers, places = rasters[:, 0].long(), rasters[:, 1:].to(x.dtype) / PLACE_LEVELS
            boxes = torch.cat([(numbers != NOTHING)[:, None].to(x.dtype), places], 1)
            rows = numbers % (len(self.config.classes) + 2)
            embedded = F.avg_pool2d(self.class_embedding(rows).permute(0, 3, 1, 2), patch)
            x = torch.cat([x, F.pixel_unshuffle(boxes, patch), embedded.to(x.dtype)], 1)
        out = self.unet(
            x.contiguous(memory_format=torch.channels_last), timesteps, class_labels=self.domain_embedding(domains)
        ).sample
        return velocity_of(images, F.pixel_shuffle(out, self.config.patch), timesteps)


def with_noise(thumbnails: torch.Tensor, noise: torch.Tensor, rasters: torch.Tensor | None = None) -> torch.Tensor:
    """Thumbnails (B, 3, h, w) with the noise that the decoder expects in training and sampling: more inside the boxes
    of rasters (B, 3, 8 h, 8 w)."""
    if rasters is None:
        return thumbnails + THUMBNAIL_NOISE * noise
    covered = F.avg_pool2d((rasters[:, :1] != NOTHING).to(noise.dtype), THUMBNAIL_RATIO)
    return thumbnails + (THUMBNAIL_NOISE + (OBJECT_NOISE - THUMBNAIL_NOISE) * covered) * noise


@torch.no_grad()
def decode_thumbnails(
    model: ThumbnailDecoder,
    thumbnails: torch.Tensor,
    domains: torch.Tensor,
    *,
    generators: list[torch.Generator],
    steps: int = 10,
    scheduler: FlowMatchEulerDiscreteScheduler | None = None,
    known: Known | None = None,
    rasters: torch.Tensor | None = None,
    few: bool = False,
) -> torch.Tensor:
    """Decode thumbnails (B, 3, h, w) to images (B, 3, 8 h, 8 w) float32, about in [-1, 1].

    The noise of image i comes from generators[i] alone (CPU; contract 4). known: pixels to keep outside a mask.
    rasters: (B, 3, 8 h, 8 w) int8, for a decoder with classes. few: sample as few-step models need it
    (`flow.sample_few`).
    """
    size = THUMBNAIL_RATIO * thumbnails.shape[-2], THUMBNAIL_RATIO * thumbnails.shape[-1]

    domains, rasters = domains.to(model.device), None if rasters is None else rasters.to(model.device)
    thumbnail_noise = draw_noise(generators, tuple(thumbnails.shape[1:]), model.device)
    noisy_thumbnails = with_noise(thumbnails.to(model.device), thumbnail_noise(), rasters)

    def velocity(x: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
        return model(x, times, noisy_thumbnails, domains, rasters)

    noise = draw_noise(generators, (3, *size), model.device)
    return sample(velocity, noise, steps, few=few, scheduler=scheduler, known=known)
