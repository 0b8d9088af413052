"""Data sets as from a height, an angle, by night: what is asked for is what is laid out."""

from __future__ import annotations

import numpy as np
import pytest
from typer.testing import CliRunner

from dataengine.cli import app
from dataengine.engine.attempt import sample_layouts
from dataengine.engine.parts import load_parts
from dataengine.engine.recipe import Recipe, load_recipe
from dataengine.errors import UserError


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A function from what is asked for to 60 layouts, drawn for the packaged parts on a machine without data."""
    nowhere = tmp_path_factory.mktemp("nowhere")

    def draw(**asked):
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(nowhere)
            recipe = Recipe(dataset="hit-uav", filter="off", **asked)
            return sample_layouts(load_parts(recipe), recipe, range(60))

    return draw


def car_length(layouts) -> float:
    """Median in pixels."""
    return float(np.median(np.concatenate([x.boxes[np.array(x.names()) == "Car", 2] for x in layouts])))


@pytest.mark.parametrize("layouts", ["reuse", "prior"])
def test_altitude_and_night_are_as_asked_and_cars_shrink_with_the_height(drawn, layouts):
    straight = {"camera_angle": (80, 90), "layouts": layouts}
    low = drawn(altitude=(60, 80), night=True, **straight)
    high = drawn(altitude=(110, 130), night=False, **straight)
    assert all(60 <= x.acquisition.altitude_m <= 80 and x.acquisition.night for x in low)
    assert all(110 <= x.acquisition.altitude_m <= 130 and not x.acquisition.night for x in high)
    assert car_length(low) > 1.1 * car_length(high)
    anything = drawn(layouts=layouts)
    assert {x.acquisition.night for x in anything} == {True, False}
    assert np.ptp([x.acquisition.altitude_m for x in anything]) > 50


def test_what_no_picture_has_is_told_together_with_what_there_is(drawn):
    with pytest.raises(
        UserError, match=r"no layout matches these filters.*--altitude 60 130.*no gsd.*--day and --night"
    ):
        drawn(altitude=(5, 10))
    with pytest.raises(UserError, match="lower number first: 60 130"):
        load_recipe(None, {"dataset": "hit-uav", "altitude": (130, 60)})


def test_the_command_line_takes_two_numbers_and_night_or_day(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asked = ["--dataset", "hit-uav", "--altitude", "100", "130", "--night", "--dry-run", "--json"]
    assert CliRunner().invoke(app, ["synth", *asked]).exit_code == 0
    refused = CliRunner().invoke(app, ["synth", "--dataset", "hit-uav", "--gsd", "0.1", "0.2", "--dry-run"])
    assert refused.exit_code != 0
