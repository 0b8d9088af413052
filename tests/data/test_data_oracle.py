"""Datumaro and supervision as judges: we read what they write, and they read what we write, box by box.

Both are optional, as Datumaro needs older versions of other libraries: install them in an environment of their own
(CONTRIBUTING.md). Boxes are compared by shapely, with corners computed here.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from shapely import Polygon

from dataengine.data import cvat, datumaro_json, formats, labelme
from dataengine.data.layout import Dataset, Layout, Sample

CLASSES = ("car", "ship")
SIZE = (200, 150)
MIN_IOU = 0.999
# of each image: class, cx, cy, w, h and degrees clockwise; upright boxes have whole pixels, as VOC's writers round,
# and the first touches the border
UPRIGHT = {
    "one": [(0, 20, 15, 40, 30, 0), (1, 120.5, 80, 61, 40, 0)],
    "two": [(1, 160, 110, 80, 80, 0)],
}
TURNED = {
    "one": [(0, 60, 50, 60, 30, 30), (1, 120.5, 80, 61, 40.5, -75), (0, 100, 60, 50, 40, 0)],
    "two": [(1, 90, 75, 80, 44, 120)],
}


@pytest.fixture
def dm():
    return pytest.importorskip("datumaro", reason="datumaro is not installed here")


@pytest.fixture
def sv():
    return pytest.importorskip("supervision", reason="supervision is not installed here")


def corners(row) -> np.ndarray:
    """Corners (4, 2) of class, cx, cy, w, h, degrees."""
    _, cx, cy, w, h, degrees = row
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    signs = ((-1, -1), (1, -1), (1, 1), (-1, 1))
    return np.array([(cx + a * w / 2 * c - b * h / 2 * s, cy + a * w / 2 * s + b * h / 2 * c) for a, b in signs])


def truth_of(kind: str) -> dict[str, list[tuple]]:
    return UPRIGHT if kind == "hbb" else TURNED


def pixels(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (SIZE[1], SIZE[0], 3), dtype=np.uint8)


def agree(found: dict[str, list[tuple[str, np.ndarray]]], truth: dict[str, list[tuple]]) -> None:
    """Every image has the same classes and, in some order, the same boxes."""
    assert found.keys() == truth.keys()
    for image, rows in truth.items():
        assert len(found[image]) == len(rows), image
        left = list(found[image])
        for row in rows:
            overlaps = [
                (iou(points, corners(row)) if name.lower() == CLASSES[row[0]] else 0.0) for name, points in left
            ]
            best = int(np.argmax(overlaps))
            assert overlaps[best] >= MIN_IOU, (image, row, overlaps)
            del left[best]


def iou(a: np.ndarray, b: np.ndarray) -> float:
    first, second = Polygon(a).convex_hull, Polygon(b).convex_hull
    return first.intersection(second).area / first.union(second).area


def read_by_us(dataset: Dataset) -> dict[str, list[tuple[str, np.ndarray]]]:
    """{image: [(class, corners)]} by the definition of le90, without dataengine's own corners."""
    return {
        sample.name.split("/")[-1]: [
            (name, corners((0, cx, cy, w, h, math.degrees(theta))))
            for name, (cx, cy, w, h, theta) in zip(sample.layout.names(), sample.layout.boxes, strict=True)
        ]
        for sample in dataset
    }


def ours(folder: Path, kind: str) -> Dataset:
    """The data set in dataengine's form."""
    folder.mkdir(parents=True)
    samples = []
    for seed, (name, rows) in enumerate(truth_of(kind).items()):
        file = folder / f"{name}.png"
        Image.fromarray(pixels(seed)).save(file)
        boxes = np.array([(cx, cy, w, h, math.radians(degrees)) for _, cx, cy, w, h, degrees in rows])
        from dataengine import geometry

        layout = Layout(geometry.regularize(boxes), [row[0] for row in rows], CLASSES, SIZE, kind)
        samples.append(Sample(name, file, layout))
    return Dataset(CLASSES, samples, kind, "made")


def box_xywh(row) -> tuple[float, float, float, float]:
    _, cx, cy, w, h, _ = row
    return cx - w / 2, cy - h / 2, w, h


def datumaro_set(dm, kind: str, shape: str):
    """The data set in Datumaro's form. shape: how a turned box is stated."""
    from datumaro.components.annotation import Bbox, RotatedBbox
    from datumaro.components.annotation import Polygon as DatumaroPolygon
    from datumaro.components.media import Image as Picture

    def annotation(row, i: int):
        label, cx, cy, w, h, degrees = row
        fields = {"label": label, "id": i, "group": i}
        if shape == "rotated":
            return RotatedBbox(cx, cy, w, h, degrees, **fields)
        if shape == "polygon":
            return DatumaroPolygon(corners(row).ravel().tolist(), **fields)
        attributes = {"rotation": float(degrees)} if shape == "attribute" else {}
        return Bbox(*box_xywh(row), attributes=attributes, **fields)

    items = [
        dm.DatasetItem(
            id=name,
            subset=subset,
            media=Picture.from_numpy(pixels(seed)[..., ::-1]),
            annotations=[annotation(row, i) for i, row in enumerate(rows, 1)],
        )
        for seed, ((name, rows), subset) in enumerate(zip(truth_of(kind).items(), ("train", "val"), strict=True))
    ]
    return dm.Dataset.from_iterable(items, categories=list(CLASSES))


