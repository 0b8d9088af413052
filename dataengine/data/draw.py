"""Images with their boxes drawn in class colours, and contact sheets."""

from __future__ import annotations

from collections.abc import Sequence

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
_NO_IMAGE_COLOUR, _IGNORED_COLOUR = (44, 46, 50), (130, 130, 130)
_SHEET_COLOUR, _TEXT_COLOUR = (255, 255, 255), (30, 30, 30)
_CUT_VISIBLE = 0.999  # visible fraction below which an object counts as cut


def draw(image: Image.Image | np.ndarray | None, layout: Layout, scale: float = 1.0) -> Image.Image:
    """The image with the boxes of the layout drawn on it; None for `image` draws on a dark background.

    image: PIL, or uint8 (H, W) or (H, W, 3). scale: enlargement of the result; lines are one pixel wide up to 2x.
    Boxes of objects that are cut by the border or difficult are dashed. Ignored regions are grey and dashed.
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
        _outline(pen, corners, COLOURS[label % len(COLOURS)], width, bool(is_dashed))
    return result


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
) -> Image.Image:
    """Images in rows on a white sheet, in cells of the size of the largest, each with its caption below it. A legend
    at the bottom shows the colours in which `draw` draws `classes`."""
    assert images, "a contact sheet needs at least one image"
    assert captions is None or len(captions) == len(images), "images and captions differ in number"
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    cell_width, cell_height = np.array([image.size for image in images]).max(0).tolist()
    line = 14 if captions is not None else 0
    step_x, step_y = cell_width + margin, cell_height + line + margin
    size = columns * step_x + margin, rows * step_y + margin
    legend = _legend(classes, size[0])
    sheet = Image.new("RGB", (size[0], size[1] + legend.height), _SHEET_COLOUR)
    sheet.paste(legend, (0, size[1]))
    pen = ImageDraw.Draw(sheet)
    for i, image in enumerate(images):
        x, y = margin + i % columns * step_x, margin + i // columns * step_y
        sheet.paste(image, (x, y))
        if captions is not None:
            pen.text((x + 1, y + cell_height + 1), _shortened(captions[i], cell_width, pen), fill=_TEXT_COLOUR)
    return sheet


def _legend(classes: Sequence[str], width: int) -> Image.Image:
    """A legend of this width: a coloured square and the name of each class, in as many lines as needed."""
    places, x, y = [], 6, 0
    pen = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    for name in classes:
        needed = round(pen.textlength(name)) + 30
        if x > 6 and x + needed > width:
            x, y = 6, y + 16
        places.append((x, y))
        x += needed
    legend = Image.new("RGB", (width, y + 18 if places else 0), _SHEET_COLOUR)
    pen = ImageDraw.Draw(legend)
    for i, ((x, y), name) in enumerate(zip(places, classes, strict=True)):
        pen.rectangle([x, y + 3, x + 9, y + 12], fill=COLOURS[i % len(COLOURS)], outline=_TEXT_COLOUR)
        pen.text((x + 14, y + 2), name, fill=_TEXT_COLOUR)
    return legend


def _shortened(text: str, width: int, pen: ImageDraw.ImageDraw) -> str:
    """The text, or its beginning and "...", at most `width` pixels wide."""
    if pen.textlength(text) <= width:
        return text
    while text and pen.textlength(text + "...") > width:
        text = text[:-1]
    return text + "..."
