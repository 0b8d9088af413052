"""`dataengine train control`: make the ground of a renderer follow maps."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dataengine.train.commands import Batch, Compile, Evaluate, Minutes, Out, Rate, Seed, Steps, _settings, _writing


def control_command(
    pairs: Annotated[Path, typer.Argument(help="Folder of dataengine data pairs.")],
    out: Out,
    model: Annotated[
        Path | None, typer.Option(help="Whole-image renderer, small or full-size. [default: the packaged one]")
    ] = None,
    steps: Steps = 10_000,
    batch_size: Batch = 16,
    learning_rate: Rate = 1e-4,
    seed: Seed = 0,
    minutes: Minutes = None,
    compile: Compile = False,
    evaluate_every: Evaluate = 1000,
) -> None:
    """Train a side network (ControlNet) that makes the ground of a whole-image renderer follow a map.

    The renderer stays as it is. OUT/control is for dataengine synth --control.

    Example: dataengine train control work/pairs --model work/whole/pipeline --out work/control
    """
    from dataengine import weights
    from dataengine.maps.ground import load_ground
    from dataengine.maps.pairs import read_pairs
    from dataengine.render.imagery import read_imagery
    from dataengine.render.renderer import load_renderer
    from dataengine.train.control import train_control

    folder = model or weights.packaged("whole")
    found, pipeline = read_pairs(pairs), load_renderer(folder, "whole")
    ranges = [one.gsd_m for one in read_imagery(folder) if one.gsd_m]
    low, high = found.gsd_m  # a model of several data sets has several scales: the nearest
    trained = min(ranges, key=lambda r: max(r[0] / low, high / r[1])) if ranges else None
    settings = _settings(steps, batch_size, learning_rate, seed, minutes, compile, evaluate_every)
    with _writing(out):
        train_control(pipeline, found, load_ground(), out, settings, trained)
    print(
        f"control: {out / 'control'}; use it with: dataengine synth --layouts map --map MAP --control {out / 'control'}"
    )
