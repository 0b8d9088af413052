"""Runs over a data set's own pictures: rerender, sequence, superres. Labels hold only where the filter says so."""

from __future__ import annotations

import datetime
import json
import re
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from PIL import Image
from toy_scenes import paint
from typer.testing import CliRunner

from dataengine import geometry, weights
from dataengine.cli import app
from dataengine.data import coco, formats
from dataengine.data.layout import Acquisition, Dataset, Layout, Sample
from dataengine.data.presets import Preset
from dataengine.engine import attempt, picture_parts
from dataengine.engine.picture_recipe import PictureRecipe
from dataengine.engine.run import synth
from dataengine.engine.verify import verify
from dataengine.errors import UserError
from dataengine.render import picture_canvases
from dataengine.render import rerender as rerendering
from dataengine.render.imagery import Imagery, read_imagery
from dataengine.render.in_scene_pipeline import InScenePipeline
from dataengine.render.layout_pipeline import LayoutPipeline
from dataengine.render.layout_unet import LayoutUNet
from dataengine.render.pictures import without
from dataengine.render.renderer import load_renderer
from dataengine.render.thumbnail_decoder import ThumbnailDecoder

SIZE, N = 112, 6
FIELD_GAIN = 20


def squares(rng: np.random.Generator, side: int, size: int) -> Layout:
    """Squares that the toy detector finds once they have 14 px: two of each class, apart from one another."""
    cell = side * 16 / 14
    places = [(1, 1), (4, 1), (1, 4), (4, 4)]
    boxes = [[(x + 0.5) * cell, (y + 0.5) * cell, side, side, 0] for x, y in places]
    return Layout(boxes, rng.permutation([0, 0, 1, 1]), ("car", "van"), (size, size), "hbb")


