"""Hook of mkdocs (mkdocs.yml): pages that are generated from the code, so that they cannot be wrong.

reference/cli.md         every command and option, from the typer application
reference/recipe.md      every field of a recipe
reference/python-api.md  the public names, for mkdocstrings to fill from their docstrings
changelog.md             CHANGELOG.md
"""

from __future__ import annotations

import inspect
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Literal, Union, get_args, get_origin, get_type_hints

import yaml

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

# what the pages name next to the package's public names
MORE_NAMES = {
    "Canvas": "dataengine.render.canvas",
    "Painted": "dataengine.render.canvas",
    "Provenance": "dataengine.render.canvas",
    "Renderer": "dataengine.render.renderer",
    "PaintSettings": "dataengine.render.renderer",
    "DatasetCanvases": "dataengine.render.dataset_canvases",
    "Verdict": "dataengine.judge.verdict",
    "Record": "dataengine.engine.record",
    "RunFolder": "dataengine.engine.run_folder",
    "RunResult": "dataengine.engine.run",
}
PACKAGES = {
    "data": "Data sets",
    "layouts": "Layouts",
    "render": "Rendering",
    "judge": "Filter",
    "engine": "Runs",
    "errors": "Errors",
}


def on_files(files, config):
    """Add the generated pages to those in docs/."""
    from mkdocs.structure.files import File

    for path, content in generated_pages().items():
        files.append(File.generated(config, path, content=content))
    return files


def generated_pages() -> dict[str, str]:
    """{path of a page in docs/: its text}."""
    return {
        "reference/cli.md": commands_page(),
        "reference/recipe.md": recipe_page(),
        "reference/python-api.md": api_page(),
        "changelog.md": (ROOT / "CHANGELOG.md").read_text(),
    }


def commands_page() -> str:
    """Every command with its help, arguments and options."""
    import typer

    from dataengine.cli import app

    parts = [
        "# Commands\n\nThis page is generated from the code. `dataengine COMMAND --help` prints the same options; the "
        "help of `synth` puts the most common ones first.\n"
    ]
    for words, command in all_commands(typer.main.get_command(app)):
        parts.append(_command(words, command))
    return "\n".join(parts)


def all_commands(command, words: tuple[str, ...] = ()) -> Iterator[tuple]:
    """(words, command) of every visible command below this one, and of itself."""
    if not getattr(command, "hidden", False):
        yield words, command
        for name, child in getattr(command, "commands", {}).items():
            yield from all_commands(child, (*words, name))


def _command(words: tuple[str, ...], command) -> str:
    from dataengine.cli import PANELS

    parameters = [p for p in command.params if not getattr(p, "hidden", False)]
    arguments = [p for p in parameters if p.param_type_name == "argument"]
    options = [p for p in parameters if p not in arguments and p.name not in ("install_completion", "show_completion")]
    usage = " ".join(["dataengine", *words, *map(_placeholder, arguments)])
    if getattr(command, "commands", None):
        usage += " COMMAND"
    elif options:
        usage += " [OPTIONS]"
    level = "##" if len(words) < 2 else "###"
    text = [f"{level} {' '.join(['dataengine', *words])}\n"]
    if help_text := inspect.cleandoc(command.help or ""):
        text.append(f"{_marked(help_text)}\n")
    text.append(f"```text\n{usage}\n```\n")
    if getattr(command, "epilog", None):
        text.append(f"{_marked(inspect.cleandoc(command.epilog))}\n")
    panels = defaultdict(list)
    for option in (*arguments, *options):
        panel = getattr(option, "rich_help_panel", None)
        panels[panel if isinstance(panel, str) else ""].append(option)
    if len(panels) > 1 and "" in panels:
        panels["Run"] += panels.pop("")  # as in the help
    for panel in sorted(panels, key=lambda name: PANELS.index(name) if name in PANELS else -1):
        if panel and len(panels) > 1:
            text.append(f"**{panel}**\n")
        text.append("| option | type | meaning |\n|---|---|---|")
        text += [_row(option) for option in panels[panel]]
        text.append("")
    return "\n".join(text)


