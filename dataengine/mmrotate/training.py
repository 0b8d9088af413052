"""Training of an mmrotate detector from its exported config; a killed training continues with an equal result.

The loop is our own, around the models, data sets and optimisers of mmrotate: the Runner of mmengine loads all images
again to resume, keeps no random state, and removes the last checkpoint before the next one is written.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
import urllib.error
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from dataengine.errors import UserError, one_line
from dataengine.files import lock, read_text, write_whole
from dataengine.mmrotate.cpu_speed import accelerate_on_cpu
from dataengine.mmrotate.draws import Draws, batch_shares, seed_all
from dataengine.mmrotate.registered import check_registered, import_own_modules, registered_names
from dataengine.mmrotate.safe_config import read_config
from dataengine.mmrotate.schedule import SCHEDULES

CHECKPOINT_SECONDS = 60
MAX_WORKERS = 8  # processes that load images for a GPU
STATE_FILE = "training.json"
Progress = Callable[[int, int, float], None]  # (steps done, steps in all, loss)


@dataclass(frozen=True)
class Trained:
    """config, checkpoint: of the detector, in the work folder. step: how far it is trained, of `steps`."""

    config: Path
    checkpoint: Path
    step: int
    steps: int


def state_of(out: Path) -> dict:
    """`step`, `steps` and `settings` of the training in a work folder; {} where none was begun."""
    file = out / STATE_FILE
    return json.loads(read_text(file)) if file.exists() else {}


def train_exported(
    exported: Path,
    out: Path,
    *,
    steps: int,
    batch_size: int,
    seed: int,
    options: dict,
    real_share: float = 0.5,
    schedule: str = "cosine",
    minutes: float | None = None,
    progress: Progress = lambda done, total, loss: None,
) -> Trained:
    """Train the detector of the config `exported` (from `dataengine export mmrotate`) in the work folder `out`.

    Training length is in steps, not epochs, so it does not depend on the size of the data set. options: changes to the
    config by dotted key, as mmengine's `--cfg-options`. real_share: share of real images in every batch where the
    config also has synthetic ones. schedule: a key of `SCHEDULES`. minutes: stop after this long, with a checkpoint.

    The same call continues; with more steps, it lengthens what was finished. Raises UserError where mmrotate is not
    installed, an option does not fit, a batch is too small for both kinds of images, the loss is not finite, or `out`
    holds another training.
    """
    config = _configured(exported, options)
    content = config.pretty_text.replace(str(exported.parent.absolute()), "")
    settings = {
        "batch_size": batch_size, "seed": seed, "real_share": real_share, "schedule": schedule,
        "config": hashlib.sha256(content.encode()).hexdigest()[:16],
    }  # fmt: skip
    out.mkdir(parents=True, exist_ok=True)
    try:
        held = lock(out / ".lock")
    except BlockingIOError:
        raise UserError(f"{out}: another process trains there; wait for it, or give another --out.") from None
    with held:
        state = state_of(out)
        _check(out, state, settings, steps)
        write_whole(out / "detector.py", config.pretty_text)
        trained = Trained(out / "detector.py", out / "checkpoint.pth", state.get("step", 0), steps)
        if trained.step < steps or state["steps"] != steps:
            step = _Training(config, trained, settings, minutes, progress).run()
            trained = Trained(trained.config, trained.checkpoint, step, steps)
    return trained


def _check(out: Path, state: dict, settings: dict, steps: int) -> None:
    """Raises UserError where a work folder holds another training, or one that went on for longer."""
    before = state.get("settings", settings)
    changed = [
        f"{name} was {before.get(name)}, is {settings[name]}"
        if name != "config"
        else "another tile size, scale or option"
        for name in settings
        if before.get(name) != settings[name]
    ]
    if changed:
        raise UserError(f"{out} holds a training with other settings ({'; '.join(changed)}); give another --out.")
    if state.get("step", 0) > steps:
        raise UserError(
            f"{out} is trained for {state['step']:,} steps already, more than --steps {steps:,}; give more steps, or "
            "another --out."
        )


def _configured(exported: Path, options: dict):
    """The config with the options, all of whose classes are registered."""
    try:
        from mmengine.config import Config
        from mmengine.logging import MMLogger
        from mmrotate.utils import register_all_modules
    except ImportError as error:
        raise UserError(f"mmrotate is not installed ({error}); see docs/mmrotate.md.") from None
    register_all_modules()
    MMLogger.get_current_instance().setLevel("WARNING")  # else a line for each weight
    config = Config(read_config(exported), filename=str(exported))
    try:
        config.merge_from_dict(options)
    except (KeyError, TypeError, AssertionError) as error:
        raise UserError(f"an option does not fit {exported.stem} ({error}); name keys as in {exported}.") from None
    import_own_modules(exported, config)
    check_registered(exported, config.to_dict(), registered_names(kinds=None))
    return config


class _Training:
    """Model, averaged model, optimiser and data of a training."""

    def __init__(self, config, place: Trained, settings: dict, minutes: float | None, progress: Progress):
        from mmdet.registry import MODELS
        from mmengine.model import revert_sync_batchnorm
        from mmengine.optim import build_optim_wrapper

        self.place, self.settings, self.minutes, self.progress = place, settings, minutes, progress
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.draws = _draws(config, settings)
        self.classes = tuple(self.draws.sources[0].metainfo["classes"])
        seed_all(settings["seed"])
        self.model = revert_sync_batchnorm(MODELS.build(config.model))
        if not place.checkpoint.exists():
            _initialise(self.model, place.config)
        self.model.to(self.device).train()
        self.average = _average(config, self.model)
        self.optimizer = build_optim_wrapper(self.model, config.optim_wrapper)
        self.rates = [group["lr"] for group in self.optimizer.param_groups]
        self.step = self._load() if place.checkpoint.exists() else 0
        if self.device.type == "cpu":
            accelerate_on_cpu(self.model)

    def run(self) -> int:
        """Train to the last step, or for so many minutes; the step that was reached."""
        schedule, seed, steps = SCHEDULES[self.settings["schedule"]], self.settings["seed"], self.place.steps
        started = saved = time.monotonic()
        for batch in self._batches():
            seed_all(seed, self.step, 1)
            for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
                group["lr"] = rate * schedule.at(self.step, steps)
            loss = float(self.model.train_step(batch, self.optimizer)["loss"])
            if not math.isfinite(loss):
                raise UserError(
                    f"{self.place.config.parent}: the loss is {loss} at step {self.step + 1}; lower the learning rate "
                    "(optim_wrapper.optimizer.lr) in --options."
                )
            if self.average is not None:
                self.average.update_parameters(self.model)
            self.step += 1
            self.progress(self.step, steps, loss)
            now = time.monotonic()
            if now - saved > CHECKPOINT_SECONDS:
                self.save()
                saved = now
            if self.minutes is not None and now - started > 60 * self.minutes:
                break
        self.save()
        return self.step

    def _batches(self) -> Iterator[dict]:
        from mmengine.dataset import pseudo_collate
        from torch.utils.data import DataLoader

        size, on_gpu = self.draws.batch_size, self.device.type == "cuda"
        workers = min(MAX_WORKERS, max(1, (os.cpu_count() or 1) - 1)) if on_gpu and os.name == "posix" else 0
        places = range(self.step * size, self.place.steps * size)
        return iter(
            DataLoader(
                self.draws, size, sampler=places, num_workers=workers, collate_fn=pseudo_collate, pin_memory=on_gpu
            )
        )

    def save(self) -> None:
        """Write checkpoint and state, each as a whole, so that a kill at any time leaves the last ones."""
        own = self.model.state_dict()
        content = {
            "state_dict": own if self.average is None else self.average.module.state_dict(),
            "meta": {"dataset_meta": {"classes": self.classes}},
            "training": {"step": self.step, "optimizer": self.optimizer.state_dict()},
        }
        if self.average is not None:
            content["training"] |= {"model": own, "average": self.average.state_dict()}
        fresh = self.place.checkpoint.with_suffix(".new")
        torch.save(content, fresh)
        os.replace(fresh, self.place.checkpoint)
        state = {"step": self.step, "steps": self.place.steps, "settings": self.settings}
        folder = self.place.checkpoint.parent
        write_whole(folder / STATE_FILE, json.dumps(state, indent=2) + "\n")
        write_whole(folder / "last_checkpoint", self.place.checkpoint.name)

    def _load(self) -> int:
        content = torch.load(self.place.checkpoint, map_location=self.device, weights_only=True)
        training = content["training"]
        self.model.load_state_dict(training.get("model", content["state_dict"]))
        if self.average is not None:
            self.average.load_state_dict(training["average"])
        self.optimizer.load_state_dict(training["optimizer"])
        return training["step"]


def _draws(config, settings: dict) -> Draws:
    from mmengine.registry import DATASETS

    batch_size = settings["batch_size"]
    sources = [DATASETS.build(part) for part in config.train_dataloader.dataset.datasets]
    shares = (batch_size,) if len(sources) == 1 else batch_shares(batch_size, settings["real_share"])
    empty = [
        part.ann_file
        for part, source in zip(config.train_dataloader.dataset.datasets, sources, strict=True)
        if not len(source)
    ]
    if empty:
        raise UserError(
            f"{config.filename}: no image of {empty[0]} shows an object, so nothing can be learned from it."
        )
    return Draws(sources, shares, settings["seed"])


def _initialise(model: torch.nn.Module, config: Path) -> None:
    """Random weights, and those of ImageNet that the config names, which may have to be downloaded."""
    try:
        model.init_weights()
    except (OSError, urllib.error.URLError) as error:
        raise UserError(
            f"{config}: the pretrained weights of its backbone cannot be loaded ({one_line(error)}); repeat it with a "
            "network, name a file in model.backbone.init_cfg.checkpoint (--options), or take a --preset for a CPU."
        ) from None


def _average(config, model: torch.nn.Module) -> torch.nn.Module | None:
    """The averaged model (EMA) that the config asks for, if it does."""
    from mmengine.registry import MODELS

    average = None
    for hook in config.get("custom_hooks") or ():
        name = hook["type"].rpartition(".")[2]
        if name == "EMAHook":
            settings = {k: v for k, v in hook.items() if k not in ("type", "ema_type", "priority", "_scope_")}
            average = MODELS.build(
                {"type": hook.get("ema_type", "ExponentialMovingAverage"), "model": model, **settings}
            )
        elif name != "NumClassCheckHook":
            raise UserError(
                f"{config.filename}: custom_hooks names {hook['type']}; only an EMAHook has an effect here."
            )
    return average
