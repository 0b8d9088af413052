"""Decisions in headless Chromium, by mouse, keyboard and touch, and what exports contain after them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from test_view_page import TILES, until
from typer.testing import CliRunner

from dataengine.cli import app
from dataengine.data import formats
from dataengine.engine.decisions import read_decisions
from dataengine.engine.run_folder import RunFolder
from dataengine.geometry import to_corners
from dataengine.view.app import Site
from dataengine.view.gallery import Gallery


@pytest.fixture
def root(make_run):
    return make_run(40)


@pytest.fixture
def address(root, open_index, served):
    return served(Site(made=Gallery(open_index(root))))


def decided(root) -> dict:
    return read_decisions(RunFolder(root))


def settled(page, text: str) -> None:
    """Wait for the message of a finished decision."""
    until(page, f"document.getElementById('message').textContent === {text!r}")


def grip(page, name: str) -> tuple[float, float]:
    box = page.locator(f".grip[data-grip='{name}']").bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def drag(page, start, end) -> None:
    page.mouse.move(*start)
    page.mouse.down()
    page.mouse.move(*end, steps=4)
    page.mouse.up()


def scale_of(page) -> float:
    return page.locator("svg.editor").bounding_box()["width"] / 96


def open_editor(page, address: str, image: int) -> None:
    page.goto(f"{address}/?view=picture&id={image}")
    page.get_by_role("button", name="Correct labels").click()
    page.wait_for_selector(".grip.turn")


def test_ten_rejected_and_two_corrected_images_are_exactly_that_in_every_export(page, address, root, tmp_path):
    """The round trip: what a person does in the page, and what COCO, DOTA and YOLO hold afterwards."""
    before = {sample.name: sample.layout for sample in RunFolder(root).accepted_images()}
    page.goto(address)
    page.wait_for_selector(TILES)
    kept = [int(name) for name in before]
    out, stretched, turned = kept[:10], kept[10], kept[11]
    for i in out:
        page.locator(f".tile[data-position='{i}']").hover()
        page.locator(f".tile[data-position='{i}'] .pick").click()
    page.locator(".tray").get_by_role("button", name="Reject").click()
    settled(page, "10 images rejected")
    until(page, "document.querySelectorAll('.tile.rejected').length === 10")

    open_editor(page, address, stretched)
    by = 12 * scale_of(page)
    corner = grip(page, "4")
    box = before[f"{stretched:08d}"].boxes[0]
    along = math.cos(box[4]), math.sin(box[4])
    drag(page, corner, (corner[0] + by * along[0], corner[1] + by * along[1]))
    page.keyboard.press("Enter")
    settled(page, "1 image corrected")
    open_editor(page, address, turned)
    scale, editor = scale_of(page), page.locator("svg.editor").bounding_box()
    of = before[f"{turned:08d}"].boxes[0].tolist()
    centre = editor["x"] + of[0] * scale, editor["y"] + of[1] * scale
    drag(page, grip(page, "turn"), (centre[0] + 90, centre[1] - 90))
    page.get_by_role("button", name="Save").click()
    settled(page, "1 image corrected")

    expected = {name: layout for name, layout in before.items() if int(name) not in out}
    moved = expected[f"{stretched:08d}"].boxes.copy()
    moved[0, 2] += 12
    moved[0, :2] += 6 * np.array(along)
    rotated = expected[f"{turned:08d}"].boxes.copy()
    rotated[0, 4] = np.pi / 4
    for form in ("coco", "dota", "yolo-obb"):
        target = tmp_path / form
        result = CliRunner().invoke(app, ["data", "select", str(root), "--to", form, "--out", str(target)])
        assert result.exit_code == 0, result.output
        read = {sample.name.split("/")[-1]: sample.layout for sample in formats.read(target)}
        assert set(read) == set(expected)
        for name, layout in read.items():
            boxes = {f"{stretched:08d}": moved, f"{turned:08d}": rotated}.get(name, expected[name].boxes)
            # a pixel of the screen is a part of a pixel of the image
            near = 0.4 if name in (f"{stretched:08d}", f"{turned:08d}") else 0.06
            assert layout.names() == expected[name].names()
            assert _corners(layout.boxes) == pytest.approx(_corners(boxes), abs=near), (form, name)


def _corners(boxes: np.ndarray) -> np.ndarray:
    """Corners of each box in one order, whatever form the box has."""
    corners = to_corners(boxes).round(1)
    return np.array([sorted(map(tuple, four)) for four in corners.tolist()])


def test_the_keyboard_alone_decides_tags_and_undoes(page, address, root):
    page.goto(address)
    page.locator(TILES).first.focus()
    page.keyboard.press("x")
    settled(page, "1 image rejected")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Space")
    page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("g")
    settled(page, "3 images accepted")
    page.keyboard.press("t")
    page.keyboard.type("good")
    page.keyboard.press("Enter")
    settled(page, "3 images tagged good")
    assert {i: (one.accepted, one.tags) for i, one in decided(root).items()} == {
        0: (False, ()), 1: (True, ("good",)), 2: (True, ("good",)), 3: (True, ("good",)),
    }  # fmt: skip
    page.keyboard.press("Escape")
    page.locator(TILES).first.focus()
    for text in ("tag 3 images: good", "accept 3 images", "reject 1 image"):
        page.keyboard.press("Control+z")
        settled(page, f"undone: {text}")
    assert decided(root) == {}
    page.keyboard.press("Control+Shift+z")
    settled(page, "done again: reject 1 image")
    assert decided(root)[0].accepted is False


def test_all_images_of_a_filter_are_decided_about_at_once(page, address, root):
    page.goto(f"{address}/?verdict=dropped")
    page.wait_for_selector(TILES)
    page.locator(TILES).first.focus()
    page.keyboard.press("Control+a")
    page.get_by_role("button", name="Accept", exact=True).click()
    settled(page, "13 images accepted")
    assert len(decided(root)) == 13
    page.goto(f"{address}/?decision=accepted")
    until(page, "document.querySelector('.counter strong')?.textContent === '13'")


def test_a_finger_selects_decides_and_corrects(browser, address, root):
    context = browser.new_context(viewport={"width": 420, "height": 800}, has_touch=True, is_mobile=True)
    page = context.new_page()
    page.goto(address)
    page.wait_for_selector(TILES)
    page.locator(".tile[data-position='1'] .pick").tap()
    page.locator(".tray").get_by_role("button", name="Reject").tap()
    settled(page, "1 image rejected")
    page.goto(f"{address}/?view=picture&id=3")
    page.get_by_role("button", name="Correct labels").tap()
    page.get_by_role("button", name="Remove box 1", exact=True).tap()
    page.get_by_label("difficult: metrics").first.wait_for(state="detached")
    page.locator(".box-row").first.tap()
    page.get_by_label("difficult: metrics").tap()
    page.get_by_role("button", name="Save").tap()
    settled(page, "1 image corrected")
    context.close()
    assert decided(root)[1].accepted is False
    assert [(one.of, one.difficult) for one in decided(root)[3].objects] == [(1, True), (2, False), (3, False)]


def test_leaving_a_correction_saves_it_and_discarding_does_not(page, address, root):
    open_editor(page, address, 4)
    page.keyboard.press("ArrowRight")
    page.get_by_role("button", name="Discard").click()
    page.wait_for_selector("#correct")
    assert decided(root) == {}
    page.keyboard.press("c")
    page.wait_for_selector(".grip.turn")
    page.keyboard.press("ArrowRight")
    page.get_by_role("link", name="Statistics").click()
    settled(page, "1 image corrected")
    assert decided(root)[4].objects[0].box[0] == pytest.approx(21)


def test_zooming_keeps_the_point_under_the_pointer(page, address):
    page.goto(f"{address}/?view=picture&id=3")
    picture = page.locator(".stage-picture")
    picture.wait_for()
    stage = page.locator(".stage").bounding_box()
    pointer = stage["x"] + 0.6 * stage["width"], stage["y"] + 0.3 * stage["height"]

    def under() -> tuple[float, float, float]:
        box = picture.bounding_box()
        scale = box["width"] / 96
        return (pointer[0] - box["x"]) / scale, (pointer[1] - box["y"]) / scale, scale

    page.mouse.move(*pointer)
    page.mouse.wheel(0, -400)
    until(page, "document.querySelector('.stage-picture').getBoundingClientRect().width > 1000")
    x, y, scale = under()
    for _ in range(3):
        page.mouse.wheel(0, -300)
    until(page, f"document.querySelector('.stage-picture').getBoundingClientRect().width > {96 * scale * 1.5}")
    after = under()
    assert after[2] > 1.5 * scale
    assert after[:2] == pytest.approx((x, y), abs=0.5)
    page.keyboard.press("0")
    until(page, "document.querySelector('.stage-picture').getBoundingClientRect().width < 1000")


def test_two_fingers_zoom_and_move(browser, address):
    context = browser.new_context(viewport={"width": 900, "height": 800}, has_touch=True)
    page = context.new_page()
    page.goto(f"{address}/?view=picture&id=3")
    page.wait_for_selector(".stage-picture")
    before = page.locator(".stage-picture").bounding_box()["width"]
    page.evaluate(
        """() => {
        const stage = document.querySelector('.stage-picture');
        const send = (name, id, x) => stage.dispatchEvent(new PointerEvent(name, {
            bubbles: true, pointerType: 'touch', pointerId: id, clientX: x, clientY: 300 }));
        send('pointerdown', 1, 200); send('pointerdown', 2, 300);
        for (let x = 310; x <= 500; x += 10) send('pointermove', 2, x);
        send('pointerup', 1, 200); send('pointerup', 2, 500);
    }"""
    )
    assert page.locator(".stage-picture").bounding_box()["width"] == pytest.approx(3 * before, rel=0.02)
    context.close()
