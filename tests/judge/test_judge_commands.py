"""`dataengine filter ...` on painted rectangles that the toy detector sees by their colour."""

import json

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from dataengine import weights
from dataengine.data import coco, formats
from dataengine.data.layout import Dataset, Layout, Sample
from dataengine.errors import UserError
from dataengine.judge.commands import app
from dataengine.judge.detector import OnnxDetector

CELL, SIZE = 16, 96
COLOURS = ((230, 60, 60), (60, 60, 230))


def run(*arguments):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def squares(folder, n, seed=0, shift=0, repeat=1):
    """n images of 1 to 4 squares in cells of the toy detector, each with the labels of the `shift`-th image after it.

    Each is laid side by side `repeat` times, so that it is larger than the detector's window.
    """
    rng = np.random.default_rng(seed)
    layouts = []
    for _ in range(n):
        cells = rng.permutation(36)[: rng.integers(1, 5)]
        x, y = cells % 6 * CELL + CELL / 2, cells // 6 * CELL + CELL / 2
        boxes = np.column_stack([x, y, *np.full((2, len(cells)), CELL - 2), 0 * x])
        boxes = np.concatenate([boxes + np.array([i * SIZE, 0, 0, 0, 0]) for i in range(repeat)])
        labels = np.tile(rng.integers(0, 2, len(cells)), repeat)
        layouts.append(Layout(boxes, labels, ("car", "van"), (SIZE * repeat, SIZE)))
    samples = []
    for k, layout in enumerate(layouts):
        image = np.full((SIZE, SIZE * repeat, 3), 90, np.uint8)
        for (x, y), label in zip(layout.boxes[:, :2].astype(int), layout.labels, strict=True):
            image[y - 8 : y + 8, x - 8 : x + 8] = COLOURS[label]
        file = folder / "raw" / f"{k:03d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(file)
        samples.append(Sample(file.stem, file, layouts[(k + shift) % n]))
    coco.write(Dataset(("car", "van"), samples, "obb", name="squares"), folder / "coco")
    return folder / "coco"


@pytest.fixture
def calibrated(toy_detector, tmp_path):
    """(arguments that name detector and calibration, calibration file) from 40 images of squares."""
    out = tmp_path / "made" / "calibration.json"
    arguments = ("--detector", toy_detector)
    run("calibrate", squares(tmp_path / "real", 40), *arguments, "--out", out)
    return (*arguments, "--calibration", out), out


def test_calibrate_writes_what_it_prints(toy_detector, tmp_path):
    data, out = squares(tmp_path, 40), tmp_path / "calibration.json"
    printed = run("calibrate", data, "--detector", toy_detector, "--out", out, "--json")
    figures = json.loads(printed.stdout)
    assert figures == json.loads(out.read_text())
    assert figures["images"] == 40
    assert figures["pass_share"] >= 0.95
    assert figures["shuffled_pass_share"] < 0.1
    assert figures["detector"] == OnnxDetector(toy_detector).identity
    table = run("calibrate", data, "--detector", toy_detector, "--out", out, "--images", 25).stdout
    assert "Accepted of 25 real images" in " ".join(table.split())
    assert "controls: 0.0% with another image's labels" in " ".join(table.split())


def test_judge_keeps_correct_images_and_drops_mislabelled_ones(calibrated, tmp_path):
    arguments, _ = calibrated
    right = json.loads(run("judge", squares(tmp_path / "right", 30, seed=1), *arguments, "--json").stdout)
    wrong = json.loads(run("judge", squares(tmp_path / "wrong", 30, seed=1, shift=1), *arguments, "--json").stdout)
    assert right["images"] == wrong["images"] == 30
    assert right["kept"] >= 28
    assert wrong["kept"] <= 2
    assert sum(wrong["dropped_for"].values()) == 30 - wrong["kept"]


def test_classes_are_counted_from_the_labels(calibrated, tmp_path):
    arguments, _ = calibrated
    data = squares(tmp_path / "right", 30, seed=1)
    result = json.loads(run("judge", data, *arguments, "--json").stdout)
    names = [name for sample in formats.read(data) for name in sample.layout.names()]
    for row in result["classes"]:
        assert row["objects"] == names.count(row["name"])
        assert row["found"] == row["objects"] - sum(v["missed"].count(row["name"]) for v in result["verdicts"])
    text = run("judge", data, *arguments).stdout
    assert "of 30 images accepted" in " ".join(text.split())
    assert "car" in text
    assert "van" in text


def test_images_larger_than_the_detector_are_judged_whole(calibrated, tmp_path):
    arguments, _ = calibrated
    result = json.loads(run("judge", squares(tmp_path / "wide", 20, seed=2, repeat=2), *arguments, "--json").stdout)
    objects, found = (sum(row[key] for row in result["classes"]) for key in ("objects", "found"))
    assert found == objects


def test_a_broken_image_is_reported_and_does_not_stop_the_command(calibrated, tmp_path):
    arguments, _ = calibrated
    data = squares(tmp_path / "broken", 21, seed=3)
    file = sorted(sample.image for sample in formats.read(data))[0]
    file.write_bytes(file.read_bytes()[:-60])
    result = run("judge", data, *arguments, "--json")
    assert json.loads(result.stdout)["images"] == 20
    assert file.name in result.stderr


def test_user_mistakes_are_one_sentence(calibrated, toy_detector, tmp_path, monkeypatch):
    _, calibration = calibrated
    data = squares(tmp_path / "few", 5)
    out = ("--out", tmp_path / "out.json")
    with pytest.raises(UserError, match="too few to calibrate"):
        run("calibrate", data, "--detector", toy_detector, *out)
    assert not out[1].exists()
    with pytest.raises(UserError, match="no such calibration"):
        run("judge", data, "--detector", toy_detector, "--calibration", tmp_path / "absent.json")
    with pytest.raises(UserError, match=r"no config\.json"):
        run("judge", data, "--detector", tmp_path, "--calibration", calibration)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        run("calibrate", data, "--detector", toy_detector, "--out", tmp_path / "file" / "out.json")
    with pytest.raises(UserError, match="cannot be written, because it is a folder"):  # not after calibrating
        run("calibrate", data, "--detector", toy_detector, "--out", tmp_path)
    monkeypatch.setattr(weights, "FOLDER", tmp_path)
    with pytest.raises(UserError, match="no packaged 'detector'"):
        run("judge", data, "--calibration", calibration)


def test_class_without_threshold_is_refused_not_counted_as_missed(calibrated, tmp_path):
    arguments, calibration = calibrated
    figures = json.loads(calibration.read_text())
    del figures["thresholds"]["van"]
    calibration.write_text(json.dumps(figures))
    data = squares(tmp_path / "right", 30, seed=1)
    with pytest.raises(UserError, match=r"no threshold for van.*--classes"):
        run("judge", data, *arguments)
    alone = json.loads(run("judge", data, *arguments, "--classes", "car", "--json").stdout)
    assert [row["name"] for row in alone["classes"]] == ["car"]


def test_calibration_of_another_detector_is_refused(calibrated, tmp_path):
    arguments, calibration = calibrated
    figures = json.loads(calibration.read_text())
    calibration.write_text(json.dumps(figures | {"detector": "another"}))
    with pytest.raises(UserError, match="calibrate it again"):
        run("judge", squares(tmp_path / "right", 5), *arguments)
