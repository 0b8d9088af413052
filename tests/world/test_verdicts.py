from __future__ import annotations

import cv2
import numpy as np
import pytest
from toy_world import CELL, toy_world

from dataengine import geometry
from dataengine.judge.detector import Detections
from dataengine.render.frame import covered
from dataengine.world.layouts import NO_OBJECTS, WorldObjects, hulls_of
from dataengine.world.noise import Rect
from dataengine.world.verdicts import JudgedWorld

DARK = 40
PLACE = (-30, 10, 200, 150)


class BrightRectangles:
    """Finds what is white, and takes all of it for cars."""

    classes, identity = ("car",), "bright"

    def detect(self, images):
        return [self._boxes(image) for image in images]

    def _boxes(self, image) -> Detections:
        mask = (image.min(2) > 235).astype(np.uint8)
        shapes = [
            cv2.minAreaRect(shape) for shape in cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0]
        ]
        boxes = np.array([[*centre, w + 1, h + 1, np.radians(angle)] for centre, (w, h), angle in shapes]).reshape(
            -1, 5
        )
        boxes[:, :2] += 0.5
        n = len(boxes)
        return Detections(geometry.regularize(boxes), np.full(n, 0.9, np.float32), np.zeros(n, np.int64))


class AnyScore:
    """A rule by which every object with a matching detection is found."""

    def check(self, detector):
        assert detector.identity == "bright"

    def found(self, labels, scores):
        return scores > 0


def judged(mode: str) -> JudgedWorld:
    return JudgedWorld(toy_world(), BrightRectangles(), AnyScore(), mode)


@pytest.fixture(scope="module")
def erased():
    world = judged("erase")
    return world, world.region(*PLACE)


def test_a_prepared_region_is_the_same_and_all_of_it_is_painted_together(erased):
    _, region = erased
    world, asked = judged("erase"), []
    painted, renderer = world.world.painted, world.world.painted.renderer

    def watched(canvases, seeds, **options):
        asked.append(len(canvases))
        return renderer(canvases, seeds, **options)

    watched.frames, watched.clear, painted.renderer = renderer.frames, renderer.clear, watched
    world.prepare([region.rect])
    assert max(asked) > 3, "many cells at a time"
    asked.clear()
    assert np.array_equal(world.region(*PLACE).image, region.image)
    assert not asked, "nothing was left to be painted"


def test_objects_are_judged_by_what_the_image_shows_and_marked():
    region = judged("difficult").region(*PLACE)
    cars = region.labels.labels == 0
    assert region.labels.difficult[~cars].all(), "a van is never found"
    assert region.labels.difficult[cars].mean() < 0.3
    assert cars.sum() > 3
    assert (~cars).sum() > 3


def test_in_place_of_erased_objects_is_empty_ground_and_no_label(erased):
    """The ground was made to suit them, and shows something like them, so the painter of objects empties it."""
    world, region = erased
    rect = Rect(*PLACE)
    before = world.world.region(*PLACE)
    gone = ~np.isin(before.objects.ids @ [10**6, 10**3, 1], region.objects.ids @ [10**6, 10**3, 1])
    assert (region.labels.labels == 0).all()
    assert gone.sum() > 3
    shift = np.array([rect.left, rect.top, 0, 0, 0])
    kept = covered((region.objects.boxes - shift).astype(np.float32), region.image.shape)
    there = covered((before.objects.boxes[gone] - shift).astype(np.float32), region.image.shape) & ~kept
    assert np.mean(region.image[there] > DARK) < 0.02, "as the painter paints nothing"
    assert np.mean(world.world.scene.region(rect)[there] > DARK) > 0.5, "the control: the ground is not dark"
    assert np.array_equal(region.image[kept], before.image[kept]), "objects that are found keep every pixel"


class NothingAtAll(BrightRectangles):
    def _boxes(self, image) -> Detections:
        return Detections(np.zeros((0, 5)), np.zeros(0, np.float32), np.zeros(0, np.int64))


def test_erased_neighbours_of_two_cells_leave_nothing_of_either():
    """The ground that comes back for one shows the place of the other."""
    world, boxes = toy_world(), {(0, 0): [50.0, 32, 24, 10, 0], (1, 0): [77.0, 32, 24, 10, 0]}

    def cell(*place) -> WorldObjects:
        if place not in boxes:
            return NO_OBJECTS
        return WorldObjects(np.array([boxes[place]]), np.zeros(1, np.int64), np.array([[*place, 0]]))

    world.layouts.cell = cell
    rect = Rect(20, 0, 90, 64)
    region = JudgedWorld(world, NothingAtAll(), AnyScore(), "erase").region(
        rect.left, rect.top, rect.width, rect.height
    )
    there = covered((region.erased.boxes - [rect.left, rect.top, 0, 0, 0]).astype(np.float32), region.image.shape)
    assert len(region.erased) == 2
    assert region.image[there].max() <= 1.5 * DARK
    assert world.scene.region(rect)[there].max() > 4 * DARK, "the control: the ground shows both"


def test_a_judged_region_alone_is_the_same_as_in_a_larger_one(erased):
    _, large = erased
    alone = judged("erase").region(20, 60, CELL, 50)
    assert np.array_equal(alone.image, large.image[50:100, 50 : 50 + CELL])
    assert {tuple(key) for key in alone.objects.ids} <= {tuple(key) for key in large.objects.ids}


def test_erased_objects_are_also_gone_from_regions_that_do_not_touch_their_cell(erased):
    world, large = erased
    left, top, width, height = PLACE
    checked = 0
    for hull, (column, row, _) in zip(hulls_of(large.erased.boxes), large.erased.ids.tolist(), strict=True):
        x, y = (int(hull[k] + hull[k + 2]) // 2 - 4 for k in (0, 1))
        beyond = ((int(hull[0]), y, CELL * column), ((column + 1) * CELL, y, int(hull[2]) + 1),
                  (x, int(hull[1]), CELL * row), (x, (row + 1) * CELL, int(hull[3]) + 1))  # fmt: skip
        for side, (x1, y1, end) in enumerate(beyond):
            w, h = (end - x1, 8) if side < 2 else (8, end - y1)
            if w <= 1 or h <= 1 or x1 < left or y1 < top or x1 + w > left + width or y1 + h > top + height:
                continue
            part = world.region(x1, y1, w, h)
            assert np.array_equal(part.image, large.image[y1 - top : y1 - top + h, x1 - left : x1 - left + w])
            checked += 1
    assert checked > 1
