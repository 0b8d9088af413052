"""YOLO text: `class cx cy w h` (horizontal) or `class x1 y1 x2 y2 x3 y3 x4 y4` (YOLO-OBB), relative to the image.

Coordinates are continuous pixels divided by width and height, without half-pixel shift. Nine fields on any line make
the data set rotated; `box_kind` in `data.yaml`, which `write` adds and Ultralytics ignores, takes precedence.
Read: `data.yaml` with `names`, `path` and `train`/`val`/`test` (a folder, several, or a list file; Roboflow's leading
`../` is ignored), or `classes.txt`/`obj.names` next to `images/` and `labels/`. The label file of `images/a/b.jpg` is
`labels/a/b.txt`; an image without one has no objects.
Written: `data.yaml` without `path`, so that Ultralytics finds the images from any working directory, and with `train`
and `val`, which it requires: where there is no such split, a comment in the file says what stands in. Corners of a box
cut by the border may be a little below 0 or above 1, which Ultralytics takes; see `_polygons` for where it does not.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import yaml

from dataengine import geometry
from dataengine.data import images
from dataengine.data.border import visible_hulls, visible_polygons
from dataengine.data.images import named_file
from dataengine.data.layout import Dataset, Layout, Problem
from dataengine.data.parse import number
from dataengine.data.records import Record, assemble
from dataengine.data.staging import Progress, decimal, placed, staged, written_splits
from dataengine.errors import UserError
from dataengine.files import read_text, read_yaml

NAME = "yolo"
HOLDS = frozenset({"angles", "hbb"})
_SPLITS = ("train", "val", "valid", "test")
_ULTRALYTICS_KEYS = {"valid": "val", "validation": "val"}


def _settings(path: Path) -> tuple[Path, dict]:
    """(root, content of the YAML file) of a data set. Raises UserError if there is no class list."""
    root = path if path.is_dir() else path.parent
    file = path if path.is_file() else next((root / name for name in ("data.yaml", "dataset.yaml")), None)
    if file is None or not file.is_file():
        file = next((f for f in sorted(root.glob("*.yaml")) if "names:" in read_text(f)), None)
    if file is not None:
        content = read_yaml(file)
        if not isinstance(content.get("names"), list | dict):
            raise UserError(f"{file} has no list of class names; add names: [...]")
        names = content["names"]
        if isinstance(names, dict) and not all(isinstance(i, int) for i in names):
            raise UserError(f"{file}: names: keys are {', '.join(map(str, names))}; number the classes 0, 1, 2 ...")
        content["names"] = [str(names[i]) for i in sorted(names)] if isinstance(names, dict) else list(map(str, names))
        return root, content
    for name in ("classes.txt", "obj.names", "labels/classes.txt"):
        if (root / name).is_file():
            lines = read_text(root / name).splitlines()
            return root, {"names": [line.strip() for line in lines if line.strip()]}
    raise UserError(f"{root} has neither data.yaml nor classes.txt, so class numbers have no names; add one of them")


def _folders(root: Path, content: dict) -> dict[str, list[Path]]:
    """Image folders, or list files, of each split."""
    base = root / str(content.get("path") or "")
    if not os.path.isdir(base):
        base = root  # Ultralytics resolves `path` in its own data folder
    parts: dict[str, list[Path]] = {}
    for split in _SPLITS:
        entries = content.get(split) or []
        entries = [entries] if isinstance(entries, str) else entries
        if not isinstance(entries, list) or not all(isinstance(entry, str) for entry in entries):
            raise UserError(f"{root}: {split}: {entries!r} in data.yaml is not a folder or a list of folders; fix it")
        for entry in entries:
            places = (base / entry, root / entry, root / entry.removeprefix("../"))
            parts.setdefault(split, []).append(next((place for place in places if os.path.exists(place)), places[0]))
    if parts.get("val") is not None and parts["val"] == parts.get("train"):
        del parts["val"]  # the training images again, for want of others, as `write` and many data sets have it
    if not parts:
        folder = root / "images" if (root / "images").is_dir() else root
        inside = [p for p in sorted(folder.iterdir()) if p.is_dir() and p.name in _SPLITS]
        parts = {p.name: [p] for p in inside} or {"": [folder]}
    return parts


def splits(path: Path) -> tuple[str, ...]:
    """Names of the splits of a data set, given its root."""
    return tuple(name for name, places in _folders(*_settings(path)).items() if name and os.path.exists(places[0]))


def read(path: str | Path, *, split: str | None = None, classes: Sequence[str] | None = None) -> Dataset:
    """Read a data set from its root or its `data.yaml`. `split=None` reads all splits.

    Raises UserError if the path, the class names or the split are missing or no image is usable. Smaller faults are
    listed in `Dataset.problems`.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path} does not exist; give the folder with data.yaml or that file")
    root, content = _settings(path)
    parts = _folders(root, content)
    if split is not None:
        if split not in parts:
            raise UserError(f"{path} has no split {split!r}; it has {', '.join(filter(None, parts)) or 'none'}")
        parts = {split: parts[split]}
    problems: list[Problem] = []
    records: list[Record] = []
    rotated = content.get("box_kind") == "obb"
    for name, places in parts.items():
        for stem, image in (pair for place in places for pair in _images(root, place, problems)):
            record, has_corners = _record(stem, image, name, content["names"], problems)
            rotated |= has_corners and "box_kind" not in content
            records.append(record)
    kind = "obb" if rotated else "hbb"
    known = (tuple(content["names"]),)
    return assemble(records, path, format=NAME, kind=kind, classes=classes, known=known, problems=problems)


