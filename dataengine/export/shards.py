"""A run, or any labelled data set, as a few large files for millions of images: WebDataset tar or Parquet.

    train-00000-of-00042.tar        <number>.png, <number>.json of each image, in order
    train-00000-of-00042.parquet    the columns of `features`, for the `datasets` library and the hub
    dataset.json                    classes, kind of boxes, and for each file: images, bytes, sha256

Times and owners are not written, so the same run gives the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import numpy as np

from dataengine import geometry
from dataengine.data import formats
from dataengine.data.border import inside_image, visible_hulls
from dataengine.data.images import upright_bytes
from dataengine.data.layout import Dataset, Layout, Problem, Sample
from dataengine.data.pixel_range import range_of
from dataengine.data.staging import outside_problem
from dataengine.engine.run_folder import RunFolder
from dataengine.errors import UserError, install
from dataengine.files import create_folder

Form = Literal["webdataset", "parquet"]
SUFFIXES = {"webdataset": "tar", "parquet": "parquet"}
ROW_GROUP_SIZE = 64  # images that a streaming reader of Parquet has in memory
Add = Callable[[dict, bytes, str], int]  # (labels, image file, its suffix) -> approximate bytes written


def write_shards(
    source: Path,
    out: Path,
    form: Form,
    megabytes: float = 256,
    progress: Callable[[int, int], None] = lambda n, of: None,
    source_format: str | None = None,
    problems: list[Problem] | None = None,
) -> list[Path]:
    """Write the accepted images of a finished run, or all images of a data set, as files of about `megabytes` x 10^6
    bytes; returns the files.

    Memory does not grow with the number of images. progress: called with (images done, images in total). problems:
    gets those of objects that are left out, since they lie outside their image. Raises
    UserError when `source` is neither a finished run nor a data set, has no images or a missing image, `out` is not
    empty, or a library is not installed.
    """
    open_file = {"webdataset": _tar_file, "parquet": _parquet_file}[form]
    run = RunFolder(source)
    dataset = run.accepted_images() if run.recipe.exists() else formats.read(source, source_format)
    if not len(dataset):
        raise UserError(f"{source}: no image of this run was accepted, so there is nothing to write.")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} exists already; choose a new folder with --out.")
    building = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        create_folder(building)
        left_out: list[Problem] = [] if problems is None else problems
        files = list(_fill(dataset, building, open_file, megabytes * 1e6, progress, left_out))
        for number, one in enumerate(files):
            name = f"train-{number:05d}-of-{len(files):05d}.{SUFFIXES[form]}"
            os.rename(building / one["file"], building / name)
            one["file"] = name
        content = {
            "name": dataset.name, "kind": dataset.kind, "classes": list(dataset.classes), "images": len(dataset),
            "files": files,
        }  # fmt: skip
        if (pixel_range := range_of(dataset)) is not None:
            content["pixel_range"] = {"low": pixel_range.low, "high": pixel_range.high}
        (building / "dataset.json").write_text(json.dumps(content, indent=2) + "\n")
        out.mkdir(parents=True, exist_ok=True)
        os.replace(building, out)
    except OSError as error:
        raise UserError(f"{error.filename or out} cannot be read or written ({error.strerror or error}).") from None
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return [out / one["file"] for one in files]


def labels_of(sample: Sample) -> dict:
    """Labels of an image as plain values, with the names of a release: what its border leaves of them.

    obb: four corners of each object, x and y in turn, in pixels. bbox: x, y, width, height of the hull of the visible
    part. category: index into the class list. ignored: corners of ignored regions.
    """
    layout, _ = inside_image(sample.layout)
    return {
        "name": sample.name,
        "width": layout.size[0],
        "height": layout.size[1],
        "source": sample.source,
        "license": sample.license,
        "objects": objects_of(layout),
        "ignored": corners_of(layout.ignored),
    }


def objects_of(layout: Layout) -> dict:
    """`bbox`, `obb`, `category` and `difficult` of `labels_of`, of a layout inside its image."""
    hulls = np.round(visible_hulls(layout.boxes, layout.size), 4)  # (N, 4)
    return {
        "bbox": np.round(np.concatenate([hulls[:, :2], hulls[:, 2:] - hulls[:, :2]], axis=1), 4).tolist(),
        "obb": corners_of(layout.boxes),
        "category": layout.labels.tolist(),
        "difficult": layout.difficult.tolist(),
    }


def corners_of(boxes: np.ndarray) -> list[list[float]]:
    """Corners of boxes (N, 5) in pixels, x and y in turn, eight numbers for each."""
    return np.round(geometry.to_corners(boxes).astype(np.float64), 4).reshape(-1, 8).tolist()


def features(classes: tuple[str, ...]):
    """Types of the Parquet columns for the `datasets` library."""
    from datasets import ClassLabel, Features, Image, List, Value

    numbers, text = List(Value("float32")), Value("string")
    return Features({
        "image": Image(), "name": text, "width": Value("int32"), "height": Value("int32"), "source": text,
        "license": text, "ignored": List(numbers),
        "objects": {
            "bbox": List(numbers), "obb": List(numbers), "category": List(ClassLabel(names=list(classes))),
            "difficult": List(Value("bool")),
        },
    })  # fmt: skip


def _fill(dataset: Dataset, folder: Path, open_file, most_bytes: float, progress, problems) -> Iterator[dict]:
    """Write the files one after the other; yields a description of each."""
    numbered = enumerate(dataset)
    pending = next(numbered, None)
    while pending is not None:
        file = folder / f"{pending[0]:08d}"
        images = size = 0
        with open_file(file, dataset.classes) as add:
            while pending is not None and (not images or size < most_bytes):
                number, sample = pending
                content = _bytes(sample)
                problems += [outside_problem(sample, i) for i in inside_image(sample.layout)[1]]
                size = add({"number": number, **labels_of(sample)}, content, sample.image.suffix.lower())
                images += 1
                progress(number + 1, len(dataset))
                pending = next(numbered, None)
        with open(file, "rb") as written:
            digest = hashlib.file_digest(written, "sha256").hexdigest()
        yield {"file": file.name, "images": images, "bytes": file.stat().st_size, "sha256": digest}


def _bytes(sample: Sample) -> bytes:
    try:
        return upright_bytes(sample.image)
    except (OSError, ValueError) as error:
        reason = f"cannot be read ({error.strerror})" if isinstance(error, OSError) else str(error)
        raise UserError(f"{sample.image}: {reason}; list all such files with dataengine data check.") from None


@contextmanager
def _tar_file(file: Path, classes: tuple[str, ...]) -> Iterator[Add]:
    try:
        from webdataset import TarWriter
    except ImportError:
        raise UserError(f"WebDataset needs: {install('shards')}.") from None
    with open(file, "wb") as stream, TarWriter(stream, encoder=False, mtime=0, user="", group="") as writer:

        def add(labels: dict, image: bytes, suffix: str) -> int:
            names = {"category_name": [classes[i] for i in labels["objects"]["category"]]}
            # numbers as keys: in names, WebDataset treats everything after the first point as the suffix
            key = f"{labels.pop('number'):08d}"
            labels["objects"] |= names
            writer.write({"__key__": key, suffix[1:]: image, "json": json.dumps(labels).encode()})
            return stream.tell()

        yield add


@contextmanager
def _parquet_file(file: Path, classes: tuple[str, ...]) -> Iterator[Add]:
    try:
        import pyarrow
        from pyarrow.parquet import ParquetWriter

        schema = features(classes).arrow_schema
    except ImportError:
        raise UserError(f"Parquet needs: {install('shards')}.") from None
    rows: list[dict] = []
    with open(file, "wb") as stream, ParquetWriter(stream, schema) as writer:

        def flush() -> None:
            writer.write_table(pyarrow.Table.from_pylist(rows, schema))
            rows.clear()

        def add(labels: dict, image: bytes, suffix: str) -> int:
            del labels["number"]
            rows.append({"image": {"bytes": image, "path": f"{labels['name'].replace('/', '__')}{suffix}"}, **labels})
            if len(rows) == ROW_GROUP_SIZE:
                flush()
            return stream.tell() + sum(len(row["image"]["bytes"]) for row in rows)

        yield add
        if rows:
            flush()
