"""Round trips of every format and pair of formats, and the pixel rules of each format by hand."""

from __future__ import annotations

import datetime
import itertools
import json
import math
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from dataengine.data import coco, dior, dota, formats, hit_uav, hrsc, rolabelimg, voc, yolo
from dataengine.data.layout import Acquisition
from dataengine.errors import UserError

ROTATED = [name for name in formats.WRITTEN if "angles" in formats.module(name).HOLDS]
SIZE = (200, 150)


@st.composite
def rotated_box(draw):
    """A le90 box inside a 200x150 image."""
    w = draw(st.floats(4, 60, width=32))
    h = draw(st.floats(3, 60, width=32).map(lambda value: min(value, w)))
    theta = draw(st.floats(-1.5703125, 1.5703125, width=32))
    return (draw(st.floats(45, 155, width=32)), draw(st.floats(45, 105, width=32)), w, h, theta)


@pytest.mark.parametrize("format", ROTATED)
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(boxes=st.lists(st.lists(rotated_box(), max_size=4), min_size=1, max_size=3))
def test_rotated_boxes_round_trip_in_every_format_with_angles(format, boxes, make_dataset, same):
    with tempfile.TemporaryDirectory() as folder:
        dataset = make_dataset(Path(folder, "in"), boxes)
        assert formats.write(dataset, Path(folder, "out"), format) == []
        back = formats.read(Path(folder, "out"), format)
        assert back.classes == dataset.classes
        assert back.kind == "obb"
        assert back.problems == []
        assert [sample.name for sample in back] == [sample.name for sample in dataset]
        for before, after in zip(dataset, back, strict=True):
            assert after.layout.size == SIZE
            np.testing.assert_array_equal(after.layout.labels, before.layout.labels)
            for a, b in zip(before.layout.boxes, after.layout.boxes, strict=True):
                assert same(a, b, 2e-3), (a, b)


@pytest.mark.parametrize("format", ["coco", "yolo", "voc", "csv"])
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sides=st.lists(st.tuples(*[st.floats(2, 60, width=32)] * 2), min_size=1, max_size=4))
def test_horizontal_boxes_round_trip(format, sides, make_dataset, same):
    boxes = [[(70 + w, 80, max(w, h), min(w, h), 0 if w >= h else -np.pi / 2) for w, h in sides]]
    with tempfile.TemporaryDirectory() as folder:
        dataset = make_dataset(Path(folder, "in"), boxes, kind="hbb")
        formats.write(dataset, Path(folder, "out"), format)
        back = formats.read(Path(folder, "out"))
        assert back.kind == "hbb"
        assert back.format == format
        for a, b in zip(dataset.samples[0].layout.boxes, back.samples[0].layout.boxes, strict=True):
            assert same(a, b, 2e-3)


@pytest.mark.parametrize(("first", "second"), list(itertools.permutations(formats.WRITTEN, 2)))
def test_any_format_converts_to_any_other(first, second, make_dataset, same, tmp_path):
    kind = "hbb" if {"voc", "csv"} & {first, second} else "obb"
    theta = 0 if kind == "hbb" else 0.4
    boxes = [[(60, 70, 40, 12, theta), (120, 80, 30.5, 20.25, theta)], [], [(100, 75, 50, 10, theta)]]
    dataset = make_dataset(tmp_path / "in", boxes, kind=kind)
    formats.write(dataset, tmp_path / "first", first)
    formats.write(formats.read(tmp_path / "first"), tmp_path / "second", second)
    back = formats.read(tmp_path / "second")
    assert back.format == second
    assert back.classes == dataset.classes
    for before, after in zip(dataset, back, strict=True):
        assert after.name == before.name
        assert after.layout.names() == before.layout.names()
        for a, b in zip(before.layout.boxes, after.layout.boxes, strict=True):
            assert same(a, b, 5e-3)


