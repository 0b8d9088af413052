"""`dataengine data select`: the images that a person chose, as a data set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dataengine.data.commands import Format, Split, WrittenName, _print_problems, _write


def select_command(
    source: Annotated[Path, typer.Argument(help="Run folder of dataengine synth, or any labelled data set.")],
    out: Annotated[Path, typer.Option(help="New or empty folder for the selected images and their labels.")],
    tag: Annotated[
        list[str] | None,
        typer.Option(help="Tag that the images have; repeat it for images with several. [default: any]"),
    ] = None,
    filter: Annotated[
        str, typer.Option(help="Address of the page of dataengine view, or what follows its '?': class=car&size=..16.")
    ] = "",
    names: Annotated[
        Path | None, typer.Option(help="File with names of images, one a line, such as the page saves. [default: all]")
    ] = None,
    unused: Annotated[
        bool, typer.Option("--unused", help="Also images that the filter dropped or a person rejected.")
    ] = False,
    to: Annotated[WrittenName, typer.Option(help="Format to write; coco keeps all label fields.")] = "coco",
    name: Annotated[str, typer.Option(help="Name of the split to write.")] = "train",
    format: Format = None,
    split: Split = None,
) -> None:
    """Write the images of a run that a person chose, by tags, a filter or a list, as a data set with corrected labels.

    Tags and corrections are made in `dataengine view`. Without a choice, all accepted images are written.

    Example: dataengine data select runs/first --tag good --to coco --out data/good
    """
    from dataengine.data import formats
    from dataengine.view.select import read_names, select

    formats.writer(to)
    listed = read_names(names) if names is not None else None
    chosen = select(source, tag or (), filter, listed, unused, format, split)
    for note in chosen.notes:
        typer.echo(f"note: {note}", err=True)
    written, left_out = _write(chosen.dataset, out, to, name)
    typer.echo(f"{out}: {written} images in {formats.labels_written(chosen.dataset, to)}")
    _print_problems(left_out, 20)
