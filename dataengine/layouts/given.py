"""One layout from a text file, for `dataengine synth --layout`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dataengine import geometry
from dataengine.data.dota import parse_object
from dataengine.data.label_files import columns
from dataengine.data.layout import Kind, Layout, class_key
from dataengine.data.parse import is_number, number
from dataengine.errors import UserError
from dataengine.files import read_text
from dataengine.layouts.constraints import MIN_VISIBLE

MIN_SIDE_PX = 1.0
MIN_FILLED = 0.8  # of the rectangle around four corners


class GivenSampler:
    """The same layout each time."""

    def __init__(self, layout: Layout):
        self.layout = layout
        self.classes, self.kind, self.size = layout.classes, layout.kind, layout.size

    def sample(self, rng: np.random.Generator) -> Layout:
        """The layout."""
        return self.layout


def read_layout(
    file: Path, size: int, classes: Sequence[str], numbered: Sequence[str], kind: Kind = "obb", scale: float = 1.0
) -> Layout:
    """The layout of a text file with an object a line, for images of size x size pixels.

    A line is `x1 y1 ... x4 y4 class` in pixels, as in DOTA, which are multiplied by `scale`; or `number x1 y1 ... x4
    y4` with corners from 0 to 1, as in AeroGen's demo and in YOLO. `numbered`: the classes that numbers refer to, which
    are those of the model. classes: of the layout. DOTA's difficulty is kept. Raises UserError with the line at fault,
    also for a class that is not among `classes` and a box below a pixel, far from a rectangle, or hardly in the image.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder) / "demo.txt"
    ...     _ = file.write_text("1 0.25 0.25 0.5 0.25 0.5 0.375 0.25 0.375")
    ...     layout = read_layout(file, 64, ("ship", "car"), numbered=("car", "ship"))
    >>> layout.names(), layout.boxes.tolist()
    (['ship'], [[24.0, 20.0, 16.0, 8.0, 0.0]])
    """
    known = {class_key(name): i for i, name in enumerate(classes)}
    boxes, labels, difficult = [], [], []
    for line_number, line in enumerate(read_text(file).splitlines(), 1):
        row = columns(line)
        if not row or (not boxes and row[0].partition(":")[0] in ("imagesource", "gsd")):
            continue
        try:
            name, corners, level = _numbered(row, numbered) if _is_numbered(row) else _named(row, known)
            box = _box(corners * (size if _is_numbered(row) else scale), size)
            if class_key(name) not in known:
                raise ValueError(f"the class {name} is not one of this run, which are {', '.join(classes)}")
        except ValueError as error:
            raise UserError(f"--layout {file}:{line_number}: {error}.") from None
        boxes.append(box)
        labels.append(known[class_key(name)])
        difficult.append(level > 0)
    if not boxes:
        raise UserError(f"--layout {file}: has no object; write one a line, such as 10 10 40 10 40 20 10 20 ship.")
    visible = np.minimum(_visible(np.array(boxes), size), 1)
    layout = Layout(
        boxes, labels, tuple(classes), (size, size), "obb", difficult=difficult, visible=visible, origins=(file.name,)
    )
    return layout.in_kind(kind)


def _box(corners: np.ndarray, size: int) -> np.ndarray:
    """The box (5,) of four corners (4, 2) in pixels. Raises ValueError for what cannot be drawn as it is."""
    box = geometry.from_corners(corners[None].astype(np.float32))[0]
    width, height = box[2:4]
    if min(width, height) < MIN_SIDE_PX:
        raise ValueError(
            f"its box is {width:.3g} x {height:.3g} pixels, which is too small to draw; coordinates from 0 to 1 need a "
            "class number in front, not a name at the end"
        )
    x, y = corners.T
    filled = abs(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1))) / 2 / (width * height)
    if filled < MIN_FILLED:
        raise ValueError(f"its corners are no rectangle: they fill {filled:.0%} of the one around them")
    if _visible(box[None], size)[0] < MIN_VISIBLE:
        raise ValueError(
            f"less than {MIN_VISIBLE:.0%} of its box lies in the image of {size} pixels; see --size and --layout-scale"
        )
    return box


def _visible(boxes: np.ndarray, size: int) -> np.ndarray:
    """Share of each box (N, 5) that lies in the image, (N,)."""
    image = np.float32([[size / 2, size / 2, size, size, 0]])
    return geometry.intersection(boxes.astype(np.float32), image)[:, 0] / (boxes[:, 2] * boxes[:, 3])


def _is_numbered(row: list[str]) -> bool:
    """Whether a row is a class number with corners from 0 to 1; those of DOTA end with a name."""
    return len(row) >= 9 and all(map(is_number, row))


def _numbered(row: list[str], classes: Sequence[str]) -> tuple[str, np.ndarray, float]:
    if len(row) != 9:
        raise ValueError(f"has {len(row)} numbers; a class number and four corners are 9")
    if not (row[0].isascii() and row[0].isdecimal() and int(row[0]) < len(classes)):
        raise ValueError(f"the class number {row[0]} is not one of 0 to {len(classes) - 1}, the classes of the model")
    corners = np.array([number(field, f"coordinate {i}") for i, field in enumerate(row[1:], 1)]).reshape(4, 2)
    if np.abs(corners).max() > 2:
        raise ValueError(
            "coordinates after a class number are fractions of the side, from 0 to 1; in pixels, end the line with the "
            "name of the class"
        )
    return classes[int(row[0])], corners, 0.0


def _named(row: list[str], known: dict[str, int]) -> tuple[str, np.ndarray, float]:
    corners, name, level = parse_object(row, known)
    return name, np.array(corners).reshape(4, 2), level
