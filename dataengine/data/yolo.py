"""YOLO text: `class cx cy w h` (horizontal) or `class x1 y1 x2 y2 x3 y3 x4 y4` (YOLO-OBB), relative to the image.

Coordinates are continuous pixels divided by width and height, without half-pixel shift. Corners or polygons on any
line make the data set rotated; a polygon becomes the minimum-area box around it, as in Ultralytics' OBB training.
With `kpt_shape`, the numbers after the box are keypoints, which are not used.
`box_kind` in `data.yaml`, which `write` adds and Ultralytics ignores, takes precedence.
Read: `data.yaml` with `names`, `path` and `train`/`val`/`test` (a folder, several, or a list file), or `classes.txt` or
`obj.names` next to `images/` and `labels/`, or CVAT's `obj.data` with its list files. Folders are looked for below the
folder of the file only; of an absolute path of another machine, the end is. The label file of `images/a/b.jpg` is
`labels/a/b.txt`; an image without one has no objects, but a split in which no image has one is a problem.
Written: `data.yaml` without `path`, so that Ultralytics finds the images from any working directory, and with `train`
and `val`, which it requires: where there is no such split, a comment in the file says what stands in. Corners of a box
cut by the border may be a little below 0 or above 1, which Ultralytics takes; see `_polygons` for where it does not.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import yaml

from dataengine import geometry
from dataengine.data import images
from dataengine.data.border import visible_hulls, visible_polygons
from dataengine.data.file_index import FileIndex, matched, safe_name
from dataengine.data.label_files import head_of
from dataengine.data.layout import Dataset, Layout, Problem
from dataengine.data.objects import look_like_corners
from dataengine.data.parse import is_number, line_count, number, numbered_lines
from dataengine.data.records import NOTHING_READ, Record, assemble
from dataengine.data.staging import Place, Progress, decimal, placed, staged, written_splits
from dataengine.errors import UserError
from dataengine.files import MAX_TEXT_BYTES, read_text, read_yaml

NAME = "yolo"
HOLDS = frozenset({"angles", "hbb"})
LABEL_FOLDER = re.compile(r"labels?([-_ ].*)?", re.IGNORECASE)
_SPLITS = ("train", "val", "valid", "test")
_ULTRALYTICS_KEYS = {"valid": "val", "validation": "val"}


def recognizes(file: Path, head: str) -> bool:
    """Whether a file is a label file or the settings of a YOLO data set. head: its first characters."""
    if file.suffix.lower() in (".yaml", ".yml"):
        return re.search(r"^names\s*:", head, re.MULTILINE) is not None
    if file.suffix.lower() != ".txt":
        return False
    rows = [line.split() for line in head.splitlines()[:20] if line.strip()]
    return bool(rows) and all(
        len(row) >= 5 and len(row) % 2 and _is_class(row[0]) and all(map(is_number, row)) and _relative(row[1:])
        for row in rows[: max(1, len(rows) - 1)]  # the last may be cut
    )


def _is_class(text: str) -> bool:
    """Whether a text is a class number, also as `numpy.savetxt` writes it: 3, 3.0, 3.000000e+00."""
    return is_number(text) and float(text) >= 0 and float(text).is_integer()


def _relative(values: Sequence[str]) -> bool:
    return all(-1 <= float(value) <= 2 for value in values)


def _settings(path: Path) -> tuple[Path, dict]:
    """(root, content of the YAML file) of a data set. Raises UserError if there is no class list."""
    root = path if path.is_dir() else path.parent
    file = (
        path
        if path.is_file()
        else next((root / n for n in ("data.yaml", "dataset.yaml") if (root / n).is_file()), None)
    )
    if file is None:
        file = _only_settings(root)
    if file is not None:
        content = read_yaml(file)
        return root, content | {"names": _class_names(file, content.get("names"))}
    for name in ("classes.txt", "obj.names", "labels/classes.txt"):
        if (root / name).is_file():
            lines = [line.strip() for line in read_text(root / name, MAX_TEXT_BYTES).rstrip().splitlines()]
            if "" in lines:
                raise UserError(
                    f"{root / name}: line {lines.index('') + 1} is blank, so the numbers of the names after it are "
                    "not clear; remove the line or write a name there"
                )
            odd = next((line for i, line in enumerate(lines) if "," in line or re.match(rf"{i}[:;=\s]", line)), None)
            if odd is not None:
                raise UserError(
                    f"{root / name}: {odd!r} is not a name alone; give each class a line with its name only"
                )
            return root, {"names": dict(enumerate(lines))} | _darknet(root / "obj.data")
    raise UserError(f"{root} has neither data.yaml nor classes.txt, so class numbers have no names; add one of them")


def _only_settings(root: Path) -> Path | None:
    """The YAML file with class names at the root, None without one. Raises UserError if several have other names."""
    files = [file for file in sorted(root.glob("*.y*ml")) if file.name[0] != "." and _has_names(file)]
    names = {file: found for file in files if (found := read_yaml(file).get("names"))}
    if any(other != next(iter(names.values())) for other in names.values()):
        listed = ", ".join(file.name for file in names)
        raise UserError(f"{root} has several lists of class names ({listed}); give the file that is meant")
    return next(iter(names or files), None)


def _has_names(file: Path) -> bool:
    return "names:" in read_text(file, MAX_TEXT_BYTES)


def _class_names(file: Path, names: object) -> dict[int, str]:
    """{number: class name} by `names` in a YAML file, a list or an object with numbers as keys, which may have gaps.

    Raises UserError if it is something else.
    """
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict):
        raise UserError(f"{file} has no list of class names; add names: [...]")
    if not all(re.fullmatch(r"\d+", str(i)) for i in names):
        raise UserError(f"{file}: names: keys are {', '.join(map(str, names))}; number the classes 0, 1, 2 ...")
    for i, name in names.items():
        if not isinstance(name, str | int | float) or isinstance(name, bool):
            raise UserError(f"{file}: the name of class {i} is {name!r}, not text; put it in quotes")
    return {int(i): str(names[i]) for i in sorted(names, key=int)}


def _darknet(file: Path) -> dict:
    """The list files of the splits in `obj.data`, as CVAT writes it: `train = data/train.txt`."""
    if not file.is_file():
        return {}
    pairs = [line.partition("=") for line in read_text(file, MAX_TEXT_BYTES).splitlines()]
    fields = {key.strip(): Path(value.strip()).name for key, _, value in pairs}
    return {key: name for key, name in fields.items() if key in _SPLITS and (file.parent / name).is_file()}


def _folders(root: Path, content: dict) -> dict[str, list[Path]]:
    """Image folders, or list files, of each split. Raises UserError for one outside of the root."""
    stated = str(content.get("path") or "").replace("\\", "/")
    bases = [root / stated, root]  # Ultralytics resolves `path` in its own data folder
    parts: dict[str, list[Path]] = {}
    for split in _SPLITS:
        entries = content.get(split) or []
        entries = [entries] if isinstance(entries, str) else entries
        if not isinstance(entries, list) or not all(isinstance(entry, str) for entry in entries):
            raise UserError(f"{root}: {split}: {entries!r} in data.yaml is not a folder or a list of folders; fix it")
        for entry in entries:
            entry = entry.replace("\\", "/")
            # Roboflow's `../` does not mean what it says: the folder is next to data.yaml
            places = [base / name for base in bases for name in (entry, entry.removeprefix("../"))]
            inside = [place for place in places if _is_below(place, root)]
            found = next((place for place in inside if os.path.exists(place)), None)
            if found is None and not any(map(os.path.exists, places)):
                found = _of_another_machine(root, entry)
            if found is None and any(map(os.path.exists, places)):
                raise UserError(
                    f"{root}: {split}: {entry} (path: {stated or 'not set'}) in data.yaml lies outside of this folder; "
                    "give the folder that has the images and labels, or move data.yaml there"
                )
            parts.setdefault(split, []).append(found or root / entry)
    if parts.get("val") is not None and parts["val"] == parts.get("train"):
        del parts["val"]  # the training images again, for want of others, as `write` and many data sets have it
    if not parts:
        folder = root / "images" if (root / "images").is_dir() else root
        inside = [p for p in sorted(folder.iterdir()) if p.is_dir() and p.name in _SPLITS]
        parts = {p.name: [p] for p in inside} or {"": [folder]}
    return parts


def _of_another_machine(root: Path, entry: str) -> Path | None:
    """The folder or file below the root that an absolute path of another machine means: the one with the longest end of
    that path, `images/train` for `/home/me/ships/images/train`; None if there is none."""
    if not re.match(r"/|[A-Za-z]:", entry):
        return None
    parts = [part for part in entry.split("/") if part not in ("", ".")]
    if ".." in parts:
        return None
    return next((place for i in range(len(parts)) if (place := root.joinpath(*parts[i:])).exists()), None)


def _is_below(path: Path, root: Path) -> bool:
    top = Path(os.path.abspath(root))
    return top in (Path(os.path.abspath(path)), *Path(os.path.abspath(path)).parents)


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
    used: set[float] = set()
    rows: list[list[float]] = []
    index = FileIndex(root)
    texts = FileIndex(root, (".txt",))
    labels = matched(index.files, texts.only(_label_places(texts.files, index)))
    rotated = content.get("box_kind") == "obb"
    keypoints = _keypoint_numbers(content.get("kpt_shape"))
    known = set() if split is None else {file for file in labels.values() if isinstance(file, Path)}
    for name, places in parts.items():
        pictures = [pair for place in places for pair in _images(index, place, name, problems)]
        found = {image: file for _, image in pictures if isinstance(file := labels[image], Path)}
        known |= set(found.values())
        if pictures and not found:
            expected = _label_file(pictures[0][1])
            message = (
                f"none of the {len(pictures)} images{f' of {name}' if name else ''} has a label file; "
                f"{os.path.relpath(expected, root)} was looked for"
            )
            problems.append(Problem(places[0], None, f"{message}; images without objects need empty label files"))
            continue
        for stem, image in pictures:
            if image not in found and " may belong to " in labels[image]:
                problems.append(Problem(image, None, f"{labels[image]}; the image is skipped"))
                continue
            names = content["names"]
            record, has_corners = _record(stem, image, found.get(image), name, names, problems, keypoints, used, rows)
            rotated |= has_corners and "box_kind" not in content
            if record is not None:
                records.append(record)
    problems += _without_image(root, texts.files, known)
    kind = "obb" if rotated else "hbb"
    _check_numbers(path, content["names"], used)
    if look_like_corners(np.array(rows), np.array([max(cx + w / 2, cy + h / 2) > 1.01 for cx, cy, w, h in rows])):
        message = (
            "many boxes leave their image, and all look like x1 y1 x2 y2 in place of YOLO's cx cy w h; convert them"
        )
        problems.append(Problem(path, None, message))
    known = (tuple(content["names"].values()),)
    return assemble(records, path, format=NAME, kind=kind, classes=classes, known=known, problems=problems)


def _images(index: FileIndex, place: Path, split: str, problems: list[Problem]) -> list[tuple[str, Path]]:
    """(name, path) of the images in a folder or in a list file."""
    if os.path.isdir(place):  # unlike `Path.is_dir`, False for invalid names too
        top = Path(os.path.abspath(place))
        below = [(image, Path(os.path.abspath(image))) for image in index.files]
        return [(safe_name(path.relative_to(top).as_posix()), image) for image, path in below if top in path.parents]
    if not os.path.isfile(place):
        problems.append(Problem(place, None, "image folder is missing; it is skipped"))
        return []
    pairs = []
    for at, line in enumerate(map(str.strip, read_text(place, MAX_TEXT_BYTES).splitlines()), 1):
        try:
            if line:
                pairs.append((Path(safe_name(line)).name, index.find(line, near=place, split=split)))
        except ValueError as error:
            problems.append(Problem(place, at, f"{error}; the image is skipped"))
    return pairs


def _label_file(image: Path) -> Path:
    """Ultralytics' rule: the last folder named `images` becomes `labels`."""
    parts = list(image.parts)
    if "images" in parts[:-1]:
        parts[len(parts) - 2 - parts[-2::-1].index("images")] = "labels"
    return Path(*parts).with_suffix(".txt")


