"""Is a world what was made? Blocks and files are compared with their checksums, labels are derived from the blocks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from dataengine.engine.findings import REMOVE, Findings
from dataengine.engine.world_folder import (
    StoredWorld,
    WorldFolder,
    fingerprint,
    label_files,
    manifest_lines,
    report_of,
    summed,
)
from dataengine.errors import UserError
from dataengine.files import lock, parse_json, read_text
from dataengine.folders import links_and_special_files, sha256_of
from dataengine.world.blocks import BlockFolder
from dataengine.world.export import NAME, load_rasterio

MADE_AGAIN = "the same `dataengine world` command makes it again"
AGAIN = f"delete it: {MADE_AGAIN}"


def verify_world(out: Path, progress: Callable[[int], None] = lambda blocks: None) -> Findings:
    """Compare a world's folder with itself: `Findings`, whose images are blocks. No model is loaded.

    Raises UserError where world.json cannot be read, or the world is being made.
    """
    stored = StoredWorld.load(WorldFolder(out).world)
    folder, found = WorldFolder(out, stored.levels), Findings(what="blocks")
    for name, kind in links_and_special_files(out):
        found.add(f"{out / name} is a {kind}, and a world has files and folders only", REMOVE)
    if found.faults:
        return found
    try:
        lock(folder.lock, shared=True).close()
    except FileNotFoundError:  # a copy without hidden files
        pass
    except BlockingIOError:
        raise UserError(f"{out}: this world is being made; wait for it, then verify.") from None
    for number in range(stored.levels):
        _compare_blocks(folder.blocks(number, stored.size), found, progress)
    found.accepted = found.images
    if not folder.sums.exists():
        found.add(f"{out}: this world is not finished", "the same `dataengine world` command goes on")
        return found
    _compare_sums(folder, found)
    if found.faults:
        found.notes.append("labels and GeoTIFF were not compared with the blocks: first mend what they follow from")
        return found
    if read_text(folder.manifest) != "".join(manifest_lines(folder, stored)):
        found.add(f"{folder.manifest} is not what the blocks say", AGAIN)
    if parse_json(read_text(folder.report)) != report_of(folder, stored):
        found.add(f"{folder.report} is not what the blocks say", AGAIN)
    for number in range(stored.levels):
        level = folder.level(number)
        for name, content in label_files(folder, stored, number).items():
            if not (level / name).exists() or read_text(level / name) != content:
                found.add(f"{level / name} is not what the blocks say", AGAIN)
        _compare_geotiff(level / "images" / f"{NAME}.tif", folder.blocks(number, stored.size), found)
    found.fingerprint = fingerprint(folder)
    return found


def _compare_blocks(blocks: BlockFolder, found: Findings, progress: Callable[[int], None]) -> None:
    """Each block with the checksums in its record; nothing else may lie in the folder."""
    known = set()
    for row in blocks.rows():
        for block in row:
            known |= {f"{blocks.name(block)}.png", f"{blocks.name(block)}.json"}
            if not (record := blocks.folder / f"{blocks.name(block)}.json").exists():
                found.add(f"{record} is missing", MADE_AGAIN)
                continue
            try:
                blocks.picture(block)
                found.images += 1
            except UserError as error:
                found.add(str(error), AGAIN)
        progress(found.images)
    if blocks.folder.is_dir():
        for file in sorted(blocks.folder.iterdir()):
            if file.name not in known:
                found.add(f"{file} does not belong to this world", REMOVE)


def _compare_sums(folder: WorldFolder, found: Findings) -> None:
    """All other files with SHA256SUMS."""
    stated = dict(reversed(line.split("  ", 1)) for line in read_text(folder.sums).splitlines() if "  " in line)
    present = set(summed(folder.path))
    for name in sorted(stated.keys() | present):
        if name not in present:
            found.add(f"{folder.path / name} is missing", MADE_AGAIN)
        elif name not in stated:
            found.add(f"{folder.path / name} does not belong to this world", REMOVE)
        elif sha256_of(folder.path / name) != stated[name]:
            found.add(f"{folder.path / name} is not what was written", AGAIN)


def _compare_geotiff(path: Path, blocks: BlockFolder, found: Findings) -> None:
    """The pixels of the GeoTIFF with those of the blocks."""
    rasterio = load_rasterio()
    from rasterio.windows import Window

    try:
        with rasterio.open(path) as file:
            same = file.width == file.height == blocks.size and all(
                np.array_equal(
                    file.read(window=Window(b.left, b.top, b.width, b.height)).transpose(1, 2, 0), blocks.picture(b)
                )
                for row in blocks.rows()
                for b in row
            )
    except rasterio.errors.RasterioError:
        same = False
    if not same:
        found.add(f"{path} does not show the blocks", AGAIN)
