"""Objects painted from real ones, and scenes from augmented images."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from PIL import Image
from toy_scenes import canvas, paint

from dataengine import geometry
from dataengine.data.layout import Acquisition, Dataset, Layout, Sample
from dataengine.errors import UserError
from dataengine.render.dataset_canvases import DatasetCanvases
from dataengine.render.frame import FrameSpec, finer_mask, masks
from dataengine.render.in_scene import InSceneUNet
from dataengine.render.in_scene_pipeline import InScenePipeline
from dataengine.render.real_objects import collect_objects

CLASSES = ("car", "van")
SPEC = FrameSpec()


def labelled(folder, boxes, labels, size: int = 96, nights=(None,)) -> Dataset:
    """An image for each of `nights`, with the objects painted on it: cars red, vans blue."""
    samples = []
    for i, night in enumerate(nights):
        layout = Layout(boxes, labels, CLASSES, (size, size), acquisition=Acquisition(night=night))
        picture = paint(layout, np.random.default_rng(i))
        if night:
            picture = 255 - picture
        file = folder / f"{i}.png"
        Image.fromarray(picture).save(file)
        samples.append(Sample(file.stem, file, layout))
    return Dataset(CLASSES, samples)


def red(picture: np.ndarray) -> np.ndarray:
    return picture[..., 0].astype(float) - picture[..., 2] > 85


def drawn(objects, one: Layout, label: int, grey: float, seed: int = 0):
    """The frame that a layout of one object starts from on plain grey ground, the share that surely is the object, and
    the start; None where there is no object of the class."""
    scene = canvas(np.full((*one.size[::-1], 3), grey, np.uint8), one)
    [start] = objects.fitted(scene, np.array([label]), SPEC, seed).starts
    if start is None:
        return None
    return *objects.draw(start, one.kind, np.full((SPEC.size, SPEC.size, 3), grey, np.float32), SPEC), start


@pytest.mark.parametrize("box", [[48, 48, 30, 12, 0.4], [48, 48, 30, 26, -1.0], [48, 48, 14, 7, 1.2]])
def test_the_box_is_fitted_to_a_real_object_that_keeps_its_shape(tmp_path, box):
    objects = collect_objects(labelled(tmp_path, [[48, 48, 48, 24, 0.7]], [0]), CLASSES, SPEC, 0.5)
    one = Layout([box], [0], CLASSES, (96, 96))
    frame, _, start = drawn(objects, one, 0, 90)
    assert start.whole_box[2] / start.whole_box[3] == pytest.approx(2, rel=0.1), "as the real car, whatever was asked"
    assert start.whole_box[:2] == pytest.approx(box[:2])
    assert start.whole_box[4] == pytest.approx(box[4])
    assert (start.whole_box[2:4] <= np.float32(box[2:4]) + 1e-3).all(), "inside the box of the layout"
    fitted = finer_mask(masks(start.whole_box, "obb", SPEC)[1], len(frame)) > 0.5
    assert (red(frame) & fitted).sum() / (red(frame) | fitted).sum() > 0.8
    assert drawn(objects, one, 1, 90) is None, "there is no van"


def test_its_brightness_follows_the_scene(tmp_path):
    objects = collect_objects(labelled(tmp_path, [[48, 48, 24, 12, 0]], [0]), CLASSES, SPEC, 0.5)
    one, brightness = Layout([[48, 48, 24, 12, 0]], [0], CLASSES, (96, 96)), []
    for grey in (60, 130):
        frame, _, start = drawn(objects, one, 0, grey)
        brightness.append(frame[red(frame)].mean())
        beyond = masks(start.whole_box, "obb", SPEC)[0] == 0
        assert frame[beyond] == pytest.approx(grey, abs=2), "the scene's own ground stays around it"
    assert brightness[1] - brightness[0] == pytest.approx(70, abs=5)


def test_no_ground_is_pasted_with_it(tmp_path):
    """The object stands on a bright patch, of which nothing appears in the scene. Control: the object itself does."""
    dataset = labelled(tmp_path, [[48, 48, 24, 12, 0]], [0])
    picture = np.asarray(Image.open(dataset.samples[0].image)).copy()
    bright = picture.copy()
    bright[38:58, 32:64] = 220
    bright[42:54, 36:60] = picture[42:54, 36:60]
    Image.fromarray(bright).save(dataset.samples[0].image)
    layout = Layout([[48, 48, 24, 12, 0]], [0], CLASSES, (96, 96))
    scene = canvas(np.full((96, 96, 3), (90, 90, 92), np.uint8), layout)
    pipeline = InScenePipeline(
        Echo(list(CLASSES), frame_size=48, block_out_channels=(16, 32)), FlowMatchEulerDiscreteScheduler()
    )
    objects = collect_objects(dataset, CLASSES, SPEC, 0.02)
    image = pipeline([scene], [1], num_inference_steps=8, real_objects=objects)[0].image.astype(int)
    changed = np.abs(image - scene.image).max(2)
    assert changed[44:52, 40:56].max() > 60
    beyond = np.ones((96, 96), bool)
    beyond[40:56, 34:62] = False  # two pixels around the box
    assert changed[beyond].max() <= 6


@pytest.mark.parametrize("strength", [0.02, 1.0])
def test_large_objects_keep_details_beyond_the_models_resolution(tmp_path, strength):
    """Stripes of two pixels on an object at three times the model's resolution; at strength 1 they are gone."""
    dataset = labelled(tmp_path, [[150, 150, 80, 60, 0]], [0], size=300)
    picture = np.asarray(Image.open(dataset.samples[0].image)).copy()
    picture[122:178, 112:188] = np.where(np.arange(76) % 4 < 2, 230, 30)[None, :, None]
    Image.fromarray(picture).save(dataset.samples[0].image)
    layout = Layout([[150, 150, 80, 60, 0]], [0], CLASSES, (300, 300))
    scene = canvas(np.full((300, 300, 3), (90, 90, 92), np.uint8), layout)
    pipeline = InScenePipeline(
        Echo(list(CLASSES), frame_size=48, block_out_channels=(16, 32)), FlowMatchEulerDiscreteScheduler()
    )
    objects = collect_objects(dataset, CLASSES, SPEC, strength)
    image = pipeline([scene], [1], num_inference_steps=8, real_objects=objects)[0].image.astype(float)
    contrast = np.abs(np.diff(image[130:170, 120:180, 1], axis=1, n=2)).mean()
    assert contrast > 50 if strength < 1 else contrast < 25


