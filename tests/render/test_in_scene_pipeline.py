from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from PIL import Image
from toy_scenes import canvas, images_and_labels, random_layout

from dataengine import geometry
from dataengine.data.layout import Dataset, Layout, Sample
from dataengine.errors import UserError
from dataengine.render.canvas import Canvas, Painted, Provenance
from dataengine.render.dataset_canvases import DatasetCanvases
from dataengine.render.frame import FrameSpec, cut, frame_matrices, masks, paste
from dataengine.render.in_scene import InSceneUNet
from dataengine.render.in_scene_pipeline import InScenePipeline, with_detail
from dataengine.render.renderer import PaintSettings


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
    """Pixels whose centre lies in a box, by OpenCV at 16 times the resolution."""
    fine = 16
    width, height = layout.size
    mask = np.zeros((height * fine, width * fine), np.uint8)
    for corners in geometry.to_corners(layout.boxes):
        cv2.fillPoly(mask, [np.rint(corners * fine - 0.5).astype(np.int32)], 1)
    return mask[fine // 2 :: fine, fine // 2 :: fine] > 0


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / max(1, (a | b).sum()))


def grey(layout: Layout) -> Canvas:
    return canvas(np.full((*layout.size[::-1], 3), 102, np.uint8), layout)


@pytest.mark.parametrize("kind", ["obb", "hbb"])
def test_objects_appear_in_the_pixels_of_their_boxes(painter, kind):
    rng = np.random.default_rng(0)
    layouts = [random_layout(rng, 160, kind) for _ in range(8)]
    images, labels = images_and_labels(painter([grey(x) for x in layouts], list(range(8)), num_inference_steps=2))
    seen = [image[..., 0] > 180 for image in images]
    right = [overlap(s, mask_of(layout)) for s, layout in zip(seen, labels, strict=True)]
    shuffled = [overlap(s, mask_of(layout)) for s, layout in zip(seen, labels[1:] + labels[:1], strict=True)]
    assert min(right) > 0.85
    assert np.mean(shuffled) < 0.3, "control: another image's layout does not fit"


def test_pixels_away_from_the_objects_do_not_change(painter):
    rng = np.random.default_rng(1)
    layout = random_layout(rng, 160)
    scene = canvas(rng.integers(0, 255, (160, 160, 3), np.uint8), layout)
    image = painter([scene], [0], num_inference_steps=2)[0].image
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
    images, labels = images_and_labels(painter([canvas(ground, new, there)], [0], num_inference_steps=2))
    assert labels[0].names() == ["van", "car"]
    assert np.allclose(labels[0].boxes[1], there.boxes[1])
    far = mask_of(there.select([1]))
    assert np.array_equal(images[0][far], ground[far])
    covered = mask_of(there.select([0])) & ~mask_of(new)
    assert not (np.abs(images[0][covered].astype(int) - (200, 30, 30)).max(1) < 20).any(), "painted over"


@pytest.mark.parametrize("kind", ["obb", "hbb"])
@pytest.mark.parametrize("augmented", [False, True])
def test_whatever_is_to_be_seen_of_a_scenes_objects_has_a_label_or_is_to_be_ignored(painter, tmp_path, augmented, kind):
    """Pixels of red cars, of which windows show all, much or little; a new object is painted upon some of them."""
    there = Layout([[x, y, 30, 20, 0] for x in (40, 150, 260) for y in (40, 160)], [0] * 6, ("car",), (300, 200), kind)
    picture = np.full((200, 300, 3), 102, np.uint8)
    picture[mask_of(there)] = (230, 20, 20)
    Image.fromarray(picture).save(tmp_path / "0.png")
    scenes = DatasetCanvases(Dataset(("car",), [Sample("0", tmp_path / "0.png", there)] * 8), (100, 100), augmented)
    new = Layout([[24, 30, 24, 12, 0]], [0], ("car",), (100, 100), kind)
    images, labels = images_and_labels(painter(scenes.draw([new] * 24, range(24)), range(24), num_inference_steps=2))
    little = 0

    def shown(boxes: np.ndarray) -> np.ndarray:
        return mask_of(Layout(boxes + np.float32([0, 0, 3, 3, 0]), [0] * len(boxes), ("car",), (100, 100), kind))

    for image, layout in zip(images, labels, strict=True):
        red = image[..., 0].astype(int) - image[..., 1] > 100  # more than the edge of one that was painted over
        assert not (red & ~shown(np.concatenate([layout.boxes, layout.ignored]))).any()
        assert (layout.visible >= 0.3).all()
        little += (red & shown(layout.ignored) & ~shown(layout.boxes)).any()
    assert little > 3, "control: windows do show rests"
    assert sum(len(layout) > 1 for layout in labels) > 3, "control: and more than rests"


