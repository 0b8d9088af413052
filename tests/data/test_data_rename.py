"""`--rename`: classes get other names in convert, merge and synth, which is said; unknown names are refused."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from dataengine.cli import app
from dataengine.data import formats
from dataengine.errors import UserError

BOXES = [[(60, 70, 40, 12, 0.4), (120, 80, 30, 20, -0.2), (30, 30, 20, 10, 0)], [(60, 70, 30, 12, 0.0)]]


def run(*words) -> object:
    return CliRunner().invoke(app, ["data", *map(str, words)])


@pytest.fixture
def folder(make_dataset, tmp_path):
    """Two images with plane, small-vehicle and Car, in two splits of which one has planes only."""
    classes = ("plane", "small-vehicle", "Car")
    for split, boxes in (("train", BOXES[:1]), ("val", BOXES[1:])):
        formats.write(
            make_dataset(tmp_path / f"in-{split}", boxes, classes=classes), tmp_path / "a", "coco", split=split
        )
    return tmp_path / "a"


def names(root, **options) -> list:
    return [sample.layout.names() for sample in formats.read(root, **options)]


def test_convert_renames_and_says_what(folder, tmp_path):
    result = run("convert", folder, tmp_path / "out", "--to", "dota", "--rename", "Small_Vehicle=Car, plane=airplane")
    assert result.exit_code == 0, result.output
    assert "renamed: plane to airplane (1 object), small-vehicle to Car (1 object)" in result.output
    assert names(tmp_path / "out", split="train") == [["airplane", "Car", "Car"]]
    assert names(tmp_path / "out", split="val") == [["airplane"]]
    assert formats.read(tmp_path / "out").classes == ("airplane", "Car")
    assert names(folder) == [["plane", "small-vehicle", "Car"], ["plane"]], "control: the original is as it was"


def test_classes_are_chosen_by_their_new_names(folder, tmp_path):
    result = run(
        "convert",
        folder,
        tmp_path / "out",
        "--to",
        "coco",
        "--rename",
        "small-vehicle=Car",
        "--classes",
        "Car",
        "--split",
        "train",
    )
    assert result.exit_code == 0, result.output
    assert names(tmp_path / "out", split="train") == [["Car", "Car"]]
    assert formats.read(tmp_path / "out").classes == ("Car",)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("boat=ship", "has no class boat; it has plane, small-vehicle, Car"),
        ("plane", "--rename plane: give two names"),
        ("plane=", "--rename plane: give two names"),
        ("plane=a,Plane=b", "one class is given two new names"),
    ],
)
def test_names_that_are_not_there_and_half_pairs_are_refused_and_nothing_is_written(text, said, folder, tmp_path):
    for command in (
        ("convert", folder, tmp_path / "out", "--to", "coco"),
        ("merge", folder, folder, "--out", tmp_path / "out"),
    ):
        result = run(*command, "--rename", text)
        assert isinstance(result.exception, UserError)
        assert said in str(result.exception)
        assert not (tmp_path / "out").exists()


def test_merge_gives_the_classes_of_two_data_sets_one_name(folder, make_dataset, tmp_path):
    other = make_dataset(
        tmp_path / "in-other", [[(90, 70, 20, 12, 0.0), (30, 30, 20, 10, 0)]], classes=("airplane", "van")
    )
    formats.write(other, tmp_path / "b", "coco")
    words = ("merge", folder, tmp_path / "b", "--out", tmp_path / "both")
    refused = run(*words)
    assert "label different classes" in str(refused.exception), "control"
    result = run(*words, "--rename", "plane=airplane,small-vehicle=vehicle,Car=vehicle,van=vehicle")
    assert result.exit_code == 0, result.output
    both = formats.read(tmp_path / "both")
    assert both.classes == ("airplane", "vehicle")
    assert sorted(n for sample in both for n in sample.layout.names()) == ["airplane"] * 3 + ["vehicle"] * 3


def test_a_run_uses_the_new_names(toy_recipe, toy_dataset, tmp_path):
    from dataengine.engine.parts import find_data
    from dataengine.engine.recipe import Recipe

    given = Recipe(data=toy_dataset, rename="van=Car,car=airplane")
    preset, dataset = find_data(given)
    assert preset.classes == dataset.classes == ("airplane", "Car")
    plain = find_data(Recipe(data=toy_dataset))[1]
    new = {"van": "Car", "car": "airplane"}
    assert [[new[n] for n in s.layout.names()] for s in plain] == [s.layout.names() for s in dataset]
    assert any(note.startswith("renamed: car to airplane (") for note in dataset.notes)
    with pytest.raises(UserError, match="has no class boat; it has car, van"):
        find_data(Recipe(data=toy_dataset, rename="boat=ship"))
    with pytest.raises(UserError, match="--rename is for classes of labelled images"):
        find_data(Recipe(dataset="hit-uav", rename="Car=vehicle"))
    parts = {"model": "x"}
    assert Recipe(data=toy_dataset).identity(parts) == Recipe(data=toy_dataset, rename=None).identity(parts)
    assert given.identity(parts) != Recipe(data=toy_dataset).identity(parts)
