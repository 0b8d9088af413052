"""`dataengine improve`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dataengine.data.commands import Format


def improve_command(
    data: Annotated[Path, typer.Argument(help="Labelled data set in any supported format, or parts of data split.")],
    out: Annotated[Path, typer.Option(help="Folder for the detector, its data, the report and all stages.")],
    preset: Annotated[
        str | None, typer.Option(help="Detector, as in dataengine train detector. [default: one for a CPU]")
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Optimiser steps of each detector. [default: the preset's]")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Trainings of each comparison; intervals need at least 3.")] = 3,
    rounds: Annotated[int, typer.Option(min=0, help="Most rounds of synthetic images.")] = 3,
    hours: Annotated[
        float | None, typer.Option(min=0, help="Begin no round after this many hours of work. [default: no limit]")
    ] = None,
    images: Annotated[int, typer.Option(min=1, help="Synthetic images of each round.")] = 500,
    size: Annotated[
        int | None, typer.Option(min=64, help="Their side in pixels. [default: up to 256, by the training images]")
    ] = None,
    real_share: Annotated[
        float, typer.Option(min=0.01, max=0.99, help="Share of real images in batches with synthetic ones.")
    ] = 0.5,
    renderer_steps: Annotated[int, typer.Option(min=1, help="Training steps of the renderer.")] = 1500,
    model: Annotated[
        Path | None, typer.Option(help="Pipeline folder of a trained renderer. [default: one is trained]")
    ] = None,
    group: Annotated[
        str | None,
        typer.Option(
            help="Regular expression; where a part is divided, images whose names give the same match stay together. "
            "`flight` groups HIT-UAV by flight. [default: by the names]"
        ),
    ] = None,
    tile_size: Annotated[
        int | None,
        typer.Option(
            min=64,
            help="Detectors train on tiles of this side, which larger images are cut into, in pixels. "
            "[default: the preset's]",
        ),
    ] = None,
    scale: Annotated[
        float, typer.Option(help="Scale of all images when a detector loads them, for small objects, or to save time.")
    ] = 1.0,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes that make images. [default: one per core]")
    ] = None,
    format: Format = None,
) -> None:
    """Make a better detector from a labelled data set, or learn that synthetic images do not help it.

    Trains a detector on real images, makes synthetic ones, and keeps them only if they help on the validation part.
    Then makes more of what the detector fails on. OUT/detector is the best, OUT/data what it was trained on,
    OUT/report.html shows why. If the command is stopped or killed, the same command continues it.

    Example: dataengine improve data/mine --out work/mine
    """
    from dataengine.errors import UserError, require

    if not data.exists():
        raise UserError(f"{data} does not exist; check the spelling and where the data set was unpacked.")
    # without --model a renderer is distilled; all that is missing is named at once
    require("evaluate", "matplotlib", "jinja2", *([] if model else ["efficientnet_lite_pytorch"]))
    from dataengine.improve.report import verdict, write
    from dataengine.improve.run import improve
    from dataengine.improve.stages import Settings
    from dataengine.train.detector import DEFAULT_PRESET, PRESETS, train_detector

    if preset is not None and preset not in PRESETS:
        raise UserError(f"--preset {preset}: no such detector; choose one of {', '.join(PRESETS)}.")
    if model is not None and not (model / "model_index.json").exists():
        raise UserError(f"--model {model}: no model_index.json here; give the pipeline folder of a trained renderer.")
    settings = Settings(
        preset or DEFAULT_PRESET, steps, seeds, rounds, images, hours, size, renderer_steps, model, real_share, format,
        group, tile_size, scale,
    )  # fmt: skip
    outcome = improve(
        data, out, settings, train_detector, workers=workers, report=write,
        say=lambda text: typer.echo(text, err=True), ended=lambda one: typer.echo(str(one)),
    )  # fmt: skip
    for line in [*outcome.notes, f"stopped: {outcome.stopped}", *verdict(outcome)]:
        typer.echo(line)
    typer.echo(f"detector: {out / 'detector'}; data: {out / 'data'}; report: {out / 'report.html'}")
