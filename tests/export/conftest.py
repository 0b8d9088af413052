"""A finished run of the toy data set, and its release."""

from __future__ import annotations

from pathlib import Path

import pytest


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


@pytest.fixture(scope="session")
def repainted_run(toy_preset, toy_renderer, tmp_path_factory) -> Path:
    """A finished run of 24 small images, in which objects of 200 real images are repainted."""
    from toy_scenes import scenes

    from dataengine.data import dota
    from dataengine.engine.recipe import Recipe
    from dataengine.engine.run import synth

    folder = tmp_path_factory.mktemp("repainted")
    dota.write(scenes(folder / "images", 200, 5), folder / "dota")
    recipe = Recipe(
        dataset=str(toy_preset), data=folder / "dota", model=toy_renderer, filter="off", strength=0.3,
        likely_places=False, n=24, size=96, steps=2, shard_size=8,
    )  # fmt: skip
    return synth(recipe, folder / "run").out