def _label_places(texts: Sequence[Path], index: FileIndex) -> list[Path]:
    """The text files that lie in a folder named for labels, or next to an image."""
    beside = {image.parent for image in index.files}
    return [
        file
        for file in texts
        if file.parent in beside or any(map(LABEL_FOLDER.fullmatch, file.relative_to(index.root).parts[:-1]))
    ]


def _without_image(root: Path, texts: Sequence[Path], known: set[Path]) -> list[Problem]:
    """The problem of label files that belong to no image."""
    lost = []
    for file in texts:
        if file not in known:
            try:
                if recognizes(file, head_of(file)):
                    lost.append(file)
            except OSError:
                lost.append(file)
    if not lost:
        return []
    objects = sum(map(line_count, lost))
    message = f"{len(lost)} label files belong to no image of the data set (first: {lost[0].relative_to(root)})"
    return [Problem(root, None, f"{message}; their {objects} objects are skipped", objects)]


def _record(
    stem: str,
    image: Path,
    file: Path | None,
    split: str,
    names: Mapping[int, str],
    problems: list[Problem],
    keypoints: int,
    used: set[float],
    rows: list[list[float]],
) -> tuple[Record | None, bool]:
    """The record of an image, None if its labels cannot be read, and whether any object is given by corners.

    keypoints: how many numbers of keypoints follow each box, which are not used. used: gets the class numbers.
    rows: gets the numbers of upright boxes.
    """
    record = Record(stem, image, file or _label_file(image), split=split, lines=[])
    if file is None:
        return record, False
    try:
        text = read_text(file, MAX_TEXT_BYTES)
    except UserError as error:
        message = f"cannot be read as text ({error}); the image is skipped with its objects"
        problems.append(Problem(file, None, message, line_count(file)))
        return None, False
    try:
        width, height = images.measure(image)
    except ValueError:
        width = height = 1  # `assemble` reports the image
    corners, rotated, before = [], False, len(problems)
    for line, row in numbered_lines(text):
        fields = row.split()
        try:
            index = number(fields[0], "class number")
            used.add(index)
            if index not in names:
                raise ValueError(f"class number {fields[0]} is not in the class list, which has {_numbers(names)}")
            if keypoints and len(fields) == 5 + keypoints:
                fields = fields[:5]
            points = _points(fields)
        except ValueError as error:
            problems.append(Problem(file, line, f"{error}; the object is skipped", 1))
            continue
        scaled = np.reshape(points, (-1, 2)) * (width, height)
        if len(scaled) != 4:
            scaled = geometry.to_corners(geometry.from_points(scaled))[0]
        rotated |= len(fields) > 5
        if len(fields) == 5:
            rows.append(list(map(float, fields[1:])))
        corners.append(scaled)
        record.names.append(names[int(index)])
        record.lines.append(line)
    record.boxes = geometry.from_corners(np.array(corners, np.float32).reshape(-1, 4, 2))
    if len(problems) > before and not record.names:
        record.image, record.fault = None, NOTHING_READ
    return record, rotated


