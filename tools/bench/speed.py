"""What an image costs: ours as it is, ours with 25 guided steps, and Stable Diffusion's size with AeroGen's setting.

    python tools/bench/speed.py --n 200 --dataset hit-uav

All in one run on one machine, each in processes of its own: seconds and CPU-seconds an accepted image with loading left
out, and the most memory that a process held. The plain pipeline is diffusers' U-Net and autoencoder of Stable Diffusion
1.5's size at 512 pixels, with random weights, since speed does not depend on them; 50 DDIM steps with guidance are
projected from two of them. It accepts everything, which flatters it. Then: where our own time goes, in one process.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

WARM_UP = 16  # attempts that are not counted, since models are loaded in them


def ours(options: dict, workers: int) -> dict:
    """Cost of an accepted image of a run, loading left out: the difference between a long run and a short one."""
    from dataengine.engine.recipe import Recipe
    from dataengine.engine.run import synth

    def cost(n: int) -> tuple[float, float, int]:
        before, started = usage(), time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            result = synth(Recipe(**{**options, "n": n}), Path(folder) / "run", workers=workers)
        return time.perf_counter() - started, usage() - before, result.accepted

    short, long = cost(WARM_UP), cost(options["n"])
    images = long[2] - short[2]
    return {
        "seconds": round((long[0] - short[0]) / images, 3), "cpu_seconds": round((long[1] - short[1]) / images, 3),
        "images_an_hour": round(3600 * images / (long[0] - short[0])), "memory_gb": memory_gb(),
    }  # fmt: skip


def usage() -> float:
    """CPU-seconds of this process and of those that it has ended."""
    parts = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(part.ru_utime + part.ru_stime for part in parts)


def memory_gb() -> float:
    """The most that any one process held."""
    parts = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return round(max(part.ru_maxrss for part in parts) / 1e6, 2)


def stable_diffusion(threads: int) -> dict:
    """Projected cost of one image of 512 pixels with 50 guided DDIM steps."""
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel

    torch.set_num_threads(threads)
    widths = (128, 256, 512, 512)
    unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768).eval()  # its defaults are that U-Net's
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=widths, layers_per_block=2, latent_channels=4,
    ).eval()  # fmt: skip
    latents, text = torch.randn(2, 4, 64, 64), torch.randn(2, 77, 768)
    with torch.no_grad():
        unet(latents, 500, text)
        before, started = usage(), time.perf_counter()
        for t in (500, 480):
            unet(latents, t, text)
        steps = (time.perf_counter() - started) / 2 * 50, (usage() - before) / 2 * 50
        before, started = usage(), time.perf_counter()
        vae.decode(latents[:1])
        decoding = time.perf_counter() - started, usage() - before
    seconds, cpu = (a + b for a, b in zip(steps, decoding, strict=True))
    return {
        "seconds": round(seconds, 1), "cpu_seconds": round(cpu, 1), "images_an_hour": round(3600 / seconds, 1),
        "memory_gb": memory_gb(),
    }  # fmt: skip


def stages(options: dict, attempts: int) -> dict:
    """Seconds an attempt in each stage of one process, and the share of the machine's matrix peak in those of torch."""
    from torch.utils.flop_counter import FlopCounterMode

    from dataengine.engine.attempt import attempt
    from dataengine.engine.parts import load_parts
    from dataengine.engine.recipe import Recipe
    from dataengine.engine.run_folder import RunFolder
    from dataengine.engine.worker import write_shard

    recipe = Recipe(**options)
    parts = load_parts(recipe)
    spent = dict.fromkeys(("layouts", "thumbnails", "decoding", "objects", "filter"), 0.0)

    def watch(owner, name: str, stage: str) -> None:
        original = getattr(owner, name)

        def timed(*args, **keywords):
            started = time.perf_counter()
            try:
                return original(*args, **keywords)
            finally:
                spent[stage] += time.perf_counter() - started

        setattr(owner, name, timed)

    from dataengine.render import layout_pipeline

    watch(parts.sampler, "sample", "layouts")
    watch(layout_pipeline, "sample_latents", "thumbnails")
    watch(layout_pipeline, "decode_thumbnails", "decoding")
    if recipe.renderer == "in-scene":
        watch(parts.renderer, "_paint", "objects")
    if parts.detector is not None:
        watch(parts.detector, "detect", "filter")
    attempt(parts, recipe, range(0, 16))
    spent.update(dict.fromkeys(spent, 0.0))
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        for number in range(1, 1 + attempts // 16):
            write_shard(parts, recipe, RunFolder(Path(folder)), number, 16)
    whole = time.perf_counter() - started
    seconds = dict(spent)  # before the operations are counted, which is slow
    counted = {stage: round(value / attempts, 4) for stage, value in seconds.items()}
    counter = FlopCounterMode(display=False)
    with counter, tempfile.TemporaryDirectory() as folder:
        write_shard(parts, recipe, RunFolder(Path(folder)), 1, 16)
    torch_seconds = sum(seconds[stage] for stage in ("thumbnails", "decoding", "objects")) / attempts
    return {
        "seconds_an_attempt": counted | {"writing and the rest": round((whole - sum(seconds.values())) / attempts, 4)},
        "share_of_matrix_peak": round(counter.get_total_flops() / 16 / torch_seconds / matrix_peak(), 3),
    }


def matrix_peak() -> float:
    """Floating point operations a second of one thread's best matrix product, in the precision that is used."""
    import torch

    from dataengine.render.precision import has_native_bf16

    n, dtype = 2048, torch.bfloat16 if has_native_bf16(torch.device("cpu")) else torch.float32
    a, b, best = torch.randn(n, n).to(dtype), torch.randn(n, n).to(dtype), float("inf")
    for _ in range(5):
        started = time.perf_counter()
        a @ b
        best = min(best, time.perf_counter() - started)
    return 2 * n**3 / best


def alone(function, *arguments):
    """The result of a function in a process of its own, which may have workers; nobody counts another's memory."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="hit-uav", choices=("hit-uav", "hrplanes"))
    parser.add_argument("--renderer", default="in-scene", choices=("in-scene", "whole"))
    parser.add_argument("--model", type=Path, help="a renderer instead of the packaged one")
    parser.add_argument(
        "--guided-model", type=Path, help="one that was not trained to need few steps, for the 25 guided ones"
    )
    parser.add_argument("--n", type=int, default=100, help="accepted images")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--skip", nargs="*", default=(), choices=("ours", "guided", "stable-diffusion", "stages"))
    parser.add_argument("--out", type=Path, help="write the result as JSON")
    arguments = parser.parse_args()
    options = {name: getattr(arguments, name) for name in ("dataset", "renderer", "model", "n")}
    guided = options | {"model": arguments.guided_model or arguments.model, "steps": 25, "guidance_scale": 2.0}
    cases = {
        "ours": lambda: alone(ours, options, arguments.workers),
        "guided": lambda: alone(ours, guided | {"n": max(2 * WARM_UP, arguments.n // 4)}, arguments.workers),
        "stable-diffusion": lambda: alone(stable_diffusion, arguments.workers),
        "stages": lambda: alone(stages, options, max(32, arguments.n // 16 * 16)),
    }
    result = {}
    for name, measure in cases.items():
        if name not in arguments.skip:
            result[name] = measure()
            print(name, json.dumps(result[name]), file=sys.stderr, flush=True)
    if {"ours", "stable-diffusion"} <= result.keys():
        result["times as fast"] = round(result["stable-diffusion"]["seconds"] / result["ours"]["seconds"], 1)
    print(json.dumps(result, indent=2))
    if arguments.out:
        arguments.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
