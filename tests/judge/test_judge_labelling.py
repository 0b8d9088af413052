"""`dataengine filter label`: confident detections become labels of unlabelled real images."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from test_judge_commands import SIZE, run, squares

from dataengine import geometry
from dataengine.data import formats
from dataengine.errors import UserError
from dataengine.judge.calibration import Calibration

FAINT = (100, 90, 90)  # as a car, 0.7 to the toy detector; bare ground is 0.5


def rule(toy_calibration, sure):
    """The rule of the toy detector, with 0.6 as the least score of an object."""
    every = {name: dict.fromkeys(("car", "van"), 0.6) for name in ("thresholds", "extra_scores")}
    every["repair_scores"] = dict.fromkeys(("car", "van"), sure)
    return Calibration.load(toy_calibration).model_copy(update=every)


@pytest.fixture
def calibration(toy_detector, toy_calibration, tmp_path):
    rule(toy_calibration, sure=0.9).save(tmp_path / "rule.json")
    return "--detector", toy_detector, "--calibration", tmp_path / "rule.json"


@pytest.fixture
def flights(tmp_path):
    """(folder of ten unlabelled images of squares, their labels); the third image shows a faint square."""
    truth = {sample.name: sample.layout for sample in formats.read(squares(tmp_path / "made", 10, repeat=2))}
    folder = tmp_path / "made" / "raw"
    image = np.array(Image.open(folder / "002.png"))
    cell = next(c for c in range(6) if (image[80:96, c * 16 : c * 16 + 16] == 90).all())
    image[80:96, cell * 16 : cell * 16 + 16] = FAINT
    Image.fromarray(image).save(folder / "002.png")
    return folder, truth


def test_confident_detections_become_labels_and_images_with_doubtful_ones_are_left_out(flights, calibration, tmp_path):
    folder, truth = flights
    said = run("label", folder, *calibration, "--out", tmp_path / "scenes").stdout
    assert "9 of 10 images have no doubtful detection" in said
    made = formats.read(tmp_path / "scenes")
    assert {sample.name for sample in made} == {*truth} - {"002"}
    for sample in made:
        iou = geometry.iou(sample.layout.boxes, truth[sample.name].boxes)
        assert len(sample.layout) == len(truth[sample.name])
        assert (iou.max(1) > 0.9).all()
        assert [truth[sample.name].labels[i] for i in iou.argmax(1)] == sample.layout.labels.tolist()


def test_a_doubtful_detection_removes_only_its_tile(flights, calibration, tmp_path):
    folder, truth = flights
    said = run("label", folder, *calibration, "--out", tmp_path / "scenes", "--tile-size", SIZE).stdout
    assert "19 of 20 images have no doubtful detection" in said
    made = formats.read(tmp_path / "scenes")
    spoilt = truth["002"].boxes[:, 0] < SIZE  # its left half shows the faint square
    assert sum(len(sample.layout) for sample in made) == sum(map(len, truth.values())) - spoilt.sum()


def test_the_least_score_of_a_doubtful_detection_can_be_given(flights, calibration, tmp_path):
    """The faint square scores 0.7, bare ground 0.5."""
    said = run("label", flights[0], *calibration, "--doubtful-score", 0.8, "--out", tmp_path / "scenes").stdout
    assert "10 of 10 images have no doubtful detection" in said
    with pytest.raises(UserError, match="every image has a doubtful detection"):
        run("label", flights[0], *calibration, "--doubtful-score", 0.4, "--out", tmp_path / "none")


def test_the_least_score_of_a_confident_detection_can_be_given(flights, calibration, tmp_path):
    """The faint square, which is not one of the true objects, becomes one."""
    folder, truth = flights
    said = run("label", folder, *calibration, "--min-score", 0.65, "--out", tmp_path / "scenes").stdout
    assert "10 of 10 images have no doubtful detection" in said
    made = {sample.name: len(sample.layout) for sample in formats.read(tmp_path / "scenes")}
    assert made == {name: len(layout) + (name == "002") for name, layout in truth.items()}


def test_doubtful_images_can_be_kept_with_ignored_regions(flights, calibration, tmp_path):
    folder, truth = flights
    said = run("label", folder, *calibration, "--keep-doubtful", "--out", tmp_path / "scenes").stdout
    assert "9 of 10 images have no doubtful detection" in said
    made = {sample.name: sample.layout for sample in formats.read(tmp_path / "scenes")}
    assert {*made} == {*truth}
    assert [name for name, layout in made.items() if len(layout.ignored)] == ["002"]
    assert len(made["002"]) == len(truth["002"])
    (x, y, *sides, _), picture = made["002"].ignored[0], np.array(Image.open(folder / "002.png"))
    assert (picture[int(y), int(x)] == FAINT).all()
    assert np.prod(sides) == pytest.approx((picture == FAINT).all(2).sum(), rel=0.25)


def test_without_confident_detections_nothing_is_labelled(flights, toy_detector, toy_calibration, tmp_path):
    """The control: a rule for which no score is confident."""
    rule(toy_calibration, sure=1.0).save(tmp_path / "unsure.json")
    with pytest.raises(UserError, match="every image has a doubtful detection"):
        run("label", flights[0], "--detector", toy_detector, "--calibration", tmp_path / "unsure.json",
            "--out", tmp_path / "scenes")  # fmt: skip
    assert not (tmp_path / "scenes").exists()


def test_images_with_labels_are_refused(calibration, tmp_path):
    with pytest.raises(UserError, match="has labels already"):
        run("label", squares(tmp_path, 3), *calibration, "--out", tmp_path / "scenes")
    assert not (tmp_path / "scenes").exists()
