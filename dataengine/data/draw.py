"""Layouts and samples as pictures: boxes in class colours, and contact sheets."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from dataengine import geometry
from dataengine.data.layout import Dataset, Layout
from dataengine.errors import UserError

# Light enough for dark thermal images, strong enough for bright aprons; neighbours differ in hue and lightness.
COLOURS = (
    (255, 196, 0), (0, 200, 255), (255, 80, 120), (90, 230, 90), (200, 120, 255), (255, 140, 40), (60, 130, 255),
    (0, 220, 170), (255, 110, 230), (190, 230, 60), (170, 150, 120), (240, 240, 240),
)  # fmt: skip
_GROUND, _IGNORED, _PAPER, _INK = (44, 46, 50), (130, 130, 130), (255, 255, 255), (30, 30, 30)


def draw(image: Image.Image | np.ndarray | None, layout: Layout, scale: float = 1.0) -> Image.Image:
    """The layout's boxes as thin outlines over the image, or over a dark ground where `image` is None.

    image: PIL, or uint8 (H, W) or (H, W, 3). scale: enlargement of the picture; lines stay one pixel wide up to 2x.
    Objects cut by the border or marked difficult are dashed by drawing every other piece; ignored regions are grey.
    """
    size = round(layout.size[0] * scale), round(layout.size[1] * scale)
    if image is None:
        picture = Image.new("RGB", size, _GROUND)
    else:
        picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
        picture = picture.convert("RGB")
        if picture.size != size:
            picture = picture.resize(size, Image.Resampling.BICUBIC)
        elif picture is image:
            picture = picture.copy()
    pen = ImageDraw.Draw(picture)
    width = max(1, round(scale / 2))
    for corners in geometry.to_corners(layout.ignored) * scale:
        _outline(pen, corners, _IGNORED, width, dashed=True)
    dashed = layout.difficult | (layout.visible < 0.999)
    for corners, label, broken in zip(geometry.to_corners(layout.boxes) * scale, layout.labels, dashed, strict=True):
        _outline(pen, corners, COLOURS[label % len(COLOURS)], width, bool(broken))
    return picture


def sample_sheet(dataset: Dataset, n: int, rng: np.random.Generator, side: int = 320) -> tuple[Image.Image, int]:
    """Contact sheet of n random samples with their boxes, each `side` pixels on its longer side, in the data set's
    order; and how many more were chosen but have no image that can be read."""
    chosen = sorted(rng.permutation(len(dataset))[:n])
    pictures, names = [], []
    for sample in (dataset.samples[i] for i in chosen):
        try:
            with Image.open(sample.image) as image:
                pictures.append(draw(image, sample.layout, side / max(sample.layout.size)))
        except (OSError, SyntaxError):
            continue
        names.append(sample.name)
    if not pictures:
        raise UserError("none of the chosen images can be read; dataengine data check names them.")
    return contact_sheet(pictures, names, classes=dataset.classes), len(chosen) - len(pictures)


def _outline(pen: ImageDraw.ImageDraw, corners: np.ndarray, colour: tuple, width: int, dashed: bool) -> None:
    corners = np.rint(corners)  # a line between fractional ends would have kinks
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
    """Pictures in rows on a white sheet, in cells of the largest one's size, each with its caption below it; at the
    foot the colours of `classes`, which `draw` gives by position."""
    assert images, "a contact sheet needs at least one picture"
    assert captions is None or len(captions) == len(images), "one caption a picture"
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    cell_width, cell_height = max(image.width for image in images), max(image.height for image in images)
    line = 14 if captions is not None else 0
    step_x, step_y = cell_width + margin, cell_height + line + margin
    size = columns * step_x + margin, rows * step_y + margin
    legend = _legend(classes, size[0])
    sheet = Image.new("RGB", (size[0], size[1] + legend.height), _PAPER)
    sheet.paste(legend, (0, size[1]))
    pen = ImageDraw.Draw(sheet)
    for i, image in enumerate(images):
        x, y = margin + i % columns * step_x, margin + i // columns * step_y
        sheet.paste(image, (x, y))
        if captions is not None:
            pen.text((x + 1, y + cell_height + 1), _shortened(captions[i], cell_width, pen), fill=_INK)
    return sheet


def _legend(classes: Sequence[str], width: int) -> Image.Image:
    """A coloured square and the name of each class, in as many lines as they need; no line without classes."""
    places, x, y = [], 6, 0
    pen = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    for name in classes:
        needed = round(pen.textlength(name)) + 30
        if x > 6 and x + needed > width:
            x, y = 6, y + 16
        places.append((x, y))
        x += needed
    legend = Image.new("RGB", (width, y + 18 if places else 0), _PAPER)
    pen = ImageDraw.Draw(legend)
    for i, ((x, y), name) in enumerate(zip(places, classes, strict=True)):
        pen.rectangle([x, y + 3, x + 9, y + 12], fill=COLOURS[i % len(COLOURS)], outline=_INK)
        pen.text((x + 14, y + 2), name, fill=_INK)
    return legend


def _shortened(text: str, width: int, pen: ImageDraw.ImageDraw) -> str:
    if pen.textlength(text) <= width:
        return text
    while text and pen.textlength(text + "...") > width:
        text = text[:-1]
    return text + "..."