BY_DATUMARO = [  # Datumaro's name of the format, how it states a box, ours
    ("coco_instances", "box", "coco"),
    ("coco_instances", "polygon", "coco"),
    ("voc_detection", "box", "voc"),  # counts from 0, which our reader tells by the box at the border
    ("voc_detection one-based", "box", "voc"),
    ("yolo", "box", "yolo"),
    ("yolo_ultralytics", "box", "yolo"),
    ("dota", "rotated", "dota"),
    ("cvat", "box", "cvat"),
    ("cvat", "rotated", "cvat"),
    ("cvat", "polygon", "cvat"),
    ("datumaro", "box", "datumaro"),
    ("datumaro", "polygon", "datumaro"),
    ("datumaro", "attribute", "datumaro"),
]


@pytest.mark.parametrize(("theirs", "shape", "format"), BY_DATUMARO)
def test_we_read_what_datumaro_writes(theirs, shape, format, dm, tmp_path):
    kind = "hbb" if shape == "box" else "obb"
    options = {"coordinate_mode": "voc-one-based"} if "one-based" in theirs else {}
    made = datumaro_set(dm, kind, shape)
    made.export(str(tmp_path / "set"), theirs.split()[0], save_media=True, image_ext=".png", **options)
    dataset = formats.read(tmp_path / "set")
    assert (dataset.format, dataset.kind) == (format, kind)
    agree(read_by_us(dataset), truth_of(kind))
    assert sum(problem.objects for problem in dataset.problems) == 0


def read_by_datumaro(dm, folder: Path, format: str, options: dict) -> dict[str, list[tuple[str, np.ndarray]]]:
    from datumaro.components.annotation import AnnotationType

    dataset = dm.Dataset.import_from(str(folder), format, **options)
    labels = [label.name for label in dataset.categories()[AnnotationType.label]]
    found = {}
    for item in dataset:
        shapes = []
        outlined = {ann.group for ann in item.annotations if ann.type == AnnotationType.polygon}
        for ann in item.annotations:
            if ann.type == AnnotationType.bbox and format == "coco_instances" and ann.group in outlined:
                continue  # of a COCO object with a polygon, Datumaro makes a polygon and a box
            if ann.type == AnnotationType.rotated_bbox:
                points = np.array(ann.as_polygon()).reshape(-1, 2)
            elif ann.type == AnnotationType.polygon:
                points = np.array(ann.points).reshape(-1, 2)
            elif ann.type == AnnotationType.bbox:
                x, y, w, h = ann.get_bbox()
                points = np.array([(x, y), (x + w, y), (x + w, y + h), (x, y + h)])
            else:
                continue
            shapes.append((labels[ann.label], points))
        found[item.id.split("/")[-1]] = shapes
        assert np.array_equal(item.media.data[..., :3].astype(int).shape[:2], SIZE[::-1]), "the image is found"
    return found


FOR_DATUMARO = [
    ("coco", "hbb", "coco_instances"),
    ("coco", "obb", "coco_instances"),
    ("voc", "hbb", "voc_detection"),
    ("yolo", "hbb", "yolo"),
    ("dota", "obb", "dota"),
    ("cvat", "hbb", "cvat"),
    ("cvat", "obb", "cvat"),
    ("datumaro", "hbb", "datumaro"),
    ("datumaro", "obb", "datumaro"),
]


@pytest.mark.parametrize(("format", "kind", "theirs"), FOR_DATUMARO)
def test_datumaro_reads_what_we_write(format, kind, theirs, dm, tmp_path):
    root, options = tmp_path / "set", {}
    assert formats.write(ours(tmp_path / "in", kind), root, format) == []
    if format == "coco":  # Datumaro tells the task by the name of the file
        (root / "annotations/train.json").rename(root / "annotations/instances_train.json")
    elif format == "voc":  # without this file it knows VOC's own classes only
        (root / "labelmap.txt").write_text("".join(f"{name}:::\n" for name in ("background", *CLASSES)))
        options = {"coordinate_mode": "voc-one-based"}
    agree(read_by_datumaro(dm, root, theirs, options), truth_of(kind))


def supervision_set(sv, folder: Path, kind: str):
    """The data set in supervision's form, with images in `folder`."""
    folder.mkdir(parents=True)
    annotations = {}
    for seed, (name, rows) in enumerate(truth_of(kind).items()):
        file = folder / f"{name}.png"
        Image.fromarray(pixels(seed)).save(file)
        points = np.array([corners(row) for row in rows], np.float32)
        xyxy = np.concatenate([points.min(axis=1), points.max(axis=1)], axis=1)
        data = {"xyxyxyxy": points} if kind == "obb" else {}
        annotations[str(file)] = sv.Detections(xyxy=xyxy, class_id=np.array([row[0] for row in rows]), data=data)
    return sv.DetectionDataset(classes=list(CLASSES), images=list(annotations), annotations=annotations)


