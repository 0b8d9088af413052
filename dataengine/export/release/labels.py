"""Images and labels of a release. All label formats share one set of image files.

images/train/*.png  metadata.jsonl    for `datasets` and the hub; the same for images/val
labelTxt/train/*.txt                  DOTA
annotations/train.json                COCO
labels/train/*.txt  data.yaml         YOLO: with corners as "yolo-obb", and as "yolo" where the run has rotated boxes

Labels are what the border of the image leaves of them (`data.border`).
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from dataengine.data import formats
from dataengine.data.layout import Dataset, Layout, Sample
from dataengine.data.staging import name_only
from dataengine.engine.record import Record
from dataengine.errors import UserError
from dataengine.export.release import marks
from dataengine.export.release.finished_run import FinishedRun
from dataengine.export.release.licenses import License, find_license
from dataengine.export.shards import corners_of, objects_of

Progress = Callable[[str, int, int], None]  # (task, images done, images in total)
FORMATS = ("dota", "coco", "yolo-obb", "yolo")
METADATA = "metadata.jsonl"


def parse_formats(text: str) -> tuple[str, ...]:
    """Formats of an option. Raises UserError for an unknown format.

    >>> parse_formats("dota, YOLO-OBB")
    ('dota', 'yolo-obb')
    """
    names = [name.strip().lower() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in FORMATS]
    if unknown or not names:
        raise UserError(f"--formats {text}: choose from {', '.join(FORMATS)}, separated by commas.")
    if {"yolo", "yolo-obb"} <= {*names}:
        raise UserError(f"--formats {text}: yolo and yolo-obb have the same files; choose one of them.")
    return tuple(dict.fromkeys(names))


def write_images(
    run: FinishedRun, records: Sequence[Record], split: str, license: License, folder: Path, progress: Progress
) -> Dataset:
    """Write the images of one split with their marks, and `metadata.jsonl`; returns them as a data set. Raises
    UserError for a missing or damaged image."""
    images = folder / "images" / split
    images.mkdir(parents=True)
    samples, lines = [], []
    for done, record in enumerate(records, 1):
        image = released_image(run, record, split, license, folder)
        try:
            image.sample.image.write_bytes(marks.marked(_original(run, record), image.packet, image.details))
        except (ValueError, FileNotFoundError) as error:
            raise UserError(
                f"{run.folder / record.image}: the image is damaged ({error}); the same dataengine synth command "
                "makes it again."
            ) from None
        lines.append(image.line)
        samples.append(image.sample)
        progress(f"{split}: images", done, len(records))
    (images / METADATA).write_text("".join(lines), "utf-8")
    return as_dataset(run, samples)


@dataclass(frozen=True)
class ReleasedImage:
    """packet, details: the marks in its file. line: of `metadata.jsonl`. sample: with its file in the release."""

    packet: str
    details: dict
    line: str
    sample: Sample


def released_image(run: FinishedRun, record: Record, split: str, license: License, folder: Path) -> ReleasedImage:
    """All that a release in `folder` says of an accepted image."""
    layout, file = run.labels(record), folder / "images" / split / f"{record.name}.png"
    details = _details(run, record, license)
    kind = marks.GENERATED if record.provenance.generated else marks.PAINTED_INTO
    packet = marks.xmp_packet(kind, _rights(record, license), license.url, f"dataengine {run.version}")
    line = json.dumps(_metadata(file.name, split, layout, details, kind)) + "\n"
    return ReleasedImage(packet, details, line, Sample(file.stem, file, layout, _third_party(record), license.id))


def as_dataset(run: FinishedRun, samples: list[Sample]) -> Dataset:
    """The released images of a run as a data set."""
    return Dataset(run.classes, samples, run.kind, name=f"synthetic {run.name}")


def write_labels(splits: dict[str, Dataset], name: str, folder: Path, progress: Progress) -> None:
    """Write the labels of all splits in one format. The format's writer also places images, so it writes to a temporary
    folder, and only the labels are moved."""
    temporary = folder / ".aside"
    for split, dataset in splits.items():
        report = lambda done, total, split=split: progress(f"{split}: {name}", done, total)  # noqa: E731
        if left_out := formats.write(dataset, temporary, name, split=split, progress=report, place=name_only):
            raise UserError(f"{left_out[0]}")
    if name == "dota":
        (folder / "labelTxt").mkdir()
        for split in splits:
            (temporary / split / "labelTxt").rename(folder / "labelTxt" / split)
        (temporary / "classes.txt").rename(folder / "classes.txt")
    elif name == "coco":
        (temporary / "annotations").rename(folder / "annotations")
    else:
        (temporary / "labels").rename(folder / "labels")
        (temporary / "data.yaml").rename(folder / "data.yaml")
    shutil.rmtree(temporary)


def _original(run: FinishedRun, record: Record) -> bytes:
    """The image file of the run. Raises ValueError where its checksum differs from the record."""
    content = (run.folder / record.image).read_bytes()
    if hashlib.sha256(content).hexdigest() != record.sha256:
        raise ValueError("its checksum differs")
    return content


def _details(run: FinishedRun, record: Record, license: License) -> dict:
    """Content of the JSON mark in an image: its provenance."""
    return {
        "synthetic": True,
        "dataengine": run.version,
        "license": license.id,
        "run": run.identity,
        "parts": run.parts,
        "sha256": record.sha256,
        "index": record.index,
        "seed": record.seed,
        "layout_from": list(record.layout_from),
        "objects_from": list(record.object_images),
        "scene": record.provenance.label,
        "scene_source": record.provenance.source,
        "scene_license": record.provenance.license,
        "verdict": asdict(record.verdict),
    }


def _metadata(file_name: str, split: str, layout: Layout, details: dict, source_type: str) -> dict:
    """A line of `metadata.jsonl`. bbox: x, y, width, height of the visible part in pixels; obb: four corners, x and y
    in turn; ignored: the same of ignored regions."""
    copied = ("license", "seed", "layout_from", "objects_from", "scene", "scene_source", "scene_license", "sha256")
    return {
        "file_name": file_name,
        "split": split,
        "width": layout.size[0],
        "height": layout.size[1],
        "objects": {
            **objects_of(layout),
            "category_name": layout.names(),
        },
        "ignored": corners_of(layout.ignored),
        "digital_source_type": source_type,
        "model": details["parts"]["model"],
        "layouts": details["parts"]["layouts"],
        **{key: details[key] for key in copied},
    }


def _third_party(record: Record) -> str:
    """Source, name and licence of the real image below the painted objects; "" where there is none."""
    scene = record.provenance
    if scene.generated:
        return ""
    known = find_license(scene.license)
    license = known.id if known is not None else scene.license
    return f"{scene.source} {scene.label} ({license})".strip().replace(" ()", "")


def _rights(record: Record, license: License) -> str:
    scene = _third_party(record)
    return license.id + (f"; scene: {scene}" if scene else "")
