"""Renderers, and what they paint on. This file imports nothing heavy: `dataengine synth --help` reads it."""

from __future__ import annotations

from typing import NamedTuple

IMAGERY_FILE = "imagery.json"  # in a model's folder: what it was trained on (`imagery`)
PROVENANCE_FILE = "provenance.json"  # in the folder of a fetched model: where it comes from (`published`)


class RendererClass(NamedTuple):
    """A pipeline by the names of its class and its module, which is imported only where it is used. kind: what
    `--renderer` calls it. extra: of the package, that it needs."""

    name: str
    module: str
    kind: str
    extra: str = ""


RENDERERS = [
    RendererClass("InScenePipeline", "dataengine.render.in_scene_pipeline", "in-scene"),
    RendererClass("LayoutPipeline", "dataengine.render.layout_pipeline", "whole"),
    RendererClass("LatentPipeline", "dataengine.render.latent_pipeline", "whole", "text"),
]
