"""Objects of horizontal boxes along headings: the box is held, and frames show the nose to the right."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from PIL import Image
from toy_scenes import canvas

from dataengine.data.layout import Dataset, Layout, Sample
from dataengine.render.erase import painted_boxes
from dataengine.render.frame import FrameSpec
from dataengine.render.heading import along_heading, draw_headings
from dataengine.render.in_scene import InSceneUNet
from dataengine.render.in_scene_pipeline import InScenePipeline
from dataengine.train.in_scene import collect_frames, headed_frames, joined

SPEC = FrameSpec(size=48)
BOXES = np.float32([[60, 50, 40, 36, 0], [140, 90, 30, 34, 0], [200, 60, 24, 24, 0]])


def cross_ends(boxes: np.ndarray) -> np.ndarray:
    """The four ends (N, 4, 2) of each cross, by plain trigonometry."""
    ends = []
    for x, y, length, span, turn in boxes.astype(float):
        c, s = math.cos(turn), math.sin(turn)
        ends.append([(x + a * c - b * s, y + a * s + b * c)
                     for a, b in ((length / 2, 0), (-length / 2, 0), (0, span / 2), (0, -span / 2))])  # fmt: skip
    return np.array(ends)


def test_the_ends_of_the_cross_reach_the_sides_of_the_box():
    rng = np.random.default_rng(0)
    for _ in range(50):
        headings = rng.uniform(-np.pi, np.pi, 3)
        found = along_heading(BOXES, headings)
        ends = cross_ends(found) - BOXES[:, None, :2]
        reach = np.where(np.abs(np.cos(headings)) >= np.abs(np.sin(headings)), 0, 1)
        for end, box, first in zip(ends, BOXES, reach, strict=True):
            half = box[2:4] / 2
            assert abs(end[0, first]) == pytest.approx(half[first], abs=1e-3), "nose"
            assert abs(end[2, 1 - first]) == pytest.approx(half[1 - first], abs=1e-3), "wing tip"
    turned = found.copy()
    turned[:, 4] += 0.3
    assert np.abs(cross_ends(turned) - cross_ends(found)).max() > 1, "the control"


def test_headings_depend_on_the_seed_and_the_object_alone_and_most_stand_in_one_direction():
    boxes = np.float32([[i, i, 30, 30, 0] for i in range(200)])
    numbers = list(range(200))
    headings = draw_headings(boxes, 5, numbers)
    assert np.array_equal(draw_headings(boxes[50:60], 5, numbers[50:60]), headings[50:60])
    assert not np.array_equal(draw_headings(boxes, 6, numbers), headings)
    quarter = np.exp(4j * headings)  # equal for directions that differ by quarter turns
    near = np.abs(np.angle(quarter / np.exp(1j * np.angle(quarter.sum())))) / 4 < np.radians(15)
    assert 0.7 < near.mean() < 0.95, "the control is the upper bound: not all"


def test_the_chosen_heading_gives_a_plausible_shape():
    long = np.float32([[50, 50, 60, 20, 0]] * 40)
    shapes = along_heading(long, draw_headings(long, 1, list(range(40))))
    assert (shapes[:, 2] > shapes[:, 3]).all(), "longer than wide"


class Arrow(InSceneUNet):
    """Knows the answer: the right half of the box is white, the rest grey."""

    def forward(self, frames, timesteps, surroundings, hole, box, labels, fields):
        right = box * (torch.arange(box.shape[-1]) >= box.shape[-1] // 2)
        clean = torch.lerp(torch.full_like(frames, -0.2), torch.ones_like(frames), right)
        return (frames - clean) / (timesteps[:, None, None, None] / 1000)


def painted_directions(headed: tuple[str, ...]) -> list[float]:
    """Direction in which each of ten objects is white, in radians."""
    model = Arrow(["plane"], frame_size=48, block_out_channels=(16, 32), headed=headed)
    pipeline = InScenePipeline(model, FlowMatchEulerDiscreteScheduler())
    boxes = [[60 + 110 * (i % 5), 60 + 110 * (i // 5), 50, 50, 0] for i in range(10)]
    layout = Layout(boxes, [0] * 10, ("plane",), (600, 230), "hbb")
    [result] = pipeline([canvas(np.full((230, 600, 3), 102, np.uint8), layout)], [3], num_inference_steps=2)
    assert np.array_equal(result.labels.boxes, layout.boxes)
    directions = []
    for x, y, *_ in boxes:
        crop = result.image[y - 30 : y + 30, x - 30 : x + 30].astype(float).mean(2) - 102
        rows, columns = np.mgrid[-29.5:30, -29.5:30]
        directions.append(math.atan2((crop * rows).sum(), (crop * columns).sum()))
    return directions


def test_objects_of_headed_classes_are_painted_along_headings_and_their_labels_stay():
    wanted = draw_headings(np.float32([[0, 0, 50, 50, 0]] * 10), 3, list(range(10)))
    found = painted_directions(("plane",))
    assert np.abs(np.angle(np.exp(1j * (np.array(found) - wanted)))).max() < np.radians(5)
    upright = painted_directions(())
    assert np.abs(upright).max() < np.radians(5), "the control: a class without headings lies as the image does"


def arrows(folder, headings) -> Dataset:
    """An image with a drop for each heading, thick where it points; its boxes are the horizontal hulls."""
    image, boxes = np.full((120, 120 * len(headings), 3), 90, np.uint8), []
    for i, turn in enumerate(headings):
        points = np.float32([[30, 0], [0, 16], [-30, 0], [0, -16]])
        turned = points @ np.float32([[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]])
        centre = np.float32([60 + 120 * i, 60])
        cv2.fillPoly(image, [np.rint(turned + centre).astype(np.int32)], (200, 200, 200))
        nose = centre + 22 * np.float32([math.cos(turn), math.sin(turn)])
        cv2.circle(image, np.rint(nose).astype(int).tolist(), 6, (255, 255, 255), -1)
        low, high = turned.min(0), turned.max(0)
        boxes.append([*centre, *(high - low), 0])
    Image.fromarray(image).save(folder / "a.png")
    layout = Layout(boxes, [0] * len(boxes), ("plane",), image.shape[1::-1], "hbb")
    return Dataset(("plane",), [Sample("a", folder / "a.png", layout)], "hbb", "planes")


def test_training_frames_show_the_nose_to_the_right(tmp_path):
    headings = [0.4, 2.0, -2.6, -0.9]
    dataset = arrows(tmp_path, headings)
    known = {("a", k): turn for k, turn in enumerate(headings)}
    frames = headed_frames(dataset, ["plane"], SPEC, known)
    size = frames.images.shape[1]
    bright = [np.argwhere(image.mean(2) > 240).mean(0) / size - 0.5 for image in frames.images]
    for row, column in bright:
        assert column > 0.1, "the nose lies to the right"
        assert abs(row) < 0.03
    others = headed_frames(dataset, ["plane"], SPEC, {key: turn + np.pi / 2 for key, turn in known.items()})
    aside = [np.argwhere(image.mean(2) > 240).mean(0) / size - 0.5 for image in others.images]
    assert all(row < -0.1 for row, _ in aside), "the control: other headings turn them elsewhere"


def test_upright_frames_of_a_class_with_known_headings_state_no_angle(tmp_path):
    dataset = arrows(tmp_path, [0.4, 2.0])
    upright = collect_frames([dataset], ["plane"], SPEC, 0, np.random.default_rng(0))
    assert np.isfinite(upright.fields[upright.labels == 0, 2:4]).all(), "the control"
    both = joined(upright, headed_frames(dataset, ["plane"], SPEC, {("a", 0): 0.4}))
    of_class = both.labels == 0
    assert np.isnan(both.fields[of_class & ~both.headed][:, 2:4]).all()
    assert both.fields[both.headed, 2] == pytest.approx(math.sin(0.4), abs=1e-6)


def test_no_pixel_beyond_what_the_label_declares_changes():
    """`erase` restores the area around the label; the frame's own hole, which lies askew, reaches beyond it."""
    model = WholeHole(["plane"], frame_size=48, block_out_channels=(16, 32), headed=("plane",))
    pipeline = InScenePipeline(model, FlowMatchEulerDiscreteScheduler())
    layout = Layout([[100, 100, 60, 60, 0]], [0], ("plane",), (200, 200), "hbb")
    reach = painted_boxes(layout.boxes, model.spec)[0, 2] / 2
    rows, columns = np.mgrid[:200, :200] + 0.5
    outside = np.maximum(np.abs(rows - 100), np.abs(columns - 100)) > reach
    widest = 0.0
    for seed in range(6):
        [result] = pipeline([canvas(np.full((200, 200, 3), 102, np.uint8), layout)], [seed], num_inference_steps=2)
        changed = (result.image != 102).any(2)
        assert not (changed & outside).any()
        widest = max(widest, float(changed.sum()))
    assert widest > 60 * 60, "the control: the whole label was painted"


class WholeHole(InSceneUNet):
    """Paints all of the hole white."""

    def forward(self, frames, timesteps, surroundings, hole, box, labels, fields):
        return (frames - torch.ones_like(frames)) / (timesteps[:, None, None, None] / 1000)
