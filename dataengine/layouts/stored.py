"""Real layouts in one small file: a compressed npz of plain arrays, without images and pickled objects.

Resolution: 1/16 pixel for positions and sizes, pi / 65536 for angles (0 and -pi/2 are exact), 1/255 for visible shares.
"""

from __future__ import annotations

import io
import json
import math
import struct
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from dataengine.data.layout import Acquisition, Layout
from dataengine.data.records import CLASSES
from dataengine.errors import UserError, first_fault, shown
from dataengine.files import write_whole

_VERSION = 1
MAX_UNPACKED_BYTES = 2**27  # a million objects have 30 MB
MAX_HEADER_BYTES = 2**24  # of JSON, with the acquisitions
MAX_LAYOUTS = 500_000
_TYPES = {"header": "|u1", "boxes": "<i4", "ignored": "<i4", "labels": "<u2", "difficult": "|b1", "visible": "|u1"}
_STEPS_PER_PIXEL = 16
_STEPS_PER_RADIAN = 65536 / np.pi
_OBJECT_ARRAYS = ("boxes", "labels", "difficult", "visible", "owner")


def save_layouts(path: str | Path, layouts: Iterable[Layout]) -> None:
    """Write layouts with one class list and one kind, atomically.

    Raises UserError when there are none, when they differ in classes or kind, or when the file cannot be written.
    """
    path, layouts = Path(path), list(layouts)
    if not layouts:
        raise UserError(f"there are no layouts to write to {path}; give a data set with labelled images.")
    classes, kind = layouts[0].classes, layouts[0].kind
    if any(layout.classes != classes or layout.kind != kind for layout in layouts):
        raise UserError(f"layouts for {path} differ in classes or kind; store each data set in its own file.")
    boxes = np.concatenate([layout.boxes for layout in layouts])
    ignored = np.concatenate([layout.ignored for layout in layouts])
    acquisitions = [layout.acquisition.model_dump_json(exclude_none=True) for layout in layouts]
    distinct = sorted(set(acquisitions))
    place = {text: i for i, text in enumerate(distinct)}
    header = {"version": _VERSION, "classes": classes, "kind": kind, "acquisitions": distinct}
    arrays = {
        "header": np.frombuffer(json.dumps(header).encode(), np.uint8),
        "sizes": np.array([layout.size for layout in layouts], np.int32),
        "acquisition": np.array([place[text] for text in acquisitions], np.int32),
        "boxes": _packed(boxes),
        "labels": np.concatenate([layout.labels for layout in layouts]).astype(np.uint16),
        "difficult": np.concatenate([layout.difficult for layout in layouts]),
        "visible": np.rint(np.concatenate([layout.visible for layout in layouts]) * 255).astype(np.uint8),
        "owner": np.repeat(np.arange(len(layouts)), [len(layout) for layout in layouts]).astype(np.int32),
        "ignored": _packed(ignored),
        "ignored_owner": np.repeat(np.arange(len(layouts)), [len(layout.ignored) for layout in layouts]),
    }
    packed = io.BytesIO()
    np.savez_compressed(packed, **arrays)
    write_whole(path, packed.getvalue())


def load_layouts(path: str | Path) -> list[Layout]:
    """Read a file written by `save_layouts`. Raises UserError when it is missing, damaged or of another format."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path} does not exist; give a file of stored layouts (.npz).")
    try:
        _refuse_bombs(path)
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        if len(arrays["sizes"]) > MAX_LAYOUTS or arrays["header"].nbytes > MAX_HEADER_BYTES:
            raise ValueError(f"it has more than {MAX_LAYOUTS:,} layouts, or a header of more than 16 MB")
        header = json.loads(arrays.pop("header").tobytes())
        if header["version"] != _VERSION:
            raise ValueError(f"version {header['version']} is unknown")
        acquisitions = [Acquisition.model_validate_json(text) for text in header["acquisitions"]]
        classes, n = CLASSES.validate_python(header["classes"]), len(arrays["boxes"])
        if any(len(arrays[name]) != n for name in _OBJECT_ARRAYS) or (n and arrays["labels"].max() >= len(classes)):
            raise ValueError("its arrays do not match")
        if any(array.dtype.kind not in "bui" for array in arrays.values()) or (arrays["sizes"] <= 0).any():
            raise ValueError("its arrays hold values of a wrong type or range")
        if any((arrays[name] < 0).any() for name in ("labels", "owner", "ignored_owner", "acquisition")):
            raise ValueError("its arrays do not match")
        boxes, ignored = _unpacked(arrays["boxes"]), _unpacked(arrays["ignored"])
        count = len(arrays["sizes"])
        starts = np.searchsorted(arrays["owner"], np.arange(count + 1))
        ignored_starts = np.searchsorted(arrays["ignored_owner"], np.arange(count + 1))
        layouts = []
        for i in range(count):
            own = slice(starts[i], starts[i + 1])
            layout = Layout(
                boxes[own], arrays["labels"][own], classes, tuple(int(side) for side in arrays["sizes"][i]),
                header["kind"], arrays["difficult"][own], arrays["visible"][own] / np.float32(255),
                ignored[ignored_starts[i] : ignored_starts[i + 1]], acquisitions[arrays["acquisition"][i]],
            )  # fmt: skip
            layouts.append(layout)
    except (ValueError, KeyError, IndexError, EOFError, OSError, zipfile.BadZipFile, ValidationError, TypeError,
            AssertionError, AttributeError, MemoryError, NotImplementedError, RuntimeError, SyntaxError, OverflowError,
            struct.error, zlib.error) as error:  # fmt: skip
        lines = [first_fault(error)] if isinstance(error, ValidationError) else str(error).splitlines()
        reason = lines[0] if lines else type(error).__name__
        raise UserError(
            f"{path} is not a file of stored layouts ({reason}); write one with: dataengine layout store"
        ) from error
    return layouts


def _refuse_bombs(path: Path) -> None:
    """Raises ValueError where an array header declares more data than the file holds, or than `MAX_UNPACKED_BYTES`."""
    with zipfile.ZipFile(path) as packed:
        if sum(member.file_size for member in packed.infolist()) > MAX_UNPACKED_BYTES:
            raise ValueError(f"it has more than {MAX_UNPACKED_BYTES:,} bytes when unpacked")
        for member in packed.infolist():
            with packed.open(member) as file:
                version = np.lib.format.read_magic(file)
                header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
                shape, _, dtype = header[version](file)
                if math.prod(shape) * dtype.itemsize > member.file_size:
                    raise ValueError(f"{shown(member.filename)} declares more data than it holds")
                if dtype.str != _TYPES.get(member.filename.removesuffix(".npy"), dtype.str):
                    raise ValueError(f"{shown(member.filename)} has values of type {dtype}")


def _packed(boxes: np.ndarray) -> np.ndarray:
    """(N, 5) float32 -> int32 steps. An angle that rounds to +pi/2 becomes -pi/2."""
    steps = np.rint(boxes * np.array([*[_STEPS_PER_PIXEL] * 4, _STEPS_PER_RADIAN])).astype(np.int32)
    steps[:, 4] = (steps[:, 4] + 32768) % 65536 - 32768
    steps[:, 2:4] = np.maximum(steps[:, 2:4], 1)
    return steps


def _unpacked(steps: np.ndarray) -> np.ndarray:
    """The inverse of `_packed`."""
    return (steps / np.array([*[_STEPS_PER_PIXEL] * 4, _STEPS_PER_RADIAN])).astype(np.float32).reshape(-1, 5)
