"""Folders, names and fields as the tools of the field write them: read truly, or reported; never silently otherwise."""

from __future__ import annotations

import json
import math
import os
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from dataengine import geometry
from dataengine.cli import app
from dataengine.data import coco, formats, rolabelimg, voc, yolo
from dataengine.data.file_index import FileIndex
from dataengine.data.records import NothingUsable
from dataengine.errors import UserError

SIZE = (400, 300)
UPRIGHT = (170, 188, 60, 24)  # x, y, width, height
TURNED = [100, 80, 60, 24, math.radians(20)]
QUAD = geometry.to_corners(np.array([TURNED])).ravel().round(2).tolist()


def hull(polygons: list) -> list[float]:
    """The bbox of a COCO object with these polygons."""
    x, y = [v for p in polygons for v in p[::2]], [v for p in polygons for v in p[1::2]]
    return [min(x), min(y), max(x) - min(x), max(y) - min(y)]


def image(file: Path, grey: int = 90) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", SIZE, (grey, grey, grey)).save(file)
    return file


def text(file: Path, content: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content, "utf-8")
    return file


def coco_file(file: Path, names: list[str], annotations: list[dict] | None = None, **more) -> Path:
    """A COCO file in which each picture has one upright ship, or these annotations."""
    images = [{"id": i, "file_name": name, "width": SIZE[0], "height": SIZE[1]} for i, name in enumerate(names)]
    ships = [{"id": i + 1, "image_id": i, "category_id": 0, "bbox": UPRIGHT} for i in range(len(names))]
    entries = [{"id": i + 1, "image_id": 0, "category_id": 0} | entry for i, entry in enumerate(annotations or [])]
    content = {"images": images, "annotations": entries or ships, "categories": [{"id": 0, "name": "ship"}]} | more
    return text(file, json.dumps(content))


def dota_line(name: str = "ship") -> str:
    return " ".join(map(str, QUAD)) + f" {name} 0\n"


def voc_xml(*objects: str, filename: str = "a.jpg") -> str:
    body = "".join(f"<object><name>ship</name>{inside}</object>" for inside in objects)
    return f"<annotation><filename>{filename}</filename>{body}</annotation>"


def bndbox(x1, y1, x2, y2) -> str:
    return f"<bndbox><xmin>{x1}</xmin><ymin>{y1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox>"


def iou(first, second) -> float:
    pair = np.array([first], np.float32), np.array([second], np.float32)
    return float(geometry.iou(*pair)[0, 0])


def layouts(root: Path, **options) -> dict[str, list]:
    """Boxes of each picture by its path, of a data set that is read without problems."""
    dataset = formats.read(root, **options)
    assert dataset.problems == []
    return {s.image.relative_to(root).as_posix(): s.layout.boxes.tolist() for s in dataset}


# -- where pictures and labels lie ------------------------------------------------------------------------------------

