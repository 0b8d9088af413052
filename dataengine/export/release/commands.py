"""`dataengine release`: publish a run as a data set, and verify one that was published."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from typer.core import TyperGroup

from dataengine.export.commands import _progress


class _RunFirst(TyperGroup):
    """`dataengine release RUN` is `dataengine release make RUN`: releasing is what the word says."""

    def parse_args(self, ctx, args):
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = ["make", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_RunFirst,
    no_args_is_help=True,
    help="Publish a run as a data set, or verify one.\n\n"
    "dataengine release RUN --name NAME --license cc-by-4.0 makes one; `make` may be left out.",
)


@app.command("make")
def make_command(
    run: Annotated[Path, typer.Argument(help="Folder of a finished dataengine synth.")],
    name: Annotated[str, typer.Option(help="Of the data set: letters, digits, '-', '_' and '.'.")],
    license: Annotated[str, typer.Option(help="SPDX id, such as cc-by-4.0.")],
    out: Annotated[Path | None, typer.Option(help="Folder to make; releases/NAME if not said.")] = None,
    val: Annotated[float, typer.Option(help="Share of the images for validation; 0 for none.")] = 0.1,
    formats: Annotated[str, typer.Option(help="Labels to write, with commas: dota, coco, yolo-obb.")] = "dota,coco",
    group: Annotated[
        str | None, typer.Option(help="Regular expression: sources in which it finds the same stay on one side.")
    ] = None,
    archive_size: Annotated[
        str | None, typer.Option(help="Also write tar archives of at most this size, such as 1GB.")
    ] = None,
    source_license: Annotated[
        str, typer.Option(help="Licence of your own data and models, where they do not say it themselves.")
    ] = "",
    allow_license_mix: Annotated[
        bool,
        typer.Option("--allow-license-mix", help="Release against the licences of what went in; the card says so."),
    ] = False,
    training: Annotated[
        Path | None, typer.Option(help="What the models were trained on: no near copy of it is released.")
    ] = None,
    held_out: Annotated[
        Path | None, typer.Option(help="For --training: real pictures that no model has seen, to compare with.")
    ] = None,
    most_copies: Annotated[float, typer.Option(min=0, max=1, help="Share of images that may be near copies.")] = 0.02,
    drop_copies: Annotated[
        bool, typer.Option("--drop-copies", help="Leave near copies out instead of refusing to release.")
    ] = False,
    version: Annotated[str, typer.Option(help="Of the data set.")] = "1.0.0",
    date: Annotated[str | None, typer.Option(help="Of publication, such as 2026-11-25; none if not said.")] = None,
) -> None:
    """Make a data set that can be published: images with marks, labels, splits, card, Croissant, checksums.

    The same run and options make the same bytes; nothing half-made ever lies in --out.

    Example: dataengine release runs/first --name first-cars --license cc-by-4.0
    """
    from dataengine.export.release.make import Settings, make

    settings = Settings(
        name, license, val, formats, group, archive_size, source_license, allow_license_mix, training, held_out,
        most_copies, drop_copies, version, date,
    )  # fmt: skip
    with _progress() as progress:
        done = make(run, out or Path("releases") / name, settings, progress, _told(progress))
    for note in done.notes:
        typer.echo(note, err=True)
    parts = " and ".join(f"{n} images in {split}" for split, n in done.splits.items())
    typer.echo(f"{done.folder}: {parts}{'' if done.fresh else '; it was there already, unchanged'}.")
    typer.echo(f"Look at {done.folder / 'README.md'} before you publish it.")


@app.command("verify")
def verify_command(
    folder: Annotated[Path, typer.Argument(help="Folder that dataengine release made.")],
) -> None:
    """Compare checksums, counts, labels of all formats, marks in the images, splits and archives with each other.

    Example: dataengine release verify releases/first-cars
    """
    from dataengine.export.release.verify import verify

    found = verify(folder)
    for fault in found.faults:
        typer.echo(fault)
    if found.faults:
        typer.echo(f"{folder}: {len(found.faults)} faults; make the release again.")
        raise typer.Exit(1)
    typer.echo(f"{folder}: {found.images} images; {', '.join(found.checked)} are as they should be.")


def _told(progress):
    """Progress over a sequence."""

    def run(sequence: Sequence, title: str):
        for done, item in enumerate(sequence, 1):
            yield item
            progress(title, done, len(sequence))

    return run
