"""What other libraries make of the written files: pycocotools, albumentations, Ultralytics, supervision.

Ultralytics and supervision are not dependencies. Their tests run with those of mmrotate, in the environment that
.ci/run makes (docs/mmrotate.md).
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import shapely
import yaml
from PIL import Image

from dataengine import geometry
from dataengine.data import coco, formats, voc, yolo
from dataengine.data.border import inside_image
from dataengine.data.layout import Layout
from dataengine.errors import UserError

SIZE = (200, 150)
CUT = [(5, 75, 40, 20, 0.5), (-6, 40, 40, 30, -0.7), (196, 147, 40, 16, 0.8), (100, 75, 260, 30, 0.6)]
INSIDE = [(60, 100, 30, 10, 1.2), (150, 60, 20.5, 12.25, -0.3)]
UPRIGHT = [(0, 75, 40, 20, 0), (195, 140, 30, 30, 0), (60, 60, 20, 10, 0)]
REGION = (120, 30, 30, 16, 0.3)


def visible_part(box) -> shapely.Polygon:
    return shapely.box(0, 0, *SIZE).intersection(shapely.Polygon(geometry.to_corners(box)[0]))


def boxes_of(kind: str) -> list:
    return [*CUT, *INSIDE] if kind == "obb" else UPRIGHT


# COCO


@pytest.mark.parametrize("kind", ["obb", "hbb"])
def test_pycocotools_makes_a_mask_of_every_annotation(kind, make_dataset, tmp_path):
    from pycocotools.coco import COCO

    region = (*REGION[:4], REGION[4] * (kind == "obb"))
    dataset = make_dataset(tmp_path / "in", [boxes_of(kind), []], kind=kind, ignored=[region])
    coco.write(dataset, tmp_path / "out")
    api = COCO(str(tmp_path / "out/annotations/train.json"))
    entries = api.loadAnns(api.getAnnIds(imgIds=[1], iscrowd=False))
    assert len(entries) == len(boxes_of(kind))
    for entry, box in zip(entries, boxes_of(kind), strict=True):
        mask = api.annToMask(entry)
        assert mask.shape == SIZE[::-1]
        part, outline = visible_part(box), 2 * (box[2] + box[3])
        assert int(mask.sum()) == pytest.approx(
            part.area, abs=0.6 * outline
        )  # masks of polygons are thick by half a pixel
    crowds = api.loadAnns(api.getAnnIds(imgIds=[2], iscrowd=True))
    assert [entry["category_id"] for entry in crowds] == [1, 2, 3], "the second image shows a region alone"
    for entry in crowds:
        assert int(api.annToMask(entry).sum()) == pytest.approx(30 * 16, abs=60)


def test_an_empty_polygon_list_has_no_mask_as_the_writer_knows(make_dataset, tmp_path):
    from pycocotools.coco import COCO

    coco.write(make_dataset(tmp_path / "in", [UPRIGHT], kind="hbb"), tmp_path / "out")
    file = tmp_path / "out/annotations/train.json"
    content = json.loads(file.read_text())
    content["annotations"][0]["segmentation"] = []
    file.write_text(json.dumps(content))
    api = COCO(str(file))
    with pytest.raises(IndexError):
        api.annToMask(api.loadAnns([1])[0])


def test_pycocotools_does_not_count_a_detection_on_an_ignored_region(make_dataset, tmp_path):
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    dataset = make_dataset(tmp_path / "in", [[INSIDE[0]]], ignored=[REGION])
    coco.write(dataset, tmp_path / "out")

    def ap(boxes: list) -> float:
        api = COCO(str(tmp_path / "out/annotations/train.json"))
        found = [{"image_id": 1, "category_id": 1, "bbox": box, "score": 1 - 0.1 * i} for i, box in enumerate(boxes)]
        evaluation = COCOeval(api, api.loadRes(found), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        return evaluation.stats[1]

    x1, y1, x2, y2 = geometry.to_aabb(INSIDE[0])[0].tolist()
    there = [x1, y1, x2 - x1, y2 - y1]
    assert ap([[110, 25, 20, 12], there]) == pytest.approx(1.0)
    assert ap([[10, 25, 20, 12], there]) < 0.9, "control: a detection elsewhere is false"


@pytest.mark.parametrize("kind", ["obb", "hbb"])
@pytest.mark.parametrize("format", ["coco", "pascal_voc"])
def test_albumentations_takes_the_boxes_of_every_image_without_clipping(format, kind, make_dataset, tmp_path):
    import albumentations as A

    rng = np.random.default_rng(1)
    w = rng.uniform(8, 60, (6, 30))
    x, y, h = rng.uniform(0, 200, w.shape), rng.uniform(0, 150, w.shape), w * rng.uniform(0.3, 1, w.shape)
    boxes = np.stack([x, y, w, h, rng.uniform(-1.5, 1.5, w.shape) * (kind == "obb")], axis=-1)
    dataset = make_dataset(tmp_path / "in", [*boxes, boxes_of(kind)], kind=kind)
    transform = A.Compose([A.HorizontalFlip(p=1)], bbox_params=A.BboxParams(format, label_fields=["labels"]))
    if format == "coco":
        left_out = coco.write(dataset, tmp_path / "out")
        content = json.loads((tmp_path / "out/annotations/train.json").read_text())
        found = [[e["bbox"] for e in content["annotations"] if e["image_id"] == i["id"]] for i in content["images"]]
    else:
        left_out = voc.write(dataset, tmp_path / "out")
        found = [
            [[float(box.findtext(field)) for field in ("xmin", "ymin", "xmax", "ymax")] for box in tree.iter("bndbox")]
            for tree in map(ElementTree.parse, sorted((tmp_path / "out/Annotations").glob("*.xml")))
        ]
    assert sum(map(len, found)) + len(left_out) == 180 + len(boxes_of(kind))
    for rows in found:
        done = transform(image=np.zeros((150, 200, 3), np.uint8), bboxes=rows, labels=[0] * len(rows))
        assert len(done["bboxes"]) == len(rows)
    outside = [[-5, 20, 30, 30]] if format == "coco" else [[-5, 20, 25, 50]]
    with pytest.raises(ValueError, match="Expected"):
        transform(image=np.zeros((150, 200, 3), np.uint8), bboxes=outside, labels=[0])


# YOLO


def test_data_yaml_needs_no_working_directory_and_says_what_stands_in(make_dataset, tmp_path):
    """Keys as `check_det_dataset` of Ultralytics 8 wants them: train and val are there, and without `path` the images
    are looked for from the folder of the file."""
    dataset = make_dataset(tmp_path / "in", [INSIDE])
    yolo.write(dataset, tmp_path / "out", split="train")
    text = (tmp_path / "out/data.yaml").read_text()
    content = yaml.safe_load(text)
    assert "path" not in content
    assert content["train"] == content["val"] == "images/train"
    assert "# val: is the training images again, since there is no split for validation" in text
    assert formats.splits(tmp_path / "out") == ("train",)
    assert len(formats.read(tmp_path / "out")) == 1, "no image is read twice"
    yolo.write(dataset, tmp_path / "out", split="valid")
    text = (tmp_path / "out/data.yaml").read_text()
    assert yaml.safe_load(text) | {"names": 0, "box_kind": 0} == {
        "train": "images/train", "val": "images/valid", "names": 0, "box_kind": 0
    }  # fmt: skip
    assert "#" not in text
    assert len(formats.read(tmp_path / "out")) == 2


@pytest.mark.parametrize(
    ("splits", "keys"),
    [
        (["test"], {"train": None, "val": None, "test": "images/test"}),
        (["val"], {"train": None, "val": "images/val"}),
        (["calibration"], {"train": "images/calibration", "val": "images/calibration"}),
        (["a", "b"], {"train": ["images/a", "images/b"], "val": ["images/a", "images/b"]}),
        (["train", "test"], {"train": "images/train", "val": "images/train", "test": "images/test"}),
    ],
)
def test_any_splits_have_the_keys_that_ultralytics_requires(splits, keys, make_dataset, tmp_path):
    for split in splits:
        dataset = make_dataset(tmp_path / split, [INSIDE, []])
        dataset.samples = [replace(sample, name=f"{split}-{sample.name}") for sample in dataset]
        yolo.write(dataset, tmp_path / "out", split=split)
    content = yaml.safe_load((tmp_path / "out/data.yaml").read_text())
    assert content | keys == content
    assert len(formats.read(tmp_path / "out")) == 2 * len(splits)


def test_yolo_obb_of_a_horizontal_set_has_corners_and_yolo_says_that_it_has_none(make_dataset, tmp_path):
    dataset = make_dataset(tmp_path / "in", [UPRIGHT], kind="hbb")
    formats.write(dataset, tmp_path / "upright", "yolo")
    formats.write(dataset, tmp_path / "rotated", "yolo-obb")
    widths = {
        name: {len(line.split()) for line in (tmp_path / name / "labels/train/image_0.txt").read_text().splitlines()}
        for name in ("upright", "rotated")
    }
    assert widths == {"upright": {5}, "rotated": {9}}
    assert formats.read(tmp_path / "upright").kind == "hbb"
    assert formats.read(tmp_path / "rotated").kind == "obb"
    assert "with horizontal labels (class cx cy w h)" in formats.labels_written(dataset, "yolo")
    assert formats.labels_written(dataset, "yolo-obb").startswith("yolo-obb format, with rotated labels")
    assert any("boxes are horizontal" in loss for loss in formats.losses(dataset, "yolo-obb"))
    with pytest.raises(UserError, match="has obb boxes, not hbb"):
        formats.write(dataset, tmp_path / "rotated", "yolo", split="val")


def _ultralytics(folder: Path, task: str, split: str, monkeypatch, elsewhere: Path):
    """The images of a split as Ultralytics trains on them without augmentation, from another working directory."""
    pytest.importorskip("ultralytics")
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    from ultralytics.cfg import get_cfg
    from ultralytics.data import utils
    from ultralytics.data.dataset import YOLODataset

    monkeypatch.setattr(utils, "check_font", lambda *arguments: None)  # which would be downloaded
    data = utils.check_det_dataset(str(folder / "data.yaml"))
    settings = get_cfg(overrides={"task": task, "imgsz": 200})
    loaded = YOLODataset(
        img_path=data[split], imgsz=200, data=data, task=task, augment=False, hyp=settings, rect=False, batch_size=1
    )
    return data, loaded


def _rotated(item: dict, size: int = 200) -> np.ndarray:
    """le90 boxes in pixels of a 200 x 150 image, which is padded to a square of 200."""
    boxes = item["bboxes"].numpy().astype(float)
    boxes[:, :4] *= size
    boxes[:, 1] -= 25
    return geometry.regularize(boxes)


@pytest.mark.mmrotate
def test_ultralytics_loads_yolo_obb_with_every_box_from_anywhere(make_dataset, tmp_path, monkeypatch):
    rng = np.random.default_rng(4)
    w = rng.uniform(10, 70, 60)
    places = np.column_stack([rng.uniform(0, 200, 60), rng.uniform(0, 150, 60)])
    many = np.column_stack([places, w, w * rng.uniform(0.3, 0.9, 60), rng.uniform(-1.5, 1.5, 60)])
    dataset = make_dataset(tmp_path / "in", [[*CUT, *INSIDE], many, []])
    left_out = yolo.write(dataset, tmp_path / "out")
    data, loaded = _ultralytics(tmp_path / "out", "obb", "val", monkeypatch, tmp_path / "elsewhere")
    assert data["names"] == {0: "plane", 1: "large ship", 2: "Car"}
    assert len(loaded) == 3, "no image is dropped as corrupt"
    worst, total = 1.0, 0
    for item, sample in zip((loaded[i] for i in range(3)), dataset, strict=True):
        rule, _ = inside_image(sample.layout)
        found = _rotated(item)
        total += len(found)
        assert len(found) == len(rule)
        if len(rule):
            shared = geometry.iou(found, rule.boxes).max(axis=0)  # Ultralytics may order them otherwise
            worst = min(worst, shared.min())
    assert total == 66 - len(left_out)
    assert worst > 0.999
    back = formats.read(tmp_path / "out")
    for sample, before in zip(back, dataset, strict=True):
        rule, _ = inside_image(before.layout)
        if len(rule):
            assert geometry.iou_pairs(sample.layout.boxes, rule.boxes).min() > 0.999


@pytest.mark.mmrotate
def test_ultralytics_loads_horizontal_labels_from_anywhere(make_dataset, tmp_path, monkeypatch):
    dataset = make_dataset(tmp_path / "in", [UPRIGHT], kind="hbb")
    yolo.write(dataset, tmp_path / "out")
    _, loaded = _ultralytics(tmp_path / "out", "detect", "train", monkeypatch, tmp_path / "elsewhere")
    boxes = loaded[0]["bboxes"].numpy() * 200 - [0, 25, 0, 0]
    rule, _ = inside_image(dataset.samples[0].layout)
    wanted = geometry.to_aabb(rule.boxes)
    found = np.concatenate([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], axis=1)
    assert found == pytest.approx(wanted, abs=1e-3)


@pytest.mark.mmrotate
def test_ultralytics_fails_without_val_as_the_writer_knows(make_dataset, tmp_path, monkeypatch):
    yolo.write(make_dataset(tmp_path / "in", [INSIDE]), tmp_path / "out")
    file = tmp_path / "out/data.yaml"
    file.write_text("\n".join(line for line in file.read_text().splitlines() if not line.startswith("val:")))
    with pytest.raises(SyntaxError, match="val"):
        _ultralytics(tmp_path / "out", "obb", "train", monkeypatch, tmp_path / "elsewhere")


@pytest.mark.mmrotate
def test_supervision_reads_the_corners_of_yolo_obb(make_dataset, tmp_path):
    supervision = pytest.importorskip("supervision")
    dataset = make_dataset(tmp_path / "in", [[*CUT[:3], *INSIDE]])
    yolo.write(dataset, tmp_path / "out")
    read = supervision.DetectionDataset.from_yolo(
        images_directory_path=str(tmp_path / "out/images/train"),
        annotations_directory_path=str(tmp_path / "out/labels/train"),
        data_yaml_path=str(tmp_path / "out/data.yaml"),
        is_obb=True,
    )
    [(_, _, found)] = list(read)
    rule, _ = inside_image(dataset.samples[0].layout)
    boxes = geometry.from_corners(found.data["xyxyxyxy"])
    assert geometry.iou_pairs(boxes, rule.boxes).min() > 0.999


# ignored regions in formats that have none


@pytest.mark.parametrize("format", ["yolo", "voc", "dior", "hrsc", "rolabelimg"])
def test_a_format_without_ignored_regions_gets_pictures_in_which_they_are_filled(format, make_dataset, tmp_path):
    dataset = make_dataset(tmp_path / "in", [[INSIDE[0], (128, 30, 10, 6, 0)], []], ignored=[REGION])
    for sample in dataset:  # an unlabelled white object in the region, a labelled one beside and one in it
        picture = np.full((*SIZE[::-1], 3), 90, np.uint8)
        picture[26:34, 110:118] = 255
        picture[27:33, 123:133] = 10
        Image.fromarray(picture).save(sample.image)
    formats.write(dataset, tmp_path / "out", format)
    first, second = formats.read(tmp_path / "out", format)
    assert len(first.layout) == 2
    assert "their pixels are filled" in " ".join(formats.losses(dataset, format))
    loose = 12 if format == "dior" else 0  # JPEG
    for sample, kept in ((first, True), (second, False)):
        with Image.open(sample.image) as image:
            pixels = np.asarray(image.convert("RGB")).astype(int)
        assert abs(pixels[26:34, 110:118] - 90).max() <= loose, "what was not labelled is not shown"
        assert (abs(pixels[28:32, 124:132] - 10).max() <= loose) == kept, "labelled objects stay"
        assert abs(pixels[60:140, 20:180] - 90).max() <= loose
    assert Layout([REGION], [0], ("a",), SIZE).boxes.shape == (1, 5)


@pytest.mark.parametrize("format", ["coco", "dota", "hit-uav"])
def test_a_format_with_ignored_regions_keeps_the_pixels_and_the_regions(format, make_dataset, tmp_path):
    dataset = make_dataset(tmp_path / "in", [[INSIDE[0]], []], ignored=[REGION, (50, 120, 20, 10, 0)])
    formats.write(dataset, tmp_path / "out", format)
    for before, after in zip(dataset, formats.read(tmp_path / "out", format), strict=True):
        assert np.array_equal(np.asarray(Image.open(before.image)), np.asarray(Image.open(after.image)))
        assert after.layout.names() == before.layout.names(), "no object is invented"
        assert not after.layout.difficult.any()
        shared = geometry.iou(after.layout.ignored, before.layout.ignored)
        assert shared.shape == (2, 2)
        assert shared.max(axis=0).min() > 0.999
    assert not any("ignored" in loss for loss in formats.losses(dataset, format))


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "I;16", "F", "CMYK", "1"])
def test_regions_of_any_kind_of_pixels_are_filled(mode, make_dataset, tmp_path):
    from dataengine.data.fill import place_filled

    if mode == "I;16":
        image = Image.fromarray(np.full((150, 200), 4000, np.uint16))
    else:
        image = Image.new("RGB", SIZE, (120, 120, 120)).convert(mode)
    image.save(tmp_path / "a.tif")
    layout = Layout(np.zeros((0, 5)), [], (), SIZE, ignored=[REGION])
    place_filled(tmp_path / "a.tif", layout, tmp_path / "b.tif")
    with Image.open(tmp_path / "b.tif") as filled:
        assert filled.size == SIZE
        if mode not in ("1", "P", "CMYK"):
            assert filled.mode == mode
            assert np.array_equal(np.asarray(filled), np.asarray(image)), "an even picture stays as it is"
