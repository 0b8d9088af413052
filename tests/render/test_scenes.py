from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from dataengine.data.layout import UNKNOWN, Acquisition, Dataset, Layout, Sample
from dataengine.errors import UserError
from dataengine.render.dataset_canvases import DatasetCanvases, acquisition_distance
from dataengine.render.placement import ROOM_SHARE, free_of


def dataset(folder, acquisitions: list[Acquisition], size: int = 80) -> Dataset:
    """One image each: image i is of grey value i and has one car in its middle."""
    samples = []
    for i, acquisition in enumerate(acquisitions):
        file = folder / f"{i:03d}.png"
        Image.fromarray(np.full((size, size, 3), i, np.uint8)).save(file)
        layout = Layout([[40, 40, 20, 10, 0]], [0], ("car",), (size, size), acquisition=acquisition)
        samples.append(Sample(file.stem, file, layout, license="CC0"))
    return Dataset(("car",), samples)


def wish(acquisition: Acquisition, n: int = 30) -> list[Layout]:
    return [Layout([], [], ("car",), (64, 64), acquisition=acquisition)] * n


def drawn(scenes: DatasetCanvases, layouts: list[Layout], start: int = 0) -> list[int]:
    """Number of the image behind each scene."""
    return [int(s.image[0, 0, 0]) for s in scenes.draw(layouts, range(start, start + len(layouts)))]


@pytest.mark.parametrize("nights", [1, 3, 20])
def test_night_is_painted_into_night_and_day_into_day_however_few_of_them_there_are(tmp_path, nights):
    is_night = [i < nights for i in range(40)]
    scenes = DatasetCanvases(dataset(tmp_path, [Acquisition(night=x, altitude_m=50) for x in is_night]), (64, 64))
    for night in (True, False):
        layouts = wish(Acquisition(night=night, altitude_m=120))
        assert {is_night[i] for i in drawn(scenes, layouts)} == {night}
    assert {is_night[i] for i in drawn(scenes, wish(UNKNOWN, 200))} == {True, False}, "control: unknown takes both"


def test_night_without_any_image_of_night_takes_what_there_is(tmp_path):
    scenes = DatasetCanvases(dataset(tmp_path, [Acquisition(night=False)] * 5), (64, 64))
    assert len(drawn(scenes, wish(Acquisition(night=True)))) == 30


def test_scenes_are_drawn_among_the_tenth_taken_most_like_the_layout(tmp_path):
    altitudes = [10.0 * 1.1**i for i in range(40)]
    scenes = DatasetCanvases(dataset(tmp_path, [Acquisition(altitude_m=a) for a in altitudes]), (64, 64))
    assert set(drawn(scenes, wish(Acquisition(altitude_m=altitudes[20]), 60))) <= set(range(18, 23))
    same = DatasetCanvases(dataset(tmp_path, [Acquisition(altitude_m=50)] * 40), (64, 64))
    assert len(set(drawn(same, wish(Acquisition(altitude_m=50), 200)))) > 30, "of equals, all are drawn"


def test_where_nothing_tells_the_scale_objects_are_as_large_as_those_of_the_scene(tmp_path):
    """A car of 20 pixels stands in each picture; in every other one it is four times as long."""
    cars = dataset(tmp_path, [UNKNOWN] * 20, size=120)
    large = [
        replace(s, layout=replace(s.layout, boxes=s.layout.boxes * np.float32([1, 1, 1 + 3 * (i % 2), 1, 1])))
        for i, s in enumerate(cars)
    ]

    def into(layout: Layout) -> set[bool]:
        found = drawn(DatasetCanvases(replace(cars, samples=large), (64, 64)), [layout] * 60)
        return {i % 2 == 1 for i in found}

    box = np.float32([[30, 30, 22, 10, 0]])
    one = Layout(box, [0], ("Car",), (64, 64))
    assert into(one) == {False}
    assert into(replace(one, boxes=box * np.float32([1, 1, 3.5, 1, 1]))) == {True}
    assert into(replace(one, boxes=box * np.float32([1, 1, 40, 1, 1]))) == {True}, "the nearest, where none is alike"
    assert into(replace(one, classes=("ship",))) == {False, True}, "control: of another class"
    assert into(replace(one, acquisition=Acquisition(altitude_m=50))) == {False, True}, "control: its altitude is known"


