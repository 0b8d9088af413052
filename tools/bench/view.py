"""Speed of the page of `dataengine view` with 100,000 images and 1,000,000 objects. Prints machine, versions and
figures, and appends them as JSON. It measures wall-clock and CPU seconds; only CPU seconds are meaningful on a busy
machine.

python tools/bench/view.py [--pictures 100000] [--browser] [--json results.jsonl]
"""

from __future__ import annotations

import argparse
import json
import os
import resource
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

DIFFERENT = 2000  # records; more would only take longer to write
FILTERS = {
    "all": {},
    "a class": {"class": ["Car"]},
    "a class, small, doubtful, kept": {"class": ["Person"], "size": ["..16"], "score": ["..0.2"], "verdict": ["kept"]},
    "text": {"q": ["scene 77"]},
    "lowest score first": {"sort": ["score"]},
}


def record(classes: list[str], rng: np.random.Generator) -> str:
    """What a line of a manifest says of one image, without its number, name and scene."""
    n = int(rng.integers(1, 20))
    boxes = np.column_stack([rng.uniform(10, 246, (n, 2)), rng.uniform(8, 60, (n, 2)), rng.uniform(-1.5, 1.5, n)])
    layout = {
        "size": [256, 256], "kind": "obb", "classes": classes, "labels": rng.integers(0, 4, n).tolist(),
        "boxes": boxes.round(3).tolist(), "difficult": [False] * n, "visible": [1.0] * n, "ignored": [],
        "acquisition": {"altitude_m": float(rng.uniform(60, 130)), "night": bool(rng.random() < 0.5)},
    }  # fmt: skip
    kept = bool(rng.random() < 0.9)
    verdict = {
        "kept": kept, "reason": "" if kept else f"{n} of {n} objects not found",
        "scores": rng.random(n).round(4).tolist(), "missed": [], "extra": [], "repairs": [],
    }  # fmt: skip
    return json.dumps({"sha256": "0" * 64, "asked": layout, "labels": layout, "verdict": verdict})[1:]


def make(root: Path, pictures: int, rng: np.random.Generator) -> None:
    """A run folder with this number of records, ten objects on average, and ten shared image files."""
    (root / "shards" / "000000").mkdir(parents=True)
    for k in range(10):
        pixels = rng.integers(40, 200, (256, 256, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(root / "shards" / "000000" / f"{k:08d}.png")
    classes = ["Person", "Car", "Bicycle", "OtherVehicle"]
    different = [record(classes, rng) for _ in range(DIFFERENT)]
    with open(root / "manifest.jsonl", "w", encoding="utf-8") as file:
        for i in range(pictures):
            own = {"index": i, "seed": i, "image": f"shards/000000/{i % 10:08d}.png", "scene": f"scene {i}"}
            file.write(f"{json.dumps(own)[:-1]}, {different[int(rng.integers(DIFFERENT))]}\n")
    (root / "recipe.json").write_text(json.dumps({"recipe": {}, "parts": {}, "classes": classes}))
    (root / "report.json").write_text("{}")


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
            context = browser.new_context(viewport={"width": 1400, "height": 900}, bypass_csp=True)
            page = context.new_page()
            start = time.perf_counter()
            page.goto(address)
            page.wait_for_selector(".tile a")
            seconds = round(time.perf_counter() - start, 2)
            paints = page.evaluate("performance.getEntriesByType('paint').map((one) => [one.name, one.startTime])")
            found = page.evaluate(SCROLL) | {"first_images_s": seconds, "paint_ms": dict(paints)}
            start = time.perf_counter()
            page.get_by_label("Car").check()
            page.wait_for_function(
                "() => ![undefined, '100,000'].includes(document.querySelector('.counter strong')?.textContent)"
            )
            found["a_class_chosen_s"] = round(time.perf_counter() - start, 3)
            page.goto(f"{address}/?view=objects&order=-size")
            page.wait_for_selector(".tile.object a")
            found["objects"] = page.evaluate(SCROLL)
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
    from dataengine.engine.decisions import Change
    from dataengine.view.filters import matching_images, read_filter
    from dataengine.view.gallery import Gallery
    from dataengine.view.index import load_index
    from dataengine.view.objects import ObjectList, ordered, selected
    from dataengine.view.source import open_source
    from dataengine.view.statistics import statistics

    def change(do: str, **others) -> Change:
        return Change(do=do, images=[(0, "")], **others)

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
        objects = ObjectList(gallery)
        for order in ("", "-size", "score"):
            seconds[f"objects in order: {order or 'of images'}"] = timed(
                lambda order=order: ordered(gallery, selected(gallery, read_filter({})), order, None)
            )
        objects.page(read_filter({}), "-size", 0, 60)
        seconds["60 objects"] = timed(lambda: objects.page(read_filter({}), "-size", len(index) // 2, 60))
        ids = np.arange(10)
        seconds["reject ten images"] = timed(lambda: gallery.choices.decide(change("reject"), ids))
        seconds["tag all images"] = timed(
            lambda: gallery.choices.decide(change("tag", tag="good"), np.arange(len(index))), 1
        )
        box = {"class": "Car", "box": (50, 50, 20, 10, 0.3)}
        seconds["correct an image"] = timed(lambda: gallery.choices.decide(change("correct", objects=[box]), [5]), 1)
        seconds["filter: by tag"] = timed(
            lambda: matching_images(index, read_filter({"tag": ["good"]}), gallery.choices)
        )
        gallery.page(read_filter({}), 0, 60)
        seconds["60 tiles"] = timed(lambda: gallery.page(read_filter({}), arguments.pictures // 2, 60))
        result = {
            "benchmark": "view",
            **machine(),
            "pictures": len(index),
            "objects": len(index.columns.image),
            "memory_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
            "memory_of_columns_mib": round(sum(values.nbytes for values in vars(index.columns).values()) / 2**20),
            "seconds": {name: {"clock": round(c, 4), "cpu": round(u, 4)} for name, (c, u) in seconds.items()},
        }
        if arguments.browser:
            result["browser"] = in_a_browser(gallery)
    print(json.dumps(result, indent=2))
    append(result, arguments.json)


if __name__ == "__main__":
    main()