def _images(root: Path, place: Path, problems: list[Problem]) -> list[tuple[str, Path]]:
    """(name, path) of the images in a folder or in a list file."""
    if os.path.isdir(place):  # unlike `Path.is_dir`, False for invalid names too
        return list(images.index_by_stem(place, problems).items())
    if not os.path.isfile(place):
        problems.append(Problem(place, None, "image folder is missing; it is skipped"))
        return []
    pairs = []
    for at, line in enumerate(map(str.strip, read_text(place).splitlines()), 1):
        try:
            if line:
                pairs.append((Path(line).stem, named_file(root, (root,), line)))
        except ValueError as error:
            problems.append(Problem(place, at, f"{error}; the image is skipped"))
    return pairs


def _label_file(image: Path) -> Path:
    """Ultralytics' rule: the last folder named `images` becomes `labels`; else the label file next to the image."""
    parts = list(image.parts)
    if "images" in parts[:-1]:
        parts[len(parts) - 2 - parts[-2::-1].index("images")] = "labels"
    file, adjacent = Path(*parts).with_suffix(".txt"), image.with_suffix(".txt")
    return adjacent if not file.is_file() and adjacent.is_file() else file


def _record(stem: str, image: Path, split: str, names: Sequence[str], problems: list[Problem]) -> tuple[Record, bool]:
    """The record of an image, and whether any of its objects is given by corners."""
    file = _label_file(image)
    record = Record(stem, image, file, split=split, lines=[])
    if not file.is_file():
        return record, False
    try:
        width, height = images.measure(image)
        lines = file.read_text("utf-8-sig").splitlines()
    except (ValueError, OSError):  # `assemble` reports broken images, so only label files are reported here
        if image.is_file():
            problems.append(Problem(file, None, "cannot be read together with its image; its objects are skipped"))
        return record, False
    corners, rotated = [], False
    for line, text in enumerate(lines, 1):
        fields = text.split()
        if not fields:
            continue
        try:
            row = _corners(fields, (width, height))
            index = number(fields[0], "class number")
            if index != int(index) or not 0 <= index < len(names):
                raise ValueError(f"class number {fields[0]} is not in the class list, which has 0 to {len(names) - 1}")
        except ValueError as error:
            problems.append(Problem(file, line, f"{error}; the object is skipped"))
            continue
        rotated |= len(fields) > 5
        corners.append(row)
        record.names.append(names[int(index)])
        record.lines.append(line)
    scaled = np.array(corners, np.float64).reshape(-1, 4, 2) * (width, height)
    record.boxes = geometry.from_corners(scaled.astype(np.float32))
    return record, rotated


def _corners(fields: list[str], size: tuple[int, int]) -> np.ndarray | list[float]:
    """The four corners of an object relative to an image of `size`, (8,). A polygon of more points, which `write` makes
    of a large box that the border cuts, becomes its minimum-area box."""
    values = [number(field, f"field {i}") for i, field in enumerate(fields[1:], 2)]
    if len(values) == 8:
        return values
    if len(values) > 8 and len(values) % 2 == 0:
        import cv2

        (cx, cy), (w, h), degrees = cv2.minAreaRect((np.array(values).reshape(-1, 2) * size).astype(np.float32))
        return (geometry.to_corners(geometry.from_opencv([cx, cy, w, h, degrees])) / np.array(size)).ravel()
    if len(values) != 4:
        points = f" ({len(values) // 2} points)" if len(values) % 2 == 0 else ""
        raise ValueError(f"has {len(fields)} fields{points}; a box has 5, a rotated box with 4 corners has 9")
    cx, cy, w, h = values
    if w <= 0 or h <= 0:
        raise ValueError(f"box is {w:g} wide and {h:g} high, so it has no area")
    x1, y1, x2, y2 = cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2
    return [x1, y1, x2, y1, x2, y2, x1, y2]


