"""Image files of a source as bytes for a browser; files outside of the source's folder are never served."""

from __future__ import annotations

import io
from functools import lru_cache
from pathlib import Path

from PIL import Image

from dataengine.data.images import read_header, rgb
from dataengine.data.pixel_range import PixelRange

MEDIA_TYPES = {
    ".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".webp": "image/webp", ".bmp": "image/bmp",
}  # fmt: skip
READABLE = {*MEDIA_TYPES, ".tif", ".tiff"}
SMALL_FILE_BYTES = 200_000  # smaller files need no thumbnail


class NotServedError(Exception):
    """The image is missing, is not an image, or lies outside of the source's folder."""


def inside(root: Path, name: str) -> Path:
    """The file with this name below root, after following links. Raises NotServedError unless it is an image there."""
    if "\0" in name:
        raise NotServedError("no such image")
    try:
        file = (root / name).resolve()
        is_there = file.suffix.lower() in READABLE and file.is_file()
    except (OSError, ValueError, RuntimeError):  # a name that is too long, or no text, or a link to itself
        raise NotServedError("no such image") from None
    if not file.is_relative_to(root):
        raise NotServedError("the image lies outside of the folder and is not served")
    if not is_there:
        raise NotServedError("no such image")
    return file


def image_bytes(file: Path, side: int | None = None, pixel_range: PixelRange | None = None) -> tuple[bytes, str]:
    """Bytes and media type of an image: the file itself, or a converted image where the file is large, or turned, or
    has values of more than 8 bits, or browsers do not support the format: a JPEG of at most `side` pixels, or a PNG at
    full size. pixel_range: of the image's data set. Raises NotServedError for a broken image."""
    status = file.stat()
    media_type = MEDIA_TYPES.get(file.suffix.lower())
    if media_type is not None and (side is None or status.st_size <= SMALL_FILE_BYTES):
        try:
            header = read_header(file)
        except ValueError as error:
            raise NotServedError(str(error)) from None
        if header.orientation == 1 and not header.deep:
            return file.read_bytes(), media_type
    return _converted(file, status.st_mtime_ns, side, pixel_range)


@lru_cache(maxsize=512)
def _converted(file: Path, modified_ns: int, side: int | None, pixel_range: PixelRange | None) -> tuple[bytes, str]:
    try:
        image = Image.fromarray(rgb(file, pixel_range))
    except (ValueError, Image.DecompressionBombError) as error:
        raise NotServedError(str(error)) from None
    if side is None:
        return encoded(image), "image/png"
    image.thumbnail((side, side))
    return encoded(image, "JPEG"), "image/jpeg"


def encoded(image: Image.Image, form: str = "PNG") -> bytes:
    """The image's bytes in one of Pillow's formats."""
    buffer = io.BytesIO()
    image.save(buffer, form, quality=88)
    return buffer.getvalue()
