"""The chunks of a PNG file (PNG specification, third edition, section 5.3), and whether two files show one picture."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from dataengine.data import images
from dataengine.folders import same_bytes

SIGNATURE = b"\x89PNG\r\n\x1a\n"
PIXEL_CHUNKS = {b"IHDR", b"IDAT", b"IEND"}  # all that a picture of 8 bits in grey or RGB needs


def chunks(png: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Type, start and end of each chunk. Raises ValueError for a file that is no PNG or ends within a chunk.

    >>> import io, PIL.Image
    >>> file = io.BytesIO()
    >>> PIL.Image.new("L", (2, 2)).save(file, "PNG")
    >>> [kind for kind, start, end in chunks(file.getvalue())]
    [b'IHDR', b'IDAT', b'IEND']
    """
    if not png.startswith(SIGNATURE):
        raise ValueError("no PNG file")
    start = len(SIGNATURE)
    while start < len(png):
        if len(png) < start + 12:
            raise ValueError("the PNG file breaks off")
        length, kind = struct.unpack(">I4s", png[start : start + 8])
        end = start + 12 + length
        if end > len(png):
            raise ValueError("the PNG file breaks off")
        yield kind, start, end
        start = end


def same_picture(a: Path, b: Path) -> bool:
    """Whether two PNG files hold the same pixels and nothing else. Their bytes may differ: Pillow and zlib of other
    versions compress differently."""
    if same_bytes(a, b):
        return True
    try:
        plain = all(kind in PIXEL_CHUNKS for file in (a, b) for kind, _, _ in chunks(file.read_bytes()))
        return plain and images.measure(a) == images.measure(b) and np.array_equal(images.values(a), images.values(b))
    except ValueError:
        return False
