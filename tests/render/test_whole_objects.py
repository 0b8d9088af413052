"""Objects that start from real ones keep their shape, and their shadow lies where the scene's other shadows lie."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from diffusers import FlowMatchEulerDiscreteScheduler
from PIL import Image
from test_real_objects import Echo
from toy_scenes import canvas

from dataengine import geometry
from dataengine.data.layout import Acquisition, Dataset, Layout, Sample
from dataengine.render import real_objects
from dataengine.render.augment import augmented_window, turned_window
from dataengine.render.dataset_canvases import DatasetCanvases
from dataengine.render.frame import FrameSpec
from dataengine.render.in_scene_pipeline import InScenePipeline
from dataengine.render.real_objects import RealObjects, collect_objects, completed
from dataengine.render.shadows import angle_between, shadow_direction, turned_direction

LENGTH, WIDTH, SIDE = 30, 12, 200
ANGLES = (0.0, 0.35, 0.7, 1.1, 1.57, 2.0, 2.5, 2.9)
DOWN = Acquisition(camera_angle_deg=90)


def cars_in_upright_boxes(folder, shadow: float | None = None, images: int = 4, angles=ANGLES) -> Dataset:
    """Red cars of one size at many angles, each in the upright box around it; and their shadows in a direction."""
    samples = []
    for n in range(images):
        picture = np.random.default_rng(n).normal(120, 2, (SIDE, SIDE, 3)).clip(0, 255).astype(np.uint8)
        turned = [[30 + 46 * (k % 4), 50 + 80 * (k // 4), LENGTH, WIDTH, a] for k, a in enumerate(angles)]
        for colour, shift in (((40, 40, 40), 5), ((220, 50, 50), 0)):
            if shift and shadow is None:
                continue
            boxes = np.float32(turned)
            if shift:
                boxes[:, :2] += shift * np.float32([np.cos(shadow), np.sin(shadow)])
            for corners in geometry.to_corners(boxes):
                cv2.fillPoly(picture, [np.rint(corners - 0.5).astype(np.int32)], colour)
        hulls = geometry.hulls(geometry.regularize(turned))
        Image.fromarray(picture).save(folder / f"{n}.png")
        layout = Layout(hulls, [0] * len(hulls), ("car",), (SIDE, SIDE), "hbb", acquisition=DOWN)
        samples.append(Sample(str(n), folder / f"{n}.png", layout))
    return Dataset(("car",), samples, "hbb")


def outline(image: np.ndarray, box: np.ndarray) -> tuple[float, float, np.ndarray]:
    """Length to width, share of its rectangle that it fills, and the upright box x1, y1, x2, y2, of the red object in a
    box (5,). A sheared rectangle, a parallelogram, fills less of the rectangle around it."""
    x1, y1, x2, y2 = geometry.to_aabb(box[None])[0]
    part = np.zeros(image.shape[:2], bool)
    part[max(0, int(y1) - 4) : int(y2) + 5, max(0, int(x1) - 4) : int(x2) + 5] = True
    mask = (image[..., 0].astype(int) - image[..., 1] > 50) & part
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    points = max(contours, key=cv2.contourArea)
    sides = np.array(cv2.minAreaRect(points)[1]) + 1
    rows, columns = np.nonzero(mask)
    hull = np.float32([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
    return sides.max() / sides.min(), mask.sum() / sides.prod(), hull


def painted(objects: RealObjects, box: list[float], seed: int = 0, shadow: float = np.nan):
    one = Layout(geometry.from_aabb([box]), [0], ("car",), (SIDE, SIDE), "hbb", acquisition=DOWN)
    pipeline = InScenePipeline(
        Echo(["car"], frame_size=48, block_out_channels=(16, 32)), FlowMatchEulerDiscreteScheduler()
    )
    scene = replace(canvas(np.full((SIDE, SIDE, 3), (118, 120, 122), np.uint8), one), shadow=shadow)
    [result] = pipeline([scene], [seed], 4, None, objects)
    return result


ASKED = [
    [70, 85, 100, 97], [70, 80, 96, 104], [80, 70, 93, 102], [70, 70, 95, 95], [60, 60, 110, 80], [60, 60, 80, 110],
]  # fmt: skip


@pytest.mark.parametrize("box", ASKED)
def test_a_painted_object_has_the_outline_of_a_real_one_and_its_label_fits_it(tmp_path, box):
    dataset = cars_in_upright_boxes(tmp_path)
    objects = collect_objects(dataset, ("car",), FrameSpec(), 0.02)
    for seed in range(3):
        result = painted(objects, box, seed)
        label, [start] = result.labels.boxes[0], result.canvas.starts
        ratio, filled, hull = outline(result.image, start.whole_box)
        source = np.asarray(Image.open(dataset.samples[int(start.image)].image))
        real_ratio, real_filled, _ = outline(source, start.box)
        assert real_ratio == pytest.approx(LENGTH / WIDTH, rel=0.15), "control: the measure knows the real outline"
        assert ratio == pytest.approx(real_ratio, rel=0.15)
        assert filled > real_filled - 0.12, "not sheared"
        assert geometry.iou(geometry.from_aabb(hull), label[None])[0, 0] > 0.75, "the label is the object's own box"


@pytest.mark.parametrize("shadow", [None, 1.57])
def test_a_car_that_lies_east_to_west_is_turned_as_a_whole_into_a_box_that_stands(tmp_path, shadow):
    """All cars of the data set lie east to west, and the scene is not turned. Control: a box that lies."""
    objects = collect_objects(cars_in_upright_boxes(tmp_path, shadow, angles=[0.0] * 8), ("car",), FrameSpec(), 0.02)
    for box in ([85, 60, 97, 90], [70, 70, 100, 82]):
        result = painted(objects, box, shadow=np.nan if shadow is None else shadow)
        ratio, filled, hull = outline(result.image, np.float32(geometry.from_aabb([box])[0]))
        assert ratio == pytest.approx(LENGTH / WIDTH, rel=0.15)
        assert filled > 0.85
        assert hull == pytest.approx(box, abs=2.5), "at its own size, along its box"
        assert geometry.iou(geometry.from_aabb(hull), result.labels.boxes)[0, 0] > 0.75


def test_a_box_whose_shape_no_real_object_has_is_left_out(tmp_path):
    objects = collect_objects(cars_in_upright_boxes(tmp_path, angles=[0.0] * 8), ("car",), FrameSpec(), 0.02)
    square = painted(objects, [70, 70, 95, 95])
    assert not len(square.labels)
    assert square.canvas.left_out == 1
    assert len(painted(objects, [70, 70, 101, 84]).labels) == 1, "control: within 15 % of a car's length to width"


def test_an_object_of_the_right_shape_but_another_scale_is_not_shrunk_into_a_box(tmp_path):
    """Small cars that lie, and a large one in a nearly square box: a small nearly square box gets neither."""
    dataset = cars_in_upright_boxes(tmp_path, images=2, angles=[0.0] * 8)
    picture = np.full((SIDE, SIDE, 3), 120, np.uint8)
    picture[50:150, 40:160] = (220, 50, 50)
    Image.fromarray(picture).save(tmp_path / "large.png")
    large = Layout([[100, 100, 120, 100, 0]], [0], ("car",), (SIDE, SIDE), "hbb", acquisition=DOWN)
    dataset.samples.append(Sample("large", tmp_path / "large.png", large))
    objects = collect_objects(dataset, ("car",), FrameSpec(), 0.02)
    assert not len(painted(objects, [70, 70, 100, 95]).labels)
    [start] = painted(objects, [50, 50, 150, 133]).canvas.starts
    assert start.image == "large", "control: a box of its size"
    alone = collect_objects(replace(dataset, samples=dataset.samples[2:]), ("car",), FrameSpec(), 0.02)
    assert len(painted(alone, [70, 70, 100, 95]).labels) == 1, "control: where all objects are of another scale"


def test_an_object_that_is_stretched_into_the_box_of_the_layout_would_be_noticed(tmp_path):
    """Mutation: what was done before, on the pictures themselves."""
    dataset = cars_in_upright_boxes(tmp_path)
    source = np.asarray(Image.open(dataset.samples[0].image))
    wrong = 0
    for box in dataset.samples[0].layout.boxes:
        x1, y1, x2, y2 = np.rint(geometry.to_aabb(box[None])[0]).astype(int)
        picture = np.full((SIDE, SIDE, 3), 120, np.uint8)
        picture[70:110, 60:140] = cv2.resize(source[y1:y2, x1:x2], (80, 40))
        ratio, filled, _ = outline(picture, np.float32([100, 90, 80, 40, 0]))
        wrong += abs(np.log(ratio / (LENGTH / WIDTH))) > np.log(1.15) or filled < 0.75
    assert wrong >= 5, "of 8"


def test_a_rotated_box_of_another_shape_is_fitted_too(tmp_path):
    boxes = [[60 + 70 * (k % 2), 60 + 70 * (k // 2), LENGTH, WIDTH, a] for k, a in enumerate(ANGLES[:4])]
    layout = Layout(geometry.regularize(boxes), [0] * 4, ("car",), (SIDE, SIDE), acquisition=DOWN)
    picture = np.full((SIDE, SIDE, 3), 120, np.uint8)
    for corners in geometry.to_corners(layout.boxes):
        cv2.fillPoly(picture, [np.rint(corners - 0.5).astype(np.int32)], (220, 50, 50))
    Image.fromarray(picture).save(tmp_path / "a.png")
    objects = collect_objects(Dataset(("car",), [Sample("a", tmp_path / "a.png", layout)]), ("car",), FrameSpec(), 0.02)
    wide = Layout([[100, 100, 36, 30, 0.5]], [0], ("car",), (SIDE, SIDE), acquisition=DOWN)
    new = objects.fitted(canvas(picture, wide), np.zeros(1, int), FrameSpec(), 0).new.boxes[0]
    assert new[2] / new[3] == pytest.approx(LENGTH / WIDTH, rel=0.1)
    assert new[2] == pytest.approx(36, abs=1.5)
    assert new[4] == pytest.approx(0.5)


@pytest.mark.parametrize("kind", ["hbb", "obb"])
def test_an_object_at_the_border_is_whole_beyond_it_and_its_label_ends_there(tmp_path, kind):
    """The box of the layout shows the right half of a car."""
    objects = collect_objects(cars_in_upright_boxes(tmp_path), ("car",), FrameSpec(), 0.02)
    one = Layout([[7.5, 100, 15, 12, 0]], [0], ("car",), (SIDE, SIDE), kind, visible=[0.5], acquisition=DOWN)
    assert completed(one)[:4] == pytest.approx([0, 100, 30, 12])
    result = objects.fitted(canvas(np.full((SIDE, SIDE, 3), 120, np.uint8), one), np.zeros(1, int), FrameSpec(), 0)
    [start], new = result.starts, result.new
    x1, _, x2, _ = geometry.to_aabb(start.whole_box[None])[0]
    assert start.whole_box[2] / start.whole_box[3] == pytest.approx(2.5, rel=0.15)
    assert x2 == pytest.approx(15, abs=0.1), "it ends where the layout's does"
    assert x1 < -8
    assert geometry.to_aabb(new.boxes)[0, 0] == pytest.approx(0, abs=1e-3)
    assert new.visible[0] == pytest.approx(15 / (x2 - x1), abs=0.05)


@pytest.mark.parametrize("direction", [0.0, 1.2, 2.6, -0.8, -2.2])
def test_the_side_of_the_shadows_is_found(tmp_path, direction):
    [sample] = cars_in_upright_boxes(tmp_path, direction, images=1)
    found = shadow_direction(np.asarray(Image.open(sample.image)), sample.layout)
    assert angle_between(found, direction) < 0.5


def test_without_shadows_there_is_no_side_and_a_dark_hedge_is_none(tmp_path):
    """Controls."""
    [sample] = cars_in_upright_boxes(tmp_path, None, images=1)
    picture = np.asarray(Image.open(sample.image)).copy()
    assert np.isnan(shadow_direction(picture, sample.layout))
    picture[20:28], picture[100:108] = 40, 40  # above each row of cars
    assert np.isnan(shadow_direction(picture, sample.layout))
    assert np.isnan(shadow_direction(picture, sample.layout.select([])))


def wrong_sides(objects: RealObjects, dataset: Dataset, n: int = 24) -> float:
    """Share of the objects for augmented scenes of a data set whose shadow is on another side than the scene's."""
    asked = Layout(geometry.from_aabb([[50, 50, 80, 74]]), [0], ("car",), (96, 96), "hbb", acquisition=DOWN)
    canvases = DatasetCanvases(dataset, (96, 96), augmented=True, shadows=True).draw([asked] * n, range(n))
    wrong = []
    for one in canvases:
        assert np.isfinite(one.shadow)
        [start] = objects.fitted(one, np.zeros(1, int), FrameSpec(), 5).starts
        own = turned_direction({"a": 0.2, "b": 2.4}[start.image[0]], start.turn)
        wrong.append(angle_between(own, one.shadow) > np.pi / 4 + 0.4)
    return float(np.mean(wrong))


