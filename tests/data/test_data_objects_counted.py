"""No object disappears without a word: for every reader, objects in the files = objects read + objects reported."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from dataengine.data import formats
from dataengine.data.file_index import FileIndex
from dataengine.data.records import NothingUsable
from dataengine.errors import UserError

BOXES = [[(60, 70, 40, 12, 0.4), (120, 80, 30, 20, -0.2)], [(100, 60, 50, 14, 1.0)], [(40, 40, 30, 10, 0.2)] * 3]
OBJECTS = sum(map(len, BOXES))
TEXTS = (".txt", ".json", ".xml", ".csv")


def _labels(root: Path) -> list[Path]:
    """Files that state a number with decimals, or a coordinate, sorted."""
    return [file for file in FileIndex(root, TEXTS).files if re.search(r"\d\d", file.read_text("utf-8"))]


def _images(root: Path) -> list[Path]:
    return FileIndex(root).files


def nothing(root: Path) -> None:
    pass


def an_image_is_missing(root: Path) -> None:
    _images(root)[0].unlink()


def an_image_is_cut_off(root: Path) -> None:
    file = _images(root)[1]
    file.write_bytes(file.read_bytes()[:200])


def an_image_has_a_twin(root: Path) -> None:
    file = _images(root)[0]
    shutil.copy(file, file.with_suffix(".jpg" if file.suffix != ".jpg" else ".png"))


def names_are_in_upper_case(root: Path) -> None:
    for file in _images(root):
        file.rename(file.with_name(file.name.upper()))


def images_are_in_a_folder_below(root: Path) -> None:
    for file in _images(root):
        (file.parent / "part1").mkdir(exist_ok=True)
        file.rename(file.parent / "part1" / file.name)


def images_are_elsewhere(root: Path) -> None:
    for file in _images(root):
        (root / "jpegs" / "flight 7").mkdir(parents=True, exist_ok=True)
        file.rename(root / "jpegs" / "flight 7" / file.name)


def a_number_is_no_number(root: Path) -> None:
    file = _labels(root)[0]
    numbers = (
        r"(?s)(annotations.*?)(?<=[\s>\[])\d+\.?\d*" if file.suffix == ".json" else r"(?s)(()\b|mbox_cx>)\d\d+\.\d+"
    )
    file.write_text(re.sub(numbers, r"\1Infinity", file.read_text("utf-8"), count=1), "utf-8")


def a_class_is_unknown(root: Path) -> None:
    for file in _labels(root):
        text = file.read_text("utf-8")
        changed = text.replace("plane", "zeppelin", 1) if file.suffix != ".json" else text
        file.write_text(changed, "utf-8")


def a_label_file_is_in_another_encoding(root: Path) -> None:
    file = _labels(root)[0]
    file.write_bytes(file.read_bytes().rstrip() + b" \xb4\xac\n")


def the_labels_are_in_a_folder_of_another_name(root: Path) -> None:
    for name in ("labelTxt", "labels", "annotations", "Annotations"):
        for folder in [*root.glob(f"**/{name}")]:
            folder.rename(folder.with_name("annos"))


CHANGES = [
    nothing, an_image_is_missing, an_image_is_cut_off, an_image_has_a_twin, names_are_in_upper_case,
    images_are_in_a_folder_below, images_are_elsewhere, a_number_is_no_number, a_class_is_unknown,
    a_label_file_is_in_another_encoding, the_labels_are_in_a_folder_of_another_name,
]  # fmt: skip
READ_IN_FULL = {nothing, names_are_in_upper_case, images_are_in_a_folder_below}


def _counted(root: Path, format: str) -> tuple[int, int]:
    """(objects read, objects reported)."""
    try:
        dataset = formats.read(root, format, classes=("plane", "large ship", "Car"))
    except NothingUsable as error:
        return 0, sum(problem.objects for problem in error.problems)
    read = sum(len(sample.layout) + len(sample.layout.ignored) for sample in dataset)
    return read, sum(problem.objects for problem in dataset.problems)


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
@pytest.mark.parametrize("format", formats.WRITTEN)
def test_every_object_is_read_or_reported(format: str, change: Callable[[Path], None], make_dataset, tmp_path):
    root = tmp_path / "out"
    formats.write(make_dataset(tmp_path / "in", BOXES), root, format)
    change(root)
    try:
        read, reported = _counted(root, format)
    except UserError as error:
        message = str(error)
    else:
        message, counted = "", read + reported
    if message:  # the data set is refused as a whole
        assert str(root) in message
        assert change not in READ_IN_FULL
        return
    assert counted == OBJECTS
    if change in READ_IN_FULL:
        assert read == OBJECTS


def test_an_object_that_a_reader_drops_silently_is_noticed(make_dataset, tmp_path, monkeypatch):
    """The test above is red if a reader counts nothing: here, DOTA lines are dropped without a problem."""
    from dataengine.data import dota

    formats.write(make_dataset(tmp_path / "in", BOXES), tmp_path / "out", "dota")
    monkeypatch.setattr(dota, "Problem", lambda *fields: __import__("dataengine").data.layout.Problem(*fields[:3]))
    a_number_is_no_number(tmp_path / "out")
    assert sum(_counted(tmp_path / "out", "dota")) == OBJECTS - 1
