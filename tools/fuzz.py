"""Feed readers broken files: each must give a value or the one clear error (UserError), and never anything else.

    python tools/fuzz.py READER --inputs 100000        # READER: one of --list, or all
    python tools/fuzz.py coco --seed 0 --only 4711     # that input again, with its traceback

Inputs are valid files of our own writers, changed at random in their bytes and in their structure; input i depends on
(--seed, i) only. Also looked at: boxes are finite, labels are of the class list, images lie below the data set's
folder, errors are one line, no input takes longer than ten seconds or, where torch is not needed, three gigabytes.
Exit status 1 if anything was found; the inputs that did it are kept in --keep.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from fuzz_mutations import mutated
from PIL import Image

from dataengine.data import formats, images, presets
from dataengine.data.layout import Acquisition, Dataset, Layout, Sample
from dataengine.errors import UserError

SLOW = 10  # seconds
MEMORY = 3 * 2**30


class Slow(BaseException):
    """An input took too long; no `except Exception` of a reader may swallow it."""


class Wrong(Exception):
    """A reader gave a value that it must never give."""


@dataclass(frozen=True)
class Reader:
    """make: writes valid files into a folder and gives back those that are to be changed. read: reads the folder, and
    raises `allowed` for what is broken."""

    make: Callable[[Path], list[Path]]
    read: Callable[[Path], object]
    allowed: tuple[type[BaseException], ...] = (UserError,)
    heavy: bool = False


def _dataset(folder: Path, kind: str) -> Dataset:
    rng, samples = np.random.default_rng(0), []
    taken = Acquisition(gsd_m=0.5, altitude_m=80, camera_angle_deg=60, night=True, date="2021-01-14")
    for i in range(2):
        file = folder / "raw" / f"image_{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (24, 32, 3), np.uint8)).save(file)
        boxes = [[10, 8, 6, 3, 0.3 if kind == "obb" else 0], [20, 15, 8, 5, 0]]
        ignored = [[5, 20, 4, 4, 0]]
        layout = Layout(boxes, [0, 1], ("plane", "large ship"), (32, 24), kind, [False, True], None, ignored, taken)
        samples.append(Sample(file.stem, file, layout, "drone", "CC0"))
    return Dataset(("plane", "large ship"), samples, kind, "made")


def data_set(format: str, kind: str = "obb") -> Reader:
    """A format of `dataengine.data`, of which every file that is no image is changed."""

    def make(folder: Path) -> list[Path]:
        formats.write(_dataset(folder / "in", kind), folder / "set", format)
        shutil.rmtree(folder / "in")
        changed = (f for f in (folder / "set").rglob("*") if f.suffix in (".txt", ".json", ".xml", ".yaml"))
        return sorted(f for f in changed if f.name[0] != ".")

    def read(folder: Path) -> None:
        dataset = formats.read(folder / "set", format)
        for sample in dataset:
            layout = sample.layout
            if not np.isfinite(layout.boxes).all() or not np.isfinite(layout.ignored).all():
                raise Wrong("boxes are not finite")
            if len(layout) and not 0 <= layout.labels.min() <= layout.labels.max() < len(dataset.classes):
                raise Wrong("labels are outside the class list")
            if ".." in Path(sample.name).parts or Path(sample.name).is_absolute():
                raise Wrong(f"a sample is called {sample.name}")
            # data.yaml may name folders elsewhere, as everywhere where YOLO is trained
            if format != "yolo" and folder not in Path(os.path.abspath(sample.image)).parents:
                raise Wrong(f"an image of another folder is read: {sample.image}")

    return Reader(make, read)


def one_file(name: str, write: Callable[[Path], object], read: Callable[[Path], object], **more) -> Reader:
    """A reader of one file, `name`, that `write` makes."""

    def make(folder: Path) -> list[Path]:
        write(folder / name)
        return [folder / name]

    return Reader(make, lambda folder: read(folder / name), **more)


def _image(format: str) -> Reader:
    def write(file: Path) -> None:
        pixels = np.random.default_rng(0).integers(0, 255, (24, 32, 3), np.uint8)
        Image.fromarray(pixels).save(file, format)

    def read(file: Path) -> None:
        images.measure(file)
        images.decode(file)

    return one_file(f"image.{format.lower()}", write, read, allowed=(ValueError,))


RECIPE = {
    "dataset": "hit-uav", "n": 20, "seed": 1, "size": 256, "layouts": "reuse", "altitude": [100, 130], "night": True,
    "classes": ["Car"], "draw_as": {"Car": "windmill"}, "guidance_scale": 1.5, "filter": "drop", "model": "somewhere",
}  # fmt: skip
PRESET = {"name": "mine", "classes": ["a", "b"], "kind": "obb", "image_size": [64, 64], "places": ["data/mine"]}


def _calibration(file: Path) -> None:
    from dataengine import weights

    shutil.copy(weights.packaged("calibration/hit-uav.json"), file)


def _read_calibration(file: Path) -> None:
    from dataengine.judge.calibration import Calibration

    values = Calibration.load(file).thresholds.values()
    if not np.isfinite(list(values)).all():
        raise Wrong("thresholds are not finite")


def _read_recipe(file: Path) -> None:
    from dataengine.engine.recipe import load_recipe

    load_recipe(file, {})


def _stored(file: Path) -> None:
    from dataengine.layouts.stored import save_layouts

    save_layouts(file, [sample.layout for sample in _dataset(file.parent / "in", "obb")])
    shutil.rmtree(file.parent / "in")


def _read_stored(file: Path) -> None:
    from dataengine.layouts.stored import load_layouts

    for layout in load_layouts(file):
        if not np.isfinite(layout.boxes).all() or (len(layout) and layout.labels.min() < 0):
            raise Wrong("a stored layout is broken")


def _run(folder: Path) -> list[Path]:
    """A run's folder as far as `dataengine.engine.records` and the evaluation read it."""
    from dataengine.data.layout_json import layout_to_json
    from dataengine.engine.records import examine_shard, image_name, record_files, shard_folder

    lines = []
    shard_folder(folder, 0).mkdir(parents=True)
    for i, sample in enumerate(_dataset(folder / "in", "obb")):
        shutil.copy(sample.image, folder / image_name(0, i))
        checksum = __import__("hashlib").sha256(sample.image.read_bytes()).hexdigest()
        labels = layout_to_json(sample.layout)
        record = {"index": i, "seed": 5, "image": image_name(0, i), "sha256": checksum, "asked": labels,
                  "labels": labels, "verdict": {"kept": True, "reason": "", "scores": [0.5, 0.4]}}  # fmt: skip
        lines.append(json.dumps(record))
    shutil.rmtree(folder / "in")
    for name, content in record_files(lines).items():
        (shard_folder(folder, 0) / name).write_bytes(content)
    (folder / "manifest.jsonl").write_text("".join(f"{line}\n" for line in lines))
    (folder / "recipe.json").write_text(json.dumps({"recipe": RECIPE, "parts": {"model": "0123456789abcdef"}}))
    assert examine_shard(folder, 0)[1] == []
    return [folder / "manifest.jsonl", folder / "recipe.json", *sorted(shard_folder(folder, 0).glob("records*"))]


