"""A renderer and a detector of another kind of imagery are refused, although the names of classes match."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pytest
from toy_scenes import scenes

from dataengine import weights
from dataengine.data import dota, formats
from dataengine.data.layout import Acquisition, Dataset, Layout, Sample
from dataengine.engine.parts import load_parts
from dataengine.engine.recipe import Recipe, folder_hash
from dataengine.errors import UserError
from dataengine.judge.calibration import Calibration
from dataengine.render import imagery
from dataengine.render.imagery import Imagery, imagery_difference, mismatches, read_imagery, write_imagery

THERMAL = Imagery(classes=("Car", "Van"), bands="grey", spectrum="thermal", gsd_m=(0.04, 0.22), source="HIT-UAV")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """The same kind of scenes in colour and in grey."""
    folder = tmp_path_factory.mktemp("imagery")
    for mode in ("RGB", "L"):
        dota.write(scenes(folder / f"{mode} images", 24, 3, mode=mode), folder / mode)
    return folder


@pytest.fixture(scope="module")
def thermal_renderer(toy_renderer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("thermal") / "renderer"
    shutil.copytree(toy_renderer, folder)
    write_imagery(folder, [THERMAL])
    return folder


@pytest.fixture(scope="module")
def thermal_detector(toy_detector, tmp_path_factory):
    folder = tmp_path_factory.mktemp("thermal") / "detector"
    shutil.copytree(toy_detector, folder)
    write_imagery(folder, [THERMAL])
    return folder


def recipe(data, renderer, **more) -> Recipe:
    return Recipe(data=data, model=renderer, n=2, size=96, steps=2, **({"filter": "off"} | more))


def test_a_renderer_of_thermal_cars_is_refused_for_colour_images_with_the_fixes(data, thermal_renderer):
    with pytest.raises(UserError, match=r"knows car, van from grey thermal .*in colour: .*--strength 0\.3.*train"):
        load_parts(recipe(data / "RGB", thermal_renderer))


def test_it_is_taken_for_grey_images_and_so_is_one_that_says_nothing(data, thermal_renderer, toy_renderer):
    """Controls."""
    load_parts(recipe(data / "L", thermal_renderer))
    load_parts(recipe(data / "RGB", toy_renderer))


def test_without_a_look_at_the_images_it_would_be_taken(data, thermal_renderer, monkeypatch):
    """Mutation."""
    monkeypatch.setattr(imagery, "difference", lambda trained, own: "")
    load_parts(recipe(data / "RGB", thermal_renderer))


@pytest.mark.parametrize(("strength", "taken"), [(0.3, True), (0.9, False)])
def test_objects_that_start_from_real_ones_may_be_finished_by_any_renderer(data, thermal_renderer, strength, taken):
    wanted = recipe(data / "RGB", thermal_renderer, strength=strength)
    if taken:
        assert load_parts(wanted).real_objects is not None
    else:
        with pytest.raises(UserError, match="in colour"):
            load_parts(wanted)


def test_images_that_are_painted_into_count_as_well(data, thermal_renderer):
    with pytest.raises(UserError, match=r"--scenes .*RGB images are in colour"):
        load_parts(recipe(data / "L", thermal_renderer, scenes=data / "RGB images"))


def test_a_detector_of_thermal_cars_is_refused_too_unless_it_was_calibrated(
    data, toy_renderer, thermal_detector, toy_calibration
):
    wanted = {"filter": "difficult", "detector": thermal_detector}
    with pytest.raises(UserError, match=r"the filter's detector knows car, van .*in colour: .*--filter off"):
        load_parts(recipe(data / "RGB", toy_renderer, **wanted))
    notes = {}
    for mode in ("RGB", "L"):
        notes[mode] = load_parts(recipe(data / mode, toy_renderer, **wanted, calibration=toy_calibration)).notes
    assert any("from grey thermal" in note and "--calibration" in note for note in notes["RGB"])
    assert not any("from grey thermal" in note for note in notes["L"]), "control"


def test_calibration_names_another_kind_of_images_before_it_starts(data, thermal_detector, toy_detector):
    known = formats.read(data / "RGB")
    assert re.search(r"knows car, van from grey thermal .*are in colour", imagery_difference(thermal_detector, known))
    assert imagery_difference(thermal_detector, formats.read(data / "L")) == "", "control"
    assert imagery_difference(toy_detector, known) == "", "nothing is known of its images"


def test_ground_sample_distance_and_night_count_where_both_sides_know_them(tmp_path):
    def own(**acquisition) -> Dataset:
        from PIL import Image

        Image.fromarray(np.full((20, 20, 3), 90, np.uint8)).save(tmp_path / "a.png")
        layout = Layout([], [], ("car",), (20, 20), acquisition=Acquisition(**acquisition))
        return Dataset(("car",), [Sample("a", tmp_path / "a.png", layout)])

    by_day = THERMAL.model_copy(update={"night": False})
    for acquisition, expected in (
        ({"gsd_m": 0.1}, None), ({}, None), ({"night": False}, None), ({"gsd_m": 0.4}, None),
        ({"gsd_m": 3.0}, "at 3 to 3 m per pixel"), ({"night": True}, "by night"),
    ):  # fmt: skip
        wrong = mismatches([by_day], imagery.measured(own(**acquisition)), ["car"])
        assert wrong.get("car", (None, None))[1] == expected, acquisition


def test_a_class_that_was_seen_in_several_kinds_of_images_needs_only_one_that_fits():
    colour = Imagery(classes=("car",), bands="colour")
    assert mismatches([THERMAL, colour], colour, ["car"]) == {}
    assert list(mismatches([THERMAL], colour, ["car", "boat"])) == ["car"], "nothing is known of boats"


def test_packaged_models_say_what_they_were_trained_on_and_know_each_class():
    for part in ("in-scene", "whole", "detector", "evaluation-detector"):
        known = [name for one in read_imagery(weights.packaged(part)) for name in one.classes]
        assert sorted(known) == ["Bicycle", "Car", "OtherVehicle", "Person", "airplane"], part


def test_runs_made_before_models_said_so_still_know_their_model(toy_renderer, thermal_renderer):
    assert folder_hash(toy_renderer) == folder_hash(thermal_renderer)


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / "imagery.json").write_text(json.dumps([{"classes": ["car"], "bands": "infrared"}]))
    with pytest.raises(UserError, match=r"imagery\.json: .*bands"):
        read_imagery(tmp_path)


def test_a_run_that_starts_from_real_objects_goes_unfiltered_where_the_packaged_detector_does_not_fit(
    data, thermal_renderer, thermal_detector, monkeypatch
):
    """It says so; a control, and each choice of the user that ends it."""
    packaged = weights.packaged
    monkeypatch.setattr(weights, "packaged", lambda name: thermal_detector if name == "detector" else packaged(name))

    def load(folder, **given):
        return load_parts(Recipe(data=folder, model=thermal_renderer, n=2, size=96, steps=2, **given))

    parts = load(data / "RGB", strength=0.3)
    assert (parts.detector, parts.recipe.filter, parts.hashes["detector"]) == (None, "off", "none")
    assert re.match(r"NOT FILTERED: .*in colour.*--detector", parts.notes[0])
    assert not any("filter: off" in note for note in parts.notes), "said once"
    for given in ({"filter": "erase"}, {"detector": thermal_detector}):
        with pytest.raises(UserError, match=r"the filter's detector knows car, van .*in colour"):
            load(data / "RGB", strength=0.3, **given)
    with pytest.raises(UserError, match="the renderer knows car"):  # painted from noise: not by this renderer
        load(data / "RGB")


def test_it_is_filtered_where_the_packaged_detector_fits(
    data, toy_renderer, thermal_detector, toy_calibration, monkeypatch
):
    """Control: the same data in grey."""
    packaged = weights.packaged
    monkeypatch.setattr(weights, "packaged", lambda name: thermal_detector if name == "detector" else packaged(name))
    wanted = Recipe(data=data / "L", model=toy_renderer, n=2, size=96, steps=2, strength=0.3)
    parts = load_parts(wanted, Calibration.load(toy_calibration))
    assert parts.detector is not None
    assert parts.recipe.filter == "erase"