def test_shadows_of_painted_objects_lie_on_the_side_of_the_scenes(tmp_path, monkeypatch):
    """Two flights with the sun on other sides, and scenes that are turned and mirrored. Mutation: a shadow on any side
    will do."""
    parts = []
    for name, direction in (("a", 0.2), ("b", 2.4)):
        (tmp_path / name).mkdir()
        parts += [replace(s, name=name + s.name) for s in cars_in_upright_boxes(tmp_path / name, direction)]
    dataset = Dataset(("car",), parts, "hbb")
    objects = collect_objects(dataset, ("car",), FrameSpec(), 0.02)
    assert wrong_sides(objects, dataset) == 0
    monkeypatch.setattr(real_objects, "MAX_SHADOW_ANGLE", 4.0)
    assert wrong_sides(objects, dataset) > 0.3


def test_where_no_shadow_is_known_an_upright_object_is_turned_as_its_scene_was(tmp_path):
    dataset = cars_in_upright_boxes(tmp_path)
    objects = collect_objects(dataset, ("car",), FrameSpec(), 0.02)
    asked = Layout(geometry.from_aabb([[50, 50, 80, 74]]), [0], ("car",), (96, 96), "hbb", acquisition=DOWN)
    canvases = DatasetCanvases(dataset, (96, 96), augmented=True, shadows=True).draw([asked] * 12, range(12))
    turns = [(c.turn, objects.fitted(c, np.zeros(1, int), FrameSpec(), 1).starts[0].turn) for c in canvases]
    assert all(np.allclose(a, b, atol=1e-3) for a, b in turns)
    assert len({tuple(np.rint(a).ravel()) for a, _ in turns}) > 3, "control: scenes are turned and mirrored"


