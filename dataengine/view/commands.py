"""`dataengine view` and `dataengine layout draw`: a page on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from dataengine.data.commands import Format, FormatName, RealFormat
from dataengine.errors import UserError, install

if TYPE_CHECKING:
    from dataengine.view.app import Site
    from dataengine.view.gallery import Gallery

PORT = 8765
Port = Annotated[int, typer.Option(min=0, max=65535, help="Port of the page; 0 takes a free one.")]
Open = Annotated[bool, typer.Option("--open", help="Open the page in the browser.")]
Split = Annotated[str | None, typer.Option(help="Use only this split of a data set, such as test. [default: all]")]
Real = Annotated[Path | None, typer.Option(help="Real images to compare with: a data set or a folder of images.")]


def view_command(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Run folder, world, labelled data set, or folder of images.")
    ],
    real: Real = None,
    format: Format = None,
    split: Split = None,
    real_format: RealFormat = None,
    real_split: Annotated[str | None, typer.Option(help="Use only this split of --real. [default: all]")] = None,
    compare: Annotated[
        Path | None, typer.Option(help="Another run or data set, to compare picture by picture and figure by figure.")
    ] = None,
    compare_format: Annotated[
        FormatName | None, typer.Option(help="Format of --compare. [default: recognised by content]")
    ] = None,
    detector: Annotated[
        Path | None,
        typer.Option(help="Detector for single images, on request. [default: that of the run, or the packaged one]"),
    ] = None,
    port: Port = PORT,
    open: Open = False,
) -> None:
    """Browse a run or a data set: filter images and objects, see why each was accepted or dropped, decide, and correct.

    Opens a page on 127.0.0.1, which needs no network. A data set is never changed; what is decided about the images of
    a run is kept in DIR/decisions.jsonl, and every export follows it. A world opens as a zoomable map.

    Example: dataengine view runs/first --real path/to/dataset
    """
    _need_extra()
    from dataengine.view.app import Site
    from dataengine.view.world_map import is_world, serve_map

    if is_world(folder):
        return serve_map(folder, port, open)
    site = Site(
        made=_gallery(folder, split, format),
        real=_gallery(real, real_split, real_format) if real is not None else None,
        other=_gallery(compare, None, compare_format) if compare is not None else None,
    )
    _complete(site, detector)
    _serve(site, port, "", open)


def draw_command(
    out: Annotated[Path, typer.Option(help="Folder for saved images, in the form of a run; images are added to it.")],
    dataset: Annotated[
        str | None, typer.Option(help="Preset (hit-uav ...) or YAML file; not needed with --data or --run.")
    ] = None,
    run: Annotated[Path | None, typer.Option(help="Run whose models render and whose images can be edited.")] = None,
    data: Annotated[Path | None, typer.Option(help="Labelled data set whose images can be edited.")] = None,
    format: Annotated[
        FormatName | None, typer.Option(help="Format of --data. [default: recognised by content]")
    ] = None,
    image: Annotated[Path | None, typer.Option(help="One real image to edit.")] = None,
    model: Annotated[
        Path | None, typer.Option(help="Folder of a trained renderer. [default: the packaged or fetched one]")
    ] = None,
    renderer: Annotated[
        Literal["in-scene", "whole"] | None,
        typer.Option(help="Paint objects into scenes, or generate the whole image."),
    ] = None,
    detector: Annotated[
        Path | None, typer.Option(help="Folder of your own detector. [default: the packaged one]")
    ] = None,
    calibration: Annotated[Path | None, typer.Option(help="Thresholds of the detector.")] = None,
    size: Annotated[int | None, typer.Option(help="Side of the images in pixels. [default: 256]")] = None,
    port: Port = PORT,
    open: Open = False,
) -> None:
    """Draw or edit rotated boxes by hand, render them, see the filter's verdict, and save images.

    Boxes are drawn on generated ground, on a real image, or on images of a run, in the page of dataengine view.

    Example: dataengine layout draw --dataset hit-uav --out drawn
    """
    _need_extra()
    from dataengine.view.app import Site
    from dataengine.view.drawing import make_studio

    options = {
        "dataset": dataset, "data": data, "format": format, "model": model, "renderer": renderer, "detector": detector,
        "calibration": calibration, "size": size,
    }  # fmt: skip
    site = Site(
        made=_gallery(run, None) if run is not None else None,
        real=_gallery(data, None, format) if data is not None else None,
    )
    site.studio = make_studio(options, run, image, out, site)
    _complete(site, detector)
    _serve(site, port, "?view=draw", open)


def _need_extra() -> None:
    try:
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError:
        raise UserError(f"the page needs more packages; install them with: {install('view')}") from None


def _gallery(folder: Path, split: str | None, format: str | None = None) -> Gallery:
    from rich.progress import Progress

    from dataengine.view.gallery import Gallery
    from dataengine.view.index import load_index
    from dataengine.view.source import open_source

    source = open_source(folder, split, format)
    with Progress(transient=True) as progress:
        task = progress.add_task(f"reading {source.title}", total=None)
        index = load_index(source, lambda done, total: progress.update(task, completed=done, total=total))
    if not len(index):
        raise UserError(f"{folder}: it contains no image.")
    return Gallery(index)


def _complete(site: Site, detector: Path | None) -> None:
    """Add the detector for single images, and the search for similar real images."""
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
        typer.echo(f"{address}/{view}   (Ctrl-C stops it)")
        if open:
            typer.launch(f"{address}/{view}")

    try:
        serve(make_app(site), port, started)
    finally:
        if site.neighbours is not None:
            site.neighbours.stop()
        for stop in site.stoppers:
            stop()
