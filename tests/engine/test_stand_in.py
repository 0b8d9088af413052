"""`synth --dataset NAME` on a machine without that data set: what the packaged models know is made, and all is said."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from page_folder import labelled

from dataengine.data import dior, formats
from dataengine.data.layout import class_key, model_key
from dataengine.data.presets import load_preset
from dataengine.engine.parts import find_data
from dataengine.engine.recipe import Recipe
from dataengine.engine.run import synth
from dataengine.engine.stand_in import check_data, describe, find_stand_in
from dataengine.engine.training_form import write_training_form
from dataengine.engine.verify import verify
from dataengine.errors import UserError


@pytest.fixture(autouse=True)
def no_data(tmp_path, monkeypatch) -> Path:
    """A machine without any data set and without fetched models."""
    monkeypatch.delenv("DATAENGINE_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("dataset", "made"), [("dior", "airplane"), ("dior-r", "airplane"), ("dota-v2.0", "plane")])
def test_the_classes_that_are_made_and_left_out_are_named(dataset, made):
    preset = load_preset(dataset)
    stand_in = find_stand_in(Recipe(dataset=dataset), preset)
    assert (stand_in.packaged.name, stand_in.classes) == ("hrplanes", (made,))
    said = describe(stand_in, preset, (made,))
    assert f"Made: {made} (1 of its {len(preset.classes)} classes)" in said
    assert all(name in said.partition("Left out")[2] for name in preset.classes if name != made)
    assert ("Boxes are horizontal" in said) == (preset.kind == "obb")
    assert ("aerogen-dior-r" in said) == dataset.startswith("dior"), "whose classes that model draws"
    layouts, _ = stand_in.layouts((made,))
    assert {name for layout in layouts for name in layout.names()} == {made}
    assert len(layouts) > 900


def test_nothing_stands_in_for_data_that_are_here_or_should_be(no_data):
    preset = load_preset("dior")
    labelled(no_data / "data" / "DIOR", "dior", ("airplane", "ship"))
    assert find_stand_in(Recipe(dataset="dior"), preset) is None
    assert len(find_data(Recipe(dataset="dior"))[1]) == 36
    mine = no_data / "mine.yaml"
    mine.write_text("name: mine\nclasses: [airplane]\nplaces: [data/mine]\n")
    assert find_stand_in(Recipe(dataset=str(mine)), load_preset(str(mine))) is None
    with pytest.raises(UserError, match="mine is in none of data/mine"):
        check_data(Recipe(dataset=str(mine)))
    assert find_stand_in(Recipe(dataset="hit-uav"), load_preset("hit-uav")) is None, "has packaged layouts of its own"


def test_thermal_classes_do_not_stand_in_for_optical_ones(no_data, monkeypatch):
    """VisDrone-like presets have "car", which the packaged models know from thermal images only."""
    preset = load_preset("dior").model_copy(update={"name": "roads", "classes": ("car", "person"), "places": ()})
    assert find_stand_in(Recipe(dataset="dior"), preset) is None
    control = preset.model_copy(update={"classes": ("car", "airplane")})
    assert find_stand_in(Recipe(dataset="dior"), control).classes == ("airplane",)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--dataset", "hrsc2016"], "HRSC2016 is in none of"),
        (["--data", "nowhere"], "--data nowhere: does not exist"),
        (["--dataset", "dior", "--data", "nowhere"], "--data nowhere: does not exist"),
        (["--dataset", "dior-r", "--renderer", "whole"], "dataengine model get aerogen-dior-r"),
    ],
)
def test_missing_data_are_reported_before_anything_heavy_is_imported(words, said, no_data):
    program = (
        "import sys; from dataengine.cli import main; sys.argv = ['dataengine', 'synth', *sys.argv[1:]]\n"
        "try:\n    main()\nfinally:\n    print(sorted({'torch', 'diffusers', 'cv2', 'scipy'} & set(sys.modules)))"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", program, *words], capture_output=True, text=True, check=False, cwd=no_data,
        env={"PYTHONPATH": str(root), "HOME": str(no_data), "PATH": ""},
    )  # fmt: skip
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stdout == "[]\n"
    assert list(no_data.iterdir()) == []


@pytest.mark.slow
def test_a_run_is_written_in_the_form_of_the_data_set_with_a_config(no_data):
    """DOTA says "plane", the models and the stored layouts "airplane"."""
    recipe = Recipe(dataset="dota-v1.0", n=4, shard_size=4)
    result = synth(recipe, Path("run"))
    assert result.accepted == 4
    assert sum("is not on this machine" in note for note in result.notes) == 1
    assert not any(note.startswith("left out") for note in result.notes)
    report = json.loads(Path("run/report.json").read_text())
    [row] = report["classes"]
    assert row["name"] == "plane"
    assert row["found"] > 0, "the detector's airplane is this class"
    assert [s.layout.classes for s in formats.read("run/dota")] == [("plane",)] * 4
    written = write_training_form(recipe, Path("run"))
    assert "in the form of DOTA-v1.0" in written
    config = Path("run-mmrotate/h2rbox-v2.py").read_text()
    assert "data/real" not in config
    assert "figures say nothing about real images" in config
    data = Path("run-mmrotate/data/synthetic")
    parts = [formats.read(data, "dota", split=split) for split in ("train", "test")]
    assert [len(part) for part in parts] == [3, 1]
    assert sum(len(s.layout) for part in parts for s in part) == row["kept"]
    assert write_training_form(recipe, Path("run")) == written, "again: nothing to do"
    assert not verify(Path("run")).faults
    assert write_training_form(Recipe(dataset="hit-uav"), Path("run")) == "", "control: has layouts of its own"
    Path("run-mmrotate/export.json").write_text("{}")
    with pytest.raises(UserError, match="holds other data"):
        write_training_form(recipe, Path("run"))


def test_class_names_of_dota_and_dior_meet_and_others_stay_apart():
    same = [
        ("tennis-court", "tenniscourt"),
        ("Ground_Track Field", "groundtrackfield"),
        ("storage tank", "storagetank"),
    ]
    assert all(class_key(a) == class_key(b) for a, b in same)
    assert class_key("plane") != class_key("airplane"), "a data set may have both"
    assert model_key("plane") == model_key("Aeroplane") == model_key("airplane")
    apart = ["type 1", "type 11", "type 1 1", "type1", "A220", "A-220", "Boeing 737", "Boeing 7 37"]
    assert len({*map(class_key, apart)}) == len(apart)
    assert set(map(class_key, load_preset("dota-v1.0").classes)) & set(map(class_key, dior.CLASSES)) == {
        "bridge", "groundtrackfield", "ship", "tenniscourt", "basketballcourt", "storagetank", "harbor",
    }  # fmt: skip


def test_a_difficulty_after_a_dota_name_is_no_part_of_another_name(tmp_path):
    """With "car" and "car1" in the list, `car 1` is a difficult car."""
    from dataengine.data.dota import parse_object

    listed = {class_key(name) for name in ("car", "car1", "type 1")}
    row = ["0", "0", "4", "0", "4", "4", "0", "4"]
    assert parse_object([*row, "car", "1"], listed)[1:] == ("car", 1.0)
    assert parse_object([*row, "car1", "0"], listed)[1:] == ("car1", 0.0)
    assert parse_object([*row, "type", "1"], listed)[1:] == ("type 1", 0.0), "control: the list has it"


def test_the_detectors_class_is_that_of_the_same_word_first():
    from dataengine.judge.verdict import class_map

    assert class_map(("plane", "airplane"), ("airplane",)).tolist() == [1]
    assert class_map(("airplane", "plane"), ("airplane",)).tolist() == [0]
    assert np.array_equal(class_map(("plane",), ("Airplane", "car")), [0, -1])
