"""Seams, speed, memory and layout score of worlds, next to separate pictures and independent windows.

    python tools/bench/world.py seams --worlds 10 --size 1024     # ground: seams, and pixels a second
    python tools/bench/world.py objects --size 4096 --world NEW   # speed with objects and filter, and layout score
    python tools/bench/world.py levels --world runs/world-levels  # how levels agree, and what each adds
    python tools/bench/world.py memory --sizes 2048 4096          # peak memory and CPU time at these sizes

Seam ratio: mean gradient across the lines where one window goes over into the next, over the mean gradient elsewhere,
of the ground without objects; for the windows of each stage, and for the borders of the stored blocks. "independent":
windows of the layout model's size side by side. Speed: CPU seconds for each pixel, of worlds and of separate pictures
in batches of the renderer's own size, made in turns in one process; all that worlds compute beyond their border, and
that their blocks are stored, counts.
Layout score: AP50 of a detector that had no part in filtering, on tiles of a finished world and as many pictures of its
recipe, of 256 pixels. Fine energy: variance that halving the resolution removes.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image

from dataengine import weights
from dataengine.data.layout import Layout
from dataengine.data.tile import crop_layout
from dataengine.engine.world_folder import StoredWorld, WorldFolder, labels_at
from dataengine.layouts.stored import load_layouts
from dataengine.render.canvas import Painted
from dataengine.render.renderer import load_renderer
from dataengine.world.blocks import BLOCK_PX
from dataengine.world.layouts import LEAST_VISIBLE
from dataengine.world.levels import halved
from dataengine.world.noise import Rect
from dataengine.world.scene import Scene
from dataengine.world.windowed import Lattice

HALF, WHOLE = 0.5, 0.99  # visible shares


def seam_lines(lattice: Lattice, pixels: int, size: int) -> np.ndarray:
    """Which of the lines between pixels of a picture lie where the weights of windows change, bool (size - 1,).

    pixels: of a side of one of the lattice's positions.
    """
    lines = np.zeros(size - 1, bool)
    overlap = lattice.window - lattice.stride
    first, last = (lattice.halo, overlap - lattice.halo) if overlap else (0, 0)
    for number in range(1, size // (lattice.stride * pixels) + 2):  # the first ones are the border of the picture
        start = lattice.first + number * lattice.stride
        lines[max(0, (start + first) * pixels - 1) : max(0, (start + last) * pixels)] = True
    return lines


def seam_ratio(image: np.ndarray, lines: np.ndarray, seams: np.ndarray) -> float:
    """Mean gradient across some lines over that across all which are no seam of any kind."""
    picture, ratios = image.astype(np.float32).mean(2), []
    for axis in (0, 1):
        steps = np.abs(np.diff(picture, axis=axis)).mean(1 - axis)
        ratios.append(steps[lines].mean() / steps[~seams].mean())
    return float(np.mean(ratios))


def ratios(scene: Scene, image: np.ndarray) -> dict[str, float]:
    """The ratio at the borders of each kind."""
    size = len(image)
    lines = {
        "layout model's windows": seam_lines(scene.coarse.phases[-1].lattice, scene.ratio, size),
        "those of the phase before": seam_lines(scene.coarse.phases[-2].lattice, scene.ratio, size),
        "decoder's windows": seam_lines(scene.fine.phases[-1].lattice, 1, size),
        "stored blocks": np.arange(1, size) % BLOCK_PX == 0,
    }
    seams = np.any([*lines.values()], 0)
    return {name: seam_ratio(image, where, seams) for name, where in lines.items() if where.any()}


def ground(dataset: str, worlds: int, size: int) -> dict:
    """Seams and speed of ground without objects."""
    import torch

    torch.set_num_threads(1)
    pipeline = load_renderer(weights.packaged("whole"), "whole")
    layouts = load_layouts(weights.packaged(f"layouts/{dataset}.npz"))
    acquisition = Counter(layout.acquisition for layout in layouts).most_common(1)[0][0]

    def nothing(rect: Rect) -> Layout:
        return Layout(np.zeros((0, 5)), [], (), (rect.width, rect.height), acquisition=acquisition)

    def pictures(count: int, seed: int) -> None:
        one = nothing(Rect(0, 0, pipeline.size, pipeline.size))
        for start in range(0, count, pipeline.batch_size):
            seeds = [seed * 10_000 + number for number in range(start, min(count, start + pipeline.batch_size))]
            pipeline([one] * len(seeds), seeds, dataset)

    found: dict[str, dict[str, list[float]]] = {"world": {}, "independent": {}}
    seconds: dict[str, list[float]] = {"world": [], "independent": [], "separate": []}
    pictures(1, 0)  # first calls are slower
    for seed in range(worlds):
        for name in found:
            scene, start = Scene(pipeline, seed, nothing, dataset, independent=name == "independent"), clock()
            image = scene.region(Rect(0, 0, size, size))
            seconds[name].append(clock() - start)
            for kind, value in ratios(scene, image).items():
                found[name].setdefault(kind, []).append(value)
        start = clock()
        pictures((size // pipeline.size) ** 2, seed)
        seconds["separate"].append(clock() - start)
    rate = {name: size**2 * worlds / sum(values) for name, values in seconds.items()}
    return {
        "size": size, "worlds": worlds, "dataset": dataset,
        "seam ratio": {name: {kind: mean_and_error(v) for kind, v in each.items()} for name, each in found.items()},
        "pixels a CPU second": {name: round(value) for name, value in rate.items()},
        "speed of separate pictures": round(rate["world"] / rate["separate"], 3),
    }  # fmt: skip


def clock() -> float:
    return time.process_time()


def mean_and_error(values: list[float]) -> list[float]:
    return [round(float(np.mean(values)), 3), round(float(np.std(values) / len(values) ** 0.5), 3)]


def objects(dataset: str, size: int, filter: str, path: Path) -> dict:
    """Speed of a world with its objects, and layout score of its tiles, beside as many separate pictures of its recipe:
    their objects are drawn from the same prior, and the same filter has seen them. path: of the world, a new folder."""
    from dataengine.engine.parts import load_parts
    from dataengine.engine.recipe import Recipe
    from dataengine.engine.world import make_world
    from dataengine.engine.world_worker import WorldSettings

    recipe = Recipe(dataset=dataset, layouts="prior", filter=filter)
    parts, side, seconds = load_parts(recipe), 256, {"world": 0.0, "separate": 0.0}
    starts = range(0, size - side + 1, side)
    count = len(starts) ** 2
    for _ in separate(parts, recipe, count, count + 1):  # first calls are slower
        pass
    pictures, started = [], clock()

    def done(number: int, total: int) -> None:
        nonlocal started
        now, made, wanted = clock(), len(pictures), count * number // total
        seconds["world"] += now - started
        if wanted - made >= parts.renderer.batch_size or number == total:
            pictures.extend((after.image, after.labels) for after in separate(parts, recipe, made, wanted))
            seconds["separate"] += clock() - now
        started = clock()

    make_world(recipe, path, WorldSettings(size), workers=1, done=done)
    seconds["world"] += clock() - started
    folder = WorldFolder(path)
    stored = StoredWorld.load(folder.world)
    (labels, _), blocks = labels_at(folder, stored, 0), folder.blocks(0, size)
    tiles = [
        (blocks.region(x, y, side, side), crop_layout(labels, (x, y, side, side), LEAST_VISIBLE))
        for y in starts for x in starts
    ]  # fmt: skip
    made = {"world": tiles, "separate": pictures}
    rate = {name: size**2 / value for name, value in seconds.items()}
    return {
        "size": size, "recipe": recipe.model_dump(mode="json", exclude_defaults=True),
        "pixels a CPU second": {name: round(value) for name, value in rate.items()},
        "speed of separate pictures": round(rate["world"] / rate["separate"], 3),
        "objects": {name: sum(len(labels) for _, labels in each) for name, each in made.items()},
        "cut by a border": {
            name: round(float(np.mean(np.concatenate([labels.visible for _, labels in each]) < WHOLE)), 3)
            for name, each in made.items()
        },
        "layout score": {name: layout_score(each, HALF) for name, each in made.items()},
        "layout score, whole objects": {name: layout_score(each, WHOLE) for name, each in made.items()},
    }  # fmt: skip


def separate(parts, recipe, first: int, last: int) -> Iterator[Painted]:
    """Pictures of these numbers as `synth` makes them, after the filter."""
    from dataengine.engine.attempt import judged, paint
    from dataengine.seeds import image_seed

    for start in range(first, last, parts.renderer.batch_size):
        numbers = range(start, min(last, start + parts.renderer.batch_size))
        for number, painted in zip(numbers, paint(parts, recipe, numbers), strict=True):
            yield judged(parts, recipe, painted, image_seed(recipe.seed, number))[0]


def levels(path: Path) -> dict:
    """Agreement and detail of each level of a finished world with the one above it."""
    stored = StoredWorld.load(WorldFolder(path).world)
    folder = WorldFolder(path, stored.levels)
    images = [
        folder.blocks(n, stored.size).region(0, 0, stored.size >> n, stored.size >> n) for n in range(stored.levels)
    ]
    found = {}
    for fine, coarse in pairwise(images):
        enlarged = np.asarray(Image.fromarray(coarse).resize(fine.shape[1::-1], Image.BICUBIC))
        same = np.corrcoef(halved(fine).ravel().astype(float), coarse.ravel().astype(float))[0, 1]
        found[f"{len(fine)} of {len(coarse)} pixels"] = {
            "correlation": round(float(same), 4),
            "fine energy over bicubic": round(fine_energy(fine) / fine_energy(enlarged), 2),
        }
    return found


def fine_energy(image: np.ndarray) -> float:
    means = halved(image).repeat(2, 0).repeat(2, 1)
    return float(((image.astype(float) - means) ** 2).mean())


def layout_score(pictures: list[tuple[np.ndarray, Layout]], least_visible: float) -> list[float]:
    """AP50 of the independent detector on pictures with their labels, and its standard error over pictures.

    Objects of which less is visible count for nothing, as difficult ones do: worlds and separate pictures cut objects
    at their borders by rules of their own, tiles of worlds many more.
    """
    from dataengine.evaluate.average_precision import matched
    from dataengine.judge.detector import load_detector

    detector = load_detector(weights.packaged("evaluation-detector"), threads=1)
    layouts = [replace(labels, difficult=labels.difficult | (labels.visible < least_visible)) for _, labels in pictures]
    found = matched([detector.detect([image])[0] for image, _ in pictures], layouts, detector.classes, (0.5,))
    spread = found.resampled_means(200, np.random.default_rng(0))
    return [round(found.average_precision().mean(0.5), 3), round(float(np.nanstd(spread)), 3)]


def memory(dataset: str, sizes: list[int], filter: str) -> dict:
    """Peak memory in MB of `dataengine world` at each size, in a process of its own."""
    peaks, seconds = {}, {}
    code = (
        "import resource, sys; sys.argv = sys.argv[1:]\nfrom dataengine.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "used = resource.getrusage(resource.RUSAGE_SELF)\n"
        "print('peak', used.ru_maxrss, used.ru_utime + used.ru_stime)"
    )
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-c", code, "dataengine", "world", "--dataset", dataset, "--size", str(size),
                       "--filter", filter, "--workers", "1", "--json", "--out", f"{folder}/world"]  # fmt: skip
            out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        peak, cpu = out.rsplit("peak ", 1)[1].split()
        peaks[size], seconds[size] = round(int(peak) / 1024), round(float(cpu))
    return {
        "dataset": dataset, "filter": filter, "peak MB": peaks, "CPU seconds": seconds,
        "largest over smallest": round(peaks[max(sizes)] / peaks[min(sizes)], 3),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("seams", "objects", "levels", "memory"))
    parser.add_argument("--dataset", default="hrplanes")
    parser.add_argument("--worlds", type=int, default=10)
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--sizes", type=int, nargs="+", default=[2048, 4096])
    parser.add_argument("--world", type=Path, help="folder of the world; for objects, a new one")
    parser.add_argument("--filter", default="erase", help="off, difficult or erase")
    parser.add_argument("--json", type=Path, help="append the result to this file")
    args = parser.parse_args()
    if args.what == "seams":
        result = ground(args.dataset, args.worlds, args.size)
    elif args.what == "memory":
        result = memory(args.dataset, args.sizes, args.filter)
    elif args.world is None:
        parser.error("--world is missing")
    elif args.what == "objects":
        result = objects(args.dataset, args.size, args.filter, args.world)
    else:
        result = levels(args.world)
    print(json.dumps(result, indent=2))
    if args.json:
        with open(args.json, "a", encoding="utf-8") as file:
            file.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