def test_nothing_is_put_on_its_head_in_an_oblique_image(tmp_path):
    dataset = cars_in_upright_boxes(tmp_path, 0.2)
    objects = collect_objects(dataset, ("car",), FrameSpec(), 0.02)
    oblique = Acquisition(camera_angle_deg=40)
    asked = Layout(geometry.from_aabb([[50, 50, 80, 74]]), [0], ("car",), (96, 96), "hbb", acquisition=oblique)
    scene = replace(canvas(np.full((96, 96, 3), 120, np.uint8), asked), shadow=np.pi)
    turns = [objects.fitted(scene, np.zeros(1, int), FrameSpec(), seed).starts[0].turn for seed in range(8)]
    assert all(turn[1, 1] == pytest.approx(1) for turn in turns)


def test_the_turn_of_an_augmented_window_is_that_of_its_boxes():
    image = np.random.default_rng(0).integers(0, 255, (300, 300, 3), np.uint8)
    layout = Layout([[150, 150, 40, 10, 0.3]], [0], ("car",), (300, 300))
    for seed in range(12):
        _, moved, turn = turned_window(image, layout, 128, np.random.default_rng(seed))
        assert turn @ turn.T == pytest.approx(np.eye(2), abs=1e-3)
        if len(moved):
            along = turned_direction(0.3, turn)
            assert abs(np.sin(along - moved.boxes[0, 4])) < 0.02
        again = augmented_window(image, layout, 128, np.random.default_rng(seed))
        assert np.array_equal(again[1].boxes, moved.boxes)