YOLO_ROW, OBB_ROW = "0 0.5 0.6667 0.15 0.08", "0 0.1 0.1 0.2 0.1 0.2 0.2 0.1 0.2"
YAML = "names: [ship]\ntrain: images/train\nval: images/val\n"
PLACES = {  # name: (format, pictures, label files {path: content})
    "dota": ("dota", ["images/a.png"], {"labelTxt/a.txt": dota_line()}),
    "dota in parts": ("dota", ["train/images/part1/a.png"], {"train/labelTxt/a.txt": dota_line()}),
    "dota nested": ("dota", ["train/images/c1/a.png", "train/images/c2/a.png"],
                    {"train/labelTxt/c1/a.txt": dota_line(), "train/labelTxt/c2/a.txt": dota_line()}),
    "dota of ultralytics": ("dota", ["images/train/a.jpg"], {"labels/train_original/a.txt": dota_line()}),
    "dota in labels": ("dota", ["images/a.jpg"], {"labels/a.txt": dota_line()}),
    "dota beside": ("dota", ["a.png"], {"a.txt": dota_line()}),
    "dota of roboflow": ("dota", ["train/images/a.jpg", "valid/images/b.jpg"],
                         {"train/labelTxt/a.txt": dota_line(), "valid/labelTxt/b.txt": dota_line(),
                          "data.yaml": "names: [ship]\ntrain: ../train/images\nval: ../valid/images\n"}),
    "yolo": ("yolo", ["images/train/a.jpg"], {"labels/train/a.txt": YOLO_ROW, "data.yaml": YAML.rsplit("val")[0]}),
    "yolo of cvat": ("yolo", ["obj_train_data/a.jpg"],
                     {"obj_train_data/a.txt": YOLO_ROW, "obj.names": "ship\n", "train.txt": "data/obj_train_data/a.jpg",
                      "obj.data": "classes = 1\ntrain = data/train.txt\nnames = data/obj.names\n"}),
    "yolo of label studio": ("yolo", ["images/a.jpg"],
                             {"labels/a.txt": OBB_ROW, "classes.txt": "ship\n",
                              "notes.json": '{"categories": [{"id": 0, "name": "ship"}], "info": {"year": 2024}}'}),
    "voc": ("voc", ["JPEGImages/a.jpg"], {"Annotations/a.xml": voc_xml(bndbox(5, 5, 20, 20))}),
    "voc of kaggle": ("voc", ["images/a.png"], {"annotations/a.xml": voc_xml(bndbox(5, 5, 20, 20))}),
    "voc by split": ("voc", ["train/images/a.png", "val/images/a.png"],
                     {f"{part}/Annotations/a.xml": voc_xml(bndbox(5, 5, 20, 20)) for part in ("train", "val")}),
    "voc nested": ("voc", ["JPEGImages/f1/a.jpg"], {"Annotations/f1/a.xml": voc_xml(bndbox(5, 5, 20, 20))}),
    "voc in xml": ("voc", ["images/a.jpg"], {"xml/a.xml": voc_xml(bndbox(5, 5, 20, 20))}),
    "voc in voc_labels": ("voc", ["pics/a.jpg"], {"voc_labels/a.xml": voc_xml(bndbox(5, 5, 20, 20))}),
    "voc in ann": ("voc", ["img/a.jpg"], {"ann/a.xml": voc_xml(bndbox(5, 5, 20, 20))}),
    "voc in boxes": ("voc", ["photos/a.jpg"], {"boxes/a.xml": voc_xml(bndbox(5, 5, 20, 20))}),
    "voc in xml by split": ("voc", ["images/train/a.png", "images/val/a.png"],
                            {f"xml/{part}/a.xml": voc_xml(bndbox(5, 5, 20, 20)) for part in ("train", "val")}),
    "voc beside images": ("voc", ["images/a.jpg"], {"images/a.xml": voc_xml(bndbox(5, 5, 20, 20))}),
    "csv": ("csv", ["images/a.jpg"], {"labels.csv": "image,xmin,ymin,xmax,ymax,class\na.jpg,5,5,20,20,ship\n"}),
    "csv of retinanet": ("csv", ["a.jpg"], {"train.csv": "a.jpg,5,5,20,20,ship\n", "classes.csv": "ship,0\n"}),
    "voc beside": ("voc", ["a.jpg"], {"a.xml": voc_xml(bndbox(5, 5, 20, 20))}),
}  # fmt: skip


@pytest.mark.parametrize("name", PLACES)
def test_labels_are_found_in_the_folders_of_the_fields_tools(name, tmp_path):
    format, pictures, labels = PLACES[name]
    for picture in pictures:
        image(tmp_path / picture)
    for file, content in labels.items():
        text(tmp_path / file, content)
    assert formats.recognize(tmp_path) == format
    if name.startswith("voc in") and "split" not in name:
        assert formats.splits(tmp_path) == (), "a folder named for labels is no split"
    found = layouts(tmp_path)
    assert {picture: len(boxes) for picture, boxes in found.items()} == dict.fromkeys(pictures, 1)


