"""Image files of a source as bytes for a browser, never from outside of the source's folder."""

from __future__ import annotations

import io
from functools import lru_cache
from pathlib import Path

from PIL import Image

from dataengine.data.images import load

SHOWN_AS_THEY_ARE = {
    ".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".webp": "image/webp", ".bmp": "image/bmp",
}  # fmt: skip
READ = {*SHOWN_AS_THEY_ARE, ".tif", ".tiff"}
SMALL_FILE = 200_000  # bytes; below it a thumbnail saves nothing


class NotServedError(Exception):
    """An image that is not there, is no image, or lies outside of the source's folder; says which."""


def inside(root: Path, name: str) -> Path:
    """The file of that name below root, links followed. Raises NotServedError unless it is an image below root."""
    if "\0" in name:
        raise NotServedError("no such image")
    file = (root / name).resolve()
    if not file.is_relative_to(root):
        raise NotServedError("the image lies outside of the folder, and is not served")
    if file.suffix.lower() not in READ or not file.is_file():
        raise NotServedError("no such image")
    return file


def picture(file: Path, side: int | None = None) -> tuple[bytes, str]:
    """The image's bytes and media type: the file's own, unless no browser shows such files, or it is far larger than
    wanted: then a JPEG (a PNG at full size) of at most `side` pixels. Raises NotServedError for a broken image."""
    status = file.stat()
    media_type = SHOWN_AS_THEY_ARE.get(file.suffix.lower())
    if media_type is not None and (side is None or status.st_size <= SMALL_FILE):
        return file.read_bytes(), media_type
    return _made(file, status.st_mtime_ns, side)


@lru_cache(maxsize=512)
def _made(file: Path, changed: int, side: int | None) -> tuple[bytes, str]:
    try:
        image = load(file).convert("RGB")
    except (ValueError, Image.DecompressionBombError) as error:
        raise NotServedError(str(error)) from None
    if side is None:
        return encoded(image), "image/png"
    image.thumbnail((side, side))
    return encoded(image, "JPEG"), "image/jpeg"


def encoded(image: Image.Image, form: str = "PNG") -> bytes:
    """The image's bytes in a format of Pillow."""
    buffer = io.BytesIO()
    image.save(buffer, form, quality=88)
    return buffer.getvalue()
