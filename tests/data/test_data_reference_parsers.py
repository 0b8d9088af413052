"""Independent parsers, pycocotools and datumaro, read the written files."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest

from dataengine.data import coco, voc, yolo

BOXES = [[(60, 70, 40, 12, 0.4), (120, 80, 30, 20, -0.2), (40, 30, 20, 10, 0.0)], [], [(100, 75, 50, 10, 0.5)]]


def _load(path):
    reference = pytest.importorskip("pycocotools.coco", reason="pycocotools is not installed here")
    with contextlib.redirect_stdout(io.StringIO()):
        return reference.COCO(str(path))


@pytest.mark.parametrize("kind", ["obb", "hbb"])
def test_pycocotools_reads_the_coco_file(kind, make_dataset, true_corners, tmp_path):
    boxes = BOXES if kind == "obb" else [[(*row[:4], 0) for row in rows] for rows in BOXES]
    dataset = make_dataset(tmp_path / "in", boxes, kind=kind, ignored=[(150, 120, 20, 10, 0)])
    coco.write(dataset, tmp_path / "out")
    parsed = _load(tmp_path / "out" / "annotations" / "train.json")
    assert [entry["name"] for entry in parsed.loadCats(parsed.getCatIds())] == list(dataset.classes)
    for sample in dataset:
        picture = next(p for p in parsed.dataset["images"] if p["file_name"] == f"{sample.name}.png")
        objects = parsed.loadAnns(parsed.getAnnIds(imgIds=picture["id"], iscrowd=False))
        for box, label, entry in zip(sample.layout.boxes, sample.layout.labels, objects, strict=True):
            corners = true_corners(box)
            x, y, w, h = entry["bbox"]
            np.testing.assert_allclose((x, y), corners.min(axis=0), atol=1e-3)
            np.testing.assert_allclose((x + w, y + h), corners.max(axis=0), atol=1e-3)
            assert entry["area"] == pytest.approx(box[2] * box[3], rel=1e-4)
            assert entry["category_id"] == label + 1
            if kind == "obb":
                np.testing.assert_allclose(np.array(entry["segmentation"][0]).reshape(4, 2), corners, atol=1e-3)
                assert parsed.annToMask(entry).sum() == pytest.approx(box[2] * box[3], rel=0.15)
        crowds = parsed.loadAnns(parsed.getAnnIds(imgIds=picture["id"], iscrowd=True))
        assert {entry["category_id"] for entry in crowds} == {1, 2, 3}


def test_pycocotools_gives_the_labels_themselves_an_ap_of_1(make_dataset, tmp_path):
    evaluation = pytest.importorskip("pycocotools.cocoeval", reason="pycocotools is not installed here")
    coco.write(make_dataset(tmp_path / "in", BOXES), tmp_path / "out")
    truth = _load(tmp_path / "out" / "annotations" / "train.json")
    keys = ("image_id", "category_id", "bbox")
    results = [{**{key: entry[key] for key in keys}, "score": 1.0} for entry in truth.dataset["annotations"]]
    with contextlib.redirect_stdout(io.StringIO()):
        scored = evaluation.COCOeval(truth, truth.loadRes(results), "bbox")
        scored.evaluate()
        scored.accumulate()
        scored.summarize()
    assert scored.stats[0] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("module", "name", "place"),
    [(coco, "coco_instances", "annotations/train.json"), (voc, "voc", "."), (yolo, "yolo", ".")],
)
def test_datumaro_reads_horizontal_boxes(module, name, place, make_dataset, true_corners, tmp_path):
    datumaro = pytest.importorskip("datumaro", reason="datumaro is not installed here")
    boxes = [[(*row[:4], 0) for row in rows] for rows in BOXES]
    # datumaro only knows the classes of VOC
    dataset = make_dataset(tmp_path / "in", boxes, kind="hbb", classes=("aeroplane", "boat", "car"))
    module.write(dataset, tmp_path / "out")
    parsed = datumaro.Dataset.import_from(str(tmp_path / "out" / place), name)
    names = [label.name for label in parsed.categories()[datumaro.AnnotationType.label]]
    found = {item.id.split("/")[-1]: item.annotations for item in parsed}
    for sample in dataset:
        shapes = [shape for shape in found[sample.name] if shape.type is datumaro.AnnotationType.bbox]
        shapes.sort(key=lambda shape: sample.layout.names().index(names[shape.label]))  # it gives them in its own order
        assert [names[shape.label] for shape in shapes] == sample.layout.names()
        for box, shape in zip(sample.layout.boxes, shapes, strict=True):
            corners = true_corners(box)
            # datumaro takes VOC's first pixel for a coordinate
            shift = 1 if name == "voc" else 0
            np.testing.assert_allclose(shape.points[:2], corners.min(axis=0) + shift, atol=0.011)
            np.testing.assert_allclose(shape.points[2:], corners.max(axis=0), atol=0.011)
