"""Files as other programs save them, and files with other content."""

from __future__ import annotations

import json
import shutil

import pytest
from PIL import Image

from dataengine.data import coco, dota, formats, hit_uav, presets, yolo
from dataengine.errors import UserError

BOXES = [[(60, 70, 40, 12, 0.2), (120, 80, 30, 20, 0.4)]] * 2


@pytest.fixture
def dota_folder(make_dataset, tmp_path):
    dota.write(make_dataset(tmp_path / "in", BOXES), tmp_path / "dota")
    return tmp_path / "dota"


def test_a_byte_order_mark_in_a_class_list_is_ignored(dota_folder):
    classes = dota_folder / "classes.txt"
    classes.write_text(classes.read_text(), "utf-8-sig")
    assert formats.read(dota_folder).problems == []


def test_a_class_list_in_another_encoding_is_one_sentence(dota_folder):
    classes = dota_folder / "classes.txt"
    classes.write_text(classes.read_text(), "utf-16")
    with pytest.raises(UserError, match=r"classes\.txt is not UTF-8 text .* save it as UTF-8"):
        formats.read(dota_folder)


def test_a_yaml_error_is_reported_with_its_line(tmp_path):
    (tmp_path / "mine.yaml").write_text("name: mine\nclasses: [a, b\n")
    with pytest.raises(UserError, match=r"mine\.yaml: line \d+ is not valid YAML"):
        presets.load_preset(str(tmp_path / "mine.yaml"))


@pytest.mark.parametrize("module", [coco, hit_uav])
def test_entries_that_are_not_objects_are_reported_and_the_others_are_read(module, make_dataset, tmp_path):
    module.write(make_dataset(tmp_path / "in", BOXES), tmp_path / "out")
    [file] = (tmp_path / "out" / "annotations").glob("*.json")
    content = json.loads(file.read_text())
    whole = sum(len(sample.layout) for sample in module.read(tmp_path / "out"))
    content["annotations"].append(7)
    content["images"].append(None)
    content |= {"info": [], "licenses": ["CC"]}
    file.write_text(json.dumps(content))
    dataset = module.read(tmp_path / "out")
    assert sum(len(sample.layout) for sample in dataset) == whole
    assert sorted(p.message.split(" is ")[0] for p in dataset.problems) == ["annotations[4]", "images[2]"]
    del content["categories"][0]["id"], content["annotations"][-1], content["images"][-1]
    file.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"categories\[0\] has no id"):
        module.read(tmp_path / "out")


@pytest.mark.parametrize(("line", "says"), [("names: {0: a, b: c}", "number the classes"), ("train: 5", "train: 5")])
def test_invalid_fields_in_a_yolo_yaml_are_one_sentence(line, says, make_dataset, tmp_path):
    yolo.write(make_dataset(tmp_path / "in", BOXES), tmp_path / "out")
    file = tmp_path / "out" / "data.yaml"
    file.write_text(line if line.startswith("names") else f"names: [a, b, c]\n{line}")
    with pytest.raises(UserError, match=says):
        yolo.read(tmp_path / "out")


def test_two_images_with_the_same_name_are_reported(dota_folder):
    folder = dota_folder / "train" / "images"
    assert not dota.read(dota_folder).problems
    Image.open(folder / "image_0.png").convert("RGB").save(folder / "image_0.jpg")
    dataset = dota.read(dota_folder)
    [problem] = dataset.problems
    assert problem.path.name == "image_0.txt"
    assert "image_0.jpg or train/images/image_0.png" in problem.message
    assert (problem.objects, [sample.name for sample in dataset]) == (2, ["image_1"]), "neither picture is chosen"


def test_a_box_beyond_the_limit_is_skipped(dota_folder):
    file = dota_folder / "train" / "labelTxt" / "image_0.txt"
    file.write_text(file.read_text() + "1e8 1 2e8 1 2e8 9 1e8 9 Car 0\n")
    dataset = dota.read(dota_folder)
    assert [len(sample.layout) for sample in dataset] == [2, 2]
    assert "1,000,000 pixels" in dataset.problems[0].message


def test_a_damaged_marker_of_an_earlier_write_is_one_sentence(make_dataset, tmp_path):
    dataset = make_dataset(tmp_path / "in", BOXES)
    coco.write(dataset, tmp_path / "out")
    (tmp_path / "out" / ".dataengine.json").write_text("{")
    with pytest.raises(UserError, match="is damaged"):
        coco.write(dataset, tmp_path / "out", split="val")
    shutil.rmtree(tmp_path / "out")
    coco.write(dataset, tmp_path / "out", split="val")
