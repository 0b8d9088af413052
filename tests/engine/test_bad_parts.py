"""Parts of a run that are missing, damaged, or another's."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from diffusers import FlowMatchEulerDiscreteScheduler
from PIL import Image

from dataengine.data import coco, formats
from dataengine.data.presets import load_preset
from dataengine.engine.image_parts import find_real_objects
from dataengine.engine.parts import load_parts
from dataengine.engine.recipe import load_recipe
from dataengine.engine.run import synth
from dataengine.errors import UserError
from dataengine.judge.calibration import Calibration
from dataengine.judge.detector import load_detector
from dataengine.render.in_scene import InSceneUNet
from dataengine.render.in_scene_pipeline import InScenePipeline

WHOLE, IN_SCENE = SimpleNamespace(paints_on="blank"), SimpleNamespace(paints_on="scene")


@pytest.fixture
def model(toy_renderer, tmp_path):
    shutil.copytree(toy_renderer, tmp_path / "model")
    return tmp_path / "model"


def test_a_renderer_of_the_other_kind_is_told_with_the_option_that_fits(toy_recipe):
    with pytest.raises(UserError, match=r"holds a 'InScenePipeline'.*give --renderer in-scene"):
        load_parts(toy_recipe.model_copy(update={"renderer": "whole"}))


def test_each_refusal_names_what_is_missing_now_and_following_it_leads_on(
    toy_dataset, toy_preset, toy_renderer, toy_detector, tmp_path
):
    """A newcomer with classes that nobody knows does what each message says, until the run is ready."""
    known = formats.read(toy_dataset)
    renamed = [replace(s, layout=replace(s.layout, classes=("barge", "ferry"))) for s in known]
    coco.write(replace(known, classes=("barge", "ferry"), samples=renamed), tmp_path / "data")
    detector = tmp_path / "detector"
    detector.mkdir()
    shutil.copytree(toy_detector, detector, dirs_exist_ok=True)
    config = {"data": tmp_path / "data", "size": 96, "steps": 2, "n": 2, "detector": toy_detector}

    with pytest.raises(UserError, match="the renderer knows none of the classes") as refusal:
        load_parts(load_recipe(None, config | {"model": toy_renderer}))
    assert "detector" not in str(refusal.value), "the renderer is what is missing now"
    command = re.search(r"dataengine (train renderer) (\S+) --out (\S+); .* --model (\S+)\.$", str(refusal.value))
    assert command[2] == str(tmp_path / "data")
    assert command[4] == f"{command[3]}/pipeline", "where that command writes it"
    trained = renderer_of(["barge", "ferry"], tmp_path / "pipeline")  # the same, without its hours

    with pytest.raises(
        UserError, match=r"detector knows none of barge, ferry.*\(--detector; .*\), or --filter off"
    ) as refusal:
        load_parts(load_recipe(None, config | {"model": trained}))
    assert "train renderer" not in str(refusal.value)
    assert load_parts(load_recipe(None, config | {"model": trained, "filter": "off"})).classes == ("barge", "ferry")
    settings = json.loads((detector / "config.json").read_text()) | {"classes": ["barge", "ferry"]}
    (detector / "config.json").write_text(json.dumps(settings))
    calibration = tmp_path / "calibration.json"
    identity = load_detector(detector).identity
    each = {"barge": 0.5, "ferry": 0.5}
    Calibration(
        detector=identity, dataset="x", images=20, objects={}, pass_share=0.9, shuffled_pass_share=0,
        smudged_pass_share=0, thresholds=each, missed_share=0.5, extra_scores=each, extra_objects=1, extra_share=0,
        repair_scores=each, repair_ious=each,
    ).save(calibration)  # fmt: skip
    ready = config | {"model": trained, "detector": detector, "calibration": calibration}
    assert load_parts(load_recipe(None, ready)).classes == ("barge", "ferry")


def renderer_of(classes, folder):
    """An in-scene pipeline with random weights that knows these classes."""
    model = InSceneUNet(classes, frame_size=24, patch=3, block_out_channels=(16, 32))
    InScenePipeline(model, FlowMatchEulerDiscreteScheduler()).save_pretrained(folder)
    return folder


def test_a_calibration_is_measured_once_and_again_when_what_it_depends_on_changes(
    toy_recipe, toy_dataset, tmp_path, monkeypatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    measured = []
    rule = Calibration.load(toy_recipe.calibration)
    monkeypatch.setattr("dataengine.judge.calibrate.calibrate", lambda *_, **__: measured.append(1) or rule)
    shutil.copytree(toy_dataset, tmp_path / "data")
    recipe = toy_recipe.model_copy(update={"calibration": None, "data": tmp_path / "data"})
    assert [load_parts(recipe).calibration for _ in range(2)] == [rule, rule]
    assert len(measured) == 1
    load_parts(recipe.model_copy(update={"pass_share": 0.9}))
    assert len(measured) == 2, "another share"
    picture = next((tmp_path / "data").rglob("*.png"))
    Image.fromarray(255 - np.asarray(Image.open(picture))).save(picture)
    load_parts(recipe)
    assert len(measured) == 3, "another picture"
    [*kept] = (tmp_path / "cache").rglob("*.json")
    assert len(kept) == 3
    for file in kept:
        file.write_text("{")
    load_parts(recipe)
    assert len(measured) == 4, "a damaged file is measured again"


@pytest.mark.parametrize("option", ["data", "scenes", "model", "detector", "calibration"])
def test_a_path_that_does_not_exist_is_told_with_its_option(toy_recipe, tmp_path, option):
    with pytest.raises(UserError, match=rf"^--{option} .*nowhere: does not exist"):
        load_parts(toy_recipe.model_copy(update={option: tmp_path / "nowhere"}))


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("model_index.json", "{"),
        ("unet/config.json", "{}"),
        ("unet/config.json", "<html>"),
        ("unet/diffusion_pytorch_model.safetensors", "cut off"),
        ("unet/diffusion_pytorch_model.safetensors", None),
    ],
)
def test_a_damaged_model_is_one_sentence_that_names_its_folder(toy_recipe, model, file, content):
    recipe = toy_recipe.model_copy(update={"model": model})
    load_parts(recipe)
    if content is None:
        (model / file).unlink()
    else:
        (model / file).write_text(content)
    with pytest.raises(UserError, match=rf"{model}.*(again|damaged)"):
        load_parts(recipe)


def test_a_model_that_asks_for_a_hundred_thousand_layers_is_refused_at_once(toy_recipe, model):
    config = model / "unet" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"layers_per_block": 100_000}))
    with pytest.raises(UserError, match=r"config\.json: layers_per_block asks for more than 100 layers"):
        load_parts(toy_recipe.model_copy(update={"model": model}))


def test_a_config_that_others_would_read_otherwise_is_refused(toy_recipe, model):
    """diffusers takes the last of two equal keys; what is looked at has to be what is used."""
    config = model / "unet" / "config.json"
    config.write_text(config.read_text().replace("{", '{"layers_per_block": 1,', 1))
    with pytest.raises(UserError, match=r"config\.json has the key 'layers_per_block' twice"):
        load_parts(toy_recipe.model_copy(update={"model": model}))


def test_scenes_whose_labels_cannot_be_read_stop_the_run_and_plain_images_do_not(toy_recipe, toy_dataset, tmp_path):
    """Taken for plain images, they would bring unlabelled objects into the result."""
    coco.write(formats.read(toy_dataset), tmp_path / "labelled")
    [annotations] = (tmp_path / "labelled" / "annotations").glob("*.json")
    recipe = toy_recipe.model_copy(update={"scenes": tmp_path / "labelled"})
    assert all(len(sample.layout) for sample in load_parts(recipe).canvases.samples)
    annotations.write_text("<html>not found</html>")
    with pytest.raises(UserError, match="no known format"):
        load_parts(recipe)
    shutil.rmtree(annotations.parent)
    (tmp_path / "labelled" / "README.txt").write_text("pictures of a car park")
    assert not any(len(sample.layout) for sample in load_parts(recipe).canvases.samples)


def test_a_scene_that_is_no_image_is_named_and_the_others_serve(toy_recipe, tmp_path):
    (tmp_path / "plain").mkdir()
    Image.fromarray(np.full((128, 128, 3), 90, np.uint8)).save(tmp_path / "plain" / "a.png")
    (tmp_path / "plain" / "b.png").write_bytes(b"")
    parts = load_parts(toy_recipe.model_copy(update={"scenes": tmp_path / "plain"}))
    assert len(parts.canvases.samples) == 1
    assert any("b.png" in note for note in parts.notes)


@pytest.mark.parametrize(
    ("content", "says"), [("dataset: x".encode("utf-16"), "save it as UTF-8"), (b"n: [1", "line 1 is not")]
)
def test_a_recipe_that_is_no_yaml_in_utf_8_is_one_sentence(content, says, tmp_path):
    (tmp_path / "run.yaml").write_bytes(content)
    with pytest.raises(UserError, match=rf"run\.yaml.*{says}"):
        load_recipe(tmp_path / "run.yaml", {})


def test_a_calibration_of_other_classes_is_refused(toy_recipe, tmp_path):
    """Else all images would be painted, and none kept; control: its own classes, however they are written."""
    figures = json.loads(toy_recipe.calibration.read_text())
    other = tmp_path / "other.json"
    recipe = toy_recipe.model_copy(update={"calibration": other})
    other.write_text(json.dumps(figures | {"thresholds": {k.upper(): v for k, v in figures["thresholds"].items()}}))
    load_parts(recipe)
    other.write_text(json.dumps(figures | {"thresholds": {"ship": 0.5}}))
    with pytest.raises(UserError, match=r"no threshold for .*car.*; it has ship.*--classes"):
        load_parts(recipe)


def test_a_folder_that_cannot_be_written_to_is_told_before_anything_is_loaded(toy_recipe, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setattr("dataengine.engine.run.load_parts", lambda *_: pytest.fail("loaded"))
    with pytest.raises(UserError, match=r"cannot be written .*; give another --out"):
        synth(toy_recipe, tmp_path / "file" / "run")
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_objects_to_begin_from_are_refused_with_the_option_at_fault(toy_recipe):
    with pytest.raises(UserError, match=r"the renderer whole does not start objects .*--renderer in-scene"):
        find_real_objects(toy_recipe.model_copy(update={"strength": 0.3, "renderer": "whole"}), WHOLE, None)
    with pytest.raises(UserError, match="give them with --data"):
        find_real_objects(toy_recipe.model_copy(update={"strength": 0.3}), IN_SCENE, None)


def test_a_data_set_file_is_told_apart_from_a_name(tmp_path):
    with pytest.raises(UserError, match=r"--dataset .*mine\.yaml: there is no such file"):
        load_preset(str(tmp_path / "mine.yaml"))
    with pytest.raises(UserError, match="'mine' is not a known data set; choose one of"):
        load_preset("mine")
    (tmp_path / "mine.yaml").write_text("name: mine\nclases: [a]\n")
    with pytest.raises(UserError, match="clases: no such field; perhaps classes"):
        load_preset(str(tmp_path / "mine.yaml"))
