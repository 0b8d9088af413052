"""What `dataengine export mmrotate` writes and refuses, without mmrotate."""

from __future__ import annotations

import ast
import json
import shutil
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_cli import dataengine

from dataengine.data import coco, formats
from dataengine.data.layout import Acquisition, Dataset, Layout, Sample
from dataengine.errors import UserError
from dataengine.layouts.windows import cut
from dataengine.mmrotate.export import export, parse_ratio
from dataengine.mmrotate.training_config import DETECTORS, ExportedData, config_text

ROOT = Path(__file__).parents[2]


def values_of(config: Path) -> dict:
    """The `name = dict(...)` of a config file, as plain values."""
    space: dict = {}
    for node in ast.parse(config.read_text()).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id != "model":
            exec(compile(ast.Module([node], []), str(config), "exec"), space)
    return space


def test_the_command_writes_a_config_and_its_data(run, real, tmp_path):
    out = tmp_path / "out"
    made = dataengine("export", "mmrotate", run, "--real", real, "--detector", "s2anet", "--ratio", "1:2", "--out", out)
    assert made.returncode == 0, made.stderr
    assert "4 real and 3 synthetic images and tests on 2 real images" in made.stdout
    assert sorted(entry.name for entry in out.iterdir()) == ["data", "s2anet.py"]
    config = values_of(out / "s2anet.py")
    parts = config["train_dataloader"]["dataset"]["datasets"]
    assert [part["type"] for part in parts] == ["DOTADataset", "RepeatDataset"]
    assert parts[1]["times"] == 2
    for name, split, n in (("real", "train", 4), ("real", "test", 2), ("synthetic", "train", 3)):
        assert len(formats.read(out / "data" / name, "dota", split=split)) == n
    assert str(tmp_path) not in (out / "s2anet.py").read_text(), "the folder can be moved"


def test_without_out_the_export_lies_in_the_run_and_the_run_stays_one(make_run, real):
    run = make_run()
    made = dataengine("export", "mmrotate", run, "--real", real)
    assert made.returncode == 0, made.stderr
    assert (run / "mmrotate" / "oriented-rcnn.py").is_file()


def test_a_second_detector_uses_the_existing_data_and_other_data_is_refused(run, real, make_real, tmp_path):
    export(run, real, tmp_path, detector="redet")
    file = next((tmp_path / "data/real/train/images").iterdir())
    before = file.stat().st_mtime_ns
    export(run, real, tmp_path, detector="rtmdet-r", ratio=(2, 1))
    assert file.stat().st_mtime_ns == before
    assert {config.stem for config in tmp_path.glob("*.py")} == {"redet", "rtmdet-r"}
    with pytest.raises(UserError, match=r"other data \(images differ\)"):
        export(real, real, tmp_path, detector="redet")
    with pytest.raises(UserError, match=r"other data \(layout differ\)"):
        export(run, real, tmp_path, detector="redet", layout="coco")


def test_large_real_images_are_cut_into_tiles_and_small_ones_are_not(run, make_real, tmp_path):
    real = make_real(size=240)
    done = export(run, real, tmp_path / "a", detector="oriented-rcnn", tile_size=128)
    assert done.real > 4
    assert {s.layout.size for s in formats.read(tmp_path / "a/data/real")} == {(128, 128)}
    whole = export(run, real, tmp_path / "b", detector="oriented-rcnn", tile_size=240)
    assert whole.real == 4


def test_objects_that_the_border_cuts_are_labelled_alike_in_real_tiles_and_in_synthetic_images(tmp_path):
    """The same objects at the border, cut off by tiling a real picture, and by the size of an image of a run."""
    file = tmp_path / "picture.png"
    Image.fromarray(np.full((96, 192, 3), 90, np.uint8)).save(file)
    boxes = [[96, 20, 40, 12, 0.5], [90, 50, 20, 12, 0.5], [88, 75, 40, 12, 0.0], [40, 40, 20, 12, 1.0]]
    layout = Layout(boxes, [0] * 4, ("car",), (192, 96))
    picture = Dataset(("car",), [Sample("picture", file, layout)], "obb", name="toy")
    coco.write(picture, tmp_path / "real", split="train")
    left = cut(layout, 0, 0, (96, 96))
    Image.fromarray(np.full((96, 96, 3), 90, np.uint8)).save(tmp_path / "left.png")
    run = replace(picture, samples=[Sample("left", tmp_path / "left.png", left)])
    coco.write(run, tmp_path / "run")
    export(
        tmp_path / "run", tmp_path / "real", tmp_path / "out", detector="s2anet", tile_size=96,
        test=str(tmp_path / "real"),
    )  # fmt: skip
    [synthetic] = formats.read(tmp_path / "out/data/synthetic")
    [tile] = [s for s in formats.read(tmp_path / "out/data/real", split="train") if s.name.endswith("__0___0")]
    assert len(left) == 4
    assert len(synthetic.layout) == 4, "the first, which is cut in half, keeps its label"
    order = [np.argsort(layout.boxes[:, 1]) for layout in (synthetic.layout, tile.layout)]
    assert synthetic.layout.boxes[order[0]] == pytest.approx(tile.layout.boxes[order[1]], abs=0.02)


