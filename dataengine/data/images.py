"""Image files: finding, measuring, decoding and copying them; every failure is a `ValueError` with the reason.

Pictures are upright: an EXIF orientation is applied wherever pixels are read, and sizes are those of the upright
picture (`orientation.py` says what that means for boxes). Pixels are RGB of 8 bits. Values of more than 8 bits, such
as temperatures of a thermal camera, are scaled by the `PixelRange` of their data set, never cut off at 255.

| in the file | becomes |
|---|---|
| grey, palette, 1 bit | RGB; a transparent colour of a palette stays that colour |
| grey or RGB with alpha | RGB; alpha is dropped, colours stay as stored |
| CMYK, YCbCr | RGB |
| two bands | grey, from the first |
| four bands or more | RGB, from the first three |
| 16 or 32 bits, float | RGB of 8 bits, by the pixel range |

Pillow opens all but colour TIFF and PNG of 16 bits, of which it keeps the upper 8, and TIFF of many bands. For these,
`tifffile` and OpenCV do.
"""

from __future__ import annotations

import io
import logging
import os
import shutil
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dataengine.data.file_index import IMAGE_SUFFIXES
from dataengine.data.geotiff import KEYS_TAG, PIXEL_SCALE_TAG, gsd_of
from dataengine.data.layout import Sample
from dataengine.data.plain_header import EXIF_TAIL_BYTES, TAIL_BYTES, plain_size
from dataengine.errors import UserError
from dataengine.files import open_regular, read_bytes

if TYPE_CHECKING:
    from PIL.Image import Image
    from tifffile import TiffPage

    from dataengine.data.pixel_range import PixelRange

MAX_PIXELS = 900_000_000  # the largest image of DOTA 2.0, 29,200 x 27,620, has 806 million
MAX_VALUES = 4 * MAX_PIXELS  # pixels times bands
FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "TIFF", "WEBP")  # some decoders of other formats start programs
SUFFIXES = IMAGE_SUFFIXES
ORIENTATION_TAG = 274  # of EXIF and TIFF; 1 is upright, 5 to 8 swap the sides
_ALIASES = {".jpeg": ".jpg", ".tiff": ".tif"}
_END_MARKERS = {"JPEG": b"\xff\xd9", "PNG": b"IEND"}
_TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_BITS_TAG = 258  # TIFF's BitsPerSample
_PALETTE = 3  # TIFF's PhotometricInterpretation of colour numbers


# exceptions of readers for broken or malicious files
DECODING_ERRORS = (
    OSError, SyntaxError, ValueError, TypeError, IndexError, KeyError, AttributeError, OverflowError, EOFError,
    MemoryError, NotImplementedError, RuntimeError, ZeroDivisionError, struct.error, zlib.error,
)  # fmt: skip


@dataclass(frozen=True)
class Header:
    """What the beginning of an image file says.

    size:        (width, height) of the upright picture.
    orientation: 1 to 8 as in EXIF; how the stored picture has to be turned to be upright. 1 is not at all.
    deep:        whether values have more than 8 bits.
    fits_png:    whether a PNG can hold them: whole numbers of up to 16 bits.
    gsd_m:       metres per pixel of a GeoTIFF, None where it does not say.
    """

    size: tuple[int, int]
    orientation: int
    deep: bool
    fits_png: bool = True
    gsd_m: float | None = None


def read_header(path: Path) -> Header:
    """The header of an image file, in about 0.1 ms, or 0.02 ms where `plain_size` knows it.

    Raises ValueError if the file is missing, not an image, truncated, or has more than 900 million pixels: a JPEG
    without end marker and a PNG without its last chunk near the end of the file are decoded completely to find out.
    """
    try:
        size = plain_size(path)
    except FileNotFoundError:
        raise ValueError("image is missing") from None
    except OSError as error:
        raise ValueError(f"image cannot be read ({error.strerror})") from None
    if size is not None and 0 < size[0] * size[1] <= MAX_PIXELS:
        return Header(size, 1, False)
    image = _opened(path)
    if image is None:
        with _tiff_page(path) as page:
            return _tiff_header(page)
    with image:
        header, end = _header(image), _END_MARKERS.get(image.format or "")
        if end is None:
            return header
        try:
            with open_regular(path) as file:
                file.seek(max(0, os.path.getsize(path) - (EXIF_TAIL_BYTES if end == b"IEND" else TAIL_BYTES)))
                tail = file.read()
        except OSError as error:
            raise ValueError(f"image cannot be read ({error})") from None
        if end not in tail[-TAIL_BYTES:] or (end == b"IEND" and b"eXIf" in tail and "exif" not in image.info):
            _decode(image)
            header = replace(
                header, size=_header(image).size, orientation=_orientation(image)
            )  # of which nothing is known any more
        return header