@pytest.mark.parametrize("name", [name for name, (format, _, _) in PLACES.items() if format != "yolo"])
def test_without_its_label_folder_no_picture_counts_as_empty(name, tmp_path):
    """The control: the same pictures without the labels are refused, not read as pictures without objects."""
    format, pictures, _ = PLACES[name]
    for picture in pictures:
        image(tmp_path / picture)
    with pytest.raises(UserError):
        formats.read(tmp_path, format)


def test_a_split_without_any_label_file_is_a_problem_with_the_path_that_was_tried(tmp_path):
    for name in ("a", "b"):
        image(tmp_path / f"images/train/{name}.jpg")
        text(tmp_path / f"annos/train/{name}.txt", YOLO_ROW)
    text(tmp_path / "data.yaml", YAML.rsplit("val")[0])
    result = CliRunner().invoke(app, ["data", "check", str(tmp_path)])
    assert result.exit_code == 1
    assert "none of the 2 images of train has a label file; labels/train/a.txt was looked for" in result.output
    text(tmp_path / "labels/train/a.txt", YOLO_ROW)
    assert len(formats.read(tmp_path)) == 2, "one image without a label file among others has no objects"


def test_horizontal_boxes_of_dota_are_used_only_without_rotated_ones(tmp_path):
    image(tmp_path / "train/images/a.png")
    text(tmp_path / "train/labelTxt-v1.0/labelTxt/a.txt", dota_line())
    upright = text(tmp_path / "train/labelTxt-v1.0/Train_Task2_gt/trainset_reclabelTxt/a.txt", dota_line("plane"))
    assert [s.layout.names() for s in formats.read(tmp_path)] == [["ship"]]
    (tmp_path / "train/labelTxt-v1.0/labelTxt/a.txt").unlink()
    assert upright.exists()
    assert [s.layout.names() for s in formats.read(tmp_path)] == [["plane"]]


def test_label_files_of_two_formats_are_not_chosen_between(tmp_path):
    image(tmp_path / "images/a.png")
    text(tmp_path / "labelTxt/a.txt", dota_line())
    coco_file(tmp_path / "annotations.json", ["a.png"])
    with pytest.raises(UserError, match=r"several formats \(coco, dota\); choose one with --format"):
        formats.read(tmp_path)
    assert formats.read(tmp_path, "dota").kind == "obb"
    assert formats.read(tmp_path, "coco").kind == "hbb"


@pytest.mark.parametrize("entry", ["a", "a.png", "a.jpg", "a.xml"])
def test_image_lists_may_state_a_suffix(entry, tmp_path):
    for name in ("a", "b"):
        image(tmp_path / f"JPEGImages/{name}.png")
        text(tmp_path / f"Annotations/{name}.xml", voc_xml(bndbox(5, 5, 20, 20)))
    text(tmp_path / "ImageSets/Main/val.txt", f"{entry}\n")
    assert list(layouts(tmp_path, split="val")) == ["JPEGImages/a.png"]


def test_pictures_in_the_folder_of_the_standard_name_come_first(tmp_path):
    for folder, grey in (("JPEGImages", 200), ("JPEGImages_ir", 10)):
        image(tmp_path / folder / "a.jpg", grey)
    text(tmp_path / "Annotations/a.xml", voc_xml(bndbox(5, 5, 20, 20)))
    assert list(layouts(tmp_path)) == ["JPEGImages/a.jpg"]