def one_image(folder: Path, layout: Layout, name: str = "picture", grey: int = 90) -> Dataset:
    """A data set of one image with a white square of 8 px at 60, 60."""
    folder.mkdir(parents=True, exist_ok=True)
    pixels = np.full((layout.size[1], layout.size[0], 3), grey, np.uint8)
    pixels[56:64, 56:64] = 255
    Image.fromarray(pixels).save(folder / f"{name}.png")
    return Dataset(layout.classes, [Sample(name, folder / f"{name}.png", layout)], "obb", name="toy")


def square_is_shown(file: Path) -> bool:
    with Image.open(file) as image:
        return np.asarray(image.convert("L"))[60, 60] > 200


@pytest.mark.parametrize("kind", ["hbb", "obb"])
def test_upright_boxes_for_an_oriented_detector_are_noted(kind, tmp_path):
    labels = Layout([[20, 20, 12, 8, 0]], [0], ("car",), (96, 96), kind)
    for name in ("real", "test"):
        coco.write(replace(one_image(tmp_path / "in", labels, name), kind=kind), tmp_path / name)
    out, test = tmp_path / "out", str(tmp_path / "test")
    done = export(None, tmp_path / "real", out, detector="s2anet", test=test, ratio=(1, 0))
    assert any("boxes are upright" in note for note in done.notes) == (kind == "hbb")


@pytest.mark.parametrize("layout", ["dota", "coco", "dior", "hrsc"])
def test_ignored_regions_are_filled_to_train_on_and_kept_to_test_on(layout, tmp_path):
    """An unlabelled square in an ignored region must not be trained on as background."""
    labels = Layout([[20, 20, 12, 8, 0]], [0], ("car",), (96, 96), ignored=[[60, 60, 16, 12, 0]])
    for name in ("real", "test", "run"):
        coco.write(one_image(tmp_path / "in", labels, name), tmp_path / name)
    done = export(
        tmp_path / "run", tmp_path / "real", tmp_path / "out", detector="s2anet", layout=layout,
        test=str(tmp_path / "test"), train_splits=["train"],
    )  # fmt: skip
    shown = {}
    for part in ("real", "synthetic"):
        for sample in formats.read(tmp_path / "out/data" / part, layout):
            shown[sample.name] = square_is_shown(sample.image)
            assert len(sample.layout) == 1
            assert len(sample.layout.ignored) == (sample.name == "test" and layout == "dota")
    assert shown == {"real": False, "run": False, "test": layout == "dota"}
    said = " ".join(done.notes)
    assert ("1 test images have ignored regions, which the layout" in said) == (layout != "dota")


def test_images_without_objects_are_said_not_to_be_loaded_and_unused_ones_count_nothing(make_run, make_real, tmp_path):
    run, real = make_run(), make_real()
    empty = Layout(np.zeros((0, 5)), [], ("car", "van"), (96, 96))
    train = formats.read(real, split="train")
    train.samples += one_image(tmp_path / "in", empty, "empty").samples
    mixed = tmp_path / "mixed"
    formats.write(train, mixed, "coco", split="train")
    formats.write(formats.read(real, split="val"), mixed, "coco", split="val")
    done = export(run, mixed, tmp_path / "out", detector="redet")
    assert (done.real, done.synthetic, done.test) == (4, 3, 2)
    assert done.notes == ["real images without objects, on which mmrotate does not train: 1 of 5"]
    assert export(run, mixed, tmp_path / "out", detector="redet").notes == done.notes, "also the second time"
    alone = export(run, mixed, tmp_path / "out", detector="redet", ratio=(0, 1))
    assert (alone.real, alone.synthetic) == (0, 3)


