"""Image files: found by stem, measured by their header, checked for truncation, copied or re-encoded."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dataengine.data.layout import Problem, Sample

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
_ENDS = {"JPEG": b"\xff\xd9", "PNG": b"IEND"}


def _pillow():
    import PIL.Image

    PIL.Image.MAX_IMAGE_PIXELS = None  # DOTA 2.0 has scenes of 29,200 x 27,620: large is not an attack here
    return PIL.Image


def index_by_stem(folder: Path, problems: list[Problem]) -> dict[str, Path]:
    """Image files below `folder`, keyed by their path without suffix relative to it, '/' as separator.

    Of two images with one name, labels may belong to either: the first is taken, and the other is a problem.
    """
    found: dict[str, Path] = {}
    for base, folders, files in os.walk(folder, followlinks=True):
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
    image_module = _pillow()
    try:
        with image_module.open(path) as image:
            size, end = image.size, _ENDS.get(image.format or "")
        if end is None:
            return size
        with open(path, "rb") as file:
            file.seek(max(0, os.path.getsize(path) - 64))
            tail = file.read()
        if end not in tail:
            decode(path)
    except FileNotFoundError:
        raise ValueError("image is missing") from None
    except (OSError, SyntaxError) as error:  # Pillow raises SyntaxError for some broken PNG files
        raise ValueError(f"image cannot be read ({error})") from None
    return size


def load(path: Path) -> Image:
    """The decoded Pillow image, all pixels in memory; `ValueError` when the file is missing, truncated or broken."""
    try:
        image = _pillow().open(path)
        image.load()
    except FileNotFoundError:
        raise ValueError("image is missing") from None
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"image cannot be decoded ({error})") from None
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
        with _pillow().open(sample.image) as file:
            return np.asarray(file.convert("RGB"))
    except (OSError, SyntaxError):
        return None
