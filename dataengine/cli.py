"""The command line: each command reads its arguments, calls one function and prints what came out."""

from __future__ import annotations

import errno
import inspect
import json
import os
import signal
import sys
import warnings
from collections import defaultdict
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, get_args, get_origin, get_type_hints

import typer
from typer.core import TyperCommand

from dataengine.data.commands import app as data_app
from dataengine.data.get_command import get_command
from dataengine.engine.commands import app as run_app
from dataengine.engine.picture_commands import rerender_command, sequence_command, superres_command
from dataengine.engine.world_command import world_command
from dataengine.errors import UserError, is_out_of_memory
from dataengine.evaluate.commands import app as evaluate_app
from dataengine.evaluate.detector_command import detector_command
from dataengine.export.commands import app as export_app
from dataengine.export.release.commands import app as release_app
from dataengine.export.sample_command import sample_command
from dataengine.export.tools.commands import decide_command, review_command
from dataengine.improve.command import improve_command
from dataengine.judge.commands import app as filter_app
from dataengine.layouts.commands import app as layout_app
from dataengine.maps.commands import app as map_app
from dataengine.maps.pairs_command import pairs_command
from dataengine.render.commands import app as model_app
from dataengine.train.commands import app as train_app
from dataengine.train.control_command import control_command
from dataengine.view.commands import draw_command, view_command
from dataengine.view.select_command import select_command

app = typer.Typer(
    rich_markup_mode=None,  # defaults stand in brackets, which rich would read as markup
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"max_content_width": 110},
    help="Turn a small labelled aerial or satellite data set into a large, verified, synthetic one.",
)
app.add_typer(data_app, name="data")
app.add_typer(layout_app, name="layout")
app.add_typer(map_app, name="map")
app.add_typer(run_app, name="run")
app.add_typer(train_app, name="train")
app.add_typer(filter_app, name="filter")
app.add_typer(evaluate_app, name="evaluate")
app.add_typer(model_app, name="model")
app.add_typer(export_app, name="export")
layout_app.command("draw")(draw_command)
train_app.command("detector")(detector_command)
train_app.command("control")(control_command)
data_app.command("get")(get_command)
data_app.command("sample")(sample_command)
data_app.command("select")(select_command)
export_app.command("review")(review_command)
run_app.command("decide")(decide_command)
data_app.command("pairs")(pairs_command)
app.add_typer(release_app, name="release")

FIRST_OPTIONS = ("dataset", "data", "n", "out", "model", "strength", "filter", "workers")  # most runs need no other
PANELS = ("Data", "Layouts", "Rendering", "Filter", "Run")
RENAMED_OPTIONS = {
    ("synth",): {"--class": "--classes"},
    ("export", "mmrotate"): {"--most": "--images"},
    ("release",): {"--most-copies": "--max-copies"},
    ("filter", "label"): {"--sure": "--min-score", "--doubt": "--doubtful-score"},
}  # command: {name in version 0.1.0: name}


class RecipeCommand(TyperCommand):
    """`synth`: the options of `run_recipe`, and one for each field of `Recipe`, in panels.

    `Recipe` is imported when the command runs or shows its help: pydantic takes longer than `dataengine --help`.
    """

    @cached_property
    def _full(self) -> TyperCommand:
        from dataengine.engine.recipe import Recipe

        types, options = get_type_hints(Recipe), []  # hints without pydantic's annotations
        for name, field in Recipe.model_fields.items():
            options.append(_option(name, types[name], field))

        def run(**values):
            fields = {}
            for name in Recipe.model_fields:
                value = values.pop(name)
                if value is not None and value != []:
                    fields[name] = ",".join(value) if isinstance(value, list) else value
            run_recipe(fields, **values)

        own = list(inspect.signature(run_recipe, eval_str=True).parameters.values())[1:]
        run.__signature__ = inspect.Signature([*options, *own])
        single = typer.Typer(add_completion=False, rich_markup_mode=None)
        single.command()(run)
        return typer.main.get_command(single)

    params = property(lambda self: self._full.params, lambda self, _: None)
    callback = property(lambda self: self._full.callback, lambda self, _: None)

    def format_options(self, ctx, formatter) -> None:
        """The options that most people need, then the others in panels."""
        records = defaultdict(list)
        for option in self.get_params(ctx):
            panel = getattr(option, "rich_help_panel", None) or "Run"
            if (record := option.get_help_record(ctx)) is not None:
                records[option.name if option.name in FIRST_OPTIONS else panel].append(record)
        with formatter.section("Common options"):
            formatter.write_dl([records[name][0] for name in FIRST_OPTIONS])
        for panel in PANELS:
            with formatter.section(panel):
                formatter.write_dl(records[panel])


