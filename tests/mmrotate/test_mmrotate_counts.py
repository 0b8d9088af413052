"""What mmrotate loads with an exported config: as many images as the export says, and nothing from ignored regions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from test_mmrotate_export import one_image

from dataengine import geometry
from dataengine.data import coco, formats
from dataengine.data.layout import Layout
from dataengine.mmrotate.export import export

pytestmark = pytest.mark.mmrotate
CUT = Layout([[20, 20, 12, 8, 0], [94, 50, 40, 12, 0.4]], [0, 0], ("car", "van"), (96, 96))


def built(config_file, monkeypatch):
    """The data sets of a config: those to train on, and the one to test on."""
    from mmdet.utils import register_all_modules as register_mmdet
    from mmengine.config import Config
    from mmengine.registry import DATASETS
    from mmrotate.utils import register_all_modules

    register_mmdet(init_default_scope=False)
    register_all_modules(init_default_scope=True)
    config = Config.fromfile(config_file)
    train = DATASETS.build(config.train_dataloader.dataset)
    return config, train.datasets, DATASETS.build(config.test_dataloader.dataset)


@pytest.fixture
def folders(tmp_path):
    """A run and real data of three images each: one whose objects the border cuts, one with a region, one empty."""
    region = replace(CUT.select([0]), ignored=[[60, 60, 16, 12, 0]])
    empty = CUT.select(np.zeros(0, int))
    for name in ("run", "real", "test"):
        parts = [one_image(tmp_path / "in", layout, f"{name}-{i}") for i, layout in enumerate((CUT, region, empty))]
        joined = replace(parts[0], samples=[part.samples[0] for part in parts])
        coco.write(joined, tmp_path / name)
    return tmp_path


@pytest.mark.parametrize("layout", ["dota", "coco", "dior", "hrsc"])
def test_the_stated_counts_are_those_of_the_loaders(layout, folders, monkeypatch):
    done = export(
        folders / "run", folders / "real", folders / "out", detector="s2anet", layout=layout, ratio=(1, 2),
        test=str(folders / "test"), train_splits=["train"],
    )  # fmt: skip
    _, (real, synthetic), test = built(done.config, monkeypatch)
    assert (len(real), len(synthetic), len(test)) == (done.real, 2 * done.synthetic, done.test) == (2, 4, 3)
    for part in (real, synthetic):
        objects = [len(part[i]["data_samples"].gt_instances) for i in range(len(part))]
        assert sorted({*objects}) == [1, 2], "cut objects keep their labels"
        assert all(len(part[i]["data_samples"].ignored_instances) == 0 for i in range(len(part)))


def test_the_dota_metric_leaves_out_detections_on_ignored_regions_for_every_class(folders, monkeypatch):
    done = export(
        folders / "run", folders / "real", folders / "out", detector="s2anet", test=str(folders / "test"),
        train_splits=["train"],
    )  # fmt: skip
    config, _, test = built(done.config, monkeypatch)
    names = {test.get_data_info(i)["img_id"]: i for i in range(len(test))}
    flags = [instance["ignore_flag"] for instance in test.get_data_info(names["test-1"])["instances"]]
    assert flags == [0, 1, 1], "one object, and the region once for each class"

    def ap(box: list) -> float:
        import torch
        from mmengine.registry import METRICS
        from mmrotate.structures.bbox import RotatedBoxes

        metric = METRICS.build(config.test_evaluator)
        metric.dataset_meta = test.metainfo
        sample = test[names["test-1"]]["data_samples"]
        found = torch.tensor([box, [20, 20, 12, 8, 0]], dtype=torch.float32)
        sample.pred_instances = type(sample.gt_instances)(
            bboxes=RotatedBoxes(found), scores=torch.tensor([0.9, 0.8]), labels=torch.tensor([0, 0])
        )
        metric.process({}, [sample.to_dict()])
        return next(value for key, value in metric.evaluate(1).items() if key.endswith("AP50"))

    assert ap([60, 60, 16, 12, 0]) == pytest.approx(1.0, abs=1e-3)
    assert ap([70, 20, 16, 12, 0]) < 0.9, "control: a detection elsewhere is false"


def test_dota_dataset_reads_the_boxes_that_the_border_leaves(folders, monkeypatch):
    done = export(
        folders / "run", folders / "real", folders / "out", detector="s2anet", test=str(folders / "test"),
        train_splits=["train"],
    )  # fmt: skip
    _, (_, synthetic), _ = built(done.config, monkeypatch)
    names = {synthetic.get_data_info(i)["img_id"]: i for i in range(len(synthetic))}
    corners = np.array([one["bbox"] for one in synthetic.get_data_info(names["run-0"])["instances"]])
    [written] = [s for s in formats.read(folders / "out/data/synthetic", "dota") if s.name == "run-0"]
    boxes = geometry.from_corners(corners.reshape(-1, 4, 2))
    wanted = geometry.clip(CUT.boxes, CUT.size)
    assert geometry.iou_pairs(boxes, wanted).min() > 0.999
    assert geometry.iou_pairs(written.layout.boxes, wanted).min() > 0.999
