"""Files of a data set, listed once and found by the names that annotations state: one rule for all formats."""

from __future__ import annotations

import copy
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from operator import itemgetter
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from dataengine.errors import shown

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
MAX_NAME_BYTES = 255  # limit of common file systems
MAX_PATH_BYTES = 2048  # half of the limit of Linux, which leaves the other half to the root folder
MAX_SHOWN = 3  # files that a message names
# Folders that are named after the kind of their files, not after a part of the data set
CONTENT_FOLDER = re.compile(
    r"images?|imgs?|jpegimages|allimages|photos?|pictures?|pics?|data|labelxmls?|labeltxt.*|.*reclabeltxt|annfiles"
    r"|(voc|pascal|pascal[-_ ]?voc|xmls?|b?boxes|bounding[-_ ]?boxes|labels?|anns?|annots?|annotations?)"
    r"([-_ ](voc|pascal|pascal[-_ ]?voc|xmls?|b?boxes|labels?|anns?|annots?|annotations?|files))?"
    r"|(oriented|horizontal)[ _]bounding[ _]boxes|fulldataset|obj_\w+_data",
)
_SPLIT, _CONTENT = "(train|val|valid|validation|test)", "(?:images?|imgs?|labels?|labeltxt|annotations?|annfiles|xmls?)"
_CONTENT_OF_SPLIT = re.compile(f"{_SPLIT}[-_ ]{_CONTENT}|{_CONTENT}[-_ ]{_SPLIT}")  # "train-labels" or "images_train"
_DRONEVEHICLE = re.compile(f"{_SPLIT}(?:img|label)(r?)")  # "trainimg" and, for the infrared images, "trainimgr"
_SET_ASIDE = re.compile(  # predictions, and copies that are kept for safety
    r"runs|detect\d*|predict(s|ions?)?\d*|results?|inference|old|.*[-_ ](old|bak|backup)|(old|bak|backup)([-_ ].*)?"
)
_SYSTEM_FOLDERS = frozenset({"__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information"})  # hold no data
_ORDINARY = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_-]{,200}(\.[a-zA-Z0-9]{1,9})?")  # file names that need no care
SPLIT_FOLDER = re.compile(r"(train|val|test)")


def plain_name(text: str) -> str:
    """A file name that any program can read: composed Unicode (NFC); bytes that are no UTF-8 are written as `_xE9`.

    >>> plain_name("Zu\\u0308rich"), plain_name("caf\\udce9")
    ('Zürich', 'caf_xE9')
    """
    text = "".join(f"_x{ord(c) - 0xDC00:02X}" if "\udc80" <= c <= "\udcff" else c for c in text)
    return unicodedata.normalize("NFC", text)


def safe_name(file_name: str) -> str:
    """A sample's name from a file name in an annotation: without suffix, drive and `..`, '/' as separator, readable by
    any program (`plain_name`).

    Raises ValueError if nothing is left.

    >>> safe_name("C:\\\\images\\\\..\\\\a.b.png")
    'images/a.b'
    """
    if _ORDINARY.fullmatch(file_name) and "." in file_name[:-1]:
        return file_name.rpartition(".")[0]
    path = PurePosixPath(plain_name(file_name).replace("\\", "/"))
    parts = [part for part in path.with_suffix("").parts if part not in ("/", "..") and not part.endswith(":")]
    if not parts:
        raise ValueError(f"{shown(file_name)} is not a valid file name")
    return "/".join(parts)


def named_file(root: Path, file_name: str) -> Path:
    """The path of a file below `root`. Raises ValueError if the name leads out of it, so that a damaged file of names
    cannot pull in others. Symbolic links are followed."""
    checked_parts(file_name)
    path = root / file_name
    if Path(os.path.abspath(root)) not in Path(os.path.abspath(path)).parents:
        raise ValueError(f"file name {shown(file_name)} leads out of {root}; move the file into that folder")
    return path


def _parts(name: str) -> tuple[str, ...]:
    """The parts of a path in the form in which they are compared: NFC, lower case, either slash as separator, without
    drive, and without what precedes `..`."""
    if _ORDINARY.fullmatch(name):
        return (name.lower(),)
    if not name.isascii():
        name = unicodedata.normalize("NFC", name)
    parts = name.casefold().replace("\\", "/").split("/")
    kept: list[str] = []
    for part in parts:
        if part == "..":
            kept.clear()
        elif part not in ("", ".") and not part.endswith(":"):
            kept.append(part)
    return tuple(kept)


@lru_cache(4096)
def _context(folders: tuple[str, ...]) -> tuple[str, ...]:
    """What the folders say about the part of the data set."""
    return tuple(filter(None, map(part_of, folders)))