def _option(name: str, kind: object, field) -> inspect.Parameter:
    """The option of a field of `Recipe`. Lists and mappings are text, separated by commas; repeating adds to them."""
    extra, default = field.json_schema_extra, field.get_default()
    if field.default_factory or default is None or default == {}:
        default = extra["unset"]
    elif isinstance(default, bool):
        default = "yes" if default else "no"
    metavar, option_type = None, kind | None
    for part in (kind, *get_args(kind)):  # of a union
        if get_origin(part) is dict or get_args(part)[1:] == (...,):
            metavar, option_type = "LIST", list[str] | None
        elif get_origin(part) is tuple:
            metavar = "LOW HIGH" if len(get_args(part)) == 2 else "WEST SOUTH EAST NORTH"
    option = typer.Option(
        *(["--night/--day"] if name == "night" else []),
        help=field.description + (f" [default: {default}]" if default is not None else ""),
        metavar=metavar,
        rich_help_panel=extra["panel"],
        show_default=False,
    )
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[option_type, option]
    )


@app.command(cls=RecipeCommand)
def synth() -> None:
    """Make a verified synthetic data set: sample layouts, render images, keep those that show their labels.

    --out receives DOTA and COCO folders, a manifest and contact sheets. If a run is stopped or killed, the same command
    continues it.

    Example: dataengine synth --dataset hit-uav --n 50 --out runs/first
    """


