"""A small real data set with two splits, a run beside it, and detectors of mmrotate in a size for tests."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from toy_scenes import scenes

from dataengine.data import coco, formats

SMALL = {256: 64, 1024: 64}  # channels of the networks; ResNet-18 has 16 to 128 here


@pytest.fixture(scope="session")
def make_real(tmp_path_factory):
    """`make(format)`: real data of 96 px, 4 images to train on and 2 to evaluate on."""

    def make(format: str = "coco", **settings) -> Path:
        root = tmp_path_factory.mktemp("real")
        for split, n, seed in (("train", 4, 1), ("val", 2, 2)):
            formats.write(scenes(root / "raw", n, seed, **settings), root / format, format, split=split)
        return root / format

    return make


@pytest.fixture(scope="session")
def real(make_real) -> Path:
    return make_real()


@pytest.fixture(scope="session")
def make_run(tmp_path_factory):
    """`make(scale)`: a finished run of dataengine synth with 3 images at this `layout_scale`."""

    def make(layout_scale: float = 1.0, **settings) -> Path:
        run = tmp_path_factory.mktemp("run") / "first"
        coco.write(scenes(run.parent / "raw", 3, 3, **settings), run / "coco")
        (run / "recipe.json").write_text(json.dumps({"recipe": {"layout_scale": layout_scale}}))
        return run

    return make


@pytest.fixture(scope="session")
def run(make_run) -> Path:
    return make_run()


@pytest.fixture(scope="session")
def shrink():
    """`shrink(config)` as below."""
    return small


def small(config):
    """An exported config with a narrow, shallow network that is not downloaded, in one process, without schedule."""

    def narrow(part) -> None:
        for key, value in part.items():
            if key.endswith("channels") and isinstance(value, int):
                part[key] = SMALL.get(value, value)
            for item in value if isinstance(value, list) else [value]:
                if isinstance(item, dict):
                    narrow(item)

    narrow(config.model)
    backbone = config.model.backbone
    backbone.init_cfg = None
    if backbone.type == "mmdet.CSPNeXt":
        backbone.widen_factor = 0.125
        config.model.neck.update(in_channels=[32, 64, 128], out_channels=32)
        config.model.bbox_head.update(in_channels=32, feat_channels=32)
    else:
        backbone.update(depth=18, base_channels=16, frozen_stages=-1, norm_eval=False)
        config.model.neck.in_channels = [16, 32, 64, 128]
    for loader in (config.train_dataloader, config.val_dataloader, config.test_dataloader):
        loader.update(num_workers=0, persistent_workers=False)
    config.train_dataloader.batch_size = 2
    config.train_cfg = {"type": "IterBasedTrainLoop", "max_iters": 3, "val_interval": 100}
    config.param_scheduler = None
    config.val_cfg = config.val_dataloader = config.val_evaluator = None
    config.log_processor.by_epoch = False
    config.log_level = "ERROR"
    return config
