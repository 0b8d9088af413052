"""`dataengine export`: write a run in the form that detectors are trained with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import typer

from dataengine.data.commands import Format, FormatName, RealFormat, class_list
from dataengine.mmrotate import DetectorName

app = typer.Typer(help="Write a run in the form that detector training frameworks read.", no_args_is_help=True)


@app.command("mmrotate")
def mmrotate_command(
    real: Annotated[Path, typer.Option(help="Your labelled data set, in any supported format.")],
    run: Annotated[
        Path | None,
        typer.Argument(help="Run folder of dataengine synth, or any labelled data set. [default: real images alone]"),
    ] = None,
    format: Format = None,
    real_format: RealFormat = None,
    detector: Annotated[DetectorName, typer.Option(help="Detector to configure.")] = "oriented-rcnn",
    ratio: Annotated[
        str | None,
        typer.Option(
            help="REAL:SYNTHETIC, repeats of each image per epoch; 1:0 trains on real images only. [default: 1:1, or "
            "1:0 without a run]"
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for data and config. [default: RUN/mmrotate]")] = None,
    layout: Annotated[Literal["dota", "dior", "hrsc", "coco"], typer.Option(help="Format of the data.")] = "dota",
    train: Annotated[
        list[str] | None,
        typer.Option(metavar="LIST", help="Splits to train on: train,val. [default: trainval, or train]"),
    ] = None,
    test: Annotated[
        str | None,
        typer.Option(help="Split to test on, or folder of another data set. [default: val, or test]"),
    ] = None,
    classes: Annotated[
        str | None, typer.Option(help="Use only these classes: plane,ship. [default: all of the real data]")
    ] = None,
    images: Annotated[
        int | None,
        typer.Option(min=1, help="Use at most this many synthetic images, the first of the run. [default: all]"),
    ] = None,
    tile_size: Annotated[
        int, typer.Option(min=64, help="Cut larger real images into tiles of this side in pixels.")
    ] = 1024,
    scale: Annotated[float, typer.Option(help="Scale of all images at loading, for small objects.")] = 1.0,
    cpu: Annotated[
        bool, typer.Option("--cpu", help="Replace the parts of mmcv that need CUDA, to train without a GPU.")
    ] = False,
) -> None:
    """Write an mmrotate config that trains a detector on real and synthetic images and tests it on real ones.

    Data and config are in one folder, which can be moved to another machine. Only the training needs mmrotate.

    Example: dataengine export mmrotate runs/first --real data/hit-uav --detector oriented-rcnn --ratio 1:1
    """
    from dataengine.engine.update import update_data_sets
    from dataengine.errors import UserError
    from dataengine.mmrotate.export import export, parse_ratio

    if run is None and out is None:
        raise UserError("give the folder to write as --out; only with a run it lies in that by default.")
    ratio = ratio or ("1:0" if run is None else "1:1")
    if run is not None:
        update_data_sets(run)

    with _progress() as progress:
        done = export(
            run,
            real,
            out or run / "mmrotate",
            detector=detector,
            ratio=parse_ratio(ratio),
            layout=layout,
            train_splits=[split for text in train or () for split in class_list(text)],
            test=test,
            classes=class_list(classes),
            most=images,
            tile_size=tile_size,
            scale=scale,
            cpu=cpu,
            run_format=format,
            real_format=real_format,
            progress=progress,
        )
    for note in done.notes:
        typer.echo(note, err=True)
    synthetic = f" and {done.synthetic} synthetic images" if done.synthetic else " images"
    typer.echo(
        f"{done.config}: trains on {done.real} real{synthetic} and tests on {done.test} real images; classes: "
        f"{', '.join(done.classes)}."
    )


@app.command("shards")
def shards_command(
    source: Annotated[Path, typer.Argument(help="Run folder of dataengine synth, or any labelled data set.")],
    out: Annotated[Path | None, typer.Option(help="New folder. [default: SOURCE/FORMAT]")] = None,
    format: Annotated[Literal["webdataset", "parquet"], typer.Option(help="Format of the files.")] = "webdataset",
    megabytes: Annotated[float, typer.Option(min=1, help="Approximate size of each file in megabytes.")] = 256,
    source_format: Annotated[
        FormatName | None, typer.Option(help="Format of a data set as SOURCE. [default: recognised by content]")
    ] = None,
) -> None:
    """Write the accepted images of a run as few large files, to stream them from a bucket or hub while training.

    Example: dataengine export shards runs/first --format parquet
    """
    from dataengine.export.shards import write_shards

    with _progress() as progress:
        problems: list = []
        images = lambda *n: progress("images", *n)  # noqa: E731
        files = write_shards(source, out or source / format, format, megabytes, images, source_format, problems)
    for problem in problems[:20]:
        typer.echo(str(problem), err=True)
    if problems:
        typer.echo(f"{len(problems)} objects are left out", err=True)
    typer.echo(f"{len(files)} files, from {files[0]}")


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    """Show a progress bar for each step on standard error."""
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
