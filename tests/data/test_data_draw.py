"""Drawing layouts and samples."""

import numpy as np
import pytest
from PIL import Image

from dataengine.data.draw import COLOURS, contact_sheet, draw, sample_sheet
from dataengine.data.layout import Dataset, Layout, Sample
from dataengine.errors import UserError


def test_a_box_is_outlined_in_its_class_colour_and_the_image_shows_inside():
    image = np.full((60, 80), 90, np.uint8)
    layout = Layout([[40, 30, 20, 10, 0]], [1], ("a", "b"), (80, 60))
    picture = np.asarray(draw(image, layout))
    assert picture.shape == (60, 80, 3)
    assert tuple(picture[25, 40]) == COLOURS[1]
    assert tuple(picture[30, 30]) == COLOURS[1]
    assert tuple(picture[30, 40]) == (90, 90, 90)
    assert (picture != 90).any(2).sum() < 70  # thin
    assert (image == 90).all()  # the input is left alone


def test_a_drawing_can_be_enlarged_and_cut_boxes_are_dashed():
    whole = Layout([[40, 30, 40, 20, 0]], [0], ("a",), (80, 60))
    broken = Layout([[40, 30, 40, 20, 0]], [0], ("a",), (80, 60), visible=[0.5])
    assert draw(None, whole, scale=3).size == (240, 180)
    lit = [(np.asarray(draw(None, layout)) == COLOURS[0]).all(2).sum() for layout in (whole, broken)]
    assert 0.3 * lit[0] < lit[1] < 0.8 * lit[0]


def test_a_contact_sheet_has_all_images_in_rows():
    tiles = [Image.new("RGB", (20, 10), (i, 0, 0)) for i in range(7)]
    sheet = contact_sheet(tiles, columns=3, margin=2)
    assert sheet.size == (3 * 22 + 2, 3 * 12 + 2)
    shown = {sheet.getpixel((2 + 22 * column + 5, 2 + 12 * row + 5))[0] for row in range(3) for column in range(3)}
    assert shown == {*range(7), 255}
    captioned = contact_sheet(tiles, ["a caption that is much too long"] * 7, columns=3, margin=2)
    assert captioned.height > sheet.height


def test_names_that_the_font_lacks_are_written_so_that_they_can_be_told_apart():
    tiles = [Image.new("RGB", (120, 40))] * 2

    def sheet(*names: str) -> np.ndarray:
        return np.asarray(contact_sheet(tiles, names, classes=names))

    assert (sheet("Räder", "Straße") == sheet("Rader", "Strasse")).all()
    assert (sheet("船", "車") != sheet("車", "船")).any(), "not the same box for both"


def test_a_sheet_has_a_legend_even_for_many_classes():
    tiles = [Image.new("RGB", (60, 40))] * 2
    plain = contact_sheet(tiles, margin=2)
    names = [f"a class called {i}" for i in range(5)]
    sheet = np.asarray(contact_sheet(tiles, margin=2, classes=names))
    assert sheet.shape[1] == plain.width
    foot = sheet[plain.height :]
    rows = [np.flatnonzero((foot == colour).all(2).any(1)).min() for colour in COLOURS[:5]]
    assert rows == sorted(rows)
    assert len(set(rows)) == 5  # too narrow for two: a line each
    assert not (foot == COLOURS[5]).all(2).any()


def test_samples_are_drawn_small_enough_and_broken_images_are_counted(tmp_path):
    samples = []
    for i in range(5):
        Image.new("RGB", (200, 100), (i, i, i)).save(tmp_path / f"{i}.png")
        samples.append(Sample(str(i), tmp_path / f"{i}.png", Layout([[100, 50, 80, 40, 0]], [0], ("a",), (200, 100))))
    (tmp_path / "3.png").write_bytes(b"no image")
    sheet, unreadable = sample_sheet(Dataset(("a",), samples), 9, np.random.default_rng(0), side=50)
    assert unreadable == 1
    pixels = np.asarray(sheet)
    assert pixels.shape[1] == 4 * 54 + 4
    assert (pixels[8:20, 19:21] == COLOURS[0]).all(2).any()  # the box's left side, at a quarter of x = 60
    enlarged, _ = sample_sheet(Dataset(("a",), samples[:2]), 9, np.random.default_rng(0), side=600)
    assert enlarged.size[0] > 600, "small images are enlarged"
    with pytest.raises(UserError, match="data check"):
        sample_sheet(Dataset(("a",), samples[3:4]), 9, np.random.default_rng(0))


def test_new_objects_have_a_mark_at_a_corner_and_the_sheet_explains_it():
    """Control: objects that were there before, and a sheet without marks."""
    layout = Layout([[20, 30, 16, 8, 0], [70, 30, 16, 8, 0]], [0, 0], ("car",), (96, 64))
    plain, marked = (np.asarray(draw(None, layout, new=new)) for new in (None, np.array([True, False])))
    changed = np.argwhere((plain != marked).any(2))
    assert len(changed)
    assert (np.abs(changed - [24, 10]).max(1) <= 3).all(), "beyond the upper left corner of the new one"
    image = draw(None, layout)
    sheets = [np.asarray(contact_sheet([image] * 6, classes=("car",), marked=m)) for m in (False, True)]
    assert sheets[0].shape[1] == sheets[1].shape[1]
    assert (sheets[0].shape[0], (sheets[0] != sheets[1][: len(sheets[0])]).sum()) != (sheets[1].shape[0], 0)