def _read_run(folder: Path) -> None:
    """A changed shard is always told; the manifest and the recipe are read or refused."""
    from dataengine.engine.recipe import stored_recipe
    from dataengine.engine.records import examine_shard
    from dataengine.evaluate.pictures import read_made

    records, faults = examine_shard(folder, 0)
    if not faults and (len(records) != 2 or records[0]["seed"] != 5):
        raise Wrong("a changed shard passes for what was written")
    stored_recipe(folder)
    for sample in read_made(folder):
        if folder not in Path(os.path.abspath(sample.image)).parents:
            raise Wrong(f"an image of another folder is read: {sample.image}")


def _renderer(folder: Path) -> list[Path]:
    import torch
    from diffusers import FlowMatchEulerDiscreteScheduler

    from dataengine.render.in_scene import InSceneUNet
    from dataengine.render.in_scene_pipeline import InScenePipeline

    torch.manual_seed(0)
    model = InSceneUNet(["car", "van"], frame_size=24, patch=3, block_out_channels=(16, 32))
    InScenePipeline(model, FlowMatchEulerDiscreteScheduler()).save_pretrained(folder)
    return sorted(f for f in folder.rglob("*") if f.suffix in (".json", ".safetensors"))


def _read_renderer(folder: Path) -> None:
    from dataengine.render.load import load_renderer

    load_renderer(folder, "in-scene")


