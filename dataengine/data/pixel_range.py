"""The range of pixel values that becomes 0 to 255, one for all images of a data set.

Thermal cameras store temperatures in 14 or 16 bits, other sensors reflectances. Sheets, training, `synth`, the filter
and the viewer work on 8 bits, so values are scaled: linearly, by the same range for every image, since equal values
would otherwise get different greys. The range of a data set is, in this order, the one that the user gives
(`--pixel-range`), the one in its `pixel-range.json`, or the one measured here. Images of 8 bits are not scaled.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from dataengine.data import images
from dataengine.data.layout import Dataset, Sample
from dataengine.errors import UserError, counted
from dataengine.files import MAX_CONFIG_BYTES, parse_json, read_text, write_whole

FILE = "pixel-range.json"  # at the root of a data set
N_MEASURED = 32  # images, spread evenly over the data set
TAIL_PERCENT = 0.01  # of the pixels of an image, at either end: dead pixels, not objects
SPLITS = ("train", "val", "test")  # beginnings of the names of folders next to which there are other splits
MAX_MEASURED_VALUES = 4_000_000  # of an image


@dataclass(frozen=True)
class PixelRange:
    """Values up to `low` become 0, values from `high` on 255, those between in proportion.

    >>> PixelRange(7000, 9000).to_8_bits(np.array([[6500, 8000, 9000]], np.uint16))
    array([[  0, 128, 255]], dtype=uint8)
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        if not (np.isfinite([self.low, self.high]).all() and self.low < self.high):
            raise ValueError(
                f"a pixel range goes from a lower to a higher value, not from {self.low:g} to {self.high:g}"
            )

    def __str__(self) -> str:
        return f"{self.low:g}:{self.high:g}"

    def to_8_bits(self, values: np.ndarray) -> np.ndarray:
        """Values of any type and shape as uint8 of the same shape; not-a-number becomes 0."""
        span = np.float32(255 / (self.high - self.low))
        scaled = (values.astype(np.float32) - np.float32(self.low)) * span
        return np.nan_to_num(np.rint(scaled), nan=0, posinf=255, neginf=0).clip(0, 255).astype(np.uint8)


ALL_OF_16_BITS = PixelRange(0, 65535)


def parse(text: str) -> PixelRange:
    """The range in "LOW:HIGH". Raises UserError for other text.

    >>> parse("7000:9000")
    PixelRange(low=7000.0, high=9000.0)
    """
    try:
        low, high = map(float, text.split(":"))
        return PixelRange(low, high)
    except ValueError as error:
        reason = f" ({error})" if str(error).startswith("a pixel range") else ""
        raise UserError(
            f"--pixel-range {text}: give the values that become black and white, such as 7000:9000{reason}."
        ) from None


def with_pixel_range(dataset: Dataset, pixel_range: PixelRange | None) -> Dataset:
    """The data set with this range for all its images; unchanged where that is None, or all images have 8 bits."""
    if pixel_range is None:
        return dataset
    if range_of(dataset) is None:
        note = f"the pixel range {pixel_range} has no effect: all images have 8 bits"
        return replace(dataset, notes=[*dataset.notes, note])
    samples = [replace(sample, pixel_range=pixel_range) for sample in dataset]
    notes = [note for note in dataset.notes if not note.startswith(_NOTE)]
    return replace(dataset, samples=samples, notes=[*notes, _note(pixel_range, "as asked")])


def range_of(dataset: Dataset) -> PixelRange | None:
    """The range of a data set; None if all of its images have 8 bits."""
    return next((sample.pixel_range for sample in dataset if sample.pixel_range is not None), None)


def find_range(path: Path, deep: Sequence[Path]) -> tuple[PixelRange, str]:
    """The range of the data set at `path`, from its file or measured, and a sentence that says so.

    deep: those of its images that have more than 8 bits, at least one. Other splits below `path` are measured with
    them, so that all splits get the same range. Raises UserError for a damaged file.
    """
    root = path if path.is_dir() else path.parent
    for folder in (root,) if path.is_dir() else (root, root.parent):
        if (folder / FILE).is_file():
            stated = read(folder / FILE)
            return stated, _note(stated, f"as {folder / FILE} says")
    limits = [limit for file in _spread(_images_of(path, deep)) if (limit := _limits(file)) is not None]
    limits = limits or [limit for file in _spread(sorted(deep)) if (limit := _limits(file)) is not None]
    if not limits:
        return ALL_OF_16_BITS, _note(ALL_OF_16_BITS, "those of more than 8 bits cannot be read")
    lows, highs = zip(*limits, strict=True)
    low, high = min(lows), max(highs)
    measured = PixelRange(low, high if high > low else low + 1)
    count = counted(len(limits), "image")
    how = f"measured on {count}; another one: --pixel-range LOW:HIGH, or {FILE} in the folder of the data set"
    return measured, _note(measured, how)


