"""Layout score and classification score of painted images whose labels are right, or not."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from dataengine.data.layout import Dataset, Layout, Sample
from dataengine.errors import UserError
from dataengine.evaluate.classification_score import classification_score, crop
from dataengine.evaluate.layout_score import layout_score
from dataengine.evaluate.windows import cut_windows
from dataengine.judge.detector import OnnxDetector

CELL, SIZE = 16, 96
COLOURS = ((230, 60, 60), (60, 60, 230))


def squares(folder, n, seed, classes=("car", "van"), labels=2):
    """n images of up to four squares in cells of the toy detector, red or blue by class."""
    rng, samples = np.random.default_rng(seed), []
    folder.mkdir()
    for k in range(n):
        cells = rng.permutation(36)[: rng.integers(2, 5)]
        x, y = cells % 6 * CELL + CELL / 2, cells // 6 * CELL + CELL / 2
        boxes = np.column_stack([x, y, *np.full((2, len(cells)), CELL - 2), 0 * x])
        layout = Layout(boxes, rng.integers(0, labels, len(cells)), classes, (SIZE, SIZE))
        image = rng.normal(90, 4, (SIZE, SIZE, 3)).clip(0, 255).astype(np.uint8)
        for (i, j), label in zip(layout.boxes[:, :2].astype(int), layout.labels, strict=True):
            image[j - 8 : j + 8, i - 8 : i + 8] = COLOURS[label]
        Image.fromarray(image).save(folder / f"{k}.png")
        samples.append(Sample(str(k), folder / f"{k}.png", layout))
    return cut_windows(Dataset(classes, samples), (SIZE, SIZE))


@pytest.fixture(scope="module")
def generated(tmp_path_factory):
    return squares(tmp_path_factory.mktemp("made") / "x", 30, 0)


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    return squares(tmp_path_factory.mktemp("real") / "x", 50, 1)


def swapped(window):
    return replace(window, layout=replace(window.layout, labels=1 - window.layout.labels))


def test_images_that_show_their_labels_score_as_real_ones_and_the_controls_do_not(generated, real, toy_detector):
    whole, by_class = layout_score(generated, real, OnnxDetector(toy_detector))
    for column in ("AP50", "COCO AP50"):
        assert whole.value("generated", column) > 0.9
        assert whole.value("real", column) > 0.9
        assert whole.value("labels of another image", column) < 0.3
    assert whole.value("objects blurred", "AP") <= whole.value("generated", "AP")
    assert {row.n for row in whole.rows} == {30}
    objects = [sum((x.layout.labels == c).sum() for x in generated) for c in range(2)]
    assert sorted(row.n for row in by_class.rows if row.name in ("car", "van")) == sorted(objects)


def test_wrong_labels_lower_the_layout_score(generated, real, toy_detector):
    whole, _ = layout_score([swapped(x) for x in generated], real, OnnxDetector(toy_detector))
    assert whole.value("generated", "AP50") < 0.1
    assert whole.value("real", "AP50") > 0.9


def test_classes_that_the_detector_does_not_know_are_named(tmp_path, generated, real, toy_detector):
    other = squares(tmp_path / "a", 10, 2, ("car", "windmill"))
    whole, _ = layout_score(other, real, OnnxDetector(toy_detector))
    assert any("windmill" in note for note in whole.notes)
    unknown = squares(tmp_path / "b", 10, 2, ("windmill", "dam"))
    with pytest.raises(UserError, match=r"windmill.*car, van"):
        layout_score(unknown, real, OnnxDetector(toy_detector))
    with pytest.raises(UserError, match="only 3 images"):
        layout_score(generated[:3], real, OnnxDetector(toy_detector))


def test_objects_that_look_like_real_ones_teach_and_shuffled_labels_do_not(generated, real):
    whole, by_class = classification_score(generated, real)
    assert whole.value("generated", "CAS") > 0.95
    assert whole.value("real, other half", "CAS") > 0.95
    assert whole.value("generated, labels shuffled", "CAS") < 0.8
    assert {row.name for row in by_class.rows} == {"car", "van"}
    assert len({row.n for row in whole.rows}) == 1


def test_wrong_labels_teach_the_wrong_thing(generated, real):
    whole, _ = classification_score([swapped(x) for x in generated], real)
    assert whole.value("generated", "CAS") < 0.05


def test_a_single_class_is_classified_against_background(tmp_path):
    sides = [squares(tmp_path / str(seed), 30, seed, ("car",), 1) for seed in (0, 1)]
    whole, by_class = classification_score(*sides)
    assert [row.name for row in by_class.rows] == ["car", "background"]
    assert whole.value("generated", "CAS") > 0.95


def test_too_few_objects_are_reported_with_their_number(generated, real):
    with pytest.raises(UserError, match="car"):
        classification_score(generated[:2], real)
    other = [replace(x, layout=replace(x.layout, classes=("dam", "ship"))) for x in real]
    with pytest.raises(UserError, match="share no class"):
        classification_score(generated, other)


@pytest.mark.parametrize("angle", [0.0, 0.6, -1.2])
def test_a_crop_shows_its_object_level_and_in_the_middle(angle):
    import cv2

    from dataengine import geometry

    box = np.float32([60, 50, 40, 12, angle])
    image = np.zeros((100, 120, 3), np.uint8)
    corners = geometry.to_corners(box[None])[0]
    cv2.fillPoly(image, [np.rint((corners - 0.5) * 16).astype(np.int32)], (255, 255, 255), cv2.LINE_AA, 4)
    shown = crop(image, box, "obb")[..., 0] / 255
    assert shown.shape == (48, 48)
    rows, columns = shown.mean(1), shown.mean(0)
    assert rows.sum() / rows.max() == pytest.approx(12, abs=1.5)
    assert columns.sum() / columns.max() == pytest.approx(40, abs=1.5)
    assert (rows * np.arange(48)).sum() / rows.sum() == pytest.approx(23.5, abs=0.6)