# -- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stated", "stored"),
    [
        ("images\\a.jpg", "images/a.jpg"),
        ("a.jpg", "images/train/A.JPG"),
        ("a.jpg", "data/a.jpg"),
        ("city/a.jpg", "images/city/a.jpg"),
        ("/content/set/train/a.jpg", "train/a.jpg"),
        ("C:\\set\\train\\a.jpg", "train/a.jpg"),
        (unicodedata.normalize("NFC", "Zürich.jpg"), "images/" + unicodedata.normalize("NFD", "Zürich.jpg")),
        (unicodedata.normalize("NFD", "Zürich.jpg"), "images/" + unicodedata.normalize("NFC", "Zürich.jpg")),
    ],
)
def test_a_stated_name_finds_its_picture(stated, stored, tmp_path):
    image(tmp_path / stored)
    image(tmp_path / "images" / "other.jpg")
    coco_file(tmp_path / "annotations/train.json", [stated])
    assert list(layouts(tmp_path)) == [stored]


def test_of_two_pictures_that_fit_none_is_chosen(tmp_path):
    for folder in ("north", "south"):
        image(tmp_path / folder / "a.jpg")
    coco_file(tmp_path / "result.json", ["a.jpg"])
    with pytest.raises(NothingUsable, match=r"may be north/a\.jpg or south/a\.jpg; state its folder"):
        formats.read(tmp_path)
    coco_file(tmp_path / "result.json", ["south/a.jpg"])
    assert list(layouts(tmp_path)) == ["south/a.jpg"]


def test_a_picture_of_another_split_is_not_taken(tmp_path):
    image(tmp_path / "images/train/a.jpg")
    coco_file(tmp_path / "annotations/val.json", ["a.jpg"])
    with pytest.raises(NothingUsable, match=r"is missing.*images/train/a\.jpg has another folder"):
        formats.read(tmp_path)


@pytest.mark.parametrize("stated", ["../private/x.jpg", "/etc/x.jpg", "images/../../private/x.jpg"])
def test_no_name_leads_out_of_the_folder(stated, tmp_path):
    image(tmp_path / "private/x.jpg")
    image(tmp_path / "set/images/a.jpg")
    coco_file(tmp_path / "set/result.json", [stated])
    with pytest.raises(NothingUsable, match="leads out of"):
        formats.read(tmp_path / "set")


def test_data_yaml_does_not_lead_out_of_its_folder(tmp_path):
    image(tmp_path / "other/images/a.jpg")
    text(tmp_path / "other/labels/a.txt", YOLO_ROW)
    text(tmp_path / "set/data.yaml", "names: [ship]\npath: ../other\ntrain: images\n")
    with pytest.raises(UserError, match="lies outside of this folder"):
        formats.read(tmp_path / "set")


def test_the_same_stem_with_another_suffix_is_another_picture_in_coco(tmp_path):
    for suffix in ("jpg", "tif"):
        image(tmp_path / f"images/0001.{suffix}")
    coco_file(tmp_path / "annotations/train.json", ["0001.jpg", "0001.tif"])
    dataset = formats.read(tmp_path)
    assert dataset.problems == []
    assert sorted(sample.image.name for sample in dataset) == ["0001.jpg", "0001.tif"]
    assert len({sample.name for sample in dataset}) == 2


def test_names_that_are_no_utf8_are_written_readably_in_every_format(tmp_path):
    stored = image(tmp_path / "in/images/b.png").rename(os.fsdecode(os.fsencode(tmp_path) + b"/in/images/caf\xe9.png"))
    (tmp_path / "in/labelTxt").mkdir()
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/in/labelTxt/caf\xe9.txt")).write_text(dota_line())
    dataset = formats.read(tmp_path / "in")
    assert [sample.name for sample in dataset] == ["caf_xE9"]
    assert stored == dataset.samples[0].image
    for format in ("coco", "voc", "yolo", "dota", "dior", "hit-uav"):
        assert formats.write(dataset, tmp_path / format, format) == []
        assert [len(sample.layout) for sample in formats.read(tmp_path / format, format)] == [1]


