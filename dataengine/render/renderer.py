"""What a renderer is, and how one is loaded from its folder; `dataengine.render.RENDERERS` lists them."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np

from dataengine.errors import UserError, install, shown
from dataengine.files import MAX_CONFIG_BYTES, check_depth, parse_json, read_text
from dataengine.render import RENDERERS
from dataengine.render.canvas import Canvas, Painted
from dataengine.render.inpaint import paint_mask
from dataengine.render.placement import known_only, merge

if TYPE_CHECKING:
    from dataengine.render.control import GroundControl
    from dataengine.render.real_objects import RealObjects
    from dataengine.render.reference import ReferenceSampler


@dataclass(frozen=True)
class PaintSettings:
    """How a renderer paints; each uses what applies to it.

    num_inference_steps, guidance_scale: the renderer's own where None. domain: the data set whose appearance is asked
    for. real_objects: objects that painted ones start from. references: embeddings of real images to be like.
    control: makes the ground follow a map.
    """

    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    domain: str | None = None
    real_objects: RealObjects | None = None
    references: ReferenceSampler | None = None
    control: GroundControl | None = None


DEFAULTS = PaintSettings()


class Renderer(Protocol):
    """Paints new objects on canvases. `paint` returns them in order, with the objects of each canvas first in its
    labels and the image of its canvas's size; image i depends on canvases[i] and seeds[i] alone.

    label_effect: whether boxes still hold afterwards; the engine writes labelled data sets only for "keeps".
    paints_on: "scene" where it paints into images, "blank" where it makes the whole image. steps, guidance_scale: its
    own, used unless others are asked for. few_steps: the only number of steps that it was trained for, if it was.
    batch_size: images that it paints together unless another number is given. margin: share of an object's long side
    around it that is painted, too. reference_width: of the embeddings that it takes, 0 for none.
    `remove` takes painted objects out again (only where it paints into scenes).
    """

    label_effect: Literal["keeps", "moves", "voids"]
    paints_on: Literal["scene", "blank"]
    classes: tuple[str, ...]
    steps: int
    guidance_scale: float
    few_steps: int | None
    batch_size: int
    margin: float
    reference_width: int

    def paint(
        self, canvases: Sequence[Canvas], seeds: Sequence[int], settings: PaintSettings = DEFAULTS
    ) -> list[Painted]: ...

    def remove(self, painted: Painted, gone: np.ndarray, seed: int, settings: PaintSettings = DEFAULTS) -> Painted: ...


def paint_whole(
    pipeline, canvases: Sequence[Canvas], seeds: Sequence[int], settings: PaintSettings = DEFAULTS
) -> list[Painted]:
    """`Renderer.paint` of a pipeline that makes whole images from layouts: on blank canvases as they are, else by
    in-painting around the new objects. All canvases are of one sort."""
    options = {} if settings.references is None else {"references": settings.references.draw(seeds)}
    windows = [canvas.window() for canvas in canvases]
    layouts = [window.new for window in windows]
    if settings.control is not None:
        options["control"] = settings.control.of(layouts)
    if not canvases[0].blank:
        layouts = [known_only(merge(w.existing, w.new, 0.0), pipeline.classes) for w in windows]
        options["images"] = [window.image for window in windows]
        options["masks"] = [paint_mask(window.new, window.existing) for window in windows]
    images = pipeline(layouts, seeds, settings.domain, settings.num_inference_steps, settings.guidance_scale, **options)
    results = []
    for image, canvas in zip(images, canvases, strict=True):
        if canvas.blank:
            results.append(Painted(image, canvas.new, canvas, None))
        else:
            results.append(Painted(*canvas.put_back(image), canvas, canvas.image))
    return results


def best_device() -> str:
    """What to render on: "cuda" where this process sees a GPU, else "cpu"."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def load_renderer(folder: Path, kind: str) -> Renderer:
    """The pipeline that `save_pretrained` wrote, of a kind in RENDERERS.

    Raises UserError for a folder that holds no pipeline, one of another kind, or a damaged one.
    """
    from diffusers.utils import logging

    index = folder / "model_index.json"
    if not index.exists():
        raise UserError(f"{folder}: no model_index.json here; give the pipeline folder that dataengine train wrote.")
    try:
        parts = parse_json(read_text(index, MAX_CONFIG_BYTES))
        name = parts["_class_name"]
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{index}: damaged; copy the model again.") from None
    found = next((entry for entry in RENDERERS if entry.name == name), None)
    if found is None or found.kind != kind:
        fix = f"give --renderer {found.kind}, or another model" if found else "give a model of dataengine train"
        raise UserError(f"{folder}: holds a {shown(name)}, not a renderer of the kind {kind}; {fix}.")
    try:
        pipeline_class = getattr(importlib.import_module(found.module), found.name)
    except ImportError as error:
        if not found.extra:
            raise
        raise UserError(f"this renderer needs {error.name}: {install(found.extra)}.") from None
    _refuse_foreign_parts(index, parts, pipeline_class)
    for config in sorted(folder.glob("*/config.json")):
        check_depth(config)
    logging.disable_progress_bar()  # of the loading of parts, which takes a moment
    try:
        return pipeline_class.from_pretrained(folder, use_safetensors=True, local_files_only=True)
    except Exception as error:  # what a config asks for may be wrong in every way that torch knows
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(f"{folder}: the model cannot be loaded ({reason}); copy or train it again.") from error


def _refuse_foreign_parts(index: Path, parts: dict, pipeline_class: type) -> None:
    """Parts of a pipeline are [library, class], and diffusers imports whatever library is named there."""
    arguments = inspect.signature(pipeline_class.__init__).parameters
    for name, part in parts.items():
        if name[:1] == "_" or (name in arguments and arguments[name].default is not inspect.Parameter.empty):
            continue  # a setting, which is taken as a plain value
        library = part[0] if isinstance(part, list) and len(part) == 2 else ""
        known = library in ("diffusers", "transformers") or str(library).startswith("dataengine.render.")
        if library is not None and not known:
            raise UserError(
                f"{index}: {name} is {shown(part)}, which is no part of dataengine, diffusers or transformers; a model "
                "brings no code of its own."
            )
