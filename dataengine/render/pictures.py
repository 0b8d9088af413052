"""The renderer of a data set's own pictures (`picture_canvases`): other acquisitions, sequences, super-resolution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from dataengine.data.layout import Acquisition, Layout
from dataengine.render.canvas import Canvas, Painted
from dataengine.render.frame import covered
from dataengine.render.in_scene_pipeline import InScenePipeline
from dataengine.render.layout_pipeline import LayoutPipeline
from dataengine.render.picture_canvases import removable
from dataengine.render.renderer import DEFAULTS, PaintSettings
from dataengine.render.rerender import GUIDANCE, STRENGTH, conditions_of, rerender
from dataengine.render.superres import superresolve

DIFFUSIONSAT_STEPS, DIFFUSIONSAT_STRENGTH = 20, 0.6


def without(painter: InScenePipeline, image: np.ndarray, there: Layout, gone: Layout, seed: int) -> np.ndarray:
    """An image uint8 (H, W, 3) with ground over the objects that are gone at a date; `there` are the others.

    The ground is painted over all objects that could be gone at any date, and taken from there where these are: what is
    under an object does not depend on which others are gone. gone: with the acquisition of the image.
    """
    if not len(gone):
        return image
    everything = replace(there, acquisition=gone.acquisition).joined(gone)
    everything = everything.select(np.lexsort(everything.boxes.T))  # the same order at every date
    may_go = removable(everything)
    ground = painter.clear(image, everything.select(~may_go), everything.select(may_go), seed)
    to_gone, to_there = (_distances(boxes, image.shape[:2]) for boxes in (gone.boxes, there.boxes[removable(there)]))
    return np.where((to_gone < to_there)[..., None], ground, image)


def _distances(boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Distance of each pixel to the nearest box, (H, W) float32; infinite without boxes."""
    if not len(boxes):
        return np.full(size, np.inf, np.float32)
    return cv2.distanceTransform((~covered(boxes, size)).astype(np.uint8), cv2.DIST_L2, 5)


@dataclass
class PictureRenderer:
    """Paints whole pictures again (`engine.parts.Parts.renderer`). Label effect: voids, until the filter has verified
    the labels of each picture.

    model: the packaged whole-image renderer or one of its form, or a `DiffusionSatPipeline`. strength: the highest
    noise level of a picture, None for the model's own. factor: of super-resolution, 1 for none. painter: the in-scene
    renderer, which paints over objects that are not there at a date; None where all are.
    """

    model: object
    strength: float | None = None
    factor: int = 1
    painter: InScenePipeline | None = None

    label_effect = "voids"
    paints_on = "pictures"
    batch_size = 4
    reference_width = 0

    @property
    def conditions(self) -> frozenset[str]:
        """Fields of `Acquisition` that the model follows."""
        if isinstance(self.model, LayoutPipeline):
            return conditions_of(self.model.unet.config.fields)
        return self.model.conditions

    def paint(
        self, canvases: Sequence[Canvas], seeds: Sequence[int], settings: PaintSettings = DEFAULTS
    ) -> list[Painted]:
        """The pictures of `PictureCanvases`; picture i depends on canvases[i] and seeds[i] alone."""
        return [self._paint(canvas, seed, settings) for canvas, seed in zip(canvases, seeds, strict=True)]

    def _paint(self, canvas: Canvas, seed: int, settings: PaintSettings) -> Painted:
        image, labels = canvas.image, canvas.new
        if not canvas.provenance.unreadable:
            if self.painter is not None:
                image = without(self.painter, image, labels, canvas.existing, seed)
            if self.factor > 1:
                image = superresolve(
                    self.model, [image[:: self.factor, :: self.factor]], [seed], self.factor, settings.domain
                )[0]
            elif labels.acquisition != canvas.existing.acquisition:
                own = canvas.existing.acquisition.model_copy(update={"gsd_m": labels.acquisition.gsd_m})
                image = self._rerendered(image, labels, own, seed, settings)
        return Painted(image, labels, canvas, None)

    def _rerendered(
        self, image: np.ndarray, labels: Layout, own: Acquisition, seed: int, settings: PaintSettings
    ) -> np.ndarray:
        """The picture as its labels state. own: how it was acquired, at its present scale."""
        if isinstance(self.model, LayoutPipeline):
            guidance_scale = GUIDANCE if settings.guidance_scale is None else settings.guidance_scale
            strength = self.strength or STRENGTH
            given = ([image], [labels], [own], [seed], settings.domain, strength, guidance_scale)
            return rerender(self.model, *given)[0]
        from dataengine.render.diffusionsat import caption_of

        return self.model(
            [caption_of(labels)], [labels.acquisition], [seed], settings.num_inference_steps or DIFFUSIONSAT_STEPS,
            settings.guidance_scale or 1.0, [image], self.strength or DIFFUSIONSAT_STRENGTH,
        )[0]  # fmt: skip