@pytest.mark.parametrize("augmented", [False, True])
def test_scenes_show_a_class_of_the_layout_or_none_but_not_others_alone(tmp_path, augmented):
    """Of 30 pictures 10 show a car, 10 a boat and 10 nothing: cars are not painted on the water of the boats."""
    classes, of_all = ("car", "boat"), []
    for i, sample in enumerate(dataset(tmp_path, [UNKNOWN] * 30)):
        shown = [] if i >= 20 else [i // 10]
        layout = Layout(sample.layout.boxes[: len(shown)], shown, classes, sample.layout.size)
        of_all.append(replace(sample, layout=layout))
    scenes = DatasetCanvases(Dataset(classes, of_all), (64, 64), augmented=augmented)

    def numbers(name: str) -> set[int]:
        layout = Layout([[10, 10, 20, 10, 0]], [0], (name,), (64, 64))
        return {int(scene.provenance.name) // 10 for scene in scenes.draw([layout] * 40, range(40))}

    assert numbers("Car") == {0, 2}
    assert numbers("boat") == {1, 2}
    assert numbers("plane") == {0, 1, 2}, "control: a class that none shows"


def test_a_box_around_a_turned_object_stays_tight_where_upright_boxes_are_wanted(tmp_path):
    """Of each scene, in pixels: the upright boxes around a square of 20 x 20 that was labelled with an oriented box."""
    picture = np.full((200, 200, 3), 60, np.uint8)
    picture[90:110, 90:110] = 250
    Image.fromarray(picture).save(tmp_path / "0.png")
    layout = Layout([[100, 100, 20, 20, 0]], [0], ("car",), (200, 200))
    scenes = DatasetCanvases(Dataset(("car",), [Sample("0", tmp_path / "0.png", layout)]), (80, 80), augmented=True)

    def tightness(kind: str) -> list[float]:
        wish = [Layout([], [], ("car",), (80, 80), kind)] * 40
        found = [scene for scene in scenes.draw(wish, range(40)) if (scene.existing.visible > 0.999).any()]
        return [
            (s.image[..., 0] > 150).sum() / np.prod(s.existing.in_kind("hbb").boxes[0, 2:4])
            for s in found
            if len(s.existing) == 1
        ]

    tight = tightness("hbb")
    assert len(tight) > 5
    assert min(tight) > 0.9
    assert min(tightness("obb")) < 0.75, "control: the box around a turned one"


@pytest.mark.parametrize("taken", [UNKNOWN, Acquisition(altitude_m=50)])
def test_an_augmented_scene_is_scaled_until_its_objects_are_as_large_as_the_layouts(tmp_path, taken):
    """Sides, in pixels, of a bright square of 40 x 40 pixels; control: the layout's altitude is known."""
    picture = np.full((300, 300, 3), 60, np.uint8)
    picture[130:170, 130:170] = 250
    Image.fromarray(picture).save(tmp_path / "0.png")
    layout = Layout([[150, 150, 40, 40, 0]], [0], ("car",), (300, 300), acquisition=Acquisition(altitude_m=50))
    scenes = DatasetCanvases(Dataset(("car",), [Sample("0", tmp_path / "0.png", layout)]), (128, 128), augmented=True)
    wish = Layout([[20, 20, 24, 24, 0]], [0], ("car",), (128, 128), acquisition=taken)
    found = [s for s in scenes.draw([wish] * 30, range(30)) if (s.existing.visible > 0.999).any()]
    sides = np.array([np.sqrt((s.image[..., 0] > 150).sum()) for s in found])
    assert len(found) > 5
    assert np.median(sides) == pytest.approx(24 * 1.05 if taken == UNKNOWN else 40, rel=0.1), (
        "turned windows: not below 0.6"
    )
    labelled = [np.sqrt(np.prod(s.existing.boxes[0, 2:4])) for s in found]
    assert sides == pytest.approx(np.array(labelled), abs=1.5)


@pytest.mark.parametrize("augmented", [False, True])
def test_windows_pass_by_regions_in_which_objects_may_have_no_label(tmp_path, augmented):
    """Left of each picture is a bright square to be ignored; control: the same where nobody says so."""
    picture = np.full((200, 300, 3), 60, np.uint8)
    picture[80:100, 70:90] = 250
    Image.fromarray(picture).save(tmp_path / "0.png")
    layout = Layout([], [], ("car",), (300, 200), "hbb")

    def bright(ignored: list) -> float:
        sample = Sample("0", tmp_path / "0.png", replace(layout, ignored=np.float32(ignored).reshape(-1, 5)))
        scenes = DatasetCanvases(Dataset(("car",), [sample] * 8), (100, 100), augmented)
        wish = [Layout([], [], ("car",), (100, 100), "hbb")] * 30
        return np.mean([(scene.image > 150).any() for scene in scenes.draw(wish, range(30))])

    assert bright([[80, 90, 20, 20, 0]]) == 0
    assert bright([]) > 0.15


def test_a_scene_depends_on_its_layout_and_seed_alone(tmp_path):
    scenes = DatasetCanvases(dataset(tmp_path, [UNKNOWN] * 40), (64, 64))
    layouts = wish(UNKNOWN)
    together = [s.provenance for s in scenes.draw(layouts, range(30))]
    backwards = [s.provenance for s in scenes.draw(layouts, range(29, -1, -1))][::-1]
    assert together == backwards == [scenes.draw([x], [i])[0].provenance for i, x in enumerate(layouts)]
    assert len(set(together)) > 10, "control: seeds differ"


def test_the_window_of_a_scene_holds_the_labels_where_their_pixels_are(tmp_path):
    noise = np.random.default_rng(0).integers(0, 200, (120, 160, 3), np.uint8)
    noise[50:60, 70:90] = 255
    Image.fromarray(noise).save(tmp_path / "a.png")
    layout = Layout([[80, 55, 20, 10, 0]], [0], ("car",), (160, 120))
    data = Dataset(("car",), [Sample("a", tmp_path / "a.png", layout, license="CC-BY-4.0")])
    seen = 0
    for scene in DatasetCanvases(data, (64, 64)).draw(wish(UNKNOWN), range(30)):
        left, top = map(int, scene.provenance.label.removeprefix("a@").split(","))
        assert (scene.provenance.left, scene.provenance.top) == (left, top)
        assert np.array_equal(scene.image, noise[top : top + 64, left : left + 64])
        assert scene.provenance.license == "CC-BY-4.0"
        for cx, cy, w, h, _ in scene.existing.boxes:
            x1, y1, x2, y2 = (round(v) for v in (cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2))
            assert (scene.image[y1:y2, x1:x2] == 255).all()
            seen += 1
    assert seen > 5


def test_damaged_images_are_passed_over_and_named(tmp_path):
    data = dataset(tmp_path, [UNKNOWN] * 4)
    for sample in data.samples[:3]:
        sample.image.write_bytes(sample.image.read_bytes()[:60])
    scenes = DatasetCanvases(data, (64, 64)).draw(wish(UNKNOWN), range(30))
    assert {s.provenance.name for s in scenes} == {"003"}
    assert {name for s in scenes for name in s.provenance.unreadable} == {"000", "001", "002"}
    data.samples[3].image.write_bytes(b"no image")
    with pytest.raises(UserError, match="none of 4 scenes can be read"):
        DatasetCanvases(data, (64, 64)).draw(wish(UNKNOWN, 1), [0])


def test_images_smaller_than_the_scene_are_refused_with_the_size(tmp_path):
    with pytest.raises(UserError, match="128x128"):
        DatasetCanvases(dataset(tmp_path, [UNKNOWN] * 2), (128, 128))


def test_unknown_fields_do_not_count_in_the_distance_of_two_acquisitions():
    day, night = Acquisition(night=False, gsd_m=0.5), Acquisition(night=True, gsd_m=1.0)
    assert acquisition_distance(day, day) == acquisition_distance(day, UNKNOWN) == 0
    assert acquisition_distance(day, night) == pytest.approx(11)


def test_a_window_is_taken_in_which_few_objects_have_to_make_room(tmp_path, monkeypatch):
    """Control: with one window to choose from, the layout's car often falls on the one in the scene's middle."""
    from dataengine.render import dataset_canvases

    scenes = DatasetCanvases(dataset(tmp_path, [UNKNOWN] * 40, size=160), (64, 64))
    layouts = [Layout([[32, 32, 40, 40, 0]], [0], ("car",), (64, 64))] * 40

    def taken() -> int:
        windows = scenes.draw(layouts, range(40))
        return sum(not free_of(s.existing, layouts[0].boxes, ROOM_SHARE).all() for s in windows)

    assert taken() == 0
    monkeypatch.setattr(dataset_canvases, "WINDOWS_COMPARED", 1)
    assert taken() > 2
