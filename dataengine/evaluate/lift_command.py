"""`dataengine evaluate lift`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from dataengine.data.commands import FormatName
from dataengine.mmrotate import DetectorName


def lift_command(
    runs: Annotated[
        list[Path],
        typer.Argument(help="Run folders of dataengine synth, whose models saw no labels except those of --real."),
    ],
    real: Annotated[Path, typer.Option(help="Labelled data set to train on.")],
    test: Annotated[Path, typer.Option(help="Labelled data set to test on.")],
    out: Annotated[Path, typer.Option(help="Folder for data, trainings and results.")],
    format: Annotated[
        FormatName | None,
        typer.Option(help="Format of --real, --test and --more-real. [default: recognised by content]"),
    ] = None,
    images: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LIST",
            help="Number of synthetic images of each arm: 500,5000. [default: one arm of the smallest run's size]",
        ),
    ] = None,
    detector: Annotated[DetectorName, typer.Option(help="mmrotate detector to train.")] = "rtmdet-r",
    options: Annotated[
        Path | None, typer.Option(help="YAML file of changes to the detector's config (key.key: value).")
    ] = None,
    steps: Annotated[int, typer.Option(min=2, help="Optimiser steps of each training.")] = 12_000,
    batch_size: Annotated[int, typer.Option(min=1, help="Images per step.")] = 8,
    seeds: Annotated[int, typer.Option(min=1, help="Trainings of each arm; intervals need at least 3.")] = 3,
    real_share: Annotated[
        float, typer.Option(min=0.01, max=0.99, help="Share of real images in arms with other images.")
    ] = 0.5,
    pasted: Annotated[int, typer.Option(min=1, help="Number of images of the copy-paste arm.")] = 5000,
    tile_size: Annotated[
        int, typer.Option(min=64, help="Cut larger real images into tiles of this side in pixels.")
    ] = 1024,
    scale: Annotated[float, typer.Option(help="Scale of all images at loading, for small objects.")] = 1.0,
    workers: Annotated[int, typer.Option(min=1, help="Number of parallel trainings.")] = 1,
    more_real: Annotated[
        Path | None,
        typer.Option(help="Labelled data set for one more arm, which shows the effect of more real labels."),
    ] = None,
    cpu: Annotated[bool, typer.Option("--cpu", help="Replace the parts of mmcv that need CUDA.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON for a script instead of a table.")] = False,
) -> None:
    """Measure how synthetic data changes a detector: train it on real images only, with copy-paste, and with each run.

    All arms use the same detector, number of steps and seeds, and are tested on real images. If the command is stopped
    or killed, the same command continues it; other runs or --images add arms. Where mmrotate is not installed, the
    command runs in the environment that dataengine train detector makes.

    Example: dataengine evaluate lift runs/mine --real data/train --test data/val --images 500,5000 --out lift
    """
    from dataengine.errors import UserError

    try:
        sizes = tuple(int(size) for text in images or () for size in text.split(","))
    except ValueError:
        raise UserError(f"--images {','.join(images)}: give whole numbers, such as 500,5000.") from None
    from dataengine.evaluate.lift import Protocol, run_lift, tables  # takes seconds
    from dataengine.evaluate.results import print_results
    from dataengine.evaluate.windows import read_generated
    from dataengine.files import read_yaml
    from dataengine.mmrotate import environment

    sizes = sizes or (min(len(read_generated(run)) for run in runs),)
    if not environment.is_here():
        raise typer.Exit(subprocess.run(environment.command("dataengine", *sys.argv[1:]), check=False).returncode)
    changes = read_yaml(options) if options else {}
    protocol = Protocol(
        real, test, tuple(runs), sizes, detector, changes, steps, batch_size, seeds, real_share, pasted, tile_size,
        scale, cpu, more_real, format,
    )  # fmt: skip
    outcomes = run_lift(protocol, out, workers, lambda text: typer.echo(text, err=True))
    print_results(tables(outcomes, detector), json)