CHANGES = {
    "pixels": lambda one: one_image(one.image.parent, one.layout, one.name, grey=91).samples[0],
    "difficult": lambda one: replace(one, layout=replace(one.layout, difficult=[True])),
    "visible": lambda one: replace(one, layout=replace(one.layout, visible=[0.5])),
    "ignored": lambda one: replace(one, layout=replace(one.layout, ignored=[[60, 60, 16, 12, 0]])),
    "acquisition": lambda one: replace(one, layout=replace(one.layout, acquisition=Acquisition(gsd_m=0.5))),
    "licence": lambda one: replace(one, license="CC0"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_an_export_of_other_data_of_any_kind_is_refused_in_the_same_folder(change, tmp_path):
    labels = Layout([[20, 20, 12, 8, 0]], [0], ("car",), (96, 96))
    for name in ("real", "test", "run"):
        coco.write(one_image(tmp_path / "in", labels, name), tmp_path / name)
    data = {"real": tmp_path / "real", "test": str(tmp_path / "test"), "train_splits": ["train"]}
    export(tmp_path / "run", out=tmp_path / "out", detector="s2anet", **data)
    export(tmp_path / "run", out=tmp_path / "out", detector="redet", **data)
    dataset = one_image(tmp_path / "in", labels, "run")
    dataset.samples[0] = CHANGES[change](dataset.samples[0])
    coco.write(dataset, tmp_path / "changed")
    with pytest.raises(UserError, match=r"other data \(images differ\)"):
        export(tmp_path / "changed", out=tmp_path / "out", detector="redet", **data)


def test_the_test_images_may_be_a_data_set_of_their_own(run, make_run, real, tmp_path):
    held_out = make_run() / "coco"
    without_splits = tmp_path / "real"
    formats.write(formats.read(real, split="train"), without_splits, "dota", split="all")
    shutil.move(without_splits / "all" / "images", without_splits / "images")
    shutil.move(without_splits / "all" / "labelTxt", without_splits / "labelTxt")
    done = export(run, without_splits, tmp_path / "out", detector="oriented-rcnn", test=str(held_out))
    assert (done.real, done.test) == (4, 3)
    with pytest.raises(UserError, match=r"needs a split to train on and another to evaluate on; it has none"):
        export(run, without_splits, tmp_path / "other", detector="oriented-rcnn")


def test_several_splits_are_trained_on_together(run, real, make_run, tmp_path):
    done = export(
        run, real, tmp_path, detector="redet", train_splits=("train", "val"), test=str(make_run() / "coco")
    )  # fmt: skip
    assert done.real == 6


def test_classes_are_matched_by_name_and_the_order_is_the_real_datas(make_run, make_real, tmp_path):
    run, real = make_run(classes=("Storage Tank", "Plane")), make_real(classes=("plane", "storage-tank"))
    export(run, real, tmp_path, detector="rtmdet-r")
    before = formats.read(run / "coco")
    after = {s.name: s.layout for s in formats.read(tmp_path / "data/synthetic", "dota")}
    for sample in before:
        meant = [name.lower().replace(" ", "-") for name in sample.layout.names()]
        assert after[sample.name].names() == meant
    config = values_of(tmp_path / "rtmdet-r.py")
    (real_part, _) = config["train_dataloader"]["dataset"]["datasets"]
    assert real_part["metainfo"]["classes"] == ("plane", "storage-tank")
    rotation = next(step for step in real_part["pipeline"] if step["type"] == "RandomRotate")
    assert rotation["rect_obj_labels"] == [1], "a round object keeps its upright box when the picture is turned"


@pytest.mark.parametrize("kind", ["hbb", "obb"])
def test_images_with_upright_boxes_are_turned_by_quarter_turns_only(kind, make_run, real, tmp_path):
    """The hull of an object, turned by 45 degrees, is no hull of the object there."""
    data = formats.read(real, split="train")
    formats.write(replace(data, kind=kind), tmp_path / "real", "coco", split="train")
    export(None, tmp_path / "real", tmp_path / "out", detector="rtmdet-r", ratio=(1, 0), tested=False)
    config = values_of(tmp_path / "out" / "rtmdet-r.py")
    (part,) = config["train_dataloader"]["dataset"]["datasets"]
    turns = [step for step in part["pipeline"] if "Rotate" in step["type"]]
    if kind == "hbb":
        assert turns == [{"type": "RandomChoiceRotate", "prob": 0.5, "angles": [90, 180, 270]}]
    else:
        assert turns[0]["type"] == "RandomRotate"


def test_a_class_missing_in_the_real_data_is_named_and_left_out_on_request(make_run, real, tmp_path):
    run = make_run(classes=("airship", "van"))
    with pytest.raises(UserError, match="shows airship, which"):
        export(run, real, tmp_path / "out", detector="redet")
    assert not (tmp_path / "out").exists()
    done = export(run, real, tmp_path / "out", detector="redet", classes=("van",))
    assert done.classes == ("van",)
    labels = "".join(file.read_text() for file in (tmp_path / "out/data/synthetic").rglob("*.txt"))
    assert "van" in labels
    assert "airship" not in labels


def test_most_limits_the_number_of_synthetic_images(run, real, tmp_path):
    assert export(run, real, tmp_path, detector="redet", most=2).synthetic == 2


@pytest.mark.parametrize("text", ["", "1", "a:b", "0:0", "-1:1", "1:2:3", "1.5:1"])
def test_an_invalid_ratio_is_refused(text):
    with pytest.raises(UserError, match="two whole numbers"):
        parse_ratio(text)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"--detector": "yolo"}, "'--detector': 'yolo' is not one of 'oriented-rcnn'"),
        ({"--layout": "voc"}, "'--layout': 'voc' is not one of 'dota'"),
        ({"--ratio": "all"}, "--ratio all"),
        ({"--scale": "0"}, "--scale 0"),
        ({"--test": "train"}, "--test train: the split is also trained on"),
        ({"--test": "autumn"}, "no split 'autumn'"),
        ({"--real": "no-such-folder"}, "no-such-folder does not exist"),
        ({"--classes": "submarine"}, "submarine"),
    ],
)
def test_a_mistake_is_one_sentence_and_nothing_is_written(change, says, run, real, tmp_path):
    arguments = {"--real": str(real), "--out": str(tmp_path / "out")} | change
    made = dataengine("export", "mmrotate", run, *(word for pair in arguments.items() for word in pair))
    assert made.returncode == 2
    assert says in made.stderr
    assert "Traceback" not in made.stderr
    assert not (tmp_path / "out").exists()