def labelled(folder: Path, side: int = 14, size: int = SIZE, name: str = "toy", **acquisition) -> Path:
    """Six pictures, half of them by day, and one without an object. name: of the data set; "toy" is of one channel."""
    rng, samples = np.random.default_rng(0), []
    for i in range(N + 1):
        own = Acquisition(**{"night": i % 2 == 1, **acquisition})
        layout = replace(squares(rng, side, size), acquisition=own)
        layout = layout if i < N else layout.select([])
        file = folder / "raw" / f"{i}.png"
        file.parent.mkdir(exist_ok=True, parents=True)
        Image.fromarray(paint(layout, rng)).save(file)
        samples.append(Sample(file.stem, file, layout))
    coco.write(Dataset(("car", "van"), samples, "hbb", name=name), folder / name)
    return folder / name


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return labelled(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """A whole-image renderer with random weights that follows night and ground sample distance."""
    torch.manual_seed(0)
    unet = LayoutUNet(
        ["car", "van"], ["toy"], sample_size=8, block_out_channels=(16, 32), attention_head_dim=16, norm_num_groups=8,
        cross_attention_dim=16, fields=("night", "gsd"),
    )  # fmt: skip
    with torch.no_grad():  # conditions act more than in a network of random weights
        for weight in unet.field_embedding.parameters():
            weight.mul_(FIELD_GAIN)
    decoder = ThumbnailDecoder(["toy"], block_out_channels=(16, 32))
    folder = tmp_path_factory.mktemp("whole")
    LayoutPipeline(
        unet, decoder, FlowMatchEulerDiscreteScheduler(), ["toy"], few_steps=2, decoder_few_steps=2
    ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def rule(toy_calibration, tmp_path_factory) -> Path:
    """The toy rule with a threshold above the score of plain ground."""
    values = json.loads(toy_calibration.read_text())
    values |= {name: {"car": 0.7, "van": 0.7} for name in ("thresholds", "extra_scores")}
    file = tmp_path_factory.mktemp("rule") / "toy.json"
    file.write_text(json.dumps(values))
    return file


@pytest.fixture
def recipe(data, model, toy_detector, rule):
    """A recipe of a task on the toy data."""

    def make(kind: str, data: Path = data, **task) -> PictureRecipe:
        given = {"data": data, "model": model, "detector": toy_detector, "calibration": rule}
        return PictureRecipe(**given, shard_size=2, task={"kind": kind, **task})

    return make


def source(data: Path, record) -> np.ndarray:
    sample = next(s for s in formats.read(data) if s.name == record.provenance.name)
    return np.asarray(Image.open(sample.image).convert("RGB")).astype(int)


def picture(run: Path, record) -> np.ndarray:
    return np.asarray(Image.open(run / record.image).convert("RGB")).astype(int)


def inside(layout: Layout) -> np.ndarray:
    """Bool (H, W): the pixels of the boxes."""
    mask = np.zeros(layout.size[::-1], np.uint8)
    for corners in geometry.to_corners(layout.boxes):
        cv2.fillPoly(mask, [np.rint(corners - 0.5).astype(np.int32)], 1)
    return mask > 0


def test_pictures_by_day_are_shown_by_night_with_their_labels(recipe, data, tmp_path):
    result = synth(recipe("rerender", targets=[{"night": True}]), tmp_path / "run")
    records = list(result.records)
    assert [record.provenance.name for record in records] == ["0", "2", "4"], "the others are so already, or empty"
    assert any("3 pictures are left out" in note and "already" in note for note in result.notes)
    assert any("1 pictures are left out" in note and "no object" in note for note in result.notes)
    own = {sample.name: sample.layout for sample in formats.read(data)}
    for record in records:
        layout = own[record.provenance.name]
        assert record.accepted
        assert record.labels.acquisition == layout.acquisition.model_copy(update={"night": True})
        assert np.allclose(record.labels.boxes, layout.boxes, atol=2e-3)
        assert record.labels.names() == layout.names()
        assert not record.labels.difficult.any(), "the detector finds them"
        change = picture(result.out, record) - source(data, record)
        assert np.abs(change).mean() > 1, "a copy would not be another picture"
    assert not verify(result.out).faults
    before = (result.out / "manifest.jsonl").read_bytes()
    (result.out / "manifest.jsonl").unlink()
    assert synth(recipe("rerender", targets=[{"night": True}]), tmp_path / "run", batch_size=1).accepted == 3
    assert (result.out / "manifest.jsonl").read_bytes() == before, "continued"


def test_condition_guidance_and_strength_act(recipe, monkeypatch):
    """Controls: what a picture is already; a network that does not look at conditions."""
    parts = picture_parts.load_picture_parts(recipe("rerender", targets=[{"night": True}]))
    [canvas] = parts.canvases.numbered([0], [7])
    by_night, by_day = Acquisition(night=True), Acquisition(night=False)

    def change(own: Acquisition, strength: float = 0.75, guidance_scale: float = 1.0, seed: int = 7) -> np.ndarray:
        layout = replace(canvas.new, acquisition=by_night)
        given = ([canvas.image], [layout], [own], [seed], "toy", strength, guidance_scale)
        [image] = rerendering.rerender(parts.renderer.model, *given)
        return image.astype(int) - canvas.image

    night = change(by_day)
    assert np.abs(night).mean() > 1
    assert (change(by_day) == night).all()
    assert (change(by_day, seed=8) != night).any()
    assert (change(by_night) == 0).all(), "it is by night already"
    assert np.abs(change(Acquisition())).mean() > 0, "nobody knows what it is"
    assert np.abs(change(by_day, guidance_scale=3.0)).mean() > 1.5 * np.abs(night).mean()

    def darker_by_night(self, x, times, batch):
        return torch.sin(x) + batch.fields[:, :1, None, None]

    monkeypatch.setattr(LayoutUNet, "forward", darker_by_night)
    weak, strong = change(by_day, strength=0.1).mean(), change(by_day, strength=0.6).mean()
    assert strong < 4 * weak < 0
    monkeypatch.setattr(LayoutUNet, "forward", lambda self, x, *_: torch.sin(x))
    assert (change(by_day) == 0).all(), "a network that does not look at conditions"


def test_objects_that_do_not_hold_are_dropped_and_counted(recipe, rule, tmp_path, monkeypatch):
    def grey(pipeline, images, layouts, *_):
        """Blue squares vanish."""
        results = [image.copy() for image in images]
        for image, layout in zip(results, layouts, strict=True):
            image[inside(layout.select(layout.labels == 1))] = (120, 150, 90)
        return results

    monkeypatch.setattr("dataengine.render.pictures.rerender", grey)
    result = synth(recipe("rerender", targets=[{"night": True}]), tmp_path / "run")
    rows = {row["name"]: row for row in json.loads((result.out / "report.json").read_text())["classes"]}
    assert (rows["car"]["asked"], rows["car"]["found"], rows["car"]["difficult"]) == (6, 6, 0)
    assert (rows["van"]["asked"], rows["van"]["found"], rows["van"]["difficult"]) == (6, 0, 6)
    strict = tmp_path / "strict.json"
    strict.write_text(json.dumps(json.loads(rule.read_text()) | {"missed_share": 0.25}))
    again = recipe("rerender", targets=[{"night": True}]).model_copy(update={"calibration": strict})
    made = synth(again, tmp_path / "strict")
    assert (made.accepted, made.tried) == (0, 3)
    assert {record.verdict.reason for record in made.records} == {"2 of 4 objects not found"}


def test_a_coarser_picture_has_smaller_objects(recipe, tmp_path):
    data = labelled(tmp_path, side=28, size=2 * SIZE, gsd_m=0.5)
    result = synth(recipe("rerender", data=data, targets=[{"gsd_m": 1.0}]), tmp_path / "run")
    records = list(result.records)
    assert len(records) == N
    for record in records:
        assert record.labels.size == (SIZE, SIZE)
        assert record.labels.acquisition.gsd_m == 1.0
        assert np.allclose(record.labels.boxes[:, 2:4], 14)
        assert not record.labels.difficult.any(), "the detector finds them at that size"


def over(self, image: np.ndarray, kept: Layout, removed: Layout, seed: int) -> np.ndarray:
    """`InScenePipeline.clear` of a renderer that knows the ground."""
    image = image.copy()
    image[inside(removed)] = 90 + seed % 5
    return image


def test_objects_come_and_go_on_the_same_ground(recipe, data, tmp_path, monkeypatch, toy_renderer):
    monkeypatch.setattr(InScenePipeline, "clear", over)
    task = {"targets": [{}, {"night": True}, {}], "present": 0.5, "painter": toy_renderer}
    result = synth(recipe("sequence", **task), tmp_path / "run")
    records = list(result.records)
    assert len(records) == 3 * N
    own = {sample.name: sample.layout for sample in formats.read(data)}
    there = []
    for i, record in enumerate(records):
        layout = own[record.provenance.name]
        assert record.provenance.name == str(i // 3)
        shown = [box.tolist() in record.asked.boxes.round(3).tolist() for box in layout.boxes.round(3)]
        there.append(shown)
        assert sum(shown) == len(record.asked), "no other object"
        asked_night = True if i % 3 == 1 else layout.acquisition.night
        assert record.labels.acquisition.night == asked_night
        if asked_night == layout.acquisition.night:  # as taken: only what vanished differs
            same = (picture(result.out, record) == source(data, record)).all(2)
            gone = inside(layout.select(~np.array(shown)))
            assert same[inside(record.asked)].all()
            assert same.mean() > 0.5 or not any(shown)
            assert not gone.any() or (~same[gone]).mean() > 0.5
    assert 0.3 < np.mean(there) < 0.7
    dates = [
        i for i in range(0, 3 * N, 3) if there[i] == there[i + 2] and records[i].accepted and records[i + 2].accepted
    ]
    for i in dates:
        assert (picture(result.out, records[i]) == picture(result.out, records[i + 2])).all(), "the ground is the same"

    written = json.loads((result.out / "changes" / "changes.json").read_text())
    accepted = [record.accepted for record in records]
    pairs = [i for i in range(3 * N) if i % 3 < 2 and accepted[i] and accepted[i + 1]]
    assert [int(entry["before"]) for entry in written] == pairs
    seen = {"appeared": 0, "disappeared": 0, "stayed": 0, "uncertain": 0}
    for i, entry in zip(pairs, written, strict=True):
        a, b = np.array(there[i]), np.array(there[i + 1])
        counts = {kind: len(entry[kind]) for kind in seen}
        seen = {kind: seen[kind] + counts[kind] for kind in seen}
        assert sum(counts.values()) == (a | b).sum()
        if not counts["uncertain"]:
            assert counts["appeared"] == (~a & b).sum()
            assert counts["disappeared"] == (a & ~b).sum()
        mask = np.asarray(Image.open(result.out / "changes" / entry["label"]))
        layout = own[records[i].provenance.name]
        for k, box in enumerate(layout.boxes):
            value = mask[int(box[1]), int(box[0])]
            assert value in ((255, 128) if a[k] != b[k] else (0, 128))
    assert min(seen["appeared"], seen["disappeared"], seen["stayed"]) > 0
    assert not verify(result.out).faults
    (result.out / "changes" / "changes.json").write_text("[]")
    assert verify(result.out).faults, "change labels are verified, too"


def test_a_vanished_object_that_is_still_found_drops_the_picture(recipe, tmp_path, monkeypatch, toy_renderer):
    monkeypatch.setattr(InScenePipeline, "clear", lambda self, image, *_: image)
    result = synth(recipe("sequence", targets=[{}, {}], present=0.5, painter=toy_renderer), tmp_path / "run")
    for record in result.records:
        assert record.accepted == (len(record.asked) == 4)
        assert record.accepted or "vanished objects still found" in record.verdict.reason
    assert result.accepted < result.tried


def test_ground_over_an_object_depends_on_that_object_only(toy_renderer):
    painter = load_renderer(toy_renderer, "in-scene")
    rng = np.random.default_rng(3)
    layout = squares(rng, 14, SIZE)
    image = paint(layout, rng)
    first, both = layout.select([0]), layout.select([0, 1])
    alone = painter.clear(image, layout.select([1, 2, 3]), first, 5)
    together = painter.clear(image, layout.select([2, 3]), both, 5)
    assert (alone[inside(first)] != image[inside(first)]).mean() > 0.5
    assert (alone[inside(first)] == together[inside(first)]).all()
    assert (together[inside(layout.select([2, 3]))] == image[inside(layout.select([2, 3]))]).all()
    assert (painter.clear(image, layout.select([1, 2, 3]), first, 6) != alone).any(), "control: another seed"
    assert (painter.clear(image, layout, layout.select([]), 5) == image).all()


def test_ground_is_the_same_whichever_other_objects_are_gone(toy_renderer, monkeypatch):
    """A painter whose ground depends on how many objects it clears. Mutation: to clear only those that are gone."""
    monkeypatch.setattr(InScenePipeline, "clear", lambda self, image, kept, removed, seed: image * 0 + len(removed))
    painter = load_renderer(toy_renderer, "in-scene")
    rng = np.random.default_rng(3)
    layout = squares(rng, 14, SIZE)
    image = paint(layout, rng)

    def at(*numbers: int) -> np.ndarray:
        gone = np.isin(np.arange(len(layout)), numbers)
        return without(painter, image, layout.select(~gone), layout.select(gone), 5)

    one, two = at(0), at(3, 0)
    first = inside(layout.select([0]))
    assert (one[first] == two[first]).all()
    assert (one[first] != image[first]).any()
    assert (painter.clear(image, layout, layout.select([0]), 5)[first] != one[first]).all(), "mutation"
    for k in (1, 2, 3):
        assert (one[inside(layout.select([k]))] == image[inside(layout.select([k]))]).all()
    assert (at() == image).all()


def test_larger_pictures_keep_their_means_and_their_labels_only_where_found(recipe, tmp_path):
    data = labelled(tmp_path, side=7, size=56, name="colour")
    result = synth(recipe("superres", data=data, factor=2), tmp_path / "run")
    records = list(result.records)
    assert len(records) == N
    for record in records:
        large, small = picture(result.out, record), source(data, record)
        assert large.shape == (112, 112, 3)
        assert record.labels.size == (112, 112)
        assert np.allclose(record.labels.boxes[:, 2:4], 14)
        means = large.reshape(56, 2, 56, 2, 3).mean((1, 3))
        other = source(data, records[0 if record is not records[0] else 1])
        assert np.abs(means - small).mean() < np.abs(means - other).mean() / 3, "control: another picture"
        assert np.abs(means - small).mean() < 3
        assert np.abs(large - small.repeat(2, 0).repeat(2, 1)).mean() > 1, "no mere repetition"
        assert not record.labels.difficult.any()
    four = synth(recipe("superres", data=data, factor=4), tmp_path / "four")
    assert {record.labels.size for record in four.records} == {(224, 224)}
    assert not four.accepted, "the detector knows none so large, so no label holds"


def test_an_unreadable_picture_is_dropped_with_that_reason(recipe, tmp_path, monkeypatch):
    read = picture_canvases.read_picture
    monkeypatch.setattr(picture_canvases, "read_picture", lambda sample: None if sample.name == "2" else read(sample))
    result = synth(recipe("rerender", targets=[{"night": True}]), tmp_path / "run")
    assert [r.verdict.reason for r in result.records if not r.accepted] == ["the picture cannot be read"]
    assert result.accepted == 2


def test_a_model_of_diffusionsat_is_asked_for_the_acquisition(recipe, tmp_path, monkeypatch):
    """What reaches the model; control: an asked date that is the picture's own."""
    pytest.importorskip("transformers")
    from toy_text import toy_satellite_model

    from dataengine.render.diffusionsat import DiffusionSatPipeline

    asked = []

    def same(self, captions, acquisitions, seeds, steps, guidance_scale, images, strength):
        asked.append((captions, acquisitions, strength))
        return images

    monkeypatch.setattr(DiffusionSatPipeline, "__call__", same)
    data = labelled(tmp_path, gsd_m=0.5, cloud=0.1, date="2020-01-02")
    folder = toy_satellite_model(tmp_path / "diffusionsat")
    task = {"targets": [{"date": "2024-07-01"}], "strength": 0.4}
    made = recipe("rerender", data=data, **task).model_copy(update={"model": folder})
    result = synth(made, tmp_path / "run")
    assert result.accepted == N
    captions, acquisitions, strength = asked[0]
    assert captions[0].startswith("a satellite image of a ")
    assert strength == 0.4
    day = datetime.date(2024, 7, 1)
    assert (acquisitions[0].date, acquisitions[0].gsd_m, acquisitions[0].cloud) == (day, 0.5, 0.1)
    assert {record.labels.acquisition.date for record in result.records} == {day}
    again = recipe("rerender", data=data, targets=[{"date": "2020-01-02"}]).model_copy(update={"model": folder})
    with pytest.raises(UserError, match="taken like that already"):
        synth(again, tmp_path / "again")
    night = recipe("rerender", data=data, targets=[{"night": True}]).model_copy(update={"model": folder})
    with pytest.raises(UserError, match="--night/--day"):
        synth(night, tmp_path / "night")


def command(*words) -> tuple[int, str]:
    done = CliRunner().invoke(app, [str(word) for word in words])
    return done.exit_code, str(done.exception or done.output)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["rerender"], "nothing is asked for"),
        (["rerender", "--night", "--cloud", 0.4], "--cloud: .* was not trained with that condition"),
        (["rerender", "--date", "2024-07-01"], "--date: .*it follows --night/--day, --gsd.*DiffusionSat"),
        (["rerender", "--sun", 30], "--sun: .*with `sun` among its fields"),
        (["rerender", "--gsd", 0.5], "do not state their metres per pixel"),
        (["sequence", "--at", "dusk"], "--at dusk"),
        (["sequence", "--at", "day,2024-07-01"], "--date"),
        (["superres", "--factor", 3], "--factor 3"),
    ],
)
def test_what_cannot_be_made_is_refused_in_one_sentence(
    data, model, toy_detector, toy_calibration, tmp_path, words, says
):
    own = ["--model", model, "--detector", toy_detector, "--calibration", toy_calibration, "--out", tmp_path / "run"]
    code, text = command(words[0], data, *own, *words[1:])
    assert code != 0
    assert len(text.splitlines()) == 1
    assert re.search(says, text), text
    assert not (tmp_path / "run").exists()


