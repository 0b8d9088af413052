"""`check` reports exactly the faults of a data set; `info` counts correctly."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from dataengine.data.check import check
from dataengine.data.info import info

SOUND = [(60, 70, 40, 12, 0.4), (120, 80, 30, 20, -0.2), (40, 30, 20, 10, 0.0)]


def test_a_valid_data_set_passes(make_dataset, tmp_path):
    seen = []
    dataset = make_dataset(tmp_path, [SOUND, SOUND])
    assert check(dataset, progress=lambda *state: seen.append(state)) == []
    assert seen == [(1, 2), (2, 2)]


@pytest.mark.parametrize(
    ("box", "words"),
    [
        ((205, 70, 40, 12, 0.0), "outside the image"),
        ((400, 70, 40, 12, 0.0), "lies outside the image"),
        ((100, 120, 10, 1, 0.0), "less than 2 pixels"),
        ((60.2, 70, 40, 12, 0.4), "repeats object 1"),
        ((100, 120, 10, 0, 0.0), "no area"),
        ((float("nan"), 120, 10, 5, 0.0), "not finite"),
    ],
)
def test_each_fault_of_a_box_is_reported_once(box, words, make_dataset, tmp_path):
    problems = check(make_dataset(tmp_path, [SOUND, [*SOUND, box]]))
    assert len(problems) == 1
    assert words in problems[0].message
    assert "object 4 (plane" in problems[0].message
    assert problems[0].path.name == "image_1.png"


def test_a_fault_of_a_box_is_reported_with_the_corners_of_the_label_file(make_dataset, tmp_path):
    [problem] = check(make_dataset(tmp_path, [[(400, 70, 40, 12, 0.0)]]))
    assert "corners 380 64 420 64 420 76 380 76" in problem.message


def test_overlapping_boxes_of_two_classes_or_of_moderate_iou_are_not_duplicates(make_dataset, tmp_path):
    other_class = [*SOUND, (140, 30, 20, 10, 0.0), (120, 80, 30, 20, -0.2 + np.pi / 2)]
    assert check(make_dataset(tmp_path / "a", [other_class])) == []
    for other in ((65, 70, 40, 12, 0.4), (60, 70, 40, 10, 0.4)):  # IoU 0.6 and 0.83
        assert check(make_dataset(tmp_path / "b", [[*SOUND, other]])) == []


def test_faults_of_images_are_reported(make_dataset, tmp_path):
    dataset = make_dataset(tmp_path, [SOUND] * 4)
    first, second, third, _ = (sample.image for sample in dataset)
    data = bytearray(first.read_bytes())
    data[len(data) // 2] ^= 0xFF  # one flipped byte in the middle: only decoding finds it
    first.write_bytes(data)
    second.unlink()
    Image.new("RGB", (30, 40)).save(third)
    found = {problem.path.name: problem.message for problem in check(dataset)}
    assert "decoded" in found["image_0.png"]
    assert "missing" in found["image_1.png"]
    assert "30x40 but its layout says 200x150" in found["image_2.png"]
    assert len(found) == 3


def test_labels_outside_the_class_list_are_reported(make_dataset, tmp_path):
    dataset = make_dataset(tmp_path, [SOUND[:2]])
    assert check(dataset) == []
    dataset.samples[0].layout.labels[0] = 9
    assert ["label outside the class list of 3" in problem.message for problem in check(dataset)] == [True]


def test_info_counts_sizes_angles_and_metadata(make_dataset, tmp_path):
    dataset = make_dataset(tmp_path, [SOUND, SOUND[:1], []], ignored=[(10, 10, 4, 4, 0)])
    figures = info(dataset)
    assert (figures.images, figures.empty_images, figures.objects) == (3, 1, 4)
    assert (figures.difficult, figures.ignored_regions) == (1, 3)
    assert [entry.objects for entry in figures.classes] == [2, 1, 1]
    assert [entry.images for entry in figures.classes] == [2, 1, 1]
    assert figures.classes[0].long_side.median == 40
    assert figures.classes[1].aspect_ratio.median == 1.5
    assert figures.objects_per_image.maximum == 3
    assert figures.image_sizes == {"200x150": 3}
    assert figures.areas == {"small": 4, "medium": 0, "large": 0}
    # 0.4 rad = 22.9 degrees twice, -0.2 rad = -11.5, 0
    assert {15 * i - 90: n for i, n in enumerate(figures.angles) if n} == Counter({15: 2, -15: 1, 0: 1})
    assert figures.known_acquisition["altitude_m"] == 3
    again = json.loads(json.dumps(dataclasses.asdict(figures)))
    assert again["classes"][2]["name"] == "Car"


def test_info_of_an_empty_data_set(make_dataset, tmp_path):
    figures = info(make_dataset(tmp_path, []))
    assert (figures.images, figures.objects) == (0, 0)
    assert figures.objects_per_image.median is None
