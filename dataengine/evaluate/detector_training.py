"""Training of an mmrotate detector for so many steps, from its exported config; stopped, it continues."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path

import torch

from dataengine.errors import UserError
from dataengine.render.precision import fast_autocast, has_native_bf16

WARMUP = 0.1  # share of the steps


def train_detector(
    exported: Path, out: Path, *, steps: int, batch_size: int, seed: int, options: dict
) -> tuple[Path, Path]:
    """Config and checkpoint, in `out`, of the detector that `exported` (of `dataengine export mmrotate`) describes.

    Iterations are counted, not epochs, so that data sets of any size get equally many; the learning rate rises for a
    tenth of them and falls as a cosine. options: changes of the config by dotted key, as mmengine's `--cfg-options`.
    Raises UserError where mmrotate is not installed or an option does not fit.
    """
    try:
        from mmengine.config import Config
        from mmengine.runner import Runner
        from mmrotate.utils import register_all_modules
    except ImportError as error:
        raise UserError(f"mmrotate is not installed ({error}); see docs/mmrotate.md.") from None
    register_all_modules()
    config = Config.fromfile(exported)
    try:
        config.merge_from_dict(options)
    except (KeyError, TypeError, AssertionError) as error:
        raise UserError(f"an option does not fit {exported.stem} ({error}); name keys as in {exported}.") from None
    out.mkdir(parents=True, exist_ok=True)
    config.dump(out / "detector.py")  # as it is used later, with its test pipeline
    checkpoint = out / f"iter_{steps}.pth"
    if checkpoint.exists():
        return out / "detector.py", checkpoint
    config.work_dir, config.resume = str(out), True
    config.randomness = {"seed": seed}
    config.train_cfg = {"type": "IterBasedTrainLoop", "max_iters": steps, "val_interval": steps + 1}
    for name in ("val", "test"):
        config[f"{name}_cfg"] = config[f"{name}_dataloader"] = config[f"{name}_evaluator"] = None
    config.train_dataloader.update(
        batch_size=batch_size,
        num_workers=0,
        persistent_workers=False,
        batch_sampler=None,
        sampler={"type": "InfiniteSampler", "shuffle": True},
    )
    warmup = max(1, round(WARMUP * steps))
    config.param_scheduler = [
        {"type": "LinearLR", "start_factor": 0.01, "by_epoch": False, "begin": 0, "end": warmup},
        {"type": "CosineAnnealingLR", "eta_min_ratio": 0.02, "by_epoch": False, "begin": warmup, "end": steps},
    ]
    hook = {"type": "CheckpointHook", "by_epoch": False, "interval": max(1, steps // 10), "max_keep_ckpts": 1}
    config.default_hooks.checkpoint = hook
    config.default_hooks.logger = {"type": "LoggerHook", "interval": max(1, steps // 20)}
    config.auto_scale_lr = None
    runner = Runner.from_cfg(config)
    if runner.model.data_preprocessor.device.type == "cpu":
        _quicken(runner.model)
    runner.train()
    return out / "detector.py", checkpoint


def _quicken(model: torch.nn.Module) -> None:
    """Networks in bf16 where the CPU has it, with channels last, and what they give back in fp32, for the losses.

    mmengine's own mixed precision is for GPUs only. RTMDet-R of 1.3 M parameters takes 0.45 of the time."""
    device = torch.device("cpu")
    if not has_native_bf16(device):
        return
    model.to(memory_format=torch.channels_last)
    for name in ("backbone", "neck", "rpn_head", "bbox_head"):
        part = getattr(model, name, None)
        if part is not None:
            part.forward = _in_bf16(part.forward, device)


def _in_bf16(forward: Callable, device: torch.device) -> Callable:
    @wraps(forward)
    def quick(*arguments, **named):
        with fast_autocast(device):
            return _float(forward(*arguments, **named))

    return quick


def _float(values: object) -> object:
    """The same lists and tuples with tensors in fp32."""
    if isinstance(values, torch.Tensor):
        return values.float() if values.dtype == torch.bfloat16 else values
    return type(values)(_float(value) for value in values) if isinstance(values, list | tuple) else values
