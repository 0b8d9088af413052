"""What the ground looks like, place by place: embeddings of real images on a grid, interpolated between its nodes.

After Graikos et al. (2024, section 3.3), who interpolate a grid of embeddings over a large canvas. Nodes next to each
other show neighbouring parts of one image, so neighbourhoods of a world look as those of the images do.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dataengine import weights
from dataengine.data import images
from dataengine.data.formats import labelled_or_plain
from dataengine.errors import UserError
from dataengine.render.layout_pipeline import LayoutPipeline
from dataengine.render.reference import load_encoder
from dataengine.seeds import Stream
from dataengine.world.fields import cell_generator

PART_PX = 256  # side of the parts of images that are embedded
MAX_IMAGES, MAX_PARTS = 64, 4  # images used, and parts along each side of one
NODES = 4  # of a side of the squares of nodes that show one image


@dataclass(frozen=True)
class Style:
    """Embeddings over the plane. parts: for each image float32 (rows, columns, E), of its parts. spacing: pixels of the
    world between nodes."""

    parts: tuple[np.ndarray, ...]
    seed: int
    spacing: int

    @property
    def identity(self) -> str:
        """Hash of all embeddings."""
        return hashlib.sha256(b"".join(np.ascontiguousarray(part).tobytes() for part in self.parts)).hexdigest()[:16]

    def node(self, column: int, row: int) -> np.ndarray:
        """The embedding (E,) at a node of the grid."""
        (x, i), (y, j) = divmod(column, NODES), divmod(row, NODES)
        part = self.parts[cell_generator(self.seed, Stream.WORLD_STYLE, x, y).integers(len(self.parts))]
        return part[j % part.shape[0], i % part.shape[1]]

    def at(self, x: float, y: float) -> np.ndarray:
        """The embedding (E,) float32 at a place in pixels of the world, bilinear between the four nodes around it.

        >>> style = Style((np.float32([[[0.0]]]), np.float32([[[1.0]]])), 0, 100)
        >>> bool(style.node(0, 0)[0] <= style.at(50, 0)[0] <= 1)
        True
        """
        column, row = int(x // self.spacing), int(y // self.spacing)
        u, v = x / self.spacing - column, y / self.spacing - row
        corners = ((0, 0, (1 - u) * (1 - v)), (1, 0, u * (1 - v)), (0, 1, (1 - u) * v), (1, 1, u * v))
        total = sum(weight * self.node(column + i, row + j).astype(np.float64) for i, j, weight in corners)
        return total.astype(np.float32)


@dataclass(frozen=True)
class Uniform:
    """One embedding (E,) everywhere."""

    embedding: np.ndarray

    def at(self, x: float, y: float) -> np.ndarray:
        """The embedding at a place."""
        return self.embedding


def load_style(folder: Path, encoder: Path | None, renderer: LayoutPipeline, seed: int, spacing: int) -> Style:
    """The style of a folder of images, labelled or not, for a whole-image renderer that takes references. encoder: that
    it was trained with; the packaged one if None.

    Raises UserError for a renderer that does not, for another encoder than its own, and for a folder without images.
    """
    if not renderer.reference_width:
        raise UserError(f"--like {folder}: this whole-image renderer was trained without reference images; give one "
                        "that was trained with them (--ground).")  # fmt: skip
    encode = load_encoder(encoder or weights.packaged("encoder") / "model.onnx")
    parts = []
    for sample in labelled_or_plain(folder):
        try:
            image = images.rgb(sample.image, sample.pixel_range)
        except ValueError:
            continue  # an image that cannot be read looks like nothing
        rows, columns = (min(MAX_PARTS, max(1, side // PART_PX)) for side in image.shape[:2])
        embedded = encode(_parts_of(image, rows, columns))[:, 0]
        parts.append(embedded.reshape(rows, columns, -1).astype(np.float32))
        if len(parts) == MAX_IMAGES:
            break
    if not parts:
        raise UserError(f"--like {folder}: has no image that can be read.")
    if parts[0].shape[-1] != renderer.reference_width:
        raise UserError(f"--like {folder}: the encoder gives {parts[0].shape[-1]} numbers, the renderer was trained "
                        f"with {renderer.reference_width}; give the encoder that it was trained with.")  # fmt: skip
    return Style(tuple(parts), seed, spacing)


def _parts_of(image: np.ndarray, rows: int, columns: int) -> Sequence[np.ndarray]:
    """Squares of PART_PX side by side, or the whole of a smaller image."""
    side = min(PART_PX, *image.shape[:2])
    return [image[j * side :][:side, i * side :][:, :side] for j in range(rows) for i in range(columns)]