READERS: dict[str, Reader] = {
    **{name: data_set(name) for name in formats.FORMATS},
    "coco-upright": data_set("coco", "hbb"),
    **{format.lower(): _image(format) for format in ("PNG", "JPEG", "TIFF", "BMP", "WEBP")},
    "preset": one_file("mine.yaml", lambda f: f.write_text(json.dumps(PRESET, indent=1)),
                       lambda f: presets.load_preset(str(f))),
    "recipe": one_file("run.yaml", lambda f: f.write_text(json.dumps(RECIPE, indent=1)), _read_recipe),
    "calibration": one_file("calibration.json", _calibration, _read_calibration),
    "layouts": one_file("layouts.npz", _stored, _read_stored),
    "run": Reader(_run, _read_run, heavy=True),
    "renderer": Reader(_renderer, _read_renderer, heavy=True),
}  # fmt: skip


def strike(reader: Reader, folder: Path, files: list[Path], seed: int, index: int) -> tuple[str, Path, bytes] | None:
    """Read input `index`: None where all is well, else (traceback, file that was changed, its content)."""
    rng = np.random.default_rng((seed, index))
    file = files[rng.integers(len(files))]
    before = file.read_bytes()
    content = mutated(before, file.suffix, rng)
    file.write_bytes(content)
    signal.setitimer(signal.ITIMER_REAL, SLOW)
    try:
        reader.read(folder)
    except reader.allowed as error:
        if "\n" in str(error) and UserError in reader.allowed:
            return f"an error of several lines: {error}", file, content
    except (Exception, Slow):
        return traceback.format_exc(), file, content
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        file.write_bytes(before)
    return None


def fuzz(name: str, inputs: range, seed: int, keep: Path | None = None) -> list[str]:
    """Feed a reader these inputs; tracebacks of what was found, at most ten of them."""
    found: list[str] = []
    place = "/dev/shm" if os.path.isdir("/dev/shm") else None

    def slow(number, frame):
        raise Slow(f"longer than {SLOW} s")

    signal.signal(signal.SIGALRM, slow)
    with tempfile.TemporaryDirectory(dir=place) as work:
        folder = Path(work).resolve()
        files = READERS[name].make(folder)
        READERS[name].read(folder)  # what is not changed is sound
        for index in inputs:
            result = strike(READERS[name], folder, files, seed, index)
            if result is not None:
                trace, file, content = result
                found.append(f"{name}, input {index}, {file.name}:\n{trace}")
                if keep is not None:
                    keep.mkdir(parents=True, exist_ok=True)
                    (keep / f"{name}-{seed}-{index}-{file.name}").write_bytes(content)
                if len(found) == 10:
                    break
    return found


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reader", nargs="?", default="all", choices=["all", *READERS])
    parser.add_argument("--inputs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="only the input of this number")
    parser.add_argument("--keep", type=Path, default=Path("fuzz-found"))
    parser.add_argument("--list", action="store_true")
    arguments = parser.parse_args()
    if arguments.list:
        print("\n".join(READERS))
        return
    failed = False
    for name in READERS if arguments.reader == "all" else [arguments.reader]:
        if not READERS[name].heavy and arguments.reader != "all":
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        started = time.perf_counter()
        inputs = range(arguments.inputs) if arguments.only is None else range(arguments.only, arguments.only + 1)
        found = fuzz(name, inputs, arguments.seed, arguments.keep)
        print(f"{name}: {len(inputs)} inputs, {time.perf_counter() - started:.0f} s, {len(found)} found", flush=True)
        for text in found:
            print(text, flush=True)
        failed |= bool(found)
    sys.exit(failed)


if __name__ == "__main__":
    main()
