"""Training of an mmrotate detector from its exported config; an interrupted training continues."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path

import torch

from dataengine.errors import UserError
from dataengine.mmrotate.registered import check_registered, import_own_modules, registered_names
from dataengine.mmrotate.safe_config import read_config
from dataengine.render.precision import fast_autocast, has_native_bf16

WARMUP_SHARE = 0.1  # of the steps


def train_detector(
    exported: Path, out: Path, *, steps: int, batch_size: int, seed: int, options: dict, real_share: float = 0.5
) -> tuple[Path, Path]:
    """Train the detector of the config `exported` (from `dataengine export mmrotate`); returns its config and
    checkpoint in `out`.

    Training length is in iterations, not epochs, so it does not depend on the size of the data set; the learning rate
    warms up for a tenth of them and then follows a cosine. options: overrides of the config by dotted key, as
    mmengine's `--cfg-options`. real_share: share of real images in every batch where the config also has synthetic
    ones. Raises UserError where mmrotate is not installed, an option does not fit, or a batch is too small for both.
    """
    try:
        from mmengine.config import Config
        from mmengine.runner import Runner
        from mmrotate.utils import register_all_modules
    except ImportError as error:
        raise UserError(f"mmrotate is not installed ({error}); see docs/mmrotate.md.") from None
    register_all_modules()
    config = Config(read_config(exported), filename=str(exported))
    try:
        config.merge_from_dict(options)
    except (KeyError, TypeError, AssertionError) as error:
        raise UserError(f"an option does not fit {exported.stem} ({error}); name keys as in {exported}.") from None
    import_own_modules(exported, config)
    check_registered(exported, config.to_dict(), registered_names(kinds=None))
    out.mkdir(parents=True, exist_ok=True)
    config.dump(out / "detector.py")  # before the evaluators are removed: inference needs the test pipeline
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
    warmup = max(1, round(WARMUP_SHARE * steps))
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
        _accelerate_on_cpu(runner.model)
    runner.train()
    return out / "detector.py", checkpoint


def batch_shares(batch_size: int, real_share: float) -> tuple[int, int]:
    """Numbers of (real, synthetic) images in a batch. Raises UserError where one of them is 0.

    >>> batch_shares(8, 0.75)
    (6, 2)
    """
    real = round(batch_size * real_share)
    if not 0 < real < batch_size:
        raise UserError(
            f"--real-share {real_share:g}: {real} of the {batch_size} images of a batch would be real; choose a share "
            "with at least one real and one synthetic image, or a larger --batch-size."
        )
    return real, batch_size - real


def _sampler(sources: int, batch_size: int, real_share: float) -> dict:
    """mmengine's infinite sampler for one source, mmdet's with a fixed number from each source for two."""
    if sources == 1:
        return {"type": "InfiniteSampler", "shuffle": True}
    ratio = list(batch_shares(batch_size, real_share))
    return {"type": "mmdet.MultiSourceSampler", "batch_size": batch_size, "source_ratio": ratio}


def _accelerate_on_cpu(model: torch.nn.Module) -> None:
    """Use channels-last memory, and bf16 networks where the CPU supports it; outputs are fp32 for the losses.

    mmengine's mixed precision supports GPUs only. A step of RTMDet-R with 1.3 M parameters takes 45 % of the time with
    bf16, and 79 % without."""
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
    def autocast_forward(*arguments, **named):
        with fast_autocast(device):
            return _float(forward(*arguments, **named))

    return autocast_forward


def _float(values: object) -> object:
    """Nested lists and tuples with their bf16 tensors converted to fp32."""
    if isinstance(values, torch.Tensor):
        return values.float() if values.dtype == torch.bfloat16 else values
    return type(values)(_float(value) for value in values) if isinstance(values, list | tuple) else values