def measure(path: Path) -> tuple[int, int]:
    """(width, height) of the upright picture, from the header. Raises ValueError as `read_header` does.

    >>> import tempfile, PIL.Image
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     exif = PIL.Image.Exif()
    ...     exif[ORIENTATION_TAG] = 6  # a quarter turn
    ...     PIL.Image.new("RGB", (64, 48)).save(f"{folder}/a.jpg", exif=exif)
    ...     measure(Path(folder, "a.jpg"))
    (48, 64)
    """
    return read_header(path).size


def fits_png(path: Path) -> bool:
    """Whether a PNG can hold the image's values, also where it cannot be read: whole numbers of up to 16 bits."""
    try:
        return read_header(path).fits_png
    except ValueError:
        return True


def decode(path: Path) -> None:
    """Decode all pixels. Raises ValueError if the file is missing, truncated or broken."""
    _pixels(path)


def rgb(path: Path, pixel_range: PixelRange | None = None) -> np.ndarray:
    """Pixels of an upright picture, RGB uint8 (H, W, 3).

    pixel_range: scales values of more than 8 bits; without effect on others. Raises ValueError if the file is missing,
    truncated or broken, or has such values and no range is given.
    """
    pixels = _pixels(path)
    if isinstance(pixels, np.ndarray):
        pixels = _scaled(pixels, pixel_range)
        return pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, axis=2)
    return np.asarray(_plain(pixels, "RGB"))


def values(path: Path) -> np.ndarray:
    """Values of an upright picture as they are stored: (H, W), or (H, W, 3) for colours; uint8, uint16, int32, float32
    or float64. Raises ValueError if the file is missing, truncated or broken."""
    pixels = _pixels(path)
    if isinstance(pixels, np.ndarray):
        return pixels
    return np.asarray(pixels if pixels.mode == "L" else _plain(pixels, "RGB"))


def read_picture(sample: Sample) -> np.ndarray | None:
    """Pixels of a sample, RGB uint8 (H, W, 3), upright; None if the file cannot be decoded."""
    try:
        return rgb(sample.image, sample.pixel_range)
    except ValueError:
        return None


def read_or_fail(sample: Sample) -> np.ndarray:
    """Pixels of a sample as `read_picture` gives them. Raises UserError if the file cannot be decoded."""
    try:
        return rgb(sample.image, sample.pixel_range)
    except ValueError as error:
        raise UserError(f"{sample.image}: {error}; fix it or remove it from the data set.") from None


def for_suffix(path: Path, suffix: str, pixel_range: PixelRange | None = None) -> Image | np.ndarray:
    """The upright picture as a file with this suffix can hold it; `save` writes it.

    PNG and TIFF hold values of 16 bits, as uint16 (H, W) or (H, W, 3), and TIFF all others. Where they cannot be held,
    they are scaled by `pixel_range`. Everything of 8 bits is a Pillow image. Raises ValueError as `rgb` does.
    """
    suffix, pixels = suffix.lower(), _pixels(path)
    if isinstance(pixels, np.ndarray):
        import PIL.Image

        if suffix in (".tif", ".tiff") or (suffix == ".png" and pixels.dtype == np.uint16):
            return pixels
        pixels = PIL.Image.fromarray(_scaled(pixels, pixel_range))
    if suffix in (".jpg", ".jpeg"):
        return _plain(pixels, "L" if pixels.mode in ("1", "L") else "RGB")
    held = {".bmp": ("1", "L", "P", "RGB"), ".png": ("1", "L", "P", "RGB", "LA", "RGBA")}.get(suffix)
    return pixels if held is None or pixels.mode in held else _plain(pixels, "RGB")