def test_any_number_of_objects_is_painted(painter):
    n = 200
    x, y = np.meshgrid(np.arange(20) * 16 + 8, np.arange(10) * 16 + 8)
    boxes = np.column_stack([x.ravel(), y.ravel(), np.full(n, 9), np.full(n, 6), np.zeros(n)])
    layout = Layout(boxes, np.zeros(n), ("car", "van"), (320, 160))
    image = painter([grey(layout)], [0], num_inference_steps=2)[0].image
    centres = image[y.ravel(), x.ravel(), 0]
    assert (centres > 180).all()


def test_a_class_that_the_model_does_not_know_is_named(painter):
    layout = Layout([[40, 40, 24, 12, 0.3]], [0], ("windmill",), (96, 96))
    with pytest.raises(UserError, match=r"windmill.*knows car, van"):
        painter([grey(layout)], [0])


@pytest.fixture(scope="module")
def random_painter(toy_renderer) -> InScenePipeline:
    return InScenePipeline.from_pretrained(toy_renderer)


def test_noise_depends_on_the_images_seed_and_on_nothing_else(random_painter):
    rng = np.random.default_rng(2)
    a, b = random_layout(rng), random_layout(rng)
    first = random_painter([grey(a), grey(b)], [5, 6], num_inference_steps=2)
    swapped = random_painter([grey(b), grey(a)], [6, 5], num_inference_steps=2)
    assert np.abs(first[0].image.astype(int) - swapped[1].image).max() <= 2
    other = random_painter([grey(a)], [7], num_inference_steps=2)
    assert np.abs(first[0].image.astype(int) - other[0].image).max() > 20, "control: another seed, another picture"


def test_noise_of_an_object_does_not_depend_on_the_objects_after_it(random_painter):
    boxes = [[30, 30, 20, 10, 0.4], [110, 120, 20, 10, 1.2]]
    both = Layout(boxes, [0, 1], ("car", "van"), (160, 160))
    one = both.select([0])
    with_both = random_painter([grey(both)], [3], num_inference_steps=2)[0].image
    with_one = random_painter([grey(one)], [3], num_inference_steps=2)[0].image
    assert np.abs(with_both[:70, :70].astype(int) - with_one[:70, :70]).max() <= 2
    assert np.abs(with_both[80:, 80:].astype(int) - with_one[80:, 80:]).max() > 20, "control: the second is there"


class CornersToTheMiddle(InSceneUNet):
    """Paints into the middle of a frame what its corners show: the most that a frame can depend on another."""

    def forward(self, frames, timesteps, surroundings, hole, box, labels, fields):
        clean = 1 - torch.roll(surroundings, (24, 24), (2, 3))
        return (frames - clean) / (timesteps[:, None, None, None] / 1000)


def test_a_picture_does_not_depend_on_how_many_frames_are_painted_at_a_time(monkeypatch):
    """Large, turned objects near one another and at the border, whose frames reach into those of others."""
    model = CornersToTheMiddle(["car", "van"], block_out_channels=(16, 32))
    pipeline = InScenePipeline(model, FlowMatchEulerDiscreteScheduler())
    rng = np.random.default_rng(6)
    by_chance = np.column_stack(
        [rng.uniform(0, 300, (9, 2)), rng.uniform(20, 60, 9), [18] * 9, rng.uniform(-1.5, 1.5, 9)]
    )
    small_one_in_the_corner_of_a_large_ones_frame = [[150, 222.5, 20, 10, 0], [150, 150, 60, 18, np.pi / 4]]
    layouts = [
        Layout(boxes, np.zeros(len(boxes)), ("car", "van"), (300, 300))
        for boxes in (by_chance, small_one_in_the_corner_of_a_large_ones_frame)
    ]
    ground = rng.integers(0, 255, (300, 300, 3), np.uint8)
    pictures = []
    for frames in (64, 3, 1):
        monkeypatch.setattr("dataengine.render.in_scene_pipeline.FRAMES_PER_BATCH", frames)
        scenes = [canvas(ground, layout) for layout in layouts]
        pictures.append([one.image for one in pipeline(scenes, [1, 2], num_inference_steps=1)])
    assert np.array_equal(pictures[0], pictures[1])
    assert np.array_equal(pictures[0], pictures[2])


def test_a_kept_object_keeps_its_pixels_beside_one_that_is_painted_over(random_painter):
    new = Layout([[50, 40, 24, 12, 0]], [1], ("car", "van"), (160, 160))
    touched, beside = [64, 46, 20, 10, 0], [64, 57, 20, 10, 0]  # one pixel of ground between the two
    there = Layout([touched, beside], [0, 0], ("car", "van"), (160, 160))
    ground = np.random.default_rng(7).integers(0, 255, (160, 160, 3), np.uint8)
    images, labels = images_and_labels(random_painter([canvas(ground, new, there)], [0], num_inference_steps=2))
    assert np.allclose(labels[0].boxes[1:], there.boxes[1:])
    kept = mask_of(there.select([1]))
    assert np.array_equal(images[0][kept], ground[kept])
    gone = mask_of(there.select([0]))
    assert (images[0][gone] != ground[gone]).mean() > 0.9, "control: the touched one is gone"