def test_an_unfinished_run_and_a_damaged_one_are_refused(make_run, real, tmp_path):
    run = make_run()
    shutil.rmtree(run / "coco")
    with pytest.raises(UserError, match="not finished"):
        export(run, real, tmp_path / "out", detector="redet")
    run = make_run()
    (run / "recipe.json").write_text("{")
    with pytest.raises(UserError, match=r"recipe\.json: damaged"):
        export(run, real, tmp_path / "out", detector="redet")


def test_an_interrupted_export_leaves_no_data_behind(run, real, tmp_path, monkeypatch):
    written = []

    def breaks(*arguments, **options):
        written.append(arguments)
        if len(written) == 3:
            raise OSError(28, "No space left on device")
        return formats.write(*arguments, **options)

    monkeypatch.setattr("dataengine.mmrotate.export.formats.write", breaks)
    with pytest.raises(UserError, match="No space left on device"):
        export(run, real, tmp_path / "out", detector="redet")
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("cpu", [False, True])
@pytest.mark.parametrize("detector", DETECTORS)
def test_every_config_is_python_and_replaces_layers_only_for_the_cpu(detector, cpu, run, real, tmp_path):
    config = export(run, real, tmp_path, detector=detector, cpu=cpu).config
    text = config.read_text()
    assert values_of(config)["_base_"] == [f"mmrotate::{DETECTORS[detector].config}"]
    assert ("dataengine.mmrotate.cpu_layers" in text) == (cpu and bool(DETECTORS[detector].cuda_only))
    assert max(map(len, text.splitlines())) <= 120


def test_the_exported_data_records_its_source(run, real, tmp_path):
    export(run, real, tmp_path, detector="redet")
    stored = json.loads((tmp_path / "data/export.json").read_text())
    assert stored["counts"] == {"real": 4, "test": 2, "synthetic": 3}
    assert stored["classes"] == ["car", "van"]


