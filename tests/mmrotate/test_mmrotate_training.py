"""mmrotate loads, builds and trains exported configs, and loads the intended boxes."""

from __future__ import annotations

import math
import shutil
from functools import partial

import numpy as np
import pytest
import shapely

from dataengine.data import formats
from dataengine.data.hrsc import CLASSES as SHIPS
from dataengine.mmrotate.export import export
from dataengine.mmrotate.training_config import DETECTORS

pytestmark = pytest.mark.mmrotate


@pytest.fixture(autouse=True, scope="module")
def _registered():
    from mmrotate.utils import register_all_modules

    register_all_modules()


def config_of(exported, small):
    from mmengine.config import Config

    return small(Config.fromfile(exported.config))


def runner_of(config, folder):
    from mmengine.runner import Runner

    config.work_dir = str(folder)
    config.experiment_name = f"{folder.name}-{id(config)}"
    return Runner.from_cfg(config)


@pytest.mark.parametrize("detector", DETECTORS)
def test_every_detector_trains_on_the_cpu_with_finite_losses_and_moves(detector, run, real, shrink, tmp_path):
    import torch

    exported = export(run, real, tmp_path / "out", detector=detector, cpu=True)
    runner = runner_of(config_of(exported, shrink), tmp_path / "work")
    before = {name: value.detach().clone() for name, value in runner.model.named_parameters()}
    runner.train()
    losses, _ = runner.message_hub.get_scalar("train/loss").data
    assert len(losses) == 3
    assert np.isfinite(losses).all()
    assert (losses > 0).all()
    after = dict(runner.model.named_parameters())
    moved = [name for name, value in before.items() if not torch.equal(value, after[name])]
    assert any(name.startswith("backbone") for name in moved)
    assert any("head" in name for name in moved)
    assert len(runner.train_dataloader.dataset) == 4 + 3, "real and synthetic images"


@pytest.mark.parametrize("detector", ["rtmdet-r", "rotated-fcos", "redet"])
def test_layers_that_mmcv_has_for_cuda_only_do_not_train_on_the_cpu_unreplaced(detector, run, real, shrink, tmp_path):
    exported = export(run, real, tmp_path / "out", detector=detector, scale=2.0)
    runner = runner_of(config_of(exported, shrink), tmp_path / "work")
    with pytest.raises(RuntimeError, match="implementation for device cpu not found"):
        runner.train()


