"""bf16 where the hardware multiplies it natively."""

from __future__ import annotations

import torch


def has_native_bf16(device: torch.device) -> bool:
    """Whether bf16 is faster than fp32: on CUDA devices since Ampere and CPUs with AVX-512 BF16 (AMX, Zen 4)."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()


def fast_autocast(device: torch.device) -> torch.autocast:
    """Autocast to bf16 where that is native, otherwise a context without effect."""
    return torch.autocast(device.type, torch.bfloat16, enabled=has_native_bf16(device))


def precision_of(device: torch.device) -> str:
    """What networks multiply in on a device: "bfloat16" or "float32".

    >>> precision_of(torch.device("meta"))
    'float32'
    """
    return "bfloat16" if has_native_bf16(device) else "float32"