def test_oriented_objects_of_the_scene_come_into_a_horizontal_layout_as_upright_boxes(painter):
    new = Layout([[30, 30, 24, 12, 0]], [0], ("car", "van"), (160, 160), "hbb")
    there = Layout([[120, 120, 20, 10, 0.6]], [1], ("car", "van"), (160, 160), "obb")
    scene = canvas(np.full((160, 160, 3), 102, np.uint8), new, there)
    merged = painter([scene], [0], num_inference_steps=1)[0].labels
    assert np.allclose(geometry.to_aabb(merged.boxes[1:]), geometry.to_aabb(there.boxes), atol=1e-3)
    assert np.allclose(np.sin(2 * merged.boxes[:, 4]), 0, atol=1e-3)


def test_a_saved_and_loaded_renderer_paints_the_same_picture(random_painter, tmp_path):
    layout = random_layout(np.random.default_rng(8))
    random_painter.save_pretrained(tmp_path)
    assert not [f for f in tmp_path.rglob("*") if f.is_file() and f.suffix not in (".json", ".safetensors")]
    loaded = InScenePipeline.from_pretrained(tmp_path)
    assert loaded.classes == ("car", "van")
    assert loaded.unet.spec == random_painter.unet.spec
    first, second = (p([grey(layout)], [4], num_inference_steps=2)[0].image for p in (random_painter, loaded))
    assert np.array_equal(first, second)
    with torch.no_grad():
        loaded.unet.class_embedding.weight += 1
    third = loaded([grey(layout)], [4], num_inference_steps=2)[0].image
    assert not np.array_equal(first, third), "control: other weights, another picture"


def test_the_class_reaches_the_pixels_and_guidance_changes_them(random_painter):
    layout = random_layout(np.random.default_rng(9))
    other = replace(layout, labels=1 - layout.labels)

    def picture(x: Layout, scale: float) -> np.ndarray:
        return random_painter([grey(x)], [0], num_inference_steps=2, guidance_scale=scale)[0].image

    assert not np.array_equal(picture(layout, 1.0), picture(other, 1.0))
    assert not np.array_equal(picture(layout, 1.0), picture(layout, 4.0))
    assert np.abs(picture(layout, 0.0).astype(int) - picture(other, 0.0)).max() <= 1, "at scale 0 only the null counts"


def test_a_one_channel_scene_stays_grey_and_a_coloured_one_does_not(random_painter):
    rng = np.random.default_rng(3)
    layout = random_layout(rng)
    image = random_painter([grey(layout)], [0], num_inference_steps=2)[0].image
    assert np.ptp(image, axis=2).max() == 0
    tinted = replace(grey(layout), image=np.full((96, 96, 3), (90, 110, 100), np.uint8))
    assert np.ptp(random_painter([tinted], [0], num_inference_steps=2)[0].image, axis=2).max() > 25


@pytest.mark.parametrize(("strength", "share"), [(0.3, 1.0), (0.5, 1.0), (0.7, 0.43), (0.9, 0.11)])
def test_fine_detail_stays_unless_the_noise_of_the_strength_was_stronger(strength, share):
    start = np.broadcast_to(np.where(np.arange(96) % 4 < 2, 200, 60)[None, :, None], (96, 96, 3)).astype(np.float32)
    painted = cv2.GaussianBlur(start, (0, 0), 6)[::2, ::2]  # what a model of few pictures makes of it
    image = with_detail(painted, start, strength)[20:76, 20:76]
    assert np.ptp(image[28, :, 0]) / 140 == pytest.approx(share, abs=0.04)


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


def test_ground_is_painted_over_what_goes_and_what_stays_keeps_its_pixels(random_painter):
    boxes = [[40, 40, 24, 12, 0], [40, 54, 24, 12, 0], [110, 110, 20, 10, 0.5]]  # the first two are two pixels apart
    layout = Layout(boxes, [0, 1, 0], ("car", "van"), (160, 160))
    ground = np.random.default_rng(3).integers(0, 255, (160, 160, 3), np.uint8)
    gone = np.array([True, False, False])
    scene = canvas(ground, layout.select([0]), layout.select([1, 2]), Provenance("generated", seed=1))
    painted = Painted(ground, layout, scene, None)
    after = random_painter.remove(painted, gone, 5, PaintSettings(num_inference_steps=2))
    np.testing.assert_array_equal(after.labels.boxes, layout.boxes[1:])
    assert len(after.numbers) == 0
    changed = np.abs(after.image.astype(int) - ground).max(2) > 0
    assert changed[36:44, 30:50].mean() > 0.9
    assert not changed[49:59, 29:51].any(), "its neighbour"
    assert not changed[80:].any()
    again = random_painter.remove(painted, gone, 5, PaintSettings(num_inference_steps=2))
    other = random_painter.remove(painted, gone, 6, PaintSettings(num_inference_steps=2))
    assert (again.image == after.image).all()
    assert (other.image != after.image).any(), "control: another seed, another ground"
