"""Invalid input: one clear sentence, and nothing else is lost."""

from __future__ import annotations

import json
import os
import shutil

import pytest

from dataengine.data import coco, dior, dota, formats, hit_uav, voc, yolo
from dataengine.data.layout import Acquisition
from dataengine.errors import UserError


@pytest.fixture
def dota_folder(make_dataset, tmp_path):
    """Three valid images with two objects each, in DOTA format."""
    boxes = [[(60, 70, 40, 12, 0.2), (120, 80, 30, 20, 0.4)]] * 3
    dota.write(make_dataset(tmp_path / "in", boxes), tmp_path / "dota")
    return tmp_path / "dota"


def _only_problem(dataset):
    assert len(dataset.problems) == 1, dataset.problems
    return dataset.problems[0]


def test_a_valid_data_set_has_no_problems(dota_folder):
    dataset = dota.read(dota_folder)
    assert (len(dataset), dataset.problems) == (3, [])


def test_a_missing_image_is_reported_and_the_others_are_read(dota_folder):
    (dota_folder / "train" / "images" / "image_1.png").unlink()
    dataset = dota.read(dota_folder)
    assert [sample.name for sample in dataset] == ["image_0", "image_2"]
    problem = _only_problem(dataset)
    assert problem.path.name == "image_1.txt"
    assert "image is missing" in problem.message
    assert "2 objects" in problem.message
    assert problem.objects == 2


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_a_truncated_image_is_reported_and_the_others_are_read(suffix, make_dataset, tmp_path):
    dataset = make_dataset(tmp_path / "in", [[(60, 70, 40, 12, 0)]] * 3, suffix=suffix)
    coco.write(dataset, tmp_path / "out")
    broken = tmp_path / "out" / "images" / "train" / f"image_1{suffix}"
    os.truncate(broken, broken.stat().st_size * 2 // 3)
    back = coco.read(tmp_path / "out")
    assert [sample.name for sample in back] == ["image_0", "image_2"]
    assert _only_problem(back).path == broken


def test_bytes_after_the_end_of_a_jpeg_do_not_count_as_truncation(make_dataset, tmp_path):
    dataset = make_dataset(tmp_path / "in", [[(60, 70, 40, 12, 0)]], suffix=".jpg")
    with open(dataset.samples[0].image, "ab") as file:
        file.write(b"\0" * 500)
    coco.write(dataset, tmp_path / "out")
    assert coco.read(tmp_path / "out").problems == []


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("10 10 20 10 20 20 ship 0", "3 points"),
        ("10 10 20 10 20 20", "3 points"),
        ("nan 10 20 10 20 20 10 20 ship 0", "finite"),
        ("10 10 20 10 20 20 10 20", "fields"),
        ("10 10 20 x 20 20 10 20 Car 0", "'x'"),
        ("10 10 20 10 20 20 10 20 zeppelin 0", "unknown class 'zeppelin'"),
        ("10 10 10 10 10 10 10 10 Car 0", "no area"),
    ],
)
def test_an_invalid_dota_line_is_reported_with_its_number_and_the_others_are_read(line, words, dota_folder):
    file = dota_folder / "train" / "labelTxt" / "image_1.txt"
    first, second = file.read_text().splitlines()
    file.write_text(f"{first}\n\n{line}\n{second}\n")
    dataset = dota.read(dota_folder)
    problem = _only_problem(dataset)
    assert (problem.path, problem.line) == (file, 3)
    assert words in problem.message
    assert [len(sample.layout) for sample in dataset] == [2, 2, 2]


def test_lenient_dota_lines_are_read(dota_folder):
    file = dota_folder / "train" / "labelTxt" / "image_1.txt"
    file.write_text("gsd:null\n1e1 10 +20 10.0 20 20 10 20 large ship 1\n 10 10 20 10 20 20 10 20 CAR\n\n")
    dataset = dota.read(dota_folder)
    assert dataset.problems == []
    assert dataset.samples[1].layout.names() == ["large ship", "Car"]
    assert dataset.samples[1].layout.difficult.tolist() == [True, False]


