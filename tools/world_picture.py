"""A strip that zooms from a whole world to one of its objects, for the documentation.

dataengine world --dataset hrplanes --size 2048 --seed 0 --out runs/world
python tools/world_picture.py runs/world docs/images/world.jpg
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from dataengine.engine.world_folder import StoredWorld, WorldFolder, labels_at

PANEL_PX, GAP_PX, PANELS = 300, 6, 4
SHOWN = 2.0  # side of the last panel over the long side of the object


def squares(size: int, centre: tuple[float, float], last: float) -> list[tuple[int, int, int]]:
    """Left, top and side of what each panel shows: from the whole, in equal steps of scale, to a square around a place.

    >>> squares(1024, (1000, 500), 64)
    [(0, 0, 1024), (618, 297, 406), (863, 420, 161), (960, 468, 64)]
    """
    found = []
    for side in np.geomspace(size, last, PANELS):
        side = round(float(side))
        left, top = (min(max(0, round(place - side / 2)), size - side) for place in centre)
        found.append((left, top, side))
    return found


def strip(world: Path) -> Image.Image:
    """The panels side by side; each has the frame of the one that follows."""
    stored = StoredWorld.load(WorldFolder(world).world)
    folder = WorldFolder(world, stored.levels)
    layout, _ = labels_at(folder, stored, 0)
    good = np.flatnonzero((layout.visible >= 1) & ~layout.difficult)
    lengths = layout.boxes[good, 2]
    chosen = layout.boxes[good[np.argmin(np.abs(lengths - np.quantile(lengths, 0.85)))]]
    blocks = folder.blocks(0, stored.size)
    shown = squares(stored.size, (float(chosen[0]), float(chosen[1])), SHOWN * float(chosen[2]))
    picture = Image.new("RGB", (PANELS * (PANEL_PX + GAP_PX) - GAP_PX, PANEL_PX), "white")
    for number, (left, top, side) in enumerate(shown):
        panel = Image.fromarray(blocks.region(left, top, side, side)).resize((PANEL_PX, PANEL_PX), Image.LANCZOS)
        if number + 1 < PANELS:
            x, y, inner = shown[number + 1]
            scale = PANEL_PX / side
            corners = [(x - left) * scale, (y - top) * scale, (x + inner - left) * scale, (y + inner - top) * scale]
            ImageDraw.Draw(panel).rectangle(corners, outline="yellow", width=2)
        picture.paste(panel, (number * (PANEL_PX + GAP_PX), 0))
    return picture


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("world", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    strip(args.world).save(args.out, quality=85)


if __name__ == "__main__":
    main()
