"""Renderers from their folders."""

from __future__ import annotations

import json
from pathlib import Path

from dataengine.errors import UserError
from dataengine.files import read_text

# kind: the pipelines that draw that way
RENDERERS = {"in-scene": ("InScenePipeline",), "whole": ("LayoutPipeline", "LatentPipeline")}


def _pipeline_class(name: str):
    """The class of that name; diffusers' heavy parts are imported only for the one that is asked for."""
    if name == "LatentPipeline":
        try:
            import transformers  # noqa: F401
        except ImportError:
            raise UserError("renderers with text need: pip install 'dataengine[text]'.") from None
        from dataengine.render.latent_pipeline import LatentPipeline

        return LatentPipeline
    from dataengine.render.in_scene_pipeline import InScenePipeline
    from dataengine.render.layout_pipeline import LayoutPipeline

    return {"InScenePipeline": InScenePipeline, "LayoutPipeline": LayoutPipeline}[name]


def load_renderer(folder: Path, kind: str):
    """The pipeline that `save_pretrained` wrote, of a kind in RENDERERS.

    Raises UserError for a folder that holds no pipeline, one of the other kind, or a damaged one.
    """
    from diffusers.utils import logging
    from safetensors import SafetensorError

    index = folder / "model_index.json"
    if not index.exists():
        raise UserError(f"{folder}: no model_index.json here; give the pipeline folder that dataengine train wrote.")
    try:
        name = json.loads(read_text(index))["_class_name"]
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{index}: damaged; copy the model again.") from None
    if name not in RENDERERS[kind]:
        other = next((k for k, class_names in RENDERERS.items() if name in class_names), None)
        mend = f"give --renderer {other}, or another model" if other else "give a model of dataengine train"
        raise UserError(f"{folder}: holds a {name}, not a renderer of the kind {kind}; {mend}.")
    logging.disable_progress_bar()  # of the loading of parts, which takes a moment
    try:
        return _pipeline_class(name).from_pretrained(folder)
    except (OSError, ValueError, TypeError, KeyError, RuntimeError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(f"{folder}: the model cannot be loaded ({reason}); copy or train it again.") from error