def test_an_index_without_folding_would_not_find_the_picture(tmp_path, monkeypatch):
    """The mutation of the tests above: names are compared as they are."""
    from dataengine.data import file_index

    image(tmp_path / "images/A.JPG")
    assert FileIndex(tmp_path).find("a.jpg", near=tmp_path / "a.json").name == "A.JPG"
    monkeypatch.setattr(file_index, "_parts", lambda name: tuple(name.split("/")))
    with pytest.raises(ValueError, match="missing"):
        FileIndex(tmp_path).find("a.jpg", near=tmp_path / "a.json")


# -- geometry in the file ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("segmentation", "expected"),
    [
        ([QUAD + QUAD[:2]], TURNED),  # closed
        ([[*QUAD[:2], *np.mean([QUAD[:2], QUAD[2:4]], axis=0), *QUAD[2:]]], TURNED),  # five points
        ([], [200, 200, 60, 24, 0]),
        ([[10, 10, 40, 10, 40, 22, 10, 22], [60, 10, 70, 10, 70, 22, 60, 22]], [40, 16, 60, 12, 0]),  # two parts
    ],
)
def test_one_odd_polygon_does_not_make_a_rotated_set_horizontal(segmentation, expected, tmp_path):
    image(tmp_path / "images/a.png")
    quads = [{"bbox": hull([QUAD]), "segmentation": [QUAD]}] * 3
    odd = {"bbox": hull(segmentation) if segmentation else UPRIGHT, "segmentation": segmentation}
    coco_file(tmp_path / "annotations/train.json", ["a.png"], [*quads, odd])
    dataset = coco.read(tmp_path)
    boxes = dataset.samples[0].layout.boxes
    assert dataset.kind == "obb"
    assert [round(iou(box, TURNED), 3) for box in boxes[:3]] == [1, 1, 1]
    assert iou(boxes[3], expected) > 0.999
    assert ["its upright bbox is used" in str(p) for p in dataset.problems] == ([True] if not segmentation else [])


def test_a_flat_polygon_is_reported_and_the_others_stay_rotated(tmp_path):
    image(tmp_path / "images/a.png")
    flat = {"bbox": [1, 1, 8, 0], "segmentation": [[1, 1, 9, 1, 5, 1, 3, 1, 2, 1]]}
    quads = [{"bbox": hull([QUAD]), "segmentation": [QUAD]}] * 3
    coco_file(tmp_path / "annotations/train.json", ["a.png"], [*quads, flat])
    dataset = coco.read(tmp_path)
    assert (dataset.kind, len(dataset.samples[0].layout)) == ("obb", 3)
    assert [problem.objects for problem in dataset.problems] == [1]


def test_masks_do_not_make_a_horizontal_set_rotated(tmp_path):
    image(tmp_path / "images/a.png")
    mask = {"bbox": UPRIGHT, "segmentation": [[170, 188, 200, 190, 230, 188, 225, 212, 180, 210]]}
    chance = {"bbox": UPRIGHT, "segmentation": [QUAD]}
    coco_file(tmp_path / "annotations/train.json", ["a.png"], [mask, mask, chance])
    dataset = coco.read(tmp_path)
    assert dataset.kind == "hbb"
    assert dataset.samples[0].layout.boxes.tolist() == [[200, 200, 60, 24, 0]] * 3


def test_cvats_rotation_is_used_in_coco_and_voc(tmp_path):
    image(tmp_path / "coco/images/a.png")
    turned = {"bbox": [70, 68, 60, 24], "segmentation": [], "attributes": {"rotation": 20.0}}
    straight = {"bbox": UPRIGHT, "segmentation": [], "attributes": {"rotation": 0.0}}
    coco_file(tmp_path / "coco/annotations/train.json", ["a.png"], [turned, straight])
    image(tmp_path / "voc/JPEGImages/a.jpg")
    attribute = "<attributes><attribute><name>rotation</name><value>20.0</value></attribute></attributes>"
    text(tmp_path / "voc/Annotations/a.xml", voc_xml(bndbox(71, 69, 130, 92) + attribute, bndbox(171, 189, 230, 212)))
    for name in ("coco", "voc"):
        dataset = formats.read(tmp_path / name)
        assert (dataset.format, dataset.kind, dataset.problems) == (name, "obb", [])
        first, second = dataset.samples[0].layout.boxes
        assert iou(first, TURNED) > 0.999
        assert iou(second, [200, 200, 60, 24, 0]) > 0.999


