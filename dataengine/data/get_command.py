"""`dataengine data get`: fetch an openly licensed data set."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer


def get_command(
    name: Annotated[
        str | None, typer.Argument(help="Name of a published data set; without one, they are listed.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the data set. [default: data/NAME, where presets look]")
    ] = None,
    keep_download: Annotated[
        bool, typer.Option("--keep-download", help="Keep the downloaded files after they are unpacked.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Fetch without asking.")] = False,
) -> None:
    """Fetch an openly licensed data set of real images from its public page, and verify it.

    Licence, sizes and checksums are shown first. If a download is interrupted, the same command continues it.

    Example: dataengine data get hit-uav --out data/hit-uav
    """
    from dataengine.data import published
    from dataengine.data.commands import _progress
    from dataengine.data.staging import check_empty
    from dataengine.download import agreed, check_space, download_all, download_folder, locked
    from dataengine.files import check_writable

    if name is None:
        for data in published.PUBLISHED:
            typer.echo(f"{data.name}: {data.shows}\n  licence: {data.licence}\n  page: {data.source.page}")
        return
    data = published.find_published(name)
    out = Path("data") / name if out is None else out
    if published.is_fetched(out):
        typer.echo(f"{name} is in {out} already; remove that folder to fetch it again")
        return
    check_empty(out, "data set")
    check_writable(out)
    typer.echo(f"asking {data.source.page}")
    repository, folder = published.described(data), download_folder(out)
    needed = published.bytes_needed(repository, out)
    typer.echo("\n".join(published.plan(data, repository, out, needed)))
    check_space(needed, out)
    if not agreed(yes):
        typer.echo("nothing was fetched")
        raise typer.Exit(1)
    with locked(folder):
        with _progress("Fetching files", hidden=len(repository.files) == 1) as progress:
            download_all([repository], folder, progress)
        typer.echo("verified")
        published.place(data, repository, folder, out)
    if keep_download:
        typer.echo(f"downloaded files: {folder}")
    else:
        shutil.rmtree(folder)
    typer.echo("\n".join(published.summary(out)))