@pytest.mark.parametrize("format", sorted(formats.WRITTEN))
def test_a_format_keeps_what_it_claims_and_reports_the_rest(format, make_dataset, tmp_path):
    boxes = [[(60, 70, 40, 12, 0.4), (120, 80, 30, 20, -0.2)]]
    dataset = make_dataset(tmp_path / "in", boxes, ignored=[(100, 100, 20, 10, 0)])
    formats.write(dataset, tmp_path / "out", format)
    layout = formats.read(tmp_path / "out").samples[0].layout
    holds, lost = formats.module(format).HOLDS, " ".join(formats.losses(dataset, format))
    assert layout.difficult.tolist() == ([False, True] if "difficult" in holds else [False, False])
    assert len(layout.ignored) == ("ignored" in holds)
    for field in Acquisition.model_fields:
        before = getattr(dataset.samples[0].layout.acquisition, field)
        after = getattr(layout.acquisition, field)
        assert after == (before if field in holds else None), field
        assert (field in lost) == (before is not None and field not in holds)
    assert ("difficult" in lost) == ("difficult" not in holds)
    assert ("ignored" in lost) == ("ignored" not in holds)


@pytest.mark.parametrize("format", sorted(formats.WRITTEN))
def test_written_images_have_the_same_pixels(format, make_dataset, tmp_path):
    dataset = make_dataset(tmp_path / "in", [[(60, 70, 40, 12, 0.4)]], suffix=".png")
    formats.write(dataset, tmp_path / "out", format)
    before = np.asarray(Image.open(dataset.samples[0].image).convert("RGB"), float)
    after = np.asarray(Image.open(formats.read(tmp_path / "out").samples[0].image).convert("RGB"), float)
    # only DIOR forces a lossy format, .jpg
    assert np.abs(before - after).mean() <= (5 if format == "dior" else 0)


@pytest.mark.parametrize("format", sorted(formats.WRITTEN))
def test_two_splits_in_one_folder_are_read_separately_or_together(format, make_dataset, tmp_path):
    train = make_dataset(tmp_path / "a", [[(60, 70, 40, 12, 0.0)], [(60, 70, 30, 12, 0.0)]])
    val = make_dataset(tmp_path / "b", [[(90, 70, 20, 12, 0.0)]])
    val.samples[0] = type(val.samples[0])("other", val.samples[0].image, val.samples[0].layout)
    formats.write(train, tmp_path / "out", format, split="train")
    formats.write(val, tmp_path / "out", format, split="val")
    assert set(formats.splits(tmp_path / "out")) == {"train", "val"}
    assert [s.name for s in formats.read(tmp_path / "out", split="train")] == ["image_0", "image_1"]
    assert [s.name for s in formats.read(tmp_path / "out", split="val")] == ["other"]
    assert len(formats.read(tmp_path / "out")) == 3


def _image(path: Path, size=(100, 50)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size).save(path)


def _xml(path: Path, objects: str, head: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"<annotation>{head}\n{objects}\n</annotation>")


def _aabb(dataset, true_corners) -> list[float]:
    corners = true_corners(dataset.samples[0].layout.boxes[0])
    return [*corners.min(axis=0).round(4), *corners.max(axis=0).round(4)]


def test_a_voc_box_counts_pixels_from_1_and_has_both_ends_inside(tmp_path, true_corners):
    _image(tmp_path / "JPEGImages" / "a.png")
    box = "<bndbox><xmin>1</xmin><ymin>11</ymin><xmax>100</xmax><ymax>20</ymax></bndbox>"
    _xml(tmp_path / "Annotations" / "a.xml", f"<object><name>car</name>{box}</object>")
    assert _aabb(voc.read(tmp_path), true_corners) == [0, 10, 100, 20]
    assert _aabb(voc.read(tmp_path, first_pixel=0), true_corners) == [1, 11, 100, 20]
    voc.write(voc.read(tmp_path), tmp_path / "out")
    text = (tmp_path / "out" / "Annotations" / "a.xml").read_text()
    assert "<xmin>1</xmin>" in text
    assert "<xmax>100</xmax>" in text


