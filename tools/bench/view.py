"""Speed of the page of `dataengine view` with 100,000 images. Prints machine, versions and figures, and appends them as
JSON. It measures wall-clock and CPU seconds; only CPU seconds are meaningful on a busy machine.

python tools/bench/view.py [--pictures 100000] [--browser] [--json results.jsonl]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics as stdlib_statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from results import append, machine

FILTERS = {
    "all": {},
    "a class": {"class": ["Car"]},
    "a class, small, doubtful, kept": {"class": ["Person"], "size": ["..16"], "score": ["..0.2"], "verdict": ["kept"]},
    "text": {"q": ["scene 77"]},
    "lowest score first": {"sort": ["score"]},
}


def make(root: Path, pictures: int, rng: np.random.Generator) -> None:
    """A run folder with this number of records, five objects on average, and ten shared image files."""
    (root / "shards" / "000000").mkdir(parents=True)
    for k in range(10):
        pixels = rng.integers(40, 200, (256, 256, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(root / "shards" / "000000" / f"{k:08d}.png")
    classes = ["Person", "Car", "Bicycle", "OtherVehicle"]
    with open(root / "manifest.jsonl", "w", encoding="utf-8") as file:
        for i in range(pictures):
            n = int(rng.integers(1, 10))
            boxes = np.column_stack(
                [rng.uniform(10, 246, (n, 2)), rng.uniform(8, 60, (n, 2)), rng.uniform(-1.5, 1.5, n)]
            )
            layout = {
                "size": [256, 256], "kind": "obb", "classes": classes, "labels": rng.integers(0, 4, n).tolist(),
                "boxes": boxes.round(3).tolist(), "difficult": [False] * n, "visible": [1.0] * n, "ignored": [],
                "acquisition": {"altitude_m": float(rng.uniform(60, 130)), "night": bool(i % 2)},
            }  # fmt: skip
            kept = bool(rng.random() < 0.9)
            reason = "" if kept else f"{n} of {n} objects not found"
            verdict = {
                "kept": kept,
                "reason": reason,
                "scores": rng.random(n).round(4).tolist(),
                "missed": [],
                "extra": [],
                "repairs": [],
            }
            record = {
                "index": i, "seed": int(rng.integers(1 << 62)), "image": f"shards/000000/{i % 10:08d}.png",
                "sha256": "0" * 64, "scene": f"scene {i}", "asked": layout, "labels": layout, "verdict": verdict,
            }  # fmt: skip
            file.write(json.dumps(record) + "\n")
    (root / "recipe.json").write_text(json.dumps({"recipe": {}, "parts": {}, "classes": classes}))


def timed(does: Callable[[], object], times: int = 5) -> tuple[float, float]:
    """Median wall-clock seconds and CPU seconds of this process."""
    clock, cpu = [], []
    for _ in range(times):
        start, used = time.perf_counter(), time.process_time()
        does()
        clock.append(time.perf_counter() - start), cpu.append(time.process_time() - used)
    return stdlib_statistics.median(clock), stdlib_statistics.median(cpu)


def in_a_browser(gallery) -> dict:
    """Scroll through all images in headless Chromium: elements in the document, and frame times."""
    from playwright.sync_api import sync_playwright

    from dataengine.view.app import Site, make_app
    from dataengine.view.serve import server_of

    server, listener, address = server_of(make_app(Site(made=gallery)), 0)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": 1400, "height": 900})
            page.goto(address)
            page.wait_for_selector(".tile a")
            found = page.evaluate(SCROLL)
            browser.close()
    finally:
        server.should_exit = True
        thread.join()
        listener.close()
    return found


# 100 steps from the first image to the last, with the time of each frame
SCROLL = """async () => {
  const grid = document.querySelector('.grid'), frames = [];
  let elements = 0, before = performance.now();
  for (let k = 0; k <= 100; k++) {
    grid.scrollTop = (k / 100) * (grid.scrollHeight - grid.clientHeight);
    await new Promise(requestAnimationFrame);
    frames.push(performance.now() - before);
    before = performance.now();
    elements = Math.max(elements, document.querySelectorAll('*').length);
  }
  frames.sort((a, b) => a - b);
  return {elements_at_most: elements, frame_ms_median: frames[50], frame_ms_95: frames[95]};
}"""


def main() -> None:
    """Make the run, read it, filter it, and scroll through it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=100_000)
    parser.add_argument("--browser", action="store_true", help="Also scroll through them in headless Chromium.")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    from dataengine.view.filters import matching_images, read_filter
    from dataengine.view.gallery import Gallery
    from dataengine.view.index import load_index
    from dataengine.view.source import open_source
    from dataengine.view.statistics import statistics

    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = str(Path(folder) / "cache")
        root = Path(folder) / "run"
        make(root, arguments.pictures, np.random.default_rng(0))
        seconds = {"first reading": timed(lambda: load_index(open_source(root)), 1)}
        seconds["reading from the cache"] = timed(lambda: load_index(open_source(root)))
        index = load_index(open_source(root))
        for name, parameters in FILTERS.items():
            wanted = read_filter(parameters)
            seconds[f"filter: {name}"] = timed(lambda wanted=wanted: matching_images(index, wanted))
        seconds["statistics"] = timed(lambda: statistics(index, read_filter({})))
        gallery = Gallery(index)
        gallery.page(read_filter({}), 0, 60)
        seconds["60 tiles"] = timed(lambda: gallery.page(read_filter({}), arguments.pictures // 2, 60))
        result = {
            "benchmark": "view",
            **machine(),
            "pictures": len(index),
            "objects": len(index.columns.image),
            "seconds": {name: {"clock": round(c, 4), "cpu": round(u, 4)} for name, (c, u) in seconds.items()},
        }
        if arguments.browser:
            result["browser"] = in_a_browser(gallery)
    print(json.dumps(result, indent=2))
    append(result, arguments.json)


if __name__ == "__main__":
    main()