def _replace_in(file, old, new):
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("<ymin>", "<ymean>", "not valid XML"),
        ("<xmin>41</xmin>", "", "no <xmin>"),
        ("<xmin>41</xmin>", "<xmin>NaN</xmin>", "finite"),
        ("<name>plane</name>", "", "no <name>"),
        ("<name>plane</name>", "<name>zeppelin</name>", "unknown class"),
        ("<xmin>41</xmin>", "<xmin>400</xmin>", "ends before it begins"),
    ],
)
def test_an_invalid_voc_file_is_reported_and_the_others_are_read(old, new, words, make_dataset, tmp_path):
    voc.write(make_dataset(tmp_path / "in", [[(60, 70, 40, 12, 0), (120, 70, 20, 12, 0)]] * 2), tmp_path / "out")
    file = tmp_path / "out" / "Annotations" / "image_0.xml"
    _replace_in(file, old, new)
    dataset = voc.read(tmp_path / "out")
    problem = _only_problem(dataset)
    assert problem.path == file
    assert words in problem.message
    if "valid" not in words:
        assert file.read_text().splitlines()[problem.line - 1].strip() == "<object>"
        assert [len(sample.layout) for sample in dataset] == [1, 2]


def test_a_dior_object_without_a_corner_is_reported(make_dataset, tmp_path):
    dior.write(make_dataset(tmp_path / "in", [[(60, 70, 40, 12, 0.5)] * 2]), tmp_path / "out")
    file = tmp_path / "out" / dior.ORIENTED / "image_0.xml"
    _replace_in(file, "x_left_bottom", "x_lost")
    _replace_in(file, "/x_left_bottom", "/x_lost")
    dataset = dior.read(tmp_path / "out")
    assert "<x_left_bottom>" in _only_problem(dataset).message
    assert len(dataset.samples[0].layout) == 1


def test_xml_entities_are_not_followed(make_dataset, tmp_path):
    voc.write(make_dataset(tmp_path / "in", [[(60, 70, 40, 12, 0)]] * 2), tmp_path / "out")
    file = tmp_path / "out" / "Annotations" / "image_0.xml"
    file.write_text('<!DOCTYPE a [<!ENTITY e SYSTEM "file:///etc/hostname">]><annotation>&e;</annotation>')
    dataset = voc.read(tmp_path / "out")
    assert "entities" in _only_problem(dataset).message
    assert len(dataset) == 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"bbox": [1, 2, float("nan"), 4], "segmentation": [[1, 2, 3, 4, 5, 6, float("nan"), 8]]}, "finite"),
        ({"segmentation": [[1, 1, 5, 1, 1, 1]]}, "3 points"),
        ({"category_id": 77}, "77 is unknown"),
        ({"image_id": 99}, "99 is unknown"),
    ],
)
def test_an_invalid_coco_annotation_is_reported_and_the_others_are_read(change, words, make_dataset, tmp_path):
    coco.write(make_dataset(tmp_path / "in", [[(60, 70, 40, 12, 0.3)] * 3]), tmp_path / "out")
    file = tmp_path / "out" / "annotations" / "train.json"
    content = json.loads(file.read_text())
    content["annotations"][1] |= change
    file.write_text(json.dumps(content))
    dataset = coco.read(tmp_path / "out")
    problem = _only_problem(dataset)
    assert "annotation 2" in problem.message
    assert words in problem.message
    assert len(dataset.samples[0].layout) == 2


@pytest.mark.parametrize("module", [coco, hit_uav])
def test_invalid_json_in_one_split_does_not_affect_the_other(module, make_dataset, tmp_path):
    dataset = make_dataset(tmp_path / "in", [[(60, 70, 40, 12, 0.3)]])
    module.write(dataset, tmp_path / "out", split="train")
    (tmp_path / "out" / "annotations" / "val.json").write_text('{"images": [\n{"id": 1,')
    back = module.read(tmp_path / "out")
    assert len(back) == 1
    assert "line 2" in _only_problem(back).message


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("7 0.5 0.5 0.1 0.1", "class number 7"),
        ("0 0.5 0.5 0.1", "4 fields"),
        ("0 0.1 0.1 0.2 0.1 0.2 0.2", "3 points"),
        ("0 nan 0.5 0.1 0.1", "finite"),
        ("0 0.5 0.5 0 0.1", "no area"),
    ],
)
def test_an_invalid_yolo_line_is_reported_with_its_number(line, words, make_dataset, tmp_path):
    yolo.write(make_dataset(tmp_path / "in", [[(60, 70, 40, 12, 0.3)]] * 2), tmp_path / "out")
    file = tmp_path / "out" / "labels" / "train" / "image_0.txt"
    file.write_text(file.read_text() + line + "\n")
    dataset = yolo.read(tmp_path / "out")
    problem = _only_problem(dataset)
    assert (problem.path, problem.line) == (file, 2)
    assert words in problem.message
    assert [len(sample.layout) for sample in dataset] == [1, 1]


