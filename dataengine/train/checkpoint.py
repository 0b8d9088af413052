"""Checkpoints of a training: written atomically, and loaded only by a training with the same settings."""

from __future__ import annotations

import json
import re
from pathlib import Path

import torch
from diffusers.training_utils import EMAModel
from safetensors.torch import load_file, save_file

from dataengine.errors import UserError
from dataengine.files import create_folder, remove


def _optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    state = optimizer.state_dict()["state"]
    return {f"{index}.{name}": value.contiguous() for index, entry in state.items() for name, value in entry.items()}


def _restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, torch.Tensor]) -> None:
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in tensors.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def trained_parameters(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """Parameters that require gradients, by name, in the model's order."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def save_checkpoint(folder: Path, step: int, model: torch.nn.Module, ema: EMAModel, optimizer, recipe: str) -> None:
    """Write weights, averaged weights and optimizer as safetensors; a killed run keeps its last checkpoint."""
    fresh = folder.with_name(folder.name + ".new")
    create_folder(fresh)
    parameters = trained_parameters(model)
    save_file({k: v.detach().contiguous() for k, v in model.state_dict().items()}, fresh / "model.safetensors")
    shadow = zip(parameters, ema.shadow_params, strict=True)
    save_file({k: v.contiguous() for k, v in shadow}, fresh / "ema.safetensors")
    save_file(_optimizer_tensors(optimizer), fresh / "optimizer.safetensors")
    (fresh / "state.json").write_text(json.dumps({"step": step, "ema_step": ema.optimization_step, "recipe": recipe}))
    old = folder.with_name(folder.name + ".old")
    if folder.exists():
        folder.rename(old)
    fresh.rename(folder)
    remove(old)


SETTING = re.compile(r"\('(\w+)', (.*?)\)(?=, \(|\]|$)|\"(\w+)\":(\[.*?\]|[^,}]*)|(\w+)=(\[.*?\](?= |$)|\S+)")
SHOWN_CHARACTERS = 40


def changed_settings(before: str, now: str) -> str:
    """What differs between two recipes, as a phrase; "" where no setting has a name.

    >>> changed_settings('crop=96 patch=4 {"seed":0}', 'crop=64 patch=4 {"seed":1}')
    ': crop was 96, is 64; seed was 0, is 1'
    """

    def settings(text: str) -> dict[str, str]:
        found = (tuple(part for part in match if part) for match in SETTING.findall(text))
        return {pair[0]: pair[1] for pair in found if len(pair) == 2}

    old, new = settings(before), settings(now)
    shown = {name: [part.get(name, "not there")[:SHOWN_CHARACTERS] for part in (old, new)] for name in {**old, **new}}
    changed = [f"{name} was {a}, is {b}" for name, (a, b) in shown.items() if old.get(name) != new.get(name)]
    return ": " + "; ".join(changed) if changed else ""


def load_checkpoint(folder: Path, model: torch.nn.Module, ema: EMAModel, optimizer, recipe: str) -> int:
    """Load a checkpoint of `save_checkpoint` and return its step, or 0 when there is none.

    Raises UserError when it was written with another recipe.
    """
    old = folder.with_name(folder.name + ".old")
    if not folder.exists() and old.exists():  # killed between the two renames
        old.rename(folder)
    if not (folder / "state.json").exists():
        return 0
    state = json.loads((folder / "state.json").read_text())
    stored = re.sub(r'"(steps|warmup_steps)":\d+,', "", state["recipe"])  # which version 0.2.0 did not let change
    if stored != recipe:
        raise UserError(
            f"{folder}: this checkpoint was made with other settings{changed_settings(stored, recipe)}; use another "
            "--out, or the same settings as before."
        )
    model.load_state_dict(load_file(folder / "model.safetensors"))
    shadow = load_file(folder / "ema.safetensors")
    ema.shadow_params = [shadow[name] for name in trained_parameters(model)]
    ema.optimization_step = state["ema_step"]
    _restore_optimizer(optimizer, load_file(folder / "optimizer.safetensors"))
    return state["step"]


def save_averaged(checkpoint: Path, model: torch.nn.Module, folder: Path) -> None:
    """Write the averaged weights of a checkpoint as a model of fp16; `model` has the same settings, and gets them.

    Raises UserError if there is no checkpoint.
    """
    file = checkpoint / "ema.safetensors"
    if not file.exists():
        raise UserError(f"{checkpoint} has no checkpoint; train first.")
    model.load_state_dict(load_file(file))
    model.half().save_pretrained(folder)
