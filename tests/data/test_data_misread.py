"""Fields, names and numbers in unusual spellings: read as they are meant, or reported; never as something else."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dataengine import geometry
from dataengine.data import formats
from dataengine.errors import UserError

SIZE = (200, 100)
BOX = (50, 20, 90, 60)  # left, top, right, bottom
ROW = "0.35 0.4 0.2 0.4"  # the same as YOLO has it
TURNED = [100, 50, 60, 20, math.radians(25)]
QUAD = geometry.to_corners(np.array([TURNED])).ravel().round(2).tolist()
OTHER = [20, 30, 60, 30, 60, 50, 20, 50]


def image(file: Path) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", SIZE, (90, 90, 90)).save(file)
    return file


def text(file: Path, content: str | bytes) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return file


def objects(dataset) -> list[tuple[str, list[int]]]:
    """(class name, sides of the upright rectangle in whole pixels) of all objects, in order of the pictures."""
    found = []
    for sample in dataset:
        upright = geometry.to_aabb(sample.layout.boxes).round().astype(int).tolist()
        found += list(zip(sample.layout.names(), upright, strict=True))
    return found


def messages(dataset) -> str:
    return "\n".join(map(str, dataset.problems))


# -- YOLO --------------------------------------------------------------------------------------------------------------


def yolo_set(root: Path, rows: list[str], yaml: str) -> Path:
    for i, row in enumerate(rows):
        image(root / f"images/train/{i}.jpg")
        text(root / f"labels/train/{i}.txt", f"{row}\n")
    text(root / "data.yaml", yaml)
    return root


@pytest.mark.parametrize(
    ("yaml", "numbers"),
    [
        ("names: {0: ship, 7: car}", (0, 7)),
        ("names: {1: ship, 2: car}", (1, 2)),
        ("names: {1: car, 0: ship}", (0, 1)),
        ("names: {'0': ship, '1': car}", (0, 1)),
        ("names: [ship, car]", ("0.0", "1.000000e+00")),
    ],
)
def test_a_class_number_has_the_name_that_is_stated_for_it(yaml, numbers, tmp_path):
    rows = [f"{number} {ROW}" for number in numbers]
    dataset = formats.read(yolo_set(tmp_path, rows, f"{yaml}\ntrain: images/train\n"))
    assert objects(dataset) == [("ship", [*BOX]), ("car", [*BOX])]
    assert not dataset.problems


def test_numbers_that_count_from_one_beside_names_that_count_from_zero_are_refused(tmp_path):
    rows = [f"1 {ROW}", f"2 {ROW}"]
    with pytest.raises(UserError, match="class numbers run from 1 to 2"):
        formats.read(yolo_set(tmp_path, rows, "names: [ship, car]\ntrain: images/train\n"))


def test_a_gap_in_the_names_is_a_problem_where_a_label_has_that_number(tmp_path):
    rows = [f"0 {ROW}", f"3 {ROW}"]
    dataset = formats.read(yolo_set(tmp_path, rows, "names: {0: ship, 7: car}\ntrain: images/train\n"))
    assert objects(dataset) == [("ship", [*BOX])]
    assert "class number 3 is not in the class list, which has 0, 7" in messages(dataset)


@pytest.mark.parametrize("shape", ["[2, 2]", "[2, 3]"])
def test_keypoints_are_no_corners(shape, tmp_path):
    points = "0.3 0.3 0.4 0.4" if shape == "[2, 2]" else "0.3 0.3 2 0.4 0.4 2"
    yaml = f"kpt_shape: {shape}\nnames: [ship]\ntrain: images/train\n"
    dataset = formats.read(yolo_set(tmp_path, [f"0 {ROW} {points}"], yaml))
    assert (dataset.kind, objects(dataset), dataset.problems) == ("hbb", [("ship", [*BOX])], [])


def test_without_kpt_shape_four_pairs_are_corners(tmp_path):
    """The control for keypoints."""
    corners = "0 0.25 0.2 0.45 0.2 0.45 0.6 0.25 0.6"
    dataset = formats.read(yolo_set(tmp_path, [corners], "names: [ship]\ntrain: images/train\n"))
    assert (dataset.kind, objects(dataset)) == ("obb", [("ship", [*BOX])])


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"data.yaml": "names: [ship, no]\ntrain: images/train\n"}, "the name of class 1 is False"),
        ({"a.yaml": "names: [ship, car]\n", "b.yaml": "names: [car, ship]\n"}, "several lists of class names"),
        ({"classes.txt": "car\n\nship\n"}, "line 2 is blank"),
        ({"classes.txt": "0: ship\n1: car\n"}, "not a name alone"),
        ({"classes.txt": "ship, car\n"}, "not a name alone"),
    ],
)
def test_names_that_could_be_others_are_refused(files, says, tmp_path):
    image(tmp_path / "images/train/a.jpg")
    text(tmp_path / "labels/train/a.txt", f"0 {ROW}\n")
    for name, content in files.items():
        text(tmp_path / name, content)
    with pytest.raises(UserError, match=says):
        formats.read(tmp_path)


def test_blank_lines_after_the_last_name_and_hidden_copies_do_not_matter(tmp_path):
    image(tmp_path / "images/a.jpg")
    text(tmp_path / "labels/a.txt", f"1 {ROW}\n")
    text(tmp_path / "classes.txt", "ship\r\ncar\r\n\r\n")
    text(tmp_path / "._ships.yaml", b"\0\5names:")
    assert objects(formats.read(tmp_path)) == [("car", [*BOX])]


@pytest.mark.parametrize("entry", ["/home/me/ships/images/train", "C:\\ships\\images\\train", "images\\train"])
def test_folders_of_another_machine_are_found_below_the_root(entry, tmp_path):
    yaml = f"path: C:\\ships\nnames: [ship]\ntrain: {entry}\n"
    assert objects(formats.read(yolo_set(tmp_path, [f"0 {ROW}"], yaml))) == [("ship", [*BOX])]


@pytest.mark.parametrize(
    ("format", "label", "content"),
    [
        ("yolo", "labels/{}.txt", "9 0.35 0.4 0.2 0.4\n"),
        ("dota", "labelTxt/{}.txt", "10 20 30 ship 0\n"),
        ("voc", "Annotations/{}.xml", "<annotation><object><name>ship</name></object></annotation>"),
    ],
)
def test_a_picture_none_of_whose_objects_can_be_read_is_not_empty_ground(format, label, content, tmp_path):
    good = {
        "yolo": f"0 {ROW}\n",
        "dota": " ".join(map(str, QUAD)) + " ship 0\n",
        "voc": f"<annotation>{PLAIN}</annotation>",
    }[format]
    for name in "ab":
        image(tmp_path / f"images/{name}.jpg")
    text(tmp_path / label.format("a"), good)
    text(tmp_path / label.format("b"), content)
    text(tmp_path / "classes.txt", "ship\n")
    dataset = formats.read(tmp_path, format)
    assert [sample.image.name for sample in dataset] == ["a.jpg"]
    assert "none of its objects can be read" in messages(dataset)
    assert sum(problem.objects for problem in dataset.problems) == 1


def test_corners_in_place_of_sizes_are_noticed(tmp_path):
    corners = ["0 0.6 0.5 0.8 0.9", "0 0.7 0.6 0.9 0.8", "0 0.1 0.1 0.3 0.4"]
    yaml = "names: [ship]\ntrain: images/train\n"
    assert "all look like x1 y1 x2 y2" in messages(formats.read(yolo_set(tmp_path / "a", corners, yaml)))
    sizes = ["0 0.7 0.7 0.2 0.4", "0 0.8 0.7 0.2 0.2", "0 0.9 0.25 0.3 0.3"]  # one leaves the image
    assert not formats.read(yolo_set(tmp_path / "b", sizes, yaml)).problems


# -- DOTA --------------------------------------------------------------------------------------------------------------


def dota_set(root: Path, *ends: str, classes: str = "") -> Path:
    """One picture with an object for each end of a line, after the corners."""
    image(root / "images/a.png")
    text(root / "labelTxt/a.txt", "".join(" ".join(map(str, QUAD)) + f" {end}\n" for end in ends))
    if classes:
        text(root / "classes.txt", classes)
    return root


def test_the_end_of_a_line_is_a_difficulty_or_part_of_a_name(tmp_path):
    ends = ["'large vehicle' 1", '"large vehicle" 0', "ship True", "ship False", "boeing 737 0", "boeing 737"]
    dataset = formats.read(dota_set(tmp_path, *ends))
    layout = dataset.samples[0].layout
    assert layout.names() == ["large vehicle"] * 2 + ["ship"] * 2 + ["boeing 737"] * 2
    assert layout.difficult.tolist() == [True, False, True, False, False, False]
    assert not dataset.problems


def test_listed_names_decide_whose_a_number_is(tmp_path):
    dataset = formats.read(dota_set(tmp_path, "type 1", "type 2", "type 1 1", classes="type 1\ntype 2\n"))
    layout = dataset.samples[0].layout
    assert layout.names() == ["type 1", "type 2", "type 1"]
    assert layout.difficult.tolist() == [False, False, True]
    assert not dataset.problems


def test_a_number_that_may_be_name_or_difficulty_is_reported(tmp_path):
    dataset = formats.read(dota_set(tmp_path, "type 1", "type 2", "type 3"))
    assert "class 'type 3' stands beside 'type'" in messages(dataset)


@pytest.mark.parametrize("last", ["0.93", "-1"])
def test_scores_and_other_numbers_are_no_part_of_a_name(last, tmp_path):
    dataset = formats.read(dota_set(tmp_path, "ship 0", f"ship {last}"))
    assert dataset.samples[0].layout.names() == ["ship"]
    assert f"the last field is {last}" in messages(dataset)


# -- VOC ---------------------------------------------------------------------------------------------------------------

BNDBOX = "<bndbox><xmin>51</xmin><ymin>21</ymin><xmax>90</xmax><ymax>60</ymax></bndbox>"
PLAIN = f"<object><name>ship</name>{BNDBOX}</object>"


def voc_set(root: Path, *bodies: str, attributes: str = "") -> Path:
    for i, body in enumerate(bodies):
        image(root / f"JPEGImages/{i}.jpg")
        text(root / f"Annotations/{i}.xml", f"<annotation{attributes}><filename>{i}.jpg</filename>{body}</annotation>")
    return root


def test_an_xml_namespace_does_not_hide_objects(tmp_path):
    dataset = formats.read(voc_set(tmp_path, PLAIN, attributes=' xmlns="http://example.org/voc"'))
    assert objects(dataset) == [("ship", [*BOX])]


def test_objects_under_another_tag_are_reported(tmp_path):
    dataset = formats.read(voc_set(tmp_path, PLAIN, PLAIN.replace("object>", "Object>")))
    assert [sample.image.name for sample in dataset] == ["0.jpg"]
    assert "has <Object> for <object>" in messages(dataset)
    assert sum(problem.objects for problem in dataset.problems) == 1


def test_line_breaks_in_a_name_are_blanks(tmp_path):
    dataset = formats.read(voc_set(tmp_path, PLAIN.replace("ship", " large\n  vehicle ")))
    assert dataset.classes == ("large vehicle",)


@pytest.mark.parametrize(
    ("value", "expected"), [("1", True), ("Yes", True), ("-1", False), ("n", False), ("null", False), ("0", False)]
)
def test_flags_in_any_spelling(value, expected, tmp_path):
    body = PLAIN.replace("</name>", f"</name><difficult>{value}</difficult>")
    assert formats.read(voc_set(tmp_path, body)).samples[0].layout.difficult.tolist() == [expected]


@pytest.mark.parametrize(
    ("name", "counts"), [("difficult", (2, 1, 0)), ("ignored", (1, 0, 1)), ("occluded", (2, 0, 0))]
)
def test_flags_among_the_attributes_of_cvat(name, counts, tmp_path):
    attribute = f"<attributes><attribute><name>{name}</name><value>True</value></attribute></attributes>"
    marked = PLAIN.replace("</name>", f"</name>{attribute}")
    layout = formats.read(voc_set(tmp_path, PLAIN + marked)).samples[0].layout
    assert (len(layout), int(layout.difficult.sum()), len(layout.ignored)) == counts


def test_a_polygon_of_points_turns_the_box(tmp_path):
    points = "".join(f"<pt><x>{x}</x><y>{y}</y></pt>" for x, y in zip(QUAD[::2], QUAD[1::2], strict=True))
    dataset = formats.read(voc_set(tmp_path, PLAIN.replace(BNDBOX, f"{BNDBOX}<polygon>{points}</polygon>")))
    box = dataset.samples[0].layout.boxes[0]
    assert dataset.kind == "obb"
    assert np.abs(box - TURNED).max() < 0.05


def test_an_angle_that_is_not_read_is_reported(tmp_path):
    turned = PLAIN.replace("</name>", "</name><angle>25</angle>")
    dataset = formats.read(voc_set(tmp_path, PLAIN + turned + turned.replace("25", "0")))
    assert len(dataset.samples[0].layout) == 2
    assert "has <angle>" in messages(dataset)


# -- COCO --------------------------------------------------------------------------------------------------------------

BBOX = [50, 20, 40, 40]


def coco_set(root: Path, *annotations: dict, categories: list[dict] | None = None, name: str = "a.jpg") -> Path:
    image(root / "images/a.jpg")
    content = {
        "images": [{"id": 1, "file_name": name, "width": SIZE[0], "height": SIZE[1]}],
        "annotations": [
            {"id": i, "image_id": 1, "category_id": 1, "bbox": BBOX} | a for i, a in enumerate(annotations)
        ],
        "categories": categories or [{"id": 1, "name": "ship"}],
    }
    text(root / "annotations/train.json", json.dumps(content))
    return root


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"ignored": 1}, (1, 0, 1)),
        ({"is_crowd": True}, (1, 0, 1)),
        ({"attributes": {"ignore": "true"}}, (1, 0, 1)),
        ({"attributes": {"difficult": 1}}, (2, 1, 0)),
        ({"attributes": [{"name": "difficult", "value": "1"}]}, (2, 1, 0)),
        ({"attributes": {"ignore": False, "occluded": True}}, (2, 0, 0)),
    ],
)
def test_flags_of_coco_objects(fields, expected, tmp_path):
    layout = formats.read(coco_set(tmp_path, {}, {"bbox": [100, 20, 40, 40]} | fields)).samples[0].layout
    assert (len(layout), int(layout.difficult.sum()), len(layout.ignored)) == expected


PAIRS = [[x, y] for x, y in zip(QUAD[::2], QUAD[1::2], strict=True)]


@pytest.mark.parametrize(
    "fields",
    [
        {"segmentation": [QUAD]},
        {"segmentation": QUAD},
        {"segmentation": [PAIRS]},
        {"segmentation": PAIRS},
        {"bbox": [70, 40, 60, 20], "attributes": [{"name": "rotation", "value": 25}]},
    ],
)
def test_polygons_and_rotation_in_any_form(fields, tmp_path):
    around = [min(QUAD[::2]), min(QUAD[1::2]), max(QUAD[::2]) - min(QUAD[::2]), max(QUAD[1::2]) - min(QUAD[1::2])]
    dataset = formats.read(coco_set(tmp_path, {"bbox": around} | fields))
    assert (dataset.kind, dataset.problems) == ("obb", [])
    assert np.abs(dataset.samples[0].layout.boxes[0] - TURNED).max() < 0.05


def test_bbox_and_polygon_in_different_places_are_reported(tmp_path):
    apart = {"segmentation": [[120, 70, 160, 70, 160, 90, 120, 90]]}
    same = {"segmentation": [[50, 20, 90, 20, 90, 60, 50, 60]]}
    dataset = formats.read(coco_set(tmp_path, apart, same, same))
    assert "1 annotations (first: 0) have bbox and segmentation in different places" in messages(dataset)


def test_corners_in_bbox_are_noticed(tmp_path):
    corners = [{"bbox": [120, 50, 180, 90]}, {"bbox": [20, 10, 60, 50]}]
    assert "all look like x1, y1, x2, y2" in messages(formats.read(coco_set(tmp_path / "a", *corners)))
    sizes = [{"bbox": [120, 50, 100, 40]}, {"bbox": [20, 10, 40, 40]}]  # one leaves the image
    assert not formats.read(coco_set(tmp_path / "b", *sizes)).problems


def test_an_id_of_two_categories_is_refused(tmp_path):
    categories = [{"id": 1, "name": "ship"}, {"id": 1, "name": "car"}]
    with pytest.raises(UserError, match="category id 1 is that of 'ship' and of 'car'"):
        formats.read(coco_set(tmp_path, {}, categories=categories))


def test_ids_as_text_and_as_numbers_are_equal(tmp_path):
    dataset = formats.read(coco_set(tmp_path, {"image_id": "1", "category_id": "1"}))
    assert (objects(dataset), dataset.problems) == ([("ship", [*BOX])], [])


def test_the_picture_of_an_address_is_found_by_its_name(tmp_path):
    dataset = formats.read(coco_set(tmp_path, {}, name="https://example.org/bucket/a%2Ejpg?key=1&b=2"))
    assert objects(dataset) == [("ship", [*BOX])]


# -- all formats -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ignore", "Ignored Regions", "DontCare"])
def test_classes_that_mark_unknown_ground_are_ignored_regions(name, tmp_path):
    categories = [{"id": 1, "name": "ship"}, {"id": 2, "name": name}]
    root = coco_set(tmp_path, {}, {"category_id": 2, "bbox": [100, 20, 40, 40]}, categories=categories)
    dataset = formats.read(root)
    layout = dataset.samples[0].layout
    assert (dataset.classes, layout.names(), len(layout.ignored)) == (("ship",), ["ship"], 1)
    assert any(name in note for note in dataset.notes)
    asked = formats.read(root, classes=["ship", name])
    assert len(asked.samples[0].layout) == 2


@pytest.mark.parametrize(
    ("pictures", "labels"),
    [
        ("images_{}", "labelTxt_{}"),
        ("{}_images", "{}-labels"),
        ("{0}/{0}imgr", "{0}/{0}labelr"),
        ("{}/images", "{}/labels"),
    ],
)
def test_folders_named_for_content_and_split_correspond(pictures, labels, tmp_path):
    """The same picture name in two splits: each has its own labels."""
    for split, name in (("train", "ship"), ("val", "plane")):
        image(tmp_path / pictures.format(split) / "a.png")
        text(tmp_path / labels.format(split) / "a.txt", " ".join(map(str, QUAD)) + f" {name} 0\n")
    assert formats.splits(tmp_path) == ("train", "val")
    dataset = formats.read(tmp_path)
    found = {s.image.relative_to(tmp_path).parts[0]: s.layout.names() for s in dataset}
    first = [pictures.format(split).split("/")[0] for split in ("train", "val")]
    assert (found, dataset.problems) == ({first[0]: ["ship"], first[1]: ["plane"]}, [])


def test_both_cameras_of_dronevehicle_have_their_own_labels(tmp_path):
    for end, name in (("", "ship"), ("r", "plane")):
        image(tmp_path / f"train/trainimg{end}/1.jpg")
        text(tmp_path / f"train/trainlabel{end}/1.xml", f"<annotation>{PLAIN.replace('ship', name)}</annotation>")
    dataset = formats.read(tmp_path)
    assert {s.image.parent.name: s.layout.names() for s in dataset} == {"trainimg": ["ship"], "trainimgr": ["plane"]}
    assert not dataset.problems


@pytest.mark.parametrize("folder", ["runs/detect/predict/labels", "labels_backup", "results/labels", "old/labels"])
def test_predictions_and_backups_are_not_taken_for_labels(folder, tmp_path):
    root = yolo_set(tmp_path, [f"0 {ROW}"], "names: [ship]\ntrain: images/train\n")
    image(root / "images/train/b.jpg")  # without objects, as YOLO has it
    text(root / folder / "b.txt", f"0 {ROW}\n")
    dataset = formats.read(root)
    assert {sample.name: len(sample.layout) for sample in dataset} == {"0": 1, "b": 0}
    assert "1 label files belong to no image" in messages(dataset)


def test_the_same_label_in_another_folder_of_labels_is_found(tmp_path):
    """The control: labels that are not sorted by split belong to the pictures of their name."""
    root = yolo_set(tmp_path, [f"0 {ROW}"], "names: [ship]\ntrain: images/train\n")
    image(root / "images/train/b.jpg")
    text(root / "labels/b.txt", f"0 {ROW}\n")
    assert {sample.name: len(sample.layout) for sample in formats.read(root)} == {"0": 1, "b": 1}


def test_a_split_is_the_one_of_its_name_or_year(tmp_path):
    content = (coco_set(tmp_path, {}) / "annotations/train.json").read_text()
    for name in ("train", "train2", "val2017"):
        image(tmp_path / f"images/{name}.jpg")
        text(tmp_path / f"annotations/{name}.json", content.replace("a.jpg", f"{name}.jpg"))
    found = {split: [sample.name for sample in formats.read(tmp_path, split=split)] for split in ("train", "val")}
    assert found == {"train": ["train"], "val": ["val2017"]}


def test_folders_of_archivers_and_systems_hold_no_data(tmp_path):
    dota_set(tmp_path, "ship 0")
    for folder in ("__MACOSX", "@eaDir"):
        text(tmp_path / folder / "images/a.png", b"\0\5")
        text(tmp_path / folder / "labelTxt/a.txt", b"\0\5")
    dataset = formats.read(tmp_path)
    assert (len(dataset), dataset.problems) == (1, [])