def part_of(folder: str) -> str:
    """The part of the data set that a folder names, "" if it names only its content.

    >>> part_of("labels"), part_of("train"), part_of("images_train"), part_of("val-labels"), part_of("labelTxt-v1.5")
    ('', 'train', 'train', 'val', '')
    >>> part_of("trainimg"), part_of("trainimgr"), part_of("trainlabelr")
    ('train', 'train-infrared', 'train-infrared')
    """
    name = folder.lower()
    if _SET_ASIDE.fullmatch(name):
        return folder
    if split := _CONTENT_OF_SPLIT.fullmatch(name):
        return split[1] or split[2]
    if split := _DRONEVEHICLE.fullmatch(name):
        return split[1] + ("-infrared" if split[2] else "")
    return "" if CONTENT_FOLDER.fullmatch(name) else folder


def _stem(name: str) -> str:
    return name.rpartition(".")[0] if _ORDINARY.fullmatch(name) and "." in name else PurePosixPath(name).stem


def _is_tail(short: tuple[str, ...], long: tuple[str, ...]) -> bool:
    return long[len(long) - len(short) :] == short


def _other_split(a: tuple[str, ...], b: tuple[str, ...]) -> bool:
    """Whether two contexts name different splits, such as train and val."""
    first, second = ({m[1] for part in context if (m := SPLIT_FOLDER.match(part))} for context in (a, b))
    return bool(first and second and not first & second)


def _set_aside(a: tuple[str, ...], b: tuple[str, ...]) -> bool:
    """Whether one of two contexts names predictions or a backup, and the other not the same."""
    first, second = ([part for part in context if _SET_ASIDE.fullmatch(part)] for context in (a, b))
    return first != second


class FileIndex:
    """Files with certain suffixes below `root`, by default images. Hidden files and folders that systems and archivers
    add, such as `__MACOSX`, are not listed; links are followed.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> (folder / "images/train").mkdir(parents=True)
    >>> (folder / "images/train/A.JPG").touch()
    >>> index = FileIndex(folder)
    >>> index.find("train\\\\a.jpg", near=folder / "annotations/train.json").relative_to(folder).as_posix()
    'images/train/A.JPG'
    """

    def __init__(self, root: Path, suffixes: Sequence[str] = IMAGE_SUFFIXES):
        self.root = root
        self._folders: dict[str, tuple[str, ...]] = {}  # parts of folders
        self._index(_walk(root, suffixes))

    def _index(self, files: Sequence[Path]) -> None:
        self.files = list(files)
        self._by_stem: dict[str, list[tuple[tuple[str, ...], Path]]] = {}
        for file in self.files:
            parts = self.parts(file)
            self._by_stem.setdefault(_stem(parts[-1]), []).append((parts, file))

    def only(self, files: Sequence[Path]) -> FileIndex:
        """An index of some of the files."""
        chosen = copy.copy(self)
        chosen._index(files)
        return chosen

    def parts(self, file: Path) -> tuple[str, ...]:
        """The path of a file from the root, in the form in which paths are compared."""
        folder, name = os.path.split(file)
        if "\\" in name or name == "..":
            return _parts(os.path.relpath(file, self.root))
        parts = self._folders.get(folder)
        if parts is None:
            parts = self._folders[folder] = _parts(os.path.relpath(folder or ".", self.root))
        return (*parts, *_parts(name))

    def find(self, name: str, near: Path, split: str = "") -> Path:
        """The file that `name` means: with its suffix if it states one of an image, otherwise with any suffix.

        Case, kind of slash, and form of Unicode do not matter. Of several files with that name, the one is taken that
        lies in the folder corresponding to `near`, the file that states the name: the same path, apart from folders
        such as `images` and `labels`, and with or without the split as a folder.
        Raises ValueError if there is none below the root, or if several fit.
        """
        if "://" in name:  # a picture on a server, of which there is a copy
            name = unquote(urlsplit(name).path)
        stated = checked_parts(name)
        stem, suffix = os.path.splitext(stated[-1])
        if suffix not in IMAGE_SUFFIXES:
            stem, suffix = stated[-1], ""
        same_name = [
            (parts, file)
            for parts, file in self._by_stem.get(stem, ())
            if not suffix or os.path.splitext(parts[-1])[1] == suffix
        ]
        folders = _context(stated[:-1])
        fitting = [
            (context, file)
            for context, file in ((_context(parts[:-1]), file) for parts, file in same_name)
            if _is_tail(folders, context) or _is_tail(context, folders)
        ]
        here = _context(self.parts(near)[:-1])
        wanted = [(*here, *_parts(split)), here] if split else [here]
        for place in wanted:
            exact = [file for context, file in fitting if context in (place, (*place, *folders))]
            if len(exact) == 1:
                return exact[0]
            if exact:
                raise ValueError(
                    f"image {shown(name)} may be {_listed(exact, self.root)}; rename or remove all but one"
                )
        possible = [file for context, file in fitting if not _other_split(context, wanted[0])]
        if len(possible) == 1:
            return possible[0]
        if possible:
            raise ValueError(f"image {shown(name)} may be {_listed(possible, self.root)}; state its folder")
        aim = os.path.abspath(near.parent / name)
        if (os.path.isabs(name) or ".." in name) and Path(os.path.abspath(self.root)) not in Path(aim).parents:
            raise ValueError(f"file name {shown(name)} leads out of {self.root}; move the file into that folder")
        others = [file for _, file in same_name]
        hint = f"; {_listed(others, self.root)} has another folder" if others else ""
        raise ValueError(f"image {shown(name)} is missing: no such file below {self.root}{hint}")


