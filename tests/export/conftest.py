"""A small real data set with two splits, a run beside it, and mmrotate's detectors made small enough for a test."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from toy_scenes import paint, random_layout

from dataengine.data import coco, formats
from dataengine.data.layout import Dataset, Sample

CLASSES = ("car", "van")
SMALL = {256: 64, 1024: 64}  # channels of the networks; ResNet-18 has 16 to 128 here


def scenes(folder: Path, n: int, seed: int, size: int = 96, mode: str = "RGB", classes=CLASSES) -> Dataset:
    """n painted images of `size` pixels with three turned objects each."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    samples = []
    for i in range(n):
        layout = replace(random_layout(rng, size), classes=classes)
        file = folder / f"{seed}_{i}.png"
        Image.fromarray(paint(layout, rng)).convert(mode).save(file)
        samples.append(Sample(file.stem, file, layout))
    return Dataset(classes, samples, "obb", name="toy")


@pytest.fixture(scope="session")
def make_real(tmp_path_factory):
    """`make(format)`: real data of 96 px, 4 images to train on and 2 to be judged on."""

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
    """`make(scale)`: what a finished run of dataengine synth leaves, 3 images in which real pixels are so large."""

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


@pytest.fixture(scope="session")
def painted_run(toy_preset, toy_dataset, toy_renderer, toy_detector, toy_calibration, tmp_path_factory) -> Path:
    """A finished run of 12 small images, objects painted into the toy data set's own images."""
    from dataengine.engine.recipe import Recipe
    from dataengine.engine.run import synth

    recipe = Recipe(
        dataset=str(toy_preset), data=toy_dataset, model=toy_renderer, detector=toy_detector,
        calibration=toy_calibration, n=12, size=96, steps=2, shard_size=4, max_attempts=100,
    )  # fmt: skip
    return synth(recipe, tmp_path_factory.mktemp("painted") / "run").out


@pytest.fixture(scope="session")
def settings():
    """What the toy run is released with: its model has no card, so its licence has to be said."""
    from dataengine.export.release.make import Settings

    return Settings(
        "toy-cars", "cc-by-4.0", val=0.2, formats="dota,coco,yolo-obb", archive_size="100kB", source_license="cc0-1.0"
    )


@pytest.fixture(scope="session")
def released(painted_run, settings, tmp_path_factory) -> Path:
    """A release of the toy run, for tests that only look at it."""
    from dataengine.export.release.make import make

    return make(painted_run, tmp_path_factory.mktemp("released") / "toy-cars", settings).folder
