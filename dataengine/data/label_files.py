"""Formats with label files for each image: which files there are, and what their folders and names say."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from dataengine.data.file_index import FileIndex, part_of, safe_name
from dataengine.data.layout import Problem
from dataengine.data.records import Record
from dataengine.errors import UserError
from dataengine.files import open_regular

_SPLIT_WORD = re.compile(r"(?:^|[-_. ])(train|val|validation|test)(?=$|[-_. ])", re.IGNORECASE)
HEAD_BYTES = 100_000
MAX_LINE_CHARACTERS = 1_000_000  # of a label file; an object has a few hundred
SAMPLED_FILES = 5  # of a folder, by which its format is recognised


@dataclass(frozen=True)
class LabelFile:
    """A file with labels. split: the part of the data set, "" if there are no parts. folder: "" or the folders below
    it that distinguish images of the same name, with "/" at the end."""

    path: Path
    split: str
    folder: str


def image_root(path: Path) -> Path:
    """The folder whose images may be used: the one that the user named, or that of the annotation file."""
    if path.is_dir():
        return path
    name = path.parent.name.lower()
    return path.parent.parent if name in ("annotations", "labels") or name.endswith("_labels") else path.parent


def find_label_files(path: Path, suffixes: Sequence[str]) -> list[LabelFile]:
    """The files with these suffixes below a folder, or the one file that `path` is.

    Folders that say what their files are, such as `labels`, do not count. Of the others, the first that has the word
    train, val, validation or test names the split; without such a word, the first.
    """
    root = image_root(path)
    files = [path] if path.is_file() else FileIndex(path, suffixes).files
    return [label_file(root, file) for file in files]


def label_file(root: Path, file: Path) -> LabelFile:
    """A label file below `root` with its split, see `find_label_files`."""
    return LabelFile(file, *_split_and_folder(file.relative_to(root).parts[:-1]))


def _split_and_folder(folders: Sequence[str]) -> tuple[str, str]:
    """
    >>> _split_and_folder(("VisDrone2019-DET-train", "annotations"))
    ('train', '')
    >>> _split_and_folder(("validation", "part1", "labelXml"))
    ('validation', 'part1/')
    """
    named = list(filter(None, map(part_of, folders)))
    words = [_SPLIT_WORD.search(folder) for folder in named]
    at = next((i for i, word in enumerate(words) if word), 0)
    if not named:
        return "", ""
    word = words[at]
    rest = named[:at] + named[at + 1 :]
    return word[1].lower() if word else named[at], "".join(f"{folder}/" for folder in rest)


def split_word(name: str) -> str:
    """The word train, val, validation or test in a name, "" without one.

    >>> split_word("train_labels"), split_word("boxes"), split_word("trains")
    ('train', '', '')
    """
    word = _SPLIT_WORD.search(name)
    return word[1].lower() if word else ""


def of_split(files: Sequence[LabelFile], split: str | None, path: Path) -> list[LabelFile]:
    """The files of a split, all for None. Raises UserError if there is no such split."""
    if split is None:
        return list(files)
    chosen = [file for file in files if file.split == split]
    if not chosen:
        raise UserError(f"{path} has no split {split!r}; it has {', '.join(split_names(files)) or 'none'}")
    return chosen


def recognised_splits(files: Iterable[LabelFile], recognizes: Callable[[Path, str], bool]) -> tuple[str, ...]:
    """The splits of label files in which one of the first files is recognised; other folders have stray files."""
    first: dict[str, list[LabelFile]] = {}
    for file in files:
        if file.split and len(first.setdefault(file.split, [])) < SAMPLED_FILES:
            first[file.split].append(file)
    return tuple(
        sorted(name for name, some in first.items() if any(recognizes(file.path, head_of(file.path)) for file in some))
    )


def split_names(files: Iterable[LabelFile]) -> tuple[str, ...]:
    """The splits of label files, in alphabetical order."""
    return tuple(sorted({file.split for file in files} - {""}))


def place_record(record: Record, file: LabelFile, index: FileIndex, stated: str) -> Record:
    """The record of a label file with its image, which the file states by the name `stated`, and with its own name.

    If the image cannot be found, the record has the reason as its fault; a record with a fault has no image.
    """
    record.split = file.split
    try:
        image = index.find(stated, near=file.path, split=file.split)
    except ValueError as error:
        record.name, record.fault = PurePosixPath(stated.replace("\\", "/")).stem, str(error)
        return record
    record.name = safe_name(file.folder + image.name)
    record.image = None if record.fault else image
    return record


def images_without_labels(index: FileIndex, records: Iterable[Record], path: Path) -> list[Problem]:
    """One problem with the number of images without labels that lie in the same folders as labelled ones: nothing says
    that they are empty."""
    records = list(records)
    used = {record.image for record in records if record.image is not None}
    unclear = {PurePosixPath(record.name).name for record in records if record.image is None}
    folders = {image.parent for image in used}
    left = [f for f in index.files if f not in used and f.parent in folders and f.stem not in unclear]
    if not left:
        return []
    first = left[0].relative_to(index.root)
    if len(left) == 1:
        what = f"image {first} has no labels, so it is not used; nothing says that it is empty"
    else:
        what = (
            f"{len(left)} images, the first of them {first}, have no labels, so they are not used; nothing says that "
            "they are empty"
        )
    return [Problem(path, None, what, 0)]


def head_of(file: Path) -> str:
    """The first 100,000 bytes of a file as text, by which formats are recognised. Raises UserError for what is no file
    or cannot be opened."""
    try:
        with open_regular(file) as stream:
            head = stream.read(HEAD_BYTES)
    except OSError as error:
        raise UserError(f"{file} cannot be read ({error.strerror}); remove it or mend its permissions.") from None
    return head.decode("utf-8", "replace").replace("\r\n", "\n").replace("\r", "\n")


def count_of(file: Path, word: str) -> int:
    """How often a word is in a file that cannot be read otherwise: about the number of its objects."""
    wanted, found, kept = word.encode(), 0, b""
    try:
        with open_regular(file) as stream:
            while chunk := stream.read(2**20):
                found += (kept + chunk).count(wanted)
                kept = (kept + chunk)[-len(wanted) + 1 :]
    except OSError:
        return 0
    return found


def columns(line: str) -> list[str]:
    """The columns of a line, separated by commas or white space; a separator at the end does not count. Raises
    ValueError for a line of more than a million characters.

    >>> columns("684,8,273,116,0,0,0,0,")
    ['684', '8', '273', '116', '0', '0', '0', '0']
    """
    if len(line) > MAX_LINE_CHARACTERS:
        raise ValueError(f"the line has {len(line):,} characters, more than {MAX_LINE_CHARACTERS:,}")
    return line.replace(",", " ").split()
