"""The stages around the renderer: layouts by diffusion, label filter, painting into labelled pictures, mixing."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from toy_roads import FIELD, ROAD, roads

from dataengine import geometry
from dataengine.data import coco, formats
from dataengine.data.presets import configs
from dataengine.engine.attempt import paint, sample_layouts
from dataengine.engine.image_parts import find_places
from dataengine.engine.parts import load_parts
from dataengine.engine.recipe import Recipe, load_recipe
from dataengine.engine.run import synth
from dataengine.errors import UserError
from dataengine.render.frame import covered
from dataengine.render.inpaint import paint_mask
from dataengine.seeds import image_seed


@pytest.fixture(scope="module")
def layout_model(toy_dataset, tmp_path_factory):
    from dataengine.train.layouts import train_layouts
    from dataengine.train.loop import TrainSettings

    out = tmp_path_factory.mktemp("layout-model")
    settings = TrainSettings(steps=60, batch_size=16, learning_rate=3e-3, warmup_steps=5, ema_decay=0.9)
    train_layouts(formats.read(toy_dataset), out, settings, size=96, width=32)
    return out / "model"


def test_new_objects_go_into_labelled_pictures_and_all_else_stays(toy_recipe, toy_dataset, tmp_path):
    recipe = toy_recipe.model_copy(update={"into": toy_dataset, "n": 3, "size": 64, "layout_scale": 0.3})
    result = synth(recipe, tmp_path / "run")
    originals = {sample.name: sample for sample in formats.read(toy_dataset)}
    painted = [r for r in result.records if len(r.asked)]
    assert painted
    for record in painted:
        name = record.provenance.name
        assert record.provenance.label == f"{name}@0,0"
        before = np.asarray(Image.open(originals[name].image).convert("RGB"))
        after = np.asarray(Image.open(result.out / record.image).convert("RGB"))
        assert after.shape == before.shape, "the whole picture comes back"
        labels, asked = record.labels, record.asked
        old = labels.select(np.arange(len(labels)) >= len(asked))
        own = originals[name].layout
        assert Counter(old.names()) == Counter(own.names())
        assert np.allclose(old.boxes, own.boxes, atol=2e-3)
        assert (old.difficult == own.difficult).all(), "nobody judges what was labelled before"
        assert (geometry.intersection(labels.boxes[: len(asked)], own.boxes) == 0).all()
        mask = paint_mask(asked, asked.select([]))
        changed = np.abs(after.astype(int) - before).max(2) > 2
        assert not changed[mask == 0].any()
        assert changed.any()


def test_new_objects_are_told_from_old_ones_on_the_sheet(toy_recipe, toy_dataset, tmp_path, monkeypatch):
    from dataengine.engine import finish

    marks = []
    monkeypatch.setattr(finish, "draw", lambda image, labels, scale, new: marks.append(new) or image.copy())
    off = {"filter": "off", "detector": None, "calibration": None}
    recipe = toy_recipe.model_copy(update={"into": toy_dataset, "size": 64, "layout_scale": 0.3, "n": 2, **off})
    shown = [record for record in synth(recipe, tmp_path / "run").records if record.accepted]
    assert [new.tolist() for new in marks[: len(shown)]] == [
        [k < record.n_painted for k in range(len(record.labels))] for record in shown
    ]
    assert any(not new.all() for new in marks), "control: some were there before"


def test_a_picture_without_room_is_dropped_with_that_reason(toy_recipe, toy_dataset, tmp_path):
    recipe = toy_recipe.model_copy(update={"into": toy_dataset, "n": 1, "max_attempts": 4, "layout_scale": 3.0})
    result = synth(recipe, tmp_path / "run")  # of objects as large as the pictures
    reasons = {r.verdict.reason for r in result.records if not len(r.asked)}
    assert reasons == {"no room left"}


def test_without_a_filter_everything_is_kept_and_no_detector_is_needed(toy_recipe, tmp_path):
    recipe = toy_recipe.model_copy(update={"filter": "off", "detector": None, "calibration": None, "n": 5})
    result = synth(recipe, tmp_path / "run")
    assert result.tried == 5
    assert any("no detector looks at the images" in note for note in result.notes)
    assert len(formats.read(result.out / "coco")) == 5


def test_mixed_data_hold_all_real_and_all_synthetic_images(toy_recipe, toy_dataset, tmp_path):
    result = synth(toy_recipe.model_copy(update={"mix": True, "n": 2}), tmp_path / "run")
    mixed = formats.read(result.out / "mixed")
    kinds = Counter(sample.name.split("/")[0] for sample in mixed)
    assert kinds == {"real": len(formats.read(toy_dataset)), "synthetic": 2}
    assert not mixed.problems


def test_each_layout_stage_has_its_say(toy_recipe, layout_model):
    def layouts(**changes):
        recipe = toy_recipe.model_copy(update={"layouts": "diffusion", "layout_model": layout_model, **changes})
        return sample_layouts(load_parts(recipe), recipe, range(12))

    plain, enhanced, filtered = layouts(enhance=False), layouts(), layouts(enhance=False, label_filter=2.0)
    assert all(len(layout) and layout.classes == ("car", "van") for layout in plain + enhanced + filtered)
    differ = [len(a) != len(b) or not np.allclose(a.boxes, b.boxes) for a, b in zip(plain, enhanced, strict=True)]
    assert sum(differ) > 8
    lengths = [
        np.log(np.concatenate([x.boxes[:, 2] * x.boxes[:, 3] for x in some])).std() for some in (plain, filtered)
    ]
    assert lengths[1] <= lengths[0]


def test_real_layouts_are_seen_as_they_are_when_nothing_is_enhanced(toy_recipe, toy_dataset):
    real = {tuple(box) for sample in formats.read(toy_dataset) for box in np.round(sample.layout.boxes[:, 2:], 2)}

    def share_of_real_sides_and_angles(**changes):
        recipe = toy_recipe.model_copy(update=changes)
        boxes = np.concatenate(
            [x.boxes[x.visible > 0.999] for x in sample_layouts(load_parts(recipe), recipe, range(24))]
        )
        return np.mean([tuple(box) in real for box in np.round(boxes[:, 2:], 2)])

    assert share_of_real_sides_and_angles(enhance=False) == 1
    assert share_of_real_sides_and_angles() < 0.2
    with pytest.raises(UserError, match="enhance: false works only with layouts: reuse or diffusion"):
        load_recipe(None, toy_recipe.model_dump() | {"layouts": "prior", "enhance": False})


def test_rows_come_into_the_layouts_where_they_are_asked_for(toy_recipe, toy_dataset, tmp_path):
    """Share of layouts with two objects of the very same size; real pictures show rows of nearly the same one."""
    real = formats.read(toy_dataset)
    row = [[20 + 12 * k, 30, 18 + 0.2 * k, 10, np.pi / 2] for k in range(4)]
    layout = replace(real.samples[0].layout, boxes=row, labels=[0] * 4, difficult=None, visible=None)
    coco.write(replace(real, samples=[replace(s, layout=layout) for s in real]), tmp_path / "rows")

    def alike(rows: float) -> float:
        recipe = toy_recipe.model_copy(update={"data": tmp_path / "rows", "rows": rows})
        layouts = sample_layouts(load_parts(recipe), recipe, range(24))
        return np.mean([len(np.unique(x.boxes[:, 2:4], axis=0)) < len(x) for x in layouts])

    assert alike(1.0) > 0.5
    assert alike(0.0) < 0.1, "control"
    with pytest.raises(UserError, match="rows: works only with layouts: reuse"):
        load_recipe(None, toy_recipe.model_dump() | {"rows": 0.3, "enhance": False})


def test_in_augmented_scenes_every_real_object_stays_and_painted_ones_stand_beside_it(toy_recipe, toy_dataset):
    """In pixels: what a scene held before is as it was, in every box; without augmentation (control) some is lost."""

    def lost_objects(augmented: bool) -> int:
        recipe = toy_recipe.model_copy(update={"data": toy_dataset, "augment_scenes": augmented, "layouts": "reuse"})
        parts = load_parts(recipe)
        made, lost = paint(parts, recipe, range(24)), 0
        for one in made:
            assert np.array_equal(one.labels.boxes[: len(one.canvas.new)], one.canvas.new.boxes)
        canvases = parts.canvases.draw(
            sample_layouts(parts, recipe, range(24)), [image_seed(recipe.seed, i) for i in range(24)]
        )
        for one, canvas in zip(made, canvases, strict=True):
            lost += len(canvas.existing) - (len(one.labels) - len(one.canvas.new))
            own = covered(one.labels.boxes[len(one.canvas.new) :], one.image.shape)
            assert (one.image[own] == canvas.image[own]).all()
        return lost

    assert lost_objects(augmented=False) > 0
    assert lost_objects(augmented=True) == 0


def test_new_objects_are_painted_where_it_looks_as_around_real_ones(toy_recipe, tmp_path):
    """Real cars stand on a dark road through a bright field. In pixels of the scenes: where new ones are painted."""
    data = roads(tmp_path, "road")
    coco.write(replace(data, classes=("car", "van")), tmp_path / "coco")

    def painted(likely: bool) -> float:
        changes = {"data": tmp_path / "coco", "likely_places": likely, "augment_scenes": True, "size": 144}
        recipe = toy_recipe.model_copy(update=changes | {"filter": "off", "detector": None})
        dark = []
        for one in paint(load_parts(recipe), recipe, range(24)):
            asked, scene = one.canvas.new, one.canvas.image
            assert np.array_equal(one.labels.boxes[: len(asked)], asked.boxes)
            x, y = asked.boxes[asked.visible > 0.99, :2].astype(int).T
            dark.extend(scene[y, x].mean(1) < (ROAD + FIELD) / 2)
            changed = np.abs(one.image.astype(int) - scene).max(2) > 2
            around = asked.boxes + np.float32([0, 0, 14, 14, 0])  # margin of what is painted
            assert not changed[~covered(around, changed.shape)].any()
            assert not len(asked) or changed[covered(asked.boxes, changed.shape)].mean() > 0.5
        assert len(dark) > 20
        return float(np.mean(dark))

    assert painted(likely=True) > 0.85
    assert painted(likely=False) < 0.6, "control"


def test_objects_of_a_layout_that_are_left_out_are_counted(toy_recipe, tmp_path, capsys):
    from rich.console import Console

    from dataengine.engine.show import show_report

    def made(name: str, augmented: bool) -> tuple[int, int, dict]:
        changes = {"augment_scenes": augmented, "filter": "off", "detector": None, "n": 8}
        recipe = toy_recipe.model_copy(update=changes)
        result = synth(recipe, tmp_path / name)
        report = json.loads((result.out / "report.json").read_text())
        drawn = sum(len(layout) for layout in sample_layouts(load_parts(recipe), recipe, range(report["tried"])))
        assert report["left_out"] == sum(record.left_out for record in result.records)
        show_report(Console(markup=False, width=200), report, result.out)
        return drawn, sum(len(record.asked) for record in result.records), report

    drawn, asked, report = made("augmented", augmented=True)
    assert report["left_out"] == drawn - asked > 0
    assert f"{drawn - asked} of {drawn} objects of the layouts were left out" in capsys.readouterr().out
    drawn, asked, report = made("plain", augmented=False)
    assert report["left_out"] == drawn - asked == 0, "control: they take the place of others"
    assert "left out" not in capsys.readouterr().out


def test_stages_that_do_not_fit_together_are_told(toy_recipe, toy_dataset, tmp_path, layout_model):
    with pytest.raises(UserError, match="layout_model"):
        load_recipe(None, {"dataset": "hit-uav", "layouts": "diffusion"})
    with pytest.raises(UserError, match="not both"):
        load_recipe(None, {"dataset": "hit-uav", "into": toy_dataset, "scenes": toy_dataset})
    settings = toy_recipe.model_dump() | {"filter": "difficult", "likely_places": True}
    with pytest.raises(UserError, match="--likely-places works only with"):
        load_recipe(None, settings | {"renderer": "whole"})
    assert load_recipe(None, settings | {"likely_places": None, "into": toy_dataset}).likely_places, "its default"
    assert not load_recipe(None, settings | {"likely_places": None}).likely_places, "control"
    with pytest.raises(UserError, match="--likely-places learns from real images"):
        find_places(Recipe(dataset="hrplanes", likely_places=True), None, [])
    with pytest.raises(UserError, match="does not exist"):
        load_parts(toy_recipe.model_copy(update={"into": tmp_path / "nowhere"}))
    with pytest.raises(UserError, match="without reference images"):
        load_parts(toy_recipe.model_copy(update={"encoder": "some.onnx"}))


@pytest.mark.parametrize("name", sorted(file.stem for file in configs("recipes").glob("*.yaml")))
def test_packaged_recipes_are_valid_by_name_and_every_stage_can_be_switched_off(name):
    from pathlib import Path

    recipe = load_recipe(Path(name), {"n": 5})
    assert (recipe.dataset, recipe.n, recipe.layouts) == (name, 5, "diffusion")
    assert recipe.label_filter
    assert recipe.semantic_filter
    assert recipe.mix
    off = {"layouts": "reuse", "layout_model": None, "label_filter": None, "semantic_filter": None, "filter": "off"}
    values = recipe.model_dump() | off | {"mix": False}
    assert Recipe.model_validate(values).filter == "off"


def test_a_class_below_its_share_is_told_and_can_be_asked_for_alone(toy_recipe, tmp_path):
    def made(name: str, balance):
        recipe = toy_recipe.model_copy(update={"balance": balance, "n": 12, "filter": "off", "detector": None})
        result = synth(recipe, tmp_path / name)
        report = json.loads((result.out / "report.json").read_text())
        kept = {row["name"]: row["kept"] for row in report["classes"]}
        return kept["van"] / sum(kept.values()), report["below_balance"]

    as_it_is, nobody = made("plain", None)
    more, short = made("more", {"van": 0.95})  # of what is painted: the scenes' own cars are in the way
    assert more > as_it_is + 0.1
    assert short == {"van": round(more, 4)}
    assert nobody == {}, "nothing was stated"


def test_a_balance_that_shows_a_few_objects_again_and_again_is_told(toy_recipe, toy_dataset, tmp_path):
    dataset = formats.read(toy_dataset)
    few, vans = [], 0
    for sample in dataset:  # all cars, and the first van
        keep = (sample.layout.labels == 0) | (np.cumsum(sample.layout.labels == 1) + vans == 1)
        vans += int((sample.layout.labels == 1).sum())
        few.append(replace(sample, layout=sample.layout.select(keep)))
    coco.write(replace(dataset, samples=few), tmp_path / "few", split="train")

    def told(data: Path, balance: float) -> list[str]:
        recipe = toy_recipe.model_copy(update={"data": data, "dataset": None, "balance": balance, "n": 2000})
        return [note for note in load_parts(recipe).notes if "real van" in note]

    assert len(told(tmp_path / "few", 0.4)) == 1
    assert not told(tmp_path / "few", 0.001)
    assert not told(toy_dataset, 0.4), "control: vans are no rarer than cars"


def test_a_balance_that_does_not_fit_is_told(toy_recipe):
    for balance, message in (({"boat": 0.2}, "boat"), (3.0, "below 1"), ({"van": -0.1}, "below 1")):
        with pytest.raises(UserError, match=message):
            load_parts(toy_recipe.model_copy(update={"balance": balance}))
    with pytest.raises(UserError, match=r"balance.*neither a share"):
        load_recipe(None, {"dataset": "hit-uav", "balance": "much"})


def test_the_report_of_a_run_is_valid_json_without_a_detector(toy_recipe, tmp_path):
    result = synth(toy_recipe.model_copy(update={"filter": "off", "detector": None, "n": 1}), tmp_path / "run")
    report = json.loads((result.out / "report.json").read_text())
    assert report["real_images_that_would_pass"] is None
