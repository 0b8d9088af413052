"""Objects are cut out of their ground."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from PIL import Image
from toy_scenes import canvas

from dataengine.data.layout import Dataset, Layout, Sample
from dataengine.render.cutout import Cutout, cutout, extent
from dataengine.render.frame import FrameSpec
from dataengine.render.in_scene import InSceneUNet
from dataengine.render.in_scene_pipeline import InScenePipeline
from dataengine.render.real_objects import collect_objects

SIDE = 96
WHITE, GROUND, SCENE = (225, 225, 230), (110, 100, 80), (70, 100, 72)


def cross(at=(48, 48), long: int = 40, wide: int = 8) -> np.ndarray:
    """Bool (SIDE, SIDE): an airplane, roughly."""
    y, x = np.abs(np.mgrid[:SIDE, :SIDE] - np.array(at)[:, None, None] + 0.5)
    return ((x < wide / 2) & (y < long / 2)) | ((y < wide / 2) & (x < long / 2))


def box(at=(48, 48), long: int = 40) -> np.ndarray:
    y, x = np.abs(np.mgrid[:SIDE, :SIDE] - np.array(at)[:, None, None] + 0.5)
    return (x < long / 2) & (y < long / 2)


def picture(shape: np.ndarray, ground=GROUND, white=WHITE, noise: float = 6) -> np.ndarray:
    grain = np.random.default_rng(0).normal(0, noise, (SIDE, SIDE, 3))
    return np.clip(np.where(shape[..., None], white, ground) + grain, 0, 255).astype(np.uint8)


def iou(found: Cutout, truth: np.ndarray) -> float:
    return float(((found.share > 0.5) & truth).sum() / ((found.share > 0.5) | truth).sum())


def test_an_object_is_cut_out_without_the_ground_next_to_it():
    found = cutout(picture(cross()), box(), box())
    assert iou(found, cross()) > 0.85
    assert iou(Cutout(box(), found.bounds), cross()) < 0.5, "control: the box is mostly ground"
    assert found.share[~box()].max() == 0


def test_neighbouring_objects_are_not_taken_for_ground():
    places = [(y, x) for y in (4, 48, 92) for x in (4, 48, 92) if (y, x) != (48, 48)]
    # as faint as objects on concrete often are: outlines alone do not separate them
    crowd = picture(np.any([cross(at, 38) for at in [(48, 48), *places]], axis=0), white=(150, 145, 130), noise=20)
    known = np.any([box(at) for at in places], axis=0)
    # the only visible ground is strips of four pixels between the boxes
    assert iou(cutout(crowd, box(), known), cross(long=38)) > 0.85
    unknown = cutout(crowd, box(), box())
    assert unknown is None or iou(unknown, cross(long=38)) < 0.85, "control: without the boxes of the others"


@pytest.mark.parametrize("strip", [False, True])
def test_ground_that_continues_beyond_the_box_is_no_object(strip):
    """Between three objects in a row the ground is one that occurs nowhere else; control: uniform ground."""
    row = [(48, 48 + x) for x in (-40, 0, 40)]
    ground = np.full((SIDE, SIDE, 3), GROUND, np.float32)
    if strip:
        ground[28:68] = (150, 120, 60)
    shape = np.logical_or.reduce([cross(at) for at in row])
    found = cutout(picture(shape, ground), box(), np.logical_or.reduce([box(at) for at in row]))
    assert (found is None) == strip


def test_an_object_that_cannot_be_separated_from_the_ground_is_not_guessed():
    assert cutout(picture(np.zeros((SIDE, SIDE), bool)), box(), box()) is None
    only_one_wing = cross() & (np.mgrid[:SIDE, :SIDE][1] < 46)
    assert cutout(picture(only_one_wing), box(), box()) is None, "an object extends to the sides of its box"
    assert cutout(picture(cross()), np.ones((SIDE, SIDE), bool), box()) is None, "no ground is visible"


class Echo(InSceneUNet):
    """Returns its noisy input as the clean image."""

    def forward(self, frames, timesteps, surroundings, hole, box, labels, fields):
        return torch.zeros_like(frames)


def painted(folder, real: np.ndarray, label: Layout, asked: Layout, cuts: bool) -> tuple[np.ndarray, np.ndarray]:
    """A uniform scene and the result, (SIDE, SIDE, 3) int, of painting the one object of a real image into it."""
    Image.fromarray(real).save(folder / "0.png")
    dataset = Dataset(("airplane",), [Sample("0", folder / "0.png", label)], "hbb")
    objects = collect_objects(dataset, ("airplane",), FrameSpec(), 0.02)
    if not cuts:
        objects.cutouts[0] = None
    pipeline = InScenePipeline(
        Echo(["airplane"], frame_size=48, block_out_channels=(16, 32)), FlowMatchEulerDiscreteScheduler()
    )
    scene = canvas(np.full((SIDE, SIDE, 3), SCENE, np.uint8), asked)
    image = pipeline([scene], [1], num_inference_steps=8, real_objects=objects)[0].image
    return scene.image.astype(int), image.astype(int)


def airplane(long: float) -> Layout:
    return Layout([[48, 48, long, long, 0]], [0], ("airplane",), (SIDE, SIDE), "hbb")


@pytest.mark.parametrize("cuts", [True, False])
def test_an_object_is_painted_elsewhere_without_its_ground(tmp_path, cuts):
    """Control: without a cutout, the ground around the object is painted too."""
    stripes = np.where(np.arange(SIDE)[None, :, None] % 24 < 12, GROUND, (170, 160, 140))
    scene, image = painted(tmp_path, picture(cross(), stripes), airplane(40), airplane(40), cuts)
    changed = np.abs(image - scene).max(2)
    corners = box(long=36) & ~cross(long=44, wide=16)
    assert np.median(changed[cross(long=36, wide=4)]) > 80, "the object is there"
    assert (np.quantile(changed[corners], 0.9) <= 8) == cuts


@pytest.mark.parametrize("wide", [1.0, 1.25])
def test_an_object_fills_as_much_of_the_new_box_as_of_its_own(tmp_path, wide):
    """Extent of the bright pixels; a label wider than its object stays wider, as the other labels of its class are."""
    scene, image = painted(tmp_path, picture(cross(long=32)), airplane(32 * wide), airplane(50), cuts=True)
    left, top, right, bottom = extent((image - scene).min(2) > 60)
    assert np.array([right - left, bottom - top]) == pytest.approx(50 / wide, abs=2.5)
    assert np.array([right + left, bottom + top]) / 2 == pytest.approx(48, abs=1)


@pytest.mark.parametrize("ends", [True, False])
def test_lost_ends_are_distinguished_from_a_wide_label(ends):
    """Faint wing tips are lost, and the rest is stretched to fill the box. Control: without tips, the object stays as
    small in the box as it was."""
    body = cross(long=30)
    shape = np.array(np.where(body[..., None], WHITE, GROUND), float)
    if ends:
        shape[cross(wide=4) & ~body] = np.array(GROUND) + (np.array(WHITE) - GROUND) / 3
    found = cutout(picture(np.zeros((SIDE, SIDE), bool), shape, noise=22), box(), box())
    assert extent(found.share > 0.5) == pytest.approx((33, 33, 63, 63), abs=1)
    assert found.bounds == pytest.approx((33, 33, 63, 63) if ends else (28, 28, 68, 68), abs=1.5)
