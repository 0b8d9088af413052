"""Recognition by content in various folder structures, and of real data where it is available."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from PIL import Image

from dataengine.data import dior, dota, formats, hrsc, presets
from dataengine.errors import UserError

REAL = Path(__file__).parents[2].parent / "shared" / "data"
BOXES = [[], [(60, 70, 40, 12, 0.4), (120, 80, 30, 20, -0.2)]]


@pytest.mark.parametrize("format", sorted(formats.WRITTEN))
def test_each_format_is_recognised_in_what_its_writer_wrote(format, make_dataset, tmp_path):
    formats.write(make_dataset(tmp_path / "in", BOXES), tmp_path / "out", format)
    assert formats.recognize(tmp_path / "out") == format


@pytest.mark.parametrize("format", ["coco", "hit-uav", "yolo"])
def test_a_single_file_is_recognised_and_read(format, make_dataset, tmp_path):
    formats.write(make_dataset(tmp_path / "in", BOXES), tmp_path / "out", format)
    file = tmp_path / "out" / ("data.yaml" if format == "yolo" else "annotations/train.json")
    assert formats.recognize(file) == format
    assert len(formats.read(file)) == 2
    assert formats.splits(file) == ()


def _move(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(source, target)


def test_dota_is_read_with_its_original_folders(make_dataset, tmp_path):
    dota.write(make_dataset(tmp_path / "in", BOXES, classes=dota.CLASSES_V15), tmp_path / "out")
    out = tmp_path / "out"
    _move(out / "train" / "images", out / "images")
    _move(out / "train" / "labelTxt", out / "labelTxt-v1.5" / "DOTA-v1.5_train")
    horizontal = out / "labelTxt-v1.5" / "DOTA-v1.5_train_hbb"
    shutil.copytree(out / "labelTxt-v1.5" / "DOTA-v1.5_train", horizontal)
    (out / "classes.txt").unlink()
    dataset = formats.read(out)
    assert dataset.format == "dota"
    assert [len(sample.layout) for sample in dataset] == [0, 2]
    assert dataset.classes == dota.CLASSES_V10, "no container-crane was found, so the list is that of 1.0"


@pytest.mark.parametrize(
    ("last", "classes"),
    [("helicopter", dota.CLASSES_V10), ("container-crane", dota.CLASSES_V15), ("helipad", dota.CLASSES_V20)],
)
def test_the_dota_version_follows_from_the_classes(last, classes, make_dataset, tmp_path):
    dota.write(make_dataset(tmp_path / "in", [[(60, 70, 40, 12, 0.4)]], classes=(last,)), tmp_path / "out")
    (tmp_path / "out" / "classes.txt").unlink()
    assert dota.read(tmp_path / "out").classes == classes


def test_dior_is_read_with_underscores_and_with_horizontal_boxes_only(make_dataset, tmp_path):
    dior.write(make_dataset(tmp_path / "in", BOXES), tmp_path / "out")
    _move(tmp_path / "out" / dior.ORIENTED, tmp_path / "out" / dior.ORIENTED.replace(" ", "_"))
    assert formats.read(tmp_path / "out").kind == "obb"
    shutil.rmtree(tmp_path / "out" / dior.ORIENTED.replace(" ", "_"))
    assert formats.recognize(tmp_path / "out") == "dior"
    dataset = formats.read(tmp_path / "out")
    assert dataset.kind == "hbb"
    assert set(dataset.samples[1].layout.boxes[:, 4].round(4)) <= {0, -1.5708}


def test_hrsc_is_read_from_train_and_test_folders_next_to_lists(make_dataset, tmp_path):
    hrsc.write(make_dataset(tmp_path / "in", BOXES, classes=hrsc.CLASSES), tmp_path / "out")
    _move(tmp_path / "out" / "FullDataSet", tmp_path / "out" / "Train")
    assert formats.recognize(tmp_path / "out") == "hrsc"
    assert len(formats.read(tmp_path / "out", split="train")) == 2


def test_roboflow_folders_are_read(make_dataset, tmp_path):
    dataset = make_dataset(tmp_path / "in", BOXES)
    formats.write(dataset, tmp_path / "coco", "coco")
    _move(tmp_path / "coco" / "images" / "train", tmp_path / "roboflow" / "train")
    _move(tmp_path / "coco" / "annotations" / "train.json", tmp_path / "roboflow" / "train" / "_annotations.coco.json")
    assert formats.recognize(tmp_path / "roboflow") == "coco"
    assert formats.splits(tmp_path / "roboflow") == ("train",)
    assert len(formats.read(tmp_path / "roboflow", split="train")) == 2
    formats.write(dataset, tmp_path / "voc", "voc")
    for folder in ("JPEGImages", "Annotations"):
        for file in (tmp_path / "voc" / folder).iterdir():
            _move(file, tmp_path / "pascal" / "valid" / file.name)
    assert formats.recognize(tmp_path / "pascal") == "voc"
    assert formats.splits(tmp_path / "pascal") == ("valid",)
    assert sum(len(sample.layout) for sample in formats.read(tmp_path / "pascal", split="valid")) == 2


def test_images_of_splits_with_equal_names_are_kept_apart(make_dataset, tmp_path):
    dataset = make_dataset(tmp_path / "in", BOXES)
    for split in ("train", "val"):
        formats.write(dataset, tmp_path / "out", "coco", split=split)
    assert {sample.name for sample in formats.read(tmp_path / "out")} == {
        f"{split}/image_{i}" for split in ("train", "val") for i in range(2)
    }


def test_a_folder_without_labels_is_not_recognised(tmp_path):
    from dataengine.errors import UserError

    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "notes.txt").write_text("a list of things, nine words or more, none a number\n")
    (tmp_path / "package.json").write_text('{"name": "x"}')
    (tmp_path / "boxes.csv").write_text("a,b\n")
    with pytest.raises(UserError, match="no known format"):
        formats.recognize(tmp_path)


@pytest.mark.parametrize(
    ("folder", "format", "splits", "images", "objects"),
    [
        ("dior-sample", "dior", {"train", "val"}, 80, 2979),
        ("dota-sample", "dota", set(), 3, 721),
        ("hrplanes-v2", "coco", {"train", "val"}, 1215, 8025),
        ("hit-uav", "hit-uav", {"train", "val"}, 2319, 17628 + 2460 - 110 - 7),
    ],
)
def test_real_folders_are_recognised_and_read_without_problems(folder, format, splits, images, objects):
    path = REAL / folder
    if not path.is_dir():
        pytest.skip(f"the real sample {folder} is not on this machine")
    assert formats.recognize(path) == format
    assert set(formats.splits(path)) == splits
    dataset = formats.read(path)
    assert dataset.problems == []
    assert (len(dataset), sum(len(sample.layout) for sample in dataset)) == (images, objects)


@pytest.mark.parametrize("folder", ["osm", "aid-small"])
def test_real_folders_of_unknown_formats_are_rejected(folder):
    from dataengine.errors import UserError

    if not (REAL / folder).is_dir():
        pytest.skip(f"the real sample {folder} is not on this machine")
    with pytest.raises(UserError, match="no known format"):
        formats.recognize(REAL / folder)


class TestPresets:
    """Known data sets."""

    def test_every_preset_is_valid_and_agrees_with_its_format(self):
        assert presets.preset_names() == (
            "dior", "dior-r", "dota-v1.0", "dota-v1.5", "dota-v2.0", "hit-uav", "hrplanes", "hrsc2016",
        )  # fmt: skip
        by_name = {name: presets.load_preset(name) for name in presets.preset_names()}
        assert all(name == preset.name for name, preset in by_name.items())
        assert by_name["dior-r"].classes == dior.CLASSES
        assert by_name["dior"].kind == "hbb"
        assert by_name["dota-v1.0"].classes == dota.CLASSES_V10
        assert by_name["dota-v1.5"].classes == dota.CLASSES_V15
        assert by_name["dota-v2.0"].classes == dota.CLASSES_V20

    def test_an_unknown_or_invalid_preset_is_rejected_with_its_field(self, tmp_path):

        with pytest.raises(UserError, match=r"'imagenet' is not a known data set; choose one of dior, "):
            presets.load_preset("imagenet")
        file = tmp_path / "mine.yaml"
        fields = {"name": "a", "title": "a", "format": "kitti", "kind": "obb", "classes": "[x]", "licence": "x"}
        file.write_text("\n".join(f"{k}: {v}" for k, v in (fields | {"source": "x", "places": "[data/a]"}).items()))
        with pytest.raises(UserError, match=r"format: .*kitti"):
            presets.load_preset(str(file))
        file.write_text(file.read_text().replace("kitti", "coco") + "\nextra: 1")
        with pytest.raises(UserError, match="extra"):
            presets.load_preset(str(file))
        file.write_text(file.read_text().replace("\nextra: 1", ""))
        assert presets.load_preset(str(file)).format == "coco"

    def test_a_custom_preset_needs_a_name_and_classes_only(self, make_dataset, tmp_path):
        dataset = make_dataset(tmp_path / "in", BOXES, classes=("car", "person"))
        formats.write(dataset, tmp_path / "out", "coco")
        (tmp_path / "mine.yaml").write_text("name: mine\nclasses: [person]\n")
        preset = presets.load_preset(str(tmp_path / "mine.yaml"))
        assert preset.title == "mine"
        assert set(presets.read_dataset(preset, tmp_path / "out").samples[1].layout.names()) == {"person"}
        with pytest.raises(UserError, match="--data"):
            presets.find_dataset(preset)

    def test_a_data_set_without_a_preset_gets_one(self, make_dataset, tmp_path):
        formats.write(make_dataset(tmp_path / "in", BOXES, classes=("car", "person")), tmp_path / "lots", "coco")
        preset = presets.preset_of(formats.read(tmp_path / "lots"), tmp_path / "lots")
        assert (preset.name, preset.classes, preset.format) == ("lots", ("car", "person"), "coco")

    def test_a_data_set_is_found_by_path_environment_or_default_folder(self, tmp_path, monkeypatch):

        preset = presets.load_preset("hit-uav")
        monkeypatch.chdir(tmp_path)
        monkeypatch.delenv("DATAENGINE_DATA", raising=False)
        with pytest.raises(UserError, match=r"none of data/hit-uav.*get it from"):
            presets.find_dataset(preset)
        with pytest.raises(UserError, match="does not exist"):
            presets.find_dataset(preset, tmp_path / "no")
        (tmp_path / "data" / "HIT-UAV").mkdir(parents=True)
        assert presets.find_dataset(preset) == Path("data/HIT-UAV")
        (tmp_path / "disk" / "hit-uav").mkdir(parents=True)
        monkeypatch.setenv("DATAENGINE_DATA", str(tmp_path / "disk"))
        assert presets.find_dataset(preset) == tmp_path / "disk" / "hit-uav"

    def test_a_preset_reads_its_data_in_another_format_too(self, make_dataset, tmp_path):
        preset = presets.load_preset("hit-uav")
        dataset = make_dataset(tmp_path / "in", BOXES, classes=("car", "person"))
        formats.write(dataset, tmp_path / "out", "coco")
        read = presets.read_dataset(preset, tmp_path / "out")
        assert read.classes == preset.classes
        assert read.samples[1].layout.names() == ["Car", "Person"]
        assert (read.samples[0].source, read.samples[0].license) == ("drone", "CC BY 4.0")
        assert read.name == "hit-uav"
