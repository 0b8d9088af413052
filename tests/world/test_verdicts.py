from __future__ import annotations

import cv2
import numpy as np
import pytest
from toy_world import CELL, toy_world

from dataengine import geometry
from dataengine.judge.detector import Detections
from dataengine.render.frame import covered
from dataengine.world.noise import Rect
from dataengine.world.verdicts import JudgedWorld

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


def test_objects_are_judged_by_what_the_image_shows_and_marked():
    region = judged("difficult").region(*PLACE)
    cars = region.labels.labels == 0
    assert region.labels.difficult[~cars].all(), "a van is never found"
    assert region.labels.difficult[cars].mean() < 0.3
    assert cars.sum() > 3
    assert (~cars).sum() > 3


def test_erased_objects_leave_the_ground_and_the_labels(erased):
    world, region = erased
    rect = Rect(*PLACE)
    before = world.world.region(*PLACE)
    gone = ~np.isin(before.objects.ids @ [10**6, 10**3, 1], region.objects.ids @ [10**6, 10**3, 1])
    assert (region.labels.labels == 0).all()
    assert gone.sum() > 3
    shift = np.array([rect.left, rect.top, 0, 0, 0])
    kept = covered((region.objects.boxes - shift).astype(np.float32), region.image.shape)
    there = covered((before.objects.boxes[gone] - shift).astype(np.float32), region.image.shape) & ~kept
    assert np.array_equal(region.image[there], world.world.scene.region(rect)[there])
    assert np.array_equal(region.image[kept], before.image[kept]), "objects that are found keep every pixel"


def test_a_judged_region_alone_is_the_same_as_in_a_larger_one(erased):
    _, large = erased
    alone = judged("erase").region(20, 60, CELL, 50)
    assert np.array_equal(alone.image, large.image[50:100, 50 : 50 + CELL])
    assert {tuple(key) for key in alone.objects.ids} <= {tuple(key) for key in large.objects.ids}
