"""`dataengine view` and `dataengine layout draw`: one local page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dataengine.errors import UserError, install

if TYPE_CHECKING:
    from dataengine.view.app import Site
    from dataengine.view.gallery import Gallery

PORT = 8765
Port = Annotated[int, typer.Option(min=0, max=65535, help="0 takes one that is free.")]
Open = Annotated[bool, typer.Option("--open", help="Open the page in the browser.")]
Split = Annotated[str | None, typer.Option(help="Only this split of a data set, such as test.")]
Real = Annotated[Path | None, typer.Option(help="Real pictures beside them: a data set or a folder of images.")]


def view_command(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="A run folder, a labelled data set, or a folder of images.")
    ],
    real: Real = None,
    split: Split = None,
    real_split: Annotated[str | None, typer.Option(help="Only this split of --real.")] = None,
    detector: Annotated[
        Path | None, typer.Option(help="Looks at single pictures when asked; the run's own, or the packaged one.")
    ] = None,
    port: Port = PORT,
    open: Open = False,
) -> None:
    """Look at a run or a data set: filter, compare, see why each picture was kept or dropped.

    A page in your browser, served on 127.0.0.1 only, which needs no network. It reads and never writes DIR.

    Example: dataengine view runs/first --real path/to/dataset
    """
    _need_extra()
    from dataengine.view.app import Site

    site = Site(made=_gallery(folder, split), real=_gallery(real, real_split) if real is not None else None)
    _complete(site, detector)
    _serve(site, port, "", open)


def draw_command(
    out: Annotated[Path, typer.Option(help="Folder for what is kept, in the form of a run; it grows.")],
    dataset: Annotated[str | None, typer.Option(help="Preset (hit-uav ...) or YAML file; needless with --run.")] = None,
    run: Annotated[Path | None, typer.Option(help="A run: its parts draw, and its pictures can be edited.")] = None,
    data: Annotated[Path | None, typer.Option(help="Labelled data set whose pictures can be drawn on.")] = None,
    image: Annotated[Path | None, typer.Option(help="One real image to draw on.")] = None,
    model: Annotated[Path | None, typer.Option(help="Folder of your own trained renderer.")] = None,
    renderer: Annotated[str | None, typer.Option(help="in-scene or whole.")] = None,
    detector: Annotated[Path | None, typer.Option(help="Folder of your own detector for the filter.")] = None,
    calibration: Annotated[Path | None, typer.Option(help="Its thresholds.")] = None,
    size: Annotated[int | None, typer.Option(help="Side of the images in pixels [256].")] = None,
    port: Port = PORT,
    open: Open = False,
) -> None:
    """Draw or edit rotated boxes by hand, render them, see what the filter says, and keep what you like.

    On an empty ground, on a real image, or on the pictures of a run. The same page as dataengine view.

    Example: dataengine layout draw --dataset hit-uav --out drawn
    """
    _need_extra()
    from dataengine.view.app import Site
    from dataengine.view.drawing import make_studio

    options = {
        "dataset": dataset, "data": data, "model": model, "renderer": renderer, "detector": detector,
        "calibration": calibration, "size": size,
    }  # fmt: skip
    site = Site(
        made=_gallery(run, None) if run is not None else None, real=_gallery(data, None) if data is not None else None
    )
    site.studio = make_studio(options, run, image, out, site)
    _complete(site, detector)
    _serve(site, port, "?view=draw", open)


def _need_extra() -> None:
    try:
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError:
        raise UserError(f"the page needs: {install('view')}.") from None


def _gallery(folder: Path, split: str | None) -> Gallery:
    from rich.progress import Progress

    from dataengine.view.gallery import Gallery
    from dataengine.view.index import load_index
    from dataengine.view.source import open_source

    source = open_source(folder, split)
    with Progress(transient=True) as progress:
        task = progress.add_task(f"reading {source.title}", total=None)
        index = load_index(source, lambda done, total: progress.update(task, completed=done, total=total))
    if not len(index):
        raise UserError(f"{folder}: there is no picture in it.")
    return Gallery(index)


def _complete(site: Site, detector: Path | None) -> None:
    """The detector that looks at single pictures, and the search among the real ones."""
    from dataengine.view.detections import LazyDetector
    from dataengine.view.neighbours import Neighbours

    if site.made is not None:
        columns = site.made.index.columns
        own = site.made.index.source.settings.get("detector")
        if site.real is not None:
            site.neighbours = Neighbours(site.real.index, (int(columns.width.min()), int(columns.height.min())))
        detector = detector or (Path(own) if own else None)
    site.detector = LazyDetector(detector)


def _serve(site: Site, port: int, view: str, open: bool) -> None:
    from dataengine.view.app import make_app
    from dataengine.view.serve import serve

    def started(address: str) -> None:
        typer.echo(f"{address}/{view}   (Ctrl-C ends it)")
        if open:
            typer.launch(f"{address}/{view}")

    try:
        serve(make_app(site), port, started)
    finally:
        if site.neighbours is not None:
            site.neighbours.stop()
