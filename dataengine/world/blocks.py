"""A world on disk: blocks in place of shards, each a picture and a record, made in any order and by any process."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import shapely
from PIL import Image

from dataengine import geometry
from dataengine.errors import UserError
from dataengine.files import parse_json, read_bytes, read_text, remove_unfinished, write_whole
from dataengine.world.noise import Rect
from dataengine.world.world import Region

BLOCK_PX = 512
STRIP_PX = 4096  # blocks are made strip by strip, so that the windows kept for the next row do not grow with the width


class Regions(Protocol):
    """`World` or `JudgedWorld`."""

    def region(self, left: int, top: int, width: int, height: int) -> Region: ...


@dataclass(frozen=True)
class BlockFolder:
    """The blocks of a world of size x size pixels, in a folder."""

    folder: Path
    size: int

    def places(self) -> list[Rect]:
        """All blocks, in the order in which making them costs least."""
        starts = range(0, self.size, BLOCK_PX)
        per_strip = STRIP_PX // BLOCK_PX
        strips = [starts[i : i + per_strip] for i in range(0, len(starts), per_strip)]
        return [self._block(left, top) for strip in strips for top in starts for left in strip]

    def rows(self) -> list[list[Rect]]:
        """All blocks, row by row from the top."""
        starts = range(0, self.size, BLOCK_PX)
        return [[self._block(left, top) for left in starts] for top in starts]

    def _block(self, left: int, top: int) -> Rect:
        return Rect(left, top, min(BLOCK_PX, self.size - left), min(BLOCK_PX, self.size - top))

    def _file(self, block: Rect, suffix: str) -> Path:
        return self.folder / f"{block.top // BLOCK_PX:05}_{block.left // BLOCK_PX:05}{suffix}"

    def make(self, world: Regions, done: Callable[[int, int], None] = lambda done, total: None) -> None:
        """Make all blocks that are not there. The record of a block is written after its picture, so that a block with
        a record is whole."""
        self.folder.mkdir(parents=True, exist_ok=True)
        remove_unfinished(self.folder)
        places = self.places()
        for number, block in enumerate(places, 1):
            if not self._file(block, ".json").exists():
                self._write(block, world.region(block.left, block.top, block.width, block.height))
            done(number, len(places))

    def _write(self, block: Rect, region: Region) -> None:
        buffer = io.BytesIO()
        Image.fromarray(region.image).save(buffer, "PNG", compress_level=1)
        write_whole(self._file(block, ".png"), buffer.getvalue())
        shown, names = region.objects, region.labels.names()
        points = anchors(shown.boxes, self.size)
        own = ((points >= (block.left, block.top)) & (points < (block.right, block.bottom))).all(1)
        objects = [
            {"id": shown.ids[i].tolist(), "class": names[i], "box": shown.boxes[i].tolist(),
             "difficult": bool(region.labels.difficult[i])}
            for i in np.flatnonzero(own)
        ]  # fmt: skip
        sha256 = hashlib.sha256(buffer.getvalue()).hexdigest()
        write_whole(self._file(block, ".json"), json.dumps({"sha256": sha256, "objects": objects}) + "\n")

    def picture(self, block: Rect) -> np.ndarray:
        """The picture of a block, uint8 (height, width, 3). Raises UserError if it is not what was written."""
        file = self._file(block, ".png")
        data = read_bytes(file)
        if hashlib.sha256(data).hexdigest() != self._record(block)["sha256"]:
            raise UserError(f"{file}: is not what was written; delete it and its .json, and run the command again.")
        return np.asarray(Image.open(io.BytesIO(data)))

    def objects(self) -> Iterator[dict]:
        """The objects that the world shows, once each, whole, row by row of blocks."""
        for row in self.rows():
            for block in row:
                yield from self._record(block)["objects"]

    def _record(self, block: Rect) -> dict:
        file = self._file(block, ".json")
        try:
            return parse_json(read_text(file))
        except ValueError as error:
            raise UserError(f"{file} {error}; delete it, and run the same command again.") from None


def anchors(boxes: np.ndarray, size: int) -> np.ndarray:
    """A point in the visible part of each box (N, 5), (N, 2): the block that it lies in has the object. It is the
    centre where the world of size x size pixels shows that.

    >>> anchors(np.array([[50.0, 50, 10, 10, 0], [-2, 50, 10, 4, 0]]), 100).tolist()
    [[50.0, 50.0], [1.5, 50.0]]
    """
    points = boxes[:, :2].copy()
    for i in np.flatnonzero(((points < 0) | (points >= size)).any(1)):
        corners = geometry.to_corners(boxes[i : i + 1])[0]
        seen = shapely.Polygon(corners).intersection(shapely.box(0, 0, size, size))
        points[i] = np.clip([seen.centroid.x, seen.centroid.y], 0, np.nextafter(size, 0)) if not seen.is_empty else -1
    return points
