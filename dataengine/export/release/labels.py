"""The images of a release, once, and their labels beside them in every form that is asked for.

images/train/*.png  metadata.jsonl    what `datasets` and the hub read; images/val likewise
labelTxt/train/*.txt                  DOTA
annotations/train.json                COCO
labels/train/*.txt  data.yaml         YOLO, with corners where boxes are rotated
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from dataengine import __version__, geometry
from dataengine.data import formats
from dataengine.data.layout import Dataset, Layout, Sample
from dataengine.engine.record import Record
from dataengine.errors import UserError
from dataengine.export.release import marks
from dataengine.export.release.finished_run import FinishedRun
from dataengine.export.release.licenses import License, find_license

Progress = Callable[[str, int, int], None]  # (what, images done, images in all)
FORMATS = ("dota", "coco", "yolo")
METADATA = "metadata.jsonl"


def parse_formats(text: str) -> tuple[str, ...]:
    """ "dota,coco,yolo-obb" -> ("dota", "coco", "yolo"). Raises UserError for others."""
    names = [name.strip().lower().removesuffix("-obb") for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in FORMATS]
    if unknown or not names:
        raise UserError(f"--formats {text}: choose from dota, coco, yolo-obb, with commas.")
    return tuple(dict.fromkeys(names))


def write_images(
    run: FinishedRun, records: Sequence[Record], split: str, license: License, folder: Path, progress: Progress
) -> Dataset:
    """Images of one split with their marks, and `metadata.jsonl`; gives them as a data set. Raises UserError for an
    image that is missing or damaged."""
    images = folder / "images" / split
    images.mkdir(parents=True)
    samples, lines = [], []
    for done, record in enumerate(records, 1):
        layout, file = run.labels(record), images / f"{record.name}.png"
        story = _story(run, record, license)
        kind = marks.GENERATED if record.provenance.generated else marks.PAINTED_INTO
        packet = marks.xmp_packet(kind, _rights(record, license), license.url, f"dataengine {__version__}")
        try:
            file.write_bytes(marks.marked(_original(run, record), packet, story))
        except (ValueError, FileNotFoundError) as error:
            raise UserError(
                f"{run.folder / record.image}: the image is damaged ({error}); the same dataengine synth command "
                "makes it again."
            ) from None
        lines.append(json.dumps(_metadata(file.name, split, layout, story, kind)) + "\n")
        samples.append(Sample(file.stem, file, layout, _third_party(record), license.id))
        progress(f"{split}: images", done, len(records))
    (images / METADATA).write_text("".join(lines), "utf-8")
    return Dataset(run.classes, samples, run.kind, name=f"synthetic {run.name}")


def write_labels(splits: dict[str, Dataset], name: str, folder: Path, progress: Progress) -> None:
    """Labels of all splits in one format. Its own writer copies images, too: it writes elsewhere, and only the labels
    are kept."""
    aside = folder / ".aside"
    for split, dataset in splits.items():
        told = lambda done, total, split=split: progress(f"{split}: {name}", done, total)  # noqa: E731
        if left_out := formats.write(dataset, aside, name, split=split, progress=told):
            raise UserError(f"{left_out[0]}")
    if name == "dota":
        (folder / "labelTxt").mkdir()
        for split in splits:
            (aside / split / "labelTxt").rename(folder / "labelTxt" / split)
        (aside / "classes.txt").rename(folder / "classes.txt")
    elif name == "coco":
        (aside / "annotations").rename(folder / "annotations")
    else:
        (aside / "labels").rename(folder / "labels")
        (aside / "data.yaml").rename(folder / "data.yaml")
    shutil.rmtree(aside)


def _original(run: FinishedRun, record: Record) -> bytes:
    """The run's own file. Raises ValueError where it is not the one that was judged."""
    content = (run.folder / record.image).read_bytes()
    if hashlib.sha256(content).hexdigest() != record.sha256:
        raise ValueError("its checksum is another")
    return content


def _story(run: FinishedRun, record: Record, license: License) -> dict:
    """What the image's own JSON says of where it comes from."""
    return {
        "synthetic": True,
        "dataengine": __version__,
        "license": license.id,
        "run": run.identity,
        "parts": run.parts,
        "sha256": record.sha256,
        "index": record.index,
        "seed": record.seed,
        "layout_from": list(record.layout_from),
        "scene": record.provenance.label,
        "scene_source": record.provenance.source,
        "scene_license": record.provenance.license,
        "verdict": asdict(record.verdict),
    }


def _metadata(file_name: str, split: str, layout: Layout, story: dict, source_type: str) -> dict:
    """A line of `metadata.jsonl`. bbox: x, y, width, height in pixels; obb: four corners, x and y in turn."""
    corners = np.round(geometry.to_corners(layout.boxes).astype(np.float64), 4)  # (N, 4, 2)
    low, high = corners.min(axis=1), corners.max(axis=1)
    told = ("license", "seed", "layout_from", "scene", "scene_source", "scene_license", "sha256")
    return {
        "file_name": file_name,
        "split": split,
        "width": layout.size[0],
        "height": layout.size[1],
        "objects": {
            "bbox": np.round(np.concatenate([low, high - low], axis=1), 4).tolist(),
            "obb": corners.reshape(-1, 8).tolist(),
            "category": layout.labels.tolist(),
            "category_name": layout.names(),
            "difficult": layout.difficult.tolist(),
        },
        "digital_source_type": source_type,
        "model": story["parts"]["model"],
        "layouts": story["parts"]["layouts"],
        **{key: story[key] for key in told},
    }


def _third_party(record: Record) -> str:
    """Whose image the objects were painted into, with its licence; "" where there is none."""
    scene = record.provenance
    if scene.generated:
        return ""
    known = find_license(scene.license)
    license = known.id if known is not None else scene.license
    return f"{scene.source} {scene.label} ({license})".strip().replace(" ()", "")


def _rights(record: Record, license: License) -> str:
    scene = _third_party(record)
    return license.id + (f"; scene: {scene}" if scene else "")
