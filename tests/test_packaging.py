"""What is published: it imports on every platform, locks hold on each, and the built archives install and run."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import tarfile
import tomllib
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest

import dataengine
from dataengine.errors import DISTRIBUTION, UserError
from dataengine.files import lock

ROOT = Path(__file__).parents[1]
PACKAGE = Path(dataengine.__file__).parent
POSIX_ONLY = {"fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "posix", "syslog", "crypt"}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def imported(tree: ast.AST) -> Iterator[str]:
    """Names of the modules that are imported together with this one; not those that functions import."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from imported(node)


def test_no_module_imports_what_only_posix_has():
    found = [
        f"{file.relative_to(PACKAGE)}: {name}"
        for file in PACKAGE.rglob("*.py")
        for name in imported(ast.parse(file.read_text()))
        if name.split(".")[0] in POSIX_ONLY
    ]
    assert found == []
    control = "import os\nif True:\n    import fcntl\ndef f():\n    import pwd\n"
    assert list(imported(ast.parse(control))) == ["os", "fcntl"]


def test_extras_and_hints_name_our_own_distribution():
    assert PROJECT["name"] == DISTRIBUTION != "dataengine"
    extras = [need for needs in PROJECT["optional-dependencies"].values() for need in needs]
    assert not [need for need in extras if need.startswith("dataengine")]
    for need in extras:
        if need.startswith(DISTRIBUTION):
            names = need[need.index("[") + 1 : -1].split(",")
            assert set(names) <= set(PROJECT["optional-dependencies"])


HOLD = "import sys, time; from pathlib import Path; from dataengine.files import lock; "


def hold(file: Path, shared: bool) -> subprocess.Popen:
    """Another process that holds a lock on the file."""
    program = f"{HOLD} held = lock(Path({str(file)!r}), {shared}); print('held', flush=True); time.sleep(60)"
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert process.stdout.readline().strip() == b"held"
    return process


def test_a_lock_excludes_other_processes_and_goes_with_its_own_however_that_ends(tmp_path):
    file = tmp_path / ".lock"
    other = hold(file, shared=False)
    for shared in (True, False):
        with pytest.raises(BlockingIOError):
            lock(file, shared)
    other.kill()
    other.wait()
    lock(file).close()


def test_shared_locks_exclude_only_exclusive_ones(tmp_path):
    file = tmp_path / ".lock"
    with pytest.raises(FileNotFoundError):
        lock(file, shared=True)
    assert not file.exists(), "a reader makes no file"
    file.touch()
    other = hold(file, shared=True)
    lock(file, shared=True).close()
    with pytest.raises(BlockingIOError):
        lock(file)
    other.kill()
    other.wait()


def test_a_run_is_not_verified_while_it_is_at_work(tmp_path):
    from dataengine.engine.verify import verify

    (tmp_path / "recipe.json").write_text("{}")
    with lock(tmp_path / ".lock"), pytest.raises(UserError, match="a run is at work"):
        verify(tmp_path)
    with pytest.raises(UserError, match=r"recipe\.json"):  # control: now it is read, and damaged
        verify(tmp_path)


@pytest.fixture(scope="module")
def archives(tmp_path_factory) -> dict[str, Path]:
    """The source archive and the wheel, made of it, by suffix."""
    out = tmp_path_factory.mktemp("dist")
    subprocess.run([sys.executable, "-m", "build", "--outdir", out, ROOT], check=True, capture_output=True)
    return {file.suffix: file for file in out.iterdir()}


@pytest.mark.slow
def test_the_archives_are_what_an_index_takes(archives):
    assert {file.name for file in archives.values()} == {
        f"aerial_dataengine-{dataengine.__version__}.tar.gz",
        f"aerial_dataengine-{dataengine.__version__}-py3-none-any.whl",
    }
    checked = [sys.executable, "-m", "twine", "check", "--strict", *archives.values()]
    done = subprocess.run(checked, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert all(file.stat().st_size < 100_000_000 for file in archives.values()), "the index's limit of a file"
    with tarfile.open(archives[".gz"]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"LICENSE", "README.md", "dataengine/cli.py", "configs/datasets/hit-uav.yaml"} <= names
    assert not [name for name in names if name.startswith((".ci", "runs/", "work/"))]


@pytest.mark.slow
def test_the_source_archive_installs_and_its_command_runs(archives, tmp_path):
    """Without its dependencies, which are those of this environment."""
    venv.create(tmp_path / "venv", with_pip=True, system_site_packages=False)
    python = tmp_path / "venv" / ("Scripts" if os.name == "nt" else "bin") / "python"
    install = [python, "-m", "pip", "install", "--quiet", "--no-deps", archives[".gz"]]
    done = subprocess.run(install, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    ours = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if "site-packages" in path)}
    command = python.with_name("dataengine")
    help_ = subprocess.run([command, "--help"], cwd=tmp_path, env=ours, capture_output=True, text=True, check=False)
    assert "synth" in help_.stdout, help_.stderr
    where = "from dataengine.data import presets; presets.load_preset('hit-uav'); print(presets.__file__)"
    found = subprocess.run([python, "-c", where], cwd=tmp_path, env=ours, capture_output=True, text=True, check=True)
    assert str(tmp_path) in found.stdout, "the installed one, with its configs"
