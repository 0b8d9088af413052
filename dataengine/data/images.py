"""Image files: found by stem, measured by their header, checked for truncation, copied or re-encoded."""

from __future__ import annotations

import os
import shutil
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np

from dataengine.data.layout import Problem, Sample
from dataengine.errors import shown

if TYPE_CHECKING:
    from PIL.Image import Image

LONGEST = 255  # bytes of a file's name that file systems take
LONGEST_PATH = 2048  # of 4096 that Linux takes, with the folder before it
LARGEST = 2**30  # pixels: DOTA 2.0 has scenes of 29,200 x 27,620, which is three quarters of it
FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "TIFF", "WEBP")  # of others, some start programs
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
_ENDS = {"JPEG": b"\xff\xd9", "PNG": b"IEND"}


# whatever Pillow's readers trip over in a file that is broken, or made to break them
BROKEN = (
    OSError, SyntaxError, ValueError, TypeError, IndexError, KeyError, AttributeError, OverflowError, EOFError,
    MemoryError, NotImplementedError, struct.error, zlib.error,
)  # fmt: skip


def opened(path: Path) -> Image:
    """The Pillow image, of which only the header is read. `ValueError` when the file is missing, no image of a known
    format, or says that it has more than 2^30 pixels, which no memory should be asked for."""
    import PIL.Image

    PIL.Image.MAX_IMAGE_PIXELS = None  # LARGEST stands for it: it is more than Pillow takes for an attack
    try:
        image = PIL.Image.open(path, formats=FORMATS)
    except FileNotFoundError:
        raise ValueError("image is missing") from None
    except BROKEN as error:
        raise ValueError(f"image cannot be read ({error})") from None
    width, height = image.size
    if width * height > LARGEST:
        image.close()
        raise ValueError(f"image says that it is {width}x{height}, more than 2^30 pixels; cut it into parts")
    return image


def index_by_stem(folder: Path, problems: list[Problem]) -> dict[str, Path]:
    """Image files below `folder`, keyed by their path without suffix relative to it, '/' as separator.

    Of two images with one name, labels may belong to either: the first is taken, and the other is a problem.
    """
    found: dict[str, Path] = {}
    walked: set[tuple[int, int]] = set()  # links may lead in circles
    for base, folders, files in os.walk(folder, followlinks=True):
        place = os.stat(base)
        if (place.st_dev, place.st_ino) in walked:
            folders.clear()
            continue
        walked.add((place.st_dev, place.st_ino))
        folders[:] = sorted(folder for folder in folders if not folder.startswith("."))
        for file in sorted(files):
            stem, suffix = os.path.splitext(file)
            if suffix.lower() in SUFFIXES:
                path = Path(base, file)
                key = stem if base == str(folder) else (path.parent.relative_to(folder) / stem).as_posix()
                if found.setdefault(key, path) != path:
                    problems.append(Problem(path, None, f"{found[key].name} has the same name; this one is left out"))
    return found


def measure(path: Path) -> tuple[int, int]:
    """(width, height) from the header. `ValueError` when the file is missing, no image, or visibly cut off.

    A JPEG without its end marker or a PNG without its last chunk is decoded in full to make sure, so that
    trailing padding is not called truncation. `check` decodes every image; this costs about 0.1 ms for a sound one.
    """
    with opened(path) as image:
        size, end = image.size, _ENDS.get(image.format or "")
    if end is None:
        return size
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.path.getsize(path) - 64))
            tail = file.read()
    except OSError as error:
        raise ValueError(f"image cannot be read ({error})") from None
    if end not in tail:
        decode(path)
    return size


def load(path: Path) -> Image:
    """The decoded Pillow image, all pixels in memory; `ValueError` when the file is missing, truncated or broken."""
    image = opened(path)
    try:
        image.load()
    except BROKEN as error:
        image.close()
        raise ValueError(f"image cannot be decoded ({error or 'it needs more memory than there is'})") from None
    return image


def decode(path: Path) -> None:
    """Decode every pixel; `ValueError` when the file is truncated or broken."""
    load(path).close()


def place(source: Path, target: Path) -> None:
    """Put an image at `target`: a byte copy when the suffixes agree, else re-encoded by Pillow.

    `ValueError` when the source is missing or cannot be decoded.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    same = {".jpeg": ".jpg", ".tiff": ".tif"}
    old, new = source.suffix.lower(), target.suffix.lower()
    if not source.is_file():
        raise ValueError("image is missing")
    if same.get(old, old) == same.get(new, new):
        shutil.copyfile(source, target)
        return
    image = load(source)
    if new in (".jpg", ".jpeg"):
        image.convert("L" if image.mode in ("1", "L") else "RGB").save(target, quality=95, subsampling=0)
    elif (new == ".bmp" and image.mode not in ("1", "L", "P", "RGB")) or (new == ".png" and image.mode == "CMYK"):
        image.convert("RGB").save(target)
    else:
        image.save(target)


def read_picture(sample: Sample) -> np.ndarray | None:
    """Pixels uint8 (H, W, 3), None where the file cannot be decoded."""
    try:
        with load(sample.image) as file:
            return np.asarray(file.convert("RGB"))
    except ValueError:
        return None


def safe_name(file_name: str) -> str:
    """A sample's name from a file name in an annotation: no suffix, no drive, no `..`, '/' as separator.

    `ValueError` where nothing is left.
    """
    path = PurePosixPath(file_name.replace("\\", "/"))
    parts = [part for part in path.with_suffix("").parts if part not in ("/", "..") and not part.endswith(":")]
    if not parts:
        raise ValueError(f"{shown(file_name)} is no file name")
    return "/".join(parts)


def named_file(root: Path, folders: Sequence[Path], file_name: str) -> Path:
    """The file that an annotation names, in the first of a data set's folders that has it, else in the first.

    `ValueError` when the name leads out of the data set's root: what a stranger's annotation points to elsewhere on
    this machine must not become part of what is written. Links that lie in the folder are followed.
    """
    parts = file_name.split("/")
    lengths = [len(os.fsencode(part)) for part in parts]
    if not file_name or "\0" in file_name or max(lengths) > LONGEST or sum(lengths) + len(parts) > LONGEST_PATH:
        raise ValueError(f"{shown(file_name)} is no file name")
    top = Path(os.path.abspath(root))
    places = [folder / file_name for folder in folders]
    within = [place for place in places if top in Path(os.path.abspath(place)).parents]
    found = next((place for place in within if place.is_file()), None)
    if found is None and places[0] not in within:
        raise ValueError(f"file name {shown(file_name)} leads out of {root}; put the file in there")
    return found or places[0]
