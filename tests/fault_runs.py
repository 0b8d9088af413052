"""Runs of the engine in processes of their own, which faults strike where a test wants them to.

Processes are forked from a server that has imported torch once, so that a run costs its own work only.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from dataengine.engine.recipe import Recipe
from dataengine.errors import UserError

CONTEXT = get_context("forkserver")
CONTEXT.set_forkserver_preload(["dataengine.engine.finish", "dataengine.render.in_scene_pipeline"])
CHANGES_A_FOLDER = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate"}
NOT_THE_ENGINES = {"trace.json"}  # what is only looked at; its number of writes is a matter of time


@dataclass(frozen=True)
class End:
    """How a run ended. said: the sentence of its UserError, "" where there was none; operations: how often it touched
    its folder, None where it could not tell any more."""

    exit_code: int
    said: str
    crash: str
    operations: int | None

    @property
    def killed(self) -> bool:
        return self.exit_code == -signal.SIGKILL


class Touches:
    """Counts what a process does to files below a folder, and kills it before the operation of a given number.

    The file that was opened for writing last is cut in half then, as far as it is still there under that name: what
    the machine had not written yet when it stopped.
    """

    def __init__(self, folder: Path, kill_at: int | None):
        self.folder, self.kill_at, self.count, self.last = str(folder.resolve()), kill_at, 0, None

    def __call__(self, event: str, arguments: tuple) -> None:
        if event not in CHANGES_A_FOLDER or not isinstance(arguments[0], str | os.PathLike):
            return
        path = os.path.abspath(os.fspath(arguments[0]))
        writes = event != "open" or (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR)
        if not writes or not path.startswith(self.folder) or NOT_THE_ENGINES & set(Path(path).parts):
            return
        self.count += 1
        if self.count == self.kill_at:
            if self.last is not None and os.path.isfile(self.last):
                os.truncate(self.last, os.path.getsize(self.last) // 2)
            os.kill(os.getpid(), signal.SIGKILL)
        self.last = path if event == "open" else self.last


def watch(folder: Path, kill_at: int | None = None) -> None:
    """Set-up of a run: count its operations below `folder`; kill it before operation `kill_at`, from 1."""
    global touches
    touches = Touches(folder, kill_at)
    sys.addaudithook(touches)


touches: Touches | None = None


def _run(recipe: Recipe, out: Path, setups: Sequence[Callable[[], None]], pipe) -> None:
    from dataengine.engine.run import synth

    said = crash = ""
    try:
        for setup in setups:
            setup()
        synth(recipe, out)
    except UserError as error:
        said = str(error)
    except BaseException:
        crash = traceback.format_exc()
    pipe.send((said, crash, touches.count if touches is not None else None))
    pipe.close()
    os._exit(2 if said else 3 if crash else 0)


class Run:
    """A run in its own process. setups: called there before it begins; they must be picklable."""

    def __init__(self, recipe: Recipe, out: Path, *setups: Callable[[], None]):
        self.pipe, theirs = CONTEXT.Pipe(duplex=False)
        self.process = CONTEXT.Process(target=_run, args=(recipe, out, setups, theirs))
        self.process.start()
        theirs.close()

    def kill(self) -> None:
        """SIGKILL, whatever it is doing."""
        os.kill(self.process.pid, signal.SIGKILL)

    def end(self) -> End:
        """Wait for it."""
        try:
            told = self.pipe.recv()
        except EOFError:
            told = "", "", None
        self.process.join()
        return End(self.process.exitcode, *told)


def wait_for(path: Path, run: Run) -> None:
    """Until a path is there, or the run has ended."""
    while not path.exists() and run.process.is_alive():
        time.sleep(0.005)


def contents(out: Path) -> dict[str, bytes]:
    """Every file of a finished run that does not depend on where or how it was made, by its path: without shards that
    were made ahead and not needed."""
    last = json.loads((out / "manifest.jsonl").read_text().splitlines()[-1])["image"].split("/")[1]
    files = [file.relative_to(out) for file in sorted(out.rglob("*")) if file.is_file()]
    files = [file for file in files if file.name not in (".lock", *NOT_THE_ENGINES)]
    files = [file for file in files if file.parts[0] != "shards" or file.parts[1] <= last]
    return {file.as_posix(): (out / file).read_bytes() for file in files}


def kill_and_continue(recipe: Recipe, out: Path, at: int, *setups: Callable[[], None]) -> End:
    """A run that is killed before its operation `at`, and the end of its continuation by the same command."""
    struck = Run(recipe, out, partial(watch, out, at), *setups).end()
    assert struck.killed, f"the run was over before operation {at}: {struck}"
    return Run(recipe, out, *setups).end()