def save(picture: Image | np.ndarray, target: Path | io.BytesIO, suffix: str, compress_level: int = 6) -> None:
    """Write a picture from `for_suffix`, or a part of it, without EXIF data. compress_level: of PNG, 0 to 9.

    Raises ValueError if the format cannot hold it, OSError if the disk cannot.
    """
    import PIL.Image

    suffix = _ALIASES.get(suffix.lower(), suffix.lower())
    if isinstance(picture, np.ndarray) and suffix == ".tif":
        import tifffile

        photometric = "rgb" if picture.ndim == 3 else "minisblack"
        tifffile.imwrite(target, picture, photometric=photometric, compression="zlib", metadata=None)
        return
    if isinstance(picture, np.ndarray) and picture.ndim == 3:
        import cv2

        content = cv2.imencode(".png", picture[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, compress_level])[1].tobytes()
        target.write(content) if isinstance(target, io.BytesIO) else target.write_bytes(content)
        return
    image = PIL.Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture
    profile = image.info.get("icc_profile")
    image.info.pop("exif", None), image.info.pop("xmp", None)
    options = {".jpg": {"quality": 95, "subsampling": 0}, ".png": {"compress_level": compress_level}}.get(suffix, {})
    if profile is not None and suffix in (".jpg", ".png", ".tif", ".webp"):
        options["icc_profile"] = profile
    names = {".jpg": "JPEG", ".png": "PNG", ".bmp": "BMP", ".tif": "TIFF", ".webp": "WEBP"}
    try:
        image.save(target, names.get(suffix), **options)
    except (OSError, ValueError) as error:
        if getattr(error, "errno", None) is not None:
            raise
        raise ValueError(f"image cannot be written as {suffix} ({error})") from None


