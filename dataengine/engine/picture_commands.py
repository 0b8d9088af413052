"""`dataengine rerender`, `sequence` and `superres`: runs over a data set's own pictures."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Annotated

import typer

from dataengine.data.commands import FormatName

Data = Annotated[str, typer.Argument(metavar="DATASET", help="Folder of a labelled data set, or the name of a preset.")]
Out = Annotated[Path | None, typer.Option(help="Run folder. [default: runs/DATASET-COMMAND-SEED]")]
Limit = Annotated[int | None, typer.Option("--images", min=1, help="Only the first so many pictures. [default: all]")]
Seed = Annotated[int, typer.Option(min=0, help="Random seed; another seed gives other pictures.")]
Format = Annotated[FormatName | None, typer.Option(help="Format of DATASET. [default: recognised by content]")]
Detector = Annotated[Path | None, typer.Option(help="Folder of your own ONNX detector. [default: the packaged one]")]
Thresholds = Annotated[
    Path | None, typer.Option("--calibration", help="Its thresholds. [default: packaged, or measured on DATASET]")
]
Workers = Annotated[int, typer.Option(min=1, help="Number of processes; does not change the result.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the report as JSON.")]
Night = Annotated[bool | None, typer.Option("--night/--day", help="As by night, or by day.")]
Model = Annotated[
    str | None,
    typer.Option(help="Renderer: a folder, or folder or hub id of DiffusionSat's models. [default: the packaged one]"),
]


Guidance = Annotated[
    float | None,
    typer.Option(min=0, max=50, help="Guidance to the conditions. [default: 1]"),
]
Strength = Annotated[
    float | None,
    typer.Option(
        min=0.05, max=1,
        help="Highest noise level; more changes more. [default: 0.75; with DiffusionSat's models 0.6]",
    ),
]  # fmt: skip


def rerender_command(
    dataset: Data,
    out: Out = None,
    night: Night = None,
    date: Annotated[datetime.datetime | None, typer.Option(formats=["%Y-%m-%d"], help="As on this date.")] = None,
    cloud: Annotated[float | None, typer.Option(min=0, max=1, help="Share of the picture under clouds.")] = None,
    sun: Annotated[float | None, typer.Option(min=-90, max=90, help="Elevation of the sun in degrees.")] = None,
    gsd: Annotated[float | None, typer.Option(min=0.001, help="Metres per pixel; pictures are shrunk to it.")] = None,
    strength: Strength = None,
    guidance_scale: Guidance = None,
    model: Model = None,
    images: Limit = None,
    seed: Seed = 0,
    detector: Detector = None,
    calibration: Thresholds = None,
    format: Format = None,
    workers: Workers = 1,
    as_json: AsJson = False,
) -> None:
    """Show the pictures of a data set under other conditions, with the same labels, as far as the filter verifies them.

    If it is stopped or killed, the same command continues it.

    Example: dataengine rerender path/to/hit-uav --night --out runs/by-night
    """
    from dataengine.errors import UserError

    day = None if date is None else date.date()
    target = {"night": night, "date": day, "cloud": cloud, "sun_elevation_deg": sun, "gsd_m": gsd}
    target = {name: value for name, value in target.items() if value is not None}
    if not target:
        raise UserError("nothing is asked for: give --night, --day, --date, --cloud, --sun or --gsd.")
    task = {"kind": "rerender", "targets": [target], "strength": strength}
    _run(dataset, out, task, model, guidance_scale, images, seed, detector, calibration, format, workers, as_json)


def sequence_command(
    dataset: Data,
    out: Out = None,
    dates: Annotated[int, typer.Option(min=2, max=64, help="Pictures of each place.")] = 2,
    present: Annotated[
        float, typer.Option(min=0.01, max=1, help="Share of the objects that are there at each date.")
    ] = 0.7,
    at: Annotated[
        str | None,
        typer.Option(
            metavar="LIST",
            help="Conditions of the dates in turn: day, night, same (as taken), or 2024-07-01. [default: same]",
        ),
    ] = None,
    painter: Annotated[
        Path | None, typer.Option(help="In-scene renderer that paints ground over objects. [default: the packaged one]")
    ] = None,
    strength: Strength = None,
    guidance_scale: Guidance = None,
    model: Model = None,
    images: Limit = None,
    seed: Seed = 0,
    detector: Detector = None,
    calibration: Thresholds = None,
    format: Format = None,
    workers: Workers = 1,
    as_json: AsJson = False,
) -> None:
    """Show each picture of a data set at several dates: the same ground, objects come and go, and change labels.

    Objects vanish under ground that the in-scene renderer paints; each date has its labels, and changes/ what differs.

    Example: dataengine sequence path/to/hit-uav --dates 3 --present 0.7 --out runs/changes
    """
    targets = [_condition(word) for word in (at or "same").split(",")]
    task = {
        "kind": "sequence", "targets": [targets[k % len(targets)] for k in range(dates)], "strength": strength,
        "present": present, "painter": painter,
    }  # fmt: skip
    _run(dataset, out, task, model, guidance_scale, images, seed, detector, calibration, format, workers, as_json)


def superres_command(
    dataset: Data,
    out: Out = None,
    factor: Annotated[int, typer.Option(help="How many times as many pixels a side: 2, 4 or 8.")] = 4,
    model: Annotated[
        str | None, typer.Option(help="Whole-image renderer, whose decoder is used. [default: the packaged one]")
    ] = None,
    images: Limit = None,
    seed: Seed = 0,
    detector: Detector = None,
    calibration: Thresholds = None,
    format: Format = None,
    workers: Workers = 1,
    as_json: AsJson = False,
) -> None:
    """Make the pictures of a data set larger, with invented detail; labels stay as far as the filter verifies them.

    Example: dataengine superres path/to/coarse --factor 4 --out runs/finer
    """
    from dataengine.errors import UserError

    if factor not in (2, 4, 8):
        raise UserError(f"--factor {factor}: the decoder enlarges 2, 4 or 8 times.")
    task = {"kind": "superres", "factor": factor}
    _run(dataset, out, task, model, None, images, seed, detector, calibration, format, workers, as_json)


def _condition(word: str) -> dict:
    """The acquisition that a word of --at asks for."""
    from dataengine.errors import UserError

    word = word.strip()
    if word in ("day", "night", "same"):
        return {} if word == "same" else {"night": word == "night"}
    try:
        return {"date": datetime.date.fromisoformat(word)}
    except ValueError:
        raise UserError(f"--at {word}: give day, night, same, or a date such as 2024-07-01.") from None


def _run(
    dataset, out, task, model, guidance_scale, images, seed, detector, calibration, format, workers, as_json
) -> None:
    """Make the run of a task. Its recipe counts the pictures first."""
    from pydantic import ValidationError

    from dataengine.data.presets import load_preset
    from dataengine.engine.picture_recipe import PictureRecipe
    from dataengine.errors import UserError, first_fault

    given = Path(dataset).exists()
    if not given:
        load_preset(dataset)  # refuses an unknown name, before what takes seconds to import
    from dataengine.engine.picture_parts import local_model
    from dataengine.engine.show import run_with_progress

    fields = {
        "data" if given else "dataset": dataset, "format": format, "seed": seed,
        "detector": detector, "calibration": calibration,
        "guidance_scale": guidance_scale, "model": None if model is None else local_model(model),
    }  # fmt: skip
    try:
        recipe = PictureRecipe(
            task=task | {"images": images}, **{name: value for name, value in fields.items() if value is not None}
        )
    except ValidationError as error:
        raise UserError(f"{first_fault(error, PictureRecipe.model_fields)}.") from None
    out = out or Path("runs") / f"{recipe.name}-{task['kind']}-{seed}"
    report = run_with_progress(recipe, out, workers, None, quiet=as_json)
    if as_json:
        print(json.dumps(report, indent=2))
