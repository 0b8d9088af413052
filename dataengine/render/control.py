"""A side network that makes the ground follow a map: ControlNet (Zhang et al. 2023, "Adding conditional control").

It has the form of diffusers' `ControlNetModel`, so that published ones of Stable Diffusion work with boxes, too. Its
output is added to the skip connections of the denoiser; at first it is zero, and the result is that of the denoiser
alone. The denoiser does not know the map, so it is the null of the map: no dropout is needed for it (contract 7).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import cv2
import numpy as np
import torch
from diffusers import ControlNetModel
from pydantic import BaseModel, ConfigDict

from dataengine.errors import UserError, one_line
from dataengine.files import check_depth, read_json_as, write_whole
from dataengine.maps.raster import MapRaster

if TYPE_CHECKING:
    from dataengine.data.layout import Layout
    from dataengine.render.layout_unet import LayoutUNet

INPUT_FILE = "map.json"  # in a control's folder: what it was trained to follow
DOWNSAMPLING = 8  # of diffusers' embedding of the condition
SILU_GAIN = 1.68  # 1 / sqrt(mean of SiLU(z)^2), z standard normal
COPIED = ("time_embedding", "down_blocks", "mid_block")  # parts of the denoiser that a side network starts as


@dataclass(frozen=True)
class Control:
    """A side network and what each image of a batch follows. condition: float32 (B, C, H, W), 0 to 1 and -1 to 1 for
    directions, at 8 times the side of the denoiser's raster. scale: of what it adds; 0 leaves the denoiser alone."""

    network: ControlNetModel
    condition: torch.Tensor
    scale: float = 1.0

    def part(self, index: Sequence[int]) -> Control:
        """The control of some images of the batch."""
        return replace(self, condition=self.condition[list(index)])

    def residuals(
        self, patches: torch.Tensor, timesteps: torch.Tensor, context: torch.Tensor, look: torch.Tensor | None = None
    ) -> dict:
        """What is added to the skip connections and the middle of a `UNet2DConditionModel`, as its keywords.

        patches (B, C, G, G): noisy latents, in patches as the denoiser has them. context (B, T, D): text. look (B, E):
        embedding of data set and acquisition, for a side network that takes it."""
        if self.scale == 0:
            return {}
        condition = self.condition.to(patches.device, patches.dtype)
        down, middle = self.network(
            patches, timesteps, encoder_hidden_states=context, controlnet_cond=condition,
            class_labels=None if self.network.config.class_embed_type is None else look,
            conditioning_scale=self.scale, return_dict=False,
        )  # fmt: skip
        return {"down_block_additional_residuals": down, "mid_block_additional_residual": middle}


class GroundControl(Protocol):
    """A side network and what it follows at the place of each layout."""

    def of(self, layouts: Sequence[Layout]) -> Control: ...


class ControlInput(BaseModel):
    """What a control of `dataengine train control` follows. classes: of the ground, by channel. gsd_m: smallest and
    largest metres per pixel of its training. groups: {group: classes of a map}, for a control whose channels are coarse
    groups of such classes, in this order; classes are then all that it can tell apart. renderer: hash of the denoiser
    that it was trained for, "" where it was not noted."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    classes: tuple[str, ...]
    gsd_m: tuple[float, float]
    groups: dict[str, tuple[str, ...]] = {}
    renderer: str = ""

    def condition(self, raster: MapRaster, side: int) -> np.ndarray:
        """The channels of a map that the control is given, float32 (C, side, side)."""
        if not self.groups:
            return condition_of(raster, side)
        return grouped_condition(group_numbers(raster, self.groups), len(self.groups), side)


def new_control(model: LayoutUNet, channels: int) -> ControlNetModel:
    """A side network for a denoiser, which starts as a copy of its encoder and adds nothing yet.

    channels: of the condition. It sees the noisy latents, the text, and what the denoiser knows of data set and
    acquisition; not the boxes: those reach the denoiser."""
    c = model.unet.config
    patches = model.config.latent_channels * model.config.patch**2
    control = ControlNetModel(
        in_channels=patches, conditioning_channels=channels, flip_sin_to_cos=c.flip_sin_to_cos, freq_shift=c.freq_shift,
        down_block_types=c.down_block_types, mid_block_type=c.mid_block_type, block_out_channels=c.block_out_channels,
        layers_per_block=c.layers_per_block, downsample_padding=c.downsample_padding, act_fn=c.act_fn,
        norm_num_groups=c.norm_num_groups, norm_eps=c.norm_eps, cross_attention_dim=c.cross_attention_dim,
        attention_head_dim=c.attention_head_dim, use_linear_projection=c.use_linear_projection,
        class_embed_type=c.class_embed_type,
    )  # fmt: skip
    source = model.unet.state_dict()
    weights = {
        name: source[name]
        for name in control.state_dict()
        if name.startswith(COPIED) and name in source and "processor" not in name
    }
    first = model.conv_in if model.config.regional else model.unet.conv_in
    weights["conv_in.weight"], weights["conv_in.bias"] = first.weight[:, :patches].detach(), first.bias.detach()
    missing, unexpected = control.load_state_dict(weights, strict=False)
    assert not unexpected, unexpected
    _keep_variance(control.controlnet_cond_embedding)
    assert all(name.startswith("controlnet_") for name in missing), missing
    return control


def _keep_variance(embedding: torch.nn.Module) -> None:
    """Weights of the embedding of the condition that keep its variance from layer to layer (He et al. 2015, for SiLU).
    torch's own shrink it two hundred times, and diffusers' last one is zero, so the map would be learnt late. What the
    side network adds is zero all the same, through its last convolutions."""
    for layer in [embedding.conv_in, *embedding.blocks, embedding.conv_out]:
        fan_in = layer.weight[0].numel()
        torch.nn.init.normal_(layer.weight, std=SILU_GAIN / fan_in**0.5)
        torch.nn.init.zeros_(layer.bias)


def condition_side(model: LayoutUNet) -> int:
    """Side in pixels of the condition of a denoiser's side network."""
    return DOWNSAMPLING * model.grid


