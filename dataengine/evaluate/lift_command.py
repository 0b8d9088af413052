"""`dataengine evaluate lift`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def lift_command(
    runs: Annotated[
        list[Path], typer.Argument(help="Folders of dataengine synth, whose models saw no label but those of --real.")
    ],
    real: Annotated[Path, typer.Option(help="The labelled data set to train on.")],
    test: Annotated[Path, typer.Option(help="The labelled data set to be judged on.")],
    out: Annotated[Path, typer.Option(help="Folder for data, trainings and outcomes.")],
    images: Annotated[
        list[int] | None,
        typer.Option(help="Synthetic images of an arm; repeat for more arms [as many as the smallest run has]."),
    ] = None,
    detector: Annotated[str, typer.Option(help="A name of dataengine export mmrotate.")] = "rtmdet-r",
    options: Annotated[
        Path | None, typer.Option(help="YAML of changes in its config, as key.key: value, for all arms.")
    ] = None,
    steps: Annotated[int, typer.Option(min=2, help="Optimiser steps of every training.")] = 12_000,
    batch_size: Annotated[int, typer.Option(min=1, help="Images a step.")] = 8,
    seeds: Annotated[int, typer.Option(min=1, help="Trainings of each arm; three are the least for an interval.")] = 3,
    real_share: Annotated[
        float, typer.Option(min=0.01, max=0.99, help="Of the images shown, where there are others.")
    ] = 0.5,
    pasted: Annotated[int, typer.Option(min=1, help="Images of the copy-paste arm.")] = 5000,
    tile_size: Annotated[int, typer.Option(min=64, help="Real images longer than this are cut into tiles.")] = 1024,
    scale: Annotated[float, typer.Option(help="Enlarge all images when they are loaded, for small objects.")] = 1.0,
    workers: Annotated[int, typer.Option(min=1, help="Trainings at a time; each core, or each GPU's share, one.")] = 1,
    more_real: Annotated[
        Path | None, typer.Option(help="A labelled data set for a last arm: what labelling so much more would bring.")
    ] = None,
    cpu: Annotated[bool, typer.Option("--cpu", help="Exchange what mmcv has for CUDA only.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON for a script instead of a table.")] = False,
) -> None:
    """Does the data help? The same detector, schedule and seeds on real images alone, with copy-paste, and with
    synthetic ones, judged on real images; needs mmrotate.

    All arms take equally many steps. Stopped or killed, the same command continues; with other runs or --images it
    adds their arms.

    Example: dataengine evaluate lift runs/mine --real data/train --test data/val --images 500 --images 5000 --out lift
    """
    from dataengine.evaluate.lift import Protocol, run_lift, tables
    from dataengine.evaluate.results import print_results
    from dataengine.evaluate.windows import read_generated
    from dataengine.files import read_yaml

    sizes = tuple(images or [min(len(read_generated(run)) for run in runs)])
    changes = read_yaml(options) if options else {}
    protocol = Protocol(
        real, test, tuple(runs), sizes, detector, changes, steps, batch_size, seeds, real_share, pasted, tile_size,
        scale, cpu, more_real,
    )  # fmt: skip
    outcomes = run_lift(protocol, out, workers, lambda text: typer.echo(text, err=True))
    print_results(tables(outcomes, detector), json)
