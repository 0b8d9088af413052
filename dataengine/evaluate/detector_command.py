"""`dataengine train detector`."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import typer

from dataengine.data.commands import Format, class_list
from dataengine.mmrotate import DetectorName

LOG_SECONDS = 60
PresetName = Literal["tiny", "small", "lite0", DetectorName]  # keys of train.detector.PRESETS


def detector_command(
    data: Annotated[Path, typer.Argument(help="Labelled data set in any supported format.")],
    out: Annotated[Path, typer.Option(help="Folder for the training; OUT/detector is the detector.")],
    synthetic: Annotated[
        Path | None,
        typer.Option(help="Run folder of dataengine synth, or a labelled data set, to train on as well."),
    ] = None,
    preset: Annotated[
        PresetName,
        typer.Option(help="tiny, small or lite0 (ImageNet weights) for a CPU; mmrotate's detectors for a GPU."),
    ] = "lite0",
    steps: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Training steps; more than before lengthen a training. [default: 1500; mmrotate's epochs on a GPU]",
        ),
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(min=0, help="Stop after this many minutes, with a detector. [default: no limit]")
    ] = None,
    val: Annotated[
        str | None,
        typer.Option(help="Split or labelled data set to measure the detector on. [default: val if there is one]"),
    ] = None,
    format: Format = None,
    split: Annotated[
        str | None, typer.Option(help="Splits to train on: train,extra. [default: trainval, or train, or all]")
    ] = None,
    classes: Annotated[str | None, typer.Option(help="Use only these classes: plane,ship. [default: all]")] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Images per step. [default: 8; 2 for most on a GPU]")
    ] = None,
    real_share: Annotated[
        float, typer.Option(min=0.01, max=0.99, help="Share of real images in each batch, with --synthetic.")
    ] = 0.5,
    tile_size: Annotated[
        int | None,
        typer.Option(min=64, help="Cut larger images into tiles of this side in pixels. [default: 256; 1024 on a GPU]"),
    ] = None,
    scale: Annotated[float, typer.Option(help="Scale of all images at loading, for small objects.")] = 1.0,
    options: Annotated[
        Path | None, typer.Option(help="YAML file of changes to mmrotate's config (key.key: value).")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Random seed.")] = 0,
) -> None:
    """Train an oriented detector on your own data, for the filter: dataengine synth --detector OUT/detector.

    mmrotate, which trains it, needs an environment of its own; the first training makes and keeps it. If a training is
    stopped or killed, the same command continues it.

    Example: dataengine train detector data/mine --out work/detector
    """
    from dataengine.data import formats
    from dataengine.errors import UserError, counted
    from dataengine.files import read_yaml
    from dataengine.judge.detector import load_detector
    from dataengine.train.detector import train_detector

    there = formats.splits(data, format)
    val = val or ("val" if "val" in there else None)
    if val is not None and val not in there and not Path(val).exists():
        raise UserError(f"--val {val}: neither a split of {data} ({', '.join(there) or 'it has none'}) nor a folder.")
    chosen = class_list(split) or []
    if val in chosen:
        raise UserError(f"--val {val}: the split is also trained on; choose another one.")
    with _bar() as progress:
        result = train_detector(
            data, out, extra=synthetic, preset=preset, steps=steps, minutes=minutes, batch_size=batch_size, seed=seed,
            real_share=real_share, splits=chosen, classes=class_list(classes), format=format, tile_size=tile_size,
            scale=scale, options=read_yaml(options) if options else None,
            report=lambda text: typer.echo(text, err=True), progress=progress,
        )  # fmt: skip
    print(f"detector: {result}; use it with: dataengine synth --detector {result}")
    if val is not None:
        from dataengine.evaluate.lift import evaluate_detector

        place, part = (data, val) if val in there else (Path(val), None)
        found = evaluate_detector(load_detector(result), place, format if part else None, part)
        print(f"AP50 on {val}: {found['AP50']:.3f} (AP {found['AP']:.3f})")
        there = Counter(n for s in formats.read(place, format if part else None, split=part) for n in s.layout.names())
        for name, value in found["AP50 by class"].items():
            print(f"  {name}: {value:.3f} ({counted(there[name], 'object')})")


@contextmanager
def _bar() -> Iterator[Callable[[int, int, float], None]]:
    """Show steps, loss and remaining time on standard error; a log file gets a line a minute."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    said = time.monotonic()
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("training", total=None)

        def advance(step: int, steps: int, loss: float) -> None:
            nonlocal said
            bar.update(task, completed=step, total=steps, description=f"loss {loss:.3f}")
            if not bar.console.is_terminal and time.monotonic() - said > LOG_SECONDS:
                typer.echo(f"step {step}/{steps}: loss {loss:.3f}", err=True)
                said = time.monotonic()

        yield advance
