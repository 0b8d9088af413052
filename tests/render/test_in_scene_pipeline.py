from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from conftest import random_layout
from diffusers import FlowMatchEulerDiscreteScheduler

from dataengine import geometry
from dataengine.data.layout import Layout
from dataengine.errors import UserError
from dataengine.render.frame import FrameSpec, cut, frame_matrices, masks, paste
from dataengine.render.in_scene import InSceneUNet
from dataengine.render.in_scene_pipeline import InScenePipeline
from dataengine.render.scene import Scene, empty_layout


class WhiteBoxes(InSceneUNet):
    """Knows the answer: white inside the box, grey outside. Everything but the network is the real thing."""

    def forward(self, frames, timesteps, surroundings, hole, box, labels, fields):
        grey = torch.full_like(frames, -0.2)
        clean = torch.where(
            labels[:, None, None, None] == self.nothing, grey, torch.lerp(grey, torch.ones_like(frames), box)
        )
        return (frames - clean) / (timesteps[:, None, None, None] / 1000)


@pytest.fixture(scope="module")
def painter() -> InScenePipeline:
    model = WhiteBoxes(["car", "van"], frame_size=48, block_out_channels=(16, 32))
    return InScenePipeline(model, FlowMatchEulerDiscreteScheduler())


def mask_of(layout: Layout) -> np.ndarray:
    mask = np.zeros(layout.size[::-1], np.uint8)
    for corners in geometry.to_corners(layout.boxes):
        cv2.fillPoly(mask, [np.rint(corners - 0.5).astype(np.int32)], 1)
    return mask > 0


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / max(1, (a | b).sum()))


def grey_scene(layout: Layout) -> Scene:
    return Scene(np.full((*layout.size[::-1], 3), 102, np.uint8), empty_layout(layout), "grey")


@pytest.mark.parametrize("kind", ["obb", "hbb"])
def test_objects_appear_in_the_pixels_of_their_boxes(painter, kind):
    rng = np.random.default_rng(0)
    layouts = [random_layout(rng, 160, kind) for _ in range(8)]
    images, labels = painter([grey_scene(x) for x in layouts], layouts, list(range(8)), num_inference_steps=2)
    seen = [image[..., 0] > 180 for image in images]
    right = [overlap(s, mask_of(layout)) for s, layout in zip(seen, labels, strict=True)]
    shuffled = [overlap(s, mask_of(layout)) for s, layout in zip(seen, labels[1:] + labels[:1], strict=True)]
    assert min(right) > 0.8
    assert np.mean(shuffled) < 0.3, "control: another image's layout does not fit"


def test_pixels_away_from_the_objects_do_not_change(painter):
    rng = np.random.default_rng(1)
    layout = random_layout(rng, 160)
    scene = Scene(rng.integers(0, 255, (160, 160, 3), np.uint8), empty_layout(layout), "noise")
    image = painter([scene], [layout], [0], num_inference_steps=2)[0][0]
    wide = layout.boxes.copy()
    wide[:, 2:4] += 2 * 0.12 * layout.boxes[:, 2:3] + 10
    away = ~mask_of(replace(layout, boxes=wide))
    assert away.mean() > 0.5
    assert np.array_equal(image[away], scene.image[away])


def test_an_object_of_the_scene_keeps_pixels_and_label_unless_a_new_one_touches_it(painter):
    new = Layout([[40, 40, 24, 12, 0.3]], [1], ("car", "van"), (160, 160))
    there = Layout([[46, 44, 20, 10, 0], [120, 120, 20, 10, 0.5]], [0, 0], ("car", "van"), (160, 160))
    ground = np.full((160, 160, 3), 102, np.uint8)
    ground[mask_of(there)] = (200, 30, 30)
    images, labels = painter([Scene(ground, there, "s")], [new], [0], num_inference_steps=2)
    assert labels[0].names() == ["van", "car"]
    assert np.allclose(labels[0].boxes[1], there.boxes[1])
    far = mask_of(there.select([1]))
    assert np.array_equal(images[0][far], ground[far])
    covered = mask_of(there.select([0])) & ~mask_of(new)
    assert not (np.abs(images[0][covered].astype(int) - (200, 30, 30)).max(1) < 20).any(), "painted over"


