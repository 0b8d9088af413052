"""The environment of mmrotate: made once when it is needed, kept, and made again when half of it is there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import types
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import dataengine
from dataengine.errors import UserError
from dataengine.files import lock
from dataengine.mmrotate import environment, install

ROOT = Path(__file__).parents[2]
INSTALLER = """
import pathlib, sys, sysconfig
print("install_mmrotate: the stub", *sys.argv[1:], file=sys.stderr)
package = pathlib.Path(sysconfig.get_path("purelib"), "mmrotate")
package.mkdir()
(package / "__init__.py").touch()
"""
WHERE = "-n1", "-r1", "import dataengine, mmrotate; print(dataengine.__file__, mmrotate.__file__)"


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """Where the environment is made, by an installer that installs an empty mmrotate."""
    script = tmp_path / "installer.py"
    script.write_text(INSTALLER)
    monkeypatch.setattr(environment, "install", types.SimpleNamespace(__file__=str(script)))
    monkeypatch.setattr(environment, "is_here", lambda: False)
    monkeypatch.setattr(environment, "VENV", [sys.executable, "-m", "venv", "--without-pip"])
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv(environment.VARIABLE, raising=False)
    return environment.folder()


def command(said: list | None = None) -> list[str]:
    return environment.command("timeit", *WHERE, report=(said if said is not None else []).append)


def test_it_is_made_once_and_runs_this_dataengine_with_its_own_packages(place):
    said: list[str] = []
    words = command(said)
    assert "about 7 GB" in said[0], "what it takes, before it is made"
    assert str(place) in said[0]
    assert any(line.startswith("the stub accelerate") for line in said), "the installer gets the dependencies"
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(words, cwd=place, env=clean, capture_output=True, text=True, check=True)
    ours, other = done.stdout.splitlines()[0].split()
    assert ours == dataengine.__file__
    assert Path(other).is_relative_to(place)
    again: list[str] = []
    assert command(again) == words
    assert again == [], "the second time it is there"


def test_where_mmrotate_is_installed_nothing_is_made(place, monkeypatch):
    monkeypatch.setattr(environment, "is_here", lambda: True)
    assert command()[:3] == [sys.executable, "-m", "timeit"]
    assert not place.exists()


def test_half_of_it_is_made_again_and_so_is_one_of_another_installer(place, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(environment, "write_whole", lambda file, text: Path(file).write_text("unfinished"))
        command()  # as if it were killed before its last step
    (place / "left").touch()
    command(said := [])
    assert said
    assert not (place / "left").exists()
    script = Path(environment.install.__file__)
    script.write_text(INSTALLER + "# newer\n")
    (place / "left").touch()
    command(said := [])
    assert said
    assert not (place / "left").exists()


def test_a_failure_is_one_sentence_with_the_reason_and_the_next_call_begins_again(place):
    script = Path(environment.install.__file__)
    script.write_text("import sys; print('install_mmrotate: pip could not install torch'); sys.exit(2)")
    with pytest.raises(UserError, match=r"pip could not install torch; see .*\.log\).*repeat.*DATAENGINE_MMROTATE"):
        command()
    assert environment.state().startswith("unfinished")
    script.write_text(INSTALLER)
    command()
    assert environment.state() == f"kept in {place}"


def test_an_environment_of_the_user_is_used_as_it_is_and_other_folders_are_not_touched(place, tmp_path, monkeypatch):
    other = tmp_path / "mine"
    monkeypatch.setenv(environment.VARIABLE, str(other))
    other.mkdir()
    (other / "thesis.txt").touch()
    with pytest.raises(UserError, match="has other files, and no mmrotate"):
        command()
    assert [file.name for file in other.iterdir()] == ["thesis.txt"]
    command_of_kept = _with_variable(monkeypatch, None)
    shutil.move(place, tmp_path / "venv")
    (tmp_path / "venv" / environment.MARKER).unlink()
    monkeypatch.setenv(environment.VARIABLE, str(tmp_path / "venv"))
    before = sorted(tmp_path.glob("venv/*"))
    words = command(said := [])
    assert said == []
    assert words[0] == str(tmp_path / "venv" / Path(command_of_kept[0]).relative_to(place))
    assert sorted(tmp_path.glob("venv/*")) == before


def _with_variable(monkeypatch, value) -> list[str]:
    with monkeypatch.context() as patch:
        patch.delenv(environment.VARIABLE)
        return command()


def test_one_process_makes_it_and_another_waits(place):
    place.parent.mkdir(parents=True)
    held = lock(place.with_name(f"{place.name}.lock"))
    said: list[str] = []
    waiting = threading.Thread(target=command, args=(said,))
    waiting.start()
    while not said:
        assert waiting.is_alive()
    assert "another process makes" in said[0]
    assert not place.exists()
    held.close()
    waiting.join(60)
    assert environment.state() == f"kept in {place}"


def test_doctor_shows_it(place, monkeypatch):
    from dataengine.doctor import examine

    assert examine()["mmrotate"].startswith(f"not made yet: {place}")
    monkeypatch.setattr(environment, "is_here", lambda: True)
    assert examine()["mmrotate"] == "installed here"


def test_the_requirements_are_those_of_the_project_with_its_extras():
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    expected = [
        *project["dependencies"],
        *(need for e in environment.EXTRAS for need in project["optional-dependencies"][e]),
    ]
    found, meant = ([Requirement(need) for need in needs] for needs in (environment.requirements(), expected))
    assert {(canonicalize_name(need.name), str(need.specifier)) for need in found} == {
        (canonicalize_name(need.name), str(need.specifier)) for need in meant
    }
    assert not [need for need in environment.requirements() if "extra" in need]


@pytest.mark.parametrize("wheel", [None, "onedl_mmcv-2.3.6-cp311-cp311-linux_x86_64.whl"])
def test_mmcv_is_compiled_in_a_fresh_clone_and_taken_from_a_prebuilt_wheel_where_there_is_one(
    wheel, tmp_path, monkeypatch, capsys
):
    asked: list[tuple] = []
    monkeypatch.setattr(install, "pip", lambda *words, **variables: asked.append((words, variables)))
    monkeypatch.setattr(install, "ask", lambda program: "0" if "cuda" in program else None)
    monkeypatch.setattr(install.sys, "version_info", (3, 11, 0))
    monkeypatch.setenv("MMCV_WHEELS", str(tmp_path / "no-such-folder"))
    if wheel:
        (tmp_path / "no-such-folder").mkdir()
        (tmp_path / "no-such-folder" / wheel).touch()
    install.install_mmcv(install.TORCH)
    said = capsys.readouterr().err
    assert ("from source" in said) == (wheel is None)
    assert asked[-1][0][-1] == (str(tmp_path / "no-such-folder" / wheel) if wheel else install.MMCV)
    asked.clear()
    install.install_mmcv("2.9.0")
    assert asked[-1][0][-1] == install.MMCV, "control: the wheel is for another torch"


def test_the_script_says_what_it_needs_where_no_environment_is_active(tmp_path):
    """In a fresh clone, which has no folder of wheels."""
    for file in ("tools/install_mmrotate.sh", "dataengine/mmrotate/install.py"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / file, tmp_path / file)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").symlink_to(Path(sys.base_prefix) / "bin" / "python3")
    bare = {"PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        [tmp_path / "tools/install_mmrotate.sh"], env=bare, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "no virtual environment is active; make one first: python3 -m venv" in done.stderr