def run_recipe(
    fields: dict,
    *,
    out: Annotated[Path | None, typer.Option(help="Run folder. [default: runs/DATASET-SEED]")] = None,
    config: Annotated[
        Path | None, typer.Option(help="YAML recipe or name of a packaged one; options override its values.")
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1, help="Number of processes; does not change the result. [default: one per core, or per GPU of Ray]"
        ),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Images rendered together; affects memory and speed. [default: 16; for models with text 1 on a CPU, 4 "
            "on a GPU]",
        ),
    ] = None,
    executor: Annotated[
        Literal["local", "ray"], typer.Option(help="Run here, or on the machines of a Ray cluster (docs/scale.md).")
    ] = "local",
    address: Annotated[
        str | None, typer.Option(help="Address of the Ray cluster. [default: a new one on this machine]")
    ] = None,
    gpus_per_worker: Annotated[
        float | None, typer.Option(min=0, help="GPUs per Ray worker; 0.25 runs four workers on each. [default: 1]")
    ] = None,
    datasets: Annotated[
        bool, typer.Option("--datasets/--no-datasets", help="Write DOTA and COCO folders at the end.")
    ] = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and make nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Run a recipe with these fields, on top of those of `config`."""
    from dataengine.engine.fetched import with_fetched
    from dataengine.engine.recipe import load_recipe
    from dataengine.engine.stand_in import check_data

    recipe = load_recipe(config, fields)
    check_data(with_fetched(recipe)[0])  # before what takes seconds to import
    from dataengine.engine.show import print_plan, run_with_progress
    from dataengine.engine.training_form import write_training_form

    out = out or Path("runs") / f"{recipe.name}-{recipe.seed}"
    if dry_run:
        print_plan(recipe, out, as_json)
        return
    where = {"executor": executor, "address": address, "gpus_per_worker": gpus_per_worker, "datasets": datasets}
    report = run_with_progress(recipe, out, workers, batch_size, quiet=as_json, **where)
    if datasets and (written := write_training_form(recipe, out)) and not as_json:
        print(written)
    if as_json:
        print(json.dumps(report, indent=2))
    if report["accepted"] < report["wanted"]:
        raise typer.Exit(1)


@app.command()
def doctor(as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False) -> None:
    """Report which parts are installed, the device that runs them, and how to install what is missing.

    Example: dataengine doctor
    """
    from dataengine.doctor import examine, show

    findings = examine()
    if as_json:
        print(json.dumps(findings, indent=2))
    else:
        show(findings)
    if findings["missing"]:
        raise typer.Exit(1)


def _examples_last(group: typer.Typer) -> str:
    """Move the example of each docstring below the options; a group shows the example of its first command."""
    examples = []
    for info in group.registered_commands:
        info.help, _, example = inspect.getdoc(info.callback).rpartition("\n\nExample: ")
        info.epilog = f"\b\nExample: {example}"  # \b: the line is not wrapped
        examples.append(info.epilog)
    for info in group.registered_groups:
        examples.append(_examples_last(info.typer_instance))
    group.info.epilog = examples[0]
    return examples[0]


app.command("improve")(improve_command)
app.command("view")(view_command)
app.command("world")(world_command)
app.command("rerender")(rerender_command)
app.command("sequence")(sequence_command)
app.command("superres")(superres_command)
_examples_last(app)


def _current_names(arguments: list[str]) -> list[str]:
    """The arguments with options of version 0.1.0 under their current names; each is reported on standard error."""
    result, reported = [], set()
    for argument in arguments:
        option, equals, value = argument.partition("=")
        for command, renamed in RENAMED_OPTIONS.items():
            if option in renamed and tuple(arguments[: len(command)]) == command:
                argument = renamed[option] + equals + value
                if option not in reported:
                    print(f"warning: {option} is deprecated; use {renamed[option]}", file=sys.stderr)
                reported.add(option)
        result.append(argument)
    return result


def _output_fault(error: BaseException) -> OSError | None:
    """Why the standard output cannot be written, None where it can. error: what ended the command."""
    if isinstance(error, OSError) and error.filename is None and error.errno in (errno.ENOSPC, errno.EPIPE, errno.EIO):
        return error
    try:
        sys.stdout.flush()
    except OSError as fault:
        return fault
    return None


def main() -> None:
    """Entry point: a user's mistake is one sentence on stderr and exit status 2; Ctrl-C loses nothing."""
    interrupted = False
    warnings.filterwarnings("ignore", module=r"PIL\.")  # about broken images, which become problems

    def interrupt(number, frame):
        nonlocal interrupted
        interrupted = True
        raise KeyboardInterrupt

    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT"):  # the last two are unknown to Windows
        if (number := getattr(signal, name, None)) and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, interrupt)
    usage_error = typer.BadParameter.__base__
    try:
        try:
            status = app(args=_current_names(sys.argv[1:]), prog_name="dataengine", standalone_mode=False) or 0
        finally:
            sys.stdout.flush()  # else a full disk behind `>` shows after the end only, as a traceback
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except usage_error as error:
        message = error.format_message()
        if not message.startswith("Usage:"):  # the whole help, where a command group is given no command
            message = " ".join(message.replace("Value error, ", "").split()).removesuffix(".")
            # the parser knows no context: for an option without its value, say
            command = error.ctx.command_path if error.ctx is not None else "dataengine"
            end = "" if message.endswith("?") else "."
            message = f"error: {message}{end} See {command} --help."
        print(message, file=sys.stderr)
        sys.exit(2)
    except BaseException as error:
        if (reason := _output_fault(error)) is not None:
            if reason.errno != errno.EPIPE:  # `| head` has enough
                print(f"error: the output cannot be written ({reason.strerror}).", file=sys.stderr)
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python tries again at the end
            sys.exit(2)
        if is_out_of_memory(error):
            print("error: the memory is not enough; close other programs, or give smaller input.", file=sys.stderr)
            sys.exit(2)
        if not interrupted or (isinstance(error, SystemExit) and not error.code):  # Ctrl-C ends a page
            raise
        status = 130  # whatever it was turned into: libraries that are being imported make an ImportError of it
    if interrupted and status:
        print("stopped; finished work is kept, and the same command continues it", file=sys.stderr)
        status = 130
    sys.exit(status)
