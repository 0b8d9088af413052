"""What the border of an image cuts off, in every format: one rule (dataengine/data/border.py)."""

from __future__ import annotations

import json

import numpy as np
import pytest
import shapely

from dataengine import geometry
from dataengine.data import coco, formats, staging, voc, yolo
from dataengine.data.border import inside_image, visible_hulls, visible_polygons
from dataengine.data.layout import Layout

SIZE = (200, 150)
ROTATED = [name for name in formats.WRITTEN if "angles" in formats.FORMATS[name].HOLDS]
# a trapezoid, a corner of a box, one corner cut off, a corner of the image, wider than the image, uncut
CUT = [
    (5, 75, 40, 20, 0.5), (-6, 40, 40, 30, -0.7), (100, 8, 40, 20, 0.4), (196, 147, 40, 16, 0.8),
    (100, 75, 260, 30, 0.6), (60, 100, 30, 10, 1.2),
]  # fmt: skip


def visible_part(box) -> shapely.Polygon:
    return shapely.box(0, 0, *SIZE).intersection(shapely.Polygon(geometry.to_corners(box)[0]))


def random_boxes(n: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    w = rng.uniform(8, 90, n)
    centre = rng.uniform((-20, -20), (220, 170), (n, 2))
    boxes = np.column_stack([centre, w, w * rng.uniform(0.2, 1, n), rng.uniform(-np.pi / 2, np.pi / 2, n)])
    return geometry.regularize(boxes)[[visible_part(box).area > 20 for box in boxes]]


def test_a_cut_box_is_the_minimum_area_box_of_its_visible_part():
    boxes = random_boxes(300)
    written, outside = inside_image(Layout(boxes, [0] * len(boxes), ("car",), SIZE))
    assert len(outside) == 0
    changed = 0
    for before, after, visible in zip(boxes, written.boxes, written.visible, strict=True):
        part, box = visible_part(before), shapely.Polygon(geometry.to_corners(after)[0])
        assert box.buffer(0.01).contains(part)
        assert box.area == pytest.approx(part.minimum_rotated_rectangle.area, rel=2e-3)
        assert visible == pytest.approx(part.area / (before[2] * before[3]), abs=2e-3)
        changed += not np.array_equal(before, after)
    assert changed > 50, "control: many boxes are cut"


def test_a_box_inside_stays_as_it_is_and_cutting_twice_changes_nothing():
    boxes = np.concatenate([random_boxes(300), [[100, 75, 200, 150, 0], [30, 30, 20.00001, 60.0001, 0]]])
    boxes = geometry.regularize(boxes)
    layout = Layout(boxes, [0] * len(boxes), ("car",), SIZE)
    once, _ = inside_image(layout)
    inside = np.array([shapely.box(0, 0, *SIZE).contains(shapely.Polygon(geometry.to_corners(b)[0])) for b in boxes])
    assert inside.sum() > 50
    assert once.boxes[inside].tobytes() == boxes[inside].tobytes()
    assert (once.visible[inside] == 1).all()
    # as files keep four decimals of corners
    read = geometry.from_corners(np.round(geometry.to_corners(once.boxes), 4))
    again, outside = inside_image(Layout(read, [0] * len(read), ("car",), SIZE))
    assert len(outside) == 0
    assert geometry.iou_pairs(again.boxes, once.boxes).min() > 0.999


def test_a_horizontal_box_is_clipped_and_a_sliver_is_outside():
    boxes = [[0, 75, 40, 20, 0], [-19.5, 75, 40, 20, 0], [-30, 75, 40, 20, 0], [195, 75, 20, 0.5, 0]]
    written, outside = inside_image(Layout(boxes, [0, 1, 2, 0], ("a", "b", "c"), SIZE, "hbb"))
    assert outside.tolist() == [1, 2]
    assert written.boxes[0].tolist() == [10, 75, 20, 20, 0]
    assert written.visible[0] == 0.5
    assert written.labels.tolist() == [0, 0]
    assert written.boxes[1].tolist() == [192.5, 75, 15, 0.5, 0], "an object that is thinner than a pixel by itself"


def test_the_visible_fraction_of_a_tile_is_kept_and_regions_are_cut_too():
    layout = Layout(
        [[10, 75, 20, 20, 0]], [0], ("car",), SIZE, visible=[0.4], ignored=[[0, 20, 8, 4, 0], [-30, 20, 8, 4, 0]]
    )
    written, _ = inside_image(layout)
    assert written.visible.tolist() == pytest.approx([0.4])
    assert written.ignored.tolist() == [[2, 20, 4, 4, 0]]


def test_outlines_stay_where_they_are_when_their_box_is_cut():
    boxes = [[5, 75, 40, 20, 0.5], [-60, 75, 40, 20, 0], [90, 60, 20, 12, 1.0]]
    outlines = [geometry.to_corners(box)[0] for box in boxes]
    layout = Layout(boxes, [0] * 3, ("car",), SIZE).with_outlines(outlines)
    with np.errstate(all="raise"):
        written, outside = inside_image(layout)
    assert outside.tolist() == [1]
    for before, after in zip((outlines[0], outlines[2]), written.outlines(), strict=True):
        assert after == pytest.approx(before, abs=1e-3)


def test_hulls_of_visible_parts_never_leave_the_image():
    boxes = random_boxes(200, seed=2)
    hulls = visible_hulls(boxes, SIZE)
    assert (hulls >= 0).all()
    assert (hulls <= [*SIZE, *SIZE]).all()
    for box, hull, polygon in zip(boxes, hulls, visible_polygons(boxes, SIZE), strict=True):
        assert hull == pytest.approx(visible_part(box).bounds, abs=1e-3)
        assert shapely.Polygon(polygon).area == pytest.approx(visible_part(box).area, rel=1e-4)


@pytest.mark.parametrize("format", ROTATED)
def test_every_format_writes_the_same_boxes_and_reports_what_lies_outside(format, make_dataset, tmp_path):
    dataset = make_dataset(tmp_path / "in", [[*CUT, (-50, 75, 40, 20, 0)]])
    left_out = formats.write(dataset, tmp_path / "out", format)
    assert [problem.message for problem in left_out] == ["object 7 lies outside the image; it is skipped"]
    assert left_out[0].path == dataset.samples[0].image
    back = formats.read(tmp_path / "out", format)
    assert back.problems == []
    rule, _ = inside_image(dataset.samples[0].layout)
    assert back.samples[0].layout.names() == rule.names()
    assert geometry.iou_pairs(back.samples[0].layout.boxes, rule.boxes).min() > 0.999


def test_a_writer_without_the_rule_fails_the_test_above(make_dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(staging, "inside_image", lambda layout: (layout, np.zeros(0, int)))
    dataset = make_dataset(tmp_path / "in", [CUT])
    formats.write(dataset, tmp_path / "out", "dota")
    [sample] = formats.read(tmp_path / "out")
    rule, _ = inside_image(dataset.samples[0].layout)
    assert geometry.iou_pairs(sample.layout.boxes, rule.boxes).min() < 0.9


@pytest.mark.parametrize("format", ["coco", "yolo", "voc", "csv"])
def test_horizontal_boxes_are_clipped_alike(format, make_dataset, tmp_path):
    boxes = [[(0, 75, 40, 20, 0), (195, 140, 30, 30, 0), (60, 60, 20, 10, 0)]]
    formats.write(make_dataset(tmp_path / "in", boxes, kind="hbb"), tmp_path / "out", format)
    [sample] = formats.read(tmp_path / "out", format)
    wanted = [[0, 65, 20, 85], [180, 125, 200, 150], [50, 55, 70, 65]]
    assert geometry.to_aabb(sample.layout.boxes) == pytest.approx(np.array(wanted), abs=1e-3)


def test_a_coco_box_is_the_hull_of_what_is_visible_and_the_fraction_is_kept(make_dataset, tmp_path):
    dataset = make_dataset(tmp_path / "in", [CUT])
    coco.write(dataset, tmp_path / "out")
    content = json.loads((tmp_path / "out/annotations/train.json").read_text())
    for entry, box in zip(content["annotations"], CUT, strict=True):
        x, y, w, h = entry["bbox"]
        assert x >= 0
        assert y >= 0
        assert x + w <= SIZE[0] + 1e-9
        assert y + h <= SIZE[1] + 1e-9
        part = visible_part(box)
        assert entry.get("visible", 1) == pytest.approx(part.area / (box[2] * box[3]), abs=2e-3)
    assert content["annotations"][0]["visible"] < 0.8


def test_voc_reports_an_object_that_it_cannot_say(make_dataset, tmp_path):
    dataset = make_dataset(tmp_path / "in", [[(50, 50, 30, 0.4, 0), (90, 50, 30, 10, 0)]], kind="hbb")
    [problem] = voc.write(dataset, tmp_path / "out")
    assert problem.message == "object 1 is less than a pixel wide or high, which VOC cannot say; it is skipped"
    back = voc.read(tmp_path / "out")
    assert (len(back.samples[0].layout), back.problems) == (1, [])


def test_yolo_corners_leave_the_image_only_as_far_as_ultralytics_takes_them(make_dataset, tmp_path):
    """Its check, as read in `ultralytics/data/utils.py` (verify_image_label) of 8.4: the centre and size of the upright
    box around the points of a line are between 0 and 1. The line of the widest box is a polygon for that."""
    boxes = [*CUT, *random_boxes(100, seed=5)]
    yolo.write(make_dataset(tmp_path / "in", [boxes]), tmp_path / "out")
    lines = (tmp_path / "out/labels/train/image_0.txt").read_text().splitlines()
    counts = []
    for line in lines:
        points = np.array(line.split()[1:], float).reshape(-1, 2)
        low, high = points.min(axis=0), points.max(axis=0)
        assert ((low + high) / 2 >= 0).all()
        assert ((low + high) / 2 <= 1).all()
        assert (high - low <= 1).all()
        counts.append(len(points))
    assert counts[:6] == [4, 4, 4, 4, 8, 4]
    assert min(np.array(line.split()[1:], float).min() for line in lines) < 0, "control: some corners are outside"


def test_images_with_skipped_objects_count_as_written(make_dataset, tmp_path):
    dataset = make_dataset(tmp_path / "in", [[(-50, 75, 40, 20, 0)], [(50, 75, 40, 20, 0)]])
    dataset.samples[1].image.write_bytes(b"no picture")
    problems = formats.write(dataset, tmp_path / "out", "dior")
    assert len(problems) == 2
    assert staging.images_skipped(problems) == 1