def test_any_number_of_objects_is_painted(painter):
    n = 200
    x, y = np.meshgrid(np.arange(20) * 16 + 8, np.arange(10) * 16 + 8)
    boxes = np.column_stack([x.ravel(), y.ravel(), np.full(n, 9), np.full(n, 6), np.zeros(n)])
    layout = Layout(boxes, np.zeros(n), ("car", "van"), (320, 160))
    images, _ = painter([grey_scene(layout)], [layout], [0], num_inference_steps=2)
    centres = images[0][y.ravel(), x.ravel(), 0]
    assert (centres > 180).all()


def test_a_class_that_the_model_does_not_know_is_named(painter):
    layout = Layout([[40, 40, 24, 12, 0.3]], [0], ("windmill",), (96, 96))
    with pytest.raises(UserError, match=r"windmill.*knows car, van"):
        painter([grey_scene(layout)], [layout], [0])


@pytest.fixture(scope="module")
def random_painter(toy_renderer) -> InScenePipeline:
    return InScenePipeline.from_pretrained(toy_renderer)


def test_noise_depends_on_the_images_seed_and_on_nothing_else(random_painter):
    rng = np.random.default_rng(2)
    a, b = random_layout(rng), random_layout(rng)
    first = random_painter([grey_scene(a), grey_scene(b)], [a, b], [5, 6], num_inference_steps=2)[0]
    swapped = random_painter([grey_scene(b), grey_scene(a)], [b, a], [6, 5], num_inference_steps=2)[0]
    assert np.abs(first[0].astype(int) - swapped[1]).max() <= 2
    other = random_painter([grey_scene(a)], [a], [7], num_inference_steps=2)[0]
    assert np.abs(first[0].astype(int) - other[0]).max() > 20, "control: another seed, another picture"


def test_a_one_channel_scene_stays_grey_and_a_coloured_one_does_not(random_painter):
    rng = np.random.default_rng(3)
    layout = random_layout(rng)
    grey = random_painter([grey_scene(layout)], [layout], [0], num_inference_steps=2)[0][0]
    assert np.ptp(grey, axis=2).max() == 0
    tinted = replace(grey_scene(layout), image=np.full((96, 96, 3), (90, 110, 100), np.uint8))
    assert np.ptp(random_painter([tinted], [layout], [0], num_inference_steps=2)[0][0], axis=2).max() > 25


def test_a_frame_pasted_back_unchanged_leaves_the_picture_as_it_was():
    rng = np.random.default_rng(4)
    spec = FrameSpec()
    smooth = cv2.GaussianBlur(rng.normal(100, 60, (160, 160, 3)).astype(np.float32), (0, 0), 4)
    layout = random_layout(rng, 160)
    picture = smooth.copy()
    for box, matrix in zip(layout.boxes, frame_matrices(layout.boxes, "obb", spec), strict=True):
        paste(picture, cut(picture, matrix, spec.size), masks(box, "obb", spec)[0], matrix)
    assert np.abs(picture - smooth).max() < 2
    shifted = smooth.copy()
    matrix = frame_matrices(layout.boxes, "obb", spec)[0]
    paste(shifted, cut(smooth, matrix, spec.size)[::-1].copy(), masks(layout.boxes[0], "obb", spec)[0], matrix)
    assert np.abs(shifted - smooth).max() > 5, "control: another patch is seen"


def test_box_coverage_adds_up_to_the_area_of_the_box():
    spec = FrameSpec()
    boxes = np.float32([[50, 50, 20.3, 11.7, 0.4], [50, 50, 60, 10, -1.2]])
    for box, matrix in zip(boxes, frame_matrices(boxes, "obb", spec), strict=True):
        scale = np.hypot(matrix[0, 0], matrix[1, 0])
        assert masks(box, "obb", spec)[1].sum() * scale**2 == pytest.approx(box[2] * box[3], rel=1e-3)
