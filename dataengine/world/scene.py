"""The ground of a world: the stages of a whole-image renderer, each sampled in windows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch.nn import functional as F

from dataengine.data.layout import Layout
from dataengine.errors import UserError
from dataengine.render.control import Control, GroundControl
from dataengine.render.flow import few_sigmas
from dataengine.render.inpainting_pipeline import LATENT_RATIO, InpaintingPipeline
from dataengine.render.layout_batch import layout_rasters
from dataengine.render.layout_pipeline import LayoutPipeline
from dataengine.render.placement import class_numbers, domain_number
from dataengine.render.precision import fast_autocast
from dataengine.render.thumbnail_decoder import THUMBNAIL_RATIO, THUMBNAIL_SCALE, with_noise
from dataengine.world.noise import Rect, position_noise
from dataengine.world.style import Style, Uniform
from dataengine.world.windowed import (
    BoundedCache,
    Lattice,
    Phase,
    WindowedSampler,
    euler_advance,
    few_step_advance,
    phases_of,
)

LayoutOf = Callable[[Rect], Layout]  # what is to be seen in a rectangle of the world, in pixels from its corner
ControlOf = Callable[[Sequence[Rect]], Control]  # what the ground follows in rectangles of the world, in pixels

LAYOUT_OVERLAP, LAYOUT_HALO = 3, 0  # cells that neighbouring windows share, and those at the edge that are not used
DECODER_OVERLAP, DECODER_HALO = 6, 2  # the decoder repeats its outermost values, which shows up to two cells away
PHASES = 4  # of the layout model at most; between them, windows take over what their neighbours have made
GROUP = 5  # columns and rows of the layout model's last windows that are computed together: 1,024 pixels need 5 x 5
DECODED = 2  # windows of the decoder, which takes any size, have about as many times the side of the layout model's
AGREEING_ROUNDS = 3  # each leaves a quarter of what differs at most
CELL_CACHE_BYTES = 8 << 20  # of each phase of the layout model's windows: 30 rows of them across 4,096 pixels
PIXEL_CACHE_BYTES = 80 << 20  # of the decoder's windows: two rows of them across such a strip
TILE_PX = 128
TILE_CACHE_BYTES = 16 << 20  # of finished ground


class PlacedControl(GroundControl, Protocol):
    """A side network and what it follows in rectangles of a layout's image, in its pixels."""

    def within(self, layout: Layout, rects: Sequence[Rect]) -> Control: ...


