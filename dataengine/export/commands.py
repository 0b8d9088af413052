"""`dataengine export`: a run and real data in the form that a detector is trained with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Hand a run to the programs that train detectors.", no_args_is_help=True)


@app.command("mmrotate")
def mmrotate_command(
    run: Annotated[Path, typer.Argument(help="Folder of dataengine synth, or any labelled data set.")],
    real: Annotated[Path, typer.Option(help="Your labelled data set, in any known format.")],
    detector: Annotated[
        str,
        typer.Option(
            help="oriented-rcnn, roi-transformer, redet, rotated-faster-rcnn, rotated-fcos, rotated-retinanet, s2anet, "
            "rtmdet-r or h2rbox-v2."
        ),
    ] = "oriented-rcnn",
    ratio: Annotated[
        str, typer.Option(help="real:synthetic, how often an epoch shows each image; 1:0 is real alone, to compare.")
    ] = "1:1",
    out: Annotated[Path | None, typer.Option(help="Folder for data and config; RUN/mmrotate if not said.")] = None,
    layout: Annotated[str, typer.Option(help="Form of the folders: dota, dior, hrsc or coco.")] = "dota",
    train: Annotated[
        list[str] | None, typer.Option(help="Split to train on; repeat for more [trainval, or else train].")
    ] = None,
    test: Annotated[
        str | None,
        typer.Option(help="Split to be judged on, or the folder of another data set [val, or else test]."),
    ] = None,
    classes: Annotated[
        str | None, typer.Option(help="Only these classes, with commas; all of the real data if not said.")
    ] = None,
    most: Annotated[
        int | None, typer.Option(min=1, help="Only so many synthetic images, the first of the run.")
    ] = None,
    tile_size: Annotated[int, typer.Option(min=64, help="Real images longer than this are cut into tiles.")] = 1024,
    scale: Annotated[float, typer.Option(help="Enlarge all images when they are loaded, for small objects.")] = 1.0,
    cpu: Annotated[
        bool, typer.Option("--cpu", help="Exchange the parts that mmcv has for CUDA only, to train without a GPU.")
    ] = False,
) -> None:
    """Write an mmrotate config that trains a detector on real and synthetic images and judges it on real ones.

    Data and config lie in one folder, which can be moved to another machine. Needs no mmrotate; training does.

    Example: dataengine export mmrotate runs/first --real data/hit-uav --detector oriented-rcnn --ratio 1:1
    """
    from dataengine.mmrotate.export import export, parse_ratio

    names = None if classes is None else [name.strip() for name in classes.split(",") if name.strip()]
    with _progress() as progress:
        done = export(
            run,
            real,
            out or run / "mmrotate",
            detector=detector,
            ratio=parse_ratio(ratio),
            layout=layout,
            train_splits=train or (),
            test=test,
            classes=names,
            most=most,
            tile_size=tile_size,
            scale=scale,
            cpu=cpu,
            progress=progress,
        )
    for note in done.notes:
        typer.echo(note, err=True)
    typer.echo(
        f"{done.config}: trains on {done.real} real and {done.synthetic} synthetic images ({ratio}), is judged on "
        f"{done.test} real ones, and knows {', '.join(done.classes)}."
    )


@app.command("shards")
def shards_command(
    source: Annotated[Path, typer.Argument(help="Folder of dataengine synth, or any labelled data set.")],
    out: Annotated[Path | None, typer.Option(help="New folder; SOURCE/FORMAT if not said.")] = None,
    format: Annotated[str, typer.Option(help="webdataset (tar) or parquet.")] = "webdataset",
    megabytes: Annotated[float, typer.Option(min=1, help="Size of each file, about.")] = 256,
) -> None:
    """Write the accepted images of a run as few large files, for training straight from a bucket or the hub.

    Example: dataengine export shards runs/first --format parquet
    """
    from dataengine.errors import UserError
    from dataengine.export.shards import SUFFIXES, write_shards

    if format not in SUFFIXES:
        raise UserError(f"--format {format}: give {' or '.join(SUFFIXES)}.")
    with _progress() as progress:
        files = write_shards(source, out or source / format, format, megabytes, lambda *n: progress("images", *n))
    typer.echo(f"{len(files)} files, the first is {files[0]}")


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    """A bar for each step on standard error."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        tasks: dict = {}

        def advance(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=total)
            bar.update(tasks[what], completed=done)

        yield advance