def test_a_wrong_size_in_an_annotation_is_reported_and_the_size_of_the_image_is_used(make_dataset, tmp_path):
    coco.write(make_dataset(tmp_path / "in", [[(60, 70, 40, 12, 0.3)]]), tmp_path / "out")
    _replace_in(tmp_path / "out" / "annotations" / "train.json", '"width": 200', '"width": 300')
    dataset = coco.read(tmp_path / "out")
    assert dataset.samples[0].layout.size == (200, 150)
    assert "300x150" in _only_problem(dataset).message


@pytest.mark.parametrize(
    ("field", "value"),
    [("altitude", "-5"), ("altitude", "high"), ("perspective", "120"), ("date", "20211399"), ("date", "yesterday")],
)
def test_metadata_out_of_range_are_reported_and_become_unknown(field, value, make_dataset, tmp_path):
    hit_uav.write(make_dataset(tmp_path / "in", [[(60, 70, 40, 12, 0.3)]] * 2), tmp_path / "out")
    file = tmp_path / "out" / "annotations" / "train.json"
    content = json.loads(file.read_text())
    content["images"][0][field] = value
    file.write_text(json.dumps(content))
    dataset = hit_uav.read(tmp_path / "out")
    assert len(dataset) == 2
    assert dataset.samples[0].layout.acquisition == Acquisition()
    assert dataset.samples[1].layout.acquisition.altitude_m == 80
    assert "image_0.png" in _only_problem(dataset).message


def test_missing_paths_empty_folders_and_unknown_formats_are_user_errors(tmp_path, dota_folder):
    with pytest.raises(UserError, match="does not exist"):
        formats.read(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="is empty"):
        formats.read(tmp_path / "empty")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "read.me").write_text("nothing of use")
    with pytest.raises(UserError, match="no known format"):
        formats.read(tmp_path / "notes")
    for format in formats.FORMATS:
        with pytest.raises(UserError):
            formats.read(tmp_path / "empty", format)
        with pytest.raises(UserError):
            formats.read(tmp_path / "nowhere", format)
    with pytest.raises(UserError, match="'kitti' is not a known format"):
        formats.read(dota_folder, "kitti")
    with pytest.raises(UserError, match="no split 'test'; it has train"):
        formats.read(dota_folder, split="test")


def test_an_empty_data_set_reports_its_first_problem(dota_folder):
    shutil.rmtree(dota_folder / "train" / "images")
    with pytest.raises(UserError, match=r"no usable labelled image.*3 problems.*image_0.txt.*missing"):
        dota.read(dota_folder)


def test_a_class_list_of_another_data_set_is_rejected(dota_folder):
    with pytest.raises(UserError, match="shares no name"):
        dota.read(dota_folder, classes=("truck", "bus"))
    some = dota.read(dota_folder, classes=("Car", "plane"))
    assert len(some.problems) == 3
    assert "'large-ship'" in some.problems[0].message


def test_a_repeated_class_is_rejected(dota_folder):
    with pytest.raises(UserError, match="twice"):
        dota.read(dota_folder, classes=("Car", "car"))