def test_the_base_install_needs_no_torchvision():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert not any("torchvision" in need or "mmcv" in need for need in project["dependencies"])
    assert not any("torchvision" in need or "mmcv" in need for need in project["optional-dependencies"]["test"])


def test_images_of_16_bits_are_scaled_for_mmcv_which_would_keep_their_upper_8(run, tmp_path):
    real, names = tmp_path / "thermal", ("train/a", "train/b", "val/c")
    for number, name in enumerate(names):
        array = np.full((96, 128), 7000 + 400 * number, np.uint16)
        array[32:64, 40:80] = 8600
        for folder in ("images", "labels"):
            (real / folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(real / "images" / f"{name}.png")
        (real / "labels" / f"{name}.txt").write_text(f"0 {60 / 128} 0.5 {40 / 128} {32 / 96}")
    (real / "classes.txt").write_text("car")
    (real / "pixel-range.json").write_text('{"low": 6600, "high": 9000}')
    done = export(run, real, tmp_path / "out", detector="oriented-rcnn", classes=("car",))
    assert any("pixel values from 6600 to 9000 become 0 to 255" in note for note in done.notes)
    written = list((tmp_path / "out" / "data" / "real").rglob("*.png"))
    assert len(written) == 3
    for file in written:
        ground = 7000 + 400 * "abc".index(file.stem[-1])
        pixels = np.asarray(Image.open(file))
        assert pixels.dtype == np.uint8
        assert abs(int(pixels[5, 5].max()) - (ground - 6600) / 2400 * 255) <= 1
        assert abs(int(pixels[48, 60].max()) - (8600 - 6600) / 2400 * 255) <= 1


def test_real_images_alone_are_exported_without_a_run(real, tmp_path):
    made = dataengine("export", "mmrotate", "--real", real, "--out", tmp_path / "out")
    assert made.returncode == 0, made.stderr
    assert "trains on 4 real images and tests on 2 real images" in made.stdout
    assert not (tmp_path / "out" / "data" / "synthetic").exists()
    assert len(values_of(tmp_path / "out" / "oriented-rcnn.py")["train_dataloader"]["dataset"]["datasets"]) == 1
    for words, said in ((("--out", tmp_path / "b", "--ratio", "1:1"), "no synthetic images"), ((), "give the folder")):
        refused = dataengine("export", "mmrotate", "--real", real, *words)
        assert refused.returncode == 2
        assert said in refused.stderr
        assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(("detector", "batch_size", "warmup"), [("oriented-rcnn", 2, 500), ("rtmdet-r", 8, 1000)])
def test_the_schedule_is_stretched_for_few_images_and_mmrotates_own_for_many(detector, batch_size, warmup, tmp_path):
    """The warm-up of mmrotate is longer than 12 epochs of 48 images."""
    epochs = DETECTORS[detector].epochs
    for images in (48, 20_000):
        data = ExportedData("dota", ("car",), 256, 1.0, images)
        file = tmp_path / "config.py"
        file.write_text(config_text(detector, data, (1, 0), 1.0, cpu=False))
        config = values_of(file)
        in_epoch = -(-images // batch_size)
        assert config["train_dataloader"]["batch_size"] == batch_size
        found, (warm, then) = config["train_cfg"]["max_epochs"], config["param_scheduler"]
        if images == 20_000:
            assert (found, warm["end"]) == (epochs, warmup), "the control"
        else:
            assert found * in_epoch >= 3000
            assert warm["end"] <= found * in_epoch / 10
        if detector == "oriented-rcnn":
            assert then["milestones"] == [round(found * 8 / 12), round(found * 11 / 12)]
        else:
            assert (then["begin"], then["end"], then["T_max"]) == (round(found / 2), found, found - round(found / 2))
        assert config["default_hooks"]["checkpoint"]["interval"] == found // epochs, "as many checkpoints as mmrotate"


def test_a_detector_of_no_split_for_training_is_refused(real, tmp_path):
    both = tmp_path / "both"
    for split in ("val", "test"):
        formats.write(formats.read(real, split="val"), both, "coco", split=split)
    with pytest.raises(UserError, match="name those to train on"):
        export(None, both, tmp_path / "out", detector="redet", ratio=(1, 0), tested=False)
    shutil.copytree(real, tmp_path / "one")
    assert export(None, tmp_path / "one", tmp_path / "c", detector="redet", ratio=(1, 0), tested=False).real == 4