def test_we_read_what_supervision_writes_as_coco(sv, tmp_path):
    made = supervision_set(sv, tmp_path / "in", "hbb")
    made.as_coco(str(tmp_path / "set/images"), str(tmp_path / "set/annotations/train.json"))
    dataset = formats.read(tmp_path / "set")
    assert (dataset.format, dataset.kind) == ("coco", "hbb")
    agree(read_by_us(dataset), UPRIGHT)


def test_we_read_what_supervision_writes_as_voc(sv, tmp_path):
    made = supervision_set(sv, tmp_path / "in", "hbb")
    made.as_pascal_voc(str(tmp_path / "set/JPEGImages"), str(tmp_path / "set/Annotations"))
    dataset = formats.read(tmp_path / "set")
    assert (dataset.format, dataset.kind) == ("voc", "hbb")
    agree(read_by_us(dataset), UPRIGHT)


@pytest.mark.parametrize("kind", ["hbb", "obb"])
def test_we_read_what_supervision_writes_as_yolo(kind, sv, tmp_path):
    made = supervision_set(sv, tmp_path / "in", kind)
    root = tmp_path / "set"
    made.as_yolo(str(root / "images"), str(root / "labels"), str(root / "data.yaml"), is_obb=kind == "obb")
    (root / "data.yaml").write_text((root / "data.yaml").read_text() + "train: images\nval: images\n")
    dataset = formats.read(root, split="train")
    assert (dataset.format, dataset.kind) == ("yolo", kind)
    agree(read_by_us(dataset), truth_of(kind))


def test_we_read_what_supervision_writes_as_labelme(sv, tmp_path):
    made = supervision_set(sv, tmp_path / "in", "hbb")
    made.as_labelme(images_directory_path=str(tmp_path / "set"), annotations_directory_path=str(tmp_path / "set"))
    dataset = labelme.read(tmp_path / "set")
    assert dataset.kind == "hbb"
    agree(read_by_us(dataset), UPRIGHT)


def read_by_supervision(dataset) -> dict[str, list[tuple[str, np.ndarray]]]:
    found = {}
    for path, _, detections in dataset:
        points = detections.data.get("xyxyxyxy")
        if points is None:
            x1, y1, x2, y2 = detections.xyxy.T
            points = np.stack([np.stack(p, -1) for p in ((x1, y1), (x2, y1), (x2, y2), (x1, y2))], 1)
        names = [dataset.classes[i] for i in detections.class_id]
        found[Path(path).stem] = list(zip(names, np.asarray(points, float), strict=True))
    return found


def hulls(truth: dict[str, list[tuple]]) -> dict[str, list[tuple]]:
    """The upright boxes around turned ones."""
    upright = {}
    for name, rows in truth.items():
        upright[name] = []
        for row in rows:
            low, high = corners(row).min(axis=0), corners(row).max(axis=0)
            upright[name].append((row[0], *(low + high) / 2, *(high - low), 0))
    return upright


@pytest.mark.parametrize("kind", ["hbb", "obb"])
@pytest.mark.parametrize("format", ["coco", "voc", "yolo", "labelme"])
def test_supervision_reads_what_we_write(format, kind, sv, tmp_path):
    """Of turned boxes it reads the corners in YOLO-OBB, elsewhere the upright box around them."""
    root = tmp_path / "set"
    formats.write(ours(tmp_path / "in", kind), root, format)
    load = sv.DetectionDataset
    if format == "coco":
        dataset = load.from_coco(str(root / "images/train"), str(root / "annotations/train.json"))
    elif format == "voc":
        dataset = load.from_pascal_voc(str(root / "JPEGImages"), str(root / "Annotations"))
    elif format == "labelme":
        dataset = load.from_labelme(str(root / "train"), str(root / "train"))
    else:
        is_obb = kind == "obb"
        dataset = load.from_yolo(
            str(root / "images/train"), str(root / "labels/train"), str(root / "data.yaml"), is_obb=is_obb
        )
    expected = truth_of(kind) if kind == "hbb" or format == "yolo" else hulls(TURNED)
    agree(read_by_supervision(dataset), expected)


@pytest.mark.parametrize("module", [cvat, datumaro_json, labelme], ids=lambda module: module.NAME)
def test_the_judge_tells_a_wrong_angle_from_a_right_one(module, tmp_path):
    """Control: with angles in the other direction, the comparison fails."""
    module.write(ours(tmp_path / "in", "obb"), tmp_path / "set")
    found = read_by_us(module.read(tmp_path / "set"))
    agree(found, TURNED)
    mirrored = {name: [(*row[:5], -row[5]) for row in rows] for name, rows in TURNED.items()}
    with pytest.raises(AssertionError):
        agree(found, mirrored)
