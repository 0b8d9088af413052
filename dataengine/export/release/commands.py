"""`dataengine release`: make a publishable data set of a run, and verify a published one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from typer.core import TyperGroup

from dataengine.data.commands import FormatName
from dataengine.export.commands import _progress


class _RunFirst(TyperGroup):
    """`dataengine release RUN` means `dataengine release make RUN`."""

    def parse_args(self, ctx, args):
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = ["make", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_RunFirst,
    no_args_is_help=True,
    help="Make a data set for publication from a run, or verify one. The word `make` may be omitted.",
)


@app.command("make")
def make_command(
    run: Annotated[Path, typer.Argument(help="Run folder of dataengine synth.")],
    name: Annotated[str, typer.Option(help="Name of the data set: letters, digits, '-', '_' and '.'.")],
    license: Annotated[str, typer.Option(help="Licence of the data set as SPDX id, such as cc-by-4.0.")],
    out: Annotated[Path | None, typer.Option(help="New folder. [default: releases/NAME]")] = None,
    val: Annotated[float, typer.Option(help="Share of validation images; 0 means none.")] = 0.1,
    formats: Annotated[str, typer.Option(help="Label formats to write: dota,coco,yolo-obb.")] = "dota,coco",
    group: Annotated[
        str | None,
        typer.Option(help="Regular expression; source images whose names give the same match stay in one split."),
    ] = None,
    archive_size: Annotated[
        str | None, typer.Option(help="Also write tar archives of at most this size, such as 1GB. [default: none]")
    ] = None,
    source_license: Annotated[str, typer.Option(help="Licence of your data and models that state none.")] = "",
    allow_license_mix: Annotated[
        bool,
        typer.Option(
            "--allow-license-mix",
            help="Release in spite of conflicting licences of the sources; the card states the conflict.",
        ),
    ] = False,
    training: Annotated[
        Path | None, typer.Option(help="Training images of the models, to refuse near copies of them.")
    ] = None,
    training_format: Annotated[
        FormatName | None, typer.Option(help="Format of --training. [default: recognised by content]")
    ] = None,
    held_out: Annotated[
        Path | None, typer.Option(help="For --training: real images that no model was trained on, for comparison.")
    ] = None,
    held_out_format: Annotated[
        FormatName | None, typer.Option(help="Format of --held-out. [default: recognised by content]")
    ] = None,
    max_copies: Annotated[
        float, typer.Option(min=0, max=1, help="Maximum share of near copies, such as 0.05 for 5 %.")
    ] = 0.02,
    drop_copies: Annotated[
        bool, typer.Option("--drop-copies", help="Skip near copies instead of refusing to release.")
    ] = False,
    version: Annotated[str, typer.Option(help="Version of the data set.")] = "1.0.0",
    date: Annotated[str | None, typer.Option(help="Date of publication, such as 2026-11-25. [default: none]")] = None,
) -> None:
    """Make a data set for publication: marked images, labels, splits, data set card, Croissant metadata, checksums.

    The same run and options give the same bytes. --out never contains an unfinished release.

    Example: dataengine release runs/first --name first-cars --license cc-by-4.0
    """
    from dataengine.export.release.make import Settings, make

    settings = Settings(
        name, license, val, formats, group, archive_size, source_license, allow_license_mix, training, held_out,
        max_copies, drop_copies, version, date, training_format, held_out_format,
    )  # fmt: skip
    with _progress() as progress:
        done = make(run, out or Path("releases") / name, settings, progress, _with_progress(progress))
    for note in done.notes:
        typer.echo(note, err=True)
    parts = " and ".join(f"{n} images in {split}" for split, n in done.splits.items())
    typer.echo(f"{done.folder}: {parts}{'' if done.fresh else '; it existed already and is unchanged'}.")
    typer.echo(f"Read {done.folder / 'README.md'} before you publish it.")


@app.command("verify")
def verify_command(
    folder: Annotated[Path, typer.Argument(help="Folder of dataengine release.")],
) -> None:
    """Check that a release is what its records say: images, marks, labels, card, metadata, checksums, archives.

    Prints the SHA-256 of release.json, from which all else follows: publish it elsewhere, too, and compare.

    Example: dataengine release verify releases/first-cars
    """
    from dataengine.export.release.verify import verify

    found = verify(folder)
    for fault in found.faults:
        typer.echo(fault)
    for note in found.notes:
        typer.echo(f"note: {note}")
    if found.faults:
        typer.echo(f"{folder}: {len(found.faults)} faults; make the release again.")
        raise typer.Exit(1)
    typer.echo(f"fingerprint: {found.fingerprint}")
    typer.echo(f"{folder}: {found.images} images; {', '.join(found.checked)} are correct.")


def _with_progress(progress):
    """A function that shows progress over a sequence."""

    def run(sequence: Sequence, title: str):
        for done, item in enumerate(sequence, 1):
            yield item
            progress(title, done, len(sequence))

    return run