def checked_parts(name: str) -> tuple[str, ...]:
    """The parts of a file name from an annotation, in the form in which they are compared. Raises ValueError if it is
    empty, too long for a file system, or has a zero byte."""
    if _ORDINARY.fullmatch(name):
        return (name.lower(),)
    encoded = os.fsencode(name)
    too_long = len(encoded) >= MAX_PATH_BYTES or max(map(len, encoded.split(b"/"))) > MAX_NAME_BYTES
    parts = _parts(name)
    if not parts or "\0" in name or too_long:
        raise ValueError(f"{shown(name)} is not a valid file name")
    return parts


def _walk(root: Path, suffixes: Sequence[str]) -> list[Path]:
    """The files, sorted by their parts."""
    visited: set[tuple[int, int]] = set()  # links may form cycles
    found: list[tuple[tuple[str, ...], Path, str]] = []
    for base, folders, files in os.walk(root, followlinks=True):
        status = os.stat(base)
        if (status.st_dev, status.st_ino) in visited:
            folders.clear()
            continue
        visited.add((status.st_dev, status.st_ino))
        folders[:] = sorted(folder for folder in folders if folder[0] != "." and folder not in _SYSTEM_FOLDERS)
        names = [file for file in files if file[0] != "." and os.path.splitext(file)[1].lower() in suffixes]
        folder = Path(base)
        found += [((*folder.parts, name), folder, name) for name in names]
    return [folder / name for _, folder, name in sorted(found, key=itemgetter(0))]


def _listed(files: Sequence[Path], root: Path) -> str:
    names = [os.path.relpath(file, root) for file in files[:MAX_SHOWN]]
    return " or ".join(names) + (f" or {len(files) - MAX_SHOWN} more" if len(files) > MAX_SHOWN else "")


def matched(files: Sequence[Path], index: FileIndex) -> dict[Path, Path | str]:
    """For each of `files`, the file of `index` that belongs to it, or the reason why there is none.

    Label and image belong together if they have the same name without suffix and corresponding folders (`find`). What
    is left on both sides is matched by name alone, if that is unambiguous, but never with predictions or a backup.
    """
    own = {file: index.parts(file) for file in files}
    stems = {file: _stem(parts[-1]) for file, parts in own.items()}
    contexts = {file: _context(parts[:-1]) for file, parts in own.items()}
    near: dict[Path, list[Path]] = {}  # of each file, those of the index in the corresponding folder
    claims: Counter[Path] = Counter()
    for file in files:
        same = index._by_stem.get(stems[file], ())
        exact = [other for found, other in same if _context(found[:-1]) == contexts[file]]
        beside = [other for other in exact if other.parent == file.parent]
        near[file] = beside if len(exact) > 1 and len(beside) == 1 else exact
        claims.update(near[file])
    left = Counter(stems[file] for file in files if not near[file])
    result: dict[Path, Path | str] = {}
    for file in files:
        possible = near[file]
        if not possible:
            same = index._by_stem.get(stems[file], ())
            possible = [
                other
                for found, other in same
                if other not in claims
                and not _other_split(context := _context(found[:-1]), contexts[file])
                and not _set_aside(context, contexts[file])
            ]
            claims.update(dict.fromkeys(possible, left[stems[file]]))
        if len(possible) == 1 and claims[possible[0]] == 1:
            result[file] = possible[0]
        elif len(possible) == 1:
            result[file] = f"{_listed(possible, index.root)} may belong to other files too; give each a name of its own"
        elif possible:
            result[file] = f"{file.name} may belong to {_listed(possible, index.root)}; rename or remove all but one"
        else:
            result[file] = f"image is missing: there is no {stems[file]}.* in the corresponding folder"
    return result
