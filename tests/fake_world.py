"""A finished world made without models: noise, and bright boxes that are its objects."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from dataengine import geometry
from dataengine.data.layout import Layout
from dataengine.data.tile import crop_layout
from dataengine.engine.world_folder import StoredWorld, WorldFolder, write_derived
from dataengine.world.export import LOCAL_CRS
from dataengine.world.layouts import WorldObjects
from dataengine.world.noise import Rect
from dataengine.world.world import Region

SIZE = 600
BOXES = np.array([[100, 80, 40, 20, 0.5], [300, 300, 60, 30, -0.8], [520, 512, 30, 12, 0.0]])
LABELS = np.array([0, 1, 0])


class FakeWorld:
    """Its objects are `BOXES`, painted white."""

    def __init__(self):
        image = np.random.default_rng(0).integers(40, 120, (SIZE, SIZE, 3)).astype(np.uint8)
        self.image = np.ascontiguousarray(cv2.GaussianBlur(image, (0, 0), 3))
        for corners in geometry.to_corners(BOXES.astype(np.float32)):
            cv2.fillPoly(self.image, [np.rint(corners - 0.5).astype(np.int32)], (250, 250, 250))

    def prepare(self, rects):
        pass

    def region(self, left, top, width, height):
        rect = Rect(left, top, width, height)
        layout = Layout(BOXES - [left, top, 0, 0, 0], LABELS, ("car", "van"), (width, height))
        seen = geometry.visible_fraction(layout.boxes, layout.size) > 1e-5
        ids = np.column_stack([np.zeros((3, 2), int), np.arange(3)])
        objects = WorldObjects(BOXES, LABELS, ids).select(seen)
        image = np.ascontiguousarray(self.image[top : top + height, left : left + width])
        return Region(rect, image, objects, crop_layout(layout.select(seen), (0, 0, width, height), 1e-6))


def make_fake_world(out: Path) -> FakeWorld:
    """Write it into the folder `out`."""
    placement = {"crs": LOCAL_CRS, "east": 0.0, "north": 0.0, "gsd_m": 1.0}
    stored = StoredWorld("0", SIZE, 1, {}, {}, {}, "off", ["car", "van"], "obb", {}, placement, 0.5)
    folder, world = WorldFolder(out), FakeWorld()
    folder.blocks(0, SIZE).make(world)
    folder.world.write_text(stored.to_json())
    write_derived(folder, stored)
    return world
