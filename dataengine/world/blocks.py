"""A world on disk: blocks in place of shards, each a picture and a record, made in any order and by any process."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import shapely
from PIL import Image

from dataengine import geometry
from dataengine.errors import UserError
from dataengine.files import ensure_folder, parse_json, read_bytes, read_text, remove_unfinished, write_whole
from dataengine.world.layouts import WorldObjects
from dataengine.world.noise import Rect

if TYPE_CHECKING:
    from dataengine.world.world import Region

BLOCK_PX = 512
CHUNK_BLOCKS = 4  # on each side of what is made at a time: neighbours share most of what they are made from
AGAIN = "and the same dataengine world command makes it again"


class Regions(Protocol):
    """`World`, `JudgedWorld`, or a coarser level of one."""

    def prepare(self, rects: Sequence[Rect]) -> None: ...

    def region(self, left: int, top: int, width: int, height: int) -> Region: ...


@dataclass(frozen=True)
class BlockFolder:
    """The blocks of a world of size x size pixels, in a folder. side: of a block in pixels."""

    folder: Path
    size: int
    side: int = BLOCK_PX

    def places(self) -> list[Rect]:
        """All blocks, in the order in which they are made."""
        return [block for chunk in self.chunks() for block in chunk]

    def rows(self) -> list[list[Rect]]:
        """All blocks, row by row from the top."""
        return [[self._block(left, top) for left in self._starts()] for top in self._starts()]

    def chunks(self) -> list[list[Rect]]:
        """All blocks, in squares that one worker makes at a time."""
        starts = self._starts()
        cuts = [starts[i : i + CHUNK_BLOCKS] for i in range(0, len(starts), CHUNK_BLOCKS)]
        return [[self._block(left, top) for top in tops for left in lefts] for tops in cuts for lefts in cuts]

    def _starts(self) -> range:
        return range(0, self.size, self.side)

    def _block(self, left: int, top: int) -> Rect:
        return Rect(left, top, min(self.side, self.size - left), min(self.side, self.size - top))

    def name(self, block: Rect) -> str:
        """Name of a block's files: its row and column.

        >>> BlockFolder(Path("blocks"), 2048).name(Rect(1024, 0, 512, 512))
        '00000_00002'
        """
        return f"{block.top // self.side:05}_{block.left // self.side:05}"

    def made(self) -> frozenset[str]:
        """Names of the blocks that are there. The record of a block is written after its picture, so a block with a
        record is whole."""
        return frozenset(file.stem for file in self.folder.glob("*.json"))

    def prepare(self) -> None:
        """Make the folder, and remove what a kill left unfinished."""
        ensure_folder(self.folder)
        remove_unfinished(self.folder)

    def make(self, world: Regions, done: Callable[[int, int], None] = lambda done, total: None) -> None:
        """Make all blocks that are not there."""
        self.prepare()
        total, there, number = len(self.places()), self.made(), 0
        for chunk in self.chunks():
            missing = [block for block in chunk if self.name(block) not in there]
            number += len(chunk) - len(missing)
            for name, content in self.files_of(missing, world):
                self.put(name, content)
                if name.endswith(".json"):
                    number += 1
                    done(number, total)

    def files_of(self, blocks: Sequence[Rect], world: Regions) -> Iterator[tuple[str, bytes]]:
        """Name and content of the files of blocks that are neighbours."""
        world.prepare(blocks)
        for block in blocks:
            yield from self.files(block, world).items()

    def files(self, block: Rect, world: Regions) -> dict[str, bytes]:
        """Name and content of the files of a block: the picture, then the record."""
        region = world.region(block.left, block.top, block.width, block.height)
        buffer = io.BytesIO()
        Image.fromarray(region.image).save(buffer, "PNG", compress_level=1)
        shown, names = region.objects, region.labels.names()
        objects = [
            {"id": shown.ids[i].tolist(), "class": names[i], "box": shown.boxes[i].tolist(),
             "difficult": bool(region.labels.difficult[i])}
            for i in _own(shown, block, self.size)
        ]  # fmt: skip
        gone, classes = region.erased, region.labels.classes
        erased = [
            {"id": gone.ids[i].tolist(), "class": classes[gone.labels[i]], "box": gone.boxes[i].tolist()}
            for i in _own(gone, block, self.size)
        ]
        sha256 = hashlib.sha256(buffer.getvalue()).hexdigest()
        content = {"sha256": sha256, "objects": objects, "erased": erased}
        content["checksum"] = _checksum(content)
        return {
            f"{self.name(block)}.png": buffer.getvalue(),
            f"{self.name(block)}.json": (json.dumps(content) + "\n").encode(),
        }

    def put(self, name: str, content: bytes) -> None:
        """Write one file of a block."""
        write_whole(self.folder / name, content)

    def store(self, chunk: int) -> BlockFolder:
        """Where a worker puts the files of a chunk (`worker.Stores`): each block counts as soon as it is written."""
        return self

    def close(self) -> None:
        """Nothing to do: each file is in its place."""

    abandon = close

    def picture(self, block: Rect) -> np.ndarray:
        """The picture of a block, uint8 (height, width, 3). Raises UserError if it is not what was written."""
        file = self.folder / f"{self.name(block)}.png"
        try:
            data = read_bytes(file)
        except OSError as error:
            raise UserError(f"{file} cannot be read ({error.strerror}); delete its .json, {AGAIN}.") from None
        if hashlib.sha256(data).hexdigest() != self.record(block)["sha256"]:
            raise UserError(f"{file}: is not what was written; delete its .json, {AGAIN}.")
        return np.asarray(Image.open(io.BytesIO(data)))

    def region(self, left: int, top: int, width: int, height: int) -> np.ndarray:
        """The pixels of a rectangle within the world, uint8 (height, width, 3)."""
        rect, image = Rect(left, top, width, height), np.empty((height, width, 3), np.uint8)
        for column, row in rect.cells(self.side):
            block = self._block(column * self.side, row * self.side)
            own, theirs = rect.common(block)
            image[own] = self.picture(block)[theirs]
        return image

    def objects(self) -> Iterator[dict]:
        """The objects that the world shows, once each, whole, row by row of blocks."""
        for row in self.rows():
            for block in row:
                yield from self.record(block)["objects"]

    def erased(self) -> Iterator[dict]:
        """Those that the filter removed, as `objects`."""
        for row in self.rows():
            for block in row:
                yield from self.record(block)["erased"]

    def record(self, block: Rect) -> dict:
        """The record of a block. Raises UserError if it is missing or not what was written."""
        file = self.folder / f"{self.name(block)}.json"
        try:
            content = parse_json(read_text(file))
            checksum = content.pop("checksum")
        except (ValueError, KeyError, AttributeError) as error:
            raise UserError(f"{file}: no record of a block ({error}); delete it, {AGAIN}.") from None
        if checksum != _checksum(content):
            raise UserError(f"{file}: is not what was written; delete it, {AGAIN}.")
        return content


def _checksum(content: dict) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


def _own(objects: WorldObjects, block: Rect, size: int) -> np.ndarray:
    """Indices of the objects that belong to a block."""
    points = anchors(objects.boxes, size)
    return np.flatnonzero(((points >= (block.left, block.top)) & (points < (block.right, block.bottom))).all(1))


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