def test_a_field_that_could_turn_a_box_and_is_not_read_is_reported(tmp_path):
    image(tmp_path / "images/a.png")
    coco_file(tmp_path / "annotations/train.json", ["a.png"], [{"bbox": UPRIGHT, "theta": 0.4}])
    [problem] = coco.read(tmp_path).problems
    assert "annotations have theta, which is not read" in problem.message


def test_polygons_of_dronevehicle(tmp_path):
    image(tmp_path / "JPEGImages/a.jpg")
    tags = [f"{axis}{i}" for i in (1, 2, 3, 4) for axis in "xy"]
    points = "".join(f"<{tag}>{value}</{tag}>" for tag, value in zip(tags, QUAD, strict=True))
    text(tmp_path / "Annotations/a.xml", voc_xml(f"<polygon>{points}</polygon>", bndbox(171, 189, 230, 212)))
    dataset = formats.read(tmp_path)
    assert (dataset.format, dataset.kind, dataset.problems) == ("voc", "obb", [])
    assert iou(dataset.samples[0].layout.boxes[0], TURNED) > 0.999
    assert dataset.samples[0].layout.boxes[1].tolist() == [200, 200, 60, 24, 0]


def _robndbox(*angles: float) -> str:
    box = "<cx>100</cx><cy>80</cy><w>60</w><h>24</h>"
    return voc_xml(*(f"<robndbox>{box}<angle>{angle}</angle></robndbox>" for angle in angles))


def test_degrees_of_rolabelimg_are_noticed(tmp_path):
    image(tmp_path / "a.jpg")
    text(tmp_path / "a.xml", _robndbox(20, 90, 0))
    dataset = rolabelimg.read(tmp_path)
    assert iou(dataset.samples[0].layout.boxes[0], TURNED) > 0.999
    assert ["read as degrees" in str(problem) for problem in dataset.problems] == [True]
    text(tmp_path / "a.xml", _robndbox(math.radians(20), 1.2, 20))
    dataset = rolabelimg.read(tmp_path)
    assert iou(dataset.samples[0].layout.boxes[0], TURNED) > 0.999
    assert len(dataset.samples[0].layout) == 2
    assert [(problem.objects, "full turn" in str(problem)) for problem in dataset.problems] == [(1, True)]


def test_polygons_of_yolo_become_the_box_around_them(tmp_path):
    image(tmp_path / "images/a.jpg")
    middle = np.mean([QUAD[:2], QUAD[2:4]], axis=0)
    points = np.array([QUAD[:2], middle, *np.reshape(QUAD[2:], (3, 2))]) / SIZE
    text(tmp_path / "labels/a.txt", "0 " + " ".join(map(str, points.ravel())))
    text(tmp_path / "classes.txt", "ship")
    dataset = yolo.read(tmp_path)
    assert (dataset.kind, dataset.problems) == ("obb", [])
    assert iou(dataset.samples[0].layout.boxes[0], TURNED) > 0.999


# -- whose objects they are --------------------------------------------------------------------------------------------


def test_an_id_of_two_pictures_is_not_guessed(tmp_path):
    for name in ("a", "b", "c"):
        image(tmp_path / f"images/{name}.png")
    file = coco_file(tmp_path / "annotations/train.json", ["a.png", "b.png", "c.png"])
    content = json.loads(file.read_text())
    content["images"][1]["id"] = 0
    file.write_text(json.dumps(content))
    dataset = coco.read(tmp_path)
    assert [sample.name for sample in dataset] == ["c"]
    assert any("image id 0 is that of 'a' and of 'b'" in str(problem) for problem in dataset.problems)
    assert sum(problem.objects for problem in dataset.problems) == 2


