"""Training of an mmrotate detector for so many steps, from its exported config; stopped, it continues."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path

import torch

from dataengine.errors import UserError
from dataengine.mmrotate.safe_config import import_custom_modules
from dataengine.render.precision import fast_autocast, has_native_bf16

WARMUP = 0.1  # share of the steps


def train_detector(
    exported: Path, out: Path, *, steps: int, batch_size: int, seed: int, options: dict, real_share: float = 0.5
) -> tuple[Path, Path]:
    """Config and checkpoint, in `out`, of the detector that `exported` (of `dataengine export mmrotate`) describes.

    Iterations are counted, not epochs, so that data sets of any size get equally many; the learning rate rises for a
    tenth of them and falls as a cosine. options: changes of the config by dotted key, as mmengine's `--cfg-options`.
    real_share: of every batch, where the config has other images beside the real ones, however many there are.
    Raises UserError where mmrotate is not installed, an option does not fit, or a batch has no room for both.
    """
    try:
        from mmengine.config import Config
        from mmengine.runner import Runner
        from mmrotate.utils import register_all_modules
    except ImportError as error:
        raise UserError(f"mmrotate is not installed ({error}); see docs/mmrotate.md.") from None
    register_all_modules()
    config = Config.fromfile(exported, import_custom_modules=False)
    try:
        config.merge_from_dict(options)
    except (KeyError, TypeError, AssertionError) as error:
        raise UserError(f"an option does not fit {exported.stem} ({error}); name keys as in {exported}.") from None
    import_custom_modules(config)
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
        sampler=_sampler(len(config.train_dataloader.dataset.datasets), batch_size, real_share),
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


def shares(batch_size: int, real_share: float) -> tuple[int, int]:
    """(real, other) images of a batch. Raises UserError where there is no room for both."""
    real = round(batch_size * real_share)
    if not 0 < real < batch_size:
        raise UserError(
            f"--real-share {real_share:g}: {real} of the {batch_size} images of a batch would be real; give a share "
            "that leaves one or more of either kind, or a larger --batch-size."
        )
    return real, batch_size - real


def _sampler(sources: int, batch_size: int, real_share: float) -> dict:
    """mmengine's sampler of endless random images, or mmdet's of so many from each source in every batch."""
    if sources == 1:
        return {"type": "InfiniteSampler", "shuffle": True}
    ratio = list(shares(batch_size, real_share))
    return {"type": "mmdet.MultiSourceSampler", "batch_size": batch_size, "source_ratio": ratio}


def _quicken(model: torch.nn.Module) -> None:
    """Channels last, and networks in bf16 where the CPU has it; what they give back is fp32, for the losses.

    mmengine's own mixed precision is for GPUs only. RTMDet-R of 1.3 M parameters takes 0.45 of the time, and without
    bf16 0.79 of it."""
    device = torch.device("cpu")
    model.to(memory_format=torch.channels_last)
    if not has_native_bf16(device):
        return
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
