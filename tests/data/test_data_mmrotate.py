"""mmrotate's loaders read the written files box by box."""

from __future__ import annotations

import numpy as np
import pytest

from dataengine.data import dior, dota, hrsc
from dataengine.data.dota import CLASSES_V10

pytestmark = pytest.mark.mmrotate

BOXES = [[(60, 70, 40, 12, 0.4), (120.5, 80.25, 30, 20, -1.2)], [(100, 75, 50, 10, 0.0)], []]


def _assert_same(loaded, dataset, to_corners, classes):
    loaded = {info["img_id"]: info for info in loaded.load_data_list()}
    assert set(loaded) == {sample.name for sample in dataset}
    for sample in dataset:
        instances = loaded[sample.name]["instances"]
        assert [classes[instance["bbox_label"]] for instance in instances] == sample.layout.names()
        for box, instance in zip(sample.layout.boxes, instances, strict=True):
            corners, wanted = np.array(instance["bbox"]).reshape(4, 2), to_corners(box)
            turned = [np.roll(way, turn, axis=0) for way in (corners, corners[::-1]) for turn in range(4)]
            assert min(np.abs(way - wanted).max() for way in turned) < 1e-2


def _loader(name, root, classes, **settings):
    from mmrotate import datasets

    return getattr(datasets, name)(data_root=str(root), metainfo={"classes": classes}, lazy_init=True, **settings)


def test_dota_dataset_loads_what_the_dota_writer_wrote(make_dataset, true_corners, tmp_path):
    dataset = make_dataset(tmp_path / "in", BOXES, classes=CLASSES_V10)
    dota.write(dataset, tmp_path / "out")
    prefix = {"img_path": "train/images"}
    loader = _loader("DOTADataset", tmp_path / "out", CLASSES_V10, ann_file="train/labelTxt/", data_prefix=prefix)
    _assert_same(loader, dataset, true_corners, CLASSES_V10)
    assert all((tmp_path / "out/train/images" / f"{sample.name}.png").is_file() for sample in dataset)


def test_dota_dataset_fails_on_a_header_line_as_the_writer_knows(make_dataset, tmp_path):
    dota.write(make_dataset(tmp_path / "in", BOXES, classes=CLASSES_V10), tmp_path / "out")
    file = tmp_path / "out/train/labelTxt/image_0.txt"
    file.write_text("imagesource:GoogleEarth\n" + file.read_text())
    prefix = {"img_path": "train/images"}
    loader = _loader("DOTADataset", tmp_path / "out", CLASSES_V10, ann_file="train/labelTxt/", data_prefix=prefix)
    with pytest.raises((ValueError, IndexError)):
        loader.load_data_list()


@pytest.mark.parametrize("kind", ["obb", "hbb"])
def test_dior_dataset_loads_both_kinds_that_the_dior_writer_wrote(kind, make_dataset, true_corners, tmp_path):
    boxes = BOXES if kind == "obb" else [[(60, 70, 40, 12, 0.0)], [(100, 75, 50, 10, 0.0)]]
    dataset = make_dataset(tmp_path / "in", boxes, classes=dior.CLASSES)
    dior.write(dataset, tmp_path / "out")
    loader = _loader(
        "DIORDataset",
        tmp_path / "out",
        dior.CLASSES,
        ann_file="ImageSets/Main/train.txt",
        data_prefix={"img_path": "JPEGImages-trainval"},
        ann_type=kind,
        ann_subdir=(dior.ORIENTED if kind == "obb" else dior.HORIZONTAL) + "/",
    )
    _assert_same(loader, dataset, true_corners, dior.CLASSES)
    assert all((tmp_path / "out/JPEGImages-trainval" / f"{sample.name}.jpg").is_file() for sample in dataset)


@pytest.mark.parametrize("classwise", [True, False])
def test_hrsc_dataset_loads_what_the_hrsc_writer_wrote(classwise, make_dataset, true_corners, tmp_path):
    classes = hrsc.CLASSES if classwise else ("ship",)
    dataset = make_dataset(tmp_path / "in", BOXES, classes=classes)
    hrsc.write(dataset, tmp_path / "out")
    loader = _loader(
        "HRSCDataset",
        tmp_path / "out",
        classes,
        ann_file="ImageSets/train.txt",
        data_prefix={"sub_data_root": "FullDataSet/"},
        classwise=classwise,
    )
    _assert_same(loader, dataset, true_corners, classes)
    assert all((tmp_path / "out/FullDataSet/AllImages" / f"{sample.name}.bmp").is_file() for sample in dataset)
