"""Rotated IoU of N x M boxes against a loop over shapely polygons. Prints machine, versions, ratios and figures.

Two scenes: `spread`, boxes of 20 to 60 px over a 1024 px image, where few pairs overlap and culling helps; and
`dense`, the same boxes with centres within 10 px, where every pair overlaps and culling helps nothing. The loop is
given its polygons ready made, and each scene is measured against two: one that intersects every pair, and one that
asks shapely whether a pair meets before it intersects. Results are compared; a difference above 1e-5 is an error.

python tools/bench/iou.py [--n 1000] [--repeats 5] [--out results.jsonl]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import shapely

from dataengine import geometry

SPANS = {"spread": 1024.0, "dense": 10.0}


def make(rng: np.random.Generator, n: int, span: float) -> np.ndarray:
    """n boxes with centres in a square of `span` pixels, float32 (n, 5)."""
    centres, sizes = rng.uniform(0, span, (n, 2)), rng.uniform(20, 60, (n, 2))
    return geometry.regularize(np.column_stack([centres, sizes, rng.uniform(-np.pi / 2, np.pi / 2, n)]))


def polygons(boxes: np.ndarray) -> list[shapely.Polygon]:
    """Boxes (N, 5) as shapely polygons with float64 corners."""
    cx, cy, w, h, theta = boxes.astype(np.float64).T
    ends = np.stack([w + 1j * h, -w + 1j * h, -w - 1j * h, w - 1j * h], 1) / 2
    points = (cx + 1j * cy)[:, None] + ends * np.exp(1j * theta)[:, None]
    return [shapely.Polygon(np.column_stack([row.real, row.imag])) for row in points]


def loop(first: list[shapely.Polygon], second: list[shapely.Polygon]) -> np.ndarray:
    """IoU by a loop that intersects every pair."""
    areas_a, areas_b = [p.area for p in first], [p.area for p in second]
    out = np.zeros((len(first), len(second)))
    for i, p in enumerate(first):
        for j, q in enumerate(second):
            shared = p.intersection(q).area
            out[i, j] = shared / (areas_a[i] + areas_b[j] - shared)
    return out


def loop_that_asks_first(first: list[shapely.Polygon], second: list[shapely.Polygon]) -> np.ndarray:
    """IoU by a loop that intersects only pairs that `intersects` lets through."""
    areas_a, areas_b = [p.area for p in first], [p.area for p in second]
    out = np.zeros((len(first), len(second)))
    for i, p in enumerate(first):
        for j, q in enumerate(second):
            if p.intersects(q):
                shared = p.intersection(q).area
                out[i, j] = shared / (areas_a[i] + areas_b[j] - shared)
    return out


def seconds(call: Callable[[], np.ndarray], repeats: int) -> tuple[list[float], np.ndarray]:
    """Wall time of each repeat, and the last result."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        value = call()
        times.append(time.perf_counter() - start)
    return times, value


def processor() -> str:
    """The processor's name where the system tells it, else its architecture."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def main() -> None:
    """Measure both scenes, check that all three agree, print and append."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=1000, help="boxes on either side")
    parser.add_argument("--repeats", type=int, default=5, help="of the vectorised function; a loop runs once")
    parser.add_argument("--out", type=Path, help="file to which one line of JSON is appended")
    arguments = parser.parse_args()
    result = {
        "benchmark": "iou",
        "machine": f"{processor()}, {os.cpu_count()} cores",
        "load": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "shapely": shapely.__version__,
        "geos": shapely.geos_version_string,
        "n": arguments.n,
    }
    for scene, span in SPANS.items():
        rng = np.random.default_rng(0)
        a, b = make(rng, arguments.n, span), make(rng, arguments.n, span)
        times, ours = seconds(lambda a=a, b=b: geometry.iou(a, b), arguments.repeats)
        first, second = polygons(a), polygons(b)
        (plain,), expected = seconds(lambda p=first, q=second: loop(p, q), 1)
        (asking,), again = seconds(lambda p=first, q=second: loop_that_asks_first(p, q), 1)
        difference = max(float(np.abs(ours - other).max()) for other in (expected, again))
        if not difference <= 1e-5:
            raise SystemExit(f"{scene}: IoU differs from shapely by {difference:g}, more than 1e-5")
        result[scene] = {
            "pairs_that_overlap": round(float((expected > 0).mean()), 4),
            "seconds_best": round(min(times), 4),
            "seconds_median": round(float(np.median(times)), 4),
            "shapely_loop_seconds": round(plain, 2),
            "shapely_loop_that_asks_first_seconds": round(asking, 2),
            "ratio_median": round(plain / float(np.median(times)), 1),
            "ratio_median_to_loop_that_asks_first": round(asking / float(np.median(times)), 1),
            "largest_difference": difference,
        }
    for key, value in result.items():
        lines = value.items() if isinstance(value, dict) else [("", value)]
        print("\n".join(f"{key} {name}".rstrip() + f": {figure}" for name, figure in lines))
    if arguments.out:
        with arguments.out.open("a") as file:
            file.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