def place(source: Path, target: Path, pixel_range: PixelRange | None = None) -> None:
    """Copy an image to `target`, byte by byte if the suffixes mean the same format and the picture is stored upright;
    else it is written again, upright and without orientation. Raises ValueError as `for_suffix` does.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    old, new = (_ALIASES.get(path.suffix.lower(), path.suffix.lower()) for path in (source, target))
    if not source.is_file():
        raise ValueError("image is missing")
    if old == new and read_header(source).orientation == 1:
        shutil.copyfile(source, target)
        return
    save(for_suffix(source, new, pixel_range), target, new)


def upright_bytes(path: Path) -> bytes:
    """The bytes of an image file; if they hold a turned picture, of the upright one in the same format.

    Raises ValueError as `for_suffix` does, OSError if the file cannot be read.
    """
    if read_header(path).orientation == 1:
        return read_bytes(path)
    buffer = io.BytesIO()
    save(for_suffix(path, path.suffix), buffer, path.suffix)
    return buffer.getvalue()


def _opened(path: Path, mapped: bool = True) -> Image | None:
    """The Pillow image, of which only the header is read; None for a TIFF file that Pillow does not know.

    mapped: whether pixels may be read from the mapped file, which Pillow does with swapped sides where the orientation
    of a TIFF swaps them. Raises ValueError if the file is missing, not an image of a known format, or has more than
    900 million pixels according to its header.
    """
    import PIL.Image

    PIL.Image.MAX_IMAGE_PIXELS = None  # MAX_PIXELS replaces Pillow's lower limit
    try:
        open_regular(path).close()
        image = PIL.Image.open(path if mapped else io.BytesIO(read_bytes(path)), formats=FORMATS)
    except FileNotFoundError:
        raise ValueError("image is missing") from None
    except DECODING_ERRORS as error:
        if isinstance(error, PIL.UnidentifiedImageError) and _is_tiff(path):
            return None
        raise ValueError(f"image cannot be read ({error})") from None
    try:
        _check_size(*image.size)
    except ValueError:
        image.close()
        raise
    return image


def _check_size(width: int, height: int, bands: int = 1) -> None:
    if width * height > MAX_PIXELS:
        raise ValueError(
            f"image has {width}x{height} pixels by its header, more than 900 million pixels; cut it into tiles"
        )
    if width * height * bands > MAX_VALUES:
        raise ValueError(f"image has {width}x{height} pixels in {bands} bands by its header; cut it into tiles")


def _header(image: Image) -> Header:
    orientation = _orientation(image)
    size, gsd_m = image.size, None
    if image.format == "TIFF":  # Pillow turns it, at different times in different versions
        gsd_m = _gsd({tag: image.tag_v2.get(tag) for tag in (PIXEL_SCALE_TAG, KEYS_TAG)})
        width, height = int(image.tag_v2[256]), int(image.tag_v2[257])
        size = (height, width) if orientation > 4 else (width, height)
    elif orientation > 4:
        size = size[::-1]
    whole = image.format == "PNG" or image.mode not in ("I", "F")
    return Header(size, orientation, _is_deep(image), whole, gsd_m)


def _gsd(tags: dict) -> float | None:
    try:
        return gsd_of(tags)
    except DECODING_ERRORS:
        return None


def _orientation(image: Image) -> int:
    """1 to 8; 1 where the file says nothing, or nonsense."""
    import PIL.Image

    value = None
    try:
        if image.format == "TIFF":
            value = image.tag_v2.get(ORIENTATION_TAG)
        elif "exif" in image.info:
            exif = PIL.Image.Exif()
            exif.load(image.info["exif"])
            value = exif.get(ORIENTATION_TAG)
    except DECODING_ERRORS:
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _is_deep(image: Image) -> bool:
    """Whether the file has values of more than 8 bits, also where Pillow would keep the upper 8 only."""
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return True
    if image.format == "TIFF":
        bits = image.tag_v2.get(_BITS_TAG, 1)
        return max(bits if isinstance(bits, tuple) else (bits,)) > 8
    arguments = image.tile[0][3] if image.tile else None
    raw_mode = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return isinstance(raw_mode, str) and ";16" in raw_mode


def _pixels(path: Path) -> Image | np.ndarray:
    """The upright picture: a Pillow image of 8 bits, or an array of deeper values, (H, W) or (H, W, 3)."""
    import PIL.Image

    image = _opened(path)
    if image is None or (image.format == "TIFF" and _is_deep(image) and len(image.getbands()) > 1):
        pixels = _tiff_values(path)
        return PIL.Image.fromarray(pixels) if pixels.dtype == np.uint8 else pixels
    orientation, deep = _orientation(image), _is_deep(image)
    if image.format == "TIFF" and orientation > 4:
        image.close()
        image = _opened(path, mapped=False)
    if deep and len(image.getbands()) > 1:
        image.close()
        return _turned(_colour_png(path), orientation)
    is_tiff, is_png = image.format == "TIFF", image.format == "PNG"
    _decode(image)
    orientation = _orientation(image) if is_png else orientation  # its EXIF data may lie after the pixels
    if not deep:
        return image if is_tiff or orientation == 1 else image.transpose(_METHODS[orientation])
    array = np.asarray(image)
    array = array.astype(np.uint16 if is_png or array.dtype.kind == "u" else array.dtype.newbyteorder("="))
    return array if is_tiff else _turned(array, orientation)


_METHODS = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}  # PIL.Image.Transpose for each orientation


def _turned(array: np.ndarray, orientation: int) -> np.ndarray:
    """The upright picture of a stored one."""
    if orientation in (5, 6, 7, 8):
        array = array.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    return np.ascontiguousarray(array)


def _decode(image: Image) -> None:
    try:
        image.load()
    except DECODING_ERRORS as error:
        image.close()
        raise ValueError(f"image cannot be decoded ({error or 'there is not enough memory'})") from None


def _plain(image: Image, mode: str) -> Image:
    """The image without transparency, as "RGB" or "L"."""
    if image.mode == mode:
        return image
    image.info.pop("transparency", None)  # would be looked for among the new colours
    try:
        return image.convert(mode)
    except ValueError as error:
        raise ValueError(f"image cannot be decoded ({error})") from None


def _scaled(array: np.ndarray, pixel_range: PixelRange | None) -> np.ndarray:
    if pixel_range is None:
        raise ValueError(
            "image has values of more than 8 bits, and nothing says which of them become black and white; "
            "read it as part of a data set, or give --pixel-range LOW:HIGH"
        )
    return pixel_range.to_8_bits(array)


def _colour_png(path: Path) -> np.ndarray:
    """Colours of a PNG of 16 bits, uint16 (H, W, 3), or (H, W) if they are all grey with alpha."""
    import cv2

    try:
        array = cv2.imdecode(np.frombuffer(read_bytes(path), np.uint8), cv2.IMREAD_UNCHANGED)
    except (OSError, cv2.error) as error:
        raise ValueError(f"image cannot be decoded ({error})") from None
    if array is None or array.dtype != np.uint16:
        raise ValueError("image cannot be decoded (broken PNG of 16 bits)")
    return array if array.ndim == 2 else array[..., 2::-1]


def _is_tiff(path: Path) -> bool:
    try:
        with open_regular(path) as file:
            return file.read(4) in _TIFF_STARTS
    except OSError:
        return False


@contextmanager
def _tiff_page(path: Path) -> Iterator[TiffPage]:
    """The first page of a TIFF file. Raises ValueError, also for errors inside of the block."""
    import tifffile

    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # its faults become problems
    try:
        with tifffile.TiffFile(path) as file:
            yield file.pages.first
    except FileNotFoundError:
        raise ValueError("image is missing") from None
    except (*DECODING_ERRORS, tifffile.TiffFileError) as error:
        raise ValueError(f"image cannot be decoded ({error})") from None


def _tiff_header(page: TiffPage) -> Header:
    if page.imagewidth < 1 or page.imagelength < 1 or page.dtype is None or page.dtype.kind not in "buif":
        raise ValueError(f"it has values of type {page.dtype}")
    _check_size(page.imagewidth, page.imagelength, page.samplesperpixel)
    tag = page.tags.get(ORIENTATION_TAG)
    orientation = int(tag.value) if tag is not None and tag.value in range(1, 9) else 1
    size = (page.imagewidth, page.imagelength)
    deep = page.dtype.itemsize > 1
    geo = {number: page.tags.get(number) for number in (PIXEL_SCALE_TAG, KEYS_TAG)}
    gsd_m = _gsd({number: tag.value for number, tag in geo.items() if tag is not None})
    fits = not deep or page.dtype == np.uint16
    return Header(size[::-1] if orientation > 4 else size, orientation, deep, fits, gsd_m)


def _tiff_values(path: Path) -> np.ndarray:
    """Values of a TIFF file of any depth and number of bands: (H, W), or (H, W, 3) from the first three bands."""
    with _tiff_page(path) as page:
        header = _tiff_header(page)
        try:
            array = page.asarray()
        except (ValueError, NotImplementedError) as error:
            if "imagecodecs" not in str(error):
                raise
            array = _tiff_by_opencv(path, page, header)
        if page.axes == "SYX":
            array = np.moveaxis(array, 0, -1)
        elif page.axes not in ("YX", "YXS"):
            raise ValueError(f"its axes are {page.axes}, not those of a picture")
    if array.ndim == 3:
        array = array[..., :3] if array.shape[2] >= 3 else array[..., 0]
    if array.dtype.kind == "b" or array.dtype == np.int8:
        array = array.astype(np.uint8) * (255 if array.dtype.kind == "b" else 1)
    return _turned(array.astype(array.dtype.newbyteorder("="), copy=False), header.orientation)


def _tiff_by_opencv(path: Path, page: TiffPage, header: Header) -> np.ndarray:
    """Values in the page's order of axes, where tifffile has no decoder of its own."""
    import cv2

    array = None
    if page.samplesperpixel <= 4 and header.orientation == 1 and page.photometric != _PALETTE:
        array = cv2.imdecode(np.frombuffer(read_bytes(path), np.uint8), cv2.IMREAD_UNCHANGED)
    if array is None or array.dtype.itemsize != page.dtype.itemsize:
        raise ValueError(
            f"TIFF with the compression {page.compression.name} needs another library: pip install imagecodecs"
        )
    if array.ndim == 3:
        array = array[..., [2, 1, 0, *range(3, array.shape[2])]]
    return np.moveaxis(array, -1, 0) if page.axes == "SYX" else array