def test_objects_are_taken_from_images_of_the_same_light(tmp_path):
    nights = [True] * 20 + [False] * 20
    objects = collect_objects(labelled(tmp_path, [[48, 48, 24, 12, 0]], [0], nights=nights), CLASSES, SPEC, 0.5)
    for night in (True, False):
        one = Layout([[48, 48, 24, 12, 0]], [0], CLASSES, (96, 96), acquisition=Acquisition(night=night))
        frames = [drawn(objects, one, 0, 120, seed)[0] for seed in range(20)]
        assert {bool(red(frame).mean() > 0.1) for frame in frames} == {not night}, "night is the negative here"


def test_a_data_set_without_a_whole_object_of_the_classes_is_refused(tmp_path):
    with pytest.raises(UserError, match="windmill"):
        collect_objects(labelled(tmp_path, [[48, 48, 24, 12, 0]], [0]), ("windmill",), SPEC, 0.5)


class Echo(InSceneUNet):
    """Returns its noisy input as the clean image."""

    def forward(self, frames, timesteps, surroundings, hole, box, labels, fields):
        return torch.zeros_like(frames)


@pytest.mark.parametrize("few", [None, 4])
def test_painted_objects_resemble_the_real_ones_they_start_from(tmp_path, few):
    model = Echo(list(CLASSES), frame_size=48, block_out_channels=(16, 32))
    pipeline = InScenePipeline(model, FlowMatchEulerDiscreteScheduler(), few_steps=few)
    dataset = labelled(tmp_path, [[30, 30, 24, 12, 0], [70, 70, 24, 12, 0]], [0, 1])
    layout = Layout([[30, 30, 24, 12, 0.5], [66, 66, 24, 12, 1.0]], [0, 1], CLASSES, (96, 96))
    # not grey: a scene of a one-channel sensor stays grey
    scene = canvas(np.full((96, 96, 3), (90, 90, 92), np.uint8), layout)

    def redness(objects) -> np.ndarray:
        image = pipeline([scene], [1], num_inference_steps=few or 8, real_objects=objects)[0].image.astype(float)
        inside = [np.zeros((96, 96), np.uint8) for _ in range(2)]
        for mask, corners in zip(inside, geometry.to_corners(layout.boxes), strict=True):
            cv2.fillPoly(mask, [np.rint(corners - 0.5).astype(np.int32)], 1)
        return np.array([(image[..., 0] - image[..., 2])[mask > 0].mean() for mask in inside])

    with_real = redness(collect_objects(dataset, CLASSES, SPEC, 0.5))
    assert with_real[0] > 40
    assert with_real[1] < -40, "each starts from an object of its own class"
    assert np.abs(redness(None)).max() < 25, "control: from noise alone, no resemblance"
    barely = redness(replace(collect_objects(dataset, CLASSES, SPEC, 0.5), strength=1.0))
    assert np.abs(barely).max() < 25, "control: at strength 1, no resemblance"


