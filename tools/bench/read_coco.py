"""How long `dataengine data info` takes on a COCO file of 200,000 images. Prints machine, figures and peak memory.

python tools/bench/read_coco.py [--images 200000] [--per-image 5] [--kind hbb] [--before FOLDER] [--json results.jsonl]

--before: another work tree (`git worktree add FOLDER main`). Both read the same files in turn, so that the ratio does
not depend on what else the machine does. Images are hard links to a few files, which cost a data set on disk nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from results import machine, print_and_append

LINKS = 10_000  # of one file, fewer than file systems allow
MEASURE = """
import contextlib, io, json, resource, sys, time
import numpy, PIL.Image, pydantic, scipy.spatial, shapely
import dataengine
from dataengine.data import formats, info
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
start = time.process_time(), time.perf_counter()
dataset = formats.read(sys.argv[1])
figures = info.info(dataset)
with contextlib.redirect_stdout(io.StringIO()):
    info.print_info(figures)
print(json.dumps({
    "package": dataengine.__file__, "images": len(dataset), "objects": figures.objects, "problems": figures.problems,
    "cpu_s": round(time.process_time() - start[0], 2), "seconds": round(time.perf_counter() - start[1], 2),
    "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, "imports_mb": before // 1024,
}))
"""


def make(root: Path, images: int, per_image: int, kind: str, rng: np.random.Generator) -> None:
    """A COCO folder: `annotations/train.json` as COCO has it (areas, polygons) and `images/train/`."""
    folder = root / "images" / "train"
    folder.mkdir(parents=True), (root / "annotations").mkdir()
    names = [f"{i:012d}.png" for i in range(images)]
    for first in range(0, images, LINKS):
        Image.new("L", (640, 480)).save(folder / names[first], optimize=True)
        for name in names[first + 1 : first + LINKS]:
            os.link(folder / names[first], folder / name)
    with open(root / "annotations" / "train.json", "w") as file:
        file.write('{"info": {"description": "made"}, "images": [')
        entry = '{"id": %d, "file_name": "%s", "width": 640, "height": 480, "date_captured": "2013-11-14 17:02:52"}'
        file.write(", ".join(entry % (i, name) for i, name in enumerate(names)) + '], "annotations": [')
        for i in range(images):
            boxes = np.column_stack([rng.uniform(5, 500, per_image), rng.uniform(5, 400, per_image),
                                     rng.uniform(4, 60, (per_image, 2))]).round(2)  # fmt: skip
            for k, (x, y, w, h) in enumerate(boxes.tolist()):
                points = [x, y, x + w, y, x + w, y + h, x, y + h]
                if kind == "obb":
                    points = [x + w / 2, y, x + w, y + h / 2, x + w / 2, y + h, x, y + h / 2]
                number = i * per_image + k
                text = {"id": number + 1, "image_id": i, "category_id": number % 10 + 1, "bbox": [x, y, w, h]}
                text |= {"area": round(w * h, 2), "iscrowd": 0, "segmentation": [np.round(points, 2).tolist()]}
                file.write((", " if number else "") + json.dumps(text))
        categories = [{"id": i + 1, "name": f"class {i}", "supercategory": "thing"} for i in range(10)]
        file.write(f'], "categories": {json.dumps(categories)}}}')


def measure(tree: Path, data: Path) -> dict:
    """Figures of the package in a work tree, in a process of its own."""
    environment = os.environ | {"PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", MEASURE, str(data)]
    # in another folder, as Python looks into the one it is started in first
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, cwd=data)
    figures = json.loads(done.stdout)
    assert Path(figures.pop("package")).is_relative_to(tree), "another work tree was measured"
    return figures


def main() -> None:
    """Make the folder, read it with each work tree, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=200_000)
    parser.add_argument("--per-image", type=int, default=5)
    parser.add_argument("--kind", choices=["hbb", "obb"], default="hbb")
    parser.add_argument("--before", type=Path)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    here = Path(__file__).resolve().parents[2]
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder), arguments.images, arguments.per_image, arguments.kind, np.random.default_rng(0))
        size = (Path(folder) / "annotations" / "train.json").stat().st_size
        now = measure(here, Path(folder))
        assert now["images"] == arguments.images, now
        assert now["objects"] == arguments.images * arguments.per_image, now
        before = measure(arguments.before.resolve(), Path(folder)) if arguments.before else None
    result = {
        "benchmark": "read_coco",
        **machine(),
        "kind": arguments.kind,
        "file_mb": size // 2**20,
        **now,
    }
    if before is not None:
        assert {key: before[key] for key in ("images", "objects")} == {key: now[key] for key in ("images", "objects")}
        result |= {"before": before, "times_as_fast": round(before["cpu_s"] / now["cpu_s"], 2)}
    print_and_append(result, arguments.json)


if __name__ == "__main__":
    main()
