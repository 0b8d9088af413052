"""`dataengine export review` and `dataengine run decide`: a run to a labelling tool and back."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import ModuleType
from typing import Annotated, Literal

import typer

ToolName = Literal["fiftyone", "cvat", "label-studio"]
IMAGES = {"fiftyone": "data", "cvat": "images", "label-studio": "images"}


def _tool(name: str) -> ModuleType:
    from dataengine.export.tools import cvat, fiftyone, label_studio

    return {"fiftyone": fiftyone, "cvat": cvat, "label-studio": label_studio}[name]


def review_command(
    run: Annotated[Path, typer.Argument(help="Run folder of dataengine synth.")],
    to: Annotated[ToolName, typer.Option(help="Tool that reads the files.")],
    out: Annotated[Path | None, typer.Option(help="New folder. [default: RUN-TOOL, beside the run]")] = None,
    all_attempts: Annotated[
        bool, typer.Option("--all-attempts", help="Include the images that the filter dropped.")
    ] = False,
) -> None:
    """Write the images of a run for review in FiftyOne, CVAT or Label Studio, with labels, decisions and tags.

    `dataengine run decide` reads back what a person changed there.

    Example: dataengine export review runs/first --to cvat
    """
    from dataengine.data.staging import check_empty
    from dataengine.engine.run_folder import RunFolder
    from dataengine.errors import UserError
    from dataengine.export.tools.review import given_images

    out = out or run.with_name(f"{run.name}-{to}")
    images, classes = given_images(RunFolder(run), all_attempts)
    check_empty(out, "files")
    try:
        folder = out / IMAGES[to]
        folder.mkdir(parents=True, exist_ok=True)
        for image in images:
            shutil.copyfile(image.file, folder / f"{image.name}.png")
        file = _tool(to).write(images, classes, out)
    except OSError as error:
        raise UserError(f"{error.filename or out} cannot be read or written ({error.strerror}).") from None
    typer.echo(f"{file}: {len(images)} images for {to}")


def decide_command(
    run: Annotated[Path, typer.Argument(help="Run folder that was exported for review.")],
    file: Annotated[Path, typer.Argument(help="What the tool wrote: annotations.xml, a JSON file, or samples.json.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count the changes and make none.")] = False,
) -> None:
    """Read what a person changed in FiftyOne, CVAT or Label Studio, as decisions about the images of a run.

    Images that are not in the file stay as they are. `dataengine view` shows the changes and can undo them.

    Example: dataengine run decide runs/first reviewed/annotations.xml
    """
    from collections import Counter

    from dataengine.engine.decisions import append
    from dataengine.engine.run_folder import RunFolder
    from dataengine.export.tools.review import review

    name = recognized(file)
    file = file / "samples.json" if file.is_dir() else file
    found = review(RunFolder(run), _tool(name).read(file), name)
    for note in found.notes:
        typer.echo(f"note: {note}", err=True)
    if found.changes and not dry_run:
        append(RunFolder(run), found.changes)
    counted = Counter(change.do for change in found.changes)
    said = ", ".join(f"{do} {n}" for do, n in counted.items()) or "nothing has changed"
    typer.echo(f"{run}: {said}{' (not made: --dry-run)' if dry_run and found.changes else ''}")


def recognized(file: Path) -> str:
    """The tool that wrote a file, or a folder with `samples.json`. Raises UserError for others."""
    from dataengine.errors import UserError

    if not file.exists():
        raise UserError(f"{file} does not exist; check the spelling.")
    if file.is_dir() and (file / "samples.json").exists():
        return "fiftyone"
    if file.is_file() and file.suffix.lower() == ".xml":
        return "cvat"
    if file.is_file() and file.suffix.lower() == ".json":
        return "fiftyone" if file.name == "samples.json" else "label-studio"
    raise UserError(f"{file}: written by no known tool; give annotations.xml of CVAT, or a JSON file of the others.")
