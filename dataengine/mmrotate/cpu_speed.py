"""Faster training of mmrotate's detectors on a CPU."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps

import torch

from dataengine.render.precision import fast_autocast, has_native_bf16


def accelerate_on_cpu(model: torch.nn.Module) -> None:
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