def test_coco_dior_dota_and_hrsc_numbers_are_continuous_pixels(tmp_path, true_corners):
    _image(tmp_path / "coco" / "images" / "a.png")
    content = {
        "images": [{"id": 1, "file_name": "a.png", "width": 100, "height": 50}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 3, "bbox": [10, 20, 30, 5]}],
        "categories": [{"id": 3, "name": "car"}],
    }
    (tmp_path / "coco" / "train.json").write_text(json.dumps(content))
    assert _aabb(coco.read(tmp_path / "coco"), true_corners) == [10, 20, 40, 25]

    _image(tmp_path / "dior" / "JPEGImages-trainval" / "a.jpg")
    names = ("left_top", "right_top", "right_bottom", "left_bottom")
    points = zip(names, ((10, 20), (40, 20), (40, 25), (10, 25)), strict=True)
    fields = "".join(f"<x_{name}>{x}</x_{name}><y_{name}>{y}</y_{name}>" for name, (x, y) in points)
    item = f"<object><name>Ship</name><robndbox>{fields}</robndbox></object>"
    _xml(tmp_path / "dior" / "Annotations" / "Oriented_Bounding_Boxes" / "a.xml", item)
    read = dior.read(tmp_path / "dior")
    assert _aabb(read, true_corners) == [10, 20, 40, 25]
    assert read.samples[0].layout.names() == ["ship"]

    _image(tmp_path / "dota" / "images" / "a.png")
    (tmp_path / "dota" / "labelTxt").mkdir()
    text = "imagesource:GoogleEarth\ngsd:0.25\n10 20 40.0 20 40 25 10 25 Small-Vehicle\n"
    (tmp_path / "dota" / "labelTxt" / "a.txt").write_text(text)
    read = dota.read(tmp_path / "dota")
    assert _aabb(read, true_corners) == [10, 20, 40, 25]
    assert read.problems == []
    assert read.samples[0].layout.acquisition.gsd_m == 0.25
    assert read.samples[0].source == "GoogleEarth"

    _image(tmp_path / "hrsc" / "Train" / "AllImages" / "a.bmp")
    values = zip(("cx", "cy", "w", "h", "ang"), (25, 22.5, 5, 30, -1.5707963), strict=True)
    fields = "".join(f"<mbox_{name}>{value}</mbox_{name}>" for name, value in values)
    _xml(
        tmp_path / "hrsc" / "Train" / "Annotations" / "a.xml",
        f"<HRSC_Objects><HRSC_Object><Class_ID>100000005</Class_ID>{fields}</HRSC_Object></HRSC_Objects>",
        "<Img_Resolution>1.07</Img_Resolution><Img_Location>69.04,33.07</Img_Location>",
    )
    read = hrsc.read(tmp_path / "hrsc")
    assert _aabb(read, true_corners) == [10, 20, 40, 25]
    assert read.samples[0].layout.names() == ["Nimitz"]
    assert read.samples[0].layout.acquisition.latitude_deg == 69.04
    assert hrsc.read(tmp_path / "hrsc", classes=("ship",)).samples[0].layout.names() == ["ship"]


@pytest.mark.parametrize(("angle", "upright", "read_as"), [
    (0.4, "8.2 14.3 41.8 30.7", "radians"), (5, "9.8 18.7 40.2 26.3", "refused"), (5, None, "radians"),
])  # fmt: skip
def test_an_hrsc_angle_in_degrees_is_noticed_by_the_upright_box_beside_it(angle, upright, read_as, tmp_path):
    """Less than a full turn in radians, so the number alone does not tell."""
    _image(tmp_path / "AllImages" / "a.bmp")
    values = zip(("cx", "cy", "w", "h", "ang"), (25, 22.5, 30, 5, angle), strict=True)
    fields = "".join(f"<mbox_{name}>{value}</mbox_{name}>" for name, value in values)
    for name, value in zip(("xmin", "ymin", "xmax", "ymax"), (upright or "").split(), strict=upright is not None):
        fields += f"<box_{name}>{value}</box_{name}>"
    objects = f"<HRSC_Objects><HRSC_Object><Class_ID>100000005</Class_ID>{fields}</HRSC_Object></HRSC_Objects>"
    _xml(tmp_path / "Annotations" / "a.xml", objects)
    if read_as == "refused":
        with pytest.raises(UserError, match="mbox_ang is 5, which fits box_xmin to box_ymax only as degrees"):
            hrsc.read(tmp_path)
        return
    turn = hrsc.read(tmp_path).samples[0].layout.boxes[0, 4]
    assert math.sin(turn - angle) == pytest.approx(0, abs=1e-5)


