"""`dataengine data`: look into a data set, draw it, check it, convert it, tile it, split it, put several together."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    help="Look into labelled data sets, check them, convert them, cut large images into tiles, split them, merge them.",
    no_args_is_help=True,
)

Source = Annotated[
    Path, typer.Argument(help="The data set's folder, or its annotation file (COCO, HIT-UAV, data.yaml).")
]
Format = Annotated[
    str | None,
    typer.Option(
        help="dota, coco, dior, voc, hrsc, rolabelimg, hit-uav or yolo. Left out, it is recognised by content."
    ),
]
Split = Annotated[str | None, typer.Option(help="Only this split, such as train or val. Left out, all of them.")]
Classes = Annotated[
    str | None,
    typer.Option(
        help="Class list in the order you want, with commas: plane,ship. Names match in any case; other classes are "
        "left out and counted as problems."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for a script instead of a table.")]


@app.command("info")
def info_command(
    path: Source, format: Format = None, split: Split = None, classes: Classes = None, json: Json = False
) -> None:
    """Count what is there: images, objects per class, sizes, angles, objects per image, known metadata.

    Example: dataengine data info data/dota
    """
    from dataengine.data.info import info

    dataset = _read(path, format, split, classes)
    figures = info(dataset)
    if json:
        import dataclasses
        import json as json_module

        typer.echo(json_module.dumps(dataclasses.asdict(figures), indent=2))
        return
    from dataengine.data.info import print_info

    print_info(figures)
    _say_problems(dataset.problems, 5)


@app.command("draw")
def draw_command(
    path: Source,
    out: Annotated[Path, typer.Option(help="Contact sheet to write, .png: boxes in class colours, dashed where cut.")],
    n: Annotated[int, typer.Option(min=1, help="How many images, chosen at random.")] = 24,
    side: Annotated[
        int,
        typer.Option(min=16, help="Longer side of each picture on the sheet, in pixels; smaller ones are enlarged."),
    ] = 320,
    seed: Annotated[int, typer.Option(min=0, help="Another seed chooses other images.")] = 0,
    format: Format = None,
    split: Split = None,
    classes: Classes = None,
) -> None:
    """Draw labelled images on one sheet: the quickest way to see whether labels are read as they were meant.

    Example: dataengine data draw data/dota --out sheet.png
    """
    import numpy as np

    from dataengine.data.draw import sample_sheet
    from dataengine.errors import UserError

    dataset = _read(path, format, split, classes)
    sheet, unreadable = sample_sheet(dataset, n, np.random.default_rng(seed), side)
    try:
        sheet.save(out)
    except (OSError, ValueError) as error:
        raise UserError(f"{out} could not be written ({error}); give a .png in a folder you can write to") from error
    typer.echo(f"{out}: {min(n, len(dataset)) - unreadable} of {len(dataset)} images")
    if unreadable:
        typer.echo(f"{unreadable} of those chosen cannot be read; dataengine data check names them", err=True)


@app.command("check")
def check_command(
    path: Source,
    format: Format = None,
    split: Split = None,
    classes: Classes = None,
    json: Json = False,
    show: Annotated[int, typer.Option(min=0, help="How many problems to print; all are counted, and in --json.")] = 50,
) -> None:
    """Find what is wrong: every image is decoded, every box looked at. Ends with status 1 when there are problems.

    Named with file and line: broken or missing images, sizes that differ from the annotation, boxes outside the image,
    tiny or repeated boxes, unknown classes.

    Example: dataengine data check data/dota --json > problems.json
    """
    from dataengine.data.check import check

    dataset = _read(path, format, split, classes)
    with _progress("Checking images", hidden=json) as progress:
        problems = check(dataset, progress=progress)
    if json:
        import json as json_module

        rows = [{"path": str(p.path), "line": p.line, "message": p.message} for p in problems]
        typer.echo(json_module.dumps({"images": len(dataset), "count": len(rows), "problems": rows}, indent=2))
    elif problems:
        _say_problems(problems, show)
    else:
        typer.echo(f"{len(dataset)} images, no problems.")
    if problems:
        raise typer.Exit(1)


@app.command("convert")
def convert_command(
    path: Source,
    out: Annotated[Path, typer.Argument(help="New or empty folder for the converted data set.")],
    to: Annotated[str, typer.Option(help="Format to write: dota, coco, dior, voc, hrsc, rolabelimg, hit-uav or yolo.")],
    format: Format = None,
    split: Split = None,
    classes: Classes = None,
) -> None:
    """Write the data set, images too, in another format. What the format cannot hold is said.

    Splits stay what they are; a data set without splits becomes "train". DOTA, DIOR and HRSC come out as mmrotate's
    loaders want them.

    Example: dataengine data convert data/dior out/coco --to coco
    """
    from dataengine.data import formats

    format = format or formats.recognize(path)
    names = [split] if split is not None else [*formats.splits(path, format)] or [None]
    class_list = _class_list(classes)
    if class_list is None and len(names) > 1:
        # a rare class may be absent from one split: all splits get the class list of the whole
        class_list = list(formats.read(path, format).classes)
    formats.module(to)
    problems = []
    for name in names:
        dataset = formats.read(path, format, split=name, classes=class_list)
        written, left_out = _write(dataset, out, to, name or "train")
        typer.echo(f"{out}: {name or 'train'}: {written} images in {to} format")
        problems += dataset.problems + left_out
    _say_problems(problems, 20)


@app.command("tile")
def tile_command(
    path: Source,
    out: Annotated[Path, typer.Argument(help="New or empty folder for the tiles.")],
    size: Annotated[int, typer.Option(min=16, help="Side of a tile in pixels.")] = 1024,
    overlap: Annotated[
        int, typer.Option(min=0, help="Pixels that neighbouring tiles share; more than an object.")
    ] = 200,
    min_visible: Annotated[
        float,
        typer.Option(
            help="Least share of an object inside a tile, from 0 to 1, for it to be an object there; what shows of the "
            "others is marked as a region to ignore."
        ),
    ] = 0.7,
    to: Annotated[
        str, typer.Option(help="Format to write; coco keeps visible fractions and ignored regions.")
    ] = "coco",
    format: Format = None,
    split: Split = None,
    classes: Classes = None,
) -> None:
    """Cut large images into overlapping tiles, with the boxes clipped to each tile.

    Example: dataengine data tile data/dota out/tiles --size 512 --overlap 100
    """
    import tempfile

    from dataengine.data import formats
    from dataengine.data.tile import tile
    from dataengine.errors import UserError

    formats.module(to)
    dataset = _read(path, format, split, classes)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".tiles-", dir=out.parent) as work:
            with _progress("Cutting images") as progress:
                tiles = tile(dataset, work, size, overlap, min_visible, progress=progress)
            written, left_out = _write(tiles, out, to, split or "train")
    except OSError as error:
        raise UserError(
            f"{out} could not be written ({error.strerror or error}); free some space or choose another folder"
        ) from error
    objects = sum(len(sample.layout) for sample in tiles)
    typer.echo(f"{out}: {written} tiles of {len(dataset)} images, {objects} objects, in {to} format")
    _say_problems(tiles.problems + left_out, 20)


@app.command("split")
def split_command(
    path: Source,
    out: Annotated[Path, typer.Argument(help="New or empty folder; each part is a data set in a folder of its own.")],
    parts: Annotated[
        str, typer.Option(help="Names of the parts and how large each is, in shares of all or in per cent.")
    ] = "train=80,test=20",
    images: Annotated[int | None, typer.Option(min=1, help="Only so many images in all, chosen at random.")] = None,
    group: Annotated[
        str | None,
        typer.Option(
            help="What stays together, lest a part show what another was trained on: images in whose names this "
            "regular expression finds the same, such as the frames of one film; `flight` for HIT-UAV's flights."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Another seed divides otherwise.")] = 0,
    to: Annotated[str, typer.Option(help="Format to write; coco keeps all that there is.")] = "coco",
    format: Format = None,
    split: Split = None,
    classes: Classes = None,
) -> None:
    """Divide a data set at random: what a detector is tested on, or the filter calibrated on, is not trained on.

    Example: dataengine data split data/all parts --parts train=70,calibration=15,test=15
    """
    from dataengine.data import formats
    from dataengine.data.split import group_key, parse_parts, random_images, split_by_group
    from dataengine.data.staging import check_empty

    formats.module(to)
    shares = parse_parts(parts)
    check_empty(out, "parts")
    dataset = _read(path, format, split, classes)
    if images is not None:
        dataset = random_images(dataset, images, seed)
    divided = split_by_group(dataset, tuple(shares.values()), seed, group_key(dataset, group))
    problems = list(dataset.problems)
    for name, part in zip(shares, divided, strict=True):
        written, left_out = _write(part, out / name, to, name)
        typer.echo(f"{out / name}: {written} images, {sum(len(sample.layout) for sample in part)} objects")
        problems += left_out
    _say_problems(problems, 20)


@app.command("merge")
def merge_command(
    paths: Annotated[list[Path], typer.Argument(help="Two or more data sets, of the same classes.")],
    out: Annotated[Path, typer.Option(help="New or empty folder for the data set of all their images.")],
    to: Annotated[str, typer.Option(help="Format to write; coco keeps all that there is.")] = "coco",
    classes: Classes = None,
) -> None:
    """Put the images of several data sets into one: what was labelled by hand beside what a detector labelled.

    Where one has horizontal boxes, all get them.

    Example: dataengine data merge data/train labelled --out more
    """
    from dataengine.data import formats
    from dataengine.data.merge import merge
    from dataengine.errors import UserError

    formats.module(to)
    if len(paths) < 2:
        raise UserError("a single data set is nothing to merge; give two or more folders, then --out.")
    dataset = merge([_read(path, None, None, classes) for path in paths])
    written, left_out = _write(dataset, out, to, "train")
    objects = sum(len(sample.layout) for sample in dataset)
    typer.echo(f"{out}: {written} images, {objects} objects, in {to} format")
    _say_problems(dataset.problems + left_out, 20)


def _class_list(classes: str | None) -> list[str] | None:
    return None if classes is None else [name.strip() for name in classes.split(",") if name.strip()]


def _read(path: Path, format: str | None, split: str | None, classes: str | None):
    from dataengine.data import formats

    return formats.read(path, format, split=split, classes=_class_list(classes))


def _write(dataset, out: Path, to: str, split: str) -> tuple[int, list]:
    """Write a split, say what the format cannot hold; (images written, problems of those left out)."""
    from dataengine.data import formats

    for loss in formats.losses(dataset, to):
        typer.echo(f"{split}: {to} has no place for {loss}", err=True)
    with _progress(f"Writing {split}") as progress:
        left_out = formats.write(dataset, out, to, split=split, progress=progress)
    return len(dataset) - len({problem.path for problem in left_out}), left_out


def _say_problems(problems: list, show: int) -> None:
    for problem in problems[:show]:
        typer.echo(str(problem), err=True)
    if problems:
        more = f", {len(problems) - show} not shown" if len(problems) > show else ""
        typer.echo(f"{len(problems)} problem{'s' if len(problems) > 1 else ''}{more}", err=True)


@contextmanager
def _progress(title: str, hidden: bool = False) -> Iterator[Callable[[int, int], None]]:
    """A bar with rate and remaining time on standard error."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"))
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), disable=hidden) as bar:
        task = bar.add_task(title, total=None, rate="")

        def advance(done: int, total: int) -> None:
            speed = bar.tasks[0].finished_speed or bar.tasks[0].speed
            bar.update(task, completed=done, total=total, rate=f"{speed:.0f}/s" if speed else "")

        yield advance