@pytest.mark.parametrize("field", ["iscrowd", "ignore"])
def test_crowds_and_ignored_objects_are_ignored_regions(field, tmp_path):
    image(tmp_path / "images/a.png")
    coco_file(tmp_path / "annotations/train.json", ["a.png"], [{"bbox": UPRIGHT}, {"bbox": [0, 0, 140, 120], field: 1}])
    layout = coco.read(tmp_path).samples[0].layout
    assert (len(layout), layout.ignored.tolist()) == (1, [[70, 60, 140, 120, 0]])


@pytest.mark.parametrize("tag", ["difficult", "Difficult"])
def test_difficult_in_any_spelling(tag, tmp_path):
    image(tmp_path / "JPEGImages/a.jpg")
    text(tmp_path / "Annotations/a.xml", voc_xml(bndbox(5, 5, 20, 20) + f"<{tag}>1</{tag}>", bndbox(50, 50, 70, 70)))
    assert voc.read(tmp_path).samples[0].layout.difficult.tolist() == [True, False]


@pytest.mark.parametrize("format", ["dota", "yolo"])
def test_a_picture_with_unreadable_labels_is_left_out(format, tmp_path):
    folder, line = ("labelTxt", dota_line()) if format == "dota" else ("labels", YOLO_ROW)
    for name in ("a", "b"):
        image(tmp_path / f"images/{name}.png")
        text(tmp_path / f"{folder}/{name}.txt", line)
    text(tmp_path / "classes.txt", "ship")
    (tmp_path / folder / "a.txt").write_bytes(line.encode() + line.replace("ship", "船").encode("gbk") + b"\xb4\n")
    dataset = formats.read(tmp_path, format)
    assert [sample.name for sample in dataset] == ["b"]
    assert [problem.path.name for problem in dataset.problems if problem.objects] == ["a.txt"]


# -- the first pixel of VOC --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("first", "expected"), [(0, [0, 10, 40, 30]), (1, [0, 9, 40, 30])])
def test_boxes_at_the_border_tell_the_first_pixel(first, expected, tmp_path):
    image(tmp_path / "JPEGImages/a.jpg")
    text(tmp_path / "Annotations/a.xml", voc_xml(bndbox(first, 10, 40, 30), bndbox(50, 60, 90, 80)))
    dataset = voc.read(tmp_path)
    assert geometry.to_aabb(dataset.samples[0].layout.boxes)[0].tolist() == expected
    assert bool(dataset.notes) == (first == 0), "the rule that differs from VOC's own is stated"
    stated = voc.read(tmp_path, first_pixel=1 - first)
    assert geometry.to_aabb(stated.samples[0].layout.boxes)[1].tolist() == [50 - (1 - first), 60 - (1 - first), 90, 80]


def test_the_first_pixel_is_printed_and_can_be_stated(tmp_path):
    image(tmp_path / "JPEGImages/a.jpg")
    text(tmp_path / "Annotations/a.xml", voc_xml(bndbox(0, 10, 40, 30)))
    run = CliRunner().invoke
    result = run(app, ["data", "convert", str(tmp_path), str(tmp_path.parent / "out"), "--to", "coco"])
    assert "pixels are counted from 0, since 1 boxes begin at 0" in " ".join(result.output.split())
    assert json.loads((tmp_path.parent / "out/annotations/train.json").read_text())["annotations"][0]["bbox"] == [
        0,
        10,
        40,
        20,
    ]
    text(tmp_path / "yolo/classes.txt", "ship")
    image(tmp_path / "yolo/images/a.jpg")
    text(tmp_path / "yolo/labels/a.txt", YOLO_ROW)
    result = run(app, ["data", "info", str(tmp_path / "yolo"), "--first-pixel", "0"])
    assert "a question of VOC only" in str(result.exception)
