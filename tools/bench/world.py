"""Seams, speed and memory of worlds, beside separate pictures and independent windows.

    python tools/bench/world.py --dataset hrplanes --worlds 10 --size 1024     # seams, and pixels a second
    python tools/bench/world.py --dataset hrplanes --memory 2048 8192          # peak memory at these sizes

Seam ratio: mean gradient across the lines where one window goes over into the next, over the mean gradient elsewhere,
of the ground without objects. "independent": windows of the same size side by side. Speed: CPU seconds of ground for
each pixel, of worlds and of separate pictures, made in turns in one process. "all" counts what a small world computes
beyond its border; "steady" leaves that out: windows that a large world needs for each pixel, times their cost.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np

from dataengine import weights
from dataengine.data.layout import Layout
from dataengine.layouts.stored import load_layouts
from dataengine.render.renderer import load_renderer
from dataengine.world.noise import Rect
from dataengine.world.scene import OVERLAP, Scene


def seam_ratio(image: np.ndarray, stride: int, overlap: int) -> float:
    """Mean gradient in the overlaps of windows (the middle half of them, where weights change) over that elsewhere; at
    the borders where there is no overlap."""
    picture, ratios = image.astype(np.float32).mean(2), []
    for axis in (0, 1):
        steps = np.abs(np.diff(picture, axis=axis)).mean(1 - axis)
        offset = (np.arange(1, len(steps) + 1)) % stride
        seam = (offset >= overlap / 4) & (offset <= 3 * overlap / 4) if overlap else offset == 0
        seam[: stride // 2] = False  # the first lines are the border of the picture
        ratios.append(steps[seam].mean() / steps[~seam].mean())
    return float(np.mean(ratios))


def measure(dataset: str, worlds: int, size: int) -> dict:
    """Seams and speed."""
    import torch

    torch.set_num_threads(1)
    pipeline = load_renderer(weights.packaged("whole"), "whole")
    layouts = load_layouts(weights.packaged(f"layouts/{dataset}.npz"))
    acquisition = Counter(layout.acquisition for layout in layouts).most_common(1)[0][0]

    def nothing(rect: Rect) -> Layout:
        return Layout(np.zeros((0, 5)), [], (), (rect.width, rect.height), acquisition=acquisition)

    ratio, cells = pipeline.size // pipeline.unet.config.sample_size, pipeline.unet.config.sample_size
    rows, seconds = {"world": [], "independent": []}, {"world": [], "independent": [], "separate": []}
    made = []
    pictures = (size // pipeline.size) ** 2
    pipeline([nothing(Rect(0, 0, pipeline.size, pipeline.size))], [0], dataset)  # first calls are slower
    for seed in range(worlds):
        for name, overlap in (("world", OVERLAP), ("independent", 0)):
            scene, start = Scene(pipeline, seed, nothing, dataset, overlap=overlap), time.process_time()
            image = scene.region(Rect(0, 0, size, size))
            seconds[name].append(time.process_time() - start)
            rows[name].append(seam_ratio(image, (cells - overlap) * ratio, overlap * ratio))
            if overlap:
                made.append((scene.coarse.cache.made, scene.fine.cache.made))
        start = time.process_time()
        for number in range(pictures):
            pipeline([nothing(Rect(0, 0, pipeline.size, pipeline.size))], [seed * 1000 + number], dataset)
        seconds["separate"].append(time.process_time() - start)
    rate = {name: size**2 * worlds / sum(values) for name, values in seconds.items()}
    stages = pipeline.steps, pipeline.config.decoder_few_steps or pipeline.config.decoder_steps
    share = ((cells - OVERLAP) / cells) ** 2  # of a window that is new
    return {
        "size": size, "worlds": worlds, "dataset": dataset,
        "seam ratio": {name: [round(value, 3) for value in values] for name, values in rows.items()},
        "pixels a CPU second": {name: round(value) for name, value in rate.items()},
        "windows made": made, "steps": stages,
        "speed of separate pictures, all": round(rate["world"] / rate["separate"], 3),
        "speed of separate pictures, steady": round(share * rate["independent"] / rate["separate"], 3),
    }  # fmt: skip


def memory(dataset: str, sizes: list[int]) -> dict:
    """Peak memory in MB of `dataengine world --filter off` at each size, in a process of its own."""
    peaks = {}
    for size in sizes:
        code = (
            "import resource, sys; sys.argv = sys.argv[1:]\nfrom dataengine.cli import main\n"
            "try:\n    main()\nexcept SystemExit:\n    pass\n"
            "print('peak', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
        )
        command = [sys.executable, "-c", code, "dataengine", "world", "--dataset", dataset, "--size", str(size),
                   "--filter", "off", "--out", f"work/world-{size}"]  # fmt: skip
        out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        peaks[size] = int(out.rsplit("peak ", 1)[1]) / 1024
    return {"peak MB": peaks, "largest over smallest": peaks[max(sizes)] / peaks[min(sizes)]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="hrplanes")
    parser.add_argument("--worlds", type=int, default=10)
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--memory", type=int, nargs="+")
    parser.add_argument("--json", type=Path, help="append the result to this file")
    args = parser.parse_args()
    sizes = args.worlds, args.size
    result = memory(args.dataset, args.memory) if args.memory else measure(args.dataset, *sizes)
    print(json.dumps(result, indent=2))
    if args.json:
        with open(args.json, "a", encoding="utf-8") as file:
            file.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
