"""`dataengine data`: inspect, draw, check, convert, tile, split and merge labelled data sets.

`get` and `sample`, which need other packages, are added in `cli.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import typer

app = typer.Typer(
    help="Inspect, draw, check, convert, tile, split, merge, fetch and sample labelled data sets.",
    no_args_is_help=True,
)

FormatName = Literal[  # keys of formats.FORMATS
    "dota", "coco", "dior", "voc", "hrsc", "rolabelimg", "hit-uav", "yolo", "fair1m", "ucas-aod", "visdrone", "soda-a",
    "xview", "airbus", "labelme", "cvat", "datumaro", "csv",
]  # fmt: skip
WrittenName = Literal[  # formats.WRITTEN and formats.ROTATED_YOLO
    "dota", "coco", "dior", "voc", "hrsc", "rolabelimg", "hit-uav", "yolo", "labelme", "cvat", "datumaro", "csv",
    "yolo-obb",
]  # fmt: skip
Source = Annotated[Path, typer.Argument(help="Data set folder or annotation file (COCO, HIT-UAV, data.yaml).")]
Format = Annotated[FormatName | None, typer.Option(help="Format of the data set. [default: recognised by content]")]
RealFormat = Annotated[FormatName | None, typer.Option(help="Format of --real. [default: recognised by content]")]
Split = Annotated[str | None, typer.Option(help="Use only this split, such as train or val. [default: all]")]
Classes = Annotated[
    str | None,
    typer.Option(
        help="Use only these classes, in this order: plane,ship. Case is ignored; objects of other classes are left "
        "out, with a note. [default: all]"
    ),
]
FirstPixel = Annotated[
    int | None,
    typer.Option(min=0, max=1, help="VOC only: the index of the first pixel. [default: 0 if boxes begin at 0, else 1]"),
]
PixelRangeText = Annotated[
    str | None,
    typer.Option(
        "--pixel-range",
        metavar="LOW:HIGH",
        help="Values of images of more than 8 bits that become black and white, such as 7000:9000. [default: those in "
        "pixel-range.json, or measured on the images]",
    ),
]
Rename = Annotated[
    str | None,
    typer.Option(
        metavar="LIST",
        help="New names of classes, old=new: small-vehicle=Car,plane=airplane. --classes uses the new names.",
    ),
]
To = Annotated[WrittenName, typer.Option(help="Format to write; coco keeps all label fields.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for a script instead of a table.")]


@app.command("info")
def info_command(
    path: Source,
    format: Format = None,
    split: Split = None,
    classes: Classes = None,
    first_pixel: FirstPixel = None,
    json: Json = False,
) -> None:
    """Print statistics: images, objects per class, sizes, angles, objects per image, metadata.

    Example: dataengine data info data/dota
    """
    from dataengine.data.info import info

    dataset = _read(path, format, split, classes, first_pixel)
    figures = info(dataset)
    if json:
        import dataclasses
        import json as json_module

        typer.echo(json_module.dumps(dataclasses.asdict(figures), indent=2))
        return
    from dataengine.data.info import print_info

    print_info(figures)
    _print_problems(dataset.problems, 5)


@app.command("draw")
def draw_command(
    path: Source,
    out: Annotated[
        Path,
        typer.Option(
            help="Contact sheet to write (.png), with boxes in class colours; boxes cut by the border are dashed."
        ),
    ],
    n: Annotated[int, typer.Option(min=1, help="Number of images, chosen at random.")] = 24,
    side: Annotated[
        int,
        typer.Option(min=16, help="Longer side of each image on the sheet in pixels; smaller images are enlarged."),
    ] = 320,
    seed: Annotated[int, typer.Option(min=0, help="Random seed of the choice.")] = 0,
    format: Format = None,
    split: Split = None,
    classes: Classes = None,
    first_pixel: FirstPixel = None,
    pixel_range: PixelRangeText = None,
) -> None:
    """Draw labelled images on one contact sheet, to see at a glance whether the labels are read correctly.

    Example: dataengine data draw data/dota --out sheet.png
    """
    import numpy as np

    from dataengine.data.draw import sample_sheet, save_sheet

    dataset = _read(path, format, split, classes, first_pixel, pixel_range)
    sheet, unreadable = sample_sheet(dataset, n, np.random.default_rng(seed), side)
    save_sheet(sheet, out)
    typer.echo(f"{out}: {min(n, len(dataset)) - unreadable} of {len(dataset)} images")
    if unreadable:
        typer.echo(f"{unreadable} of the chosen images cannot be read; see dataengine data check", err=True)


@app.command("check")
def check_command(
    path: Source,
    format: Format = None,
    split: Split = None,
    classes: Classes = None,
    first_pixel: FirstPixel = None,
    json: Json = False,
    show: Annotated[int, typer.Option(min=0, help="Maximum number of problems to print; --json prints all.")] = 50,
) -> None:
    """Decode every image and check every box. The exit status is 1 if there are problems.

    Reports, with file and line: broken or missing images, image sizes that differ from the annotation, boxes outside
    the image, tiny or duplicate boxes, unknown classes.

    Example: dataengine data check data/dota --json
    """
    from dataengine.data.check import check
    from dataengine.data.layout import Problem
    from dataengine.data.records import NothingUsable
    from dataengine.errors import counted

    try:
        dataset = _read(path, format, split, classes, first_pixel)
        with _progress("Checking images", hidden=json) as progress:
            problems = check(dataset, progress=progress)
        count = len(dataset)
    except NothingUsable as error:
        problems = error.problems or [Problem(path, None, str(error).removeprefix(f"{path}: "))]
        count = 0
    if json:
        import json as json_module

        rows = [vars(problem) | {"path": str(problem.path)} for problem in problems]
        typer.echo(json_module.dumps({"images": count, "count": len(rows), "problems": rows}, indent=2))
    elif problems:
        _print_problems(problems, show)
    else:
        typer.echo(f"{counted(count, 'image')}, no problems.")
    if problems:
        raise typer.Exit(1)


@app.command("convert")
def convert_command(
    path: Source,
    out: Annotated[Path, typer.Argument(help="New or empty folder for the converted data set.")],
    to: Annotated[WrittenName, typer.Option(help="Format to write.")],
    format: Format = None,
    split: Split = None,
    classes: Classes = None,
    rename: Rename = None,
    first_pixel: FirstPixel = None,
    pixel_range: PixelRangeText = None,
) -> None:
    """Write a data set with its images in another format, and report what that format cannot store.

    Splits are kept; a data set without splits becomes "train". mmrotate's loaders read the DOTA, DIOR and HRSC output.

    Example: dataengine data convert data/dior out/coco --to coco
    """
    from dataengine.data import formats

    formats.writer(to)
    problems = []
    for name, dataset in _each_split(path, format, split, classes, first_pixel, pixel_range, problems, rename):
        written, left_out = _write(dataset, out, to, name)
        typer.echo(f"{out}: {name}: {written} images in {formats.labels_written(dataset, to)}")
        problems += dataset.problems + left_out
    _print_problems(problems, 20)


def _each_split(
    path, format, split, classes, first_pixel, pixel_range, problems: list, rename: str | None = None
) -> Iterator[tuple]:
    """(name, data set) of each split, or of the one given; "train" where there are none. What is wrong with a split of
    which nothing can be used is printed and added to `problems`."""
    from dataengine.data import formats
    from dataengine.data.records import NothingUsable

    format = format or formats.recognize(path)
    splits = [split] if split is not None else [*formats.splits(path, format)] or [None]
    names, new_names = _before_renaming(path, format, classes, rename)
    if names is None and len(splits) > 1:
        # a rare class may be absent from one split: all splits get the class list of the whole data set
        names = list(formats.read(path, format).classes)
    for name in splits:
        try:
            quiet = name != splits[0] and not new_names
            dataset = _read(path, format, name, names, first_pixel, pixel_range, quiet, new_names)
        except NothingUsable as error:
            if len(splits) == 1:
                raise
            typer.echo(f"{name}: {error}", err=True)
            problems += error.problems
            continue
        yield name or "train", dataset


@app.command("tile")
def tile_command(
    path: Source,
    out: Annotated[Path, typer.Argument(help="New or empty folder for the tiles.")],
    size: Annotated[int, typer.Option(min=16, help="Side of a tile in pixels.")] = 1024,
    overlap: Annotated[
        int, typer.Option(min=0, help="Overlap of neighbouring tiles in pixels; more than an object.")
    ] = 200,
    min_visible: Annotated[
        float,
        typer.Option(
            help="Minimum visible share of an object in a tile (0 to 1); with less, it becomes a region to ignore."
        ),
    ] = 0.7,
    to: To = "coco",
    format: Format = None,
    split: Split = None,
    classes: Classes = None,
    first_pixel: FirstPixel = None,
    pixel_range: PixelRangeText = None,
) -> None:
    """Cut large images into overlapping tiles, with the boxes clipped to each tile.

    Splits are kept; a data set without splits becomes "train".

    Example: dataengine data tile data/dota out/tiles --size 512 --overlap 100
    """
    import tempfile

    from dataengine.data import formats
    from dataengine.data.tile import tile
    from dataengine.errors import UserError
    from dataengine.files import make_room

    formats.writer(to)
    problems = []
    for name, dataset in _each_split(path, format, split, classes, first_pixel, pixel_range, problems):
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".tiles-", dir=out.parent) as work:
                with _progress("Cutting images") as progress:
                    tiles = tile(dataset, work, size, overlap, min_visible, progress=progress)
                written, left_out = _write(tiles, out, to, name)
        except OSError as error:
            raise UserError(
                f"{out} cannot be written ({error.strerror or error}); {make_room(error)}choose another folder"
            ) from error
        objects = sum(len(sample.layout) for sample in tiles)
        typer.echo(
            f"{out}: {name}: {written} tiles of {len(dataset)} images, {objects} objects, in "
            f"{formats.labels_written(tiles, to)}"
        )
        problems += tiles.problems + left_out
    _print_problems(problems, 20)


@app.command("split")
def split_command(
    path: Source,
    out: Annotated[Path, typer.Argument(help="New or empty folder; each part becomes a data set in a subfolder.")],
    parts: Annotated[
        str | None,
        typer.Option(
            help="Names and sizes of the parts, as shares or percentages of all images. [default: train=80,test=20; of "
            "small data sets test is larger, up to 40 %, to have 20 images with objects]"
        ),
    ] = None,
    images: Annotated[
        int | None, typer.Option(min=1, help="Use at most this many images, chosen at random. [default: all]")
    ] = None,
    group: Annotated[
        str | None,
        typer.Option(
            help="Regular expression; images whose names give the same match, such as frames of one video, stay in one "
            "part. `flight` groups HIT-UAV by flight. [default: none]"
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Random seed of the split.")] = 0,
    to: To = "coco",
    format: Format = None,
    split: Split = None,
    classes: Classes = None,
    first_pixel: FirstPixel = None,
    pixel_range: PixelRangeText = None,
) -> None:
    """Split a data set at random, to train, calibrate the filter and test on different images.

    Example: dataengine data split data/all parts --parts train=70,calibration=15,test=15
    """
    from dataengine.data import formats
    from dataengine.data.split import (
        default_parts,
        divided_names,
        group_key,
        parse_parts,
        random_images,
        small_parts,
        split_by_group,
    )
    from dataengine.data.staging import check_empty

    formats.writer(to)
    shares = None if parts is None else parse_parts(parts)
    check_empty(out, "parts")
    dataset = _read(path, format, split, classes, first_pixel, pixel_range)
    own = formats.splits(path, format) if split is None else ()
    if len(own) > 1:
        typer.echo(
            f"note: the data set's own splits ({', '.join(own)}) are joined and divided anew; --split {own[0]} divides "
            "that one only",
            err=True,
        )
    if images is not None:
        dataset = random_images(dataset, images, seed)
    shares = shares or default_parts(dataset)
    divided = split_by_group(dataset, tuple(shares.values()), seed, group_key(dataset, group))
    problems = list(dataset.problems)
    for name, part in zip(shares, divided, strict=True):
        written, left_out = _write(part, out / name, to, name)
        typer.echo(f"{out / name}: {written} images, {sum(len(sample.layout) for sample in part)} objects")
        problems += left_out
    named = dict(zip(shares, divided, strict=True))
    for warning in (divided_names(named) if group is None else "", *small_parts(named)):
        if warning:
            typer.echo(f"warning: {warning}", err=True)
    _print_problems(problems, 20)


@app.command("merge")
def merge_command(
    paths: Annotated[list[Path], typer.Argument(help="Two or more data sets with the same classes.")],
    out: Annotated[Path, typer.Option(help="New or empty folder for the merged data set.")],
    to: To = "coco",
    format: Annotated[
        FormatName | None, typer.Option(help="Format of all of them. [default: each recognised by content]")
    ] = None,
    classes: Classes = None,
    rename: Rename = None,
    pixel_range: PixelRangeText = None,
) -> None:
    """Merge several data sets into one, for example images labelled by hand and images labelled by a detector.

    If one data set has horizontal boxes, the merged one has them too. --rename gives the same classes the same name.

    Example: dataengine data merge data/train labelled --out more
    """
    from dataengine.data import formats
    from dataengine.data.merge import merge
    from dataengine.data.rename import check_names, names_before, parse_pairs
    from dataengine.errors import UserError

    formats.writer(to)
    if len(paths) < 2:
        raise UserError("a merge needs two or more data sets; give their folders, then --out.")
    names, new_names = class_list(classes), {} if rename is None else parse_pairs(rename, "--rename")
    chosen = [names] * len(paths)
    if new_names:
        there = [formats.read(path, format).classes for path in paths]
        check_names([*dict.fromkeys(name for each in there for name in each)], new_names, "the merged data set")
        chosen = [names and names_before(names, new_names, each) for each in there]
    dataset = merge(
        [
            _read(path, format, None, own, None, pixel_range, rename=new_names)
            for path, own in zip(paths, chosen, strict=True)
        ]
    )
    written, left_out = _write(dataset, out, to, "train")
    objects = sum(len(sample.layout) for sample in dataset)
    typer.echo(f"{out}: {written} images, {objects} objects, in {formats.labels_written(dataset, to)}")
    _print_problems(dataset.problems + left_out, 20)


def _before_renaming(path, format, classes: str | None, rename: str | None) -> tuple[list[str] | None, dict]:
    """(names of the chosen classes as the data set has them, None for all; {old: new}). Raises UserError where the data
    set has no class of an old name."""
    from dataengine.data import formats
    from dataengine.data.rename import check_names, names_before, parse_pairs

    names = class_list(classes)
    if rename is None:
        return names, {}
    new_names = parse_pairs(rename, "--rename")
    there = formats.read(path, format).classes
    check_names(there, new_names, str(path))
    return (None if names is None else names_before(names, new_names, there)), new_names


def class_list(classes: str | None) -> list[str] | None:
    """ "plane, ship" -> ["plane", "ship"]; None for None. Raises UserError where there is no name."""
    from dataengine.errors import UserError

    names = None if classes is None else [name.strip() for name in classes.split(",") if name.strip()]
    if names == []:
        raise UserError("--classes: give at least one class, such as plane,ship, or leave the option out.")
    return names


def _read(
    path: Path,
    format: str | None,
    split: str | None,
    classes: str | list[str] | None,
    first_pixel: int | None = None,
    pixel_range: str | None = None,
    quiet: bool = False,
    rename: dict[str, str] | None = None,
):
    """The data set; its notes are printed unless `quiet`. classes: a list, or names separated by commas, as the data
    set has them. rename: {old: new}."""
    from dataengine.data import formats
    from dataengine.data.pixel_range import parse
    from dataengine.data.records import with_classes_left_out
    from dataengine.errors import printable

    names = class_list(classes) if isinstance(classes, str) else classes
    asked = None if pixel_range is None else parse(pixel_range)
    dataset = formats.read(path, format, split=split, classes=names, first_pixel=first_pixel, pixel_range=asked)
    if names is not None:
        dataset = with_classes_left_out(dataset)
    if rename:
        from dataengine.data.rename import rename_classes

        dataset = rename_classes(dataset, rename)
    for note in [] if quiet else dataset.notes:
        typer.echo(f"note: {printable(note)}", err=True)
    return dataset


def _write(dataset, out: Path, to: str, split: str) -> tuple[int, list]:
    """Write a split and report what the format cannot store; (images written, problems of the skipped ones)."""
    from dataengine.data import formats
    from dataengine.data.staging import images_skipped

    for loss in formats.losses(dataset, to):
        typer.echo(f"{split}: {to} cannot store {loss}", err=True)
    with _progress(f"Writing {split}") as progress:
        left_out = formats.write(dataset, out, to, split=split, progress=progress)
    return len(dataset) - images_skipped(left_out), left_out


def _print_problems(problems: list, show: int) -> None:
    from dataengine.errors import counted

    for problem in problems[:show]:
        typer.echo(str(problem), err=True)
    if problems:
        more = f", {len(problems) - show} not shown" if len(problems) > show else ""
        typer.echo(f"{counted(len(problems), 'problem')}{more}", err=True)


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
