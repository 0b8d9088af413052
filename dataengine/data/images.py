"""Image files: finding, measuring, decoding and copying them; every failure is a `ValueError` with the reason."""

from __future__ import annotations

import os
import shutil
import struct
import zlib
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np

from dataengine.data.file_index import IMAGE_SUFFIXES, checked_parts, plain_name
from dataengine.data.layout import Sample
from dataengine.errors import shown

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_PIXELS = 2**30  # the largest images of DOTA 2.0, 29,200 x 27,620, have three quarters of it
FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "TIFF", "WEBP")  # some decoders of other formats start programs
SUFFIXES = IMAGE_SUFFIXES
_END_MARKERS = {"JPEG": b"\xff\xd9", "PNG": b"IEND"}


# exceptions of Pillow's readers for broken or malicious files
DECODING_ERRORS = (
    OSError, SyntaxError, ValueError, TypeError, IndexError, KeyError, AttributeError, OverflowError, EOFError,
    MemoryError, NotImplementedError, struct.error, zlib.error,
)  # fmt: skip


def opened(path: Path) -> Image:
    """The Pillow image, of which only the header is read.

    Raises ValueError if the file is missing, not an image of a known format, or has more than 2^30 pixels according to
    its header.
    """
    import PIL.Image

    PIL.Image.MAX_IMAGE_PIXELS = None  # MAX_PIXELS replaces Pillow's lower limit
    try:
        image = PIL.Image.open(path, formats=FORMATS)
    except FileNotFoundError:
        raise ValueError("image is missing") from None
    except DECODING_ERRORS as error:
        raise ValueError(f"image cannot be read ({error})") from None
    width, height = image.size
    if width * height > MAX_PIXELS:
        image.close()
        raise ValueError(f"image has {width}x{height} pixels by its header, more than 2^30 pixels; cut it into tiles")
    return image


def measure(path: Path) -> tuple[int, int]:
    """(width, height) from the header, in about 0.1 ms.

    Raises ValueError if the file is missing, not an image, or truncated: a JPEG without end marker and a PNG without
    its last chunk near the end of the file are decoded completely to find out.
    """
    with opened(path) as image:
        size, end = image.size, _END_MARKERS.get(image.format or "")
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
    """The decoded Pillow image. Raises ValueError if the file is missing, truncated or broken."""
    image = opened(path)
    try:
        image.load()
    except DECODING_ERRORS as error:
        image.close()
        raise ValueError(f"image cannot be decoded ({error or 'there is not enough memory'})") from None
    return image


def decode(path: Path) -> None:
    """Decode all pixels. Raises ValueError if the file is missing, truncated or broken."""
    load(path).close()


def place(source: Path, target: Path) -> None:
    """Copy an image to `target`, byte by byte if the suffixes mean the same format, else re-encoded by Pillow.

    Raises ValueError if the source is missing or cannot be decoded.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    aliases = {".jpeg": ".jpg", ".tiff": ".tif"}
    old, new = source.suffix.lower(), target.suffix.lower()
    if not source.is_file():
        raise ValueError("image is missing")
    if aliases.get(old, old) == aliases.get(new, new):
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
    """Pixels of a sample, RGB uint8 (H, W, 3); None if the file cannot be decoded."""
    try:
        with load(sample.image) as file:
            return np.asarray(file.convert("RGB"))
    except ValueError:
        return None


def safe_name(file_name: str) -> str:
    """A sample's name from a file name in an annotation: without suffix, drive and `..`, '/' as separator, readable by
    any program (`plain_name`).

    Raises ValueError if nothing is left.

    >>> safe_name("C:\\\\images\\\\..\\\\a.b.png")
    'images/a.b'
    """
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
