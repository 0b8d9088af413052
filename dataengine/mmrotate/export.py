"""Exports real and synthetic images in a layout that mmrotate reads, and a config that trains a detector on both."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from dataengine.data import formats
from dataengine.data.border import inside_image
from dataengine.data.fill import place_filled
from dataengine.data.layout import Dataset
from dataengine.data.pixel_range import in_8_bits, range_of
from dataengine.data.staging import IMAGE_SKIPPED
from dataengine.data.tile import tile
from dataengine.errors import UserError
from dataengine.files import make_room, read_text, refuse_links, write_whole
from dataengine.folders import sha256_of
from dataengine.layouts.constraints import MIN_VISIBLE
from dataengine.mmrotate.sources import real_data, synthetic_data
from dataengine.mmrotate.training_config import DETECTORS, LAYOUTS, ExportedData, config_text, spelling

Progress = Callable[[str, int, int], None]  # (what, images done, images in all)


@dataclass(frozen=True)
class Exported:
    """config: path of the config; real, synthetic, test: numbers of images that mmrotate loads with it; notes:
    sentences for the user."""

    config: Path
    classes: tuple[str, ...]
    real: int
    synthetic: int
    test: int
    notes: list[str]


def parse_ratio(text: str) -> tuple[int, int]:
    """How often an epoch shows each real and each synthetic image. Raises UserError for any other text.

    >>> parse_ratio("1:2")
    (1, 2)
    """
    match = re.fullmatch(r"(\d{1,4}):(\d{1,4})", text.strip())
    ratio = (int(match[1]), int(match[2])) if match else (0, 0)
    if ratio == (0, 0):
        raise UserError(f"--ratio {text}: give two whole numbers, real:synthetic, not both 0, such as 1:1.")
    return ratio


def export(
    run: str | Path | None,
    real: str | Path,
    out: str | Path,
    *,
    detector: str,
    ratio: tuple[int, int] = (1, 1),
    layout: str = "dota",
    train_splits: Sequence[str] = (),
    test: str | None = None,
    tested: bool = True,
    classes: Sequence[str] | None = None,
    most: int | None = None,
    tile_size: int = 1024,
    scale: float = 1.0,
    cpu: bool = False,
    run_format: str | None = None,
    real_format: str | None = None,
    progress: Progress = lambda what, done, total: None,
) -> Exported:
    """Write `out/data/real`, `out/data/synthetic` and `out/<detector>.py`; the folder can be moved as a whole.

    run:          folder of `dataengine synth`, or any labelled data set; None for real images alone.
    detector:     a key of DETECTORS.
    real:         labelled data set to train on, and to evaluate on if it has a split for that.
    ratio:        how often an epoch shows each real and each synthetic image.
    layout:       layout of the folders: dota, dior, hrsc or coco.
    train_splits: of the real data; () for "trainval" or else "train".
    test:         a split of the real data, or another labelled data set; None for the split "val" or else "test".
    tested:       False for a config without test images: its test pipeline names the training images.
    classes:      None for all of the real data; objects of other classes are left out.
    most:         maximum number of synthetic images, the first of the run.
    tile_size:    real images with a longer side are cut into tiles of this size, which overlap by a fifth. An object of
                  a tile keeps its label down to the visible share that objects of a run have at least.
    scale, cpu:   see `config_text`.
    run_format, real_format: formats of labelled data sets; None recognises them.

    Ignored regions are filled in the training images, since most detectors of mmrotate take ignored objects for
    background. Test images keep them in the layout dota, the only one whose metric leaves them out.

    Existing data of the same content, pixels included, are kept, for instance for a second detector. Raises UserError
    where something is missing or does not match, before anything is written.
    """
    out = Path(out)
    if detector not in DETECTORS:
        raise UserError(f"--detector {detector}: no such detector; choose one of {', '.join(DETECTORS)}.")
    if layout not in LAYOUTS:
        raise UserError(f"--layout {layout}: no such layout; choose one of {', '.join(LAYOUTS)}.")
    if not 0 < scale <= 8:
        raise UserError(f"--scale {scale:g}: give a number above 0 and up to 8.")
    train, test_data = real_data(Path(real), real_format, train_splits, test, classes, tested)
    parts, synthetic_scale = {"real": train}, 1.0
    if test_data is not None:
        parts["test"] = test_data
    if run is not None:
        parts["synthetic"], synthetic_scale = synthetic_data(Path(run), run_format, train, classes, most, real)
    elif ratio[1]:
        raise UserError(f"--ratio {ratio[0]}:{ratio[1]}: there are no synthetic images; give a run, or 1:0.")
    content = {
        "layout": layout,
        "tile_size": tile_size,
        "classes": list(train.classes),
        "synthetic_scale": synthetic_scale,
        "images": {name: _fingerprint(part) for name, part in parts.items()},
    }
    if ranges := {name: str(found) for name, part in parts.items() if (found := range_of(part)) is not None}:
        content["pixel_ranges"] = ranges
    notes = [f"{name}: {note}" for name, p in parts.items() for note in p.notes]
    notes += [
        f"{len(p.problems)} problems in {name}, such as {p.problems[0]}" for name, p in parts.items() if p.problems
    ]
    refuse_links(out)
    stored = out / "data" / "export.json"
    if stored.exists():
        written = json.loads(read_text(stored))
        changed = sorted(name for name in content if written.get(name) != content[name])
        if changed:
            raise UserError(f"{out / 'data'} contains other data ({', '.join(changed)} differ); give another --out.")
    else:
        written = _write(parts, content, out / "data", progress)
    counts = {"test": 0, "synthetic": 0} | written["counts"]
    images = sum(counts[name] * times for name, times in zip(("real", "synthetic"), ratio, strict=True))
    names, side, upright = spelling(train.classes, layout), written["largest_side"], train.kind == "hbb"
    data = ExportedData(layout, names, side, synthetic_scale, images, tested, upright)
    config = out / f"{detector}.py"
    write_whole(config, config_text(detector, data, ratio, scale, cpu))
    real_images, synthetic_images = (
        n * (times > 0) for n, times in zip((counts["real"], counts["synthetic"]), ratio, strict=True)
    )
    return Exported(config, train.classes, real_images, synthetic_images, counts["test"], notes + written["notes"])


def _fingerprint(dataset: Dataset) -> str:
    """Hash of all that is written: names, pixels, labels, acquisition, source and licence; 16 hexadecimal digits."""
    total = hashlib.sha256(dataset.kind.encode())
    for sample in dataset:
        layout = sample.layout
        try:
            pixels = sha256_of(sample.image)
        except OSError as error:
            raise UserError(f"{sample.image} cannot be read ({error.strerror or error}).") from None
        words = [sample.name, sample.source, sample.license, pixels, layout.size, layout.acquisition.model_dump_json()]
        arrays = layout.boxes, layout.labels, layout.difficult, layout.visible, layout.ignored
        total.update(json.dumps([*words, [len(array) for array in arrays]]).encode())
        for array in arrays:
            total.update(array.tobytes())
    return total.hexdigest()[:16]


def _write(parts: dict[str, Dataset], content: dict, folder: Path, progress: Progress) -> dict:
    """Write the folders next to their final place, then move them to `folder`; returns the content of `export.json`."""
    if folder.exists():
        raise UserError(f"{folder} was not written by dataengine export; give another --out.")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".export-", dir=folder.parent) as temporary:
            work = Path(temporary)
            longest, counts, notes = 0, {}, []
            for name, part in parts.items():
                side, counts[name] = _write_part(name, part, content, work, notes, progress)
                longest = max(longest, side / (content["synthetic_scale"] if name == "synthetic" else 1))
            written = content | {"largest_side": round(longest), "counts": counts, "notes": notes}
            write_whole(work / "data" / "export.json", json.dumps(written, indent=2) + "\n")
            os.replace(work / "data", folder)
    except OSError as error:
        raise UserError(
            f"{error.filename or folder} could not be written ({error.strerror or error}); "
            f"{make_room(error)}give another --out."
        ) from error
    return written


def _write_part(
    name: str, part: Dataset, content: dict, work: Path, notes: list[str], progress: Progress
) -> tuple[int, int]:
    """Write one part of the data below `work`; (longest side, number of images that mmrotate will load)."""
    size, layout = content["tile_size"], content["layout"]
    tiled = name != "synthetic" and any(max(sample.layout.size) > size for sample in part)
    if tiled:
        report = lambda done, total: progress(f"tiling {name}", done, total)  # noqa: E731
        part = tile(part, work / f"tiles-{name}", size, size // 5, MIN_VISIBLE, progress=report)
    part = in_8_bits(part, work / f"of-8-bits-{name}")  # mmcv would keep the upper 8 of 16
    if name != "test" or layout != "dota":
        filled = sum(len(sample.layout.ignored) > 0 for sample in part)
        if filled and name == "test":
            notes.append(
                f"{filled} test images have ignored regions, which the layout {layout} cannot hold: their pixels are "
                "filled. --layout dota keeps the images as they are, and its metric leaves the regions out."
            )
        part = _filled(part, work / f"filled-{name}")
    if part.kind == "hbb" and name == "real":
        notes.append(
            "the real boxes are upright, so a detector of oriented boxes learns no headings from them: its boxes will "
            "be upright too"
        )
    # as rotated boxes: COCO files then hold the corners, which mmrotate reads
    part = replace(part, kind="obb")
    place, split = (work / "data" / "real", "test") if name == "test" else (work / "data" / name, "train")
    report = lambda done, total: progress(f"writing {name}", done, total)  # noqa: E731
    problems = formats.write(part, place, layout, split=split, progress=report)
    if problems:
        notes.append(f"{len(problems)} problems in writing {name}, such as {problems[0]}")
    skipped = {problem.path for problem in problems if problem.message.endswith(IMAGE_SKIPPED)}
    written = [sample for sample in part if sample.image not in skipped]
    if name != "test":  # the loaders' filter_empty_gt
        labelled = [sample for sample in written if len(inside_image(sample.layout)[0])]
        if len(labelled) < len(written):
            empty = len(written) - len(labelled)
            what = "tiles" if tiled else "images"
            notes.append(f"{name} {what} without objects, on which mmrotate does not train: {empty} of {len(written)}")
        written = labelled
    for folder in work.glob(f"*-{name}"):
        shutil.rmtree(folder)
    return max((max(sample.layout.size) for sample in part), default=0), len(written)


def _filled(dataset: Dataset, folder: Path) -> Dataset:
    """The data set with images in `folder` in place of those with ignored regions, whose pixels are filled there."""
    samples = []
    for sample in dataset:
        if len(sample.layout.ignored):
            image = folder / f"{sample.name}.png"
            try:
                place_filled(sample.image, sample.layout, image, sample.pixel_range)
            except ValueError:  # reported when the image is written
                image = sample.image
            sample = replace(sample, image=image, layout=replace(sample.layout, ignored=np.zeros((0, 5))))
        samples.append(sample)
    return replace(dataset, samples=samples)
