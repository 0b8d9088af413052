"""Where things are known: packages import in one direction, and a manifest's keys and a run's file names stand once."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "dataengine"
# each may import those before it; what stands together on a line may not import each other
ORDER = [
    {"errors", "seeds", "tables"},
    {"files", "imagenet", "weights"},
    {"folders"},
    {"hosts"},
    {"download"},
    {"geometry"},
    {"data"},
    {"maps"},
    {"layouts"},
    {"render"},
    {"judge"},
    {"mmrotate"},
    {"train"},
    {"world"},
    {"engine"},
    {"evaluate"},
    {"export", "view"},
    {"improve"},
    {"doctor"},
    {"cli"},
    {"__main__", "__init__"},
]
EXPECTED = {
    # only where a detector of mmrotate is asked for, as one of the kinds that serve the filter
    ("judge/child.py", "mmrotate"),
    ("judge/commands.py", "mmrotate"),
    ("judge/detector.py", "mmrotate"),
}
READERS = ["engine", "evaluate", "export", "view"]  # packages that look into runs
KEYS = {"unreadable_scenes", "layout_from", "objects_from", "left_out", "scene_license", "scene_source", "verdict"}
FILES = {
    "manifest.jsonl", ".manifest.jsonl", "recipe.json", "records.jsonl", "records.jsonl.sha256", "report.json",
    "trace.json", "calibration.json", "kept.png", "dropped.png", "decisions.jsonl",
}  # fmt: skip
KEYS_EXPECTED = {  # the same word in another file
    ("engine/show.py", "left_out"),  # report.json
    ("engine/show.py", "unreadable_scenes"),  # report.json
    ("export/release/card.py", "left_out"),  # release.json
}


def modules(*packages: str) -> Iterator[tuple[str, ast.Module]]:
    """(path below the package, syntax tree) of every module, or of those of some packages."""
    for file in sorted(PACKAGE.rglob("*.py")):
        path = file.relative_to(PACKAGE)
        if not packages or path.parts[0] in packages:
            yield path.as_posix(), ast.parse(file.read_text())


def part_of(path: str) -> str:
    """The package, or the module at the top, that a path lies in."""
    return path.split("/")[0].removesuffix(".py")


def imports(tree: ast.Module) -> Iterator[str]:
    """The parts of dataengine that a module imports, anywhere in it."""
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = (
                [node.module] if node.module != "dataengine" else [f"dataengine.{alias.name}" for alias in node.names]
            )
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        yield from (name.split(".")[1] for name in names if name.startswith("dataengine."))


def texts(tree: ast.Module) -> Iterator[str]:
    """Every text in a module but the docstrings."""
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.value


def keys_read(tree: ast.Module) -> Iterator[str]:
    """Every text that something is looked up by: `values["key"]`, `values.get("key")`, `values.pop("key")`."""
    for node in ast.walk(tree):
        key = None
        if isinstance(node, ast.Subscript):
            key = node.slice
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in ("get", "pop"):
            key = node.args[0] if node.args else None
        if isinstance(key, ast.Constant) and isinstance(key.value, str):
            yield key.value


def upward(path: str, tree: ast.Module) -> set[tuple[str, str]]:
    """(module, part) of imports against the order."""
    rank = {part: level for level, parts in enumerate(ORDER) for part in parts}
    own = part_of(path)
    return {(path, part) for part in imports(tree) if part in rank and part != own and rank[part] >= rank[own]}


def test_every_part_has_its_place_in_the_order():
    named = {part for parts in ORDER for part in parts}
    found = {part_of(path) for path, _ in modules()}
    assert found == named


def test_packages_import_in_one_direction():
    found = set().union(*(upward(*module) for module in modules()))
    assert found == EXPECTED, "what is expected and gone is to be deleted from EXPECTED"


def test_only_record_knows_the_keys_of_a_manifest():
    found = {(path, key) for path, tree in modules(*READERS) for key in KEYS.intersection(keys_read(tree))}
    assert ("engine/record.py", "verdict") in found, "control"
    assert {(path, key) for path, key in found if path != "engine/record.py"} == KEYS_EXPECTED


def test_only_run_folder_knows_the_names_of_a_runs_files():
    found = {(path, text) for path, tree in modules(*READERS) for text in FILES.intersection(texts(tree))}
    assert len([path for path, _ in found if path == "engine/run_folder.py"]) > 8, "control"
    readers = {"engine/run_folder.py", "engine/world_folder.py"}  # a world's folder is another one
    assert {(path, text) for path, text in found if path not in readers} == set()


@pytest.mark.parametrize(
    "line",
    ["import dataengine.engine.run", "from dataengine import view", "def f():\n    from dataengine.cli import app"],
)
def test_an_import_against_the_order_would_be_noticed(line):
    assert upward("layouts/new.py", ast.parse(line))
    assert not upward("layouts/new.py", ast.parse("from dataengine import geometry, errors"))


def test_a_key_and_a_file_name_would_be_noticed_and_a_docstring_would_not():
    tree = ast.parse('def f(r):\n    "report.json"\n    return r["verdict"], r.get("left_out", 0), open("kept.png")')
    assert KEYS.intersection(keys_read(tree)) == {"verdict", "left_out"}
    assert FILES.intersection(texts(tree)) == {"kept.png"}
