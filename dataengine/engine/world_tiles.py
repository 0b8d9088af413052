"""A finished world cut into tiles, as a data set, block by block."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from dataengine.data import formats
from dataengine.data.layout import Dataset, Sample
from dataengine.data.staging import MARKER
from dataengine.data.tile import MIN_VISIBLE, cut
from dataengine.engine.world_folder import StoredWorld, WorldFolder, labels_at
from dataengine.errors import UserError
from dataengine.files import parse_json, read_text, write_whole
from dataengine.folders import sha256_of
from dataengine.world.export import NAME

CUT_FROM = ".world-tiles.json"  # in a folder of tiles: the world, the settings and the counts


def check_tiles(out: Path, size: int, overlap: int) -> None:
    """Raises UserError for sizes that make no tiles, and for a folder that holds no data set of ours."""
    if not 0 <= overlap < size:
        raise UserError(f"tiles of {size} pixels cannot overlap by {overlap}; the overlap must be at least 0 and less")
    if out.exists() and not (out.is_dir() and ((out / MARKER).exists() or not any(out.iterdir()))):
        raise UserError(f"{out}: holds something else than tiles of a world; choose a new folder.")


def write_tiles(
    world: Path, out: Path, size: int = 1024, overlap: int = 200, to: str = "coco", level: int = 0,
    min_visible: float = MIN_VISIBLE,
) -> dict:  # fmt: skip
    """Cut a level of a finished world into a data set in the new folder `out`, and return its counts.

    The options are as of `data.tile.tile`, the tiles those of `dataengine data tile`; worlds of any size are cut in the
    memory of a few blocks. A folder that has these tiles already stays as it is. Raises UserError for invalid sizes,
    for a folder that holds something else, and for a world that is not finished.
    """
    check_tiles(out, size, overlap)
    stored = StoredWorld.load(WorldFolder(world).world)
    folder = WorldFolder(world, stored.levels)
    if not folder.sums.exists():
        raise UserError(f"{world}: this world is not finished; continue it with the same dataengine world command.")
    record, settings = out / CUT_FROM, {
        "world": sha256_of(folder.sums), "level": level, "size": size, "overlap": overlap, "format": to,
        "min_visible": min_visible,
    }  # fmt: skip
    if record.exists():
        try:
            before = parse_json(read_text(record))
            if before["settings"] == settings:
                return before["tiles"]
        except (ValueError, KeyError, TypeError):
            raise UserError(f"{record}: is damaged; remove the folder, and cut the tiles again.") from None
        raise UserError(f"{out}: holds tiles of another world or other sizes; choose another folder, or remove it.")
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
    counts = {
        "folder": str(out), "images": len(tiles), "objects": sum(map(len, objects)),
        "cut": int(sum((part.visible < 1).sum() for part in objects)),
    }  # fmt: skip
    write_whole(record, json.dumps({"settings": settings, "tiles": counts}, indent=2) + "\n")
    return counts
