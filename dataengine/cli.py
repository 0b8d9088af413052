"""The command line: each command reads its arguments, calls one function and prints what came out."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from dataengine.data.commands import app as data_app
from dataengine.engine.commands import app as run_app
from dataengine.errors import UserError
from dataengine.evaluate.commands import app as evaluate_app
from dataengine.export.commands import app as export_app
from dataengine.export.release.commands import app as release_app
from dataengine.judge.commands import app as filter_app
from dataengine.layouts.commands import app as layout_app
from dataengine.render.commands import app as model_app
from dataengine.train.commands import app as train_app
from dataengine.view.commands import draw_command, view_command

app = typer.Typer(
    rich_markup_mode=None,  # defaults stand in brackets
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Turns a small labelled aerial or satellite data set into a large, verified, synthetic one.\n\n"
    "A first run, with what is packaged:  dataengine synth --dataset hit-uav --n 50 --out runs/first",
)
app.add_typer(data_app, name="data")
app.add_typer(layout_app, name="layout")
app.add_typer(run_app, name="run")
app.add_typer(train_app, name="train")
app.add_typer(filter_app, name="filter")
app.add_typer(evaluate_app, name="evaluate")
app.add_typer(model_app, name="model")
app.add_typer(export_app, name="export")
app.command("view")(view_command)
layout_app.command("draw")(draw_command)
app.add_typer(release_app, name="release")


@app.command()
def synth(
    dataset: Annotated[
        str | None, typer.Option(help="Preset (dior, hit-uav ...) or YAML file; needless with --data.")
    ] = None,
    n: Annotated[int | None, typer.Option(help="Accepted images to make [200].")] = None,
    out: Annotated[Path | None, typer.Option(help="Run folder; runs/DATASET-SEED if not said.")] = None,
    data: Annotated[Path | None, typer.Option(help="Folder of your labelled data set, in any known format.")] = None,
    scenes: Annotated[Path | None, typer.Option(help="Images or a data set to paint objects into.")] = None,
    into: Annotated[
        Path | None, typer.Option(help="Labelled data set whose pictures get new objects beside their own.")
    ] = None,
    classes: Annotated[list[str] | None, typer.Option("--class", help="Make only this class; repeat for more.")] = None,
    draw_as: Annotated[
        list[str] | None, typer.Option(help="car=windmill draws windmills in boxes of cars; for renderers with text.")
    ] = None,
    balance: Annotated[
        str | None, typer.Option(help="Least share of all objects for every class (0.1), or some (ship=0.2,van=0.1).")
    ] = None,
    layouts: Annotated[
        str | None, typer.Option(help="reuse (real layouts, changed), prior (fitted) or diffusion.")
    ] = None,
    layout_model: Annotated[Path | None, typer.Option(help="For diffusion: model of dataengine train layouts.")] = None,
    layout_scale: Annotated[float | None, typer.Option(help="Of real layouts: 0.64 shows 800 px in 512 [1].")] = None,
    altitude: Annotated[
        tuple[float, float] | None, typer.Option(help="Only as from LOW to HIGH metres above ground.")
    ] = None,
    gsd: Annotated[tuple[float, float] | None, typer.Option(help="Only of LOW to HIGH metres a pixel.")] = None,
    camera_angle: Annotated[
        tuple[float, float] | None, typer.Option(help="Only at LOW to HIGH degrees; 90 looks straight down.")
    ] = None,
    night: Annotated[bool | None, typer.Option("--night/--day", help="Only as by night, or by day.")] = None,
    label_filter: Annotated[
        float | None, typer.Option(help="Draw layouts again unless within so many deviations of real boxes.")
    ] = None,
    enhance: Annotated[bool | None, typer.Option(help="Scale, turn, flip and merge layouts [yes].")] = None,
    rows: Annotated[
        float | None, typer.Option(help="Share (0 to 1) of objects that become rows, as far apart as real ones [0].")
    ] = None,
    renderer: Annotated[str | None, typer.Option(help="in-scene or whole.")] = None,
    model: Annotated[Path | None, typer.Option(help="Folder of your own trained renderer.")] = None,
    augment_scenes: Annotated[
        bool | None, typer.Option("--augment-scenes", help="Turn, scale and re-light scenes: of few images, many.")
    ] = None,
    likely_places: Annotated[
        bool | None, typer.Option("--likely-places", help="Put objects where it looks as around those of --data.")
    ] = None,
    strength: Annotated[
        float | None, typer.Option(help="Noise that objects begin from; below 1 (0.3), as real ones of --data [1].")
    ] = None,
    encoder: Annotated[
        str | None, typer.Option(help="Of reference images, for a model trained with one; the packaged one.")
    ] = None,
    semantic_filter: Annotated[
        Path | None, typer.Option(help="CLIP model's folder: image and prompt must agree.")
    ] = None,
    filter: Annotated[str | None, typer.Option(help="drop, difficult, repair, erase, off: see docs/filter.md.")] = None,
    detector: Annotated[Path | None, typer.Option(help="Folder of your own ONNX detector.")] = None,
    calibration: Annotated[Path | None, typer.Option(help="Its thresholds (dataengine filter calibrate).")] = None,
    size: Annotated[int | None, typer.Option(help="Side of the images in pixels [256].")] = None,
    steps: Annotated[int | None, typer.Option(help="Denoising steps [the renderer's own].")] = None,
    guidance_scale: Annotated[
        float | None, typer.Option(help="null + scale * (condition - null) [the renderer's].")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Another seed, another data set [0].")] = None,
    max_attempts: Annotated[int | None, typer.Option(help="Give up after this many images [20 n].")] = None,
    mix: Annotated[bool | None, typer.Option(help="Write real and synthetic images as one data set, too [no].")] = None,
    config: Annotated[
        Path | None, typer.Option(help="YAML recipe or the name of a packaged one; the options above go before it.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes; does not change the result [one a core, or a GPU of ray].")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Images rendered together; for memory and speed.")] = 16,
    executor: Annotated[str, typer.Option(help="local, or ray for many machines (docs/scale.md).")] = "local",
    address: Annotated[str | None, typer.Option(help="Of a Ray cluster; this machine alone if not said.")] = None,
    gpus_per_worker: Annotated[
        float | None, typer.Option(min=0, help="Of a Ray cluster, 0.25 for four workers on each [1].")
    ] = None,
    datasets: Annotated[
        bool, typer.Option("--datasets/--no-datasets", help="Write the DOTA and COCO folders when it is done.")
    ] = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be made, and make nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Make a verified synthetic data set: layouts, images, and only those that show their labels.

    Killed or stopped, the same command continues. DOTA and COCO folders, a manifest and contact sheets lie in --out.
    """
    from dataengine.engine.recipe import load_recipe, pairs
    from dataengine.layouts.balance import parse_balance

    options = {
        "dataset": dataset, "n": n, "data": data, "scenes": scenes, "into": into, "layout_model": layout_model,
        "layout_scale": layout_scale, "label_filter": label_filter, "enhance": enhance, "rows": rows,
        "encoder": encoder, "augment_scenes": augment_scenes, "likely_places": likely_places, "strength": strength,
        "semantic_filter": semantic_filter, "mix": mix, "draw_as": pairs(draw_as),
        "altitude": altitude, "gsd": gsd, "camera_angle": camera_angle, "night": night,
        "classes": tuple(classes) if classes else None, "balance": parse_balance(balance), "layouts": layouts,
        "renderer": renderer, "model": model, "filter": filter,
        "detector": detector, "calibration": calibration, "size": size, "steps": steps,
        "guidance_scale": guidance_scale, "seed": seed, "max_attempts": max_attempts,
    }  # fmt: skip
    recipe = load_recipe(config, options)
    out = out or Path("runs") / f"{recipe.name}-{recipe.seed}"
    from dataengine.engine.show import dry_run as show_plan
    from dataengine.engine.show import run_with_progress

    if dry_run:
        show_plan(recipe, out, as_json)
        return
    if executor not in ("local", "ray"):
        raise UserError(f"--executor {executor}: give local or ray.")
    where = {"executor": executor, "address": address, "gpus_per_worker": gpus_per_worker, "datasets": datasets}
    report = run_with_progress(recipe, out, workers, batch_size, quiet=as_json, **where)
    if as_json:
        print(json.dumps(report, indent=2))
    if report["accepted"] < report["wanted"]:
        raise typer.Exit(1)


@app.command()
def doctor(as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False) -> None:
    """Say what is installed, on what it would run, and how to get what is missing."""
    from dataengine.doctor import examine, show

    findings = examine()
    if as_json:
        print(json.dumps(findings, indent=2))
    else:
        show(findings)
    if findings["missing"]:
        raise typer.Exit(1)


def main() -> None:
    """Entry point: a user's mistake is one sentence on stderr and exit status 2; Ctrl-C loses nothing."""
    interrupted = False

    def interrupt(number, frame):
        nonlocal interrupted
        interrupted = True
        raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, interrupt)
    try:
        app()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except BaseException as error:
        if not interrupted or (isinstance(error, SystemExit) and not error.code):  # a page is ended by Ctrl-C
            raise
        # whatever it was turned into: libraries that are just being imported make an ImportError of it
        print("stopped; what is finished stays, and the same command continues", file=sys.stderr)
        sys.exit(130)
