"""Small parts made on the spot: a labelled data set, a renderer with random weights, a detector, a calibration."""

from __future__ import annotations

import os
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is loaded: two test processes share two cores

import hypothesis
import numpy as np
import pytest
from PIL import Image
from toy_scenes import paint, random_layout

from dataengine.data import coco
from dataengine.data.layout import Dataset, Sample

hypothesis.settings.register_profile("untimed", deadline=None)  # speeds belong in benchmarks
hypothesis.settings.load_profile("untimed")
SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


def pytest_collection_modifyitems(config, items):
    """Tests of mmrotate, which need its own environment, and long ones run only when asked for with -m."""
    for marker in ("mmrotate", "long"):
        if marker not in config.option.markexpr:
            left_out = [item for item in items if item.get_closest_marker(marker)]
            config.hook.pytest_deselected(items=left_out)
            items[:] = [item for item in items if item not in left_out]


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory):
    """Nothing is kept in the user's cache, and no calibration of an earlier session is found there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The real sample data; tests that need it are skipped where it is absent."""
    if not SHARED.exists():
        pytest.skip("the sample data (../shared/data) is not here")
    return SHARED


@pytest.fixture(scope="session")
def toy_dataset(tmp_path_factory) -> Path:
    """24 painted images of 96 px in COCO form."""
    root = tmp_path_factory.mktemp("toy")
    rng = np.random.default_rng(7)
    samples = []
    for i in range(24):
        layout = random_layout(rng)
        file = root / "raw" / f"{i:03d}.png"
        file.parent.mkdir(exist_ok=True)
        Image.fromarray(paint(layout, rng)).save(file)
        samples.append(Sample(file.stem, file, layout))
    coco.write(Dataset(("car", "van"), samples, "obb", name="toy"), root / "coco")
    return root / "coco"


@pytest.fixture(scope="session")
def toy_preset(tmp_path_factory) -> Path:
    """A preset file for the toy data set."""
    file = tmp_path_factory.mktemp("preset") / "toy.yaml"
    file.write_text(
        "name: toy\ntitle: Toy\nformat: coco\nkind: obb\nclasses: [car, van]\nlicence: CC0\n"
        "source: made by the tests\nplaces: [data/toy]\n"
    )
    return file


@pytest.fixture(scope="session")
def toy_renderer(tmp_path_factory) -> Path:
    """An in-scene pipeline with random weights that knows car and van."""
    import torch
    from diffusers import FlowMatchEulerDiscreteScheduler

    from dataengine.render.in_scene import InSceneUNet
    from dataengine.render.in_scene_pipeline import InScenePipeline

    torch.manual_seed(0)
    model = InSceneUNet(["car", "van"], frame_size=24, patch=3, block_out_channels=(16, 32))
    folder = tmp_path_factory.mktemp("renderer")
    InScenePipeline(model, FlowMatchEulerDiscreteScheduler()).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def toy_detector(tmp_path_factory) -> Path:
    """An ONNX detector whose score is the redness of a cell: what it says depends on the pixels."""
    from toy_detector import save_detector

    return save_detector(tmp_path_factory.mktemp("detector"), ("car", "van"))


@pytest.fixture(scope="session")
def toy_calibration(toy_detector, tmp_path_factory) -> Path:
    """A rule under which some images of the random renderer pass and some do not: it counts extra detections."""
    from dataengine.judge.calibration import Calibration
    from dataengine.judge.detector import OnnxDetector

    file = tmp_path_factory.mktemp("calibration") / "toy.json"
    Calibration(
        detector=OnnxDetector(toy_detector).identity, dataset="toy", images=20, objects={"car": 30, "van": 30},
        pass_share=0.95, shuffled_pass_share=0.0, smudged_pass_share=0.0,
        thresholds={"car": 0.5, "van": 0.5}, missed_share=1.0,
        extra_scores={"car": 0.55, "van": 0.55}, extra_objects=14, extra_share=0.0,
        repair_scores={"car": 0.9, "van": 0.9}, repair_ious={"car": 0.5, "van": 0.5},
    ).save(file)  # fmt: skip
    return file


@pytest.fixture(scope="session")
def toy_recipe(toy_preset, toy_dataset, toy_renderer, toy_detector, toy_calibration):
    """A recipe of six small images."""
    from dataengine.engine.recipe import Recipe

    return Recipe(
        dataset=str(toy_preset), data=toy_dataset, model=toy_renderer, detector=toy_detector,
        calibration=toy_calibration, n=6, size=96, steps=2, shard_size=4, max_attempts=60, filter="difficult",
    )  # fmt: skip
