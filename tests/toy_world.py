"""A small world for tests: random networks for the ground, a painter that knows the answer, a prior of toy layouts."""

from __future__ import annotations

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from torch.nn import functional as F
from toy_scenes import random_layout

from dataengine.layouts.prior_fit import fit
from dataengine.render.in_scene import InSceneUNet
from dataengine.render.in_scene_pipeline import InScenePipeline
from dataengine.render.layout_pipeline import LayoutPipeline
from dataengine.render.layout_unet import LayoutUNet
from dataengine.render.thumbnail_decoder import ThumbnailDecoder, thumbnail_pixels
from dataengine.world.world import World

CELL = 64


class WhiteBoxes(InSceneUNet):
    """Knows the answer: white inside the box, dark outside and where nothing is to be. Everything but the network is
    the real thing."""

    def forward(self, frames, timesteps, surroundings, hole, box, labels, fields):
        box = box * (labels != self.nothing)[:, None, None, None]
        clean = torch.lerp(torch.full_like(frames, -0.9), torch.ones_like(frames), box)
        return (frames - clean) / (timesteps[:, None, None, None] / 1000)


def _smoothed(x: torch.Tensor, channels: int) -> torch.Tensor:
    """A random mixture of each pixel's surroundings, which sees zeros beyond the border of a window."""
    weight = torch.randn(channels, x.shape[1], 5, 5, generator=torch.Generator().manual_seed(0)) / 5
    return F.conv2d(x, weight, padding=2)


class QuickUNet(LayoutUNet):
    """In place of the network one convolution, of the noise, of where objects are and of a map's first group."""

    def forward(self, latents, timesteps, batch, text=None, known=None, control=None):
        covered = F.interpolate(batch.coverage.sum(1, keepdim=True), latents.shape[-2:])
        if control is not None:
            covered = covered - 3 * control.scale * F.interpolate(control.condition[:, :1], latents.shape[-2:])
        return latents - _smoothed(torch.cat([latents, covered], 1), 3)


class QuickDecoder(ThumbnailDecoder):
    """In place of the network one convolution, of the noise and of the enlarged thumbnail."""

    def forward(self, images, timesteps, thumbnails, domains, rasters=None):
        return images - _smoothed(torch.cat([0.1 * images, thumbnail_pixels(thumbnails)], 1), 3) / 4


def toy_ground(few: bool = True, quick: bool = True) -> LayoutPipeline:
    """A whole-image renderer of 128 pixels with random weights. quick: with a convolution in place of each network."""
    torch.manual_seed(0)
    network, decoder = (QuickUNet, QuickDecoder) if quick else (LayoutUNet, ThumbnailDecoder)
    unet = network(["car", "van"], ["toy"], sample_size=16, latent_channels=3, block_out_channels=(16, 32),
                   cross_attention_dim=16, attention_head_dim=8).eval()  # fmt: skip
    decoder = decoder(domains=["toy"], block_out_channels=(16, 32)).eval()
    steps = {"few_steps": 2, "decoder_few_steps": 2} if few else {"decoder_steps": 2}
    return LayoutPipeline(unet, decoder, FlowMatchEulerDiscreteScheduler(), **steps)


def toy_world(seed: int = 0, kind: str = "obb", levels: int = 1, headed: tuple[str, ...] = ()) -> World:
    """The world of a seed, the same in every process."""
    rng = np.random.default_rng(0)
    prior = fit([random_layout(rng, kind=kind) for _ in range(40)], (96, 96))
    torch.manual_seed(1)
    model = WhiteBoxes(["car", "van"], frame_size=48, block_out_channels=(16, 32), headed=headed)
    painter = InScenePipeline(model, FlowMatchEulerDiscreteScheduler(), few_steps=1)
    return World(seed, toy_ground(), painter, prior, "toy", cell=CELL, levels=levels)
