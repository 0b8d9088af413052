"""bf16 where the hardware multiplies it natively."""

from __future__ import annotations

import torch


def has_native_bf16(device: torch.device) -> bool:
    """True on CUDA devices from Ampere on and on CPUs with AVX-512 BF16 (all those with AMX tiles, Zen 4 and later);
    elsewhere bf16 is slower than fp32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()


def fast_autocast(device: torch.device) -> torch.autocast:
    """Autocast to bf16 where that is native, else a context that does nothing."""
    return torch.autocast(device.type, torch.bfloat16, enabled=has_native_bf16(device))
