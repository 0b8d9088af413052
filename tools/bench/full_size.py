"""Training and sampling of the full-size model: images a second, peak memory, share of the device's matrix peak.

    python tools/bench/full_size.py                            # SD 1.5's size, 512 px: a GPU of 24 GB, or patience
    python tools/bench/full_size.py --width 64 --size 128      # the same at a small size, on a CPU

Weights are random, since speed does not depend on them. The peak is measured in the same run, as the fastest of some
large matrix products in the same precision. Beside each figure of ours stands plain Stable Diffusion's denoiser
(diffusers' UNet2DConditionModel of the same size, no boxes) in the same run: what the boxes cost.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import time
from contextlib import nullcontext

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from torch.utils.flop_counter import FlopCounterMode

from dataengine.data.layout import Layout
from dataengine.render.layout_unet import LayoutUNet
from dataengine.render.precision import has_native_bf16
from dataengine.train.latents import model_arguments


def matrix_peak(device: torch.device, dtype: torch.dtype) -> float:
    """Floating point operations a second of the best of some matrix products."""
    n = 8192 if device.type == "cuda" else 2048
    a, b = (torch.randn(n, n, device=device, dtype=dtype) for _ in range(2))
    best = 0.0
    for _ in range(5):
        seconds = timed(lambda: a @ b, device)
        best = max(best, 2 * n**3 / seconds)
    return best


def timed(action, device: torch.device) -> float:
    """Seconds of one call."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    started = time.perf_counter()
    action()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def peak_memory_gb(device: torch.device) -> float:
    """The most that was held so far: of the device's memory, or of the process's."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--form", default="full", help="full, aerogen, or a YAML file")
    parser.add_argument("--width", type=int, default=320, help="channels of the finest level")
    parser.add_argument("--size", type=int, default=512, help="pixels")
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--boxes", type=int, default=20, help="in each layout")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", choices=("sampling", "training"), help="one of the two")
    parser.add_argument("--checkpointing", action="store_true", help="gradient checkpointing")
    arguments = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    low = has_native_bf16(device)
    autocast = torch.autocast(device.type, torch.bfloat16) if low else nullcontext()
    w, s, b = arguments.width, arguments.size // 8, arguments.batch_size
    sizes = {"block_out_channels": [w, 2 * w, 4 * w, 4 * w], "layers_per_block": 2, "cross_attention_dim": 768}
    attends = [True, True, True, False]
    with device:
        ours = LayoutUNet(
            ["car"], [], sample_size=s, latent_channels=4, heads=8, norm_num_groups=32, attention_levels=attends,
            category_width=768, **sizes, **model_arguments(arguments.form),
        )  # fmt: skip
        plain = UNet2DConditionModel(sample_size=s, attention_head_dim=8, **sizes)
    rng = np.random.default_rng(0)
    n, side = arguments.boxes, arguments.size
    rows = np.column_stack(
        [rng.uniform(0.1, 0.9, (n, 2)) * side, np.full(n, 30), np.full(n, 14), rng.uniform(-1.5, 1.5, n)]
    )
    layout = Layout(rows, np.zeros(n), ("car",), (side, side))
    batch = ours.layout_batch([layout] * b, [layout.labels] * b).to(device)
    latents, text = torch.randn(b, 4, s, s, device=device), torch.randn(b, 77, 768, device=device)
    times = torch.full((b,), 500, device=device)
    models = {
        "ours": (ours, lambda: ours(latents, times, batch, text)),
        "plain": (plain, lambda: plain(latents, times, text).sample),
    }
    dtype = torch.bfloat16 if low else torch.float32
    peak = matrix_peak(device, dtype)
    result: dict = {
        "device": torch.cuda.get_device_name() if device.type == "cuda" else f"{platform.machine()}, "
        f"{torch.get_num_threads()} threads", "torch": torch.__version__, "precision": str(dtype).split(".")[1],
        "matrix_peak_tflops": round(peak / 1e12, 2), "batch": b, "size": side,
        "parameters_millions": {k: round(sum(p.numel() for p in m.parameters()) / 1e6) for k, (m, _) in models.items()},
    }  # fmt: skip
    for name, (model, forward) in models.items():
        if arguments.only != "training":
            with torch.no_grad(), autocast:
                with FlopCounterMode(display=False) as counter:
                    forward()
                seconds = min(timed(forward, device) for _ in range(arguments.repeats))
            result[f"sampling {name}"] = figures(b, seconds, counter.get_total_flops(), peak, device) | {
                "seconds_an_image_of_20_steps_with_guidance": round(40 * seconds / b, 2)
            }
        if arguments.only != "sampling":
            if arguments.checkpointing:
                (model.unet if name == "ours" else model).enable_gradient_checkpointing()
            optimizer = torch.optim.AdamW(model.parameters(), 1e-5)

            def step(forward=forward, optimizer=optimizer) -> None:
                with autocast:
                    loss = forward().float().square().mean()
                loss.backward()
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)

            with FlopCounterMode(display=False) as counter:
                step()
            seconds = min(timed(step, device) for _ in range(arguments.repeats))
            result[f"training {name}"] = figures(b, seconds, counter.get_total_flops(), peak, device)
            optimizer = None
    for what in ("sampling", "training"):
        if f"{what} ours" in result:
            ratio = result[f"{what} ours"]["images_a_second"] / result[f"{what} plain"]["images_a_second"]
            result[f"{what} speed, ours over plain"] = round(ratio, 3)
    print(json.dumps(result, indent=2))


def figures(images: int, seconds: float, flops: int, peak: float, device: torch.device) -> dict:
    """What one step of so many images came to."""
    return {
        "images_a_second": round(images / seconds, 4),
        "share_of_matrix_peak": round(flops / seconds / peak, 3),
        "tflop_an_image": round(flops / images / 1e12, 3),
        "peak_memory_gb_so_far": round(peak_memory_gb(device), 2),
    }


if __name__ == "__main__":
    main()