class Scene:
    """Ground without an edge, in the appearance of a data set. `region` depends on the seed and the place alone.

    pipeline: a whole-image renderer. layout_of: the objects in any rectangle; the ground is made to suit them. domain:
    the appearance, one of the pipeline's, or None. steps: the pipeline's own if None. level, coarser: the number of
    halvings of the resolution, and the scene of one more, which this one is made to agree with. style: what the ground
    looks like, place by place. control_of: the map that the ground follows in rectangles of the level. independent:
    windows of the layout model's size that know nothing of one another, as a control for measurements.

    Raises UserError for a renderer that is neither a `LayoutPipeline` nor an `InpaintingPipeline`, and for an
    `InpaintingPipeline` with a coarser scene.
    """

    def __init__(
        self,
        pipeline: LayoutPipeline | InpaintingPipeline,
        seed: int,
        layout_of: LayoutOf,
        domain: str | None = None,
        steps: int | None = None,
        level: int = 0,
        coarser: Scene | None = None,
        style: Style | Uniform | None = None,
        control_of: ControlOf | None = None,
        independent: bool = False,
    ):
        self.pipeline, self.seed, self.layout_of, self.domain = pipeline, seed, layout_of, domain
        self.level, self.coarser, self.style, self.control_of = level, coarser, style, control_of
        self.independent = independent
        self.device = pipeline.unet.device
        self.number = domain_number(domain, pipeline.unet.config.domains)
        self.grey = domain in pipeline.config.grey_domains
        self.tiles = BoundedCache(TILE_CACHE_BYTES)
        if isinstance(pipeline, LayoutPipeline):
            self.ratio, few = THUMBNAIL_RATIO, pipeline.config.decoder_few_steps
            self.fine_sigmas = _sigmas(few or pipeline.config.decoder_steps, bool(few))
            # no exchange between its steps: thumbnails and noise by position leave windows little to differ in. Its
            # network halves the resolution, and what it makes is not quite the same at each place of that raster
            config = pipeline.decoder.config
            unit = max(1, (config.patch << len(config.block_out_channels) - 1) // self.ratio)
            times = 1 if independent else DECODED
            self.fine = self._decoder(self._decode_thumbnails, self.fine_sigmas, bool(few), times, unit)
            self.coarse = self._coarse(steps, bool(pipeline.config.few_steps))
            looks = list(pipeline.decoder.config.domains)
            self.look = torch.tensor([looks.index(domain) if domain in looks else len(looks)])
        elif isinstance(pipeline, InpaintingPipeline):
            if coarser is not None:
                raise UserError("--levels needs a whole-image renderer with a thumbnail decoder; leave --levels out.")
            self.ratio = LATENT_RATIO
            self.fine = self._decoder(self._decode_latents, [1.0], True)
            self.coarse = self._coarse(steps, False)
        else:
            raise UserError(f"{type(pipeline).__name__} cannot make a world; give a whole-image renderer.")

    def region(self, rect: Rect) -> np.ndarray:
        """The picture of a rectangle, uint8 (height, width, 3)."""
        image = np.empty((rect.height, rect.width, 3), np.uint8)
        with fast_autocast(self.device):  # weights are cast once: those inside end without effect
            for column, row in rect.cells(TILE_PX):
                tile = Rect(column * TILE_PX, row * TILE_PX, TILE_PX, TILE_PX)
                own, theirs = rect.common(tile)
                image[own] = self.tiles.get((column, row), lambda tile=tile: self._made(tile))[theirs]
        return image

    def keep_in(self, folder: Path) -> None:
        """Keep the windows of both stages in files of a folder, which processes may share."""
        self.fine.keep_in(folder / self._stage("pixels"))
        self.coarse.keep_in(folder / self._stage("cells"))

    def _made(self, rect: Rect) -> np.ndarray:
        pixels = self.fine.region(rect)
        if self.grey:
            pixels = np.repeat((pixels[:1] + pixels[1:2] + pixels[2:]) / np.float32(3), 3, 0)
        levels = np.clip(np.rint((pixels + 1) * np.float32(127.5)), 0, 255).astype(np.uint8)
        return np.ascontiguousarray(levels.transpose(1, 2, 0))

    def _sampler(self, stage: str, denoise, channels: int, sigmas: Sequence[float], few: bool, phases: Sequence[Phase],
                 group: int, max_bytes: int, dtype: type = np.float32):  # fmt: skip
        def noise(step: int, rect: Rect) -> np.ndarray:
            return position_noise(self.seed, self._stage(stage), step, channels, rect)

        advance = few_step_advance(sigmas) if few else euler_advance(sigmas)
        return WindowedSampler(
            denoise, noise, advance, phases, group=group, batch=self.pipeline.batch_size, max_bytes=max_bytes,
            dtype=dtype,
        )  # fmt: skip

    def _decoder(self, denoise, sigmas: Sequence[float], few: bool, times: int = 1, unit: int = 1) -> WindowedSampler:
        """The stage that makes pixels, in windows of `times` the layout model's, which lie on one raster of `unit`
        cells."""
        side = times * self.pipeline.unet.config.sample_size
        lattice = Lattice(side, side)
        if not self.independent:
            used = side + DECODER_OVERLAP - 2 * DECODER_HALO  # of a window: so many of them hold as many times `side`
            stride = -(-used // unit) * unit
            window = -(-(stride + DECODER_OVERLAP) // unit) * unit
            lattice = Lattice(window, stride, DECODER_HALO).beginning(0)
        pixels = Lattice(*(n * self.ratio for n in (lattice.window, lattice.stride, lattice.halo, lattice.first)))
        phases = phases_of(len(sigmas), pixels, 1)
        return self._sampler("pixels", denoise, 3, sigmas, few, phases, 1, PIXEL_CACHE_BYTES, np.float16)

    def _coarse(self, steps: int | None, few: bool) -> WindowedSampler:
        """The stage of the layout model, whose windows are of its own size."""
        unet = self.pipeline.unet
        sigmas = _sigmas(steps or self.pipeline.steps, few)

        def denoise(x: np.ndarray, step: int, places: Sequence[Rect]) -> np.ndarray:
            rects = [place.scaled(self.ratio) for place in places]
            layouts = [self.layout_of(rect) for rect in rects]
            led = {} if self.control_of is None else {"control": self.control_of(rects)}
            labels = [class_numbers(layout, self.pipeline.classes) for layout in layouts]
            references = self._references(places)
            batch = unet.layout_batch(layouts, labels, [self.number] * len(places), references).to(self.device)
            return self._clean(lambda y, t: unet(y, t, batch, **led), x, sigmas[step])

        side = unet.config.sample_size
        lattice = Lattice(side, side)
        if not self.independent:
            beginning = self.fine.phases[0].lattice.first // self.ratio
            lattice = Lattice(side, side - LAYOUT_OVERLAP, LAYOUT_HALO).beginning(beginning)
        phases = phases_of(len(sigmas), lattice, PHASES)
        return self._sampler(
            "cells", denoise, unet.config.latent_channels, sigmas, few, phases, GROUP, CELL_CACHE_BYTES
        )

    @torch.no_grad()
    def _clean(self, velocity, x: np.ndarray, sigma: float) -> np.ndarray:
        """The clean estimate of windows (B, C, W, W): x - sigma velocity."""
        windows = torch.from_numpy(x).to(self.device).clone()
        with fast_autocast(self.device):
            times = torch.full((len(windows),), 1000.0 * sigma, device=self.device)
            clean = windows - sigma * velocity(windows, times).float()
        return clean.cpu().numpy()

    def _decode_thumbnails(self, x: np.ndarray, step: int, places: Sequence[Rect]) -> np.ndarray:
        decoder, cells = self.pipeline.decoder, [place.around(self.ratio) for place in places]
        rasters = None
        if decoder.config.classes:
            layouts = [self.layout_of(place) for place in places]
            rasters = torch.from_numpy(layout_rasters(layouts, decoder.config.classes)).to(self.device)
        thumbnails, noise = (
            torch.from_numpy(np.stack(parts)).to(self.device)
            for parts in (
                [self._thumbnails(rect) for rect in cells],
                [position_noise(self.seed, self._stage("thumbnail noise"), 0, 3, rect) for rect in cells],
            )
        )
        noisy, look = with_noise(thumbnails, noise, rasters), self.look.to(self.device).expand(len(places))
        clean = self._clean(lambda y, t: decoder(y, t, noisy, look, rasters), x, self.fine_sigmas[step])
        if self.coarser is None:
            return clean
        return agreeing(clean, np.stack([self._coarser_pixels(place) for place in places]))

    def _thumbnails(self, cells: Rect) -> np.ndarray:
        """Latents (3, height, width) of a rectangle of cells: generated, or means of the coarser scene's pixels."""
        if self.coarser is None:
            return self.coarse.region(cells)
        pixels = torch.from_numpy(self._coarser_pixels(cells.scaled(self.ratio)))[None]
        return (F.avg_pool2d(pixels, self.ratio // 2) * THUMBNAIL_SCALE)[0].numpy()

    def _coarser_pixels(self, rect: Rect) -> np.ndarray:
        """The coarser scene in a rectangle of even sides and corner, (3, height / 2, width / 2) in [-1, 1]."""
        image = self.coarser.region(Rect(rect.left // 2, rect.top // 2, rect.width // 2, rect.height // 2))
        return image.transpose(2, 0, 1).astype(np.float32) / np.float32(127.5) - 1

    def _stage(self, name: str) -> str:
        return f"{name} {self.level}" if self.level else name

    def _references(self, places: Sequence[Rect]) -> np.ndarray | None:
        """Embeddings (B, 1, E) at the centres of windows of cells."""
        if self.style is None:
            return None
        to_pixels = self.ratio * 2**self.level
        centres = [(to_pixels * (p.left + p.width / 2), to_pixels * (p.top + p.height / 2)) for p in places]
        return np.stack([self.style.at(*centre) for centre in centres])[:, None]

    def _decode_latents(self, _: np.ndarray, __: int, places: Sequence[Rect]) -> np.ndarray:
        latents = np.stack([self.coarse.region(place.around(self.ratio)) for place in places])
        images = self.pipeline.decode(torch.from_numpy(latents).to(self.device))
        return np.stack(images).transpose(0, 3, 1, 2).astype(np.float32) / np.float32(127.5) - 1


def agreeing(clean: np.ndarray, coarse: np.ndarray) -> np.ndarray:
    """Clean estimates (B, C, H, W), moved so that their means over squares of two pixels are those of coarser images
    (B, C, H / 2, W / 2): the projection of constrained sampling (Wang et al. 2023, DDNM, eq. 13), with a smooth inverse
    in place of blocks. It needs no gradients.

    >>> moved = agreeing(np.zeros((1, 1, 8, 8), np.float32), np.ones((1, 1, 4, 4), np.float32))
    >>> moved.round(3).min(), moved.round(3).max()
    (np.float32(1.0), np.float32(1.0))
    """
    moved, wanted = torch.from_numpy(clean), torch.from_numpy(coarse)
    for _ in range(AGREEING_ROUNDS):
        difference = wanted - F.avg_pool2d(moved, 2)
        moved = moved + F.interpolate(difference, scale_factor=2, mode="bilinear", align_corners=False)
    return moved.numpy()


def _sigmas(steps: int, few: bool) -> list[float]:
    return few_sigmas(steps) if few else [1 - k / steps for k in range(steps)]
