"""Generated scenes of any size, for runs of images (`synth --size 1024`) without images of their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from dataengine.data.layout import Layout
from dataengine.data.tile import crop_layout
from dataengine.render.canvas import Canvas, Provenance
from dataengine.render.layout_pipeline import LayoutPipeline
from dataengine.render.placement import empty_layout
from dataengine.render.reference import ReferenceSampler
from dataengine.world.layouts import LEAST_VISIBLE
from dataengine.world.noise import Rect
from dataengine.world.scene import PlacedControl, Scene
from dataengine.world.style import Uniform


class WindowedCanvases:
    """Scenes that a whole-image renderer makes in windows, each part of a world of its own (`Canvases`)."""

    def __init__(self, pipeline: LayoutPipeline, domain: str):
        """domain: the appearance, one of the pipeline's. `control`, if set, makes the ground follow a map, and
        `references` look like other images. Raises UserError for an unknown domain."""
        self.pipeline, self.domain = pipeline, domain
        self.control: PlacedControl | None = None
        self.references: ReferenceSampler | None = None
        pipeline.domain_number(domain)

    def draw(self, layouts: Sequence[Layout], seeds: Sequence[int]) -> list[Canvas]:
        """A scene of each layout's size and acquisition, made to suit its objects."""
        return [self._drawn(layout, seed) for layout, seed in zip(layouts, seeds, strict=True)]

    def _drawn(self, layout: Layout, seed: int) -> Canvas:
        def part(rect: Rect) -> Layout:
            return crop_layout(layout, (rect.left, rect.top, rect.width, rect.height), LEAST_VISIBLE)

        follow = None if self.control is None else partial(self.control.within, layout)
        style = None if self.references is None else Uniform(self.references.draw([seed])[0, 0])
        scene = Scene(self.pipeline, seed, part, self.domain, style=style, control_of=follow)
        image = scene.region(Rect(0, 0, *layout.size))
        return Canvas(image, empty_layout(replace(layout, classes=())), layout, Provenance("generated", seed=seed))
