"""What the XML formats share: annotation files with objects, and lists of image names for the splits."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from xml.etree.ElementTree import Element, ElementTree, SubElement, indent

import numpy as np

from dataengine.data.file_index import IMAGE_SUFFIXES, FileIndex, matched, safe_name
from dataengine.data.label_files import LabelFile, images_without_labels, label_file, of_split, split_names
from dataengine.data.layout import Problem
from dataengine.data.objects import DIFFICULT, IGNORED
from dataengine.data.parse import MAX_LABEL_BYTES, flag, load_xml
from dataengine.data.records import NOTHING_READ, Record
from dataengine.errors import UserError
from dataengine.files import MAX_TEXT_BYTES, read_bytes, read_text

DIFFICULT_TAGS = DIFFICULT | {"hard"}  # names of elements, in any case


def read_record(
    path: Path, problems: list[Problem], *, tag: str, parse_object: Callable[[Element], tuple[str, list[float]]]
) -> tuple[Record, Element] | None:
    """The record and root element of a file, None if it is invalid. `record.boxes` has the numbers of the objects,
    float64 (N, K), and `record.ignored` those of ignored regions (M, K), which the format converts to boxes. Objects
    for which `parse_object` raises ValueError become problems.

    tag:          name of the elements that are objects.
    parse_object: element -> (class name, K numbers).
    """
    try:
        root = load_xml(path)
    except ValueError as error:
        problems.append(Problem(path, None, f"{error}; the file is skipped", _count(path, tag)))
        return None
    record = Record(safe_name(path.name), None, path, boxes=[], difficult=[], lines=[], ignored=[], size=_size(root))
    elements = list(root.iter(tag))
    others = [element for element in root.iter() if element.tag != tag and element.tag.lower() == tag.lower()]
    if others:
        what = f"has <{others[0].tag}> for <{tag}>, so its objects cannot be read; the file and its image are skipped"
        problems.append(Problem(path, None, what, len(others) + len(elements)))
        return None
    numbers, skipped = _lines(path, tag) if elements else [], 0
    for i, element in enumerate(elements):
        line = numbers[i] if i < len(numbers) else None
        try:
            name, row = parse_object(element)
        except ValueError as error:
            problems.append(Problem(path, line, f"{error}; the object is skipped", 1))
            skipped += 1
            continue
        if flag_of(element, IGNORED):
            record.ignored.append(row)
            continue
        record.names.append(name)
        record.boxes.append(row)
        record.difficult.append(flag_of(element, DIFFICULT_TAGS))
        record.lines.append(line)
    if skipped and not record.names and not record.ignored:
        record.fault = NOTHING_READ
    record.boxes, record.ignored = np.array(record.boxes, np.float64), np.array(record.ignored, np.float64)
    return record, root


def flag_of(element: Element, names: frozenset[str]) -> bool:
    """Whether a child element with one of these names, in any case, or such an attribute of CVAT is set."""
    stated = [(child.tag, child.text) for child in element]
    stated += [
        (each.findtext("name") or "", each.findtext("value")) for each in element.iterfind("attributes/attribute")
    ]
    return any(name.strip().lower() in names and flag(value) for name, value in stated)


def _count(path: Path, tag: str) -> int:
    try:
        return len(re.findall(rf"<{tag}[\s>]".encode(), read_bytes(path, MAX_LABEL_BYTES)))
    except OSError:
        return 0


def _lines(path: Path, tag: str) -> list[int]:
    """Line number of each opening `tag`, which ElementTree does not provide."""
    lines, position, number = [], 0, 1
    content = read_bytes(path, MAX_LABEL_BYTES)
    for match in re.finditer(rf"<{tag}[\s>]".encode(), content):
        number += content.count(b"\n", position, match.start())
        position = match.start()
        lines.append(number)
    return lines


def _size(root: Element) -> tuple[int, int] | None:
    try:
        width, height = (int(float(root.findtext(f"size/{side}") or 0)) for side in ("width", "height"))
    except (ValueError, OverflowError):  # the second for "inf"
        return None
    return (width, height) if width > 0 and height > 0 else None


def image_lists(root: Path) -> dict[str, Path]:
    """{split: file with image names}: `ImageSets/Main/*.txt`, `ImageSets/*.txt` or `Main/*.txt`."""
    for folder in (root / "ImageSets" / "Main", root / "ImageSets", root / "Main"):
        lists = {file.stem: file for file in sorted(folder.glob("*.txt")) if _is_list(file)}
        if lists:
            return lists
    return {}


def _is_list(file: Path) -> bool:
    """Whether a file lists a split. VOC's `dog_train.txt` lists a class: it has a second column with 1 or -1."""
    lines = read_text(file, MAX_TEXT_BYTES).splitlines()
    return not lines or len(lines[0].split()) <= 1