def _placeholder(argument) -> str:
    return (argument.metavar or argument.name.upper()) + ("..." if argument.nargs != 1 else "")


def _row(option) -> str:
    if option.param_type_name == "argument":
        names = f"`{_placeholder(option)}`"
    else:
        names = ", ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts))
    meaning = " ".join((option.help or "").split())
    default = option.default
    if default not in (None, False, ...) and not callable(default) and not isinstance(default, (list, tuple)):
        meaning += f" Default: `{getattr(default, 'value', default)}`."
    if option.required:
        meaning += " Required."
    return f"| {names} | {_cell(_kind(option))} | {_cell(meaning)} |"


def _kind(option) -> str:
    """What an option takes, in words."""
    if getattr(option, "is_flag", False):
        return "flag"
    return _type_name(option.type_descriptor.annotation)


def _type_name(annotation) -> str:
    """A type in words: "path", "number", the values of a choice."""
    origin, inside = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type_name(inside[0])
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in inside)
    if origin in (Union, UnionType):
        return " or ".join(_type_name(one) for one in inside if one is not NoneType)
    if origin in (list, tuple, dict):
        names = [_type_name(one) for one in inside if one is not ...]
        if origin is tuple and ... not in inside:
            return ", ".join(names)
        return {dict: "map of ", tuple: "list of ", list: "list of "}[origin] + " to ".join(names)
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return ", ".join(f"`{member.value}`" for member in annotation)
    return {int: "integer", float: "number", str: "text", bool: "true or false", Path: "path"}.get(annotation, "text")


def _yaml(value: object) -> str:
    """A default as a YAML file has it."""
    return yaml.safe_dump(value, default_flow_style=True).removesuffix("...\n").strip()


def _cell(text: str) -> str:
    return _marked(text).replace("|", "\\|").replace("<", "&lt;").strip()


def _marked(text: str) -> str:
    """Help text with its example and its options as code."""
    text = text.replace("\b", "").strip("\n")  # typer's mark of a paragraph that is not wrapped
    lines = re.sub(r"^(Example: +)(.+)$", r"\1`\2`", text, flags=re.MULTILINE).split("`")
    lines[::2] = [re.sub(r"(?<![\w-])--[a-z][\w-]*", r"`\g<0>`", part) for part in lines[::2]]
    return "`".join(lines)


def recipe_page() -> str:
    """Every field of `Recipe`."""
    from dataengine.engine.recipe import Recipe

    rows, hints = [], get_type_hints(Recipe, include_extras=True)
    for name, field in Recipe.model_fields.items():
        kind = _type_name(hints[name])
        if field.default_factory:
            default = "depends on `renderer`"
        else:
            default = "" if field.default is None else f"`{_yaml(field.default)}`"
        rows.append(f"| `{name}` | {_cell(kind)} | {default} | {_cell(field.description or '')} |")
    return "\n".join(
        [
            "# Recipe\n",
            "A recipe holds every setting that decides the result of a run. Write it as YAML for",
            "`dataengine synth --config run.yaml`, or use `dataengine.Recipe` in Python. Options on the command line",
            "override the file. `configs/recipes/` has packaged recipes, which `--config` accepts by name.\n",
            "```yaml\ndataset: hit-uav\nn: 1000\nbalance: 0.1\nrows: 0.3\nfilter: erase\n```\n",
            "| field | type | default | meaning |\n|---|---|---|---|",
            *rows,
            "",
        ]
    )


def api_page() -> str:
    """The public names by package, as directives of mkdocstrings."""
    import dataengine

    homes = {**dataengine._HOME, **MORE_NAMES}
    text = [
        "# Python API\n",
        f"These names are public: {', '.join(f'`dataengine.{name}`' for name in dataengine.__all__)}. All others can",
        "change between versions. [Python](../python.md) shows how they work together.\n",
    ]
    for package, title in PACKAGES.items():
        text.append(f"## {title}\n")
        text += [f"::: {home}.{name}\n" for name, home in homes.items() if home.split(".")[1] == package]
    return "\n".join(text)
