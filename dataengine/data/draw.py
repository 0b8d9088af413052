"""Images with their boxes drawn in class colours, and contact sheets."""

from __future__ import annotations

import colorsys
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from dataengine import geometry
from dataengine.data.images import rgb
from dataengine.data.layout import Dataset, Layout
from dataengine.errors import UserError

# Visible on dark thermal images and bright aprons; neighbours differ in hue and lightness.
COLOURS = (
    (255, 196, 0), (0, 200, 255), (255, 80, 120), (90, 230, 90), (200, 120, 255), (255, 140, 40), (60, 130, 255),
    (0, 220, 170), (255, 110, 230), (190, 230, 60), (170, 150, 120), (240, 240, 240),
)  # fmt: skip
_SPELT = {"ß": "ss", "æ": "ae", "Æ": "AE", "ø": "o", "Ø": "O", "œ": "oe", "ł": "l", "Ł": "L"}  # no accents to strip
_GOLDEN_ANGLE = 0.381966  # of a whole turn: the hues of further classes never come near to each other soon
_NO_IMAGE_COLOUR, _IGNORED_COLOUR = (44, 46, 50), (130, 130, 130)
_SHEET_COLOUR, _TEXT_COLOUR = (255, 255, 255), (30, 30, 30)
_DASHES = {"cut by the border, difficult, or not found": _TEXT_COLOUR, "ignored region": _IGNORED_COLOUR}  # legend
_CUT_VISIBLE = 0.999  # visible fraction below which an object counts as cut
_NEW_MARK = "new object", 2  # in the legend; half the side of the square at a corner of its box, in pixels


def class_colour(k: int) -> tuple[int, int, int]:
    """RGB colour of class k, another one for each: a fixed list, then hues that differ most from those before.

    >>> class_colour(0), len({class_colour(k) for k in range(200)})
    ((255, 196, 0), 200)
    """
    if k < len(COLOURS):
        return COLOURS[k]
    round_, saturation = divmod(k - len(COLOURS), 3)
    hue, value = ((k - len(COLOURS)) * _GOLDEN_ANGLE) % 1, (1.0, 0.78, 0.9)[round_ % 3]
    red, green, blue = colorsys.hsv_to_rgb(hue, (0.55, 0.85, 0.35)[saturation], value)
    return round(255 * red), round(255 * green), round(255 * blue)


def draw(
    image: Image.Image | np.ndarray | None, layout: Layout, scale: float = 1.0, new: np.ndarray | None = None
) -> Image.Image:
    """The image with the boxes of the layout drawn on it; None for `image` draws on a dark background.

    image: PIL, or uint8 (H, W) or (H, W, 3). scale: enlargement of the result; lines are one pixel wide up to 2x.
    Boxes of objects that are cut by the border or difficult are dashed. Ignored regions are grey and dashed. new: bool
    (N,), objects whose boxes have a filled square at a corner, to be told from those that the image had before.
    """
    size = round(layout.size[0] * scale), round(layout.size[1] * scale)
    if image is None:
        result = Image.new("RGB", size, _NO_IMAGE_COLOUR)
    else:
        result = image if isinstance(image, Image.Image) else Image.fromarray(image)
        result = result.convert("RGB")
        if result.size != size:
            result = result.resize(size, Image.Resampling.BICUBIC)
        elif result is image:
            result = result.copy()
    pen = ImageDraw.Draw(result)
    width = max(1, round(scale / 2))
    for corners in geometry.to_corners(layout.ignored) * scale:
        _outline(pen, corners, _IGNORED_COLOUR, width, dashed=True)
    dashed = layout.difficult | (layout.visible < _CUT_VISIBLE)
    for corners, label, is_dashed in zip(geometry.to_corners(layout.boxes) * scale, layout.labels, dashed, strict=True):
        _outline(pen, corners, class_colour(int(label)), width, bool(is_dashed))
    if new is not None:
        for corners, label in zip(geometry.to_corners(layout.boxes[new]) * scale, layout.labels[new], strict=True):
            _mark(pen, corners[np.argmin(corners.sum(1))], class_colour(int(label)))
    return result


def _mark(pen: ImageDraw.ImageDraw, corner: np.ndarray, colour: tuple) -> None:
    """The square of a new object, beyond the upper left corner of its box."""
    x, y = np.rint(corner)
    side = 2 * _NEW_MARK[1]
    pen.rectangle([x - side, y - side, x, y], fill=colour, outline=_TEXT_COLOUR)


def sample_sheet(dataset: Dataset, n: int, rng: np.random.Generator, side: int = 320) -> tuple[Image.Image, int]:
    """Contact sheet of n random samples with their boxes, in the order of the data set, and the number of samples
    among them whose image cannot be read and is missing on the sheet.

    side: longer side of each image on the sheet in pixels. Raises UserError if no image can be read.
    """
    chosen = sorted(rng.permutation(len(dataset))[:n])
    drawn, names = [], []
    for sample in (dataset.samples[i] for i in chosen):
        try:
            pixels = rgb(sample.image, sample.pixel_range)
        except ValueError:
            continue
        drawn.append(draw(pixels, sample.layout, side / max(sample.layout.size)))
        names.append(sample.name)
    if not drawn:
        raise UserError("none of the chosen images can be read; dataengine data check lists the reasons.")
    return contact_sheet(drawn, names, classes=dataset.classes), len(chosen) - len(drawn)