def save_xml(root: Element, path: Path) -> None:
    """Write indented UTF-8 XML."""
    path.parent.mkdir(parents=True, exist_ok=True)
    indent(root)
    ElementTree(root).write(path, encoding="utf-8")


def fill(parent: Element, **fields: object) -> Element:
    """Append child elements with text to `parent` and return it."""
    for field, value in fields.items():
        SubElement(parent, field).text = str(value)
    return parent


def read_records(
    path: Path,
    split: str | None,
    problems: list[Problem],
    *,
    tag: str,
    parse_object: Callable[[Element], tuple[str, list[float]]],
    folder: Path | None = None,
) -> list[tuple[Record, Element]]:
    """Records with their images, and root elements, of the XML files below `path`, or below `folder` in it.

    Splits are those of `image_lists`, or else the folders that are not named for their content, such as `train` in
    `train/Annotations/`. Raises UserError for an unknown split, and if there are no XML files.
    """
    index, files = FileIndex(path), FileIndex(folder or path, (".xml",))
    if not files.files:
        raise UserError(f"{folder or path} has no XML files; give the folder with the annotations")
    images_of = matched(files.files, index)
    results: list[tuple[Record, Element]] = []
    unread: list[Record] = []
    for label in _of_split(path, files, split, problems):
        name = safe_name(label.folder + label.path.name)
        result = read_record(label.path, problems, tag=tag, parse_object=parse_object)
        if result is None:
            unread.append(Record(name, None, label.path))
            continue
        record, root = result
        image = images_of[label.path]
        if not isinstance(image, Path):
            image = _by_stated_name(root, index, label.path) or image
        record.name, record.split = name, label.split
        if isinstance(image, str) or not record.fault:
            record.image, record.fault = (image, "") if isinstance(image, Path) else (None, image)
        results.append(result)
    if split is None:
        problems += images_without_labels(index, [*(record for record, _ in results), *unread], path)
    return results


def _by_stated_name(root: Element, index: FileIndex, file: Path) -> Path | None:
    stated = (root.findtext("filename") or "").strip()
    try:
        return index.find(stated, near=file)
    except ValueError:
        return None


def _of_split(path: Path, files: FileIndex, split: str | None, problems: list[Problem]) -> list[LabelFile]:
    """The annotation files to read. Where lists state the splits, a file by itself has none."""
    labels = [label_file(path, file) for file in files.files]
    lists = image_lists(path)
    if not lists:
        return of_split(labels, split, path)
    labels = [replace(label, split="", folder=f"{label.split}/{label.folder}".lstrip("/")) for label in labels]
    if split is None:
        return labels
    if split not in lists:
        raise UserError(f"{path} has no split {split!r}; it has {', '.join(lists)}")
    listed = set(_listed(lists[split], files, problems))
    return [label for label in labels if label.path in listed]


def _listed(image_list: Path, files: FileIndex, problems: list[Problem]) -> list[Path]:
    """The annotation files of the images in a list, which may state suffixes and folders."""
    found = []
    for line, text in enumerate(read_text(image_list, MAX_TEXT_BYTES).splitlines(), 1):
        name = text.strip()
        if not name:
            continue
        stem, suffix = os.path.splitext(name)
        try:
            found.append(files.find(stem if suffix.lower() in (*IMAGE_SUFFIXES, ".xml") else name, near=image_list))
        except ValueError as error:
            message = str(error).replace("image", "annotation", 1)
            problems.append(Problem(image_list, line, f"{message}; the image is skipped"))
    return found


def find_splits(path: Path, folder: Path | None = None) -> tuple[str, ...]:
    """Names of the splits that `read_records` finds, given the root of a data set."""
    lists = image_lists(path)
    if lists:
        return tuple(lists)
    files = FileIndex(folder or path, (".xml",)).files
    return split_names(label_file(path, file) for file in files)


def write_list(root: Path, split: str, names: Sequence[str]) -> None:
    """Write `ImageSets/Main/<split>.txt`, one image name without suffix a line."""
    file = root / "ImageSets" / "Main" / f"{split}.txt"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(f"{name}\n" for name in names), "utf-8")
