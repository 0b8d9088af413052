"""What the XML formats share: annotation files with objects, and lists of image names for the splits."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from xml.etree.ElementTree import Element, ElementTree, SubElement, indent

import numpy as np

from dataengine.data import images
from dataengine.data.layout import Problem
from dataengine.data.parse import flag, load_xml
from dataengine.data.records import Record
from dataengine.errors import UserError
from dataengine.files import read_text


def read_record(
    path: Path,
    problems: list[Problem],
    *,
    tag: str,
    parse_object: Callable[[Element], tuple[str, list[float]]],
    to_boxes: Callable[[np.ndarray], np.ndarray],
) -> tuple[Record, Element] | None:
    """The record and root element of a file, None if it is invalid. Objects for which `parse_object` raises ValueError
    become problems.

    tag:          name of the elements that are objects.
    parse_object: element -> (class name, K numbers).
    to_boxes:     numbers of all objects, float64 (N, K) -> le90 boxes (N, 5).
    """
    try:
        root = load_xml(path)
    except ValueError as error:
        problems.append(Problem(path, None, f"{error}; the file is skipped"))
        return None
    names, values, difficult, lines = [], [], [], []
    elements = list(root.iter(tag))
    numbers = _lines(path, tag) if elements else []
    for i, element in enumerate(elements):
        line = numbers[i] if i < len(numbers) else None
        try:
            name, row = parse_object(element)
        except ValueError as error:
            problems.append(Problem(path, line, f"{error}; the object is skipped"))
            continue
        names.append(name)
        values.append(row)
        difficult.append(flag(element.findtext("difficult")))
        lines.append(line)
    boxes = to_boxes(np.array(values, np.float64)) if values else ()
    record = Record(path.stem, path, path, names, boxes, difficult, lines, size=_size(root))
    return record, root


def _lines(path: Path, tag: str) -> list[int]:
    """Line number of each opening `tag`, which ElementTree does not provide."""
    lines, position, number = [], 0, 1
    content = path.read_bytes()
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
    lines = read_text(file).splitlines()
    return not lines or len(lines[0].split()) <= 1


def annotation_files(root: Path, folder: Path, split: str | None, problems: list[Problem]) -> list[Path]:
    """XML files of a split in `folder`, all files for None. Raises UserError for an unknown split."""
    if split is None:
        return sorted(folder.glob("*.xml"))
    lists = image_lists(root)
    if split not in lists:
        raise UserError(f"{root} has no split {split!r}; it has {', '.join(lists) or 'none'}")
    files = []
    for number, line in enumerate(read_text(lists[split]).splitlines(), 1):
        name = line.strip().removesuffix(".jpg").removesuffix(".xml")
        if name and Path(name).name != name:
            problems.append(Problem(lists[split], number, f"{name!r} is a path, not the name of an image"))
        elif name and not (folder / f"{name}.xml").is_file():
            problems.append(Problem(lists[split], number, f"image {name!r} has no annotation in {folder}"))
        elif name:
            files.append(folder / f"{name}.xml")
    return files


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


def find_pairs(
    path: Path, split: str | None, problems: list[Problem], folders: Sequence[str] = ("Annotations",)
) -> list[tuple[Path, Path, str]]:
    """(annotation, image, split) of every image below `path`.

    Either the first existing one of `folders` has the annotations, sibling folders with names like `JPEGImages` have
    the images, and `image_lists` the splits; or annotations are next to their images, in `path` or a folder for each
    split. An annotation without an image is paired with the expected path of the image.
    """
    folder = next((path / name for name in folders if (path / name).is_dir()), None)
    if folder is not None and any(folder.glob("*.xml")):
        available: dict[str, Path] = {}
        for sibling in sorted(path.iterdir()):
            if sibling.is_dir() and re.match(r"jpegimages|images|allimages", sibling.name.lower()):
                available |= {Path(key).name: image for key, image in images.index_by_stem(sibling, problems).items()}
        files = annotation_files(path, folder, split, problems)
        return [(file, available.get(file.stem, path / "JPEGImages" / f"{file.stem}.jpg"), "") for file in files]
    parts = {"": path} if any(path.glob("*.xml")) else {p.parent.name: p.parent for p in sorted(path.glob("*/*.xml"))}
    if folder is not None:  # annotations/<split>/ next to images/<split>/
        parts = {p.parent.name: p.parent for p in sorted(folder.glob("*/*.xml"))}
    if split is not None:
        if split not in parts:
            raise UserError(f"{path} has no split {split!r}; it has {', '.join(filter(None, parts)) or 'none'}")
        parts = {split: parts[split]}
    pairs = []
    for name, part in parts.items():
        image_folder = path / "images" / name if folder is not None else part
        available = images.index_by_stem(image_folder, problems)
        pairs += [(f, available.get(f.stem, image_folder / f"{f.stem}.jpg"), name) for f in sorted(part.glob("*.xml"))]
    return pairs


def find_splits(path: Path, folders: Sequence[str] = ("Annotations",)) -> tuple[str, ...]:
    """Names of the splits that `find_pairs` finds, given the root of a data set."""
    if image_lists(path):
        return tuple(image_lists(path))
    folder = next((path / name for name in folders if (path / name).is_dir()), path)
    return tuple(sorted({file.parent.name for file in folder.glob("*/*.xml")}))


def write_list(root: Path, split: str, names: Sequence[str]) -> None:
    """Write `ImageSets/Main/<split>.txt`, one image name without suffix a line."""
    file = root / "ImageSets" / "Main" / f"{split}.txt"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(f"{name}\n" for name in names), "utf-8")
