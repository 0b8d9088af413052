"""The training loop of all models: accelerate, EMA, and exact resume from checkpoints."""

from __future__ import annotations

import io
import math
import multiprocessing
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState
from diffusers import ConfigMixin
from diffusers.training_utils import EMAModel
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch.utils.data import DataLoader, Dataset

from dataengine.errors import UserError, counted, install
from dataengine.files import create_folder, remove, write_whole
from dataengine.render.precision import has_native_bf16
from dataengine.train.checkpoint import load_checkpoint, save_checkpoint, trained_parameters

MAX_WORKERS = 8


class TrainSettings(BaseModel):
    """Hyperparameters of a training. One step is one batch on each process."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    steps: int = Field(10_000, gt=0)
    batch_size: int = Field(32, gt=0)
    learning_rate: float = Field(4e-4, gt=0)
    warmup_steps: int = Field(200, ge=0)
    final_learning_rate_share: float = Field(0.05, ge=0, le=1, description="of the learning rate, at the last step")
    weight_decay: float = Field(0.01, ge=0)
    momentum: float = Field(0.9, ge=0, lt=1, description="of the optimizer; 0 for adversarial training")
    gradient_clip: float = Field(1.0, gt=0)
    ema_decay: float = Field(0.999, ge=0, lt=1)
    seed: int = 0
    precision: Literal["auto", "no", "bf16"] = "auto"
    compile: bool = False
    minutes: float | None = Field(None, gt=0, description="stop (with a checkpoint) after this long in this call")
    checkpoint_minutes: float = Field(1.0, gt=0)
    evaluate_every: int = Field(1000, gt=0, description="steps between sample grids")
    workers: int | None = Field(
        None, ge=0, description="processes that prepare batches; none by default on a CPU, which trains"
    )


def precision_for(device: torch.device, asked: str) -> str:
    """accelerate's name of the precision: as asked; for "auto", bf16 where that is native."""
    if asked != "auto":
        return asked
    return "bf16" if has_native_bf16(device) else "no"


def moved(batch: dict[str, torch.Tensor], device: torch.device) -> dict[str, torch.Tensor]:
    """The batch's tensors on a device."""
    return {name: value.to(device) for name, value in batch.items()}


@dataclass(frozen=True)
class Batches(Dataset):
    """Each step's batch, determined by (seed, step, process) alone, and a seed for the step's loss."""

    batch: Callable[[np.random.Generator], dict[str, torch.Tensor]]
    seed: int
    process: int

    def __getitem__(self, step: int) -> tuple[int, dict[str, torch.Tensor]]:
        rng = np.random.default_rng((self.seed, step, self.process))
        return int(rng.integers(2**62)), self.batch(rng)


def _one_thread(_worker: int) -> None:
    import cv2

    cv2.setNumThreads(0)  # OpenCV's threads do not survive a fork


def batches_from(step: int, batches: Batches, settings: TrainSettings, device: torch.device) -> DataLoader:
    """The batches from `step` to the last, in order; on a GPU, worker processes prepare them ahead."""
    on_gpu, fork = device.type == "cuda", "fork" in multiprocessing.get_all_start_methods()
    workers = settings.workers
    if workers is None:
        workers = min(MAX_WORKERS, max(1, (os.cpu_count() or 1) - 1)) if on_gpu and fork else 0
    return DataLoader(
        batches, batch_size=None, sampler=range(step, settings.steps), num_workers=workers, pin_memory=on_gpu,
        multiprocessing_context="fork" if workers else None,  # the batch function cannot be pickled, only inherited
        worker_init_fn=_one_thread, generator=torch.Generator(),
    )  # fmt: skip


def learning_rate_at(step: int, settings: TrainSettings) -> float:
    """Linear warm-up, then cosine decay to the final share.

    >>> settings = TrainSettings(steps=100, warmup_steps=10, learning_rate=1, final_learning_rate_share=0.1)
    >>> [round(learning_rate_at(step, settings), 3) for step in (0, 9, 10, 55, 100)]
    [0.1, 1.0, 1.0, 0.55, 0.1]
    """
    if step < settings.warmup_steps:
        return settings.learning_rate * (step + 1) / settings.warmup_steps
    progress = (step - settings.warmup_steps) / max(1, settings.steps - settings.warmup_steps)
    low = settings.final_learning_rate_share
    return settings.learning_rate * (low + (1 - low) * 0.5 * (1 + math.cos(math.pi * min(progress, 1))))


def model_settings_text(model: ConfigMixin) -> str:
    """A model's constructor arguments in a fixed order, as part of a recipe."""
    return repr(sorted((name, value) for name, value in model.config.items() if not name.startswith("_")))


def save_once(model, folder: Path) -> None:
    """`save_pretrained` by the main process alone, where several train together; the others wait for it.

    Files that are there are replaced, not written to: they may have a second name elsewhere.
    """
    state = PartialState()
    if state.is_main_process:
        fresh = folder.with_name(f"{folder.name}.new")
        create_folder(fresh)
        model.save_pretrained(fresh)
        for file in sorted(fresh.rglob("*")):
            target = folder / file.relative_to(fresh)
            if file.is_file():
                target.parent.mkdir(parents=True, exist_ok=True)
                os.replace(file, target)
        remove(fresh)
    state.wait_for_everyone()


def save_samples(image: Image.Image, folder: Path, step: int) -> None:
    """Write `folder/samples/STEP.png`."""
    content = io.BytesIO()
    image.save(content, "PNG")
    (folder / "samples").mkdir(exist_ok=True)
    write_whole(folder / "samples" / f"{step:07d}.png", content.getvalue())


