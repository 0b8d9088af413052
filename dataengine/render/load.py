"""Renderers from their folders."""

from __future__ import annotations

import inspect
from pathlib import Path

from dataengine.errors import UserError, install, shown
from dataengine.files import check_depth, parse_json, read_text

# kind: the pipelines that draw that way
RENDERERS = {"in-scene": ("InScenePipeline",), "whole": ("LayoutPipeline", "LatentPipeline")}


def _pipeline_class(name: str):
    """The class of that name; diffusers' heavy parts are imported only for the one that is asked for."""
    if name == "LatentPipeline":
        try:
            import transformers  # noqa: F401
        except ImportError:
            raise UserError(f"renderers with text need: {install('text')}.") from None
        from dataengine.render.latent_pipeline import LatentPipeline

        return LatentPipeline
    from dataengine.render.in_scene_pipeline import InScenePipeline
    from dataengine.render.layout_pipeline import LayoutPipeline

    return {"InScenePipeline": InScenePipeline, "LayoutPipeline": LayoutPipeline}[name]


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


def best_device() -> str:
    """What to render on: "cuda" where this process sees a GPU, else "cpu"."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def load_renderer(folder: Path, kind: str):
    """The pipeline that `save_pretrained` wrote, of a kind in RENDERERS.

    Raises UserError for a folder that holds no pipeline, one of the other kind, or a damaged one.
    """
    from diffusers.utils import logging

    index = folder / "model_index.json"
    if not index.exists():
        raise UserError(f"{folder}: no model_index.json here; give the pipeline folder that dataengine train wrote.")
    try:
        parts = parse_json(read_text(index))
        name = parts["_class_name"]
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{index}: damaged; copy the model again.") from None
    if not isinstance(name, str) or name not in RENDERERS[kind]:
        other = next((k for k, class_names in RENDERERS.items() if name in class_names), None)
        mend = f"give --renderer {other}, or another model" if other else "give a model of dataengine train"
        raise UserError(f"{folder}: holds a {shown(name)}, not a renderer of the kind {kind}; {mend}.")
    pipeline_class = _pipeline_class(name)
    _refuse_foreign_parts(index, parts, pipeline_class)
    for config in sorted(folder.glob("*/config.json")):
        check_depth(config)
    logging.disable_progress_bar()  # of the loading of parts, which takes a moment
    try:
        return pipeline_class.from_pretrained(folder, use_safetensors=True, local_files_only=True)
    except Exception as error:  # what a config asks for may be wrong in every way that torch knows
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(f"{folder}: the model cannot be loaded ({reason}); copy or train it again.") from error
