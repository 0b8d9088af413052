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
    are those of the model. classes: of the layout. Raises UserError with the line at fault, also for a class that is
    not among `classes` and for a box that lies outside of the image.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder) / "demo.txt"
    ...     _ = file.write_text("1 0.25 0.25 0.5 0.25 0.5 0.375 0.25 0.375")
    ...     layout = read_layout(file, 64, ("ship", "car"), numbered=("car", "ship"))
    >>> layout.names(), layout.boxes.tolist()
    (['ship'], [[24.0, 20.0, 16.0, 8.0, 0.0]])
    """
    known, boxes, labels = {class_key(name): i for i, name in enumerate(classes)}, [], []
    for line_number, line in enumerate(read_text(file).splitlines(), 1):
        row = columns(line)
        if not row or (not boxes and row[0].partition(":")[0] in ("imagesource", "gsd")):
            continue
        try:
            name, corners = _numbered(row, numbered) if _is_numbered(row) else _named(row, known)
            corners = corners * (size if _is_numbered(row) else scale)
            if class_key(name) not in known:
                raise ValueError(f"the class {name} is not one of this run, which are {', '.join(classes)}")
            box = geometry.from_corners(corners[None].astype(np.float32))[0]
            if not (box[2] > 0 and box[3] > 0):
                raise ValueError("its box has no area")
            if (corners.max(0) <= 0).any() or (corners.min(0) >= size).any():
                raise ValueError(f"its box lies outside of the image of {size} pixels; see --size and --layout-scale")
        except ValueError as error:
            raise UserError(f"--layout {file}:{line_number}: {error}.") from None
        boxes.append(box)
        labels.append(known[class_key(name)])
    if not boxes:
        raise UserError(f"--layout {file}: has no object; write one a line, such as 10 10 40 10 40 20 10 20 ship.")
    layout = Layout(boxes, labels, tuple(classes), (size, size), "obb", origins=(file.name,))
    return layout.in_kind(kind)


def _is_numbered(row: list[str]) -> bool:
    """Whether a row is a class number with corners from 0 to 1; those of DOTA end with a name."""
    return len(row) == 9 and all(map(is_number, row))


def _numbered(row: list[str], classes: Sequence[str]) -> tuple[str, np.ndarray]:
    if not row[0].isdecimal() or int(row[0]) >= len(classes):
        raise ValueError(f"the class number {row[0]} is not one of 0 to {len(classes) - 1}, the classes of the model")
    corners = np.array([number(field, f"coordinate {i}") for i, field in enumerate(row[1:], 1)]).reshape(4, 2)
    if np.abs(corners).max() > 2:
        raise ValueError("coordinates after a class number are fractions of the side, from 0 to 1; in pixels, end the "
                         "line with the name of the class")  # fmt: skip
    return classes[int(row[0])], corners


def _named(row: list[str], known: dict[str, int]) -> tuple[str, np.ndarray]:
    corners, name, _ = parse_object(row, known)
    return name, np.array(corners).reshape(4, 2)