def _outline(pen: ImageDraw.ImageDraw, corners: np.ndarray, colour: tuple, width: int, dashed: bool) -> None:
    corners = np.rint(corners)  # lines between fractional end points have kinks
    for start, end in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        if not dashed:
            pen.line([*start, *end], fill=colour, width=width)
            continue
        pieces = max(1, round(np.hypot(*(end - start)) / 6)) * 2 + 1
        for i in range(0, pieces, 2):
            pen.line(
                [*(start + (end - start) * i / pieces), *(start + (end - start) * (i + 1) / pieces)], colour, width
            )


def contact_sheet(
    images: Sequence[Image.Image],
    captions: Sequence[str] | None = None,
    columns: int = 6,
    margin: int = 4,
    classes: Sequence[str] = (),
    marked: bool = False,
) -> Image.Image:
    """Images in rows on a white sheet, each with its caption below it. Columns are as wide as the widest image, rows as
    high as their highest. A legend at the bottom shows how `draw` draws `classes`, cut objects, ignored regions and,
    with `marked`, new objects."""
    assert images, "a contact sheet needs at least one image"
    assert captions is None or len(captions) == len(images), "images and captions differ in number"
    columns = min(columns, len(images))
    cell_width = max(image.width for image in images)
    heights = [max(image.height for image in images[i : i + columns]) for i in range(0, len(images), columns)]
    line = 14 if captions is not None else 0
    tops = np.cumsum([margin, *(height + line + margin for height in heights)]).tolist()
    size = columns * (cell_width + margin) + margin, tops[-1]
    legend = _legend(classes, size[0], marked)
    sheet = Image.new("RGB", (size[0], size[1] + legend.height), _SHEET_COLOUR)
    sheet.paste(legend, (0, size[1]))
    pen = ImageDraw.Draw(sheet)
    for i, image in enumerate(images):
        row = i // columns
        x, y = margin + i % columns * (cell_width + margin), tops[row]
        sheet.paste(image, (x, y))
        if captions is not None:
            caption = _shortened(in_ascii(captions[i]), cell_width, pen)
            pen.text((x + 1, y + heights[row] + 1), caption, fill=_TEXT_COLOUR)
    return sheet


def save_sheet(sheet: Image.Image, out: Path) -> None:
    """Write a picture for a person to look at. Raises UserError where that fails, also for an unknown suffix."""
    try:
        sheet.save(out)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{out} cannot be written ({reason}); give a .png file in a writable folder") from error


def _legend(classes: Sequence[str], width: int, marked: bool = False) -> Image.Image:
    """A legend of this width: a coloured square and the name of each class, and what dashes mean, in as many lines as
    needed; of no height without classes."""
    places, x, y = [], 6, 0
    pen = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    entries = [*map(in_ascii, classes), *(_DASHES if classes else ()), *([_NEW_MARK[0]] if marked else ())]
    for name in entries:
        needed = round(pen.textlength(name)) + 30
        if x > 6 and x + needed > width:
            x, y = 6, y + 16
        places.append((x, y))
        x += needed
    legend = Image.new("RGB", (width, y + 18 if places else 0), _SHEET_COLOUR)
    pen = ImageDraw.Draw(legend)
    for i, ((x, y), name) in enumerate(zip(places, entries, strict=True)):
        if i < len(classes):
            pen.rectangle([x, y + 3, x + 9, y + 12], fill=class_colour(i), outline=_TEXT_COLOUR)
        elif name == _NEW_MARK[0]:
            _mark(pen, np.array([x + 7, y + 10]), COLOURS[0])
        else:
            square = np.array([[x, y + 3], [x + 9, y + 3], [x + 9, y + 12], [x, y + 12]])
            _outline(pen, square, _DASHES[name], 1, dashed=True)
        pen.text((x + 14, y + 2), name, fill=_TEXT_COLOUR)
    return legend


def in_ascii(text: str) -> str:
    """A text in the characters that the font of sheets has, which is that of Pillow, the same on every machine: without
    accents, and other characters as their numbers.

    >>> in_ascii("Wassermotorräder"), in_ascii("Straße_004"), in_ascii("船")
    ('Wassermotorrader', 'Strasse_004', 'U+8239')
    """
    plain = unicodedata.normalize("NFKD", "".join(_SPELT.get(c, c) for c in text))
    return "".join(c if c.isascii() else f"U+{ord(c):04X}" for c in plain if not unicodedata.combining(c))


def _shortened(text: str, width: int, pen: ImageDraw.ImageDraw) -> str:
    """The text, or its beginning and "...", at most `width` pixels wide."""
    if pen.textlength(text) <= width:
        return text
    while text and pen.textlength(text + "...") > width:
        text = text[:-1]
    return text + "..."
