"""DOTA text, versions 1.0, 1.5 and 2.0: one line an object, `x1 y1 x2 y2 x3 y3 x4 y4 class difficult`.

Corners are continuous pixels without half-pixel shift, as in DOTA's own tools and mmrotate.
Read: `images/` next to `labelTxt/` (or `labelTxt-v1.5/`, `labelTxt-v2.0/`, `annfiles/`), at the root or in a folder of
each split; header lines `imagesource:` and `gsd:` (metres per pixel, "null" is unknown), also from DOTA's `meta/`
folder. A missing tenth field is 0, class names may have blanks, and any quadrilateral becomes its minimum-area box.
Written: `<split>/images/*.png`, `<split>/labelTxt/*.txt` without header and with all ten fields, since mmrotate's
`DOTADataset` fails at a header or a missing field and appends `.png`. Blanks in class names become hyphens, since it
splits at blanks. Ground sample distance and date go to `<split>/meta/`, the class list to `classes.txt`.
An ignored region is written as an entry of each class with the difficulty 101, and difficulties above 100 are read as
ignored regions: `DOTADataset` marks entries above `diff_thr`, 100 unless set, as ignored, and its metric leaves out
detections there. Training leaves them out only where the assigners of a config have an `ignore_iof_thr`, which those of
mmrotate have not; `dataengine export mmrotate` fills the regions for that.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dataengine import geometry
from dataengine.data import images
from dataengine.data.layout import UNKNOWN, Acquisition, Dataset, Problem
from dataengine.data.parse import flag, number
from dataengine.data.records import Record, assemble, listed_classes, unknown_acquisition
from dataengine.data.staging import Progress, decimal, placed, staged, write_classes
from dataengine.errors import UserError

NAME = "dota"
HOLDS = frozenset({"angles", "difficult", "ignored", "gsd_m", "date"})
IGNORED_DIFFICULTY = 101  # above the default `diff_thr` of mmrotate's DOTADataset, 100
CLASSES_V10 = (
    "plane", "baseball-diamond", "bridge", "ground-track-field", "small-vehicle", "large-vehicle", "ship",
    "tennis-court", "basketball-court", "storage-tank", "soccer-ball-field", "roundabout", "harbor", "swimming-pool",
    "helicopter",
)  # fmt: skip
CLASSES_V15 = (*CLASSES_V10, "container-crane")
CLASSES_V20 = (*CLASSES_V15, "airport", "helipad")
_LABEL_FOLDERS = ("labelTxt", "labelTxt-v2.0", "labelTxt-v1.5", "labelTxt-v1.0", "annfiles")


def _label_folder(folder: Path) -> Path | None:
    return next((folder / name for name in _LABEL_FOLDERS if (folder / name).is_dir()), None)


def _parts(path: Path) -> dict[str, tuple[Path, Path]]:
    """{split: (label folder, image folder)}. A data set without splits has one with the name ""."""
    labels = _label_folder(path)
    if labels is not None:
        names = [folder.name for folder in labels.iterdir() if (path / "images" / folder.name).is_dir()]
        if names:
            return {name: (labels / name, path / "images" / name) for name in sorted(names)}
        return {"": (labels, path / "images")}
    folders = sorted(folder for folder in path.iterdir() if folder.is_dir() and not folder.name.startswith("."))
    return {f.name: (found, f / "images") for f in folders if (found := _label_folder(f)) is not None}


def splits(path: Path) -> tuple[str, ...]:
    """Names of the splits of a data set, given its root."""
    return tuple(name for name in _parts(path) if name)


def read(path: str | Path, *, split: str | None = None, classes: Sequence[str] | None = None) -> Dataset:
    """Read a data set from its root or the folder of one split. `split=None` reads all splits.

    The class list is `classes`, else `classes.txt`, else the first of DOTA 1.0, 1.5 and 2.0 that has all names, else
    the sorted names. Raises UserError if the path or the split is missing or no image is usable. Smaller faults are
    listed in `Dataset.problems`.
    """
    path = Path(path)
    if not path.is_dir():
        raise UserError(f"{path} is not a folder; give the DOTA folder with images/ and labelTxt/")
    parts = _parts(path)
    if split is not None:
        if split not in parts:
            raise UserError(f"{path} has no split {split!r}; it has {', '.join(filter(None, parts)) or 'none'}")
        parts = {split: parts[split]}
    records: list[Record] = []
    problems: list[Problem] = []
    for name, (labels, folder) in parts.items():
        available = images.index_by_stem(folder, problems)
        # DOTA 1.5 has DOTA-v1.5_train_hbb/ next to DOTA-v1.5_train/: horizontal boxes of the same objects
        files = [file for file in sorted(labels.rglob("*.txt")) if not file.parent.name.endswith("_hbb")]
        for file in files:
            image = available.pop(file.stem, folder / f"{file.stem}.png")
            records.append(_record(file, image, name, problems))
        if available:
            first = next(iter(available.values())).name
            message = f"{len(available)} images have no label file (first: {first}); they are skipped"
            problems.append(Problem(folder, None, f"{message}; an image without objects needs an empty label file"))
    listed = listed_classes(path) or listed_classes(path.parent)
    return assemble(
        records,
        path,
        format=NAME,
        kind="obb",
        classes=classes or listed,
        known=(CLASSES_V10, CLASSES_V15, CLASSES_V20),
        problems=problems,
    )


def _record(file: Path, image: Path, split: str, problems: list[Problem]) -> Record:
    record = Record(file.stem, image, file, split=split)
    try:
        lines = file.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        problems.append(Problem(file, None, f"cannot be read as text ({error}); its objects are skipped"))
        return record
    meta = file.parent.parent / "meta" / file.name
    try:
        header = meta.read_text("utf-8-sig").splitlines() if meta.is_file() else []
    except (OSError, UnicodeDecodeError) as error:
        problems.append(Problem(meta, None, f"cannot be read as text ({error}); it is skipped"))
        header = []
    first = 0
    while first < len(lines) and (":" in lines[first].split(" ")[0] or not lines[first].strip()):
        first += 1
    record.acquisition, record.source = _header(file, [*header, *lines[:first]], problems)
    rows = [line.split() for line in lines[first:]]
    try:
        corners = np.array([row[:8] for row in rows], np.float64).reshape(-1, 8)
        regular = bool(np.isfinite(corners).all()) and all(len(row) == 10 for row in rows)
    except ValueError:
        regular = False
    if regular:
        record.names = [row[8] for row in rows]
        record.difficult = [row[9] != "0" for row in rows]
        record.lines = range(first + 1, len(lines) + 1)
    else:
        corners = _irregular(file, rows, first, record, problems)
    record.boxes = geometry.from_corners(corners.reshape(-1, 4, 2).astype(np.float32))
    _separate_ignored_regions(record, rows, first)
    return record


def _separate_ignored_regions(record: Record, rows: list[list[str]], first: int) -> None:
    """Move the entries with a difficulty above 100 from the objects to the ignored regions, each place once."""
    difficulties = [rows[line - first - 1][-1] for line in record.lines]
    ignored = np.array([text.isdigit() and int(text) >= IGNORED_DIFFICULTY for text in difficulties], bool)
    if not ignored.any():
        return
    record.ignored = np.unique(record.boxes[ignored], axis=0)
    keep = np.flatnonzero(~ignored)
    record.boxes = record.boxes[keep]
    record.names, record.lines = [record.names[i] for i in keep], [record.lines[i] for i in keep]
    record.difficult = [record.difficult[i] for i in keep]


def _irregular(file: Path, rows: list[list[str]], first: int, record: Record, problems: list[Problem]) -> np.ndarray:
    """Corners of the valid objects in a file with other lines too, which become problems, (N, 8)."""
    corners, names, difficult, lines = [], [], [], []
    for line, row in enumerate(rows, first + 1):
        if not row:
            continue
        try:
            values = [number(field, f"coordinate {i + 1}") for i, field in enumerate(row[:8])]
            if len(row) < 9:
                raise ValueError(f"has {len(row)} fields; an object needs 8 coordinates and a class")
        except ValueError as error:
            numbers = sum(_is_number(field) for field in row[:8])
            points = f"has {numbers // 2} points, not 4 corners; " if numbers < 8 and "nan" not in str(error) else ""
            problems.append(Problem(file, line, f"{points}{error}; the object is skipped"))
            continue
        last = len(row) > 9 and row[-1].lstrip("-").isdigit()
        corners.append(values)
        names.append(" ".join(row[8:-1] if last else row[8:]))
        difficult.append(last and flag(row[-1]))
        lines.append(line)
    record.names, record.difficult, record.lines = names, difficult, lines
    return np.array(corners, np.float64)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _header(file: Path, lines: list[str], problems: list[Problem]) -> tuple[Acquisition, str]:
    """Acquisition and image source from the header lines `imagesource:`, `gsd:` and `acquisition dates:`."""
    fields = {key.strip().lower(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    acquisition = UNKNOWN
    try:
        gsd, date = fields.get("gsd", ""), fields.get("acquisition dates", "")
        acquisition = Acquisition(
            gsd_m=None if gsd.lower() in ("", "null", "none", "nan") else number(gsd, "gsd"),
            date=None if date.lower() in ("", "null", "none") else datetime.date.fromisoformat(date),
        )
    except ValueError as error:  # pydantic's ValidationError is one too
        problems.append(unknown_acquisition(file, "header", error))
    source = fields.get("imagesource", "")
    return acquisition, "" if source.lower() in ("null", "none") else source


def write(
    dataset: Dataset, path: str | Path, *, split: str = "train", progress: Progress | None = None
) -> list[Problem]:
    """Write one split for mmrotate's `DOTADataset`, with PNG images. Returns problems: what was skipped.

    Raises UserError unless `path` is new, empty or a DOTA set of the same classes written by dataengine.
    """
    path = Path(path)
    problems: list[Problem] = []
    with staged(path, NAME, split, dataset.classes) as work:
        write_classes(work, dataset.classes)
        names = ["-".join(name.split()) for name in dataset.classes]
        labels, meta = work / split / "labelTxt", work / split / "meta"
        labels.mkdir(parents=True)
        for sample, name in placed(dataset, work / split / "images", problems, suffix=".png", progress=progress):
            layout = sample.layout
            objects = zip(_numbers(layout.boxes), layout.labels, layout.difficult, strict=True)
            lines = [f"{numbers} {names[label]} {int(difficult)}\n" for numbers, label, difficult in objects]
            lines += [
                f"{numbers} {name_of_class} {IGNORED_DIFFICULTY}\n"
                for numbers in _numbers(layout.ignored)
                for name_of_class in names
            ]
            (labels / f"{name}.txt").write_text("".join(lines), "utf-8")
            date, gsd = layout.acquisition.date, layout.acquisition.gsd_m
            if gsd is not None or date is not None:
                meta.mkdir(exist_ok=True)
                text = f"acquisition dates:{date}\nimagesource:{sample.source or None}\ngsd:{gsd}\n"
                (meta / f"{name}.txt").write_text(text.replace("None", "null"), "utf-8")
    return problems


def _numbers(boxes: np.ndarray) -> list[str]:
    """The eight coordinates of each box (N, 5), as text."""
    return [" ".join(map(decimal, row)) for row in geometry.to_corners(boxes).reshape(-1, 8)]