def _check_numbers(path: Path, names: Mapping[int, str], used: set[float]) -> None:
    """Raises UserError if class numbers count from 1 and names from 0: every object would have a wrong name."""
    if len(used) > 1 and list(names) == list(range(len(names))) and min(used) == 1 and max(used) == len(names):
        raise UserError(
            f"{path}: class numbers run from 1 to {len(names)}, but the class list from 0; number "
            "the names from 1 in data.yaml (names: {1: ..., 2: ...}), or add a name for class 0"
        )


def _numbers(names: Mapping[int, str]) -> str:
    """The class numbers as text: 0 to 4, or a list with gaps."""
    keys = list(names)
    if not keys:
        return "no classes"
    return f"{keys[0]} to {keys[-1]}" if keys == list(range(keys[0], keys[-1] + 1)) else ", ".join(map(str, keys))


def _keypoint_numbers(shape: object) -> int:
    """How many numbers `kpt_shape: [points, 2 or 3]` adds to each line; 0 without it."""
    is_shape = isinstance(shape, list) and len(shape) == 2 and all(type(value) is int for value in shape)
    return shape[0] * shape[1] if is_shape else 0


def _points(fields: list[str]) -> list[float]:
    """x and y in turn of the corners of a box, or of a polygon, relative to the image."""
    values = [number(field, f"field {i}") for i, field in enumerate(fields[1:], 2)]
    if len(values) >= 6 and len(values) % 2 == 0 and len(values) != 6:
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
    dataset: Dataset,
    path: str | Path,
    *,
    split: str = "train",
    progress: Progress | None = None,
    place: Place | None = None,
) -> list[Problem]:
    """Write one split, horizontal or rotated as the data set is, and `data.yaml`. Returns problems: what was skipped.

    place: in place of copying images (`staging.placed`).
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
        samples = placed(
            dataset, work / "images" / split, problems, flat=False, fill_ignored=True, progress=progress, place=place
        )
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