def condition_of(raster: MapRaster, side: int) -> np.ndarray:
    """The channels of a raster, area-averaged to side x side pixels, float32 (C, side, side)."""
    channels = raster.channels()
    if channels.shape[-1] == side:
        return channels
    shrinks = side < channels.shape[-1]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_NEAREST
    return np.stack([cv2.resize(channel, (side, side), interpolation=method) for channel in channels])


def group_numbers(raster: MapRaster, groups: dict[str, tuple[str, ...]]) -> np.ndarray:
    """Groups uint8 (H, W) of a raster's classes, from 1 on; 0 for classes of no group, and beyond the map.

    >>> names, no_lines = ("unmapped", "wood", "pond"), np.zeros((2, 2, 2))
    >>> raster = MapRaster(np.uint8([[0, 1], [2, 255]]), no_lines[0] > 0, no_lines, names)
    >>> group_numbers(raster, {"water": ("pond",), "green": ("wood", "grass")}).tolist()
    [[0, 2], [1, 0]]
    """
    row = np.zeros(256, np.uint8)
    for number, names in enumerate(groups.values(), 1):
        row[[raster.names.index(name) for name in names if name in raster.names]] = number
    return row[raster.classes]


def grouped_condition(groups: np.ndarray, n: int, side: int) -> np.ndarray:
    """Groups (H, W), 0 or 1 to n, as channels float32 (n + 1, side, side): one for each group, all 0 where it is
    unknown, then the edges between groups.

    >>> grouped_condition(np.uint8([[0, 2], [0, 2]]), 2, 2)[:, 0].tolist()
    [[0.0, 0.0], [0.0, 1.0], [0.0, 1.0]]
    """
    groups = cv2.resize(groups, (side, side), interpolation=cv2.INTER_NEAREST)
    channels = (groups[None] == np.arange(1, n + 2)[:, None, None]).astype(np.float32)
    channels[n, :, 1:] = groups[:, 1:] != groups[:, :-1]
    channels[n, 1:] = np.maximum(channels[n, 1:], groups[1:] != groups[:-1])
    return channels


def save_input(folder: Path, given: ControlInput) -> None:
    """Write what a control follows beside its weights."""
    write_whole(folder / INPUT_FILE, json.dumps(given.model_dump(mode="json"), indent=2) + "\n")


def read_input(folder: Path) -> ControlInput:
    """What the control in a folder follows. Raises UserError for a file that is missing or damaged."""
    return read_json_as(folder / INPUT_FILE, ControlInput.model_validate, ControlInput.model_fields, "train it again")


def load_control(source: str) -> tuple[ControlNetModel, ControlInput | None]:
    """A side network from a folder or a hub id, and what it follows; None for a published one, which is given a picture
    of the map. Raises UserError for anything else."""
    folder = Path(source)
    if folder.is_dir():
        check_depth(folder / "config.json")
    try:
        network = ControlNetModel.from_pretrained(source, use_safetensors=True, local_files_only=folder.is_dir())
    except Exception as error:  # what a config asks for may be wrong in every way that torch knows
        raise UserError(
            f"--control {source}: is no ControlNet of diffusers with safetensors ({one_line(error)[:200]}); give a "
            "folder of dataengine train control, or a published one by folder or hub id."
        ) from None
    given = read_input(folder) if (folder / INPUT_FILE).is_file() else None
    if given is None and network.config.conditioning_channels != 3:
        raise UserError(f"--control {source}: has no {INPUT_FILE}, and takes no picture of three channels.")
    return network.eval(), given


def check_fits(control: ControlNetModel, model: LayoutUNet, source: str) -> None:
    """Raises UserError unless a side network is of a denoiser's form: what it adds would have other shapes."""
    c, u = control.config, model.unet.config
    pairs = {
        "input channels": (c.in_channels, model.config.latent_channels * model.config.patch**2),
        "widths of the levels": (tuple(c.block_out_channels), tuple(u.block_out_channels)),
        "layers per level": (c.layers_per_block, u.layers_per_block),
        "width of the text": (c.cross_attention_dim, u.cross_attention_dim),
    }
    for what, (own, needed) in pairs.items():
        if own != needed:
            raise UserError(
                f"--control {source}: is for another denoiser ({what}: {own}, the renderer has {needed}); give one of "
                "the same base, such as one of Stable Diffusion 1.5 for AeroGen's model."
            )