def shapes(boxes) -> list:
    """Polygons of mmrotate's boxes, by the formula of its documentation."""
    polygons = []
    for cx, cy, w, h, theta in np.asarray(boxes, np.float64):
        c, s = math.cos(theta), math.sin(theta)
        ends = [(a * w / 2, b * h / 2) for a, b in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
        polygons.append(shapely.Polygon([(cx + x * c - y * s, cy + x * s + y * c) for x, y in ends]))
    return polygons


def overlaps(found, meant) -> np.ndarray:
    return np.array([a.intersection(b).area / a.union(b).area for a, b in zip(found, meant, strict=True)])


def seen(config, part: int) -> list:
    """(image, labels, boxes) as training with unflipped pictures sees the part 0, real, or 1, synthetic."""
    from mmrotate.registry import DATASETS

    settings = config.train_dataloader.dataset.datasets[part]
    for step in settings.pipeline:
        if step.type == "mmdet.RandomFlip":
            step.prob = 0.0
    dataset = DATASETS.build(settings)
    found = {}
    for i in range(len(dataset)):
        data = dataset[i]
        instances = data["data_samples"].gt_instances
        name = data["data_samples"].img_path.rsplit("/", 1)[-1].rsplit(".", 1)[0]
        found[name] = (data["inputs"], instances.labels.tolist(), instances.bboxes.tensor.numpy())
    return found


@pytest.mark.parametrize(
    ("layout", "classes"),
    [
        ("dota", ("big car", "Van")), ("dior", ("big car", "Van")), ("hrsc", ("big car", "Van")),
        ("hrsc", (SHIPS[4], SHIPS[21])), ("coco", ("big car", "Van")),
    ],
)  # fmt: skip
def test_data_sets_of_mmrotate_load_the_exported_boxes_and_classes(layout, classes, make_real, make_run, tmp_path):
    from mmengine.config import Config

    real, run = make_real(classes=classes), make_run(classes=classes)
    exported = export(run, real, tmp_path / "out", detector="oriented-rcnn", layout=layout)
    config = Config.fromfile(exported.config)
    for part, dataset in enumerate((formats.read(real, split="train"), formats.read(run / "coco"))):
        found = seen(config, part)
        assert len(found) == len(dataset)
        for sample in dataset:
            image, labels, boxes = found[sample.name]
            assert tuple(image.shape) == (3, 96, 96)
            assert labels == sample.layout.labels.tolist()
            assert overlaps(shapes(boxes), shapes(sample.layout.boxes)).min() >= 0.999
            assert overlaps(shapes(boxes[::-1]), shapes(sample.layout.boxes)).min() < 0.5, "the control"
    spelt = config.train_dataloader.dataset.datasets[0].metainfo.classes
    assert [name.replace("-", " ").lower() for name in spelt] == [name.replace("-", " ").lower() for name in classes]


def test_h2rbox_sees_only_the_horizontal_hulls(run, real, tmp_path):
    from mmengine.config import Config

    for layout in ("dota", "coco"):
        exported = export(run, real, tmp_path / layout, detector="h2rbox-v2", layout=layout)
        found = seen(Config.fromfile(exported.config), 0)
        for sample in formats.read(real, split="train"):
            for polygon, meant in zip(shapes(found[sample.name][2]), shapes(sample.layout.boxes), strict=True):
                around = shapely.box(*meant.bounds)
                assert polygon.intersection(around).area / polygon.union(around).area >= 0.999


def test_synthetic_images_are_resized_to_real_scale(make_run, real, tmp_path):
    from mmengine.config import Config

    exported = export(make_run(0.5), real, tmp_path / "out", detector="oriented-rcnn", scale=1.5)
    config = Config.fromfile(exported.config)
    assert {tuple(image.shape) for image, _, _ in seen(config, 0).values()} == {(3, 144, 144)}
    synthetic = seen(config, 1)
    assert {tuple(image.shape) for image, _, _ in synthetic.values()} == {(3, 288, 288)}
    for sample in formats.read(make_run(0.5) / "coco"):
        meant = sample.layout.boxes * np.float32([3, 3, 3, 3, 1])
        assert overlaps(shapes(synthetic[sample.name][2]), shapes(meant)).min() >= 0.999


def test_a_thermal_image_of_one_channel_enters_the_network_as_three_equal_ones(make_real, make_run, shrink, tmp_path):
    exported = export(make_run(mode="L"), make_real(mode="L"), tmp_path / "out", detector="oriented-rcnn")
    config = config_of(exported, shrink)
    image = next(iter(seen(config, 0).values()))[0].float()
    assert image.shape[0] == 3
    assert (image[0] == image[1]).all()
    assert (image[0] == image[2]).all()
    model = runner_of(config, tmp_path / "work").model
    ready = model.data_preprocessor({"inputs": [image], "data_samples": None})["inputs"][0]
    for channel, mean, deviation in zip(ready, (123.675, 116.28, 103.53), (58.395, 57.12, 57.375), strict=True):
        np.testing.assert_allclose(channel, (image[0] - mean) / deviation, atol=1e-4)


@pytest.mark.parametrize("detector", DETECTORS)
def test_heads_have_the_classes_and_every_coder_uses_le90(detector, run, real, tmp_path):
    from mmengine.config import Config

    model = Config.fromfile(export(run, real, tmp_path / "out", detector=detector).config).model
    found: dict[str, set] = {"num_classes": set(), "angle_version": set()}

    def look(part) -> None:
        for key, value in part.items() if isinstance(part, dict) else enumerate(part):
            if key in found:
                found[key].add(value)
            if isinstance(value, dict | list):
                look(value)

    look(model)
    assert found == {"num_classes": {2}, "angle_version": {"le90"}}


@pytest.mark.parametrize(("ratio", "n"), [((1, 1), 7), ((3, 1), 15), ((1, 2), 10), ((1, 0), 4), ((0, 1), 3)])
def test_an_epoch_shows_images_as_often_as_the_ratio_says(ratio, n, run, real, tmp_path):
    from mmengine.config import Config
    from mmrotate.registry import DATASETS

    exported = export(run, real, tmp_path / "out", detector="oriented-rcnn", ratio=ratio)
    dataset = DATASETS.build(Config.fromfile(exported.config).train_dataloader.dataset)
    assert len(dataset) == n
    from_real = sum("/data/real/" in dataset.get_data_info(i)["img_path"] for i in range(n))
    assert (from_real, n - from_real) == (4 * ratio[0], 3 * ratio[1])


@pytest.mark.parametrize(("layout", "metric"), [("dota", "dota/mAP"), ("coco", "r_coco/bbox_mAP_50")])
def test_evaluation_is_on_real_images_alone_and_perfect_for_their_labels(
    layout, metric, run, real, tmp_path, monkeypatch
):
    from mmengine.config import Config
    from mmrotate.evaluation.metrics import dota_metric
    from mmrotate.registry import DATASETS, METRICS

    alone = partial(dota_metric.eval_rbbox_map, nproc=1)  # else four processes import mmrotate for two images
    monkeypatch.setattr(dota_metric, "eval_rbbox_map", alone)
    exported = export(run, real, tmp_path / "out", detector="oriented-rcnn", layout=layout)
    shutil.move(tmp_path / "out", tmp_path / "moved")  # the folder belongs together
    config = Config.fromfile(tmp_path / "moved" / exported.config.name)
    dataset = DATASETS.build(config.test_dataloader.dataset)
    assert {data["data_samples"].img_path.rsplit("/", 1)[-1][:2] for data in dataset} == {"2_"}, "the split val"
    assert config.val_dataloader.dataset == config.test_dataloader.dataset
    meant = {sample.name: sample.layout for sample in formats.read(real, split="val")}
    results = {}
    for shuffled in (False, True):
        measure = METRICS.build(config.test_evaluator)
        measure.dataset_meta = dataset.metainfo
        for data, other in zip(dataset, reversed(list(dataset)), strict=True):
            shown = (other if shuffled else data)["data_samples"]
            layout_ = meant[shown.img_path.rsplit("/", 1)[-1].removesuffix(".png")]
            measure.process({}, [_as_predicted(data["data_samples"], layout_)])
        results[shuffled] = measure.evaluate(len(dataset))[metric]
    assert results[False] == pytest.approx(1, abs=0.01)
    assert results[True] < 0.5, "the control: boxes of the other image"


def _as_predicted(sample, layout) -> dict:
    """A data sample with these boxes as predictions, in the form in which a detector returns it."""
    import torch
    from mmdet.models.utils import samplelist_boxtype2tensor
    from mmengine.structures import InstanceData
    from mmrotate.structures.bbox import RotatedBoxes

    sample = sample.clone()
    sample.pred_instances = InstanceData(
        bboxes=RotatedBoxes(torch.from_numpy(layout.boxes)),
        scores=torch.full((len(layout),), 0.9),
        labels=torch.from_numpy(layout.labels),
    )
    samplelist_boxtype2tensor([sample])
    return sample.to_dict()