def write(
    dataset: Dataset, path: str | Path, *, split: str = "train", progress: Progress | None = None
) -> list[Problem]:
    """Write one split, horizontal or rotated as the data set is, and `data.yaml`. Returns problems: what was skipped.

    Raises UserError unless `path` is new, empty or a YOLO set of the same classes written by dataengine.
    """
    path = Path(path)
    problems: list[Problem] = []
    with staged(path, NAME, split, dataset.classes) as work:
        earlier = read_yaml(path / "data.yaml") if (path / "data.yaml").is_file() else {}
        if earlier and earlier.get("box_kind") != dataset.kind:
            raise UserError(f"{path} has {earlier.get('box_kind')} boxes, not {dataset.kind}; choose another folder")
        text = _data_yaml([*written_splits(path), split], dataset.kind, dataset.classes)
        (work / "data.yaml").write_text(text, "utf-8")
        samples = placed(dataset, work / "images" / split, problems, flat=False, fill_ignored=True, progress=progress)
        for sample, name in samples:
            rows = _upright(sample.layout) if dataset.kind == "hbb" else _polygons(sample.layout)
            lines = [
                f"{label} {' '.join(decimal(value, 8) for value in row)}\n"
                for label, row in zip(sample.layout.labels, rows, strict=True)
            ]
            file = work / "labels" / split / f"{name}.txt"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("".join(lines), "utf-8")
    return problems


def _data_yaml(splits: Sequence[str], kind: str, classes: Sequence[str]) -> str:
    """Text of `data.yaml`. It has no `path`, so that Ultralytics finds the images from the folder of this file, and
    always has `train` and `val`, which it requires."""
    splits = list(dict.fromkeys(splits))
    keys = {split: _ULTRALYTICS_KEYS.get(split, split) for split in splits}
    if len({*keys.values()}) < len(keys):
        keys = {split: split for split in splits}
    folders: dict = {keys[split]: f"images/{split}" for split in splits}
    others = [folder for key, folder in folders.items() if key not in ("train", "val", "test")]
    remarks = []
    if "train" not in folders:
        folders["train"] = others if len(others) > 1 else others[0] if others else None
        what = "the images of the other splits" if others else "empty"
        remarks.append(f"train: is {what}, since there is no split for training and Ultralytics requires the key")
    if "val" not in folders:
        folders["val"] = [*others] if isinstance(folders["train"], list) else folders["train"]
        what = "the training images again" if folders["val"] else "empty"
        remarks.append(
            f"val: is {what}, since there is no split for validation and Ultralytics requires the key;\n"
            "# figures that are measured there say nothing about other images"
        )
    order = dict.fromkeys(("train", "val", "test", *folders))
    content = {key: folders[key] for key in order if key in folders}
    content |= {"box_kind": kind, "names": dict(enumerate(classes))}
    head = "".join(f"# {remark}\n" for remark in remarks)
    return head + yaml.safe_dump(content, sort_keys=False, allow_unicode=True)


def _upright(layout: Layout) -> np.ndarray:
    """Centre and size of the visible part of each object as fractions of the image, (N, 4)."""
    hulls = visible_hulls(layout.boxes, layout.size) / np.array([*layout.size, *layout.size])
    return np.concatenate([(hulls[:, :2] + hulls[:, 2:]) / 2, hulls[:, 2:] - hulls[:, :2]], axis=1)


def _polygons(layout: Layout) -> list[np.ndarray]:
    """Points of each object as fractions of the image, x and y in turn, (2 K,): its four corners.

    Ultralytics drops an image if the centre or the size of the upright box around some points is not in 0 to 1. Corners
    may leave the image as long as that holds, else the polygon of the visible part is written, of which the box is the
    minimum-area rectangle, too.
    """
    size = np.array(layout.size, np.float64)
    corners = geometry.to_corners(layout.boxes) / size  # (N, 4, 2)
    low, high = corners.min(axis=1), corners.max(axis=1)
    centre = (low + high) / 2
    accepted = ((centre >= 0) & (centre <= 1) & (high - low <= 1)).all(axis=1)
    rows = [points.ravel() for points in corners]
    for i in np.flatnonzero(~accepted):
        rows[i] = (visible_polygons(layout.boxes[i : i + 1], layout.size)[0] / size).clip(0, 1).ravel()
    return rows
