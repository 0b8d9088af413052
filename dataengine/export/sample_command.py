"""`dataengine data sample`: a small labelled data set drawn by the packaged models, to try the commands with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer


def sample_command(
    out: Annotated[Path, typer.Option(help="New or empty folder for the data set.")],
    dataset: Annotated[
        Literal["hit-uav", "hrplanes"],
        typer.Option(help="What is drawn: thermal drone images with rotated boxes, or airports with horizontal ones."),
    ] = "hit-uav",
    n: Annotated[int, typer.Option(min=2, help="Number of images.")] = 60,
    seed: Annotated[int, typer.Option(min=0, help="Random seed; another seed draws other images.")] = 0,
) -> None:
    """Draw a small labelled data set with the packaged models, to try every command without data or network.

    No image is real: the files and the description say so. 70 % are the split train, the rest val.

    Example: dataengine data sample --out sample
    """
    from dataengine.data.commands import _progress
    from dataengine.export.sample import draw_sample

    with _progress("Drawing images") as progress:
        counts = draw_sample(out, dataset, n, seed, progress)
    typer.echo(f"{out}: {', '.join(f'{name} {images} images' for name, images in counts.items())}, in coco format")
    typer.echo("all of them are synthetic: use them to learn the commands, not to measure anything")
