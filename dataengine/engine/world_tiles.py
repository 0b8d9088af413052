"""A finished world cut into tiles, as a data set, block by block."""

from __future__ import annotations

import tempfile
from pathlib import Path

from dataengine.data import formats
from dataengine.data.layout import Dataset, Sample
from dataengine.data.tile import MIN_VISIBLE, cut
from dataengine.engine.world_folder import StoredWorld, WorldFolder, labels_at
from dataengine.errors import UserError
from dataengine.world.export import NAME


def write_tiles(
    world: Path, out: Path, size: int = 1024, overlap: int = 200, to: str = "coco", level: int = 0,
    min_visible: float = MIN_VISIBLE,
) -> dict:  # fmt: skip
    """Cut a level of a finished world into a data set in the new folder `out`, and return its counts.

    The options are as of `data.tile.tile`, the tiles those of `dataengine data tile`; worlds of any size are cut in the
    memory of a few blocks. Raises UserError for invalid sizes, a folder that is not empty, and a world that is not
    finished.
    """
    if not 0 <= overlap < size:
        raise UserError(f"tiles of {size} pixels cannot overlap by {overlap}; the overlap must be at least 0 and less")
    stored = StoredWorld.load(WorldFolder(world).world)
    folder = WorldFolder(world, stored.levels)
    if not folder.sums.exists():
        raise UserError(f"{world}: this world is not finished; continue it with the same dataengine world command.")
    layout, _ = labels_at(folder, stored, level)
    blocks = folder.blocks(level, stored.size)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".tiles-", dir=out.parent) as work:
        sample = Sample(NAME, folder.level(level) / "images" / f"{NAME}.tif", layout)

        def part(window):
            return blocks.region(*window)

        tiles = cut(sample, Path(work), layout.size, part, size, overlap, min_visible)
        dataset = Dataset(layout.classes, tiles, layout.kind, name=NAME)
        formats.write(dataset, out, to, split="train")
    objects = [tile.layout for tile in tiles]
    return {
        "folder": str(out), "images": len(tiles), "objects": sum(map(len, objects)),
        "cut": int(sum((part.visible < 1).sum() for part in objects)),
    }  # fmt: skip
