"""YOLO text: `class cx cy w h` (horizontal) or `class x1 y1 x2 y2 x3 y3 x4 y4` (YOLO-OBB), relative to the image.

Coordinates are continuous pixels divided by width and height, without half-pixel shift. Nine fields on any line make
the data set rotated; `box_kind` in `data.yaml`, which `write` adds and Ultralytics ignores, takes precedence.
Read: `data.yaml` with `names`, `path` and `train`/`val`/`test` (a folder, several, or a list file; Roboflow's leading
`../` is ignored), or `classes.txt`/`obj.names` next to `images/` and `labels/`. The label file of `images/a/b.jpg` is
`labels/a/b.txt`; an image without one has no objects.
Written: corners outside the image are moved to its border, as Ultralytics rejects the whole image otherwise.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import yaml

from dataengine import geometry
from dataengine.data import images
from dataengine.data.images import named_file
from dataengine.data.layout import Dataset, Problem
from dataengine.data.parse import number
from dataengine.data.records import Record, assemble
from dataengine.data.staging import Progress, decimal, placed, staged
from dataengine.errors import UserError
from dataengine.files import read_text, read_yaml

NAME = "yolo"
HOLDS = frozenset({"angles", "hbb"})
_SPLITS = ("train", "val", "valid", "test")


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
            row = _corners(fields)
            index = number(fields[0], "class number")
            if index != int(index) or not 0 <= index < len(names):
                raise ValueError(f"class number {fields[0]} is not in the class list, which has 0 to {len(names) - 1}")
        except ValueError as error:
            problems.append(Problem(file, line, f"{error}; the object is skipped"))
            continue
        rotated |= len(fields) == 9
        corners.append(row)
        record.names.append(names[int(index)])
        record.lines.append(line)
    scaled = np.array(corners, np.float64).reshape(-1, 4, 2) * (width, height)
    record.boxes = geometry.from_corners(scaled.astype(np.float32))
    return record, rotated


def _corners(fields: list[str]) -> list[float]:
    values = [number(field, f"field {i}") for i, field in enumerate(fields[1:], 2)]
    if len(values) == 8:
        return values
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
        folders = {name: earlier[name] for name in _SPLITS if name in earlier} | {split: f"images/{split}"}
        content = {"path": ".", **folders, "box_kind": dataset.kind, "names": dict(enumerate(dataset.classes))}
        text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
        (work / "data.yaml").write_text(text, "utf-8")
        for sample, name in placed(dataset, work / "images" / split, problems, flat=False, progress=progress):
            layout = sample.layout
            corners = geometry.to_corners(layout.boxes) / np.array(layout.size)  # (N, 4, 2)
            inside = corners.clip(0, 1)
            spans = np.ptp(inside, axis=1)  # (N, 2)
            lines = []
            for i, (label, points) in enumerate(zip(layout.labels, inside, strict=True)):
                if (spans[i] * layout.size < 1e-3).any():
                    problems.append(
                        Problem(sample.image, None, f"object {i + 1} lies outside the image; it is skipped")
                    )
                    continue
                if dataset.kind == "hbb":
                    points = np.concatenate([(points.min(axis=0) + points.max(axis=0)) / 2, spans[i]])
                lines.append(" ".join([str(int(label)), *(decimal(value, 8) for value in points.ravel())]) + "\n")
            file = work / "labels" / split / f"{name}.txt"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("".join(lines), "utf-8")
    return problems
