"""The page in headless Chromium: what a person sees, clicks and types."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from PIL import Image

from dataengine.data import formats
from dataengine.view.app import Site
from dataengine.view.gallery import Gallery

TILES = ".tile a"


@pytest.fixture
def run(make_run, open_index, served):
    """Address of a run of 200 images."""
    return served(Site(made=Gallery(open_index(make_run(200)))))


def until(page, expression: str) -> None:
    """Wait until JavaScript's expression is true; Playwright's own way needs eval, which the page forbids."""
    for _ in range(1200):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(50)
    pytest.fail(f"never true: {expression}")


def names(page) -> list[str]:
    page.wait_for_selector(TILES)
    return [label.split(",")[0] for label in page.eval_on_selector_all(TILES, "all => all.map(a => a.ariaLabel)")]


def test_every_image_in_sight_has_its_boxes_over_it(page, run):
    page.goto(run)
    tile = page.locator(TILES).nth(3)
    tile.wait_for()
    assert tile.locator("img").evaluate("img => img.decode().then(() => img.naturalWidth)") == 96
    box = tile.locator("path.box").first.evaluate("p => { const b = p.getBBox(); return [b.x + b.width / 2, b.y] }")
    assert box[0] >= 12, "the image's own pixels are the unit"
    assert page.locator(".counter strong").inner_text() == "200"


def test_a_filter_is_in_the_address_and_can_be_shared_and_cleared(page, run, browser):
    page.goto(run)
    page.wait_for_selector(TILES)
    page.get_by_label("van").check()
    page.get_by_role("button", name="Dropped", exact=True).click()
    page.get_by_label("Objects to").fill("2")
    page.keyboard.press("Tab")
    until(page, "document.querySelector('.counter strong')?.textContent === '17'")
    assert "class=van" in page.url
    assert "verdict=dropped" in page.url
    other = browser.new_context().new_page()
    other.goto(page.url)
    until(other, "document.querySelector('.counter strong')?.textContent === '17'")
    assert other.get_by_label("van").is_checked()
    other.context.close()
    page.go_back()
    until(page, "document.querySelector('.counter strong')?.textContent === '50'")
    page.get_by_text("Clear all filters").click()
    until(page, "document.querySelector('.counter strong')?.textContent === '200'")


def test_the_keyboard_alone_is_enough(page, run):
    page.goto(run)
    page.wait_for_selector(TILES)
    columns = page.evaluate(
        "new Set([...document.querySelectorAll('.tile')].map(t => t.getBoundingClientRect().x)).size"
    )
    page.locator(TILES).first.focus()
    for key, position in (("ArrowRight", 1), ("ArrowDown", 1 + columns), ("End", 199), ("Home", 0)):
        page.keyboard.press(key)
        until(page, f"document.activeElement.closest('.tile')?.dataset.position === '{position}'")
    page.keyboard.press("ArrowRight")
    until(page, "document.activeElement.closest('.tile')?.dataset.position === '1'")
    page.keyboard.press("Enter")
    page.wait_for_selector(".panel .verdict")
    assert "id=1" in page.url
    page.keyboard.press("ArrowRight")
    until(page, "new URLSearchParams(location.search).get('id') === '2'")
    page.wait_for_selector(".verdict.bad")
    page.keyboard.press("Escape")
    until(page, "document.activeElement.closest('.tile')?.dataset.position === '2'")
    page.keyboard.press("/")
    page.keyboard.type("flight-3")
    page.keyboard.press("Enter")
    until(page, "document.querySelector('.counter strong')?.textContent === '10'")
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    assert page.get_by_role("heading", name="Keys").is_visible()
    page.keyboard.press("Escape")
    assert page.locator("dialog[open]").count() == 0


def test_however_many_images_there_are_only_those_in_sight_are_in_the_document(page, make_run, open_index, served):
    """10,000 here; tools/bench/view.py does the same with 100,000."""
    page.goto(served(Site(made=Gallery(open_index(make_run(10_000))))))
    page.wait_for_selector(TILES)
    most = 0
    for share in (0.2, 0.9, 0.5, 1.0):
        page.evaluate(f"const g = document.querySelector('.grid'); g.scrollTop = {share} * g.scrollHeight")
        until(page, "document.querySelectorAll('.tile[data-empty]').length === 0")
        most = max(most, page.evaluate("document.querySelectorAll('*').length"))
    assert most < 2_000
    page.wait_for_selector(".tile[data-position='9999']:not([data-empty])")
    assert names(page)[-1] == "00009999"


def test_an_image_shows_why_it_was_dropped_and_its_objects(page, run):
    page.goto(f"{run}/?view=picture&id=5")
    assert page.locator(".verdict").inner_text().startswith("Dropped: 2 of 2 objects not found")
    assert page.locator(".panel tbody tr").count() == 2
    page.keyboard.press("a")
    page.wait_for_selector("path.box.asked", state="attached")
    page.keyboard.press("l")
    page.wait_for_selector("path.box.label", state="detached")
    assert "layers=asked" in page.url


def test_kept_and_dropped_images_stand_side_by_side_under_one_filter(page, run):
    page.goto(f"{run}/?view=compare&class=van")
    until(page, "document.querySelectorAll('.column .tile a').length > 4")
    kept, dropped = (page.locator(".column").nth(i) for i in (0, 1))
    assert kept.locator(".tile.dropped").count() == 0
    assert dropped.locator(".tile.dropped").count() == dropped.locator(".tile").count() > 0


def test_texts_of_a_manifest_are_never_read_as_markup(page, make_run, open_index, served):
    root = make_run(3)
    evil = '<img src=x onerror="document.title=\'taken\'"><script>document.title="taken"</script>'
    records = [json.loads(line) for line in (root / "manifest.jsonl").read_text().splitlines()]
    for record in records:
        record |= {"scene": evil}
        record["verdict"] |= {"kept": False, "reason": evil}
        for kind in ("asked", "labels"):
            record[kind] = {**record[kind], "classes": [evil, "van"]}
    (root / "manifest.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    address = served(Site(made=Gallery(open_index(root))))
    for view in ("", "?view=picture&id=1", "?view=statistics", "?view=compare"):
        page.goto(f"{address}/{view}")
        page.wait_for_load_state("networkidle")
        assert page.evaluate("document.title") != "taken"
        assert page.locator("#main script, #main img[src=x]").count() == 0
        assert "onerror" in page.locator("body").inner_text() or "onerror" in page.content()


def test_nothing_is_asked_of_any_other_host(page, run):
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    for view in ("", "?view=picture&id=1", "?view=statistics", "?view=compare"):
        page.goto(f"{run}/{view}")
        page.wait_for_load_state("networkidle")
    assert asked
    assert all(url.startswith(run) for url in asked)


@pytest.mark.parametrize("width", [1400, 420])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_sticks_out_of_a_narrow_window_and_text_can_be_read(page, run, width, scheme):
    page.set_viewport_size({"width": width, "height": 900})
    page.emulate_media(color_scheme=scheme)
    for view in ("", "?view=picture&id=1", "?view=statistics", "?view=compare"):
        page.goto(f"{run}/{view}")
        page.wait_for_selector("#main *")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        low = page.evaluate(CONTRAST)
        assert not low, f"{view}: hardly to be read: {low[:3]}"


# WCAG 2.2, 1.4.3: the contrast of text to what is behind it is 4.5 or more
CONTRAST = """() => {
  const channels = (colour) => {
    const canvas = Object.assign(document.createElement('canvas'), {width: 1, height: 1}).getContext('2d');
    canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const colour = channels(getComputedStyle(e).backgroundColor);
      if (colour[3] === 255) return colour;
    }
    return [255, 255, 255];
  };
  const left_out = 'svg, .picture, .unseen, .skip, [disabled]';
  return [...document.querySelectorAll('body *')].filter((e) => e.checkVisibility() && !e.closest(left_out) &&
      [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim())).map((e) => {
    const [a, b] = [light(channels(getComputedStyle(e).color)), light(behind(e))].sort((x, y) => y - x);
    return [e.textContent.trim().slice(0, 30), (a + 0.05) / (b + 0.05)];
  }).filter(([, contrast]) => contrast < 4.5);
}"""


def test_the_check_of_contrast_sees_grey_on_grey(page, run):
    """Control of the test above."""
    page.goto(run)
    page.wait_for_selector(TILES)
    page.evaluate("document.querySelector('.counter').style.color = 'rgb(200, 200, 200)'")
    assert page.evaluate(CONTRAST)


@pytest.fixture
def drawn(toy_recipe, served, tmp_path):
    """Address and folder of a page to draw on, with the toy models."""
    from dataengine.engine.parts import load_parts
    from dataengine.view.studio import Studio

    studio = Studio(lambda: (toy_recipe, load_parts(toy_recipe)), lambda picture: None, tmp_path / "drawn")
    return served(Site(studio=studio)), tmp_path / "drawn"


def test_a_layout_is_drawn_turned_rendered_and_kept(page, drawn):
    address, out = drawn
    page.goto(address)
    editor = page.locator("svg.editor")
    editor.wait_for()
    area = editor.bounding_box()
    scale = area["width"] / 96

    def at(x, y):
        return area["x"] + x * scale, area["y"] + y * scale

    def drag(start, *ends):
        page.mouse.move(*start)
        page.mouse.down()
        for end in ends:
            page.mouse.move(*end, steps=4)
        page.mouse.up()

    def figures() -> dict[str, float]:
        return {key: float(page.locator(f"#box-{key}").input_value()) for key in ("x", "y", "w", "h", "angle")}

    drag(at(20, 40), at(50, 56))
    assert figures() == pytest.approx({"x": 35, "y": 48, "w": 30, "h": 16, "angle": 0}, abs=0.6)
    drag(at(35, 48), at(45, 50))
    assert figures() == pytest.approx({"x": 45, "y": 50, "w": 30, "h": 16, "angle": 0}, abs=0.6)
    handle = page.locator(".grip.turn").bounding_box()
    centre = at(45, 50)
    drag((handle["x"] + handle["width"] / 2, handle["y"] + handle["height"] / 2), (centre[0] + 90, centre[1] - 90))
    assert figures()["angle"] == pytest.approx(45, abs=1)
    corner = page.locator(".grip[data-grip='4']").bounding_box()
    start = corner["x"] + corner["width"] / 2, corner["y"] + corner["height"] / 2
    before = figures()
    longer = 10 * scale / math.sqrt(2)
    drag(start, (start[0] + longer, start[1] + longer))  # along the side that is turned by 45 degrees
    assert figures()["w"] == pytest.approx(before["w"] + 10, abs=0.7)
    assert figures()["h"] == pytest.approx(before["h"], abs=0.7)
    page.keyboard.press("Control+z")
    page.locator(".box-row").click()
    assert figures()["w"] == pytest.approx(before["w"], abs=0.1)
    page.keyboard.press("2")
    assert page.locator(".box-row").inner_text().startswith("van")
    page.keyboard.press("[")
    page.locator("#box-w").fill("26")
    page.keyboard.press("Enter")
    expected = figures()
    assert expected["angle"] == pytest.approx(40, abs=1)
    page.locator("#seed").fill("11")
    page.keyboard.press("Enter")
    page.locator("#render").click()
    page.wait_for_selector(".rendering .verdict", timeout=300_000)
    until(page, "document.querySelector('svg.editor image').getAttribute('href') === '/image/render/1'")
    page.locator("#keep").click()
    assert page.locator(".kept img").evaluate("img => img.decode().then(() => img.naturalWidth)") == 96
    [record] = [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]
    assert record["seed"] == 11
    [box], [label] = record["asked"]["boxes"], record["asked"]["labels"]
    assert record["asked"]["classes"][label] == "van"
    assert box == pytest.approx(
        [expected["x"], expected["y"], 26, expected["h"], np.deg2rad(expected["angle"])], abs=0.06
    )
    [sample] = formats.read(out / "coco")
    assert "van" in sample.layout.names()
    with Image.open(sample.image) as image:
        assert image.size == (96, 96)


def test_a_small_box_is_placed_on_a_large_image_by_zooming_and_a_key_adds_one(page, toy_recipe, served, tmp_path):
    from dataengine.data.layout import Layout
    from dataengine.engine.parts import load_parts
    from dataengine.render.canvas import Canvas, Provenance
    from dataengine.render.placement import empty_layout
    from dataengine.view.studio import Studio

    pixels = np.full((2560, 2560, 3), 90, np.uint8)
    nothing = empty_layout(Layout(np.zeros((0, 5)), np.zeros(0), ("car", "van"), (2560, 2560)))
    canvas = Canvas(pixels, nothing, nothing, Provenance("window", "harbour", 40, 120, license="CC0"))
    studio = Studio(
        lambda: (toy_recipe, load_parts(toy_recipe)), lambda picture: canvas, tmp_path / "o", tmp_path / "h"
    )
    page.goto(served(Site(studio=studio)))
    editor = page.locator("svg.editor")
    editor.wait_for()
    assert "part of harbour from 40, 120 on (CC0)" in page.locator(".rendering").inner_text()
    before = editor.bounding_box()
    pointer = before["x"] + 0.31 * before["width"], before["y"] + 0.72 * before["height"]
    page.mouse.move(*pointer)
    for _ in range(4):
        page.mouse.wheel(0, -600)
    until(page, "document.querySelector('svg.editor').getBoundingClientRect().width > 20000")
    page.keyboard.press("n")
    x, y = (float(page.locator(f"#box-{key}").input_value()) for key in ("x", "y"))
    assert (x, y) == pytest.approx((0.31 * 2560, 0.72 * 2560), abs=4), "where the pointer is, which zooming keeps"
    scale = editor.bounding_box()["width"] / 2560
    page.keyboard.press("Delete")
    page.mouse.down()
    page.mouse.move(pointer[0] + 40 * scale, pointer[1] + 12 * scale, steps=4)
    page.mouse.up()
    assert [float(page.locator(f"#box-{key}").input_value()) for key in "wh"] == pytest.approx([40, 12], abs=0.2)
    left = editor.bounding_box()["x"]
    page.keyboard.press("Escape")
    page.keyboard.press("Shift+ArrowRight")
    assert editor.bounding_box()["x"] == pytest.approx(left - 80, abs=1)


def test_undo_and_redo_go_through_every_change(page, drawn):
    page.goto(drawn[0])
    editor = page.locator("svg.editor")
    editor.wait_for()
    area = editor.bounding_box()
    count = page.locator(".box-rows li").count
    for k in range(3):
        page.mouse.click(area["x"] + (0.2 + 0.3 * k) * area["width"], area["y"] + 0.5 * area["height"])
        assert count() == k + 1
    page.keyboard.press("Delete")
    assert count() == 2
    for expected in (3, 2, 1, 0, 0):
        page.keyboard.press("Control+z")
        assert count() == expected
    for expected in (1, 2, 3, 2, 2):
        page.keyboard.press("Control+Shift+z")
        assert count() == expected
