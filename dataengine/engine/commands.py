"""`dataengine run`: what can be done with the folder of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Look into the folder of a run of dataengine synth.", no_args_is_help=True)

SHOWN = 20  # faults that are printed; one damaged file can be the cause of hundreds
Run = Annotated[Path, typer.Argument(help="Folder of dataengine synth.")]


@app.command("verify")
def verify_command(
    run: Run, as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False
) -> None:
    """Say whether a run is what was made: checksums of images and labels, manifest, parts, DOTA and COCO.

    Each fault is one sentence; the status is 1 where there is any. It changes nothing.

    Example: dataengine run verify runs/first
    """
    from dataengine.engine.verify import verify

    found = verify(run)
    if as_json:
        import dataclasses
        import json

        typer.echo(json.dumps(dataclasses.asdict(found), indent=2))
    else:
        for fault in found.faults[:SHOWN]:
            typer.echo(fault.message)
        if len(found.faults) > SHOWN:
            typer.echo(f"and {len(found.faults) - SHOWN} more, often of the same cause; all of them with --json")
        for mend in dict.fromkeys(fault.mend for fault in found.faults):
            typer.echo(f"The mend: {mend}.")
        for note in found.notes:
            typer.echo(f"note: {note}")
        sound = "as they were made" if not found.faults else f"compared; {len(found.faults)} faults"
        typer.echo(f"{run}: {found.images} images, {found.accepted} of them accepted, {sound}")
    if found.faults:
        raise typer.Exit(1)


@app.command("trace")
def trace_command(run: Run) -> None:
    """Say how busy each stage of a run was; trace.json in its folder opens in ui.perfetto.dev and chrome://tracing.

    The busiest stage is the one that decides how long a run takes.

    Example: dataengine run trace runs/first
    """
    from rich.console import Console
    from rich.table import Table

    from dataengine.engine.run_folder import RunFolder
    from dataengine.engine.trace import busy, read_trace

    events = read_trace(RunFolder(run))
    loading = [event["dur"] / 1e6 for event in events if event["name"] == "load"]
    table = Table("stage", "busy", "seconds", "of them on a core")
    for row in busy(events):
        table.add_row(row.stage, f"{row.share:.1%}", f"{row.seconds:.1f}", f"{row.cpu_seconds:.1f}")
    console = Console()
    console.print(table)
    if loading:
        console.print(f"{len(loading)} processes, loaded in {max(loading):.1f} s at most")
