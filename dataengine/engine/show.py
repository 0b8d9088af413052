"""Terminal output of `dataengine synth`: progress, tables, paths."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from dataengine.engine.recipe import Recipe
from dataengine.engine.run_folder import RunFolder
from dataengine.errors import UserError
from dataengine.files import disk_space

if TYPE_CHECKING:
    from dataengine.engine.world_worker import WorldSettings

MIN_FOUND_SHARE = 0.1  # of the painted objects of a class; with fewer it is reported


def _print_parts(console: Console, parts) -> None:
    import torch

    from dataengine.render.precision import precision_of
    from dataengine.render.renderer import best_device

    console.print(f"classes: {', '.join(parts.classes)}")
    console.print(f"renders on {best_device()} in {precision_of(torch.device(best_device()))}")
    if (calibration := parts.calibration) is not None:
        console.print(
            f"filter: accepts {calibration.pass_share:.0%} of real images; controls: "
            f"{calibration.shuffled_pass_share:.0%} with another image's labels, "
            f"{calibration.smudged_pass_share:.0%} with blurred objects"
        )
    for note in parts.notes:
        console.print(note, style="yellow")


def run_with_progress(
    recipe: Recipe,
    out: Path,
    workers: int | None,
    batch_size: int | None,
    quiet: bool,
    **where: str | float | bool | None,
) -> dict:
    """Run a recipe and return its report; unless `quiet`, print progress and a summary.

    where: further arguments of `synth`, such as `executor`.
    """
    from dataengine.engine.run import synth

    console = Console(quiet=quiet, markup=False)  # names and paths may contain brackets
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("loading", total=recipe.n, rate="")

        n_painted = 0  # in this session; images of a shard are judged and stored together

        def painted(n: int) -> None:
            nonlocal n_painted
            n_painted += n
            progress.update(task, rate=f"{n_painted} rendered")

        def update(accepted: int, tried: int) -> None:
            elapsed = progress.tasks[task].elapsed or 0
            rate = f"{tried} tried, {accepted / elapsed:.2f}/s" if elapsed else ""
            progress.update(task, completed=accepted, description="accepted", rate=rate)

        def prepared(parts) -> None:
            _print_parts(console, parts)
            progress.update(task, description="rendering", total=parts.recipe.n)  # until the first image is judged

        try:
            result = synth(recipe, out, workers, batch_size, update, prepared, painted=painted, **where)
        except UserError:
            progress.update(task, visible=bool(progress.tasks[task].completed))  # no bar above a refusal
            raise
    report = json.loads(RunFolder(result.out).report.read_text())
    show_report(console, report, result.out)
    return report


def show_report(console: Console, report: dict, out: Path) -> None:
    """Print the table of classes, the acceptance, warnings, and the paths of the results."""
    judged = report["real_images_that_would_pass"] is not None
    table = Table(
        "class", "painted", "found", "share", "erased", "accepted", "difficult",
        caption="painted and found: objects of all attempts; other columns: objects of accepted images",
    )  # fmt: skip
    table.columns[0].overflow = "fold"  # names are never cut off
    for row in report["classes"]:
        found = str(row["found"]) if judged else "-"
        share = f"{row['found'] / row['asked']:.0%}" if judged and row["asked"] else "-"
        accepted = [str(row[name]) for name in ("erased", "kept", "difficult")]
        table.add_row(row["name"], str(row["asked"]), found, share, *accepted)
    console.print(table)
    console.print(
        f"{report['accepted']} of {report['tried']} images accepted ({report['acceptance']:.0%}); dropped: "
        + (", ".join(f"{n} ({reason})" for reason, n in report["dropped_for"].items()) or "none")
    )
    if not judged:
        console.print("no detector has checked them: accepted means painted, not verified", style="yellow")
    if report["left_out"]:
        asked = sum(row["asked"] for row in report["classes"])
        console.print(
            f"{report['left_out']} of {report['left_out'] + asked} objects of the layouts were left out: they had no "
            "room next to other objects, with --likely-places no likely place, or with --strength no real object of "
            "the shape of their box"
        )
    for name in report["unreadable_scenes"]:
        console.print(f"scene {name} cannot be read and was skipped", style="yellow")
    for row in report["classes"]:
        if judged and row["kept"] and row["asked"] and row["found"] < MIN_FOUND_SHARE * row["asked"]:
            console.print(
                f"only {row['found']} of {row['asked']} painted {row['name']} were found: the model hardly renders "
                "this class, or the detector hardly knows it; what is accepted of it is no fair sample",
                style="red",
            )
    rows = {row["name"]: row for row in report["classes"]}
    for name in report["never_kept"]:
        console.print(f"no {name} was accepted: {_why_none(rows[name], judged, report)}", style="red")
    for name, share in report["below_balance"].items():
        console.print(
            f"{name} makes up {share:.0%} of the accepted objects, less than --balance states, because other classes "
            f"are found more often or are in the scenes; raise it alone, such as --balance {name}=0.2",
            style="yellow",
        )
    if report["accepted"] < report["wanted"] and "task" not in report:
        console.print(
            f"{report['wanted']} images were requested, but the run reached its maximum number of attempts; raise "
            "--max-attempts in a new folder, or train the renderer longer",
            style="red",
        )
    run = RunFolder(out)
    sheets = [str(file) for file in (run.kept_sheet, run.dropped_sheet) if file.exists()]
    console.print(f"contact sheets: {' and '.join(sheets)}")
    if run.coco.exists():
        console.print(f"data sets: {run.dota} and {run.coco}")
    if run.changes.exists():
        console.print(f"changes between dates: {run.changes}")
    console.print(f"manifest: {run.manifest}")


def _why_none(row: dict, judged: bool, report: dict) -> str:
    """Why no object of a class is in an accepted image, as far as its counts tell."""
    if not row["asked"]:
        advice = "" if "task" in report else "; a longer run, or --balance, brings some"
        return f"none was in the layouts of {report['tried']} images{advice}"
    if judged and not row["found"]:
        return (
            f"the detector found none of {row['asked']} painted ones; the renderer does not paint this class well, or "
            "the detector does not know it in such images"
        )
    return f"{row['asked']} were painted, all in images that were dropped, or erased again"


def duration(seconds: float) -> str:
    """A duration for people.

    >>> duration(5.2), duration(300), duration(9000), duration(63_326_040)
    ('6 seconds', '5 minutes', '2.5 hours', '733 days')
    """
    if seconds < 90:
        return f"{math.ceil(seconds)} seconds"
    if seconds < 5400:
        return f"{seconds / 60:.0f} minutes"
    return f"{seconds / 3600:.1f} hours" if seconds < 48 * 3600 else f"{seconds / 86400:.0f} days"


def print_plan(recipe: Recipe, out: Path, as_json: bool) -> None:
    """Print the plan of a run: its parts, and time and disk space measured on one small temporary shard."""
    import tempfile
    import time

    from dataengine.engine.fetched import with_fetched
    from dataengine.engine.parts import load_parts
    from dataengine.engine.worker import write_shard

    console = Console(markup=False, quiet=as_json)
    console.print(
        "loading models, and calibrating the filter if there is no calibration for this data (may take minutes)"
    )
    recipe, notes = with_fetched(recipe)
    parts = load_parts(recipe)
    parts.notes[:0] = notes
    recipe = parts.recipe
    probe = recipe.model_copy(update={"shard_size": min(4, recipe.shard_size, parts.renderer.batch_size)})
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        run = RunFolder(Path(folder))
        write_shard(parts, probe, run, 0, None)
        seconds = (time.perf_counter() - started) / probe.shard_size
        size = sum(f.stat().st_size for f in run.shard(0).iterdir()) / probe.shard_size
        shard = run.read_shard(0)
        records = shard.records if shard else []
    plan = {
        "out": str(out),
        "recipe": recipe.model_dump(mode="json"),
        "classes": list(parts.classes),
        "notes": parts.notes,
        "seconds_per_image_and_worker": round(seconds, 3),
        "megabytes_per_image": round(size / 1e6, 3),
        "accepted_in_probe": f"{sum(record.accepted for record in records)} of {len(records)}",
        "least_hours_on_one_worker": round(recipe.n * seconds / 3600, 2),
        "gigabytes": round(3 * recipe.n * size / 1e9, 3),
    }
    if as_json:
        print(json.dumps(plan, indent=2))
        return
    _print_parts(console, parts)
    settings = recipe.model_dump(mode="json", exclude_defaults=True, exclude={"n"})
    console.print(f"{recipe.n} images into {out}: {', '.join(f'{name} {value}' for name, value in settings.items())}")
    console.print(
        f"one image takes {seconds:.2f} s on one worker, the run at least {duration(recipe.n * seconds)} and "
        f"{disk_space(3 * recipe.n * size)} with both data sets; accepted in this test: {plan['accepted_in_probe']}"
    )
    console.print("nothing was written; --json prints the whole recipe", style="dim")


def world_with_progress(recipe: Recipe, out: Path, settings: WorldSettings, quiet: bool, **options) -> dict:
    """Make a world (`world.make_world` has the options) and return its report; unless `quiet`, print progress and what
    was made."""
    from dataengine.engine.world import make_world

    console = Console(quiet=quiet, markup=False)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("blocks", total=None)

        def prepared(parts) -> None:
            for note in parts.notes:
                console.print(f"note: {note}", soft_wrap=True)

        def done(number: int, total: int) -> None:
            progress.update(task, completed=number, total=total)

        report = make_world(recipe, out, settings, prepared=prepared, done=done, **options)
    objects = ", ".join(f"{n} {name}" for name, n in report["objects"].items())
    erased = sum(report["erased"].values())
    console.print(
        f"{out / report['geotiff']}: {settings.size} x {settings.size} pixels, {objects}; {report['difficult']} "
        f"difficult, {erased} erased by the filter"
    )
    return report
