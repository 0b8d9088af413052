"""A command never writes outside of its output folder: links, pipes and second names of files are refused or replaced.

The names are not listed here: a small run, release, export and training is made, and everything that it ever creates in
its folder, temporary files included, is planted as a link before the same command runs again.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dataengine import files
from dataengine.engine.parts import load_parts
from dataengine.engine.run import synth
from dataengine.errors import UserError

CREATES = {"open": 0, "os.mkdir": 0, "os.rename": 1}  # audit events, and which argument names what is created
recorded: set[Path] | None = None
folder_of_interest = Path("/nowhere")


def _record(event: str, arguments: tuple) -> None:
    if recorded is None or event not in CREATES or not isinstance(arguments[CREATES[event]], str | os.PathLike):
        return
    if event == "open" and not (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR):
        return
    path = Path(os.path.abspath(os.fspath(arguments[CREATES[event]])))
    if path.is_relative_to(folder_of_interest):
        recorded.add(path.relative_to(folder_of_interest))


sys.addaudithook(_record)


@contextmanager
def recording(folder: Path) -> Iterator[set[Path]]:
    """Collects the names of everything that is created or opened for writing below a folder, or beside it."""
    global recorded, folder_of_interest
    recorded, folder_of_interest = set(), folder.parent
    try:
        yield recorded
    finally:
        recorded = None


Make = Callable[[Path], object]


def names_of(make: Make, folder: Path) -> list[Path]:
    """Everything that a command creates, from the parent of its output folder on, each folder before its content.

    Of many alike, such as the images of a shard, one."""
    with recording(folder) as created:
        make(folder)
    alike, chosen = set(), []
    for path in sorted(created - {Path()}, key=lambda path: (len(path.parts), path)):
        kind = (path.parent, path.suffix, path.name[:1] == ".") if path.suffix in (".png", ".txt", ".jpg") else path
        if path.parts[0] == folder.name or path.name.startswith("."):
            chosen += [path] if kind not in alike else []
            alike.add(kind)
    return [path for path in chosen if path != Path(folder.name)]


PLANTS = ["link", "dangling link", "second name", "pipe", "device", "folder", "linked folder"]


def plant(path: Path, kind: str, outside: Path) -> None:
    """Put something else in place of what has this name."""
    files.remove(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "link":
        path.symlink_to(outside / "precious")
    elif kind == "dangling link":
        path.symlink_to(outside / "new")
    elif kind == "second name":
        os.link(outside / "precious", path)
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/null")
    elif kind == "folder":
        path.mkdir()
        (path / "mine.txt").write_text("mine")
    elif kind == "linked folder":
        path.symlink_to(outside / "folder")


def state(folder: Path) -> dict[str, bytes | None]:
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def make_outside(root: Path) -> Path:
    outside = root / "outside"
    (outside / "folder").mkdir(parents=True)
    (outside / "precious").write_text("precious")
    (outside / "folder" / "precious").write_text("precious")
    return outside


def strike(make: Make, template: Path, names: list[Path], tmp_path: Path, finished: bool) -> int:
    """Plant a link, and another kind in turn, at every name and run the command again; the number of refusals."""
    refused = 0
    for i, name in enumerate(names):
        for kind in (PLANTS[0], PLANTS[1 + i % len(PLANTS[1:])]):
            root = tmp_path / f"{i}-{kind.replace(' ', '-')}"
            root.mkdir()
            outside = make_outside(root)
            before = state(outside)
            out = root / template.name
            if finished:
                shutil.copytree(template, out)
            plant(root / name, kind, outside)
            said = ""
            try:
                make(out)
            except UserError as error:
                said = str(error)
                refused += 1
            assert "\n" not in said, (name, kind)
            assert "free some space" not in said, (name, kind)
            assert state(outside) == before, (name, kind, "something outside was changed")
            shutil.rmtree(root)
    return refused


@pytest.fixture(scope="module")
def run_command(toy_recipe) -> Iterator[Make]:
    """A run whose parts are loaded once."""
    recipe = toy_recipe.model_copy(update={"n": 2, "shard_size": 3})
    parts = load_parts(recipe)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dataengine.engine.run.load_parts", lambda recipe, stored: parts)
        yield lambda out: synth(recipe, out, batch_size=3)


def _unfinished(run: Path) -> Path:
    """The run as it is before its last step."""
    for name in ("manifest.jsonl", "report.json", "kept.png", "trace.json", "shards/000000"):
        files.remove(run / name)
    return run


@pytest.fixture(scope="module")
def finished(run_command, tmp_path_factory):
    """(folder, names of all that the run created)."""
    out = tmp_path_factory.mktemp("linked") / "run"
    return out, names_of(run_command, out)


def test_the_names_are_found(finished):
    names = {path.as_posix() for path in finished[1]}
    assert {
        "run/.lock",
        "run/.manifest.jsonl",
        "run/trace.json",
        "run/shards",
        "run/dota",
        "run/manifest.jsonl",
    } <= names
    assert any(name.startswith("run/shards/.000000.") for name in names)
    assert any(name.startswith("run/.kept.png") for name in names)


def test_a_run_that_is_continued_writes_nothing_outside(finished, run_command, tmp_path):
    assert strike(run_command, _unfinished(finished[0]), finished[1], tmp_path, finished=True)


def test_a_new_run_writes_nothing_outside(finished, run_command, tmp_path):
    hidden = [name for name in finished[1] if len(name.parts) == 2 and name.name.startswith(".")]
    assert len(hidden) > 1, "what a run may find before it has begun"
    assert strike(run_command, finished[0], hidden, tmp_path, finished=False)


@pytest.mark.parametrize("name", [".lock", ".manifest.jsonl", "trace.json"])
def test_without_the_guards_a_run_would_write_outside(name, finished, run_command, tmp_path, monkeypatch):
    """The mutation."""
    from dataengine.engine import run, trace

    def opened(path: Path, mode: str = "x"):
        return open(path, mode.replace("x", "w"))

    monkeypatch.setattr(run, "refuse_links", lambda folder: None)
    for module in (run, trace):
        monkeypatch.setattr(module, "create", opened)
    monkeypatch.setattr(run, "lock", lambda file: opened(file))
    with pytest.raises(AssertionError, match="outside"):
        strike(run_command, _unfinished(finished[0]), [Path("run") / name], tmp_path, finished=True)


def test_verifying_a_run_whose_lock_is_a_link_or_a_pipe_is_one_sentence(finished, tmp_path):
    from dataengine.engine.verify import verify

    for i, kind in enumerate(("link", "pipe", "device", "folder")):
        root = tmp_path / str(i)
        root.mkdir()
        shutil.copytree(finished[0], root / "run")
        plant(root / "run/.lock", kind, make_outside(root))
        faults = [fault.message for fault in verify(root / "run").faults]
        assert any(fault.startswith(f"{root / 'run/.lock'} is a ") for fault in faults), kind