def test_a_kind_of_images_that_the_model_saw_by_day_only_has_no_night(recipe):
    seen = Imagery(classes=("car",), bands="colour", night=False, gsd_m=(0.5, 2), source="Toy")
    renderer = picture_parts.PictureRenderer(type("M", (), {"conditions": frozenset({"night", "gsd_m"})}))
    for target, says in (({"night": True}, "by day only"), ({"gsd_m": 4.0}, "0.5 to 2 m")):
        with pytest.raises(UserError, match=says):
            picture_parts.check_conditions(recipe("rerender", targets=[target]), renderer, seen, "it")
    picture_parts.check_conditions(recipe("rerender", targets=[{"night": False, "gsd_m": 1.0}]), renderer, seen, "it")


@pytest.mark.parametrize(
    ("classes", "bands", "look"),
    [(("car",), "grey", "hit-uav"), (("airplane",), "colour", "hrplanes"), (("car",), "colour", None)],
)
def test_a_data_set_of_another_name_gets_the_look_of_its_images(classes, bands, look):
    """Control: cars in colour, which the packaged renderer has never seen."""
    trained, own = read_imagery(weights.packaged("whole")), Imagery(classes=classes, bands=bands)
    mine = Preset(name="mine", title="Mine", classes=classes)
    found = picture_parts.look_of(["hit-uav", "hrplanes"], trained, own, mine)
    assert (found and found.name) == look


@pytest.mark.parametrize("mode", ["off", "drop", "repair"])
def test_labels_are_never_written_unverified(recipe, mode):
    values = recipe("superres", factor=2).model_dump()
    with pytest.raises(ValueError, match="hold only where a detector has found"):
        PictureRecipe.model_validate(values | {"filter": mode})


def test_pictures_are_judged_by_the_function_that_knows_them(recipe, monkeypatch, tmp_path):
    """Mutation: judged as painted images are, a picture keeps labels of objects that vanished."""
    monkeypatch.setattr(
        attempt,
        "judged_picture",
        lambda parts, recipe, painted: (painted, attempt.Verdict(True, "", [0.0] * len(painted.labels), [], [])),
    )
    result = synth(recipe("rerender", targets=[{"night": True}]), tmp_path / "run")
    assert result.accepted == 3
