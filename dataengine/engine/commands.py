"""`dataengine run`: verify the folder of a run, write its data sets again, and show where its time went."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    help="Verify the folder of a run, update its data sets, and show where its time went.", no_args_is_help=True
)

MAX_PRINTED = 20  # faults; one damaged file can cause hundreds
Run = Annotated[Path, typer.Argument(help="Run folder of dataengine synth, or folder of dataengine world.")]


@app.command("verify")
def verify_command(
    run: Run, as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False
) -> None:
    """Verify that a run is unchanged: images and manifest by their checksums, and all else by deriving it again.

    Prints one sentence per fault; the exit status is 1 if there are faults. Changes nothing. The fingerprint it prints
    is the SHA-256 of what the rest follows from: keep it elsewhere, and compare.

    Example: dataengine run verify runs/first
    """
    from dataengine.engine.run_folder import RunFolder
    from dataengine.engine.world_folder import WorldFolder
    from dataengine.errors import counted

    if WorldFolder(run).world.exists() and not RunFolder(run).recipe.exists():
        from dataengine.engine.verify_world import verify_world as verify
    else:
        from dataengine.engine.verify import verify

    found = verify(run)
    if as_json:
        import dataclasses
        import json

        typer.echo(json.dumps(dataclasses.asdict(found), indent=2))
    else:
        for fault in found.faults[:MAX_PRINTED]:
            typer.echo(fault.message)
        if len(found.faults) > MAX_PRINTED:
            typer.echo(f"and {len(found.faults) - MAX_PRINTED} more, often with the same cause; --json prints all")
        for fix in dict.fromkeys(fault.fix for fault in found.faults):
            typer.echo(f"Fix: {fix}.")
        for note in found.notes:
            typer.echo(f"note: {note}")
        if found.fingerprint:
            typer.echo(f"fingerprint: {found.fingerprint}")
        result = "unchanged" if not found.faults else counted(len(found.faults), "fault")
        accepted = f", {found.accepted} of them accepted" if found.what == "images" else ""
        typer.echo(f"{run}: {found.images} {found.what}{accepted}; {result}")
    if found.faults:
        raise typer.Exit(1)


@app.command("update")
def update_command(run: Run) -> None:
    """Write the DOTA and COCO folders of a run again, with the decisions made in `dataengine view` since.

    Exports and evaluations contain all decisions anyway; this is for programs that read these folders directly.

    Example: dataengine run update runs/first
    """
    from dataengine.engine.update import update_data_sets

    typer.echo(f"{run}: {'written again' if update_data_sets(run) else 'contains all decisions'}")


@app.command("trace")
def trace_command(run: Run) -> None:
    """Show how busy each stage of a run was; the busiest one decides how long the run takes.

    trace.json in the run folder opens in ui.perfetto.dev and chrome://tracing.

    Example: dataengine run trace runs/first
    """
    from rich.console import Console
    from rich.table import Table

    from dataengine.engine.run_folder import RunFolder
    from dataengine.engine.trace import busy, read_trace
    from dataengine.errors import printable

    events = read_trace(RunFolder(run))
    loading = [event["dur"] / 1e6 for event in events if event["name"] == "load"]
    table = Table("stage", "busy", "seconds", "on a core")
    for row in busy(events):
        table.add_row(row.stage, f"{row.share:.1%}", f"{row.seconds:.1f}", f"{row.cpu_seconds:.1f}")
    console = Console()
    console.print(table)
    if loading:
        console.print(f"{len(loading)} processes, loaded in at most {max(loading):.1f} s")
    for event in events:
        if event["name"] == "lost":
            why = printable(event["args"]["reason"])
            console.print(f"worker {event['pid']} was killed or lost: {why}", markup=False)
