"""A fetched model becomes the renderer of its preset, with a note."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from page_folder import labelled

from dataengine.data.presets import load_preset
from dataengine.engine.fetched import with_fetched
from dataengine.engine.recipe import Recipe, folder_hash
from dataengine.engine.run import synth
from dataengine.engine.stand_in import find_stand_in
from dataengine.engine.training_form import write_training_form
from dataengine.engine.verify import verify
from dataengine.errors import UserError
from dataengine.render import published

SIZE, SCALE = 64, 0.5


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "DIOR-R"
    labelled(folder, "dior", ("airplane", "ship"))
    return folder


@pytest.fixture
def models(tmp_path, monkeypatch) -> Path:
    """An empty folder of models; the published one draws small images, so that a test takes seconds."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    small = replace(published.PUBLISHED[0], size=SIZE, layout_scale=SCALE)
    monkeypatch.setattr(published, "PUBLISHED", (small,))
    return published.default_folder(small)


def fetch(folder: Path) -> None:
    """A random model of DIOR's classes, as `model get` leaves one."""
    from diffusers import FlowMatchEulerDiscreteScheduler

    from dataengine.render.layout_pipeline import LayoutPipeline
    from dataengine.render.layout_unet import LayoutUNet
    from dataengine.render.thumbnail_decoder import ThumbnailDecoder

    torch.manual_seed(0)
    unet = LayoutUNet(list(load_preset("dior-r").classes), ["dior-r"], sample_size=8, latent_channels=3,
                      block_out_channels=(16, 32), cross_attention_dim=16, attention_head_dim=8)  # fmt: skip
    decoder = ThumbnailDecoder(domains=["dior-r"], block_out_channels=(16, 32))
    LayoutPipeline(unet, decoder, FlowMatchEulerDiscreteScheduler()).save_pretrained(folder)
    (folder / "provenance.json").write_text("{}")


def recipe(data: Path, **settings) -> Recipe:
    given = {"dataset": "dior-r", "data": data, "renderer": "whole", "filter": "off", "n": 2, "steps": 1}
    return Recipe(**{k: v for k, v in (given | {"shard_size": 2} | settings).items() if v is not None})


def test_the_fetched_model_draws_its_preset_with_its_own_size_and_a_note(data, models, tmp_path):
    fetch(models)
    result = synth(recipe(data), tmp_path / "run")
    assert result.accepted == 2
    stored = json.loads((tmp_path / "run" / "recipe.json").read_text())
    assert stored["recipe"]["model"] == str(models)
    assert (stored["recipe"]["size"], stored["recipe"]["layout_scale"]) == (SIZE, SCALE)
    assert stored["parts"]["model"] == folder_hash(models)
    assert len(stored["classes"]) == 20
    (note,) = [note for note in result.notes if "fetched model" in note]
    for said in ("aerogen-dior-r", str(models), f"--size {SIZE}", f"--layout-scale {SCALE}", "unclear"):
        assert said in note
    explicit = recipe(data, model=models, size=SIZE, layout_scale=SCALE)
    assert stored["identity"] == explicit.identity(stored["parts"]), "the run is that of --model"
    assert synth(recipe(data), tmp_path / "run").accepted == 2, "the same command continues it"


def test_what_the_user_gives_is_kept(data, models):
    fetch(models)
    chosen, notes = with_fetched(recipe(data, size=96, layout_scale=1.0))
    assert (chosen.model, chosen.size, chosen.layout_scale) == (models, 96, 1.0)
    assert notes
    one = with_fetched(recipe(data, layout=Path("one.txt")))[0]
    assert (one.model, one.size, one.layout_scale) == (models, SIZE, 1.0), "a layout in pixels of the image"
    for settings in (
        {"model": Path("other")},
        {"dataset": "dior"},
        {"dataset": None},
        {"renderer": "in-scene", "filter": "erase"},
        {"renderer": None, "filter": None, "classes": "airplane"},  # which the packaged one knows
    ):
        asked = recipe(data, **settings)
        assert with_fetched(asked) == (asked, []), settings


def test_all_classes_are_made_without_the_data_set(models, tmp_path, monkeypatch):
    """Layouts come from typical sizes, no packaged detector knows the classes, and both are said."""
    monkeypatch.delenv("DATAENGINE_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    asked = recipe(None, renderer=None, filter=None, n=4, shard_size=4)
    preset = load_preset("dior-r")
    before = find_stand_in(asked, preset)
    assert (before.packaged.name, before.classes) == ("hrplanes", ("airplane",)), "control: of the packaged models"
    fetch(models)
    run = Path("run")
    result = synth(asked, run)
    assert result.accepted == 4
    stored = json.loads((run / "recipe.json").read_text())
    assert tuple(stored["classes"]) == preset.classes
    assert stored["recipe"]["filter"] == "off"
    said = " ".join(result.notes)
    for words in ("NOT FILTERED", "typical sizes", "20 of its 20 classes", "is not on this machine"):
        assert words in said
    assert "Left out" not in said
    names = {name for record in result.records for name in record.labels.names()}
    assert len(names) > 2
    assert names <= set(preset.classes)
    written = write_training_form(asked, run)
    assert "in the form of DIOR-R" in written
    assert (tmp_path / "run-mmrotate" / "oriented-rcnn.py").exists()
    assert not verify(run).faults
    assert synth(asked, run).accepted == 4, "the same command continues it"


def test_without_a_fetched_model_it_is_named_or_nothing_changes(data, models, tmp_path):
    models.mkdir(parents=True)
    (models / "model_index.json").write_text("{}")  # of an import that was not finished
    with pytest.raises(UserError, match="dataengine model get aerogen-dior-r"):
        synth(recipe(data), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    others = (recipe(data, renderer=None, filter=None), recipe(data, dataset="hit-uav"), recipe(data, dataset=None))
    for asked in others:
        assert with_fetched(asked) == (asked, [])


def test_classes_that_the_packaged_renderer_does_not_know_are_drawn_by_the_fetched_model(data, models, tmp_path):
    asked = recipe(data, renderer=None, classes="ship", steps=None)
    with pytest.raises(UserError, match="knows none of the classes of dior-r"):
        synth(asked, tmp_path / "before")
    fetch(models)
    result = synth(asked, tmp_path / "after")
    assert result.accepted == 2
    assert "fetched model" in result.notes[0]
    real = recipe(data, renderer=None, classes="ship", strength=0.3)  # only the in-scene renderer starts from real ones
    assert with_fetched(real) == (real, [])