def test_a_rolabelimg_angle_turns_clockwise_from_the_horizontal_to_the_width(tmp_path, same):
    _image(tmp_path / "a.png")
    box = "<cx>50</cx><cy>25</cy><w>10</w><h>20</h><angle>0.5</angle>"
    upright = "<bndbox><xmin>10</xmin><ymin>20</ymin><xmax>40</xmax><ymax>25</ymax></bndbox>"
    objects = f"<object><name>car</name><robndbox>{box}</robndbox></object><object><name>car</name>{upright}</object>"
    _xml(tmp_path / "a.xml", objects)
    read = rolabelimg.read(tmp_path).samples[0].layout.boxes
    assert read[0, 2] == 20
    assert same(read[0], (50, 25, 10, 20, 0.5), 1e-4)
    assert not same(read[0], (50, 25, 10, 20, -0.5), 1)
    assert same(read[1], (25, 22.5, 30, 5, 0), 1e-4)


def test_yolo_numbers_are_relative_to_the_image(tmp_path, same):
    _image(tmp_path / "images" / "train" / "a.png")
    (tmp_path / "labels" / "train").mkdir(parents=True)
    rows = "1 0.25 0.5 0.3 0.2\n0 0.1 0.2 0.4 0.2 0.4 0.6 0.1 0.6\n"
    (tmp_path / "labels" / "train" / "a.txt").write_text(rows)
    (tmp_path / "data.yaml").write_text("train: ../images/train\nnames: {0: ship, 1: car}\n")
    read = yolo.read(tmp_path)
    assert read.kind == "obb"
    layout = read.samples[0].layout
    assert layout.names() == ["car", "ship"]
    assert same(layout.boxes[0], (25, 25, 30, 10, 0), 1e-4)
    assert same(layout.boxes[1], (25, 20, 30, 20, 0), 1e-4)


def test_hit_uav_metadata_are_read_with_their_units(tmp_path):
    _image(tmp_path / "images" / "train" / "a.png")
    picture = {"id": 0, "filename": "a.png", "width": 100, "height": 50, "scenario": "1", "weather": "0"}
    picture |= {"perspective": "40", "altitude": "60", "date": "20210116"}
    objects = [
        {"id": 0, "image_id": 0, "category_id": 1, "difficult": True, "bbox": [50, 25, 10, 20, 0.25]},
        {"id": 1, "image_id": 0, "category_id": 4, "difficult": False, "bbox": [50, 25, 10, 20, 0]},
    ]
    categories = [{"id": 0, "name": "Person"}, {"id": 1, "name": "Car"}, {"id": 4, "name": "DontCare"}]
    (tmp_path / "annotations").mkdir()
    content = {"images": [picture], "annotations": objects, "categories": categories, "scenarios": []}
    (tmp_path / "annotations" / "train.json").write_text(json.dumps(content))
    dataset = hit_uav.read(tmp_path / "annotations" / "train.json", classes=("car",))
    layout = dataset.samples[0].layout
    assert layout.names() == ["car"]
    assert layout.difficult.tolist() == [True]
    assert len(layout.ignored) == 1
    assert layout.acquisition == Acquisition(
        altitude_m=60, camera_angle_deg=40, night=True, date=datetime.date(2021, 1, 16)
    )


def test_classes_are_matched_by_name_in_any_case(make_dataset, tmp_path):
    dataset = make_dataset(tmp_path / "in", [[(60, 70, 40, 12, 0), (90, 70, 40, 12, 0), (120, 70, 30, 12, 0)]])
    dota.write(dataset, tmp_path / "out")
    back = dota.read(tmp_path / "out", classes=("CAR", "Large_Ship", "Plane"))
    assert back.classes == ("CAR", "Large_Ship", "Plane")
    assert back.samples[0].layout.labels.tolist() == [2, 1, 0]
