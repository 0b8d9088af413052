"""Layouts drawn by hand: what is rendered, and what is kept."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from dataengine.data import formats
from dataengine.data.layout import Layout
from dataengine.engine.attempt import attempt
from dataengine.engine.parts import load_parts
from dataengine.errors import UserError
from dataengine.render.canvas import Canvas, Provenance
from dataengine.render.placement import empty_layout
from dataengine.seeds import image_seed
from dataengine.view import hand_drawn
from dataengine.view.app import Site
from dataengine.view.security import TOKEN_HEADER
from dataengine.view.studio import RenderRequest, Studio

CAR = {"class": "car", "cx": 30, "cy": 30, "w": 22, "h": 11, "theta": 0.4}
CAR_BOX = np.float32([30, 30, 22, 11, 0.4])
VAN = {"class": "van", "cx": 66, "cy": 60, "w": 11, "h": 22, "theta": 0.0}


def request_of(*boxes, **others) -> RenderRequest:
    return RenderRequest(boxes=boxes or (CAR, VAN), **({"seed": 7} | others))


@pytest.fixture(scope="module")
def parts_of():
    """Parts of a recipe, loaded once a module."""
    loaded = {}

    def load(recipe):
        key = recipe.model_dump_json()
        if key not in loaded:
            loaded[key] = load_parts(recipe)
        return recipe, loaded[key]

    return load


@pytest.fixture
def opened() -> Canvas:
    """A real image with one labelled car far from what the tests draw."""
    pixels = np.random.default_rng(1).integers(60, 120, (96, 128, 3)).astype(np.uint8)
    existing = Layout([[110, 80, 20, 10, 0]], [0], ("car",), (128, 96))
    return Canvas(pixels, existing, empty_layout(existing), Provenance("window", "real:1", license="CC0"))


@pytest.fixture
def make_studio(toy_recipe, parts_of, opened, tmp_path):
    def make(out=None, **changes) -> Studio:
        recipe = toy_recipe.model_copy(update=changes)
        studio = Studio(lambda: parts_of(recipe), lambda picture: opened, out or tmp_path / "drawn")
        studio.parts()
        return studio

    return make


def manifest(out) -> list[dict]:
    return [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]


def test_the_boxes_drawn_are_the_first_labels_of_the_image_long_side_first(make_studio):
    made = make_studio().render(request_of())
    assert made.image.shape == (96, 96, 3)
    assert made.labels.names()[:2] == ["car", "van"]
    np.testing.assert_allclose(made.asked.boxes[0], [30, 30, 22, 11, 0.4], atol=1e-4)
    np.testing.assert_allclose(made.asked.boxes[1], [66, 60, 22, 11, -np.pi / 2], atol=1e-4)
    np.testing.assert_allclose(made.labels.boxes[:2], made.asked.boxes)
    assert len(made.verdict.scores) == len(made.labels)
    assert len(made.found) == 2


@pytest.mark.parametrize("guidance_scale", [0.0, 3.5])
def test_the_page_shows_the_guidance_that_the_recipe_states_also_when_it_is_0(make_studio, guidance_scale):
    assert make_studio(guidance_scale=guidance_scale).summary()["guidance_scale"] == guidance_scale


def test_the_same_request_gives_the_same_image_and_another_seed_another(make_studio):
    studio = make_studio()
    first = studio.render(request_of(ground_boxes=(CAR,), ground_seed=3))
    again = studio.render(request_of(ground_boxes=(CAR,), ground_seed=3))
    np.testing.assert_array_equal(first.image, again.image)
    other = studio.render(request_of(ground_boxes=(CAR,), ground_seed=3, seed=8))
    inside = np.s_[22:38, 22:38]
    assert np.abs(first.image[inside].astype(int) - other.image[inside]).max() > 20


def test_a_ground_that_is_held_stays_when_boxes_change(make_studio):
    studio = make_studio()
    few = studio.render(request_of(CAR, ground_boxes=(CAR,), ground_seed=3))
    more = studio.render(request_of(CAR, VAN, ground_boxes=(CAR,), ground_seed=3))
    assert few.provenance == more.provenance
    differs = np.abs(few.image.astype(int) - more.image).max(2) > 2
    assert differs[50:70, 56:76].any(), "the van is drawn"
    assert not differs[:, :8].any(), "and the ground far from it is the same"
    other = studio.render(request_of(CAR, VAN, ground_boxes=(CAR,), ground_seed=4))
    assert other.provenance != more.provenance, "control: another seed of the ground is another ground"


def test_a_runs_layout_unchanged_gives_the_runs_own_image_again(make_studio):
    studio = make_studio()
    recipe, parts = studio.parts()
    compared = 0
    for index, (made, _) in enumerate(attempt(parts, recipe, range(6))):
        asked = made.canvas.new
        if (asked.visible < 1).any():
            continue  # drawn boxes are clipped again, and the part outside is unknown
        boxes = tuple(
            {"class": name, **dict(zip(("cx", "cy", "w", "h", "theta"), box.tolist(), strict=True))}
            for name, box in zip(asked.names(), asked.boxes, strict=True)
        )
        seed = image_seed(recipe.seed, index)
        ground = {"ground_boxes": boxes, "ground_seed": seed, "acquisition": asked.acquisition}
        again = studio.render(request_of(*boxes, seed=seed, **ground))
        assert again.provenance == made.canvas.provenance
        assert np.abs(again.image.astype(int) - made.image).max() <= 2, "rounding differs with the batch"
        compared += 1
    assert compared


def test_on_an_opened_image_its_own_objects_keep_label_and_pixels(make_studio, opened):
    made = make_studio().render(request_of(CAR, ground="picture", picture=("real", 1)))
    assert made.image.shape == (96, 128, 3)
    assert len(made.asked) == 1
    np.testing.assert_allclose(made.labels.boxes, [CAR_BOX, opened.existing.boxes[0]], atol=1e-4)
    np.testing.assert_array_equal(made.image[70:90, 95:125], opened.image[70:90, 95:125])
    assert (made.image[20:40, 20:40] != opened.image[20:40, 20:40]).any()
    assert (made.provenance.label, made.provenance.license, made.origin) == ("real:1", "CC0", "real:1")


def test_an_own_object_that_a_new_box_touches_goes(make_studio):
    """Control of the test above."""
    over = {**CAR, "cx": 108, "cy": 78}
    made = make_studio().render(request_of(over, ground="picture", picture=("real", 1)))
    assert len(made.labels) == 1


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"boxes": [CAR, {**CAR, "class": "bus"}]}, "box 2: there is no class bus"),
        ({"boxes": [{**CAR, "cx": -8}]}, "box 1: only .* inside"),
        ({"ground": "picture"}, "no image is open"),
    ],
)
def test_an_invalid_layout_is_refused_with_the_reason(make_studio, changes, says):
    studio = make_studio()
    with pytest.raises(UserError, match=says):
        studio.render(RenderRequest.model_validate({"boxes": [CAR], "seed": 1} | changes))


@pytest.mark.parametrize(
    "changes",
    [{"boxes": []}, {"seed": -1}, {"seed": 1.5}, {"boxes": [{**CAR, "w": 0}]}, {"boxes": [{**CAR, "cx": float("nan")}]},
     {"boxes": [{**CAR, "cx": 1e9}]}, {"ground": "sea"}, {"picture": ["etc", 0]}, {"more": 1}],
)  # fmt: skip
def test_an_invalid_request_is_refused_before_anything_is_rendered(changes):
    with pytest.raises(ValueError, match="validation error"):
        RenderRequest.model_validate({"boxes": [CAR], "seed": 1} | changes)


def test_seeds_come_as_text_since_a_page_has_no_whole_numbers_of_that_size():
    assert RenderRequest.model_validate({"boxes": [CAR], "seed": str((1 << 61) + 1)}).seed == (1 << 61) + 1


def test_a_box_that_sticks_out_is_cut_as_in_every_layout(make_studio):
    made = make_studio().render(request_of({**CAR, "cx": 4, "theta": 0}))
    assert made.asked.visible[0] == pytest.approx(15 / 22, abs=0.01)
    assert made.asked.boxes[0, 0] == pytest.approx(7.5, abs=0.01)


def test_kept_images_are_read_back_in_every_format_with_the_same_boxes(make_studio, tmp_path):
    studio = make_studio()
    made = studio.render(request_of())
    assert studio.folder.add(made) == 0
    assert studio.folder.add(studio.render(request_of(CAR))) == 1
    records = manifest(tmp_path / "drawn")
    assert [record["index"] for record in records] == [0, 1]
    assert records[0]["seed"] == 7
    assert records[0]["verdict"]["kept"], "the person decided"
    assert records[0]["filter"]["kept"] == made.verdict.kept, "and what the filter said stays"
    for name in ("dota", "coco"):
        dataset = formats.read(tmp_path / "drawn" / name)
        assert not dataset.problems
        assert len(dataset) == 2
        first = next(sample for sample in dataset if sample.name == "00000000")
        assert sorted(first.layout.names()) == sorted(made.labels.names())
        order_of = [np.lexsort(boxes[:, :2].T) for boxes in (first.layout.boxes, made.labels.boxes)]
        found, expected = first.layout.boxes[order_of[0]], made.labels.boxes[order_of[1]]
        np.testing.assert_allclose(found[:, :4], expected[:, :4], atol=0.1)


def test_kept_images_can_be_viewed_and_evaluated_like_a_run(make_studio, tmp_path, open_index):
    from dataengine.evaluate.windows import read_generated

    studio = make_studio()
    studio.folder.add(studio.render(request_of()))
    assert len(open_index(tmp_path / "drawn")) == 1
    assert len(read_generated(tmp_path / "drawn")) == 1


def test_no_run_continues_in_a_folder_of_drawn_images(make_studio, toy_recipe, tmp_path):
    from dataengine.engine.run import synth

    studio = make_studio()
    studio.folder.add(studio.render(request_of()))
    before = (tmp_path / "drawn" / "manifest.jsonl").read_bytes()
    with pytest.raises(UserError):
        synth(toy_recipe, tmp_path / "drawn")
    assert (tmp_path / "drawn" / "manifest.jsonl").read_bytes() == before


def test_a_later_start_goes_on_in_the_same_folder(make_studio, tmp_path):
    studio = make_studio()
    made = studio.render(request_of())
    studio.folder.add(made)
    with pytest.raises(UserError, match="another program draws"):
        make_studio()
    studio.folder.close()
    later = make_studio()
    assert later.folder.indices() == [0]
    assert later.folder.add(made) == 1


def test_a_removed_image_is_removed_everywhere(make_studio, tmp_path):
    studio = make_studio()
    made = studio.render(request_of())
    for _ in range(2):
        studio.folder.add(made)
    studio.folder.remove(0)
    assert studio.folder.indices() == [1]
    assert [sample.name for sample in formats.read(tmp_path / "drawn" / "coco")] == ["00000001"]
    assert not (tmp_path / "drawn" / "drawn" / "00000000.png").exists()
    with pytest.raises(UserError, match="no image 0"):
        studio.folder.remove(0)
    assert studio.folder.add(made) == 2, "a number is not given twice while later ones are there"
    studio.folder.remove(1), studio.folder.remove(2)
    assert not (tmp_path / "drawn" / "coco").exists()


@pytest.mark.parametrize("module", ["dota", "coco"])
def test_after_an_interruption_while_data_sets_are_written_the_next_start_repairs_them(
    make_studio, tmp_path, monkeypatch, module
):
    studio = make_studio()
    made = studio.render(request_of())
    studio.folder.add(made)

    def killed(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(hand_drawn.FORMATS[module], "write", killed)
    with pytest.raises(KeyboardInterrupt):
        studio.folder.add(made)
    monkeypatch.undo()
    studio.folder.close()
    make_studio()
    for name in ("dota", "coco"):
        assert len(formats.read(tmp_path / "drawn" / name)) == 2


def test_a_folder_that_holds_something_else_is_refused_and_left_alone(make_studio, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_bytes(b"cat")
    with pytest.raises(UserError, match="not empty"):
        make_studio(out=tmp_path / "photos")
    assert [file.name for file in (tmp_path / "photos").iterdir()] == ["cat.jpg"]


def test_a_newer_request_replaces_those_that_wait(make_studio, monkeypatch):
    studio, go_on, seeds = make_studio(), threading.Event(), []
    render = Studio.render

    def slow(self, asked, at):
        seeds.append(asked.seed)
        go_on.wait(60)
        return render(self, asked, at)

    monkeypatch.setattr(Studio, "render", slow)
    first = studio.submit(request_of(seed=1))
    while not seeds:
        time.sleep(0.01)
    second, third = studio.submit(request_of(seed=2)), studio.submit(request_of(seed=3))
    assert second.state == "replaced"
    go_on.set()
    wait_for(lambda: first.state == third.state == "done")
    assert seeds == [1, 3]


def wait_for(condition) -> None:
    for _ in range(6000):
        if condition():
            return
        time.sleep(0.02)
    pytest.fail("it did not happen")


def test_the_page_renders_waits_and_keeps(make_studio, client, tmp_path):
    site = Site(studio=make_studio())
    page = client(site)
    headers = {"origin": "http://127.0.0.1:8765", TOKEN_HEADER: site.token}
    state = page.get("/api/draw").json()
    assert state["state"] == "ready"
    assert [one["name"] for one in state["classes"]] == ["car", "van"]
    asked = {"boxes": [CAR, VAN], "seed": "7"}
    assert page.post("/api/draw/render", json=asked).status_code == 403, "without the token"
    job = page.post("/api/draw/render", json=asked, headers=headers).json()
    path = f"/api/draw/render/{job['number']}"
    wait_for(lambda: page.get(path).json()["state"] == "done")
    done = page.get(path).json()
    assert len(done["verdict"]["found"]) == 2
    assert page.get(f"/image/render/{job['number']}").headers["content-type"] == "image/png"
    assert page.post(f"/api/draw/keep/{job['number']}", headers=headers, json={}).json() == {"index": 0, "kept": [0]}
    assert page.get("/image/kept/0").status_code == 200
    assert page.post("/api/draw/keep/99", headers=headers, json={}).status_code == 400
    wrong = page.post("/api/draw/render", json={"boxes": [{**CAR, "class": "bus"}], "seed": 1}, headers=headers)
    assert wrong.status_code == 400
    assert "no class bus" in wrong.json()["error"]
    assert page.post("/api/draw/render", content=b"{", headers=headers).status_code == 400
    assert page.post("/api/draw/remove/0", headers=headers, json={}).json() == {"kept": []}


def test_parts_that_cannot_be_loaded_are_reported_on_the_page(client, tmp_path):
    def load():
        raise UserError("there is no such model.")

    studio = Studio(load, lambda picture: None, tmp_path / "drawn")
    with pytest.raises(UserError):
        studio.parts()
    assert client(Site(studio=studio)).get("/api/draw").json()["error"] == "there is no such model."
    assert not (tmp_path / "drawn").exists()


def test_the_whole_image_renderer_has_no_ground_to_paint_into(make_studio):
    studio = make_studio()
    recipe, parts = studio.parts()
    whole = replace(parts, renderer=SimpleNamespace(paints_on="blank"))
    studio._loading.result = lambda: (recipe, whole)
    with pytest.raises(UserError, match="makes the ground itself"):
        studio.submit(request_of(CAR, ground="picture", picture=("real", 1)))
