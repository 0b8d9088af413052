"""How long 100,000 DOTA objects take to read. Prints machine, versions and figures, and appends them as JSON.

python tools/bench/read_dota.py [--objects 100000] [--per-image 100] [--json results.jsonl]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image
from results import machine, print_and_append

from dataengine.data import dota


def make(root: Path, objects: int, per_image: int, rng: np.random.Generator) -> None:
    """A DOTA folder with one tiny PNG an image and `per_image` rotated rectangles in each label file."""
    for folder in ("images", "labelTxt"):
        (root / folder).mkdir()
    Image.new("L", (1024, 1024)).save(root / "images" / "first.png", optimize=True)
    picture = (root / "images" / "first.png").read_bytes()
    (root / "images" / "first.png").unlink()
    for i in range(objects // per_image):
        centres = rng.uniform(100, 900, (per_image, 1, 2))
        sides, theta = rng.uniform(4, 60, (per_image, 1, 2)), rng.uniform(-1.5, 1.5, (per_image, 1))
        unit = np.array([[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]]) * sides
        x, y = unit[..., 0], unit[..., 1]
        turned = np.stack([x * np.cos(theta) - y * np.sin(theta), x * np.sin(theta) + y * np.cos(theta)], -1) + centres
        names = rng.choice(dota.CLASSES_V10, per_image)
        lines = [
            f"{' '.join(f'{v:.1f}' for v in row)} {name} 0"
            for row, name in zip(turned.reshape(-1, 8), names, strict=True)
        ]
        text = "\n".join(["imagesource:GoogleEarth", "gsd:0.5", *lines]) + "\n"
        (root / "labelTxt" / f"P{i:05d}.txt").write_text(text)
        (root / "images" / f"P{i:05d}.png").write_bytes(picture)


def main() -> None:
    """Make the folder, read it three times, report the best."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--objects", type=int, default=100_000)
    parser.add_argument("--per-image", type=int, default=100)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder), arguments.objects, arguments.per_image, np.random.default_rng(0))
        seconds = []
        for _ in range(3):
            start = time.perf_counter()
            dataset = dota.read(folder)
            seconds.append(time.perf_counter() - start)
        objects = sum(len(sample.layout) for sample in dataset)
        assert objects == arguments.objects // arguments.per_image * arguments.per_image
        assert not dataset.problems
    result = {
        "benchmark": "read_dota",
        **machine(),
        "images": len(dataset),
        "objects": objects,
        "seconds": round(min(seconds), 3),
        "objects_per_second": round(objects / min(seconds)),
    }
    print_and_append(result, arguments.json)


if __name__ == "__main__":
    main()