class TestWriting:
    """Other files are never overwritten, and a data set is never written in part."""

    def test_a_folder_with_other_files_is_rejected_and_unchanged(self, make_dataset, tmp_path):
        dataset = make_dataset(tmp_path / "in", [[(60, 70, 40, 12, 0)]])
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "thesis.txt").write_text("years of work")
        for format in formats.WRITTEN:
            with pytest.raises(UserError, match="not empty"):
                formats.write(dataset, tmp_path / "mine", format)
        assert [file.name for file in (tmp_path / "mine").rglob("*")] == ["thesis.txt"]

    def test_a_file_another_format_another_class_list_or_the_same_split_is_rejected(self, make_dataset, tmp_path):
        dataset = make_dataset(tmp_path / "in", [[(60, 70, 40, 12, 0)]])
        coco.write(dataset, tmp_path / "out")
        with pytest.raises(UserError, match="is a file"):
            coco.write(dataset, dataset.samples[0].image)
        with pytest.raises(UserError, match="in coco format, not dota"):
            dota.write(dataset, tmp_path / "out")
        with pytest.raises(UserError, match="has the classes"):
            coco.write(make_dataset(tmp_path / "in2", [[]], classes=("x",)), tmp_path / "out", split="val")
        with pytest.raises(UserError, match="split 'train' already"):
            coco.write(dataset, tmp_path / "out")

    def test_an_image_name_of_another_split_is_rejected_if_splits_share_a_folder(self, make_dataset, tmp_path):
        dataset = make_dataset(tmp_path / "in", [[(60, 70, 40, 12, 0)]])
        dior.write(dataset, tmp_path / "out")
        before = sorted(file for file in (tmp_path / "out").rglob("*"))
        with pytest.raises(UserError, match="belongs to another split"):
            dior.write(dataset, tmp_path / "out", split="val")
        assert sorted(file for file in (tmp_path / "out").rglob("*")) == before

    @pytest.mark.parametrize("format", sorted(formats.WRITTEN))
    def test_a_failed_write_leaves_nothing_and_can_be_repeated(self, format, make_dataset, tmp_path, monkeypatch):
        dataset = make_dataset(tmp_path / "in", [[(60, 70, 40, 12, 0)]] * 3)
        calls, whole = [], shutil.copyfile

        def full(source, target):
            calls.append(target)
            if len(calls) == 2:
                raise OSError(28, "No space left on device", str(target))
            return whole(source, target)

        from dataengine.data import images

        place = images.place
        monkeypatch.setattr(images, "place", lambda source, *to: (full(source, os.devnull), place(source, *to)))
        with pytest.raises(UserError, match="No space left"):
            formats.write(dataset, tmp_path / "out", format)
        assert [file for file in (tmp_path / "out").rglob("*") if file.is_file()] == []
        monkeypatch.undo()
        formats.write(dataset, tmp_path / "out", format)
        assert len(formats.read(tmp_path / "out", format)) == 3

    def test_a_write_interrupted_while_files_move_can_be_repeated(self, make_dataset, tmp_path, monkeypatch):
        dataset = make_dataset(tmp_path / "in", [[(60, 70, 40, 12, 0)]] * 3)
        replace, moved = os.replace, []

        def killed(source, target):
            moved.append(target)
            if len(moved) == 4:
                raise KeyboardInterrupt
            replace(source, target)

        monkeypatch.setattr(os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            coco.write(dataset, tmp_path / "out")
        monkeypatch.undo()
        coco.write(dataset, tmp_path / "out")
        assert len(coco.read(tmp_path / "out")) == 3

    def test_images_that_vanish_before_writing_are_reported_and_the_others_are_written(self, make_dataset, tmp_path):
        dataset = make_dataset(tmp_path / "in", [[(60, 70, 40, 12, 0)]] * 3)
        dataset.samples[1].image.unlink()
        left_out = coco.write(dataset, tmp_path / "out")
        assert [problem.path.name for problem in left_out] == ["image_1.png"]
        assert len(coco.read(tmp_path / "out")) == 2

    def test_two_images_that_would_get_the_same_name_are_rejected(self, make_dataset, tmp_path):
        dataset = make_dataset(tmp_path / "in", [[(60, 70, 40, 12, 0)]] * 2)
        names = ("a/b", "a__b")
        dataset.samples = [type(s)(name, s.image, s.layout) for s, name in zip(dataset, names, strict=True)]
        with pytest.raises(UserError, match="two images"):
            dota.write(dataset, tmp_path / "out")

    def test_names_in_an_annotation_cannot_lead_outside_the_folder(self, make_dataset, tmp_path):
        coco.write(make_dataset(tmp_path / "in", [[(60, 70, 40, 12, 0.2)]]), tmp_path / "out")
        file = tmp_path / "out" / "annotations" / "train.json"
        shutil.copy(tmp_path / "out" / "images" / "train" / "image_0.png", tmp_path / "outside.png")
        _replace_in(file, "image_0.png", "../../../outside.png")
        with pytest.raises(UserError, match=r"'\.\./\.\./\.\./outside\.png' leads out of"):
            coco.read(tmp_path / "out")