def read(file: Path) -> PixelRange:
    """The range in a file. Raises UserError if it is damaged."""
    try:
        content = parse_json(read_text(file, MAX_CONFIG_BYTES))
        return PixelRange(float(content["low"]), float(content["high"]))
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f'{file}: {error}; it must be like {{"low": 7000, "high": 9000}}, or be removed') from None


def write(folder: Path, pixel_range: PixelRange) -> None:
    """Write the range next to a data set. Raises OSError."""
    write_whole(folder / FILE, json.dumps(asdict(pixel_range)) + "\n")


def check_same(folder: Path, pixel_range: PixelRange) -> None:
    """Raises UserError if the data set in `folder` has another range."""
    if (folder / FILE).is_file() and (earlier := read(folder / FILE)) != pixel_range:
        raise UserError(
            f"{folder} has images with the pixel range {earlier}, not {pixel_range}; choose another folder, or give "
            f"--pixel-range {earlier}"
        )


def in_8_bits(dataset: Dataset, folder: Path) -> Dataset:
    """The data set with its deeper images as PNG of 8 bits in `folder`, for programs that do not know the range.

    Images that cannot be read stay as they are. Raises OSError if the disk is full.
    """
    samples = [_in_8_bits(sample, folder / f"{i:08d}.png") for i, sample in enumerate(dataset)]
    return replace(dataset, samples=samples)


def _in_8_bits(sample: Sample, target: Path) -> Sample:
    try:
        if sample.pixel_range is None or not images.read_header(sample.image).deep:
            return replace(sample, pixel_range=None)
        target.parent.mkdir(parents=True, exist_ok=True)
        images.save(images.for_suffix(sample.image, ".jpg", sample.pixel_range), target, ".png", compress_level=1)
    except ValueError:
        return sample
    return replace(sample, image=target, pixel_range=None)


_NOTE = "pixel values from "


def _note(pixel_range: PixelRange, how: str) -> str:
    return f"{_NOTE}{pixel_range.low:g} to {pixel_range.high:g} become 0 to 255 in all images ({how})"


def _images_of(path: Path, deep: Sequence[Path]) -> list[Path]:
    """Images of all splits of the data set at `path`, with the suffixes of those in `deep`, in a fixed order."""
    path, suffixes = Path(os.path.abspath(path)), {file.suffix for file in deep}
    common = Path(os.path.commonpath([os.path.abspath(file.parent) for file in deep]))
    root = path if path.is_dir() else path.parent.parent
    if not common.is_relative_to(root):
        return sorted(deep)
    if not path.is_dir():  # the folder of an annotation file may hold anything
        parts = common.relative_to(root).parts
        above = next((i for i, part in enumerate(parts) if part.lower().startswith(SPLITS)), len(parts))
        root = root.joinpath(*parts[:above])
        if root == path.parent.parent and above == 0:
            return sorted(deep)
    return sorted(
        Path(base, name) for base, _, names in os.walk(root) for name in names if os.path.splitext(name)[1] in suffixes
    )


def _spread(files: list[Path]) -> list[Path]:
    return [files[i] for i in np.unique(np.linspace(0, len(files) - 1, N_MEASURED).astype(int))] if files else []


def _limits(file: Path) -> tuple[float, float] | None:
    """Percentiles of an image's values; None if it has 8 bits or cannot be read."""
    try:
        if not images.read_header(file).deep:
            return None
        found = images.values(file)
    except ValueError:
        return None
    step = int(np.ceil(np.sqrt(found.size / MAX_MEASURED_VALUES))) if found.size > MAX_MEASURED_VALUES else 1
    found = found[::step, ::step].ravel()
    found = found[np.isfinite(found)]
    if not len(found):
        return None
    low, high = np.percentile(found.astype(np.float64), [TAIL_PERCENT, 100 - TAIL_PERCENT])
    unit = 1 if found.dtype.kind in "ui" else 10.0 ** np.floor(np.log10(max(high - low, 1e-6) / 1000))
    return float(round(np.floor(low / unit) * unit, 9)), float(round(np.ceil(high / unit) * unit, 9))
