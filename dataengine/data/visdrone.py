"""VisDrone-DET text: horizontal boxes from drones, each line with eight numbers separated by commas.

`left, top, width, height, score, category, truncation, occlusion`, in continuous pixels without shift, as Ultralytics'
converter reads them. By VisDrone's toolkit, category 0 is an ignored region, and so is any object with score 0; 1 to 11
are pedestrian, people, bicycle, car, van, truck, tricycle, awning-tricycle, bus, motor and others. Truncation and
occlusion do not change a box, and evaluation counts these objects like others, so both are left out.
Read: `annotations/*.txt` next to `images/`, at the root or in a folder for each split (`VisDrone2019-DET-train/`).
Lines with ten numbers are of the video tasks and are reported. The format is read, not written.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dataengine.data.file_index import FileIndex
from dataengine.data.label_files import (
    LabelFile,
    find_label_files,
    image_root,
    images_without_labels,
    of_split,
    split_names,
)
from dataengine.data.layout import Dataset, Problem
from dataengine.data.objects import Objects, record_of_lines, upright_box
from dataengine.data.parse import number
from dataengine.data.records import Record, assemble
from dataengine.errors import UserError

NAME = "visdrone"
CLASSES = (
    "pedestrian", "people", "bicycle", "car", "van", "truck", "tricycle", "awning-tricycle", "bus", "motor", "others",
)  # fmt: skip
IGNORED_CATEGORY = 0
NUMBERS = 8


def recognizes(file: Path, head: str) -> bool:
    """Whether a file, of which `head` are the first 100,000 characters, has labels of this format."""
    if file.suffix.lower() != ".txt":
        return False
    lines = [line for line in head.splitlines()[:20] if line.strip()]
    return bool(lines) and all(_is_label(line) for line in lines)


def _is_label(line: str) -> bool:
    """Whether a line has eight whole numbers separated by commas, the last four in the ranges of this format."""
    fields = line.strip().rstrip(",").split(",")
    if len(fields) != NUMBERS or not all(field.strip().lstrip("-").isdigit() for field in fields):
        return False
    score, category, truncation, occlusion = map(int, fields[4:])
    return score in (0, 1) and 0 <= category <= len(CLASSES) and truncation in (-1, 0, 1) and -1 <= occlusion <= 2


def splits(path: Path) -> tuple[str, ...]:
    """Names of the splits of a data set, given its root."""
    return split_names(_label_files(path))


def _label_files(path: Path) -> list[LabelFile]:
    files = find_label_files(path, (".txt",))
    below = [file for file in files if file.path.parent.name.lower() == "annotations"]
    return below or files


def read(path: str | Path, *, split: str | None = None, classes: Sequence[str] | None = None) -> Dataset:
    """Read a data set from its root. `split=None` reads all splits.

    Raises UserError if the path or the split is missing or no image is usable. Smaller faults are listed in
    `Dataset.problems`.
    """
    path = Path(path)
    if not path.is_dir():
        raise UserError(f"{path} is not a folder; give the VisDrone folder with images/ and annotations/")
    index = FileIndex(image_root(path))
    problems: list[Problem] = []
    records: list[Record] = []
    for file in of_split(_label_files(path), split, path):
        records += record_of_lines(file, index, problems, lambda _: _add)
    if split is None:
        problems += images_without_labels(index, records, path)
    known = (CLASSES[:-1], CLASSES)  # "others" is a class only where it has objects
    return assemble(records, path, format=NAME, kind="hbb", classes=classes, known=known, problems=problems)


def _add(objects: Objects, fields: list[str], line: int) -> None:
    if len(fields) != NUMBERS:
        what = "; lines of the video tasks are not read" if len(fields) == NUMBERS + 2 else ""
        raise ValueError(f"the line has {len(fields)} numbers, not {NUMBERS}{what}")
    left, top, width, height, score, category = (number(value, "number") for value in fields[:6])
    box = upright_box(left, top, left + width, top + height)
    if category not in range(len(CLASSES) + 1):
        raise ValueError(f"category {category:g} is unknown; VisDrone has 0 to {len(CLASSES)}")
    ignored = score == 0 or category == IGNORED_CATEGORY
    objects.add(CLASSES[int(category) - 1], box, flags={"ignored": ignored}, line=line)