def _groups(model: torch.nn.Module) -> list[dict]:
    """One group per parameter, in the model's order; `model.rate_shares` maps name prefixes to shares of the learning
    rate."""
    shares = getattr(model, "rate_shares", {})
    return [
        {"params": [p], "share": next((share for part, share in shares.items() if name.startswith(part)), 1.0)}
        for name, p in trained_parameters(model).items()
    ]


def train(
    model: torch.nn.Module,
    batch: Callable[[np.random.Generator], dict[str, torch.Tensor]],
    loss: Callable[[torch.nn.Module, dict[str, torch.Tensor], torch.Generator], dict[str, torch.Tensor]],
    out: Path,
    settings: TrainSettings,
    recipe: str,
    evaluate: Callable[[torch.nn.Module, int, Path], None] | None = None,
) -> bool:
    """Train `model` in place until `settings.steps` or `settings.minutes`; True when all steps are done.

    A training that ends early says so, and at which step. A finished one continues if it is given more steps.

    batch(rng) returns CPU tensors; loss(model, batch, generator) returns named scalars, of which "loss" is minimised.
    Both get randomness seeded by (seed, step, process), so a resumed training equals an uninterrupted one exactly.
    evaluate(averaged_model, step, folder) writes sample grids. recipe: describes everything that must not change when a
    training is resumed. On return, the model has the averaged weights (EMA).
    """
    out.mkdir(parents=True, exist_ok=True)
    on_cpu = not torch.cuda.is_available()
    device = torch.device("cpu" if on_cpu else "cuda")
    AcceleratorState._reset_state()  # so that a second training in this process may use another precision
    accelerator = Accelerator(mixed_precision=precision_for(device, settings.precision), cpu=on_cpu)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        _groups(model), lr=settings.learning_rate, weight_decay=settings.weight_decay, betas=(settings.momentum, 0.99)
    )
    model.to(accelerator.device, memory_format=torch.channels_last)
    ema = EMAModel(parameters, decay=settings.ema_decay, use_ema_warmup=True, inv_gamma=1.0, power=0.75)
    recipe += settings.model_dump_json(
        exclude={"steps", "warmup_steps", "minutes", "checkpoint_minutes", "evaluate_every", "compile", "workers"}
    )
    step = load_checkpoint(out / "checkpoint", model, ema, optimizer, recipe)
    if step > settings.steps:
        raise UserError(
            f"{out} is trained for {step:,} steps already, more than {settings.steps:,}; give more --steps, or another "
            "--out."
        )
    ema.to(accelerator.device)
    prepared, optimizer = accelerator.prepare(model, optimizer)
    runner = torch.compile(prepared) if settings.compile else prepared
    writer = None
    if accelerator.is_main_process:
        try:
            from torch.utils.tensorboard import SummaryWriter

            writer = SummaryWriter(str(out / "tensorboard"), purge_step=step)
        except ImportError:
            print(f"tensorboard is not installed, so no loss curves are written: {install('train')}")

    def checkpoint() -> None:
        if accelerator.is_main_process:
            save_checkpoint(out / "checkpoint", step, model, ema, optimizer.optimizer, recipe)

    def evaluate_averaged() -> None:
        if evaluate is not None and accelerator.is_main_process:
            ema.store(parameters)
            ema.copy_to(parameters)
            model.eval()
            evaluate(model, step, out)
            model.train()
            ema.restore(parameters)

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    started = saved = time.monotonic()
    model.train()
    with Progress(*columns, TimeRemainingColumn(), disable=not accelerator.is_main_process) as progress:
        task = progress.add_task("training", total=settings.steps, completed=step)
        batches = Batches(batch, settings.seed, accelerator.process_index)
        for seed, tensors in batches_from(step, batches, settings, accelerator.device):
            generator = torch.Generator(accelerator.device).manual_seed(seed)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate_at(step, settings) * group["share"]
            tensors = moved(tensors, accelerator.device)
            with accelerator.autocast():
                losses = loss(runner, tensors, generator)
            accelerator.backward(losses["loss"])
            accelerator.clip_grad_norm_(parameters, settings.gradient_clip)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            ema.step(parameters)
            step += 1
            now = time.monotonic()
            if step % 20 == 0:
                values = {name: float(value.detach()) for name, value in losses.items()}
                if not math.isfinite(values["loss"]):
                    raise UserError(f"{out}: the loss is {values['loss']} at step {step}; lower the learning rate.")
                rate = (
                    settings.batch_size
                    * accelerator.num_processes
                    * 20
                    / (now - progress.tasks[task].fields.get("last", started))
                )
                progress.update(
                    task, completed=step, last=now, description=f"loss {values['loss']:.4f}, {rate:.0f} samples/s"
                )
                if writer:
                    for name, value in values.items():
                        writer.add_scalar(name, value, step)
                    writer.add_scalar("samples_per_second", rate, step)
            if step % settings.evaluate_every == 0:
                evaluate_averaged()
            if now - saved > 60 * settings.checkpoint_minutes:
                checkpoint()
                saved = now
                if not progress.console.is_terminal:  # a log file gets a line per checkpoint instead of the bar
                    print(f"step {step}/{settings.steps}: {progress.tasks[task].description}", flush=True)
            if settings.minutes is not None and now - started > 60 * settings.minutes:
                break
            progress.update(task, completed=step)
    if step % settings.evaluate_every:  # also where --minutes ends it: a short training can be looked at as well
        evaluate_averaged()
    checkpoint()
    ema.copy_to(parameters)
    model.eval()
    if writer:
        writer.close()
    if step < settings.steps and accelerator.is_main_process:
        print(
            f"{out}: stopped after {counted(settings.minutes, 'minute')} at step {step:,} of {settings.steps:,}; the "
            "same command continues from there. Until then the model is what the steps so far made of it."
        )
    return step >= settings.steps