def test_augmented_scenes_vary_and_their_labels_fit(tmp_path):
    boxes = [[100, 100, 40, 20, 0.5], [200, 180, 40, 20, -1.0], [60, 220, 40, 20, 0.0]]
    dataset = labelled(tmp_path, boxes, [0, 0, 0], size=300)
    layouts = [Layout([], [], CLASSES, (128, 128))] * 24
    scenes = DatasetCanvases(dataset, (128, 128), augmented=True).draw(layouts, range(24))
    ious, visible = [], []
    for scene in scenes:
        mask = np.zeros((128, 128), np.uint8)
        for corners in geometry.to_corners(scene.existing.boxes):
            cv2.fillPoly(mask, [np.rint(corners - 0.5).astype(np.int32)], 1)
        both = ((mask > 0) & red(scene.image)).sum(), ((mask > 0) | red(scene.image)).sum()
        visible.append(both[1] > 100)
        if visible[-1]:
            ious.append(both[0] / both[1])
    assert sum(visible) >= 8
    assert np.median(ious) > 0.8
    turned = {round(float(scene.existing.boxes[0, 4]), 2) for scene in scenes if len(scene.existing)}
    plain = DatasetCanvases(dataset, (128, 128)).draw(layouts, range(24))
    unaugmented = {round(float(scene.existing.boxes[0, 4]), 2) for scene in plain if len(scene.existing)}
    assert len(turned) > 8 > len(unaugmented), "control: plain windows show each object at its own angle"
    again = DatasetCanvases(dataset, (128, 128), augmented=True).draw(layouts[:3], range(3))
    assert all(np.array_equal(a.image, b.image) for a, b in zip(again, scenes, strict=False))


@pytest.mark.parametrize("tone", [60, 170])
def test_an_object_from_ground_like_the_scenes_is_preferred(tmp_path, tone):
    """Half of the cars stand on dark ground, half on bright, and their red is kept. Control: cars that all stood on the
    other ground are shifted to the scene's brightness, which changes their red."""
    dataset = labelled(tmp_path, [[48, 48, 24, 12, 0]], [0], nights=[None] * 40)
    for i, sample in enumerate(dataset):
        picture = np.full((96, 96, 3), (60, 170)[i % 2], np.uint8)
        picture[42:54, 36:60] = (200, 40, 40)
        Image.fromarray(picture).save(sample.image)
    objects = collect_objects(dataset, CLASSES, SPEC, 0.5)
    others = [sample for i, sample in enumerate(dataset) if (60, 170)[i % 2] != tone]
    elsewhere = collect_objects(replace(dataset, samples=others), CLASSES, SPEC, 0.5)
    one = Layout([[48, 48, 24, 12, 0]], [0], CLASSES, (96, 96))

    def reds(candidates) -> np.ndarray:
        frames = [drawn(candidates, one, 0, tone, seed)[0] for seed in range(10)]
        return np.array([frame[22:26, 22:26, 0].mean() for frame in frames])

    assert reds(objects) == pytest.approx(np.full(10, 200), abs=5)
    assert np.abs(reds(elsewhere) - 200).min() > 50


def test_objects_of_one_size_in_a_row_look_alike(tmp_path):
    """Colour difference between four painted cars of one size, started from cars of many colours; control: sizes that
    differ by one pixel."""
    dataset = labelled(tmp_path, [[48, 48, 24, 12, 0]], [0], nights=[None] * 24)
    for i, sample in enumerate(dataset):
        picture = np.full((96, 96, 3), (90, 90, 92), np.uint8)
        picture[42:54, 36:60] = np.random.default_rng(i).integers(0, 255, 3)
        Image.fromarray(picture).save(sample.image)
    objects = collect_objects(dataset, CLASSES, SPEC, 0.1)
    model = Echo(list(CLASSES), frame_size=48, block_out_channels=(16, 32))
    pipeline = InScenePipeline(model, FlowMatchEulerDiscreteScheduler())

    def spread(sides: list[float], seed: int) -> float:
        boxes = [[48, 12 + 24 * k, side, side / 2, 0] for k, side in enumerate(sides)]
        layout = Layout(boxes, [0] * 4, CLASSES, (96, 96))
        scene = canvas(np.full((96, 96, 3), (90, 90, 92), np.uint8), layout)
        image = pipeline([scene], [seed], num_inference_steps=8, real_objects=objects)[0].image.astype(float)
        middles = np.array([image[10 + 24 * k : 14 + 24 * k, 44:52].mean((0, 1)) for k in range(4)])
        return float(np.ptp(middles, axis=0).mean())

    assert np.median([spread([24, 24, 24, 24], seed) for seed in range(5)]) < 40
    assert np.median([spread([24, 25, 23, 26], seed) for seed in range(5)]) > 80
