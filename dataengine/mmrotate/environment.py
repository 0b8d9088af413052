"""The Python with mmrotate: this one, or that of an environment which is made on first use and kept.

mmrotate needs compiled parts for one build of torch, so a plain installation of dataengine does not have it. What needs
it runs as a process of that environment, with this dataengine (`entry.py`).
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import metadata, util
from pathlib import Path
from typing import IO

from dataengine.errors import DISTRIBUTION, UserError, counted, one_line
from dataengine.files import lock, read_text, remove, user_cache, write_whole
from dataengine.mmrotate import entry, install

VARIABLE = "DATAENGINE_MMROTATE"
EXTRAS = "mmrotate", "imagenet"  # what the environment has besides the dependencies
SIZE = "about 7 GB; 5 minutes with a prebuilt onedl-mmcv, 20 more where it has to be compiled"
MARKER = "dataengine-environment"  # in the environment: what it was made of, or that it is not finished
UNFINISHED = "unfinished"
VENV = [sys.executable, "-m", "venv"]
Report = Callable[[str], None]


def say(text: str) -> None:
    """Report on standard error."""
    print(text, file=sys.stderr, flush=True)


def folder() -> Path:
    """The kept environment: $DATAENGINE_MMROTATE, or a folder of the user's cache. It may not exist."""
    if chosen := os.environ.get(VARIABLE):
        return Path(chosen).expanduser().absolute()
    return user_cache() / f"mmrotate-python{sys.version_info[0]}.{sys.version_info[1]}"


def requirements() -> list[str]:
    """The dependencies of dataengine and of EXTRAS, as in its metadata."""
    found = []
    for line in metadata.requires(DISTRIBUTION) or ():
        extra = re.search(r"\bextra == ['\"]([\w-]+)['\"]", line)
        if extra is None or extra[1] in EXTRAS:
            found.append(re.sub(r"(\s+and\s+|;\s*)extra == ['\"][\w-]+['\"]\s*$", "", line).strip())
    return found


def interpreter(of: Path) -> Path:
    """The Python of an environment."""
    return of / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def is_here() -> bool:
    """Whether this Python has mmrotate."""
    return util.find_spec("mmrotate") is not None


def state() -> str:
    """What there is, in a few words, for `dataengine doctor`."""
    if is_here():
        return "installed here"
    place = folder()
    if is_ready(place):
        return f"kept in {place}"
    begun = "unfinished" if place.exists() else "not made yet"
    return f"{begun}: {place}; dataengine train detector makes it ({SIZE})"


def command(module: str, *arguments: str, report: Report = say) -> list[str]:
    """The command line of `python -m MODULE ARGUMENTS` where mmrotate is installed.

    Where this Python does not have it, that is the kept environment, which is made if it is missing or unfinished, by
    one process at a time. Raises UserError where it cannot be made, with what to do.
    """
    if is_here():
        return [sys.executable, "-m", module, *arguments]
    place = folder()
    if not is_ready(place):
        with _locked(place, report):
            if not is_ready(place):  # another process may have made it
                _make(place, report)
    return [str(interpreter(place)), "-P", str(Path(entry.__file__).resolve()), module, *arguments]


def _key() -> str:
    """Changes with whatever the environment is made of."""
    content = Path(install.__file__).read_bytes() + "\n".join(requirements()).encode()
    return hashlib.sha256(content).hexdigest()[:16]


def is_ready(place: Path | None = None) -> bool:
    """Whether an environment, or the kept one, can be used: one of our making is complete and current, one of the
    user's has mmrotate."""
    place = place or folder()
    marker = place / MARKER
    if marker.is_file():
        return read_text(marker).strip() == _key()
    return (
        interpreter(place).exists()
        and _ask(place, "import importlib.util as u; print(u.find_spec('mmrotate'))") != "None"
    )


def _ask(place: Path, program: str) -> str:
    """What a Python program prints there; "None" where it fails."""
    done = subprocess.run([interpreter(place), "-P", "-c", program], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else "None"


def _locked(place: Path, report: Report) -> IO[str]:
    """A lock on the making of an environment; waits while another process has it."""
    file = place.with_name(f"{place.name}.lock")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        waited = False
        while True:
            try:
                return lock(file)
            except BlockingIOError:
                if not waited:
                    report(f"another process makes the environment of mmrotate in {place}; waiting for it")
                waited = True
                time.sleep(1)
    except OSError as error:
        raise UserError(
            f"{file}: cannot be written ({error.strerror or error}); set {VARIABLE} to a folder for the environment of "
            "mmrotate."
        ) from None


def _make(place: Path, report: Report) -> None:
    """Make the environment in place of one that is unfinished or made of something else."""
    if place.exists() and any(place.iterdir()) and not (place / MARKER).exists():
        raise UserError(
            f"{place}: has other files, and no mmrotate; set {VARIABLE} to an environment with mmrotate, or to a new "
            "folder in which it is made."
        )
    report(f"mmrotate, which trains detectors, is not installed here. It is being installed in {place} ({SIZE}).")
    started = time.monotonic()
    log = place.with_name(f"{place.name}.log")
    try:
        needed = requirements()
        remove(place)
        place.mkdir(parents=True)
        write_whole(place / MARKER, UNFINISHED)
        with open(log, "w", encoding="utf-8") as output:
            _run([*VENV, str(place)], output, report)
            _run([str(interpreter(place)), str(Path(install.__file__).resolve()), *needed], output, report)
        write_whole(place / MARKER, _key())
    except (OSError, subprocess.SubprocessError, metadata.PackageNotFoundError) as error:
        raise UserError(
            f"mmrotate could not be installed in {place} ({one_line(error)}; see {log}): repeat the command where "
            f"packages can be downloaded, or set {VARIABLE} to an environment with mmrotate (docs/mmrotate.md)."
        ) from None
    report(f"mmrotate is installed in {place}, after {counted(round((time.monotonic() - started) / 60), 'minute')}")


def _run(words: list[str], log: IO[str], report: Report) -> None:
    """Run a step of the installation; its lines go into the log, and those of the installer are reported, too.

    Raises SubprocessError, with the last line, where it fails."""
    # not those of this environment: they would be found before the packages of the new one
    variables = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    last = ""
    with subprocess.Popen(
        words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=variables
    ) as process:
        try:
            for line in process.stdout:
                log.write(line)
                log.flush()
                last = line.strip() or last
                if line.startswith("install_mmrotate: "):
                    report(line.strip().removeprefix("install_mmrotate: "))
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        raise subprocess.SubprocessError(last.removeprefix("install_mmrotate: ") or f"status {process.returncode}")
