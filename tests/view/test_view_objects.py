"""Objects one by one, their embeddings, and detections against labels."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from test_view_page import TILES, until

from dataengine.data.layout import Layout
from dataengine.engine.decisions import Change, append
from dataengine.engine.run_folder import RunFolder
from dataengine.errors import UserError
from dataengine.judge.detector import Detections
from dataengine.view.app import Site
from dataengine.view.embeddings import Embeddings, Item
from dataengine.view.gallery import Gallery, pairs_of, query_of
from dataengine.view.objects import ObjectList, crop_bytes, starts
from dataengine.view.outcomes import Outcomes, take

SEEN = ("car", "van")


@pytest.fixture
def gallery(make_run, open_index) -> Gallery:
    return Gallery(open_index(make_run(24)))


def test_objects_come_in_their_order_and_name_their_image(gallery):
    found = ObjectList(gallery).page(query_of({}), "-size", 0, 100)
    sides = [max(item["box"][2:4]) for item in found["items"]]
    assert found["total"] == sum(i % 4 + 1 for i in range(24))
    assert sides == sorted(sides, reverse=True)
    for item in found["items"]:
        labels = gallery.index.entry(item["id"]).labels
        assert item["box"] == pytest.approx(labels.boxes[item["k"]], abs=1e-3)
        assert item["class"] == labels.names()[item["k"]]
    vans = ObjectList(gallery).page(query_of({"class": ["van"], "count": ["2..2"]}), "", 0, 100)
    assert {item["class"] for item in vans["items"]} == {"van"}
    assert {len(gallery.index.entry(item["id"]).labels) for item in vans["items"]} == {2}
    with pytest.raises(UserError, match="order: must be one of"):
        ObjectList(gallery).page(query_of({}), "beauty", 0, 1)


def test_objects_of_corrected_images_are_those_of_the_correction(gallery):
    objects = [{"class": "van", "box": [40, 40, 33, 9, 0]}]
    append(RunFolder(gallery.index.source.root), [Change(do="correct", images=[(3, "0" * 16)], objects=objects)])
    found = ObjectList(gallery).page(query_of({"size": ["32.5..33.5"]}), "", 0, 10)
    assert [(item["id"], item["k"], item["class"]) for item in found["items"]] == [(3, 0, "van")]
    assert starts(gallery)[-1] == len(gallery.index.columns.image)


def test_a_crop_shows_its_part_of_the_image_at_its_scale(gallery):
    pixels = np.asarray(Image.open(gallery.file(0)).convert("RGB")).astype(int)
    crop = np.asarray(Image.open(io.BytesIO(crop_bytes(gallery, 0, (40.0, 50.0), 32.0, 32)))).astype(int)
    assert abs(crop - pixels[34:66, 24:56]).max() <= 1
    larger = np.asarray(Image.open(io.BytesIO(crop_bytes(gallery, 0, (40.0, 50.0), 32.0, 128)))).astype(int)
    assert larger.shape == (128, 128, 3)
    assert abs(larger[::4, ::4].mean() - crop.mean()) < 3
    edge = np.asarray(Image.open(io.BytesIO(crop_bytes(gallery, 0, (0.0, 0.0), 32.0, 32))))
    assert (edge[:15, :15] == edge[0, 0]).all(), "outside of the image"
    for wrong in ({"side": 0}, {"side": 1e5}, {"out": 4}):
        with pytest.raises(UserError, match="crop: give a side"):
            crop_bytes(gallery, 0, (1, 1), **({"side": 32, "out": 32} | wrong))


def colours(images: list[np.ndarray]) -> np.ndarray:
    """In place of the packaged encoder: mean colours and sizes."""
    return np.array([[*image.mean((0, 1)), image.shape[0]] for image in images], np.float32)


@pytest.fixture
def both(make_run, open_index) -> dict[str, Gallery]:
    return {"made": Gallery(open_index(make_run(12))), "real": Gallery(open_index(make_run(8, "real")))}


def test_similar_objects_and_distances_are_those_of_the_embeddings(both):
    embeddings = Embeddings(both, "objects", colours)
    embeddings.wait()
    assert (embeddings.error, embeddings.done) == ("", 50)
    near = embeddings.near("made", "real")
    assert np.isfinite(near).all()
    assert near[:20] == pytest.approx(0, abs=1e-4), "the real run begins with the same eight images"
    assert near[20:].min() > 1e-3, "and does not have the others"
    found = embeddings.similar(Item("made", 0, 0, 0), 3)
    assert [round(far, 3) for far, _ in found] == sorted(round(far, 3) for far, _ in found)
    assert found[0][1].side == "real", "the same object of the same image"
    assert found[0][0] == pytest.approx(0, abs=1e-4)
    assert not any((one.side, one.i, one.k) == ("made", 0, 0) for _, one in found), "never the object itself"
    known, places, share = embeddings.map()
    assert len(known) == len(places) == 50
    assert 0.9 < share <= 1, "four numbers, of which few differ much"
    other = Embeddings(both, "objects", colours)
    other.wait()
    assert (other.vectors == embeddings.vectors).all(), "from the cache"


def test_a_failure_of_the_encoder_is_said_and_ends_the_wait(both, monkeypatch):
    def broken(images):
        raise UserError("no encoder here")

    embeddings = Embeddings(both, "pictures", broken)
    embeddings.wait()
    assert (embeddings.error, embeddings.done) == ("no encoder here", 0)
    assert embeddings.similar(Item("made", 0, 0, 0)) == []


class FixedDetector:
    """Sees the labels of `make_run`, but one box of each image too far, as the other class, or not at all."""

    name = "fixed"

    def __init__(self, gallery: Gallery):
        self.gallery, self.layout = gallery, None

    def raw(self, pixels):
        layout = self.layout
        boxes, labels = layout.boxes.copy(), layout.labels.copy()
        scores = np.linspace(0.9, 0.5, len(boxes)).astype(np.float32)
        return Detections(boxes, scores, labels), SEEN


def test_outcomes_are_counted_by_class_and_threshold(gallery):
    detector = FixedDetector(gallery)
    outcomes = Outcomes(gallery, detector)

    def detected(i: int):
        layout = gallery.index.entry(i).labels
        if i % 3 == 1:  # the first object is seen as the other class
            labels = layout.labels.copy()
            labels[0] = 1 - labels[0]
            layout = Layout(layout.boxes, labels, layout.classes, layout.size)
        elif i % 3 == 2:  # the first object is seen elsewhere
            boxes = layout.boxes.copy()
            boxes[0, 1] = 8
            layout = Layout(boxes, layout.labels, layout.classes, layout.size)
        detector.layout = layout
        return original(i)

    original = outcomes._detected
    outcomes._detected = detected
    outcomes.wait()
    assert outcomes.error == ""
    everything = np.ones(24, bool)
    matrix = outcomes.counts(0.3, everything)
    n_objects = sum(i % 4 + 1 for i in range(24))
    assert matrix[:2].sum() == n_objects, "each label has one outcome"
    assert matrix[2, :2].sum() == matrix[:2, 2].sum() == 8, "seen elsewhere: one missed, one without a label"
    assert matrix[0, 1] + matrix[1, 0] == 8
    assert np.trace(matrix[:2, :2]) == n_objects - 16
    strict = outcomes.counts(0.95, everything)
    assert strict[:2, 2].sum() == n_objects, "control: above all scores, everything is missed"
    missed = outcomes.rows("missed", 0.3, everything, None, None)
    assert sorted(row["i"] for row in missed) == [i for i in range(24) if i % 3 == 2]
    cell = outcomes.rows("all", 0.3, everything, 0, 1)
    assert {(row["kind"], row["true"], row["seen"]) for row in cell} == {("confused", 0, 1)}
    one = np.zeros(24, bool)
    one[5] = True
    assert len(outcomes.rows("all", 0.3, one, None, None)) == 2 + 1


def test_a_detection_takes_the_label_of_its_class_before_others():
    layout = Layout([[50, 50, 20, 10, 0], [52, 50, 20, 10, 0]], [0, 1], SEEN, (100, 100))
    boxes = np.float32([[50, 50, 20, 10, 0], [50, 50, 20, 10, 0]])
    assert take(boxes, np.array([1, 0]), layout, layout.labels).tolist() == [1, 0]
    assert take(boxes[:1], np.array([1]), layout, layout.labels).tolist() == [1], "the first of more is the same"


def test_pairs_are_images_of_one_name(both):
    pairs = pairs_of(both["made"], both["real"], query_of({}), 0, 100)
    assert (pairs["total"], pairs["alone"]) == (8, 4)
    assert all(item["made"]["name"] == item["other"]["name"] for item in pairs["items"])


def test_the_page_shows_crops_beside_real_ones_and_opens_their_image(page, both, served):
    address = served(Site(**both))
    page.goto(f"{address}/?view=objects&order=-size")
    until(page, "document.querySelectorAll('.column .tile.object a').length > 8")
    assert page.locator(".column h2").all_inner_texts() == ["run 30", "real 20"]
    tile = page.locator(".tile.object a").first
    assert tile.locator("img").evaluate("img => img.decode().then(() => img.naturalWidth)") == 160
    assert "view=picture" in tile.get_attribute("href")
    assert "object=0" in tile.get_attribute("href")


def test_an_object_that_was_asked_for_is_marked(page, both, served):
    page.goto(f"{served(Site(made=both['made']))}/?view=picture&id=3&object=2")
    page.wait_for_selector(".panel tbody tr")
    x, y, *_ = both["made"].index.entry(3).labels.boxes[2].tolist()
    box = page.locator("path.box.marked").evaluate(
        "p => { const b = p.getBBox(); return [b.x, b.y, b.width, b.height] }"
    )
    assert (box[0] + box[2] / 2, box[1] + box[3] / 2) == pytest.approx((x, y), abs=0.1)


def test_plots_filter_on_click_and_by_keyboard(page, both, served):
    address = served(Site(made=both["made"]))
    page.goto(f"{address}/?view=statistics")
    page.get_by_role("link", name="van").first.click()
    until(page, "document.querySelector('.counter strong')?.textContent === '9'")
    assert "class=van" in page.url
    page.goto(f"{address}/?view=statistics")
    page.locator("details.table summary").nth(2).click()
    page.locator("details.table[open] a").first.click()
    page.wait_for_selector(TILES)
    assert "count=" in page.url


def test_a_lasso_selects_points_and_decides_about_their_images(page, both, served, monkeypatch):
    monkeypatch.setattr(Embeddings, "encode", lambda self, images: colours(images))
    address = served(Site(**both))
    page.goto(f"{address}/?view=map&of=pictures")
    until(page, "document.querySelector('.counter')?.textContent.includes('20 images; this plane')")
    area = page.locator("canvas.map").bounding_box()
    corners = [(0.01, 0.01), (0.99, 0.01), (0.99, 0.99), (0.01, 0.99)]
    at = [(area["x"] + x * area["width"], area["y"] + y * area["height"]) for x, y in corners]
    page.mouse.move(*at[0])
    page.mouse.down()
    for place in at[1:]:
        page.mouse.move(*place, steps=6)
    page.mouse.up()
    assert page.locator(".map-list h2").inner_text().startswith("20 selected")
    assert page.locator(".tray-count").inner_text() == "12 images selected"
    page.locator(".tray").get_by_role("button", name="Accept").click()
    until(page, "document.getElementById('message').textContent === '12 images accepted'")


def test_two_runs_are_compared_under_their_names(page, both, served):
    address = served(Site(made=both["made"], other=both["real"]))
    page.goto(f"{address}/?view=compare&pair=other")
    until(page, "document.querySelectorAll('.tile.pair').length === 8")
    assert "run, then real" in page.locator(".counter").inner_text()
    page.get_by_role("button", name="Figures", exact=True).click()
    page.wait_for_selector("table th")
    assert page.locator("thead th").all_inner_texts() == ["Figure", "run", "real"]
