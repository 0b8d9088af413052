"""`dataengine data ...`: what the commands print, write and reject."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
from typer.testing import CliRunner

from dataengine import geometry
from dataengine.data import coco, dota, formats
from dataengine.data.commands import FormatName, app
from dataengine.errors import UserError
from dataengine.judge.calibrate import MIN_IMAGES

BOXES = [[(60, 70, 40, 12, 0.4), (120, 80, 30, 20, -0.2), (40, 30, 20, 10, 0.0)], []]


@pytest.fixture
def folder(make_dataset, tmp_path):
    dota.write(make_dataset(tmp_path / "in", BOXES), tmp_path / "dota")
    return tmp_path / "dota"


def _run(*arguments):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_info_prints_a_table_or_json(folder):
    result = _run("info", folder)
    assert result.exit_code == 0
    assert "3 objects" in result.stdout.replace("\n", " ")
    assert "large ship" in result.stdout
    assert "[bold]" not in result.stdout
    figures = json.loads(_run("info", folder, "--json").stdout)
    assert (figures["images"], figures["objects"], figures["format"]) == (2, 3, "dota")


def test_check_exits_with_0_for_a_valid_data_set_and_with_1_for_an_invalid_one(folder):
    sound = _run("check", folder)
    assert (sound.exit_code, sound.stdout) == (0, "2 images, no problems.\n")
    file = folder / "train" / "labelTxt" / "image_0.txt"
    file.write_text(file.read_text() + "1 2 3\n")
    broken = _run("check", folder)
    assert broken.exit_code == 1
    assert "image_0.txt:4: " in broken.stderr
    assert "1 problem" in broken.stderr
    report = json.loads(_run("check", folder, "--json").stdout)
    assert report["count"] == 1
    assert report["problems"][0]["line"] == 4


def test_convert_says_which_kind_of_yolo_labels_it_writes(folder, make_dataset, tmp_path):
    upright = make_dataset(tmp_path / "upright", [[(60, 70, 40, 12, 0)]], kind="hbb")
    coco.write(upright, tmp_path / "coco")
    said = _run("convert", tmp_path / "coco", tmp_path / "detect", "--to", "yolo").stdout.replace("\n", " ")
    assert "in yolo format, with horizontal labels (class cx cy w h); --to yolo-obb writes rotated ones" in said
    for source, name in ((tmp_path / "coco", "yolo-obb"), (folder, "yolo")):
        made = _run("convert", source, tmp_path / f"{name}-out", "--to", name)
        assert "in yolo-obb format, with rotated labels (class and four corners)" in made.stdout.replace("\n", " ")
        assert formats.read(tmp_path / f"{name}-out").kind == "obb"


def test_convert_says_that_regions_are_filled_and_which_objects_lie_outside(make_dataset, tmp_path):
    dataset = make_dataset(tmp_path / "in", [[(60, 70, 40, 12, 0), (600, 70, 40, 12, 0)]], ignored=[(30, 30, 8, 8, 0)])
    lines = "".join(f"{x} 64 {x + 40} 64 {x + 40} 76 {x} 76 plane 0\n" for x in (40, 580))
    dota.write(dataset, tmp_path / "dota")
    file = tmp_path / "dota/train/labelTxt/image_0.txt"
    file.write_text(file.read_text() + lines)
    made = _run("convert", tmp_path / "dota", tmp_path / "out", "--to", "yolo")
    assert made.exit_code == 0
    assert "yolo cannot store ignored regions (their pixels are filled with the colour around them)" in made.stderr
    assert "image_0.png: object 3 lies outside the image; it is skipped" in made.stderr
    assert "train: 1 images" in made.stdout, "the image itself is written"


def test_convert_keeps_splits_and_reports_losses(folder, make_dataset, tmp_path):
    val = make_dataset(tmp_path / "val", [[(60, 70, 40, 12, 0.4)]])
    val.samples[0] = type(val.samples[0])("v", val.samples[0].image, val.samples[0].layout)
    dota.write(val, folder, split="val")
    result = _run("convert", folder, tmp_path / "yolo", "--to", "yolo")
    assert result.exit_code == 0
    assert "yolo cannot store difficult" in result.stderr
    assert formats.splits(tmp_path / "yolo") == ("train", "val")
    assert len(formats.read(tmp_path / "yolo", split="train")) == 2
    assert len(formats.read(tmp_path / "yolo", split="val")) == 1


def test_objects_of_classes_that_were_not_asked_for_are_a_note_and_no_problem(folder, make_dataset, tmp_path):
    made = make_dataset(tmp_path / "in4", BOXES[:1])
    two = replace(made.samples[0].layout, classes=("car", "ship"), labels=np.array([0, 1, 1]))
    dota.write(replace(made, classes=("car", "ship"), samples=[replace(made.samples[0], layout=two)]), tmp_path / "two")
    result = _run("check", tmp_path / "two", "--classes", "car")
    assert (result.exit_code, "no problems" in result.stdout) == (0, True)
    assert "objects of other classes than car are left out: 2 ship" in result.stderr
    with pytest.raises(UserError, match="at least one class"):
        _run("info", tmp_path / "two", "--classes", " , ")


def test_tile_keeps_splits(folder, make_dataset, tmp_path):
    val = make_dataset(tmp_path / "val", [[(60, 70, 40, 12, 0.4)]])
    val.samples[0] = replace(val.samples[0], name="v")
    dota.write(val, folder, split="val")
    result = _run("tile", folder, tmp_path / "tiles", "--size", "64", "--overlap", "16")
    assert "val: " in result.stdout
    assert {sample.name[0] for sample in formats.read(tmp_path / "tiles", split="val")} == {"v"}
    assert "v" not in {sample.name[0] for sample in formats.read(tmp_path / "tiles", split="train")}


def test_tile_writes_a_data_set_that_keeps_visible_fractions(folder, tmp_path):
    result = _run("tile", folder, tmp_path / "tiles", "--size", "64", "--overlap", "16", "--min-visible", "0.3")
    assert result.exit_code == 0
    tiles = formats.read(tmp_path / "tiles")
    assert tiles.format == "coco"
    assert {sample.layout.size for sample in tiles} == {(64, 64)}
    visible = [value for sample in tiles for value in sample.layout.visible.tolist()]
    assert min(visible) < 1
    assert min(visible) >= 0.3
    assert not [entry for entry in tmp_path.iterdir() if entry.name.startswith(".tiles-")]


def test_draw_writes_a_sheet_and_rejects_a_path_it_cannot_write_to(folder, tmp_path):
    assert "2 of 2 images" in _run("draw", folder, "--out", tmp_path / "sheet.png").stdout
    assert (tmp_path / "sheet.png").stat().st_size > 1000
    for bad in (tmp_path / "no" / "sheet.png", tmp_path / "sheet.what"):
        with pytest.raises(UserError, match="cannot be written"):
            _run("draw", folder, "--out", bad)


@pytest.mark.parametrize("command", ["info", "check"])
def test_a_user_error_is_one_sentence(command, tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        _run(command, tmp_path / "nowhere")


def test_an_unknown_target_format_is_rejected_before_reading(folder, tmp_path):
    for command in ("convert", "tile"):
        refused = _run(command, folder, tmp_path / "out", "--to", "kitti")
        assert refused.exit_code == 2
        assert "'kitti' is not one of 'dota', 'coco'" in refused.stderr
    assert not (tmp_path / "out").exists()


def test_the_choices_of_format_are_the_known_formats():
    assert get_args(FormatName) == tuple(formats.FORMATS)


@pytest.mark.parametrize("command", ["info", "draw", "check", "convert", "tile", "split", "merge"])
def test_help_ends_with_an_example(command):
    assert f"dataengine data {command}" in " ".join(_run(command, "--help").stdout.split())


def test_merge_writes_the_images_of_all_data_sets(folder, make_dataset, tmp_path):
    """The other data set lists its classes in another order."""
    other = make_dataset(tmp_path / "other", [[(60, 70, 40, 12, 0.4)], []], classes=("car", "plane", "Large ship"))
    other = replace(other, samples=[replace(s, name=f"other_{s.name}") for s in other])
    coco.write(other, tmp_path / "coco")
    result = _run("merge", folder, tmp_path / "coco", "--out", tmp_path / "both")
    assert "4 images, 4 objects, in coco format" in result.stdout
    both = {sample.name: sample.layout for sample in formats.read(tmp_path / "both")}
    for part in (formats.read(folder), other):
        for sample in part:
            kept = both[sample.name]
            assert [n.lower() for n in kept.names()] == [n.lower() for n in sample.layout.names()]
            assert kept.boxes == pytest.approx(sample.layout.boxes, abs=0.02)
            assert kept.kind == "obb"


def test_merge_keeps_both_images_with_the_same_name(folder, make_dataset, tmp_path):
    coco.write(make_dataset(tmp_path / "other", [[(100, 70, 60, 12, 0.4)]]), tmp_path / "coco")
    _run("merge", folder, tmp_path / "coco", "--out", tmp_path / "both")
    both = {sample.name: sample.layout for sample in formats.read(tmp_path / "both")}
    assert {*both} == {"image_0", "image_1", "image_0-2"}
    assert both["image_0-2"].boxes[0, 2] == pytest.approx(60, abs=0.1)
    assert len(both["image_0"]) == 3


def test_merge_reports_equal_images(folder, make_dataset, tmp_path):
    result = _run("merge", folder, folder, "--out", tmp_path / "twice")
    assert result.stderr.count("is the same image as") == len(dota.read(folder))
    coco.write(make_dataset(tmp_path / "other", BOXES, size=(220, 150)), tmp_path / "coco")
    assert "same image" not in _run("merge", folder, tmp_path / "coco", "--out", tmp_path / "both").stderr


def test_merge_with_horizontal_boxes_makes_all_boxes_horizontal(folder, make_dataset, tmp_path):
    other = make_dataset(tmp_path / "other", [[(60, 70, 40, 12, 0.0)]], kind="hbb")
    coco.write(other, tmp_path / "coco")
    _run("merge", folder, tmp_path / "coco", "--out", tmp_path / "both")
    both = formats.read(tmp_path / "both")
    assert both.kind == "hbb"
    turned = next(sample.layout.boxes[0] for sample in both if sample.name == "image_0")
    assert turned[2:4] == pytest.approx(np.ptp(geometry.to_corners(np.float32([BOXES[0][0]]))[0], axis=0), abs=0.02)


def test_merge_rejects_data_sets_with_different_classes(folder, make_dataset, tmp_path):
    coco.write(make_dataset(tmp_path / "other", [[]], classes=("plane", "Car", "tree")), tmp_path / "coco")
    with pytest.raises(UserError, match=r"only one has large ship, tree, .*--classes"):
        _run("merge", folder, tmp_path / "coco", "--out", tmp_path / "both")
    assert not (tmp_path / "both").exists()
    with pytest.raises(UserError, match="two or more"):
        _run("merge", folder, "--out", tmp_path / "both")


@pytest.fixture
def film(make_dataset, tmp_path):
    """Ten frames of each of four films."""
    made = make_dataset(tmp_path / "in", BOXES[:1] * 40)
    frames = [replace(sample, name=f"{'abcd'[i % 4]}_{i:02d}") for i, sample in enumerate(made)]
    coco.write(replace(made, samples=frames), tmp_path / "film")
    return tmp_path / "film"


def _names(folder) -> set[str]:
    return {sample.name for sample in coco.read(folder)}


def test_split_writes_parts_that_share_no_image(film, tmp_path):
    result = _run("split", film, tmp_path / "parts", "--parts", "train=3,calibration=1,test=1")
    parts = [_names(tmp_path / "parts" / name) for name in ("train", "calibration", "test")]
    assert [len(part) for part in parts] == [24, 8, 8]
    assert set.union(*parts) == _names(film)
    assert "8 images, 24 objects" in result.stdout.replace("\n", " ")
    _run("split", film, tmp_path / "again", "--parts", "train=60,calibration=20,test=20")
    assert _names(tmp_path / "again/test") == parts[2], "the same shares, the same parts"
    _run("split", film, tmp_path / "other", "--parts", "train=60,calibration=20,test=20", "--seed", 1)
    assert _names(tmp_path / "other/test") != parts[2], "control: another seed"


def test_split_holds_out_what_a_calibration_needs_and_says_where_a_part_lacks_it(make_dataset, tmp_path):
    small, large = make_dataset(tmp_path / "in1", BOXES[:1] * 60), make_dataset(tmp_path / "in2", BOXES[:1] * 150)
    for dataset, folder in ((small, "small"), (large, "large")):
        coco.write(dataset, tmp_path / folder)
    result = _run("split", tmp_path / "small", tmp_path / "parts")
    assert len(_names(tmp_path / "parts/test")) >= MIN_IMAGES
    assert "to calibrate" not in result.stderr
    asked = _run("split", tmp_path / "small", tmp_path / "asked", "--parts", "train=80,test=20")
    assert "test has 12 images with objects" in asked.stderr
    assert "takes 20: --parts train=63,test=37" in asked.stderr
    named = _run("split", tmp_path / "small", tmp_path / "named", "--parts", "train=63,test=37")
    assert "to calibrate" not in named.stderr, "what the warning names is enough"
    _run("split", tmp_path / "large", tmp_path / "control")
    assert len(_names(tmp_path / "control/test")) == 30


def test_a_table_of_80_columns_keeps_names_whole_and_cuts_nothing_off(make_dataset, tmp_path):
    dataset = make_dataset(tmp_path / "in", BOXES[:1] * 3)
    names = ("Wassermotorräder", *dataset.classes[1:])
    samples = [replace(s, layout=replace(s.layout, classes=names)) for s in dataset]
    coco.write(replace(dataset, classes=names, samples=samples), tmp_path / "named")
    lines = _run("info", tmp_path / "named").output.splitlines()
    assert any("Wassermotorräder" in line for line in lines)
    edges = {(line[0], line[-1]) for line in lines if line[:1] in tuple("┏┃└")}
    assert edges == {("┏", "┓"), ("┃", "┃"), ("└", "┘")}, "as wide as the terminal"


def test_split_asks_only_the_part_that_is_for_it_to_be_large_enough_to_calibrate_on(make_dataset, tmp_path):
    coco.write(make_dataset(tmp_path / "in", BOXES[:1] * 60), tmp_path / "small")
    shares = "train=70,calibration=15,test=15"
    warned = _run("split", tmp_path / "small", tmp_path / "parts", "--parts", shares).stderr
    assert "calibration has 9 images with objects" in warned
    assert "test has" not in warned
    larger = warned.split("--parts ")[1].split()[0]
    assert "to calibrate" not in _run("split", tmp_path / "small", tmp_path / "larger", "--parts", larger).stderr
    coco.write(make_dataset(tmp_path / "fewer", BOXES[:1] * 20), tmp_path / "few")
    few = _run("split", tmp_path / "few", tmp_path / "of-few", "--parts", shares).stderr
    assert "too many of these 20" in few, "no share would be enough"
    assert "--filter off" in few


def test_split_names_an_expression_only_where_it_leaves_each_part_a_group(make_dataset, tmp_path):
    dataset = make_dataset(tmp_path / "in", BOXES[:1] * 12)
    samples = [replace(s, name=f"{'lake' if i < 8 else 'road'} {i:02}") for i, s in enumerate(dataset)]
    coco.write(replace(dataset, samples=samples), tmp_path / "in2")
    two = _run("split", tmp_path / "in2", tmp_path / "two", "--parts", "train=60,test=40").stderr
    assert "--group '.*\\D' keeps them together" in two, "control: two groups, two parts"
    three = _run("split", tmp_path / "in2", tmp_path / "three", "--parts", "train=50,val=30,test=20").stderr
    assert "2 groups of images" in three
    assert "--group with a regular expression" in three


def test_the_folder_of_all_parts_is_refused_with_the_names_of_the_parts(make_dataset, tmp_path):
    coco.write(make_dataset(tmp_path / "in", BOXES[:1] * 60), tmp_path / "small")
    _run("split", tmp_path / "small", tmp_path / "parts")
    with pytest.raises(UserError, match=r"one of its parts: .*parts/test, .*parts/train"):
        _run("info", tmp_path / "parts")


def test_split_keeps_the_frames_of_a_group_together(film, tmp_path):
    def films_of_both(folder) -> set[str]:
        return set.intersection(*({name[0] for name in _names(folder / part)} for part in ("train", "test")))

    _run("split", film, tmp_path / "kept", "--group", "^[a-d]", "--parts", "train=75,test=25")
    assert films_of_both(tmp_path / "kept") == set()
    assert len(_names(tmp_path / "kept/test")) == 10
    _run("split", film, tmp_path / "divided", "--parts", "train=75,test=25")
    assert films_of_both(tmp_path / "divided") == set("abcd"), "control"


def test_split_warns_of_frames_in_several_parts_and_its_option_keeps_them_together(film, make_dataset, tmp_path):
    warned = _run("split", film, tmp_path / "divided", "--parts", "train=80,test=20").stderr
    assert "4 groups of images with names alike are divided among the parts, such as a_" in warned
    assert "--group '.*\\D'" in warned
    kept = _run("split", film, tmp_path / "kept", "--group", r".*\D", "--parts", "train=75,test=25")
    assert "names alike" not in kept.stderr
    assert len({name[0] for name in _names(tmp_path / "kept/test")}) == 1
    unlike = make_dataset(tmp_path / "in2", BOXES[:1] * 10)
    for style in ("{:05d}", "P{:04d}"):  # controls: numbers alone, and one kind of names, say nothing
        named = [replace(sample, name=style.format(i)) for i, sample in enumerate(unlike)]
        coco.write(replace(unlike, samples=named), tmp_path / style[:1])
        assert "names alike" not in _run("split", tmp_path / style[:1], tmp_path / f"parts {style[:1]}").stderr


def test_split_says_that_the_splits_of_the_data_set_are_joined(film, make_dataset, tmp_path):
    coco.write(make_dataset(tmp_path / "in3", BOXES[:1]), film, split="val")
    assert "own splits (train, val) are joined" in _run("split", film, tmp_path / "both").stderr
    assert "joined" not in _run("split", film, tmp_path / "one", "--split", "train").stderr


def test_split_limits_the_number_of_images(film, tmp_path):
    _run("split", film, tmp_path / "parts", "--images", 10)
    parts = [_names(tmp_path / "parts" / name) for name in ("train", "test")]
    assert [len(part) for part in parts] == [6, 4], "of few images more are held out"
    assert set.union(*parts) < _names(film)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (("--parts", "train"), "'' is not the size of a part"),
        (("--parts", "train=80,test=-1"), "a part of -1 has no image"),
        (("--parts", "../train=80,test=20"), "'../train' cannot be the name of a part"),
        (("--parts", "train=80,train=20"), "'train' cannot be the name of a part"),
        (("--images", 41), "--images 41: the data set has 40"),
        (("--group", "("), "--group (: not a regular expression"),
        (
            ("--group", "^[a-d]", "--parts", "a=1,b=1,c=1,d=1,e=1"),
            "has 4 groups of images, too few for 5 parts",
        ),
    ],
)
def test_split_reports_invalid_options_and_writes_nothing(film, tmp_path, wrong, said):
    with pytest.raises(UserError) as error:
        _run("split", film, tmp_path / "parts", *wrong)
    assert said in str(error.value)
    assert not (tmp_path / "parts").exists()
